//! Groups from outside: who coordinates one, who is in it, what it has committed.
//!
//! A request for a group goes to its coordinator, which is looked up each time: these are commands
//! of a person, not a data path. While a coordinator moves or loads, the request is sent again,
//! within the timeout. Being a member is in [`member`].

pub mod assignor;
pub mod member;
mod offsets;
pub mod protocol;

use bytes::Bytes;
use tokio::time::Instant;
use vltava_protocol::ErrorCode;
use vltava_protocol::ids::NodeId;
use vltava_protocol::messages::{
    ConsumerGroupDescribeRequest, DeleteGroupsRequest, DescribeGroupsRequest,
    FindCoordinatorRequest, ListGroupsRequest, Request,
};

use super::connection::Versions;
use super::consumer::RETRY_BACKOFF;
use super::{Client, ClientError, text};
pub use offsets::{Committed, Offsets};
use protocol::Partitions;

/// The state of a group that is not there, in answers before version 6 of `DescribeGroups`.
const DEAD: &str = "Dead";

/// One line of a list of groups. What an old broker does not tell is empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupListing {
    /// Its name.
    pub group: String,
    /// What its members speak: `consumer` for consumers, empty if it only has offsets.
    pub protocol_type: String,
    /// `Stable`, `Empty` and so on.
    pub state: String,
    /// `classic`, `consumer`, `share` or `streams`.
    pub kind: String,
    /// Who coordinates it.
    pub coordinator: NodeId,
}

/// A group with its members.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupDescription {
    /// Its name.
    pub group: String,
    /// `Stable`, `Empty` and so on.
    pub state: String,
    /// `classic` or `consumer`.
    pub kind: &'static str,
    /// What its members speak.
    pub protocol_type: String,
    /// How they share partitions; empty if nobody is there.
    pub assignor: String,
    /// The epoch of a group of the newer kind; a classic one does not tell its generation.
    pub epoch: Option<i32>,
    /// Who coordinates it.
    pub coordinator: NodeId,
    /// Its members.
    pub members: Vec<GroupMember>,
}

impl GroupDescription {
    /// Whether nobody is in it: only then can offsets be set from outside.
    pub fn is_inactive(&self) -> bool {
        matches!(self.state.as_str(), "Empty" | DEAD)
    }
}

/// One member of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupMember {
    /// Its id.
    pub member_id: String,
    /// Its lasting name, if it has one.
    pub instance_id: Option<String>,
    /// The name in its requests.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// What it wants to read; none if it is no consumer, or has not said so yet.
    pub topics: Vec<String>,
    /// What it reads.
    pub assignment: Partitions,
}

impl Client {
    /// The node that coordinates a group. It is waited for while the cluster makes one.
    pub async fn coordinator(&mut self, group: &str) -> Result<NodeId, ClientError> {
        let end = Instant::now() + self.timeout();
        loop {
            match self.find_coordinator(group).await {
                Err(error) if error.is_passing() && Instant::now() < end => {
                    tokio::time::sleep(RETRY_BACKOFF).await;
                }
                found => return found,
            }
        }
    }

    pub(super) async fn find_coordinator(&mut self, group: &str) -> Result<NodeId, ClientError> {
        let build = |version| {
            let request = FindCoordinatorRequest::default();
            // From version 4 on it asks for several.
            if version < 4 {
                request.with_key(text(group))
            } else {
                request.with_coordinator_keys(vec![text(group)])
            }
        };
        let response = self.ask(Versions::of(0, 6), build).await?;
        let what = || format!("coordinator of group {group}");
        let (code, message, node, host, port) = match response.coordinators.first() {
            Some(one) => (one.error_code, &one.error_message, one.node_id, &one.host, one.port),
            None => (
                response.error_code,
                &response.error_message,
                response.node_id,
                &response.host,
                response.port,
            ),
        };
        ClientError::check(what, code, message.as_ref())?;
        let node = NodeId(node.0);
        self.learn_address(node, (host.to_string(), u16::try_from(port).unwrap_or(0)));
        Ok(node)
    }

    /// Sends a request to the coordinator of a group. `code` is the answer's error: while that says
    /// that the coordinator is elsewhere or not ready, it is asked again.
    async fn ask_coordinator<R: Request>(
        &mut self,
        group: &str,
        versions: Versions,
        build: impl Fn(i16) -> R,
        code: impl Fn(&R::Response) -> i16,
    ) -> Result<R::Response, ClientError> {
        let end = Instant::now() + self.timeout();
        loop {
            let node = self.coordinator(group).await?;
            let response = self.ask_node(node, versions, &build).await?;
            if !is_unsettled(code(&response)) || Instant::now() >= end {
                return Ok(response);
            }
            tokio::time::sleep(RETRY_BACKOFF).await;
        }
    }

    /// All groups of the cluster in one of these states and of one of these kinds; empty lists mean
    /// any. Both are compared without case.
    pub async fn list_groups(
        &mut self,
        states: &[String],
        kinds: &[String],
    ) -> Result<Vec<GroupListing>, ClientError> {
        let nodes = self.cluster(Some(&[]), false).await?.nodes;
        let mut groups = Vec::new();
        for node in nodes {
            // Old brokers cannot filter, so it is done here for all.
            let build = |_| ListGroupsRequest::default();
            let response = self.ask_node(node.id, Versions::of(0, 5), build).await?;
            let what = || format!("groups of node {}", node.id);
            ClientError::check(what, response.error_code, None)?;
            groups.extend(response.groups.iter().map(|listed| GroupListing {
                group: listed.group_id.to_string(),
                protocol_type: listed.protocol_type.to_string(),
                state: listed.group_state.to_string(),
                kind: listed.group_type.to_lowercase(),
                coordinator: node.id,
            }));
        }
        let is_wanted = |wanted: &[String], is: &str| {
            wanted.is_empty() || wanted.iter().any(|one| one.eq_ignore_ascii_case(is))
        };
        groups.retain(|one| is_wanted(states, &one.state) && is_wanted(kinds, &one.kind));
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(groups)
    }

