//! What a group has committed: reading, setting and deleting it, as member or from outside.

use std::collections::BTreeMap;

use vltava_protocol::ErrorCode;
use vltava_protocol::ids::{Offset, PartitionIndex};
use vltava_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use vltava_protocol::messages::offset_delete_request::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use vltava_protocol::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use vltava_protocol::messages::{OffsetCommitResponse, OffsetFetchResponse};

use super::protocol::Partitions;
use crate::client::connection::Versions;
use crate::client::{Client, ClientError, text};

/// `OffsetFetch` by name: ids come with version 10; before 2 it cannot ask for everything.
const OFFSET_FETCH: Versions = Versions::of(2, 9);
/// `OffsetCommit` by name: ids come with version 10.
pub(super) const OFFSET_COMMIT: Versions = Versions::of(2, 9);

/// Offsets by topic and partition.
pub type Offsets = BTreeMap<(String, PartitionIndex), Offset>;

/// What a group has committed for a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// The next record to read.
    pub offset: Offset,
    /// The epoch of the record before it, or -1.
    pub leader_epoch: i32,
    /// What the member noted with it.
    pub metadata: String,
}

impl Client {
    /// What a group has committed for these partitions, or for all. A partition without is absent.
    pub async fn committed(
        &mut self,
        group: &str,
        partitions: Option<&Partitions>,
    ) -> Result<BTreeMap<(String, PartitionIndex), Committed>, ClientError> {
        let build = |version| fetch_request(group, partitions, version);
        let response = self.ask_coordinator(group, OFFSET_FETCH, build, fetch_code).await?;
        let what = || format!("offsets of group {group}");
        ClientError::check(what, fetch_code(&response), None)?;
        // Until version 7 it is one group's answer, from then on one of several.
        let single = response.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|answer| {
                let noted = (answer.committed_leader_epoch, answer.metadata.clone());
                (topic.name.to_string(), answer.partition_index, answer.committed_offset, noted)
            })
        });
        let several = response.groups.iter().flat_map(|group| &group.topics).flat_map(|topic| {
            topic.partitions.iter().map(|answer| {
                let noted = (answer.committed_leader_epoch, answer.metadata.clone());
                (topic.name.to_string(), answer.partition_index, answer.committed_offset, noted)
            })
        });
        let mut committed = BTreeMap::new();
        for (topic, partition, offset, (leader_epoch, metadata)) in single.chain(several) {
            // -1 says that there is none.
            if offset >= 0 {
                let metadata = metadata.map_or_else(String::new, |metadata| metadata.to_string());
                let one = Committed { offset: Offset(offset), leader_epoch, metadata };
                committed.insert((topic, PartitionIndex(partition)), one);
            }
        }
        Ok(committed)
    }

    /// Sets what a group without members has committed, and makes the group if it is not there.
    pub async fn set_offsets(&mut self, group: &str, offsets: &Offsets) -> Result<(), ClientError> {
        let build = |_| commit_request(group, offsets);
        let response = self
            .ask_coordinator(group, OFFSET_COMMIT, build, |response| {
                refusals(response).map(|(_, _, code)| code).next().unwrap_or(0)
            })
            .await?;
        match refusals(&response).next() {
            None => Ok(()),
            Some((topic, partition, code)) => {
                let what = || format!("offset of group {group} for {topic}-{partition}");
                ClientError::check(what, code, None)
            }
        }
    }

    /// Deletes what a group has committed for these partitions. Each answer is an error code.
    pub async fn delete_offsets(
        &mut self,
        group: &str,
        partitions: &Partitions,
    ) -> Result<Vec<(String, PartitionIndex, i16)>, ClientError> {
        let of_topic = |(topic, partitions): (&String, &Vec<PartitionIndex>)| {
            let partition = |index: &PartitionIndex| {
                OffsetDeleteRequestPartition::default().with_partition_index(index.0)
            };
            OffsetDeleteRequestTopic::default()
                .with_name(text(topic).into())
                .with_partitions(partitions.iter().map(partition).collect())
        };
        let build = |_| {
            OffsetDeleteRequest::default()
                .with_group_id(text(group).into())
                .with_topics(partitions.iter().map(of_topic).collect())
        };
        let response = self
            .ask_coordinator(group, Versions::of(0, 0), build, |response| response.error_code)
            .await?;
        ClientError::check(|| format!("group {group}"), response.error_code, None)?;
        let answers = response.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|answer| {
                let partition = PartitionIndex(answer.partition_index);
                (topic.name.to_string(), partition, answer.error_code)
            })
        });
        Ok(answers.collect())
    }
}

