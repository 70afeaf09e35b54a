//! Being a member of a classic group: join, sync, heartbeat, commit, leave.
//!
//! ```text
//! join ──> (the leader divides) ──> sync ──> assigned ──heartbeat──> … ──> leave
//!  ^                                  │          │
//!  └──────── a rebalance, or no member any more ─┘
//! ```
//!
//! The eager protocol: a member gives up all its partitions before it joins again. It has a
//! connection to the coordinator of its own, since a `JoinGroup` is answered only when everybody
//! has joined, and what follows it on a connection waits.
//!
//! Nothing runs in the background: whoever holds a [`Member`] calls [`Member::heartbeat`] often
//! enough. A holder that is stuck for the length of a session loses its partitions to the others,
//! which is right. Every future may be dropped; the next call dials again.

use std::collections::BTreeMap;
use std::time::Duration;

use vltava_protocol::ErrorCode;
use vltava_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use vltava_protocol::messages::join_group_response::JoinGroupResponseMember;
use vltava_protocol::messages::leave_group_request::MemberIdentity;
use vltava_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use vltava_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, Request,
    SyncGroupRequest,
};

use super::assignor::{RANGE, Subscriber, range};
use super::of_consumer;
use super::offsets::{OFFSET_COMMIT, Offsets, commit_request, is_rebalance, refusals};
use super::protocol::{self, CONSUMER, Partitions};
use crate::client::connection::{Connection, Versions};
use crate::client::consumer::RETRY_BACKOFF;
use crate::client::{Client, ClientError, text};

/// What a member wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberOptions {
    /// The group.
    pub group: String,
    /// What to read.
    pub topics: Vec<String>,
    /// After how long a silence the coordinator takes the member for dead.
    pub session_timeout: Duration,
    /// How long the coordinator waits for all members to join again.
    pub rebalance_timeout: Duration,
}

/// How a member stands with its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It owns what it was assigned.
    Steady,
    /// The group divides its partitions anew: commit, then join again.
    Rebalance,
    /// It is no member any more, others may own its partitions: join again.
    Lost,
}

/// A member of a group, or one that is on its way there.
#[derive(Debug)]
pub struct Member {
    options: MemberOptions,
    connection: Option<Connection>,
    /// Given by the coordinator; empty before that.
    id: String,
    generation: i32,
    is_leader: bool,
    assignment: Partitions,
    /// How many partitions each topic had when this leader divided them.
    divided: BTreeMap<String, usize>,
}

/// How an attempt to join ended.
enum Attempt {
    Joined,
    /// The group, or what it knows of this member, has changed meanwhile: begin again at once.
    Again,
}

impl Member {
    /// One that has not joined yet.
    pub fn new(options: MemberOptions) -> Self {
        Self {
            options,
            connection: None,
            id: String::new(),
            generation: -1,
            is_leader: false,
            assignment: Partitions::new(),
            divided: BTreeMap::new(),
        }
    }

    /// What it wants.
    pub fn options(&self) -> &MemberOptions {
        &self.options
    }

    /// The group's generation that it belongs to; -1 before it has joined.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// The partitions that it owns.
    pub fn assignment(&self) -> &Partitions {
        &self.assignment
    }

    /// Joins, again and again until the group is settled. An error that
    /// [is passing](ClientError::is_passing) may be tried again.
    pub async fn join(&mut self, client: &mut Client) -> Result<(), ClientError> {
        while matches!(self.try_join(client).await?, Attempt::Again) {}
        Ok(())
    }

