//! The records of `__consumer_offsets`, in Kafka's own formats, so that outside tools read them.
//!
//! A key starts with its type: 0 and 1 are the commit of an offset, 2 is the metadata of a classic
//! group. Other types belong to other protocols and newer brokers and are skipped. A value starts
//! with its version; from version 4 on it is flexible (compact lengths, tagged fields). Read are
//! all versions, written are those of Kafka 4.3: 3 for a group, 4 for an offset, but 1 for one with
//! a time of its own at which it expires (`OffsetCommitValue.json`, `GroupMetadataValue.json`).

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use vltava_protocol::ids::{
    LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicId, TopicName, TopicPartition,
};

use super::ids::{GroupId, InstanceId, MemberId, TEXT_BYTES_MAX, Text};
use super::wire::{DecodeError, Reader, put_bytes, put_compact_text, put_nullable_text, put_text};

const OFFSET_COMMIT_KEYS: std::ops::RangeInclusive<i16> = 0..=1;
const OFFSET_COMMIT_KEY: i16 = 1;
const GROUP_METADATA_KEY: i16 = 2;

const OFFSET_COMMIT_WITH_EXPIRY: i16 = 1;
const OFFSET_COMMIT: i16 = 4;
const GROUP_METADATA: i16 = 3;
/// From here on, both values are flexible.
const FLEXIBLE: i16 = 4;
/// The newest version of both values.
const VERSION_MAX: i16 = 4;

/// The tag of the topic id in an `OffsetCommitValue`.
const TOPIC_ID_TAG: u32 = 0;

/// One change of a coordinator's state: a key and its new value; none removes the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRecord {
    /// An offset that a group committed.
    Offset(OffsetKey, Option<CommittedOffset>),
    /// A classic group's members and generation.
    Group(GroupId, Option<Arc<GroupMetadata>>),
}

/// Whose offset of which partition. Ordered by group first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OffsetKey {
    /// The group.
    pub group_id: GroupId,
    /// The partition.
    pub tp: TopicPartition,
}

impl OffsetKey {
    /// Smaller than every other key of the group.
    pub fn first_of(group_id: &GroupId) -> Self {
        let tp = TopicPartition::new("", PartitionIndex(i32::MIN));
        Self { group_id: group_id.clone(), tp }
    }
}

/// An offset as a group committed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next record that the group wants to read.
    pub offset: Offset,
    /// The epoch of the last record read, or [`LeaderEpoch::NONE`].
    pub leader_epoch: LeaderEpoch,
    /// Whatever the client wanted to keep with it.
    pub metadata: Text,
    /// When it was committed.
    pub commit_timestamp: Timestamp,
    /// When it expires, or [`Timestamp::NONE`] for the broker's retention. Only OffsetCommit up to
    /// version 4 says.
    pub expire_timestamp: Timestamp,
    /// The id of the topic, or [`TopicId::ZERO`] if the client did not say.
    pub topic_id: TopicId,
}

/// A classic group as of its last finished rebalance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    /// What kind of protocols the members speak (`consumer`, `connect`); empty for none yet.
    pub protocol_type: Text,
    /// How many rebalances it has had.
    pub generation: i32,
    /// The protocol that was chosen.
    pub protocol: Option<Text>,
    /// The member that assigns.
    pub leader: Option<MemberId>,
    /// When it came into its state, or [`Timestamp::NONE`].
    pub state_timestamp: Timestamp,
    /// The members; none means that the group is empty.
    pub members: Vec<MemberMetadata>,
}

/// A member of a [`GroupMetadata`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberMetadata {
    /// Its id.
    pub member_id: MemberId,
    /// Its own name, if it is static.
    pub instance_id: Option<InstanceId>,
    /// What its client calls itself.
    pub client_id: Text,
    /// Where it connected from, `/address`.
    pub client_host: Text,
    /// How long a rebalance waits for it.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// What it said for the chosen protocol.
    pub subscription: Bytes,
    /// What it was assigned.
    pub assignment: Bytes,
}

impl GroupRecord {
    /// The group that it is about.
    pub fn group_id(&self) -> &GroupId {
        match self {
            Self::Offset(key, _) => &key.group_id,
            Self::Group(group_id, _) => group_id,
        }
    }

    /// Bytes that the record takes in a batch, about.
    pub fn bytes(&self) -> usize {
        const RECORD: usize = 64;
        match self {
            Self::Offset(key, value) => {
                let metadata = value.as_ref().map_or(0, |value| value.metadata.len());
                RECORD + key.group_id.len() + key.tp.topic.len() + metadata
            }
            Self::Group(group_id, value) => {
                let members = value.iter().flat_map(|value| &value.members);
                let texts = members.map(|member| {
                    RECORD
                        + member.member_id.len()
                        + member.subscription.len()
                        + member.assignment.len()
                });
                RECORD + group_id.len() + texts.sum::<usize>()
            }
        }
    }

    /// The record's key and value on disk.
    ///
    /// # Panics
    /// When a text is longer than [`TEXT_BYTES_MAX`]; requests with such are refused at the door.
    pub fn encode(&self) -> (Bytes, Option<Bytes>) {
        let mut key = BytesMut::with_capacity(self.bytes());
        match self {
            Self::Offset(OffsetKey { group_id, tp }, value) => {
                key.put_i16(OFFSET_COMMIT_KEY);
                put_text(&mut key, group_id);
                put_text(&mut key, &tp.topic);
                key.put_i32(tp.partition.0);
                (key.freeze(), value.as_ref().map(CommittedOffset::encode))
            }
            Self::Group(group_id, value) => {
                key.put_i16(GROUP_METADATA_KEY);
                put_text(&mut key, group_id);
                (key.freeze(), value.as_ref().map(|value| value.encode()))
            }
        }
    }

