//! A classic group: its members, its generation, and what they have in common.
//!
//! This file is the group's data and the questions about it; how it moves from state to state is
//! in `join`, `sync` and `leave`.
//!
//! Invariants: a group that is `Empty` has no members, one that is `CompletingRebalance` or
//! `Stable` has some, a leader among them and a protocol; `supported` counts for each name the
//! members that have it. Volatile: after a failover a group is what its last record says, as of
//! its last finished rebalance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use vltava_protocol::ErrorCode;
use vltava_protocol::ids::{Timestamp, TopicName};

use super::history::History;
use super::ids::{GroupId, InstanceId, MemberId, Text};
use super::member::Member;
use super::records::GroupMetadata;
use super::request::Protocol;
use super::response::JoinedMember;
use super::state::State;
use super::subscription::{CONSUMER, read_topics};

/// A classic group.
#[derive(Clone, Debug)]
pub struct ClassicGroup {
    /// Its id.
    pub id: GroupId,
    /// How many rebalances it has had.
    pub generation: i32,
    /// What kind of protocols its members speak; none before the first member.
    pub protocol_type: Option<Text>,
    /// The protocol of this generation.
    pub protocol: Option<Text>,
    /// The member that assigns.
    pub leader: Option<MemberId>,
    /// Members that were given an id and have not joined yet, each until when.
    pub pending: BTreeMap<MemberId, Timestamp>,
    /// Members of this generation that have not asked for their assignment yet.
    pub unsynced: BTreeSet<MemberId>,
    /// While the first members of an empty group are waited for.
    pub initial: Option<InitialDelay>,
    /// What happened to it.
    pub history: History,
    state: State,
    state_since: Timestamp,
    members: BTreeMap<MemberId, Member>,
    statics: BTreeMap<InstanceId, MemberId>,
    supported: BTreeMap<Text, usize>,
    topics: Option<BTreeSet<TopicName>>,
}

/// How long an empty group's first rebalance is still held open for more members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitialDelay {
    /// How long the running delay is, in milliseconds.
    pub delay_ms: i32,
    /// What may be added to it while members keep coming.
    pub remaining_ms: i32,
    /// Whether one came during the running delay.
    pub member_added: bool,
}

impl ClassicGroup {
    /// A group without members.
    pub fn new(id: GroupId, now: Timestamp) -> Self {
        Self {
            id,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            pending: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            initial: None,
            history: History::default(),
            state: State::Empty,
            state_since: now,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            supported: BTreeMap::new(),
            topics: None,
        }
    }

    /// A group as its last record says: stable, if it has members. A record of a broken broker
    /// (members, but no leader among them or no protocol) is an empty group of that generation.
    pub fn load(id: GroupId, metadata: &GroupMetadata, now: Timestamp) -> Self {
        let mut group = Self::new(id, now);
        group.generation = metadata.generation;
        group.state_since = metadata.state_timestamp;
        if !metadata.protocol_type.is_empty() {
            group.protocol_type = Some(metadata.protocol_type.clone());
        }
        if let Some(protocol) = &metadata.protocol {
            for member in &metadata.members {
                let (member_id, member) = Member::load(member, protocol.clone(), now);
                group.insert(member_id, member);
            }
        }
        if !group.members.is_empty() {
            group.state = State::Stable;
            group.protocol.clone_from(&metadata.protocol);
            let known = |leader: &&MemberId| group.members.contains_key(*leader);
            group.leader = metadata.leader.as_ref().filter(known).cloned();
            group.find_leader();
        }
        group.topics = group.read_topics();
        group
    }

    /// The group as it goes into a record, with these assignments for its members.
    pub fn store(&self, assignments: &BTreeMap<MemberId, Bytes>) -> Arc<GroupMetadata> {
        let store = |(member_id, member): (&MemberId, &Member)| {
            let assignment = assignments.get(member_id).cloned().unwrap_or_default();
            member.store(member_id, self.protocol.as_deref(), assignment)
        };
        Arc::new(GroupMetadata {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_timestamp: self.state_since,
            members: self.members.iter().map(store).collect(),
        })
    }

