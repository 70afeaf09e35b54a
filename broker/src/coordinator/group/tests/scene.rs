//! A language for scenes: one step a line, and what came of it.
//!
//! ```text
//! join a => a join MEMBER_ID_REQUIRED     a member without an id asks, and is given one
//! join a =>                               it comes back with it, and waits
//! +3000 => a joined 1 range leader=a members=a
//! ```
//!
//! Members have names of one word; the ids that the shard gives are theirs from then on. Every
//! request is to the group `g`. What is appended is committed after the step, or with `hold` by
//! the step `commit`. The log of the scene keeps what was committed, so that `elect` after `lose`
//! is the election of another replica, which knows that and nothing else.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use vltava_protocol::ErrorCode;
use vltava_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicId, TopicName};

use crate::coordinator::group::classic::ClassicGroup;
use crate::coordinator::group::ids::{GroupId, MemberId};
use crate::coordinator::group::records::GroupRecord;
use crate::coordinator::group::request::*;
use crate::coordinator::group::response::*;
use crate::coordinator::group::{Effect, GroupConfig, GroupShard, Seq, Token};

/// A shard, its log and the clients' view of it.
pub(super) struct Scene {
    pub(super) shard: GroupShard,
    pub(super) now: Timestamp,
    config: GroupConfig,
    log: Vec<GroupRecord>,
    appended: Vec<(Seq, Vec<GroupRecord>)>,
    hold: bool,
    refuse: Option<ErrorCode>,
    ids: BTreeMap<String, MemberId>,
    names: BTreeMap<MemberId, String>,
    tokens: Vec<String>,
    seeds: u64,
}

/// Plays a script with Kafka's defaults, but for the initial delay of a rebalance: none.
pub(super) fn play(script: &str) {
    play_with(GroupConfig { initial_rebalance_delay_ms: 0, ..GroupConfig::default() }, script);
}

/// Plays a script.
pub(super) fn play_with(config: GroupConfig, script: &str) -> Scene {
    let mut scene = Scene::new(config);
    for (number, line) in script.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let (step, expected) = line.split_once("=>").unwrap_or((line, ""));
        let got = scene.step(step.trim()).join("; ");
        let expected = expected.trim().to_owned();
        assert_eq!(got, expected, "line {}: {}", number + 1, line.trim());
    }
    scene
}

/// The arguments of a step: words, and `name=value`.
struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        let named =
            |word: &&&str| word.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
        self.0.iter().find(named).map(|word| &word[name.len() + 1..])
    }

    fn number(&self, name: &str, default: i32) -> i32 {
        self.get(name).map_or(default, |text| text.parse().unwrap())
    }

    fn plain(&self) -> impl Iterator<Item = &'a str> {
        self.0.iter().copied().filter(|word| !word.contains('='))
    }
}

impl Scene {
    pub(super) fn new(config: GroupConfig) -> Self {
        let mut scene = Self {
            shard: GroupShard::new(config.clone(), 0),
            now: Timestamp(1_000_000),
            config,
            log: Vec::new(),
            appended: Vec::new(),
            hold: false,
            refuse: None,
            ids: BTreeMap::new(),
            names: BTreeMap::new(),
            tokens: Vec::new(),
            seeds: 0,
        };
        scene.elect();
        scene
    }

    /// Another replica, that has applied the log, is elected.
    fn elect(&mut self) -> Vec<String> {
        self.seeds += 1;
        self.shard = GroupShard::new(self.config.clone(), self.seeds);
        for record in &self.log {
            self.shard.apply_committed(record.clone());
        }
        let mut out = Vec::new();
        self.shard.on_elected(self.now, &mut out);
        self.carry_out(out)
    }

    fn step(&mut self, step: &str) -> Vec<String> {
        let mut words = step.split_whitespace();
        let verb = words.next().unwrap_or_default();
        let words = Words(words.collect());
        if let Some(ms) = verb.strip_prefix('+') {
            return self.wait(ms.parse().unwrap());
        }
        let mut out = Vec::new();
        match verb {
            "hold" => self.hold = true,
            "commit" => return self.commit(),
            "refuse" => {
                let named = |code: &&ErrorCode| Some(code.name()) == words.plain().next();
                self.refuse = ErrorCode::ALL.iter().find(named).copied();
            }
            "elect" => return self.elect(),
            "lose" => {
                self.appended.clear();
                self.shard.on_lost(&mut out);
            }
            "cancel" => {
                let label = words.0.join(" ");
                let token = self.tokens.iter().rposition(|known| *known == label).unwrap();
                self.shard.cancel(Token(token as u64));
            }
            "drop" => {
                let topics = words.plain().map(TopicName::new).collect();
                self.shard.on_topics_deleted(&topics, &mut out);
            }
            "group" => return vec![self.summary()],
            "history" => return self.history(),
            "log" => {
                return vec![self.log.iter().map(|r| self.record(r)).collect::<Vec<_>>().join(" ")];
            }
            _ => {
                let (label, request) = self.request(verb, &words);
                let token = Token(self.tokens.len() as u64);
                self.tokens.push(label);
                self.shard.handle(token, request, self.now, &mut out);
            }
        }
        self.carry_out(out)
    }

