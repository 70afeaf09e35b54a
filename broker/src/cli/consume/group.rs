//! `vltava consume --group`: a member of a group that prints what it is assigned.
//!
//! ```text
//! join ──> begin where the group has committed ──> fetch, print, commit, heartbeat ──> leave
//!  ^                                                  │
//!  └──────────── the group divides anew ──────────────┘
//! ```
//!
//! What is committed has been printed: a member that dies prints its last records again when it
//! comes back, and loses none. All happens in turn in one task: while nobody reads the output, no
//! heartbeat is sent either, and after a session's time others get the partitions.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;
use vltava_protocol::ids::{Offset, PartitionIndex};

use super::{ConsumeArgs, Printer, interrupted, out_of_range};
use crate::cli::CommandError;
use crate::client::group::Offsets;
use crate::client::group::member::{Member, MemberOptions, Standing};
use crate::client::group::protocol::Partitions;
use crate::client::{Client, ClusterTopic, ConsumedRecord, StartOffset};

/// How long the coordinator waits for all members of a group to join again.
const REBALANCE_TIMEOUT: Duration = Duration::from_mins(1);
/// Heartbeats in a session; also how much sooner than it a member's silence must end.
const HEARTBEATS_PER_SESSION: u32 = 15;
/// How long a member that is told to stop tries to commit, and then to leave.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait after a failure that may pass.
const BACKOFF: Duration = Duration::from_millis(200);

/// The options of a member.
#[derive(Debug, Args)]
pub(super) struct GroupArgs {
    /// Read as a member of this group, sharing the partitions with its other members.
    #[arg(long, value_name = "NAME", conflicts_with = "partition")]
    group: Option<String>,
    /// How often a member commits.
    #[arg(long, value_name = "MS", default_value_t = 5_000, requires = "group")]
    commit_interval: u64,
    /// After how long a silence a member counts as dead.
    #[arg(long, value_name = "MS", default_value_t = 45_000, requires = "group")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    session_timeout: u64,
}

impl GroupArgs {
    pub(super) fn is_given(&self) -> bool {
        self.group.is_some()
    }
}

/// A member that reads, and how far it is.
struct Reading {
    client: Client,
    member: Member,
    topic: ClusterTopic,
    start: StartOffset,
    printer: Printer,
    /// Where to fetch next; all before it has been printed.
    positions: BTreeMap<PartitionIndex, Offset>,
    committed: BTreeMap<PartitionIndex, Offset>,
    is_joined: bool,
    heartbeat_interval: Duration,
    heartbeat_due: Instant,
    commit_interval: Duration,
    commit_due: Instant,
}

/// Reads until there is enough, or Ctrl-C; then commits and leaves. A second Ctrl-C ends at once.
pub(super) async fn consume(args: ConsumeArgs) -> Result<(), CommandError> {
    let mut reading = Reading::begin(&args).await?;
    let done = tokio::select! {
        done = reading.read() => done,
        () = interrupted() => Ok(()),
    };
    // Whatever went wrong, the others should not have to wait for the end of the session.
    let left = tokio::select! {
        left = reading.leave() => left,
        () = interrupted() => {
            Err(CommandError::Argument("interrupted before the group was left".to_owned()))
        }
    };
    done.and(left)
}

impl Reading {
    async fn begin(args: &ConsumeArgs) -> Result<Self, CommandError> {
        if matches!(args.start(), StartOffset::At(_)) {
            let wrong = "--offset N with --group: the group says where to begin, \
                         see `vltava group reset-offsets`";
            return Err(CommandError::Argument(wrong.to_owned()));
        }
        let mut client = args.client.connect().await?;
        let topic = client.topic(&args.topic, false).await?;
        let session_timeout = Duration::from_millis(args.group.session_timeout);
        let member = Member::new(MemberOptions {
            group: args.group.group.clone().expect("the option is given"),
            topics: vec![args.topic.clone()],
            session_timeout,
            rebalance_timeout: REBALANCE_TIMEOUT,
        });
        Ok(Self {
            client,
            member,
            topic,
            start: args.start(),
            printer: Printer::new(args),
            positions: BTreeMap::new(),
            committed: BTreeMap::new(),
            is_joined: false,
            heartbeat_interval: session_timeout / HEARTBEATS_PER_SESSION,
            heartbeat_due: Instant::now(),
            commit_interval: Duration::from_millis(args.group.commit_interval),
            commit_due: Instant::now(),
        })
    }