    async fn try_join(&mut self, client: &mut Client) -> Result<Attempt, ClientError> {
        self.assignment.clear();
        let (group, member_id) = (self.options.group.clone(), self.id.clone());
        let session_ms = millis(self.options.session_timeout);
        let rebalance_ms = millis(self.options.rebalance_timeout);
        let metadata = protocol::subscription(&self.options.topics);
        let build = |_| {
            let protocol =
                JoinGroupRequestProtocol::default().with_name(text(RANGE)).with_metadata(metadata);
            JoinGroupRequest::default()
                .with_group_id(text(&group).into())
                .with_session_timeout_ms(session_ms)
                .with_rebalance_timeout_ms(rebalance_ms)
                .with_member_id(text(&member_id))
                .with_protocol_type(text(CONSUMER))
                .with_protocols(vec![protocol])
        };
        let response = self.call(client, self.patience(client), Versions::of(1, 9), build).await?;
        match ErrorCode::from_code(response.error_code) {
            Some(ErrorCode::None) => {}
            Some(ErrorCode::MemberIdRequired) => {
                self.id = response.member_id.to_string();
                return Ok(Attempt::Again);
            }
            Some(ErrorCode::UnknownMemberId) if !self.id.is_empty() => {
                self.id.clear();
                return Ok(Attempt::Again);
            }
            Some(ErrorCode::RebalanceInProgress) => {
                tokio::time::sleep(RETRY_BACKOFF).await;
                return Ok(Attempt::Again);
            }
            _ => return Err(self.refused("join", response.error_code)),
        }
        self.id = response.member_id.to_string();
        self.generation = response.generation_id;
        self.is_leader = response.leader == response.member_id;
        let shares = self.divide(client, &response).await?;
        self.sync(client, shares).await
    }

    /// The shares of all members, if it is this one that divides.
    async fn divide(
        &mut self,
        client: &mut Client,
        response: &JoinGroupResponse,
    ) -> Result<BTreeMap<String, Partitions>, ClientError> {
        if !self.is_leader || response.skip_assignment {
            return Ok(BTreeMap::new());
        }
        let subscriber = |member: &JoinGroupResponseMember| Subscriber {
            member_id: member.member_id.to_string(),
            instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
            topics: of_consumer(&member.metadata, protocol::subscribed_topics),
        };
        let subscribers: Vec<Subscriber> = response.members.iter().map(subscriber).collect();
        let mut topics: Vec<String> =
            subscribers.iter().flat_map(|one| one.topics.iter().cloned()).collect();
        topics.sort_unstable();
        topics.dedup();
        self.divided = partition_counts(client, &topics).await?;
        Ok(range(subscribers, &self.divided))
    }