    /// Lets time pass, event by event.
    fn wait(&mut self, ms: i64) -> Vec<String> {
        let until = Timestamp(self.now.0 + ms);
        let mut told = Vec::new();
        while let Some(deadline) = self.shard.next_deadline().filter(|time| *time <= until) {
            self.now = self.now.max(deadline);
            let mut out = Vec::new();
            self.shard.on_time(self.now, &mut out);
            told.extend(self.carry_out(out));
        }
        self.now = until;
        told
    }

    fn commit(&mut self) -> Vec<String> {
        let Some((seq, _)) = self.appended.last() else {
            return Vec::new();
        };
        let seq = *seq;
        self.log.extend(std::mem::take(&mut self.appended).into_iter().flat_map(|(_, r)| r));
        let mut out = Vec::new();
        self.shard.on_committed(seq, self.now, &mut out);
        self.carry_out(out)
    }

    fn carry_out(&mut self, effects: Vec<Effect>) -> Vec<String> {
        for (id, member) in self.shard.groups().flat_map(ClassicGroup::members) {
            self.names.entry(id.clone()).or_insert_with(|| member.client.id.to_string());
        }
        let mut told = Vec::new();
        let mut refused = false;
        for effect in effects {
            match effect {
                Effect::Append { .. } if refused => {}
                Effect::Append { seq, records } => match self.refuse.take() {
                    Some(code) => {
                        refused = true;
                        let mut out = Vec::new();
                        self.shard.on_refused(seq, code, self.now, &mut out);
                        told.extend(self.carry_out(out));
                    }
                    None => self.appended.push((seq, records)),
                },
                Effect::Reply { token, response } => told.push(self.tell(token, response)),
            }
        }
        if !self.hold {
            told.extend(self.commit());
        }
        told
    }

    fn id(&self, name: &str) -> MemberId {
        self.ids.get(name).cloned().unwrap_or_default()
    }

    /// A request and its label.
    fn request(&self, verb: &str, words: &Words<'_>) -> (String, GroupRequest) {
        let group_id = GroupId::from(words.get("group").unwrap_or("g"));
        let name = words.plain().next().unwrap_or_default();
        let member_id = match words.get("id") {
            Some(id) => id.into(),
            None => self.id(name),
        };
        let instance_id = words.get("static").map(Into::into);
        let known = self.shard.group("g").map_or(-1, |group| group.generation);
        let generation = words.number("gen", if member_id.is_empty() { -1 } else { known });
        let request = match verb {
            "join" => GroupRequest::Join(join(words, name, member_id, group_id)),
            "sync" => GroupRequest::Sync(SyncRequest {
                group_id,
                member_id,
                instance_id,
                generation,
                protocol_type: words.get("type").map(Into::into),
                protocol: words.get("protocol").map(Into::into),
                assignments: self.assignments(words.get("give").unwrap_or_default()),
            }),
            "beat" => GroupRequest::Heartbeat(HeartbeatRequest {
                group_id,
                member_id,
                instance_id,
                generation,
            }),
            "leave" => {
                let leaving = |name: &str| match name.strip_prefix('@') {
                    Some(instance) => (MemberId::default(), Some(instance.into())),
                    None => (self.id(name), instance_id.clone()),
                };
                let members = words.plain().map(leaving);
                let reason = words.get("reason").map(str::to_owned);
                let members = members.map(|(member_id, instance_id)| LeavingMember {
                    member_id,
                    instance_id,
                    reason: reason.clone(),
                });
                GroupRequest::Leave(LeaveRequest { group_id, members: members.collect() })
            }
            "offsets" => GroupRequest::OffsetCommit(OffsetCommitRequest {
                group_id,
                member_id,
                instance_id,
                generation,
                retention_ms: words.get("keep").map(|text| text.parse().unwrap()),
                knows_group_id_not_found: words.number("v", 9) >= 9,
                topics: offsets(words),
            }),
            "fetch" => GroupRequest::OffsetFetch(OffsetFetchRequest {
                group_id,
                topics: Some(partitions(words)).filter(|topics| !topics.is_empty()),
                require_stable: words.get("stable").is_some(),
            }),
            "describe" => GroupRequest::Describe(DescribeRequest {
                group_id,
                knows_group_id_not_found: words.number("v", 6) >= 6,
            }),
            "list" => {
                let list = |name| words.get(name).map_or(Vec::new(), |t| vec![t.to_owned()]);
                GroupRequest::List(ListRequest { states: list("states"), types: list("types") })
            }
            "delete" => GroupRequest::Delete(DeleteRequest { group_id }),
            "forget" => GroupRequest::OffsetDelete(OffsetDeleteRequest {
                group_id,
                topics: partitions(words),
            }),
            other => panic!("unknown verb {other}"),
        };
        let label = match verb {
            "join" | "sync" | "beat" | "offsets" => format!("{name} {verb}"),
            _ => verb.to_owned(),
        };
        (label, request)
    }

