//! Random histories against a model: any requests of any members in any order, commits that come
//! late and in portions, refusals, connections that go, leaders that change.
//!
//! Checked after every step: every request that waits is answered once, or canceled; nothing is
//! answered that is not committed; the committed state is what the log says; generations only
//! grow and have one leader; a group's parts fit each other. And in the end, when nobody asks
//! anything any more, everybody was answered and nothing is left waiting.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vltava_protocol::ErrorCode;
use vltava_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicId, TopicName};

use super::scene::subscription;
use crate::coordinator::group::ids::{GroupId, InstanceId, MemberId};
use crate::coordinator::group::records::{CommittedOffset, GroupRecord, OffsetKey};
use crate::coordinator::group::request::*;
use crate::coordinator::group::response::*;
use crate::coordinator::group::state::State;
use crate::coordinator::group::{Effect, GroupConfig, GroupShard, Seq, Token};

const GROUPS: [&str; 2] = ["g", "h"];
const CLIENTS: usize = 6;

/// A client, as far as it knows about itself.
#[derive(Clone, Debug, Default)]
struct ClientView {
    member_id: MemberId,
    instance_id: Option<InstanceId>,
    generation: i32,
    members: Vec<MemberId>,
}

/// A request that waits.
#[derive(Debug)]
struct Asked {
    client: usize,
    group: usize,
    /// Whether it is a JoinGroup or SyncGroup, which a member waits with.
    by_member: bool,
    /// The last append that its own handling caused.
    seq: Option<Seq>,
}

