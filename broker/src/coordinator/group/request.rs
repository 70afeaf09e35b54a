//! What a shard is asked, in our own small structs: everything is copied out of the frame, and of
//! the API's version only that remains on which the meaning depends.

use bytes::Bytes;
use vltava_protocol::ErrorCode;
use vltava_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicName};

use super::ids::{GroupId, InstanceId, MemberId, TEXT_BYTES_MAX, Text};

/// A request to the coordinator of a group.
///
/// An API that names several groups (DescribeGroups, DeleteGroups, OffsetFetch from version 8) is
/// one request a group: they may live in different shards. [`List`](Self::List) asks one shard for
/// all of its groups.
#[derive(Clone, Debug)]
pub enum GroupRequest {
    /// JoinGroup.
    Join(JoinRequest),
    /// SyncGroup.
    Sync(SyncRequest),
    /// Heartbeat.
    Heartbeat(HeartbeatRequest),
    /// LeaveGroup.
    Leave(LeaveRequest),
    /// OffsetCommit.
    OffsetCommit(OffsetCommitRequest),
    /// OffsetFetch, of one group.
    OffsetFetch(OffsetFetchRequest),
    /// DescribeGroups, of one group.
    Describe(DescribeRequest),
    /// ListGroups, in one shard.
    List(ListRequest),
    /// DeleteGroups, of one group.
    Delete(DeleteRequest),
    /// OffsetDelete.
    OffsetDelete(OffsetDeleteRequest),
}

/// Who sends a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// What it calls itself; empty for a null id.
    pub id: Text,
    /// Where it connected from, as Kafka writes it: `/127.0.0.1`.
    pub host: Text,
}

/// A protocol that a member could use, and what it has to say for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// The protocol's name, such as `range`.
    pub name: Text,
    /// The member's metadata, opaque but for [`subscription`](super::subscription).
    pub metadata: Bytes,
}

/// JoinGroup.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// The group.
    pub group_id: GroupId,
    /// The member; empty if it has no id yet.
    pub member_id: MemberId,
    /// The member's own name, if it is static.
    pub instance_id: Option<InstanceId>,
    /// Who asks.
    pub client: Client,
    /// How long the member may be silent.
    pub session_timeout_ms: i32,
    /// How long a rebalance waits for it. Version 0 has none: the session timeout.
    pub rebalance_timeout_ms: i32,
    /// What kind of protocols these are.
    pub protocol_type: Text,
    /// The protocols, the preferred one first.
    pub protocols: Vec<Protocol>,
    /// Why it joins, in its own words (version 8).
    pub reason: Option<String>,
    /// Whether a member without id is given one to come back with (version 4 and later, KIP-394).
    pub requires_member_id: bool,
    /// Whether a leader can be told to assign nothing (version 9 and later, KIP-814).
    pub can_skip_assignment: bool,
}

/// SyncGroup.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// The group.
    pub group_id: GroupId,
    /// The member.
    pub member_id: MemberId,
    /// The member's own name, if it is static.
    pub instance_id: Option<InstanceId>,
    /// The generation that the member joined.
    pub generation: i32,
    /// What the member believes the group's kind of protocols to be (version 5, KIP-559).
    pub protocol_type: Option<Text>,
    /// And the chosen protocol.
    pub protocol: Option<Text>,
    /// From the leader: who gets what.
    pub assignments: Vec<(MemberId, Bytes)>,
}

/// Heartbeat.
#[derive(Clone, Debug)]
pub struct HeartbeatRequest {
    /// The group.
    pub group_id: GroupId,
    /// The member.
    pub member_id: MemberId,
    /// The member's own name, if it is static.
    pub instance_id: Option<InstanceId>,
    /// The generation that the member joined.
    pub generation: i32,
}

/// LeaveGroup. Versions before 3 name one member.
#[derive(Clone, Debug)]
pub struct LeaveRequest {
    /// The group.
    pub group_id: GroupId,
    /// Who leaves.
    pub members: Vec<LeavingMember>,
}

/// A member that leaves, or is made to.
#[derive(Clone, Debug)]
pub struct LeavingMember {
    /// The member; empty to name a static member by its own name alone.
    pub member_id: MemberId,
    /// The member's own name, if it is static.
    pub instance_id: Option<InstanceId>,
    /// Why (version 5, KIP-800).
    pub reason: Option<String>,
}

/// OffsetCommit.
#[derive(Clone, Debug)]
pub struct OffsetCommitRequest {
    /// The group.
    pub group_id: GroupId,
    /// The member; empty from a client outside of the group.
    pub member_id: MemberId,
    /// The member's own name, if it is static.
    pub instance_id: Option<InstanceId>,
    /// The generation; negative from a client outside of the group.
    pub generation: i32,
    /// How long the offsets are kept (versions 2 to 4), or none for the broker's retention.
    pub retention_ms: Option<i64>,
    /// Whether a generation of a group that does not exist is `GROUP_ID_NOT_FOUND` (version 9 and
    /// later) instead of `ILLEGAL_GENERATION`.
    pub knows_group_id_not_found: bool,
    /// The offsets, of topics that exist, with their ids: Kafka 4.3 keeps those, whatever the
    /// version of the request.
    pub topics: Vec<ByTopic<OffsetToCommit>>,
}