    /// `a:1,b:2`: what the leader gives to whom.
    fn assignments(&self, text: &str) -> Vec<(MemberId, Bytes)> {
        let give = |pair: &str| {
            let (name, what) = pair.split_once(':').unwrap();
            (self.id(name), Bytes::copy_from_slice(what.as_bytes()))
        };
        text.split(',').filter(|pair| !pair.is_empty()).map(give).collect()
    }

    fn name(&self, id: &MemberId) -> String {
        self.names.get(id).cloned().unwrap_or_else(|| id.to_string())
    }

    fn tell(&mut self, token: Token, response: GroupResponse) -> String {
        let label = self.tokens[token.0 as usize].clone();
        let who = label.split(' ').next().unwrap().to_owned();
        let told = match response {
            GroupResponse::Failed(code) => code.to_string(),
            GroupResponse::Join(join) => return self.tell_join(&who, &label, &join),
            GroupResponse::Sync(sync) => {
                format!("[{}]", String::from_utf8_lossy(&sync.assignment))
            }
            GroupResponse::Heartbeat | GroupResponse::Delete => "ok".to_owned(),
            GroupResponse::Leave(members) => {
                let codes = members.iter().map(|member| member.error.to_string());
                codes.collect::<Vec<_>>().join(",")
            }
            GroupResponse::OffsetCommit(topics) | GroupResponse::OffsetDelete(topics) => {
                each(&topics, ToString::to_string)
            }
            GroupResponse::OffsetFetch(topics) => each(&topics, |fetched| {
                let metadata = if fetched.metadata.is_empty() { "" } else { ":" };
                format!("{}{metadata}{}", fetched.offset, fetched.metadata)
            }),
            GroupResponse::Describe(group) => self.tell_description(&group),
            GroupResponse::List(groups) => {
                let each =
                    |g: &ListedGroup| format!("{}:{}:{}", g.group_id, g.state, g.protocol_type);
                groups.iter().map(each).collect::<Vec<_>>().join(" ")
            }
        };
        format!("{label} {told}").trim().to_owned()
    }

    fn tell_join(&mut self, who: &str, label: &str, join: &JoinResponse) -> String {
        if !join.member_id.is_empty() {
            self.ids.insert(who.to_owned(), join.member_id.clone());
            self.names.insert(join.member_id.clone(), who.to_owned());
        }
        if !join.error.is_none() {
            return format!("{label} {}", join.error);
        }
        let members = join.members.iter().map(|member| self.name(&member.member_id));
        let mut members: Vec<String> = members.collect();
        members.sort();
        let mut told = format!(
            "{who} joined {} {} leader={}",
            join.generation,
            join.protocol.as_deref().unwrap_or("-"),
            self.name(&join.leader)
        );
        if !members.is_empty() {
            told = format!("{told} members={}", members.join(","));
        }
        if join.skip_assignment {
            told += " skip";
        }
        told
    }

    fn tell_description(&self, group: &DescribedGroup) -> String {
        if !group.error.is_none() {
            return format!("{} {}", group.error, group.error_message.as_deref().unwrap_or("-"));
        }
        let member = |member: &DescribedMember| {
            let assignment = String::from_utf8_lossy(&member.assignment);
            let said = if member.metadata.is_empty() { "" } else { "+" };
            format!(" {}{said}[{assignment}]", self.name(&member.member_id))
        };
        let mut members: Vec<String> = group.members.iter().map(member).collect();
        members.sort();
        format!("{}:{}:{}{}", group.state, group.protocol_type, group.protocol, members.concat())
    }

    /// The group's state, generation and members, as the shard has them.
    fn summary(&self) -> String {
        let Some(group) = self.shard.group("g") else {
            return "none".to_owned();
        };
        let mut members: Vec<String> = group.members().keys().map(|id| self.name(id)).collect();
        members.sort();
        format!("{} {} {}", group.state(), group.generation, members.join(",")).trim().to_owned()
    }