fn fetch_request(group: &str, partitions: Option<&Partitions>, version: i16) -> OffsetFetchRequest {
    let indexes =
        |indexes: &Vec<PartitionIndex>| indexes.iter().map(|index| index.0).collect::<Vec<_>>();
    // Offsets of a transaction under way are waited for.
    let request = OffsetFetchRequest::default().with_require_stable(version >= 7);
    if version < 8 {
        let topic = |(topic, partitions): (&String, _)| {
            OffsetFetchRequestTopic::default()
                .with_name(text(topic).into())
                .with_partition_indexes(indexes(partitions))
        };
        let topics = partitions.map(|partitions| partitions.iter().map(topic).collect());
        return request.with_group_id(text(group).into()).with_topics(topics);
    }
    let topic = |(topic, partitions): (&String, _)| {
        OffsetFetchRequestTopics::default()
            .with_name(text(topic).into())
            .with_partition_indexes(indexes(partitions))
    };
    let topics = partitions.map(|partitions| partitions.iter().map(topic).collect());
    let asked =
        OffsetFetchRequestGroup::default().with_group_id(text(group).into()).with_topics(topics);
    request.with_groups(vec![asked])
}

/// The first error anywhere in an answer.
fn fetch_code(response: &OffsetFetchResponse) -> i16 {
    let single = response.topics.iter().flat_map(|topic| &topic.partitions);
    let several = response.groups.iter().flat_map(|group| &group.topics);
    let codes = [response.error_code]
        .into_iter()
        .chain(response.groups.iter().map(|group| group.error_code))
        .chain(single.map(|answer| answer.error_code))
        .chain(several.flat_map(|topic| &topic.partitions).map(|answer| answer.error_code));
    codes.into_iter().find(|&code| code != 0).unwrap_or(0)
}

/// A commit from outside; a member adds who it is.
pub(super) fn commit_request(group: &str, offsets: &Offsets) -> OffsetCommitRequest {
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for ((topic, partition), offset) in offsets {
        topics.entry(topic).or_default().push(
            OffsetCommitRequestPartition::default()
                .with_partition_index(partition.0)
                .with_committed_offset(offset.0)
                .with_committed_metadata(Some(text(""))),
        );
    }
    let topic = |(name, partitions)| {
        OffsetCommitRequestTopic::default().with_name(text(name).into()).with_partitions(partitions)
    };
    OffsetCommitRequest::default()
        .with_group_id(text(group).into())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(topics.into_iter().map(topic).collect())
}

/// The partitions of a commit that were refused.
pub(super) fn refusals(
    response: &OffsetCommitResponse,
) -> impl Iterator<Item = (String, PartitionIndex, i16)> {
    response.topics.iter().flat_map(|topic| {
        let refused = topic.partitions.iter().filter(|answer| answer.error_code != 0);
        refused.map(|answer| {
            (topic.name.to_string(), PartitionIndex(answer.partition_index), answer.error_code)
        })
    })
}

/// Whether a commit is refused because the group goes through a change.
pub(super) fn is_rebalance(code: i16) -> bool {
    ErrorCode::from_code(code) == Some(ErrorCode::RebalanceInProgress)
}
