//! Offsets: OffsetCommit, OffsetFetch, OffsetDelete.

use std::collections::BTreeSet;

use vltava_protocol::ErrorCode;
use vltava_protocol::ids::{PartitionIndex, Timestamp, TopicId, TopicPartition};

use super::classic::ClassicGroup;
use super::ids::{GroupId, TEXT_BYTES_MAX};
use super::ledger::AfterCommit;
use super::records::{CommittedOffset, GroupRecord, OffsetKey};
use super::request::{
    ByTopic, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, OffsetToCommit,
};
use super::response::{FetchedOffset, GroupResponse};
use super::state::State;
use super::{Effect, GroupShard, Token};

/// What a handler's part of a request comes to: an answer now, none yet, or an error for all of it.
pub(super) type Answer = Result<Option<GroupResponse>, ErrorCode>;

impl GroupShard {
    /// OffsetCommit: from a member of the present generation, or from outside of a group that has
    /// no members. A group that does not exist begins with it, as a *simple* one.
    pub(super) fn commit(
        &mut self,
        token: Token,
        request: OffsetCommitRequest,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) -> Answer {
        match self.groups.get(&request.group_id) {
            Some(group) => check_commit(group, &request)?,
            None if request.generation < 0 => {}
            None if request.knows_group_id_not_found => return Err(ErrorCode::GroupIdNotFound),
            None => return Err(ErrorCode::IllegalGeneration),
        }
        self.with_group(&request.group_id, now, out, |group, desk| {
            group.committed_offsets(&request.member_id, desk);
        });

        let OffsetCommitRequest { group_id, topics, retention_ms, .. } = request;
        let expire_timestamp =
            retention_ms.map_or(Timestamp::NONE, |ms| Timestamp(now.0.saturating_add(ms)));
        let metadata_max = self.config.offset_metadata_bytes_max;
        let mut records = Vec::new();
        let mut results = Vec::with_capacity(topics.len());
        for ByTopic { name, topic_id, partitions } in topics {
            let mut commit = |(partition, offset): (PartitionIndex, OffsetToCommit)| {
                if is_too_large(&offset.metadata, metadata_max) {
                    return (partition, ErrorCode::OffsetMetadataTooLarge);
                }
                let tp = TopicPartition { topic: name.clone(), partition };
                let value = CommittedOffset {
                    offset: offset.offset,
                    leader_epoch: offset.leader_epoch,
                    metadata: offset.metadata,
                    commit_timestamp: now,
                    expire_timestamp,
                    topic_id,
                };
                let key = OffsetKey { group_id: group_id.clone(), tp };
                records.push(GroupRecord::Offset(key, Some(value)));
                (partition, ErrorCode::None)
            };
            let partitions = partitions.into_iter().map(&mut commit).collect();
            results.push(ByTopic { name, topic_id, partitions });
        }
        let response = GroupResponse::OffsetCommit(results);
        if records.is_empty() {
            return Ok(Some(response));
        }
        self.counters.offset_commits += records.len() as u64;
        if !self.groups.contains_key(&group_id) {
            self.groups.insert(group_id.clone(), ClassicGroup::new(group_id, now));
        }
        self.ledger.append(records, Some(AfterCommit::Reply(token, response)), out);
        Ok(None)
    }

    /// OffsetFetch. A partition without an offset is no error, nor is a group that does not exist.
    pub(super) fn fetch(
        &mut self,
        token: Token,
        request: &OffsetFetchRequest,
        out: &mut Vec<Effect>,
    ) -> Option<GroupResponse> {
        let topics = match &request.topics {
            Some(topics) => self.fetch_some(request, topics),
            None => self.fetch_all(&request.group_id, request.require_stable),
        };
        let response = GroupResponse::OffsetFetch(topics);
        if request.require_stable {
            // It saw what is appended, so it waits for that.
            self.ledger.reply_after_last(token, response, out);
            return None;
        }
        Some(response)
    }

    fn fetch_some(
        &self,
        request: &OffsetFetchRequest,
        topics: &[ByTopic<()>],
    ) -> Vec<ByTopic<FetchedOffset>> {
        let fetch = |topic: &ByTopic<()>, partition: PartitionIndex| {
            let tp = TopicPartition { topic: topic.name.clone(), partition };
            let key = OffsetKey { group_id: request.group_id.clone(), tp };
            let found = if request.require_stable {
                self.ledger.offsets.get(&key)
            } else {
                self.ledger.offsets.get_committed(&key)
            };
            // An offset of an earlier topic of that name means nothing in this one.
            let same = |found: &&CommittedOffset| {
                topic.topic_id == TopicId::ZERO
                    || found.topic_id == TopicId::ZERO
                    || topic.topic_id == found.topic_id
            };
            let found = found.filter(same);
            (partition, found.map_or_else(FetchedOffset::none, FetchedOffset::from))
        };
        topics.iter().map(|topic| topic.map(|partition, ()| fetch(topic, partition))).collect()
    }