struct History {
    rng: ChaCha8Rng,
    shard: GroupShard,
    now: Timestamp,
    log: Vec<GroupRecord>,
    appended: Vec<(Seq, Vec<GroupRecord>)>,
    committed: Seq,
    clients: Vec<ClientView>,
    waiting: BTreeMap<Token, Asked>,
    tokens: u64,
    leading: bool,
    /// The generation and leader that members of a group were told last, in this leadership.
    told: BTreeMap<usize, (i32, MemberId)>,
    trace: Vec<String>,
    replies: BTreeMap<String, u32>,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let config = GroupConfig {
            initial_rebalance_delay_ms: rng.random_range(0..4) * 1000,
            max_size: rng.random_range(3..8),
            offsets_retention_ms: rng.random_range(1..100) * 10_000,
            offsets_retention_check_interval_ms: 30_000,
            ..GroupConfig::default()
        };
        let statics = rng.random_range(0..3);
        let view = |client| ClientView {
            instance_id: (client < statics).then(|| format!("i{}", client % 2).as_str().into()),
            ..ClientView::default()
        };
        let mut history = Self {
            rng,
            shard: GroupShard::new(config, seed),
            now: Timestamp(1_000_000),
            log: Vec::new(),
            appended: Vec::new(),
            committed: Seq::default(),
            clients: (0..CLIENTS).map(view).collect(),
            waiting: BTreeMap::new(),
            tokens: 0,
            leading: false,
            told: BTreeMap::new(),
            trace: Vec::new(),
            replies: BTreeMap::new(),
        };
        history.elect();
        history
    }

    fn elect(&mut self) {
        let mut out = Vec::new();
        self.shard.on_elected(self.now, &mut out);
        self.leading = true;
        self.carry_out(out);
    }

    fn lose(&mut self) {
        let mut out = Vec::new();
        self.shard.on_lost(&mut out);
        self.leading = false;
        self.carry_out(out);
        assert!(self.waiting.is_empty(), "everybody is told");
        assert_eq!(self.shard.parked(), 0);
        assert_eq!(self.shard.next_deadline(), None);
        // Some of what was appended is committed by the next leader after all.
        let survives = self.rng.random_range(0..=self.appended.len());
        for (seq, records) in std::mem::take(&mut self.appended).into_iter().take(survives) {
            self.committed = seq;
            for record in records {
                self.log.push(record.clone());
                self.shard.apply_committed(record);
            }
        }
        self.told.clear();
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..60 => self.ask(),
            60..80 => self.commit_some(),
            80..92 => {
                let ms = [0, 1, 500, 3000, 11_000, 70_000][self.rng.random_range(0..6)];
                self.wait(ms);
            }
            92..95 => self.cancel(),
            95..98 => {
                let topics = [TopicName::new("u")].into();
                let mut out = Vec::new();
                self.shard.on_topics_deleted(&topics, &mut out);
                self.carry_out(out);
            }
            _ if self.leading => self.lose(),
            _ => self.elect(),
        }
        self.check();
    }

    fn ask(&mut self) {
        let client = self.rng.random_range(0..CLIENTS);
        let group = usize::from(self.rng.random_range(0..8) == 0);
        let request = self.request(client, group);
        let token = Token(self.tokens);
        self.tokens += 1;
        let mut out = Vec::new();
        let by_member = matches!(request, GroupRequest::Join(_) | GroupRequest::Sync(_));
        self.waiting.insert(token, Asked { client, group, by_member, seq: None });
        self.shard.handle(token, request, self.now, &mut out);
        let last = out.iter().rev().find_map(|effect| match effect {
            Effect::Append { seq, .. } => Some(*seq),
            Effect::Reply { .. } => None,
        });
        self.waiting.get_mut(&token).unwrap().seq = last;
        self.carry_out(out);
    }

    fn request(&mut self, client: usize, group: usize) -> GroupRequest {
        let group_id = GroupId::from(GROUPS[group]);
        let view = self.clients[client].clone();
        let ClientView { member_id, instance_id, generation, members } = view;
        let topics = |rng: &mut ChaCha8Rng| ["t", "u", "t,u"][rng.random_range(0..3)];
        match self.rng.random_range(0..16) {
            0..5 => {
                let anew = self.rng.random_range(0..4) == 0;
                let version = self.rng.random_range(3..=9);
                let metadata = subscription(topics(&mut self.rng));
                let mut names = vec!["range", "sticky"];
                names.rotate_left(self.rng.random_range(0..2));
                names.truncate(self.rng.random_range(1..=2));
                let protocol =
                    |name: &str| Protocol { name: name.into(), metadata: metadata.clone() };
                GroupRequest::Join(JoinRequest {
                    group_id,
                    member_id: if anew { MemberId::default() } else { member_id },
                    instance_id,
                    client: Client { id: format!("c{client}").into(), host: "/h".into() },
                    session_timeout_ms: 10_000,
                    rebalance_timeout_ms: self.rng.random_range(1..7) * 10_000,
                    protocol_type: "consumer".into(),
                    protocols: names.iter().map(|name| protocol(name)).collect(),
                    reason: None,
                    requires_member_id: version >= 4,
                    can_skip_assignment: version >= 9,
                })
            }
            5..8 => {
                let give = |id: &MemberId| (id.clone(), Bytes::from(format!("{generation}:{id}")));
                GroupRequest::Sync(SyncRequest {
                    group_id,
                    member_id,
                    instance_id,
                    generation,
                    protocol_type: None,
                    protocol: None,
                    assignments: members.iter().map(give).collect(),
                })
            }
            8..10 => GroupRequest::Heartbeat(HeartbeatRequest {
                group_id,
                member_id,
                instance_id,
                generation,
            }),
            10 => {
                let leaving = LeavingMember { member_id, instance_id, reason: None };
                GroupRequest::Leave(LeaveRequest { group_id, members: vec![leaving] })
            }
            11 | 12 => {
                let outside = self.rng.random_range(0..3) == 0;
                let offset = OffsetToCommit {
                    offset: Offset(self.rng.random_range(0..1000)),
                    leader_epoch: LeaderEpoch::NONE,
                    metadata: "".into(),
                };
                let partition = PartitionIndex(self.rng.random_range(0..3));
                GroupRequest::OffsetCommit(OffsetCommitRequest {
                    group_id,
                    member_id: if outside { MemberId::default() } else { member_id },
                    instance_id: if outside { None } else { instance_id },
                    generation: if outside { -1 } else { generation },
                    retention_ms: None,
                    knows_group_id_not_found: true,
                    topics: vec![ByTopic {
                        name: topics(&mut self.rng).split(',').next().unwrap().into(),
                        topic_id: TopicId::ZERO,
                        partitions: vec![(partition, offset)],
                    }],
                })
            }
            13 => GroupRequest::OffsetFetch(OffsetFetchRequest {
                group_id,
                topics: None,
                require_stable: self.rng.random_range(0..2) == 0,
            }),
            14 => match self.rng.random_range(0..3) {
                0 => GroupRequest::Delete(DeleteRequest { group_id }),
                1 => GroupRequest::List(ListRequest::default()),
                _ => {
                    let knows_group_id_not_found = true;
                    GroupRequest::Describe(DescribeRequest { group_id, knows_group_id_not_found })
                }
            },
            _ => GroupRequest::OffsetDelete(OffsetDeleteRequest {
                group_id,
                topics: vec![ByTopic {
                    name: "t".into(),
                    topic_id: TopicId::ZERO,
                    partitions: vec![(PartitionIndex(0), ()), (PartitionIndex(1), ())],
                }],
            }),
        }
    }

    fn commit_some(&mut self) {
        if !self.leading || self.appended.is_empty() {
            return;
        }
        let count = self.rng.random_range(1..=self.appended.len());
        for (seq, records) in self.appended.drain(..count) {
            self.committed = seq;
            self.log.extend(records);
        }
        let mut out = Vec::new();
        self.shard.on_committed(self.committed, self.now, &mut out);
        self.carry_out(out);
    }

    fn wait(&mut self, ms: i64) {
        let until = Timestamp(self.now.0 + ms);
        let mut steps = 0;
        while let Some(deadline) = self.shard.next_deadline().filter(|time| *time <= until) {
            self.now = self.now.max(deadline);
            let mut out = Vec::new();
            self.shard.on_time(self.now, &mut out);
            self.carry_out(out);
            steps += 1;
            assert!(steps < 10_000, "time goes on");
        }
        self.now = until;
    }

    fn cancel(&mut self) {
        let tokens: Vec<Token> = self.waiting.keys().copied().collect();
        if !tokens.is_empty() {
            let token = tokens[self.rng.random_range(0..tokens.len())];
            self.waiting.remove(&token);
            self.shard.cancel(token);
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut refused = false;
        for effect in effects {
            self.trace.push(format!("{effect:?}"));
            match effect {
                Effect::Append { .. } if refused => {}
                Effect::Append { seq, .. } if self.rng.random_range(0..40) == 0 => {
                    refused = true;
                    let mut out = Vec::new();
                    let code = ErrorCode::NotEnoughReplicas;
                    self.shard.on_refused(seq, code, self.now, &mut out);
                    self.carry_out(out);
                }
                Effect::Append { seq, records } => {
                    assert!(self.appended.last().is_none_or(|(last, _)| *last < seq));
                    self.appended.push((seq, records));
                }
                Effect::Reply { token, response } => self.replied(token, response),
            }
        }
    }

    fn replied(&mut self, token: Token, response: GroupResponse) {
        let asked = self.waiting.remove(&token).expect("answered once, to somebody who waits");
        let kind = format!("{response:?}");
        let kind = kind.split(['(', '{', ' ']).next().unwrap().to_owned();
        *self.replies.entry(kind).or_default() += 1;
        let client = &mut self.clients[asked.client];
        match response {
            GroupResponse::Join(join) => {
                if !join.member_id.is_empty() {
                    client.member_id = join.member_id.clone();
                }
                if join.error.is_none() {
                    client.generation = join.generation;
                    client.members = join.members.into_iter().map(|m| m.member_id).collect();
                    if !client.members.is_empty() {
                        assert_eq!(join.leader, join.member_id, "the leader alone is told members");
                        assert!(client.members.contains(&join.leader));
                    }
                    self.told_generation(asked.group, join.generation, &join.leader);
                }
            }
            GroupResponse::Sync(sync) if !sync.assignment.is_empty() => {
                // What it is told is what the log says.
                let group_id = GroupId::from(GROUPS[asked.group]);
                let committed = self.log.iter().rev().find_map(|record| match record {
                    GroupRecord::Group(id, value) if *id == group_id => Some(value.clone()),
                    _ => None,
                });
                let committed = committed.flatten().expect("a committed assignment");
                let holds = |m: &crate::coordinator::group::records::MemberMetadata| {
                    m.assignment == sync.assignment
                };
                assert!(committed.members.iter().any(holds), "{committed:?}");
            }
            GroupResponse::OffsetCommit(_) | GroupResponse::Delete => {
                assert!(asked.seq.is_none_or(|seq| seq <= self.committed), "not before its commit");
            }
            _ => {}
        }
    }

    fn told_generation(&mut self, group: usize, generation: i32, leader: &MemberId) {
        let statics = self.clients.iter().any(|client| client.instance_id.is_some());
        if let Some((last, led)) = self.told.get(&group) {
            assert!(generation >= *last, "generations grow");
            // A static leader has another id when its process is replaced.
            assert!(generation > *last || led == leader || statics, "a generation has one leader");
        }
        self.told.insert(group, (generation, leader.clone()));
    }

    /// Everything that holds at any time.
    fn check(&mut self) {
        let mut offsets: BTreeMap<OffsetKey, CommittedOffset> = BTreeMap::new();
        let mut groups = BTreeMap::new();
        for record in self.log.iter().cloned() {
            match record {
                GroupRecord::Offset(key, Some(value)) => drop(offsets.insert(key, value)),
                GroupRecord::Offset(key, None) => drop(offsets.remove(&key)),
                GroupRecord::Group(id, Some(value)) => drop(groups.insert(id, value)),
                GroupRecord::Group(id, None) => drop(groups.remove(&id)),
            }
        }
        let groups = groups.into_iter().map(|(id, value)| GroupRecord::Group(id, Some(value)));
        let offsets = offsets.into_iter().map(|(key, value)| GroupRecord::Offset(key, Some(value)));
        let expected: Vec<GroupRecord> = groups.chain(offsets).collect();
        assert_eq!(self.shard.iter_committed().collect::<Vec<_>>(), expected);

        assert_eq!(self.shard.parked(), self.waiting.len());
        self.check_waiting();
        self.check_records();
        // A group that is deleted and comes again begins at the beginning.
        let shard = &self.shard;
        self.told.retain(|group, _| shard.group(GROUPS[*group]).is_some());
        for group in self.shard.groups() {
            let members: BTreeSet<&MemberId> = group.members().keys().collect();
            assert!(group.unsynced.iter().all(|id| members.contains(id)));
            assert!(group.pending.keys().all(|id| !members.contains(id)));
            let leads = group.leader.as_ref().is_some_and(|leader| members.contains(leader));
            assert_eq!(leads, !members.is_empty());
            match group.state() {
                State::Empty => assert!(members.is_empty()),
                State::CompletingRebalance | State::Stable => {
                    assert!(leads && group.protocol.is_some());
                    assert_eq!(group.select_protocol().is_some(), leads);
                }
                State::PreparingRebalance => {}
                State::Dead => panic!("no group is dead"),
            }
        }
    }

    /// Whoever waits with a JoinGroup or SyncGroup is a member that will be answered.
    fn check_waiting(&self) {
        let members = self.shard.groups().flat_map(|group| group.members().values());
        let waiting = members.flat_map(|member| [member.join, member.sync]);
        let tokens: BTreeSet<Token> = waiting.flatten().filter_map(|w| w.token).collect();
        let mut asked = self.waiting.iter().filter(|(_, asked)| asked.by_member);
        assert!(asked.all(|(token, _)| tokens.contains(token)), "{:?}", self.waiting);
    }

    /// A leader knows every group of which there is something in the records.
    fn check_records(&self) {
        if !self.leading {
            return;
        }
        let ledger = &self.shard.ledger;
        let metadata = ledger.metadata.range(&GroupId::default()).map(|(id, _)| id.clone());
        let first = OffsetKey::first_of(&GroupId::default());
        let offsets = ledger.offsets.range(&first).map(|(key, _)| key.group_id.clone());
        let recorded: BTreeSet<GroupId> = metadata.chain(offsets).collect();
        let known: BTreeSet<GroupId> = self.shard.groups().map(|group| group.id.clone()).collect();
        assert!(recorded.is_subset(&known), "{recorded:?} {known:?}");
    }

    /// Nobody asks any more: everything comes to rest.
    fn rest(&mut self) {
        if !self.leading {
            self.elect();
        }
        for _ in 0..200 {
            self.wait(10_000);
            while !self.appended.is_empty() {
                self.commit_some();
            }
            self.check();
        }
        assert!(self.waiting.is_empty(), "{:?}", self.waiting);
        assert!(self.shard.groups().all(|group| group.members().is_empty()));
        assert!(self.shard.groups().all(|group| group.pending.is_empty()));
        // All has expired.
        assert_eq!(self.shard.groups().count(), 0);
        assert_eq!(self.shard.iter_committed().count(), 0);
    }
}

fn run(seed: u64, steps: usize) -> History {
    let mut history = History::new(seed);
    for _ in 0..steps {
        history.step();
    }
    history.rest();
    history
}

#[test]
fn any_history_keeps_the_rules() {
    let mut replies: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..300 {
        let caught = std::panic::catch_unwind(|| run(seed, 300));
        let history = caught.unwrap_or_else(|_| panic!("seed {seed}"));
        for (kind, count) in history.replies {
            *replies.entry(kind).or_default() += count;
        }
    }
    // The histories come to something.
    let kinds = ["Join", "Sync", "Heartbeat", "Leave", "OffsetCommit", "OffsetFetch", "Delete"];
    for kind in kinds {
        assert!(replies.get(kind).is_some_and(|count| *count > 20), "{kind}: {replies:?}");
    }
}

#[test]
fn the_same_history_twice_is_the_same() {
    for seed in [3, 14, 159] {
        assert_eq!(run(seed, 200).trace, run(seed, 200).trace);
    }
}