/// One offset of an [`OffsetCommitRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetToCommit {
    /// The next record to read.
    pub offset: Offset,
    /// The epoch of the last one read, or [`LeaderEpoch::NONE`].
    pub leader_epoch: LeaderEpoch,
    /// Whatever the client keeps with it; empty for null.
    pub metadata: Text,
}

/// Something for partitions of one topic, in the order in which they were asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByTopic<T> {
    /// The topic.
    pub name: TopicName,
    /// Its id, or [`TopicId::ZERO`] where that is not known or does not matter.
    pub topic_id: TopicId,
    /// Its partitions.
    pub partitions: Vec<(PartitionIndex, T)>,
}

/// OffsetFetch, of one group.
#[derive(Clone, Debug)]
pub struct OffsetFetchRequest {
    /// The group.
    pub group_id: GroupId,
    /// Of which partitions; none for all that the group has offsets of. Where the id of a topic is
    /// given, offsets that were committed for an earlier topic of its name are none.
    pub topics: Option<Vec<ByTopic<()>>>,
    /// Whether to wait for what is appended and not committed (KIP-447).
    pub require_stable: bool,
}

/// DescribeGroups, of one group.
#[derive(Clone, Debug)]
pub struct DescribeRequest {
    /// The group.
    pub group_id: GroupId,
    /// Whether a group that does not exist is `GROUP_ID_NOT_FOUND` (version 6 and later) instead of
    /// one in state `Dead`.
    pub knows_group_id_not_found: bool,
}

/// ListGroups.
#[derive(Clone, Debug, Default)]
pub struct ListRequest {
    /// Only groups in these states, by name in any case; none for all (version 4).
    pub states: Vec<String>,
    /// Only groups of these types, by name in any case; none for all (version 5).
    pub types: Vec<String>,
}

/// DeleteGroups, of one group.
#[derive(Clone, Debug)]
pub struct DeleteRequest {
    /// The group.
    pub group_id: GroupId,
}

/// OffsetDelete.
#[derive(Clone, Debug)]
pub struct OffsetDeleteRequest {
    /// The group.
    pub group_id: GroupId,
    /// Which offsets.
    pub topics: Vec<ByTopic<()>>,
}

impl GroupRequest {
    /// The group that it is about; none for a list.
    pub fn group_id(&self) -> Option<&GroupId> {
        match self {
            Self::Join(request) => Some(&request.group_id),
            Self::Sync(request) => Some(&request.group_id),
            Self::Heartbeat(request) => Some(&request.group_id),
            Self::Leave(request) => Some(&request.group_id),
            Self::OffsetCommit(request) => Some(&request.group_id),
            Self::OffsetFetch(request) => Some(&request.group_id),
            Self::Describe(request) => Some(&request.group_id),
            Self::List(_) => None,
            Self::Delete(request) => Some(&request.group_id),
            Self::OffsetDelete(request) => Some(&request.group_id),
        }
    }

    /// Refuses what no group could be: an empty id where the API forbids it
    /// (`GroupCoordinatorService.isGroupIdNotEmpty`), and texts that no record holds, which Kafka
    /// does not even read.
    pub(super) fn check(&self) -> Result<(), ErrorCode> {
        let group_id = self.group_id().map_or("", |group_id| group_id);
        let named = match self {
            // The offsets of clients from before ids were required belong to the empty group.
            Self::OffsetCommit(_)
            | Self::OffsetFetch(_)
            | Self::Describe(_)
            | Self::List(_)
            | Self::Delete(_) => false,
            _ => true,
        };
        if named && group_id.is_empty() || group_id.len() > TEXT_BYTES_MAX {
            return Err(ErrorCode::InvalidGroupId);
        }
        let fits = match self {
            Self::Join(join) => join.texts().all(|text| text.len() <= TEXT_BYTES_MAX),
            _ => true,
        };
        if fits { Ok(()) } else { Err(ErrorCode::InvalidRequest) }
    }
}

impl JoinRequest {
    /// The texts of the request that could get into a record.
    fn texts(&self) -> impl Iterator<Item = &str> {
        let fixed = [&*self.protocol_type, &*self.client.id, &*self.client.host, &*self.member_id];
        let protocols = self.protocols.iter().map(|protocol| &*protocol.name);
        fixed.into_iter().chain(self.instance_id.as_deref()).chain(protocols)
    }
}
