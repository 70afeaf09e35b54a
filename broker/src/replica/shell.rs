//! One replica: a group's state machine, its log, and the order in which effects happen.
//!
//! The shell owns no thread, no clock and no socket. Whoever drives it (the broker's threads, the
//! simulator) calls it under the partition's lock, sends the [`Output::messages`] and delivers the
//! flusher's completed tickets to [`Replica::on_durable`].
//!
//! **Invariants** (each is a check of the simulator)
//! 1. While a changed term or vote is not durable, no message of that step or any later one leaves,
//!    leader or not: a lone voter becomes leader inside one step and would replicate an entry of a
//!    term that it can forget.
//! 2. A promise (vote, acknowledgement) leaves when its step and all before it are durable, state
//!    and entries alike.
//! 3. Raft learns that a step is persisted after both.
//! 4. A failed write after a step ends this replica's group, unsent: it begins again as a follower
//!    from what the log holds, once that is durable.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use vltava_protocol::ids::{LeaderEpoch, Offset, Timestamp};
use vltava_protocol::record::batch::BatchHeader;
use vltava_protocol::record::control::{InternalBatch, InternalKind};
use vltava_storage::bugs::{Bug, planted};
use vltava_storage::flush::FlushItem;
use vltava_storage::flusher::FlushQueue;
use vltava_storage::ids::{LogIndex, ReplicaId};
use vltava_storage::log::{AppendError, Durability, PartitionLog};
use vltava_storage::producers::{Admission, ProducerError};
use vltava_storage::state::Membership;

use super::abstention::{AbstainAction, Abstention, LogEnd, Testimony};
use super::effects::{Effect, Step};
use super::group::{Fetch, GroupConfig, MessageRefused, PartitionGroup, ProposeRefused, Role};
use super::membership::MembershipStep;
use super::message::{Payload, PeerBody, PeerEntry, PeerMessage};
use super::snapshot::{ChunkOutcome, SnapshotReceived, SnapshotsSent, Stalled};

/// Ticks between two saves of the applied index, if it moved and nothing else saved it.
const SAVE_COMMIT_TICKS: u32 = 50;

/// What a call left to be done outside the lock.
#[derive(Debug, Default)]
pub struct Output {
    /// For peers, in order per peer. They may be lost.
    pub messages: Vec<PeerMessage>,
    /// Ranges to read into memory, then to give to [`Replica::on_fetched`].
    pub fetches: Vec<Fetch>,
    /// What this replica gave up: too few voters of a page-cache topic kept their log.
    pub losses: Vec<TailLoss>,
}