    async fn sync(
        &mut self,
        client: &mut Client,
        shares: BTreeMap<String, Partitions>,
    ) -> Result<Attempt, ClientError> {
        let (group, member_id) = (self.options.group.clone(), self.id.clone());
        let generation = self.generation;
        let share = |(member_id, share): (String, Partitions)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(text(&member_id))
                .with_assignment(protocol::assignment(&share))
        };
        let build = |version| {
            let request = SyncGroupRequest::default()
                .with_group_id(text(&group).into())
                .with_generation_id(generation)
                .with_member_id(text(&member_id))
                .with_assignments(shares.into_iter().map(share).collect());
            // The group checks that both sides mean the same (KIP-559).
            let spoken = |name| (version >= 5).then(|| text(name));
            request.with_protocol_type(spoken(CONSUMER)).with_protocol_name(spoken(RANGE))
        };
        let response = self.call(client, self.patience(client), Versions::of(0, 5), build).await?;
        match ErrorCode::from_code(response.error_code) {
            Some(ErrorCode::None) => {
                let malformed = || {
                    let group = &self.options.group;
                    ClientError::Missing(format!("the leader of {group} assigned unreadable bytes"))
                };
                self.assignment =
                    protocol::assigned_partitions(&response.assignment).ok_or_else(malformed)?;
                Ok(Attempt::Joined)
            }
            Some(ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration) => {
                Ok(Attempt::Again)
            }
            Some(ErrorCode::UnknownMemberId) => {
                self.id.clear();
                Ok(Attempt::Again)
            }
            _ => Err(self.refused("join", response.error_code)),
        }
    }

    /// Says that it lives, and hears how the group is. To be called several times a session.
    pub async fn heartbeat(&mut self, client: &mut Client) -> Result<Standing, ClientError> {
        if self.is_leader && partition_counts(client, &self.divided_topics()).await? != self.divided
        {
            // There are partitions that nobody reads. A leader that joins again makes all join.
            return Ok(Standing::Rebalance);
        }
        let (group, member_id) = (self.options.group.clone(), self.id.clone());
        let generation = self.generation;
        let build = |_| {
            HeartbeatRequest::default()
                .with_group_id(text(&group).into())
                .with_generation_id(generation)
                .with_member_id(text(&member_id))
        };
        let limit = client.timeout();
        let response = self.call(client, limit, Versions::of(0, 4), build).await?;
        self.standing("heartbeat", response.error_code)
    }

    /// Commits where to go on.
    pub async fn commit(
        &mut self,
        client: &mut Client,
        offsets: &Offsets,
    ) -> Result<Standing, ClientError> {
        if offsets.is_empty() {
            return Ok(Standing::Steady);
        }
        let request = commit_request(&self.options.group, offsets)
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(text(&self.id));
        let limit = client.timeout();
        let response = self.call(client, limit, OFFSET_COMMIT, |_| request).await?;
        let code = refusals(&response).next().map_or(0, |(_, _, code)| code);
        if is_rebalance(code) { Ok(Standing::Rebalance) } else { self.standing("commit", code) }
    }

    /// Leaves, so that the others get its partitions at once and not after its session.
    pub async fn leave(&mut self, client: &mut Client) -> Result<(), ClientError> {
        if self.id.is_empty() {
            return Ok(());
        }
        let (group, member_id) = (self.options.group.clone(), self.id.clone());
        let build = |version| {
            let request = LeaveGroupRequest::default().with_group_id(text(&group).into());
            // From version 3 on several may leave at once, from 5 on with a reason (KIP-800).
            if version < 3 {
                return request.with_member_id(text(&member_id));
            }
            let reason = (version >= 5).then(|| text("the consumer is closed"));
            let member =
                MemberIdentity::default().with_member_id(text(&member_id)).with_reason(reason);
            request.with_members(vec![member])
        };
        let limit = client.timeout();
        let response = self.call(client, limit, Versions::of(0, 5), build).await?;
        self.id.clear();
        self.generation = -1;
        self.assignment.clear();
        let of_member = response.members.first().map_or(0, |member| member.error_code);
        let code = if response.error_code == 0 { of_member } else { response.error_code };
        // Who has been thrown out meanwhile has left.
        if code == 0 || ErrorCode::from_code(code) == Some(ErrorCode::UnknownMemberId) {
            return Ok(());
        }
        Err(self.refused("leave", code))
    }

    fn standing(&mut self, what: &str, code: i16) -> Result<Standing, ClientError> {
        match ErrorCode::from_code(code) {
            Some(ErrorCode::None) => Ok(Standing::Steady),
            Some(ErrorCode::RebalanceInProgress) => Ok(Standing::Rebalance),
            Some(ErrorCode::IllegalGeneration) => Ok(Standing::Lost),
            Some(ErrorCode::UnknownMemberId) => {
                self.id.clear();
                Ok(Standing::Lost)
            }
            _ => Err(self.refused(what, code)),
        }
    }

    /// A refusal. Where the coordinator is to be found is asked again after it.
    fn refused(&mut self, what: &str, code: i16) -> ClientError {
        self.connection = None;
        ClientError::Refused {
            what: format!("{what} group {}", self.options.group),
            code,
            message: None,
        }
    }

    /// How long the coordinator may take where it waits for the other members.
    fn patience(&self, client: &Client) -> Duration {
        self.options.rebalance_timeout + client.timeout()
    }

    fn divided_topics(&self) -> Vec<String> {
        self.divided.keys().cloned().collect()
    }

    /// Sends a request to the coordinator, which is looked up if it is not known.
    async fn call<R: Request>(
        &mut self,
        client: &mut Client,
        limit: Duration,
        versions: Versions,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, ClientError> {
        if self.connection.is_none() {
            self.connection = Some(client.coordinator_connection(&self.options.group).await?);
        }
        let connection = self.connection.as_mut().expect("it was just opened");
        let answer = connection.call(versions, limit, build).await;
        if answer.is_err() {
            // The next call asks again where the coordinator is.
            self.connection = None;
        }
        answer
    }
}

/// How many partitions each topic has; one that is not there yet has none.
async fn partition_counts(
    client: &mut Client,
    topics: &[String],
) -> Result<BTreeMap<String, usize>, ClientError> {
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let view = client.cluster(Some(&names), false).await?;
    let mut counts: BTreeMap<String, usize> =
        topics.iter().map(|topic| (topic.clone(), 0)).collect();
    counts.extend(view.topics.iter().map(|topic| (topic.name.clone(), topic.partitions.len())));
    Ok(counts)
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