    fn history(&self) -> Vec<String> {
        let group = self.shard.group("g").unwrap();
        let tell = |rebalance: &crate::coordinator::group::history::Rebalance| {
            let member = rebalance.member.as_ref().map(|member| self.name(&member.member_id));
            let slowest = rebalance.slowest.as_ref();
            let slowest =
                slowest.map(|(member, ms)| format!(" {}@{ms}", self.name(&member.member_id)));
            format!(
                "{} ({}) {:?} {:?}{}",
                rebalance.cause.describe(),
                member.unwrap_or_default(),
                rebalance.generation.unwrap_or(-1),
                rebalance.total_ms.unwrap_or(-1),
                slowest.unwrap_or_default(),
            )
        };
        group.history.rebalances().map(tell).collect()
    }

    fn record(&self, record: &GroupRecord) -> String {
        match record {
            GroupRecord::Offset(key, Some(value)) => format!("{}={}", key.tp, value.offset),
            GroupRecord::Offset(key, None) => format!("-{}", key.tp),
            GroupRecord::Group(id, None) => format!("-{id}"),
            GroupRecord::Group(id, Some(value)) => {
                let members = value.members.iter().map(|member| self.name(&member.member_id));
                let mut members: Vec<String> = members.collect();
                members.sort();
                format!("{id}:{}[{}]", value.generation, members.join(","))
            }
        }
    }
}

fn each<T>(topics: &[ByTopic<T>], tell: impl Fn(&T) -> String) -> String {
    let topics = topics.iter().flat_map(|topic| {
        let tell = &tell;
        topic.partitions.iter().map(move |(p, what)| format!("{}-{p}={}", topic.name, tell(what)))
    });
    topics.collect::<Vec<_>>().join(" ")
}

fn join(words: &Words<'_>, name: &str, member_id: MemberId, group_id: GroupId) -> JoinRequest {
    let protocols = words.get("protocols").unwrap_or("range");
    let topics = words.get("topics").unwrap_or("t");
    let protocol = |name: &str| Protocol { name: name.into(), metadata: subscription(topics) };
    let version = words.number("v", 9);
    JoinRequest {
        group_id,
        member_id,
        instance_id: words.get("static").map(Into::into),
        client: Client { id: name.into(), host: "/127.0.0.1".into() },
        session_timeout_ms: words.number("session", 10_000),
        rebalance_timeout_ms: words.number("rebalance", 60_000),
        protocol_type: words.get("type").unwrap_or("consumer").into(),
        protocols: protocols.split(',').filter(|p| !p.is_empty()).map(protocol).collect(),
        reason: None,
        requires_member_id: version >= 4,
        can_skip_assignment: version >= 9,
    }
}

/// A `ConsumerProtocolSubscription` of version 0.
pub(super) fn subscription(topics: &str) -> Bytes {
    if topics == "rubbish" {
        return Bytes::from_static(b"\0\0\0\0\0");
    }
    let topics: Vec<&str> = topics.split(',').filter(|topic| !topic.is_empty()).collect();
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(topics.len() as i32);
    for topic in topics {
        bytes.put_i16(topic.len() as i16);
        bytes.put_slice(topic.as_bytes());
    }
    bytes.put_i32(-1);
    bytes.freeze()
}

/// `t-0=5` or `t-0=5:metadata`.
fn offsets<'a>(words: &Words<'a>) -> Vec<ByTopic<OffsetToCommit>> {
    let parse = |word: &'a str| {
        let (tp, value) = word.split_once('=')?;
        let (topic, partition) = tp.rsplit_once('-')?;
        let (offset, metadata) = value.split_once(':').unwrap_or((value, ""));
        let offset = OffsetToCommit {
            offset: Offset(offset.parse().unwrap()),
            leader_epoch: LeaderEpoch(1),
            metadata: metadata.into(),
        };
        Some((topic, PartitionIndex(partition.parse().unwrap()), offset))
    };
    by_topic(words.0.iter().copied().filter_map(parse))
}

/// `t-0`.
fn partitions(words: &Words<'_>) -> Vec<ByTopic<()>> {
    let parse = |word: &str| {
        let (topic, partition) = word.rsplit_once('-').unwrap();
        (topic.to_owned(), PartitionIndex(partition.parse().unwrap()), ())
    };
    let parsed: Vec<_> = words.plain().map(parse).collect();
    by_topic(parsed.iter().map(|(topic, partition, ())| (topic.as_str(), *partition, ())))
}

fn by_topic<'a, T>(entries: impl Iterator<Item = (&'a str, PartitionIndex, T)>) -> Vec<ByTopic<T>> {
    let mut topics: Vec<ByTopic<T>> = Vec::new();
    for (topic, partition, what) in entries {
        if topics.last().is_none_or(|last| last.name != topic) {
            let name = TopicName::new(topic);
            topics.push(ByTopic { name, topic_id: TopicId::ZERO, partitions: Vec::new() });
        }
        topics.last_mut().unwrap().partitions.push((partition, what));
    }
    topics
}
