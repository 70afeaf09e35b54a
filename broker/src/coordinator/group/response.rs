//! What a shard answers.

use bytes::Bytes;
use vltava_protocol::ErrorCode;
use vltava_protocol::ids::{LeaderEpoch, Offset};

use super::ids::{GroupId, InstanceId, MemberId, Text};
use super::request::{ByTopic, Client};
use super::state::State;

/// The answer to a [`GroupRequest`](super::request::GroupRequest).
#[derive(Clone, Debug, PartialEq)]
pub enum GroupResponse {
    /// The whole request failed. The handler puts the code where its API has one: at the top, or
    /// at each partition that was asked about.
    Failed(ErrorCode),
    /// To JoinGroup.
    Join(JoinResponse),
    /// To SyncGroup.
    Sync(SyncResponse),
    /// To Heartbeat.
    Heartbeat,
    /// To LeaveGroup: each member with what became of it, in the request's order.
    Leave(Vec<LeftMember>),
    /// To OffsetCommit: the request's partitions in its order.
    OffsetCommit(Vec<ByTopic<ErrorCode>>),
    /// To OffsetFetch: the request's partitions in its order, or all by name.
    OffsetFetch(Vec<ByTopic<FetchedOffset>>),
    /// To DescribeGroups.
    Describe(DescribedGroup),
    /// To ListGroups, by id.
    List(Vec<ListedGroup>),
    /// To DeleteGroups.
    Delete,
    /// To OffsetDelete: the request's partitions in its order.
    OffsetDelete(Vec<ByTopic<ErrorCode>>),
}

/// To JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinResponse {
    /// What went wrong.
    pub error: ErrorCode,
    /// The generation joined, or -1.
    pub generation: i32,
    /// The group's kind of protocols.
    pub protocol_type: Option<Text>,
    /// The chosen protocol.
    pub protocol: Option<Text>,
    /// The member that assigns; empty for none.
    pub leader: MemberId,
    /// Whether the leader keeps the assignment that there is (KIP-814).
    pub skip_assignment: bool,
    /// The member's id.
    pub member_id: MemberId,
    /// For the leader: the members, by id.
    pub members: Vec<JoinedMember>,
}

impl JoinResponse {
    /// Refuses a member, whose id is told back.
    pub fn refused(member_id: MemberId, error: ErrorCode) -> Self {
        Self {
            error,
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: MemberId::default(),
            skip_assignment: false,
            member_id,
            members: Vec::new(),
        }
    }
}

/// A member as the leader is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: MemberId,
    /// Its own name, if it is static.
    pub instance_id: Option<InstanceId>,
    /// What it said for the chosen protocol.
    pub metadata: Bytes,
}

/// To SyncGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncResponse {
    /// The group's kind of protocols.
    pub protocol_type: Option<Text>,
    /// The chosen protocol.
    pub protocol: Option<Text>,
    /// What the member was assigned; empty if the leader forgot it.
    pub assignment: Bytes,
}

/// One member of a LeaveGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftMember {
    /// As the request named it.
    pub member_id: MemberId,
    /// As the request named it.
    pub instance_id: Option<InstanceId>,
    /// Why it could not leave.
    pub error: ErrorCode,
}

/// One offset of an OffsetFetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedOffset {
    /// The committed offset, or [`Offset::NONE`].
    pub offset: Offset,
    /// The epoch that was committed with it, or [`LeaderEpoch::NONE`].
    pub leader_epoch: LeaderEpoch,
    /// What was committed with it.
    pub metadata: Text,
}

impl FetchedOffset {
    /// Of a partition without a committed offset; that is no error.
    pub fn none() -> Self {
        Self { offset: Offset::NONE, leader_epoch: LeaderEpoch::NONE, metadata: Text::default() }
    }
}

/// To DescribeGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedGroup {
    /// `GROUP_ID_NOT_FOUND`, or nothing.
    pub error: ErrorCode,
    /// In words, where there is an error.
    pub error_message: Option<String>,
    /// The group.
    pub group_id: GroupId,
    /// Its state; [`State::Dead`] if there is no such group.
    pub state: State,
    /// The kind of protocols; empty for none.
    pub protocol_type: Text,
    /// The chosen protocol of a stable group; else empty.
    pub protocol: Text,
    /// The members, by id.
    pub members: Vec<DescribedMember>,
}

/// A member of a [`DescribedGroup`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// Its id.
    pub member_id: MemberId,
    /// Its own name, if it is static.
    pub instance_id: Option<InstanceId>,
    /// Its client.
    pub client: Client,
    /// What it said for the chosen protocol of a stable group; else empty.
    pub metadata: Bytes,
    /// What it was assigned.
    pub assignment: Bytes,
}

/// One group of a ListGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// The group.
    pub group_id: GroupId,
    /// The kind of protocols; empty for none.
    pub protocol_type: Text,
    /// Its state.
    pub state: State,
    /// Its type: `classic`.
    pub group_type: &'static str,
}