    fn fetch_all(&self, group_id: &GroupId, appended: bool) -> Vec<ByTopic<FetchedOffset>> {
        let first = OffsetKey::first_of(group_id);
        let mut topics: Vec<ByTopic<FetchedOffset>> = Vec::new();
        let mut add = |key: &OffsetKey, value: &CommittedOffset| {
            if key.group_id != *group_id {
                return false;
            }
            let begun =
                |last: &ByTopic<_>| last.name == key.tp.topic && last.topic_id == value.topic_id;
            if !topics.last().is_some_and(begun) {
                let name = key.tp.topic.clone();
                topics.push(ByTopic { name, topic_id: value.topic_id, partitions: Vec::new() });
            }
            let last = topics.last_mut().expect("just pushed");
            last.partitions.push((key.tp.partition, FetchedOffset::from(value)));
            true
        };
        if appended {
            self.ledger.offsets.range(&first).take_while(|(key, value)| add(key, value)).count();
        } else {
            let range = self.ledger.offsets.range_committed(&first);
            range.take_while(|(key, value)| add(key, value)).count();
        }
        topics
    }

    /// OffsetDelete: offsets of topics that no member reads.
    pub(super) fn delete_offsets(
        &mut self,
        token: Token,
        request: &OffsetDeleteRequest,
        out: &mut Vec<Effect>,
    ) -> Answer {
        let group = self.groups.get(&request.group_id).ok_or(ErrorCode::GroupIdNotFound)?;
        if group.state() != State::Empty && !group.is_of_consumers() {
            return Err(ErrorCode::NonEmptyGroup);
        }
        let mut keys = BTreeSet::new();
        let mut results = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let code = if group.reads(&topic.name) {
                ErrorCode::GroupSubscribedToTopic
            } else {
                ErrorCode::None
            };
            results.push(topic.map(|partition, ()| {
                let tp = TopicPartition { topic: topic.name.clone(), partition };
                let key = OffsetKey { group_id: request.group_id.clone(), tp };
                if code.is_none() && self.ledger.offsets.get(&key).is_some() {
                    keys.insert(key);
                }
                (partition, code)
            }));
        }
        let response = GroupResponse::OffsetDelete(results);
        if keys.is_empty() {
            return Ok(Some(response));
        }
        self.counters.offset_deletions += keys.len() as u64;
        let records = keys.into_iter().map(|key| GroupRecord::Offset(key, None));
        self.append_in_batches(records.collect(), out);
        self.ledger.after_last(AfterCommit::Reply(token, response));
        Ok(None)
    }

    /// Appends many small records as several batches, each of which any partition takes.
    pub(super) fn append_in_batches(&mut self, records: Vec<GroupRecord>, out: &mut Vec<Effect>) {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for record in records {
            if bytes + record.bytes() > BATCH_BYTES_MAX && !batch.is_empty() {
                self.ledger.append(std::mem::take(&mut batch), None, out);
                bytes = 0;
            }
            bytes += record.bytes();
            batch.push(record);
        }
        if !batch.is_empty() {
            self.ledger.append(batch, None, out);
        }
    }
}

/// The most bytes of a batch of tombstones; well below the least that `message.max.bytes` is set
/// to in practice.
pub(super) const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Who may commit (`ClassicGroup.validateOffsetCommit`).
fn check_commit(group: &ClassicGroup, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
    let OffsetCommitRequest { member_id, instance_id, generation, .. } = request;
    if *generation < 0 && group.state() == State::Empty {
        return Ok(());
    }
    if *generation >= 0 || !member_id.is_empty() || instance_id.is_some() {
        group.check_member(member_id, instance_id.as_ref())?;
        if *generation != group.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
    } else if group.state() != State::Empty {
        return Err(ErrorCode::UnknownMemberId);
    }
    if group.state() == State::CompletingRebalance {
        // A member of this generation that does not know yet what it reads.
        return Err(ErrorCode::RebalanceInProgress);
    }
    Ok(())
}

/// Whether metadata is over `offset.metadata.max.bytes`, which Kafka counts in UTF-16 units.
fn is_too_large(metadata: &str, max: usize) -> bool {
    metadata.len() > TEXT_BYTES_MAX || metadata.len() > max && metadata.encode_utf16().count() > max
}

impl<T> ByTopic<T> {
    /// The same topic with something else for each of its partitions.
    fn map<U>(&self, to: impl FnMut(PartitionIndex, &T) -> (PartitionIndex, U)) -> ByTopic<U> {
        let mut to = to;
        ByTopic {
            name: self.name.clone(),
            topic_id: self.topic_id,
            partitions: self.partitions.iter().map(|(p, of)| to(*p, of)).collect(),
        }
    }
}

impl From<&CommittedOffset> for FetchedOffset {
    fn from(committed: &CommittedOffset) -> Self {
        Self {
            offset: committed.offset,
            leader_epoch: committed.leader_epoch,
            metadata: committed.metadata.clone(),
        }
    }
}