    /// Describes a group. One that is not there is an error.
    pub async fn describe_group(&mut self, group: &str) -> Result<GroupDescription, ClientError> {
        let build = |_| DescribeGroupsRequest::default().with_groups(vec![text(group).into()]);
        let response = self
            .ask_coordinator(group, Versions::of(0, 6), build, |response| {
                response.groups.first().map_or(0, |group| group.error_code)
            })
            .await?;
        let coordinator = self.coordinator(group).await?;
        let missing = || ClientError::Missing(format!("group {group} does not exist"));
        let described = response.groups.first().ok_or_else(missing)?;
        let not_found = ErrorCode::GroupIdNotFound.code();
        if described.error_code == not_found || *described.group_state == *DEAD {
            // It may be of the newer kind, which has its own request (KIP-848).
            return self.describe_consumer_group(group, coordinator).await?.ok_or_else(missing);
        }
        let what = || format!("group {group}");
        ClientError::check(what, described.error_code, described.error_message.as_ref())?;
        let members = described.members.iter().map(|member| GroupMember {
            member_id: member.member_id.to_string(),
            instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
            topics: of_consumer(&member.member_metadata, protocol::subscribed_topics),
            assignment: of_consumer(&member.member_assignment, protocol::assigned_partitions),
        });
        Ok(GroupDescription {
            group: group.to_owned(),
            state: described.group_state.to_string(),
            kind: "classic",
            protocol_type: described.protocol_type.to_string(),
            assignor: described.protocol_data.to_string(),
            epoch: None,
            coordinator,
            members: members.collect(),
        })
    }

    /// Describes a group of the newer kind; none if there is no such group.
    async fn describe_consumer_group(
        &mut self,
        group: &str,
        coordinator: NodeId,
    ) -> Result<Option<GroupDescription>, ClientError> {
        let build =
            |_| ConsumerGroupDescribeRequest::default().with_group_ids(vec![text(group).into()]);
        let response = match self.ask_node(coordinator, Versions::of(0, 1), build).await {
            Err(ClientError::Unsupported { .. }) => return Ok(None),
            response => response?,
        };
        let Some(described) = response.groups.first() else { return Ok(None) };
        if described.error_code == ErrorCode::GroupIdNotFound.code() {
            return Ok(None);
        }
        let what = || format!("group {group}");
        ClientError::check(what, described.error_code, described.error_message.as_ref())?;
        let members = described.members.iter().map(|member| {
            let assigned = member.assignment.topic_partitions.iter().map(|topic| {
                let indexes = topic.partitions.iter().map(|&index| index.into()).collect();
                (topic.topic_name.to_string(), indexes)
            });
            let topics = member.subscribed_topic_names.iter().map(|topic| topic.to_string());
            let pattern = member.subscribed_topic_regex.iter().filter(|regex| !regex.is_empty());
            GroupMember {
                member_id: member.member_id.to_string(),
                instance_id: member.instance_id.as_ref().map(ToString::to_string),
                client_id: member.client_id.to_string(),
                host: member.client_host.to_string(),
                topics: topics.chain(pattern.map(|regex| format!("/{regex}/"))).collect(),
                assignment: assigned.collect(),
            }
        });
        Ok(Some(GroupDescription {
            group: group.to_owned(),
            state: described.group_state.to_string(),
            kind: "consumer",
            protocol_type: protocol::CONSUMER.to_owned(),
            assignor: described.assignor_name.to_string(),
            epoch: Some(described.group_epoch),
            coordinator,
            members: members.collect(),
        }))
    }

    /// Deletes a group with all that it has committed.
    pub async fn delete_group(&mut self, group: &str) -> Result<(), ClientError> {
        let build = |_| DeleteGroupsRequest::default().with_groups_names(vec![text(group).into()]);
        let response = self
            .ask_coordinator(group, Versions::of(0, 2), build, |response| {
                response.results.first().map_or(0, |result| result.error_code)
            })
            .await?;
        let silent = || ClientError::Missing(format!("nothing was said about group {group}"));
        let result = response.results.first().ok_or_else(silent)?;
        ClientError::check(|| format!("group {group}"), result.error_code, None)
    }
}

/// Whether an answer only says that the coordinator is elsewhere, or not ready.
fn is_unsettled(code: i16) -> bool {
    matches!(
        ErrorCode::from_code(code),
        Some(
            ErrorCode::CoordinatorLoadInProgress
                | ErrorCode::CoordinatorNotAvailable
                | ErrorCode::NotCoordinator
                | ErrorCode::UnstableOffsetCommit
        )
    )
}

/// What bytes of a member say; nothing if they are no consumer's.
fn of_consumer<T: Default>(bytes: &Bytes, read: impl Fn(&Bytes) -> Option<T>) -> T {
    read(bytes).unwrap_or_default()
}