/// A log goes on although committed batches past its end may be lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TailLoss {
    /// How far this replica knows that the group had committed.
    pub known_committed: LogIndex,
    /// The last index that any voter still has.
    pub end_index: LogIndex,
    /// The offset after its last record: from here on the log is written anew.
    pub end_offset: Offset,
}

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendRefused {
    /// The group takes no proposals here.
    #[error(transparent)]
    Propose(#[from] ProposeRefused),
    /// The batch does not follow what its producer wrote before.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// The log could not be written. Raft is untouched.
    #[error(transparent)]
    Log(#[from] AppendError),
    /// An earlier write failed, and its position is not sealed off yet.
    #[error("the log waits for a new segment after a failed write")]
    Burnt,
    /// The replica is fenced, or begins again.
    #[error("the replica is not in service")]
    NotServing,
}

/// A batch in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// Its index: committed when the group's commit index reaches it.
    pub index: LogIndex,
    /// The epoch that proposed it.
    pub epoch: LeaderEpoch,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The broker's time in it, if the topic stamps one.
    pub timestamp: Timestamp,
    /// It was there already: a retry.
    pub is_duplicate: bool,
}

/// Why a replica no longer takes part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fenced(pub String);

struct Outstanding {
    step: u64,
    ticket: u64,
    vote_changed: bool,
}

enum State {
    Active(Box<PartitionGroup>),
    /// A write failed: begin again when `ticket` is durable and time has passed.
    Restarting {
        log: Box<PartitionLog>,
        ticket: u64,
        is_durable: bool,
        has_ticked: bool,
    },
    Fenced(Fenced),
    /// Only inside a call, while the state is taken out.
    Taken,
}

/// A replica of one partition.
pub struct Replica {
    id: ReplicaId,
    state: State,
    queue: Arc<FlushQueue>,
    config: GroupConfig,
    durability: Durability,
    last_ticket: u64,
    /// Executed steps that are not durable, oldest first.
    outstanding: VecDeque<Outstanding>,
    /// A leader's messages behind a vote that is not durable.
    parked: VecDeque<(u64, Vec<PeerMessage>)>,
    /// Promises behind steps that are not durable.
    held: VecDeque<(u64, Vec<PeerMessage>)>,
    sent: SnapshotsSent,
    received: Option<SnapshotReceived>,
    abstention: Option<Abstention>,
    /// The ticket of the segment that seals off a burnt position.
    unburn_ticket: Option<u64>,
    ticks_since_save: u32,
}

impl Replica {
    /// Takes part in the group of `log`, all of which is durable. Call [`Replica::poll`] next.
    pub fn new(
        log: PartitionLog,
        durability: Durability,
        config: GroupConfig,
        queue: Arc<FlushQueue>,
    ) -> Self {
        let id = log.replica();
        let abstention = log.state().abstaining.is_some().then(Abstention::default);
        let group = PartitionGroup::new(log, durability, config);
        Self {
            id,
            state: State::Active(Box::new(group)),
            queue,
            config,
            durability,
            last_ticket: 0,
            outstanding: VecDeque::new(),
            parked: VecDeque::new(),
            held: VecDeque::new(),
            sent: SnapshotsSent::default(),
            received: None,
            abstention,
            unburn_ticket: None,
            ticks_since_save: 0,
        }
    }

    /// This replica.
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// Its log, unless it is fenced.
    pub fn log(&self) -> Option<&PartitionLog> {
        match &self.state {
            State::Active(group) => Some(group.log()),
            State::Restarting { log, .. } => Some(log),
            State::Fenced(_) | State::Taken => None,
        }
    }

    /// Its group, while it takes part.
    pub fn group(&self) -> Option<&PartitionGroup> {
        match &self.state {
            State::Active(group) => Some(group),
            _ => None,
        }
    }

    /// Why it does not take part any more, if so.
    pub fn fenced(&self) -> Option<&Fenced> {
        match &self.state {
            State::Fenced(fenced) => Some(fenced),
            _ => None,
        }
    }

    /// What it is; a replica out of service follows.
    pub fn role(&self) -> Role {
        self.group().map_or(Role::Follower, PartitionGroup::role)
    }

    /// Whether it abstains because it may have lost a tail.
    pub fn abstains(&self) -> bool {
        self.abstention.is_some()
    }

    /// The term in which it leads.
    pub fn leading(&self) -> Option<LeaderEpoch> {
        let group = self.group().filter(|group| group.role() == Role::Leader)?;
        Some(epoch(group.term()))
    }

    /// Who takes part.
    pub fn membership(&self) -> Membership {
        self.group().map(PartitionGroup::membership).unwrap_or_default()
    }

    /// Whether time matters to this replica: a lone voter that leads waits for nobody.
    pub fn needs_ticks(&self) -> bool {
        match &self.state {
            State::Active(group) => {
                let is_settled = group.is_lone_voter()
                    && group.role() == Role::Leader
                    && group.matched().len() == 1;
                !is_settled || group.log().is_burnt() || self.abstention.is_some()
            }
            State::Restarting { .. } => true,
            State::Fenced(_) | State::Taken => false,
        }
    }

    /// Takes this replica out of service because it can no longer be trusted; its files stay as
    /// they are.
    pub fn fence(&mut self, reason: impl Into<String>) {
        let reason = reason.into();
        tracing::error!(replica = %self.id, %reason, "replica fenced");
        self.leave(Fenced(reason));
    }

    /// Takes this replica out of service: the node stops, or the partition is deleted.
    pub fn retire(&mut self) {
        self.leave(Fenced("retired".to_owned()));
    }

    fn leave(&mut self, why: Fenced) {
        self.state = State::Fenced(why);
        self.outstanding.clear();
        self.parked.clear();
        self.held.clear();
        self.received = None;
    }

    /// Ends the replica and gives its log back.
    pub fn into_log(self) -> Option<PartitionLog> {
        match self.state {
            State::Active(group) => Some(group.into_log()),
            State::Restarting { log, .. } => Some(*log),
            State::Fenced(_) | State::Taken => None,
        }
    }

    /// Executes what is due.
    pub fn poll(&mut self, output: &mut Output) {
        self.guarded(output, |_, _| {});
    }

    /// Time passes.
    pub fn tick(&mut self, output: &mut Output) {
        if let State::Restarting { has_ticked, .. } = &mut self.state {
            *has_ticked = true;
            self.restart_if_due(output);
            return;
        }
        self.guarded(output, |replica, output| {
            replica.tick_abstention(output);
            replica.tick_snapshots(output);
            replica.tick_group();
        });
    }

    /// Asks for votes now, unless it abstains.
    pub fn campaign(&mut self, output: &mut Output) {
        if self.abstention.is_none() {
            self.guarded(output, |replica, _| replica.active().campaign());
        }
    }

    /// A peer says something. Impossible messages are dropped with the reason.
    pub fn step(
        &mut self,
        message: PeerMessage,
        output: &mut Output,
    ) -> Result<(), MessageRefused> {
        let mut result = Ok(());
        self.guarded(output, |replica, output| result = replica.dispatch(message, output));
        result
    }

    /// The flusher completed everything up to `ticket`.
    pub fn on_durable(&mut self, ticket: u64, output: &mut Output) {
        if let State::Restarting { ticket: waits_for, is_durable, .. } = &mut self.state {
            *is_durable |= ticket >= *waits_for;
            self.restart_if_due(output);
            return;
        }
        self.guarded(output, |replica, output| {
            if replica.unburn_ticket.is_some_and(|waits_for| ticket >= waits_for) {
                replica.unburn_ticket = None;
                replica.log_mut().unburnt_durable();
            }
            replica.settle(ticket, output);
        });
    }

    /// The ranges of an [`Output`] were read into memory.
    pub fn on_fetched(&mut self, fetches: Vec<Fetch>, output: &mut Output) {
        self.guarded(output, |replica, _| {
            for fetch in fetches {
                replica.active().on_fetched(fetch);
            }
        });
    }

    /// A peer could not be reached.
    pub fn report_unreachable(&mut self, peer: ReplicaId, output: &mut Output) {
        self.guarded(output, |replica, _| replica.active().report_unreachable(peer));
    }

    /// Appends a client's batch: checks every cause of a refusal, writes at the unpublished tail,
    /// then steps raft. On an error nothing is in the log and raft is untouched.
    pub fn append(
        &mut self,
        batch: &Bytes,
        header: &BatchHeader,
        now: Timestamp,
        output: &mut Output,
    ) -> Result<Placed, AppendRefused> {
        let epoch = self.check_append()?;
        let log = self.log_mut();
        match log.check_producer(header, now)? {
            Admission::Append => {}
            Admission::Duplicate { base_offset, timestamp, .. } => {
                let index = log.index_at(base_offset).unwrap_or(LogIndex(0));
                let original = log.epoch_at(index).unwrap_or(epoch);
                return Ok(Placed {
                    index: if planted(Bug::DuplicateAckedBeforeOriginal) {
                        LogIndex(0)
                    } else {
                        index
                    },
                    epoch: original,
                    base_offset,
                    timestamp,
                    is_duplicate: true,
                });
            }
        }
        let placed = Placed {
            index: log.last_index().next(),
            epoch,
            base_offset: log.end_offset(),
            timestamp: Timestamp::NONE,
            is_duplicate: false,
        };
        let written = log.write_ahead(epoch, batch, header, now);
        self.propose(written, output)?;
        Ok(placed)
    }

    /// Moves the log start to `offset`: a committed entry, so that deleted data stays deleted
    /// whoever leads next.
    pub fn propose_log_start(
        &mut self,
        offset: Offset,
        output: &mut Output,
    ) -> Result<Placed, AppendRefused> {
        let epoch = self.check_append()?;
        let log = self.log_mut();
        let placed = Placed {
            index: log.last_index().next(),
            epoch,
            base_offset: log.end_offset(),
            timestamp: Timestamp::NONE,
            is_duplicate: false,
        };
        let body = InternalBatch::log_start_body(offset);
        let written = log.write_ahead_internal(epoch, InternalKind::LogStart, &body);
        self.propose(written, output)?;
        Ok(placed)
    }

    /// Proposes a change of membership.
    pub fn propose_membership(
        &mut self,
        step: &MembershipStep,
        output: &mut Output,
    ) -> Result<(), AppendRefused> {
        self.check_append()?;
        let mut result = Ok(());
        self.guarded(output, |replica, _| result = replica.active().propose_membership(step));
        Ok(result?)
    }

    /// Hands leadership over.
    pub fn transfer_to(&mut self, target: ReplicaId, output: &mut Output) {
        self.guarded(output, |replica, _| replica.active().transfer_to(target));
    }

    /// The topic's durability changed.
    pub fn set_durability(&mut self, durability: Durability) {
        self.durability = durability;
        if let State::Active(group) = &mut self.state {
            group.set_durability(durability);
        }
    }

    /// Hands what the log left in its outbox to the flusher, for changes made outside a step.
    pub fn flush_outbox(&mut self) -> u64 {
        let items = match &mut self.state {
            State::Active(group) => group.log_mut().take_flush_items(),
            State::Restarting { log, .. } => log.take_flush_items(),
            State::Fenced(_) | State::Taken => Vec::new(),
        };
        self.push(items)
    }

    /// The log, for decisions that are no steps (retention, rolling, closing).
    pub fn with_log<R>(&mut self, change: impl FnOnce(&mut PartitionLog) -> R) -> Option<R> {
        let result = match &mut self.state {
            State::Active(group) => Some(change(group.log_mut())),
            State::Restarting { log, .. } => Some(change(log)),
            State::Fenced(_) | State::Taken => None,
        };
        let items = match &mut self.state {
            State::Active(group) => group.log_mut().take_flush_items(),
            State::Restarting { log, .. } => log.take_flush_items(),
            State::Fenced(_) | State::Taken => Vec::new(),
        };
        if !items.is_empty() {
            self.queue.push(items);
        }
        result
    }

    // --- one call

    /// Runs `change` on an active group, then everything that is due. A panic inside raft is a
    /// fact about this group alone: it is fenced, the node lives.
    fn guarded(&mut self, output: &mut Output, change: impl FnOnce(&mut Self, &mut Output)) {
        if !matches!(self.state, State::Active(_)) {
            return;
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            change(self, output);
            self.run(output);
        }));
        if let Err(panic) = outcome {
            output.messages.clear();
            self.fence(format!("panic in the group: {}", panic_text(&*panic)));
        }
    }

    fn run(&mut self, output: &mut Output) {
        loop {
            self.lead_if_alone(output);
            let Some(step) = self.active().next_step() else { break };
            let (number, vote_changed, must_sync) =
                (step.number, step.vote_changed, step.must_sync);
            if let Err(error) = self.execute(step, output) {
                return self.restart_after(&error);
            }
            let items = self.take_items(vote_changed);
            let needs_disk = !items.is_empty();
            let ticket = if needs_disk { self.push(items) } else { self.last_ticket };
            self.active().finish();
            self.outstanding.push_back(Outstanding { step: number, ticket, vote_changed });
            let is_durable_at_once = !needs_disk && self.outstanding.len() == 1;
            let released_by_bug = planted(Bug::AckBeforePersist)
                || (planted(Bug::HeldReleasedByMustSync) && !must_sync);
            if is_durable_at_once {
                self.settle(ticket, output);
            } else if released_by_bug {
                self.release_early(number, output);
            }
            // What finishing applied (membership, log start) is saved with the applied index; it
            // is found again from the log if the row is lost, so nothing waits for it.
            let items = self.log_mut().take_flush_items();
            if !items.is_empty() {
                self.queue.push(items);
            }
        }
        let leads = self.role() == Role::Leader;
        if leads {
            self.active().leave_stale_joint();
        } else {
            let Self { state: State::Active(group), sent, .. } = self else { return };
            sent.end_all(group.log_mut());
        }
        output.fetches.extend(self.active().take_fetches());
        self.end_abstention_if_refilled();
    }

    fn take_items(&mut self, vote_changed: bool) -> Vec<FlushItem> {
        let mut items = self.log_mut().take_flush_items();
        if vote_changed && planted(Bug::VoteNotPersisted) {
            items.retain(|item| !matches!(item, FlushItem::State { .. }));
        }
        items
    }

    fn execute(&mut self, step: Step, output: &mut Output) -> Result<(), AppendError> {
        let Step { number, vote_changed, effects, .. } = step;
        for effect in effects {
            match effect {
                Effect::SaveState(vote) => self.log_mut().save_vote(vote),
                Effect::Install => self.install()?,
                Effect::Cut(from) => self.log_mut().cut(from)?,
                Effect::Write(entries) => self.write(entries)?,
                Effect::Commit(index) => self.log_mut().commit_to(index),
                Effect::Send(messages) => {
                    let messages = self.outgoing(messages);
                    let waits_for_vote =
                        vote_changed || self.outstanding.iter().any(|step| step.vote_changed);
                    if waits_for_vote && !planted(Bug::MessageBeforeVoteDurable) {
                        self.parked.push_back((number, messages));
                    } else {
                        output.messages.extend(messages);
                    }
                }
                Effect::Hold(messages) => {
                    let messages = self.outgoing(messages);
                    self.held.push_back((number, messages));
                }
            }
        }
        Ok(())
    }

    /// Writes entries at the end of the log, or publishes those that were written ahead.
    fn write(&mut self, entries: Vec<PeerEntry>) -> Result<(), AppendError> {
        let leading = self.leading();
        let log = self.log_mut();
        if log.unpublished() > 0 {
            assert_eq!(log.unpublished(), entries.len(), "a step holds all that was written ahead");
            for entry in entries {
                log.publish(entry.index, epoch(entry.term));
            }
            return Ok(());
        }
        if let Some(epoch) = leading
            && log.is_burnt()
        {
            // An entry that raft bore itself would be sent before the burnt position is sealed off.
            return Err(AppendError::Burnt(epoch));
        }
        let mut base_offset = log.end_offset();
        let mut batches = Vec::with_capacity(entries.len());
        for entry in entries {
            let epoch = epoch(entry.term);
            let batch = into_batch(entry.payload, base_offset, epoch);
            if let Ok(header) = BatchHeader::parse(&batch) {
                base_offset = header.end_offset();
            }
            batches.push((entry.index, epoch, batch));
        }
        log.append_all(&batches)
    }

    /// Everything up to `ticket` is durable: tells raft, and lets go what waited for it.
    fn settle(&mut self, ticket: u64, output: &mut Output) {
        let mut durable_step = None;
        while let Some(step) = self.outstanding.front() {
            if step.ticket > ticket {
                break;
            }
            durable_step = Some(step.step);
            self.outstanding.pop_front();
        }
        let Some(durable_step) = durable_step else { return };
        self.active().on_durable(durable_step);
        while self.held.front().is_some_and(|(step, _)| *step <= durable_step) {
            let (_, messages) = self.held.pop_front().expect("it was just seen");
            let messages = self.allowed(messages);
            output.messages.extend(messages);
        }
        let barrier = self.outstanding.iter().find(|step| step.vote_changed);
        let barrier = barrier.map_or(u64::MAX, |step| step.step);
        while self.parked.front().is_some_and(|(step, _)| *step < barrier) {
            let (_, messages) = self.parked.pop_front().expect("it was just seen");
            output.messages.extend(messages);
        }
    }

    /// Only for planted bugs: lets promises go that nothing on disk backs.
    fn release_early(&mut self, step: u64, output: &mut Output) {
        if planted(Bug::AckBeforePersist) {
            self.active().on_durable(step);
        }
        while let Some((_, messages)) = self.held.pop_front() {
            output.messages.extend(messages);
        }
    }

    /// A lone voter needs nobody's vote; all it holds must be durable first, because it becomes
    /// leader inside one step. If it may have lost a tail there is nobody to compare with.
    fn lead_if_alone(&mut self, output: &mut Output) {
        let group = self.active();
        let is_idle = group.role() != Role::Leader && group.is_lone_voter();
        if !is_idle || !self.outstanding.is_empty() {
            return;
        }
        if self.abstention.is_some() {
            self.lead_with_what_is_left(output);
        } else {
            self.active().campaign();
        }
    }

    /// This replica has the most of all voters, too few of which are intact.
    fn lead_with_what_is_left(&mut self, output: &mut Output) {
        let log = self.log_mut();
        let loss = TailLoss {
            known_committed: log.committed(),
            end_index: log.last_index(),
            end_offset: log.end_offset(),
        };
        tracing::error!(
            replica = %log.replica(), ?loss,
            "too few voters kept their log: what was acknowledged past this end is lost"
        );
        output.losses.push(loss);
        self.end_abstention();
        self.active().campaign();
    }

    fn check_append(&self) -> Result<LeaderEpoch, AppendRefused> {
        let group = self.group().ok_or(AppendRefused::NotServing)?;
        group.check_propose()?;
        if self.queue.is_poisoned() {
            return Err(AppendRefused::NotServing);
        }
        if group.log().is_burnt() && !planted(Bug::AttemptedPositionReused) {
            return Err(AppendRefused::Burnt);
        }
        Ok(epoch(group.term()))
    }

    fn propose(
        &mut self,
        written: Result<Bytes, AppendError>,
        output: &mut Output,
    ) -> Result<(), AppendRefused> {
        match written {
            Ok(batch) => {
                self.guarded(output, |replica, _| replica.active().propose_written(vec![batch]));
                match self.state {
                    State::Active(_) => Ok(()),
                    _ => Err(AppendRefused::NotServing),
                }
            }
            Err(error) => {
                self.seal_burnt_position();
                Err(error.into())
            }
        }
    }

    /// After a failed write: begins the segment that makes the attempt invalid for ever.
    fn seal_burnt_position(&mut self) {
        if self.unburn_ticket.is_some() || !self.log().is_some_and(PartitionLog::is_burnt) {
            return;
        }
        match self.log_mut().unburn() {
            Ok(()) => {
                let items = self.log_mut().take_flush_items();
                self.unburn_ticket = Some(self.push(items));
            }
            Err(error) => {
                tracing::warn!(replica = %self.id, %error, "cannot begin a segment yet");
            }
        }
    }

    fn push(&mut self, mut items: Vec<FlushItem>) -> u64 {
        self.last_ticket += 1;
        items.push(FlushItem::Ticket { replica: self.id, ticket: self.last_ticket });
        self.queue.push(items);
        self.last_ticket
    }

    // --- beginning again

    fn restart_after(&mut self, error: &AppendError) {
        tracing::warn!(replica = %self.id, %error, "a write failed, the replica begins again");
        self.outstanding.clear();
        self.parked.clear();
        self.held.clear();
        self.received = None;
        self.unburn_ticket = None;
        let State::Active(group) = std::mem::replace(&mut self.state, State::Taken) else {
            unreachable!("only an active group executes steps");
        };
        let mut log = group.into_log();
        self.sent.end_all(&mut log);
        let ticket = self.push(log.take_flush_items());
        self.state =
            State::Restarting { log: Box::new(log), ticket, is_durable: false, has_ticked: false };
    }

    fn restart_if_due(&mut self, output: &mut Output) {
        let State::Restarting { is_durable: true, has_ticked: true, .. } = self.state else {
            return;
        };
        let State::Restarting { mut log, .. } = std::mem::replace(&mut self.state, State::Taken)
        else {
            unreachable!("it was just seen");
        };
        if log.unburn().is_err() {
            // Still no room for a segment: again at the next tick.
            let ticket = self.last_ticket;
            self.state = State::Restarting { log, ticket, is_durable: true, has_ticked: false };
            return;
        }
        let items = log.take_flush_items();
        if !items.is_empty() {
            let ticket = self.push(items);
            self.state = State::Restarting { log, ticket, is_durable: false, has_ticked: false };
            return;
        }
        log.unburnt_durable();
        let group = PartitionGroup::new(*log, self.durability, self.config);
        self.state = State::Active(Box::new(group));
        self.poll(output);
    }

    // --- time

    fn tick_group(&mut self) {
        self.seal_burnt_position();
        let durability = self.active().durability();
        self.log_mut().set_durability(durability);
        self.ticks_since_save += 1;
        if self.ticks_since_save >= SAVE_COMMIT_TICKS {
            self.ticks_since_save = 0;
            self.log_mut().save_applied();
        }
        if self.abstention.is_some() && self.role() != Role::Leader {
            return;
        }
        let is_waiting_alone = {
            let has_outstanding = !self.outstanding.is_empty();
            let group = self.active();
            group.is_lone_voter() && group.role() != Role::Leader && has_outstanding
        };
        if !is_waiting_alone {
            self.active().tick();
        }
    }

    fn tick_snapshots(&mut self, output: &mut Output) {
        let Self { state: State::Active(group), sent, .. } = self else { return };
        for peer in sent.peers() {
            if !group.awaits_snapshot(peer) {
                sent.ended(peer, group.log_mut());
            }
        }
        for peer in sent.tick(group.log_mut()) {
            group.report_snapshot(peer, false);
        }
        let Some(received) = &mut self.received else { return };
        let (to, _) = received.sender();
        match received.tick() {
            Ok(Some(body)) => self.say(to, body, output),
            Ok(None) => {}
            Err(Stalled) => self.abandon_snapshot(),
        }
    }

    fn tick_abstention(&mut self, output: &mut Output) {
        if self.abstention.is_none() {
            return;
        }
        let (own, end) = (self.id, self.log_end());
        let group = self.active();
        let (voters, leader, term) = (group.membership().voters, group.leader(), group.term());
        let abstention = self.abstention.as_mut().expect("it was just seen");
        abstention.on_new_term(term);
        match abstention.tick(own, end, &voters, leader) {
            AbstainAction::Wait => {}
            AbstainAction::AskLeader => {
                let body = PeerBody::TailLost { last_index: end.index, last_term: end.term };
                self.say(leader.expect("it asks the leader"), body, output);
            }
            AbstainAction::Survey => {
                for voter in voters.into_iter().filter(|voter| *voter != own) {
                    self.say(voter, PeerBody::Survey, output);
                }
            }
            AbstainAction::Campaign => self.lead_with_what_is_left(output),
        }
    }

    // --- messages

    fn dispatch(
        &mut self,
        message: PeerMessage,
        output: &mut Output,
    ) -> Result<(), MessageRefused> {
        let from = message.from;
        match message.body {
            PeerBody::Snapshot { index, last_term, manifest } => {
                self.on_snapshot_offer(from, message.term, index, last_term, manifest, output);
            }
            PeerBody::ChunkRequest { index, base_index, position } => {
                let Self { state: State::Active(group), sent, .. } = self else { return Ok(()) };
                let chunk = sent.chunk(from, index, base_index, position, group.log());
                self.say(from, chunk, output);
            }
            PeerBody::Chunk { index, base_index, position, data } => {
                self.on_chunk(from, index, base_index, position, &data, output);
            }
            PeerBody::TailLost { last_index, .. } => {
                if let Some(until) = self.active().forget_progress(from, last_index) {
                    self.say(from, PeerBody::TailRefill { until }, output);
                }
            }
            PeerBody::TailRefill { until } => {
                let group = self.active();
                let is_leaders = group.leader() == Some(from) && group.term() == message.term;
                if let Some(abstention) = self.abstention.as_mut().filter(|_| is_leaders) {
                    abstention.on_refill(message.term, until);
                }
            }
            PeerBody::Survey => {
                let end = self.log_end();
                let testimony = PeerBody::Testimony {
                    abstains: self.abstention.is_some(),
                    last_index: end.index,
                    last_term: end.term,
                };
                self.say(from, testimony, output);
            }
            PeerBody::Testimony { abstains, last_index, last_term } => {
                if let Some(abstention) = &mut self.abstention {
                    let end = LogEnd { term: last_term, index: last_index };
                    abstention.on_testimony(from, Testimony { abstains, end });
                }
            }
            PeerBody::RequestVote { .. } if !self.may_vote_for(from) => {}
            PeerBody::TimeoutNow if self.abstention.is_some() => {}
            _ => return self.active().step(message),
        }
        Ok(())
    }

    fn on_snapshot_offer(
        &mut self,
        from: ReplicaId,
        term: u64,
        index: LogIndex,
        last_term: u64,
        manifest: Bytes,
        output: &mut Output,
    ) {
        let group = self.active();
        let is_stale = term < group.term() || index <= group.log().committed();
        if is_stale || self.received.as_ref().is_some_and(|received| received.is(from, index)) {
            return;
        }
        self.abandon_snapshot();
        let Some(log) = self.log() else { return };
        let Some(mut received) = SnapshotReceived::begin(from, term, last_term, manifest, log)
        else {
            return;
        };
        if let Some(body) = received.request() {
            self.received = Some(received);
            self.say(from, body, output);
        } else {
            let outcome = received.finish();
            self.received = Some(received);
            self.on_chunk_outcome(&outcome, output);
        }
    }

    fn on_chunk(
        &mut self,
        from: ReplicaId,
        index: LogIndex,
        base_index: LogIndex,
        position: u64,
        data: &[u8],
        output: &mut Output,
    ) {
        let received = self.received.as_mut().filter(|received| received.is(from, index));
        let Some(received) = received else { return };
        let outcome = received.on_chunk(base_index, position, data);
        self.on_chunk_outcome(&outcome, output);
    }

    fn on_chunk_outcome(&mut self, outcome: &ChunkOutcome, output: &mut Output) {
        let Some(received) = &self.received else { return };
        let (from, term) = received.sender();
        match outcome {
            ChunkOutcome::Ignored => {}
            ChunkOutcome::More => {
                if let Some(body) = received.request() {
                    self.say(from, body, output);
                }
            }
            ChunkOutcome::Complete => {
                let snapshot = received.received();
                self.active().step_snapshot(from, term, snapshot);
            }
            ChunkOutcome::Failed => self.abandon_snapshot(),
        }
    }

    fn install(&mut self) -> Result<(), AppendError> {
        let received = self.received.take().expect("raft was shown a complete snapshot");
        self.log_mut().install(received.into_install())
    }

    fn abandon_snapshot(&mut self) {
        if let Some(received) = self.received.take() {
            received.abandon();
        }
    }

    fn may_vote_for(&self, candidate: ReplicaId) -> bool {
        let Some(abstention) = &self.abstention else { return true };
        let voters = self.membership().voters;
        abstention.may_vote_for(candidate, self.id, self.log_end(), &voters)
    }

    /// Notes what is being offered, and drops what an abstaining replica may not say.
    fn outgoing(&mut self, messages: Vec<PeerMessage>) -> Vec<PeerMessage> {
        let Self { state: State::Active(group), sent, .. } = self else { return Vec::new() };
        for message in &messages {
            if let PeerBody::Snapshot { index, .. } = message.body {
                sent.offered(message.to, index, group.log_mut());
            }
        }
        messages
    }

    fn allowed(&self, messages: Vec<PeerMessage>) -> Vec<PeerMessage> {
        let Some(abstention) = &self.abstention else { return messages };
        let may = |message: &PeerMessage| match message.body {
            PeerBody::AppendResponse { reject: false, .. } => {
                abstention.may_acknowledge(message.term)
            }
            _ => true,
        };
        messages.into_iter().filter(may).collect()
    }

    fn end_abstention_if_refilled(&mut self) {
        let term = match &self.state {
            State::Active(group) => group.term(),
            _ => return,
        };
        let durable = if self.outstanding.is_empty() {
            self.log_end().index
        } else {
            return;
        };
        if self.abstention.as_ref().is_some_and(|it| it.is_refilled(term, durable)) {
            tracing::info!(replica = %self.id, "refilled by the leader, takes part again");
            self.end_abstention();
        }
    }

    fn end_abstention(&mut self) {
        self.abstention = None;
        self.log_mut().set_abstaining(None);
        self.flush_outbox();
    }

    fn say(&self, to: ReplicaId, body: PeerBody, output: &mut Output) {
        let term = self.group().map_or(0, PartitionGroup::term);
        output.messages.push(PeerMessage { from: self.id, to, term, body });
    }

    fn log_end(&self) -> LogEnd {
        let Some(log) = self.log() else { return LogEnd { term: 0, index: LogIndex(0) } };
        let index = log.last_index();
        let term = log.epoch_at(index).map_or(0, super::log_store::term_of);
        LogEnd { term, index }
    }

    fn active(&mut self) -> &mut PartitionGroup {
        match &mut self.state {
            State::Active(group) => group,
            _ => unreachable!("guarded calls run on an active group only"),
        }
    }

    fn log_mut(&mut self) -> &mut PartitionLog {
        self.active().log_mut()
    }
}

/// A term as Kafka's leader epoch; peers' terms are range-checked, ours grow by one.
fn epoch(term: u64) -> LeaderEpoch {
    LeaderEpoch(i32::try_from(term).expect("terms are checked to fit a leader epoch"))
}

/// The bytes of an entry in the log: the same on every replica.
fn into_batch(payload: Payload, base_offset: Offset, epoch: LeaderEpoch) -> Bytes {
    match payload {
        Payload::Batch(batch) => batch,
        Payload::Noop => InternalBatch::encode(base_offset, epoch, InternalKind::Noop, &[]),
        Payload::ConfChange(body) => {
            InternalBatch::encode(base_offset, epoch, InternalKind::ConfChange, &body)
        }
        Payload::ConfChangeV2(body) => {
            InternalBatch::encode(base_offset, epoch, InternalKind::ConfChangeV2, &body)
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}
