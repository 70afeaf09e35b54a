//! One member of a classic group.

use std::collections::BTreeSet;

use bytes::Bytes;
use vltava_protocol::ids::Timestamp;

use super::Token;
use super::history::Participant;
use super::ids::{InstanceId, MemberId, Text};
use super::records::MemberMetadata;
use super::request::{Client, JoinRequest, Protocol};

/// A request that a member waits with. The connection may have gone since; the member then counts
/// as waiting all the same, and is told by its session timeout that nobody was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Whom to answer.
    pub token: Option<Token>,
}

impl Waiting {
    /// Nobody is there any more, if it was this one.
    pub fn forget(&mut self, token: Token) {
        if self.token == Some(token) {
            self.token = None;
        }
    }
}

/// A member.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its own name, if it is static.
    pub instance_id: Option<InstanceId>,
    /// Its client.
    pub client: Client,
    /// How long a rebalance waits for it.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// What it could use, the preferred one first; no name twice.
    pub protocols: Vec<Protocol>,
    /// What it was assigned.
    pub assignment: Bytes,
    /// Whether it has never been told a generation. It may not know its id yet.
    pub is_new: bool,
    /// Its JoinGroup, while that waits.
    pub join: Option<Waiting>,
    /// Its SyncGroup, while that waits.
    pub sync: Option<Waiting>,
    /// When it will have been silent for too long.
    pub session_deadline: Timestamp,
    /// When it joined last.
    pub joined_at: Timestamp,
}

impl Member {
    /// A member as it joins.
    pub fn new(request: &JoinRequest, now: Timestamp) -> Self {
        let mut member = Self {
            instance_id: request.instance_id.clone(),
            client: request.client.clone(),
            rebalance_timeout_ms: 0,
            session_timeout_ms: 0,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            is_new: true,
            join: None,
            sync: None,
            session_deadline: now,
            joined_at: now,
        };
        member.update(request, now);
        member
    }

    /// What it says when it joins again.
    pub fn update(&mut self, request: &JoinRequest, now: Timestamp) {
        self.rebalance_timeout_ms = request.rebalance_timeout_ms;
        self.session_timeout_ms = request.session_timeout_ms;
        self.protocols = without_doubles(&request.protocols);
        self.joined_at = now;
    }

    /// A member of a group that is loaded: it speaks the one protocol that was chosen.
    pub fn load(metadata: &MemberMetadata, protocol: Text, now: Timestamp) -> (MemberId, Self) {
        let client = Client { id: metadata.client_id.clone(), host: metadata.client_host.clone() };
        let rebalance_timeout_ms = match metadata.rebalance_timeout_ms {
            -1 => metadata.session_timeout_ms,
            timeout => timeout,
        };
        let member = Self {
            instance_id: metadata.instance_id.clone(),
            client,
            rebalance_timeout_ms,
            session_timeout_ms: metadata.session_timeout_ms,
            protocols: vec![Protocol { name: protocol, metadata: metadata.subscription.clone() }],
            assignment: metadata.assignment.clone(),
            is_new: false,
            join: None,
            sync: None,
            session_deadline: now,
            joined_at: now,
        };
        (metadata.member_id.clone(), member)
    }

    /// The member as it goes into a record, with another assignment.
    pub fn store(
        &self,
        member_id: &MemberId,
        protocol: Option<&str>,
        assignment: Bytes,
    ) -> MemberMetadata {
        MemberMetadata {
            member_id: member_id.clone(),
            instance_id: self.instance_id.clone(),
            client_id: self.client.id.clone(),
            client_host: self.client.host.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            session_timeout_ms: self.session_timeout_ms,
            subscription: self.metadata(protocol),
            assignment,
        }
    }

    /// What it said for a protocol; empty if it does not have that one.
    pub fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let named = |candidate: &&Protocol| Some(&*candidate.name) == protocol;
        self.protocols.iter().find(named).map(|found| found.metadata.clone()).unwrap_or_default()
    }

    /// Whether it would say the same again.
    pub fn matches(&self, protocols: &[Protocol]) -> bool {
        self.protocols == without_doubles(protocols)
    }

    /// The candidate that it likes best.
    pub fn vote<'a>(&'a self, candidates: &BTreeSet<&str>) -> Option<&'a Text> {
        self.protocols
            .iter()
            .map(|protocol| &protocol.name)
            .find(|name| candidates.contains(&***name))
    }

    /// Whether silence is no sign of death: it waits for an answer of ours. A new member's waiting
    /// proves nothing, see
    /// [`NEW_MEMBER_JOIN_TIMEOUT_MS`](super::config::NEW_MEMBER_JOIN_TIMEOUT_MS).
    pub fn may_be_silent(&self) -> bool {
        !self.is_new && (self.join.is_some() || self.sync.is_some())
    }

    /// The member as it appears in the history.
    pub fn participant(&self, member_id: &MemberId) -> Participant {
        Participant { member_id: member_id.clone(), client: self.client.clone() }
    }
}

/// The protocols, each name once: the first counts.
fn without_doubles(protocols: &[Protocol]) -> Vec<Protocol> {
    let mut names = BTreeSet::new();
    protocols.iter().filter(|protocol| names.insert(&protocol.name)).cloned().collect()
}