    /// The group as it goes into a record with the assignments that its members have.
    pub fn store_assigned(&self) -> Arc<GroupMetadata> {
        let assigned = |(id, member): (&MemberId, &Member)| (id.clone(), member.assignment.clone());
        self.store(&self.members.iter().map(assigned).collect())
    }

    /// A group that has just begun, as it goes into its first record.
    pub fn store_empty(&self) -> Arc<GroupMetadata> {
        Arc::new(GroupMetadata {
            protocol_type: Text::default(),
            generation: 0,
            protocol: None,
            leader: None,
            state_timestamp: self.state_since,
            members: Vec::new(),
        })
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when it is in that state, or [`Timestamp::NONE`].
    pub fn state_since(&self) -> Timestamp {
        self.state_since
    }

    /// Goes to a state.
    ///
    /// # Panics
    /// When the state cannot follow the present one.
    pub fn enter(&mut self, state: State, now: Timestamp) {
        let allowed = match state {
            State::PreparingRebalance => self.state != State::PreparingRebalance,
            State::Empty | State::CompletingRebalance => self.state == State::PreparingRebalance,
            State::Stable => self.state == State::CompletingRebalance,
            State::Dead => false,
        };
        assert!(allowed, "{state} cannot follow {}", self.state);
        self.state = state;
        self.state_since = now;
    }

    /// Whether its members are consumers of the standard protocol.
    pub fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// The members, by id.
    pub fn members(&self) -> &BTreeMap<MemberId, Member> {
        &self.members
    }

    /// A member.
    pub fn member(&self, member_id: &str) -> Option<&Member> {
        self.members.get(member_id)
    }

    /// A member, to be changed in everything but its protocols.
    pub fn member_mut(&mut self, member_id: &str) -> Option<&mut Member> {
        self.members.get_mut(member_id)
    }

    /// All members, to be changed in everything but their protocols.
    pub fn members_mut(&mut self) -> impl Iterator<Item = (&MemberId, &mut Member)> {
        self.members.iter_mut()
    }

    /// The id that a static member has now.
    pub fn static_member(&self, instance_id: &str) -> Option<&MemberId> {
        self.statics.get(instance_id)
    }

    /// Whether this member assigns.
    pub fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    /// Adds a member. The first one says what kind of group this is, and leads.
    pub fn insert(&mut self, member_id: MemberId, member: Member) {
        self.pending.remove(&member_id);
        for protocol in &member.protocols {
            *self.supported.entry(protocol.name.clone()).or_default() += 1;
        }
        if let Some(instance_id) = &member.instance_id {
            self.statics.insert(instance_id.clone(), member_id.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(member_id.clone());
        }
        let earlier = self.members.insert(member_id, member);
        assert!(earlier.is_none(), "a member is added once");
    }

    /// Removes a member, or one that has not joined yet. Another leads if it did.
    pub fn remove(&mut self, member_id: &str) -> Option<Member> {
        self.pending.remove(member_id);
        self.unsynced.remove(member_id);
        let member = self.members.remove(member_id)?;
        self.discount(&member.protocols);
        if let Some(instance_id) = &member.instance_id {
            self.statics.remove(instance_id);
        }
        self.find_leader();
        Some(member)
    }

    /// Lets a member say other things.
    pub fn change(&mut self, member_id: &str, change: impl FnOnce(&mut Member)) {
        let Some(mut member) = self.members.remove(member_id) else {
            return;
        };
        self.discount(&member.protocols);
        change(&mut member);
        for protocol in &member.protocols {
            *self.supported.entry(protocol.name.clone()).or_default() += 1;
        }
        self.members.insert(member_id.into(), member);
    }

    fn discount(&mut self, protocols: &[Protocol]) {
        for Protocol { name, .. } in protocols {
            let members = self.supported.get_mut(name).expect("a member's protocols are counted");
            *members -= 1;
            if *members == 0 {
                self.supported.remove(name);
            }
        }
    }

    /// Some member leads, if there is any.
    fn find_leader(&mut self) {
        let leads = self.leader.as_ref().is_some_and(|leader| self.members.contains_key(leader));
        if !leads {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Gives a static member another id.
    pub fn rename(&mut self, old: &str, new: MemberId) {
        let member = self.members.remove(old).expect("a static member's id is a member's");
        let instance_id = member.instance_id.clone().expect("only static members are replaced");
        if self.is_leader(old) {
            self.leader = Some(new.clone());
        }
        self.unsynced.remove(old);
        self.statics.insert(instance_id, new.clone());
        self.members.insert(new, member);
    }

    /// Checks who sends a request (`ClassicGroup.validateMember`).
    pub fn check_member(
        &self,
        member_id: &str,
        instance_id: Option<&InstanceId>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.statics.get(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(present) if **present != *member_id => {
                    return Err(ErrorCode::FencedInstanceId);
                }
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// Whether a member with these protocols could be in this group
    /// (`ClassicGroup.supportsProtocols`).
    pub fn supports(&self, protocol_type: &Text, protocols: &[Protocol]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let common = |protocol: &Protocol| {
            self.supported.get(&protocol.name).copied().unwrap_or(0) == self.members.len()
        };
        self.protocol_type.as_ref() == Some(protocol_type) && protocols.iter().any(common)
    }

    /// The protocol that most members prefer among those that all have.
    pub fn select_protocol(&self) -> Option<Text> {
        let common = |(_, members): &(&Text, &usize)| **members == self.members.len();
        let candidates: BTreeSet<&str> =
            self.supported.iter().filter(common).map(|(name, _)| &**name).collect();
        let mut votes: BTreeMap<&Text, usize> = BTreeMap::new();
        for member in self.members.values() {
            *votes.entry(member.vote(&candidates)?).or_default() += 1;
        }
        let most = votes.values().max()?;
        votes.iter().find(|(_, count)| *count == most).map(|(name, _)| (*name).clone())
    }

    /// Begins the next generation with the members that there are.
    pub fn next_generation(&mut self, now: Timestamp) {
        // Kafka's runs over as well; a generation is only ever compared for being the same.
        self.generation = if self.generation == i32::MAX { 0 } else { self.generation + 1 };
        self.unsynced.clear();
        self.initial = None;
        self.protocol = self.select_protocol();
        assert_eq!(self.protocol.is_none(), self.members.is_empty(), "members have one in common");
        self.topics = self.read_topics();
        let state = match self.protocol {
            Some(_) => State::CompletingRebalance,
            None => State::Empty,
        };
        self.enter(state, now);
    }

    /// The topics that the members of this generation read, if they can be known.
    fn read_topics(&self) -> Option<BTreeSet<TopicName>> {
        if !self.is_of_consumers() {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            read_topics(&member.metadata(self.protocol.as_deref()), &mut topics).ok()?;
        }
        Some(topics)
    }

    /// Whether the members' topics are known.
    pub fn knows_topics(&self) -> bool {
        self.topics.is_some()
    }

    /// Whether members read a topic; if that is not known, consumers could.
    pub fn reads(&self, topic: &TopicName) -> bool {
        match &self.topics {
            Some(topics) => topics.contains(topic),
            None => self.is_of_consumers(),
        }
    }

    /// Whether everybody is there whom the join phase waits for.
    pub fn all_joined(&self) -> bool {
        self.pending.is_empty() && self.members.values().all(|member| member.join.is_some())
    }

    /// How many members wait with their JoinGroup.
    pub fn joining(&self) -> usize {
        self.members.values().filter(|member| member.join.is_some()).count()
    }

    /// How long its most patient member lets a rebalance wait.
    pub fn rebalance_timeout_ms(&self) -> i32 {
        let timeouts = self.members.values().map(|member| member.rebalance_timeout_ms);
        timeouts.max().unwrap_or(0).max(0)
    }

    /// The members as the leader is told of them.
    pub fn joined_members(&self) -> Vec<JoinedMember> {
        let joined = |(member_id, member): (&MemberId, &Member)| JoinedMember {
            member_id: member_id.clone(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(self.protocol.as_deref()),
        };
        self.members.iter().map(joined).collect()
    }

    /// Whether nothing of it needs to be kept but what is in the log.
    pub fn is_idle(&self) -> bool {
        self.state == State::Empty && self.pending.is_empty()
    }
}
