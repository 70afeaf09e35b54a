//! A member of a simulated group, and what members were promised.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use vltava::coordinator::group::ids::{GroupId, MemberId, Text};
use vltava::coordinator::group::request::{
    ByTopic, Client, HeartbeatRequest, JoinRequest, LeaveRequest, LeavingMember,
    OffsetCommitRequest, OffsetFetchRequest, OffsetToCommit, Protocol, SyncRequest,
};
use vltava::coordinator::group::response::JoinedMember;
use vltava::coordinator::group::{GroupRequest, GroupResponse, GroupShard, Token};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicId, TopicName};
use vltava_storage::ids::ReplicaId;

use crate::checker::{Violation, violated};
use crate::coverage::Coverage;

const NAME: &str = "group";
const TOPIC: &str = "t";
/// Partitions that the members share.
const PARTITIONS: i32 = 7;
/// A member that is silent for so long is removed.
const SESSION_MS: i32 = 3_000;
/// A rebalance waits so long for a member.
const REBALANCE_MS: i32 = 1_500;
const HEARTBEAT_MS: i64 = 150;
/// A member waits so long for an answer that does not depend on others.
const PATIENCE_MS: i64 = 400;
/// `ConsumerProtocolSubscription` of the topic.
const SUBSCRIPTION: &[u8] = b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff";

/// What all members together know to be true.
#[derive(Debug, Default)]
pub(super) struct Promises {
    /// Acknowledged commits.
    pub(super) acknowledged: usize,
    /// The highest offset of each partition whose commit was acknowledged.
    committed: BTreeMap<i32, i64>,
    /// Every offset that somebody tried to commit.
    attempted: BTreeSet<(i32, i64)>,
    /// Who was given a partition in a generation.
    owners: BTreeMap<(i32, i32), MemberId>,
}

impl Promises {
    pub(super) fn attempt(&mut self, commit: &OffsetCommitRequest) {
        for (partition, offset) in commit.topics.iter().flat_map(|topic| &topic.partitions) {
            self.attempted.insert((partition.0, offset.offset.0));
        }
    }