    /// Reads a record; `None` for a key of a type that is not ours. Everything is copied, so the
    /// record keeps no batch alive.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<Self>, DecodeError> {
        let mut key = Reader::new(key);
        match key.i16()? {
            key_type if OFFSET_COMMIT_KEYS.contains(&key_type) => {
                let group_id = key.text()?.into();
                let topic = TopicName::new(key.text()?);
                let tp = TopicPartition { topic, partition: PartitionIndex(key.i32()?) };
                let value = value.map(CommittedOffset::decode).transpose()?;
                Ok(Some(Self::Offset(OffsetKey { group_id, tp }, value)))
            }
            GROUP_METADATA_KEY => {
                let group_id = key.text()?.into();
                let value = value.map(GroupMetadata::decode).transpose()?;
                Ok(Some(Self::Group(group_id, value.map(Arc::new))))
            }
            _ => Ok(None),
        }
    }
}

impl CommittedOffset {
    fn encode(&self) -> Bytes {
        let mut value = BytesMut::with_capacity(64 + self.metadata.len());
        if self.expire_timestamp != Timestamp::NONE {
            value.put_i16(OFFSET_COMMIT_WITH_EXPIRY);
            value.put_i64(self.offset.0);
            put_text(&mut value, &self.metadata);
            value.put_i64(self.commit_timestamp.0);
            value.put_i64(self.expire_timestamp.0);
            return value.freeze();
        }
        value.put_i16(OFFSET_COMMIT);
        value.put_i64(self.offset.0);
        value.put_i32(self.leader_epoch.0);
        put_compact_text(&mut value, &self.metadata);
        value.put_i64(self.commit_timestamp.0);
        if self.topic_id == TopicId::ZERO {
            value.put_u8(0);
        } else {
            let id = self.topic_id.0.as_bytes();
            value.put_slice(&[1, TOPIC_ID_TAG as u8, id.len() as u8]);
            value.put_slice(id);
        }
        value.freeze()
    }

    fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut value = Reader::new(value);
        let version = value.version(VERSION_MAX)?;
        value.flexible = version >= FLEXIBLE;
        let offset = Offset(value.i64()?);
        let leader_epoch = if version >= 3 { LeaderEpoch(value.i32()?) } else { LeaderEpoch::NONE };
        let metadata = value.text()?.into();
        let commit_timestamp = Timestamp(value.i64()?);
        let expire_timestamp = if version == 1 { Timestamp(value.i64()?) } else { Timestamp::NONE };
        let mut topic_id = TopicId::ZERO;
        value.tags(|tag, bytes| {
            if tag == TOPIC_ID_TAG {
                let bytes = bytes.try_into().map_err(|_| DecodeError)?;
                topic_id = TopicId(uuid::Uuid::from_bytes(bytes));
            }
            Ok(())
        })?;
        Ok(Self { offset, leader_epoch, metadata, commit_timestamp, expire_timestamp, topic_id })
    }
}

impl GroupMetadata {
    fn encode(&self) -> Bytes {
        let mut value = BytesMut::new();
        value.put_i16(GROUP_METADATA);
        put_text(&mut value, &self.protocol_type);
        value.put_i32(self.generation);
        put_nullable_text(&mut value, self.protocol.as_deref());
        put_nullable_text(&mut value, self.leader.as_deref());
        value.put_i64(self.state_timestamp.0);
        value.put_i32(self.members.len() as i32);
        for member in &self.members {
            put_text(&mut value, &member.member_id);
            put_nullable_text(&mut value, member.instance_id.as_deref());
            put_text(&mut value, &member.client_id);
            put_text(&mut value, &member.client_host);
            value.put_i32(member.rebalance_timeout_ms);
            value.put_i32(member.session_timeout_ms);
            put_bytes(&mut value, &member.subscription);
            put_bytes(&mut value, &member.assignment);
        }
        value.freeze()
    }

    fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut value = Reader::new(value);
        let version = value.version(VERSION_MAX)?;
        value.flexible = version >= FLEXIBLE;
        let protocol_type = value.text()?.into();
        let generation = value.i32()?;
        let protocol = value.nullable_text()?.map(Text::from);
        let leader = value.nullable_text()?.map(MemberId::from);
        let state_timestamp = if version >= 2 { Timestamp(value.i64()?) } else { Timestamp::NONE };
        let mut members = Vec::new();
        for _ in 0..value.array_length()? {
            members.push(MemberMetadata::decode(&mut value, version)?);
        }
        value.tags(|_, _| Ok(()))?;
        Ok(Self { protocol_type, generation, protocol, leader, state_timestamp, members })
    }
}

impl MemberMetadata {
    fn decode(value: &mut Reader<'_>, version: i16) -> Result<Self, DecodeError> {
        let member_id = value.text()?.into();
        let instance_id = if version >= 3 { value.nullable_text()? } else { None };
        let client_id = value.text()?.into();
        let client_host = value.text()?.into();
        let rebalance_timeout_ms = if version >= 1 { Some(value.i32()?) } else { None };
        let session_timeout_ms = value.i32()?;
        let member = Self {
            member_id,
            instance_id: instance_id.map(InstanceId::from),
            client_id,
            client_host,
            rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
            session_timeout_ms,
            subscription: Bytes::copy_from_slice(value.bytes()?),
            assignment: Bytes::copy_from_slice(value.bytes()?),
        };
        value.tags(|_, _| Ok(()))?;
        Ok(member)
    }
}

const _: () = assert!(TEXT_BYTES_MAX == 0x7fff, "a text's length has 16 bits, one for null");

#[cfg(test)]
mod tests;