    /// Reads on. A failure that may pass is borne for as long as a request may take.
    async fn read(&mut self) -> Result<(), CommandError> {
        let mut trouble: Option<Instant> = None;
        loop {
            match self.step().await {
                Ok(Step::Done) => return Ok(()),
                Ok(Step::Idle) => {}
                Ok(Step::Moved) => trouble = None,
                Err(CommandError::Client(error)) if error.is_passing() => {
                    let since = *trouble.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.client.timeout() {
                        return Err(error.into());
                    }
                    tokio::time::sleep(BACKOFF).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn step(&mut self) -> Result<Step, CommandError> {
        if !self.is_joined {
            self.join().await?;
            return Ok(Step::Moved);
        }
        if Instant::now() >= self.heartbeat_due {
            let standing = self.member.heartbeat(&mut self.client).await?;
            self.heartbeat_due = Instant::now() + self.heartbeat_interval;
            self.stand(standing).await?;
            return Ok(Step::Moved);
        }
        if Instant::now() >= self.commit_due {
            let standing = self.commit().await?;
            self.stand(standing).await?;
            return Ok(Step::Moved);
        }
        let Some(wait) = self.printer.next_wait(self.client.timeout()) else {
            return Ok(Step::Done);
        };
        let due = self.heartbeat_due.min(self.commit_due);
        let wait = wait.min(due.saturating_duration_since(Instant::now()));
        if self.positions.is_empty() {
            tokio::time::sleep(wait).await;
            return Ok(Step::Idle);
        }
        self.fetch(wait).await?;
        Ok(Step::Moved)
    }

    /// Joins, and finds where to begin.
    async fn join(&mut self) -> Result<(), CommandError> {
        self.positions.clear();
        self.committed.clear();
        self.member.join(&mut self.client).await?;
        let name = self.topic.name.clone();
        let assigned = self.member.assignment().get(&name).cloned().unwrap_or_default();
        self.topic = self.client.topic(&name, false).await?;
        let group = &self.member.options().group;
        let wanted = Partitions::from([(name, assigned.clone())]);
        let committed = self.client.committed(group, Some(&wanted)).await?;
        let of_topic = committed.into_iter().map(|((_, index), one)| (index, one.offset));
        self.committed = of_topic.collect();
        self.positions = self.committed.clone();
        let is_new = |index: &PartitionIndex| !self.positions.contains_key(index);
        let new: Vec<PartitionIndex> = assigned.into_iter().filter(is_new).collect();
        self.positions.extend(self.client.start_offsets(&self.topic, &new, self.start).await?);
        self.is_joined = true;
        self.heartbeat_due = Instant::now() + self.heartbeat_interval;
        self.commit_due = Instant::now() + self.commit_interval;
        self.printer.listen();
        Ok(())
    }

    /// What follows from how the member stands.
    async fn stand(&mut self, standing: Standing) -> Result<(), CommandError> {
        match standing {
            Standing::Steady => return Ok(()),
            // While the others gather the group still takes commits, and begins after them.
            Standing::Rebalance => drop(self.commit().await?),
            Standing::Lost => {}
        }
        self.is_joined = false;
        Ok(())
    }

    async fn commit(&mut self) -> Result<Standing, CommandError> {
        self.commit_due = Instant::now() + self.commit_interval;
        let is_new = |(index, offset): &(&PartitionIndex, &Offset)| {
            self.committed.get(index) != Some(*offset)
        };
        let offset = |(index, offset): (&PartitionIndex, &Offset)| {
            ((self.topic.name.clone(), *index), *offset)
        };
        let offsets: Offsets = self.positions.iter().filter(is_new).map(offset).collect();
        let standing = self.member.commit(&mut self.client, &offsets).await?;
        if standing == Standing::Steady {
            self.committed = self.positions.clone();
        }
        Ok(standing)
    }

    /// Fetches once and prints. The positions move behind what was printed, and only then.
    async fn fetch(&mut self, wait: Duration) -> Result<(), CommandError> {
        let mut positions = self.positions.clone();
        let fetched = self.client.fetch(&self.topic, &mut positions, wait).await;
        let consumed = match fetched {
            Err(error) if error.is_passing() => {
                // Its leader may be elsewhere by now.
                self.topic = self.client.topic(&self.topic.name, false).await?;
                return Err(error.into());
            }
            fetched => fetched?,
        };
        if consumed.moved {
            self.topic = self.client.topic(&self.topic.name, false).await?;
        }
        let rest = self.printer.print(consumed.records)?;
        unread(&mut positions, &rest);
        self.positions = positions;
        self.begin_again(&consumed.out_of_range).await
    }

    /// Partitions whose position is gone begin where the group would begin without one.
    async fn begin_again(&mut self, lost: &[PartitionIndex]) -> Result<(), CommandError> {
        for index in lost {
            let gone = out_of_range(&self.topic, *index, self.positions[index]);
            let found = self.client.start_offsets(&self.topic, &[*index], self.start).await?;
            let offset = found.get(index).copied().ok_or(gone)?;
            eprintln!(
                "vltava: offset {} of {}-{index} is gone, reading on at {offset}",
                self.positions[index], self.topic.name
            );
            self.positions.insert(*index, offset);
        }
        Ok(())
    }

    /// Commits what was printed and leaves the group.
    async fn leave(&mut self) -> Result<(), CommandError> {
        let committed = if self.is_joined {
            self.insist(async |reading| reading.commit().await.map(drop)).await
        } else {
            Ok(())
        };
        let left = async |reading: &mut Self| Ok(reading.member.leave(&mut reading.client).await?);
        self.insist(left).await?;
        committed
    }

    /// Takes a last step again if it fails in a way that may pass: the connection may be one to a
    /// broker that has come back meanwhile.
    async fn insist(
        &mut self,
        mut step: impl AsyncFnMut(&mut Self) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        let end = Instant::now() + LEAVE_PATIENCE.min(self.client.timeout());
        loop {
            match step(self).await {
                Err(CommandError::Client(error))
                    if error.is_passing() && Instant::now() + BACKOFF < end =>
                {
                    tokio::time::sleep(BACKOFF).await;
                }
                done => return done,
            }
        }
    }
}

/// What a step brought.
enum Step {
    /// Something happened.
    Moved,
    /// There was nothing to do.
    Idle,
    /// There has been enough.
    Done,
}

/// Moves the positions back to the first of the records of each partition that were not printed.
fn unread(positions: &mut BTreeMap<PartitionIndex, Offset>, records: &[ConsumedRecord]) {
    for record in records {
        if let Some(position) = positions.get_mut(&record.partition) {
            *position = (*position).min(record.offset);
        }
    }
}