    fn own(
        &mut self,
        generation: i32,
        partitions: &[i32],
        member: &MemberId,
    ) -> Result<(), Violation> {
        for partition in partitions {
            let key = (generation, *partition);
            let owner = self.owners.entry(key).or_insert_with(|| member.clone());
            if owner != member {
                violated!("generation {generation}: {owner} and {member} own {partition}");
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, offsets: &BTreeMap<i32, i64>) {
        self.acknowledged += 1;
        for (partition, offset) in offsets {
            let known = self.committed.entry(*partition).or_insert(*offset);
            *known = (*known).max(*offset);
        }
    }

    /// `found` must not be before what was `promised`, and nobody's invention.
    fn compare(
        &self,
        what: &str,
        partition: i32,
        found: i64,
        promised: &BTreeMap<i32, i64>,
    ) -> Result<(), Violation> {
        let promised = promised.get(&partition).copied().unwrap_or(-1);
        if found < promised {
            violated!("{what}: {promised} was acknowledged of {partition}, {found} is there");
        }
        if found != -1 && !self.attempted.contains(&(partition, found)) {
            violated!("{what}: nobody committed {found} of {partition}");
        }
        Ok(())
    }

    /// A shard holds what was acknowledged.
    pub(super) fn check(&self, shard: &GroupShard) -> Result<(), Violation> {
        let group_id = GroupId::from(NAME);
        let offsets = shard.committed_offsets_of(&group_id);
        let found: BTreeMap<_, _> =
            offsets.map(|(key, value)| (key.tp.partition.0, value.offset.0)).collect();
        for partition in 0..PARTITIONS {
            let found = found.get(&partition).copied().unwrap_or(-1);
            self.compare("at the end", partition, found, &self.committed)?;
        }
        Ok(())
    }
}

/// What a member wants to say, and to whom.
pub(super) struct Said {
    pub(super) desk: ReplicaId,
    pub(super) request: GroupRequest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Out,
    Joined { assignments: Vec<(MemberId, Bytes)> },
    Assigned,
    Reading,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Question {
    Join,
    Sync,
    Fetch { promised: BTreeMap<i32, i64> },
    Heartbeat,
    Commit { offsets: BTreeMap<i32, i64> },
    Leave,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Member {
    number: usize,
    id: MemberId,
    generation: i32,
    phase: Phase,
    /// The next offset to read of each partition that it was given.
    positions: BTreeMap<i32, i64>,
    coordinator: Option<ReplicaId>,
    /// What it is about to wait for.
    asking: Option<Question>,
    waiting: Option<(Token, Timestamp, Question)>,
    next_heartbeat: Timestamp,
    silent_until: Timestamp,
    /// It neither falls silent nor leaves any more.
    is_steady: bool,
}

impl Member {
    pub(super) fn new(number: usize) -> Self {
        Self {
            number,
            id: MemberId::default(),
            generation: -1,
            phase: Phase::Out,
            positions: BTreeMap::new(),
            coordinator: None,
            asking: None,
            waiting: None,
            next_heartbeat: Timestamp(0),
            silent_until: Timestamp(0),
            is_steady: false,
        }
    }

    /// It reads and commits.
    pub(super) fn is_reading(&self) -> bool {
        self.phase == Phase::Reading
    }

    /// From now on it does its work.
    pub(super) fn wake(&mut self) {
        self.silent_until = Timestamp(0);
        self.is_steady = true;
    }

    /// Whether it has waited for too long; it then asks again, perhaps somebody else.
    pub(super) fn give_up(&mut self, now: Timestamp) -> Option<Token> {
        let (token, since, question) = self.waiting.as_ref()?;
        let patience = match question {
            // Others are waited for.
            Question::Join | Question::Sync => i64::from(REBALANCE_MS) + PATIENCE_MS,
            _ => PATIENCE_MS,
        };
        if now.0 - since.0 < patience {
            return None;
        }
        let token = *token;
        self.waiting = None;
        self.coordinator = None;
        Some(token)
    }

    /// What it says now, to the coordinator that it knows or has `found`.
    pub(super) fn speak(
        &mut self,
        now: Timestamp,
        found: Option<ReplicaId>,
        rng: &mut ChaCha8Rng,
    ) -> Option<Said> {
        if self.waiting.is_some() || now < self.silent_until || !rng.random_ratio(1, 4) {
            return None;
        }
        if !self.is_steady && rng.random_ratio(1, 400) {
            self.silent_until = Timestamp(now.0 + i64::from(SESSION_MS) * 3 / 2);
            return None;
        }
        self.coordinator = self.coordinator.or(found);
        let desk = self.coordinator?;
        let may_leave = !self.is_steady && self.phase == Phase::Reading;
        let (question, request) = match self.phase.clone() {
            _ if may_leave && rng.random_ratio(1, 150) => (Question::Leave, self.leave()),
            Phase::Out => (Question::Join, self.join()),
            Phase::Joined { assignments } => (Question::Sync, self.sync(assignments)),
            // What was promised is entered when the question is on its way.
            Phase::Assigned => (Question::Fetch { promised: BTreeMap::new() }, self.fetch()),
            Phase::Reading if now >= self.next_heartbeat => {
                self.next_heartbeat = Timestamp(now.0 + HEARTBEAT_MS);
                (Question::Heartbeat, self.heartbeat())
            }
            Phase::Reading if self.positions.is_empty() => return None,
            Phase::Reading => {
                for position in self.positions.values_mut() {
                    *position += rng.random_range(0..5);
                }
                (Question::Commit { offsets: self.positions.clone() }, self.commit())
            }
        };
        self.asking = Some(question);
        Some(Said { desk, request })
    }

    /// The question is on its way.
    pub(super) fn wait(&mut self, token: Token, now: Timestamp, promises: &Promises) {
        let mut question = self.asking.take().expect("it has spoken");
        if let Question::Fetch { promised } = &mut question {
            promised.clone_from(&promises.committed);
        }
        self.waiting = Some((token, now, question));
    }

    /// An answer. `is_newest`: of a coordinator that no newer one has replaced; what a deposed one
    /// shows may be old, as in Kafka.
    pub(super) fn hear(
        &mut self,
        token: Token,
        response: GroupResponse,
        is_newest: bool,
        now: Timestamp,
        promises: &mut Promises,
        coverage: &mut Coverage,
    ) -> Result<(), Violation> {
        let Some((_, _, question)) = self.waiting.take_if(|(waiting, ..)| *waiting == token) else {
            return Ok(());
        };
        match (question, response) {
            (Question::Join, GroupResponse::Join(joined)) => match joined.error {
                ErrorCode::None => {
                    self.id = joined.member_id;
                    self.generation = joined.generation;
                    let is_leader = joined.leader == self.id;
                    let assignments = if is_leader { assign(&joined.members) } else { Vec::new() };
                    self.phase = Phase::Joined { assignments };
                }
                ErrorCode::MemberIdRequired => self.id = joined.member_id,
                code => self.refused(code, coverage),
            },
            (Question::Sync, GroupResponse::Sync(synced)) => {
                coverage.hit("member given its partitions");
                let partitions: Vec<i32> =
                    synced.assignment.iter().map(|partition| i32::from(*partition)).collect();
                promises.own(self.generation, &partitions, &self.id)?;
                self.positions = partitions.into_iter().map(|partition| (partition, 0)).collect();
                self.phase = Phase::Assigned;
            }
            (Question::Fetch { promised }, GroupResponse::OffsetFetch(topics)) => {
                let what = format!("member {} of generation {}", self.number, self.generation);
                for (partition, found) in topics.iter().flat_map(|topic| &topic.partitions) {
                    let found = found.offset.0;
                    if is_newest {
                        promises.compare(&what, partition.0, found, &promised)?;
                    }
                    self.positions.insert(partition.0, found.max(0));
                }
                if !is_newest {
                    // A real one asks again when it is refused; here it must not begin behind.
                    self.coordinator = None;
                    return Ok(());
                }
                coverage.hit("member goes on from what was committed");
                self.phase = Phase::Reading;
                self.next_heartbeat = now;
            }
            (Question::Heartbeat, GroupResponse::Heartbeat) => coverage.hit("heartbeat"),
            (Question::Commit { offsets }, GroupResponse::OffsetCommit(topics)) => {
                let codes = topics.iter().flat_map(|topic| &topic.partitions);
                if codes.clone().all(|(_, code)| *code == ErrorCode::None) {
                    coverage.hit("commit acknowledged");
                    promises.acknowledge(&offsets);
                }
            }
            (Question::Leave, GroupResponse::Leave(_)) => {
                coverage.hit("member left");
                self.rejoin();
                self.id = MemberId::default();
            }
            (_, GroupResponse::Failed(code)) => self.refused(code, coverage),
            (question, response) => violated!("{question:?} is answered by {response:?}"),
        }
        Ok(())
    }

    fn refused(&mut self, code: ErrorCode, coverage: &mut Coverage) {
        match code {
            ErrorCode::RebalanceInProgress => {
                coverage.hit("member told of a rebalance");
                self.rejoin();
            }
            ErrorCode::IllegalGeneration => {
                coverage.hit("member of an old generation refused");
                self.rejoin();
            }
            ErrorCode::UnknownMemberId => {
                coverage.hit("member was removed");
                self.rejoin();
                self.id = MemberId::default();
            }
            _ => {
                coverage.hit("member looks for another coordinator");
                self.coordinator = None;
            }
        }
    }

    fn rejoin(&mut self) {
        self.phase = Phase::Out;
        self.positions.clear();
    }

    fn join(&self) -> GroupRequest {
        GroupRequest::Join(JoinRequest {
            group_id: NAME.into(),
            member_id: self.id.clone(),
            instance_id: None,
            client: Client { id: format!("member-{}", self.number).into(), host: "/sim".into() },
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: REBALANCE_MS,
            protocol_type: "consumer".into(),
            protocols: vec![Protocol {
                name: "range".into(),
                metadata: Bytes::from_static(SUBSCRIPTION),
            }],
            reason: None,
            requires_member_id: true,
            can_skip_assignment: false,
        })
    }

    fn sync(&self, assignments: Vec<(MemberId, Bytes)>) -> GroupRequest {
        GroupRequest::Sync(SyncRequest {
            group_id: NAME.into(),
            member_id: self.id.clone(),
            instance_id: None,
            generation: self.generation,
            protocol_type: None,
            protocol: None,
            assignments,
        })
    }

    fn heartbeat(&self) -> GroupRequest {
        GroupRequest::Heartbeat(HeartbeatRequest {
            group_id: NAME.into(),
            member_id: self.id.clone(),
            instance_id: None,
            generation: self.generation,
        })
    }

    fn leave(&self) -> GroupRequest {
        let member_id = self.id.clone();
        let leaving = LeavingMember { member_id, instance_id: None, reason: None };
        GroupRequest::Leave(LeaveRequest { group_id: NAME.into(), members: vec![leaving] })
    }

    fn fetch(&self) -> GroupRequest {
        GroupRequest::OffsetFetch(OffsetFetchRequest {
            group_id: NAME.into(),
            topics: Some(vec![self.topic(|_| ())]),
            require_stable: true,
        })
    }

    fn commit(&self) -> GroupRequest {
        let topic = self.topic(|offset| OffsetToCommit {
            offset: Offset(offset),
            leader_epoch: LeaderEpoch::NONE,
            metadata: Text::default(),
        });
        GroupRequest::OffsetCommit(OffsetCommitRequest {
            group_id: NAME.into(),
            member_id: self.id.clone(),
            instance_id: None,
            generation: self.generation,
            retention_ms: None,
            knows_group_id_not_found: true,
            topics: vec![topic],
        })
    }

    fn topic<T>(&self, of: impl Fn(i64) -> T) -> ByTopic<T> {
        let partitions = self.positions.iter();
        ByTopic {
            name: TopicName::new(TOPIC),
            topic_id: TopicId::ZERO,
            partitions: partitions.map(|(p, offset)| (PartitionIndex(*p), of(*offset))).collect(),
        }
    }
}

/// Each partition to one member, a byte each.
fn assign(members: &[JoinedMember]) -> Vec<(MemberId, Bytes)> {
    let given = |at: usize| {
        let partitions = (0..PARTITIONS).filter(|p| *p as usize % members.len() == at);
        Bytes::from(partitions.map(|partition| partition as u8).collect::<Vec<_>>())
    };
    members.iter().enumerate().map(|(at, member)| (member.member_id.clone(), given(at))).collect()
}
