//! `OffsetFetch` (key 9), versions 1-10: how far groups have read, as far as it is committed.
//!
//! One group until version 7, many from 8 on. A version from 2 on may ask for all of a group's
//! offsets, and has an error for the group; version 1 puts that into every partition. Topics are
//! named by id from version 10 on. A partition without an offset, or of a topic that does not
//! exist, has offset -1 and no error (`KafkaApis.fetchOffsetsForGroup`).

use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{PartitionIndex, TopicId, TopicName};
use vltava_protocol::messages::OffsetFetchResponse;
use vltava_protocol::messages::by_topic_id::{AnyOffsetFetch, TOPIC_IDS_FROM};
use vltava_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use vltava_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};

use super::groups::{answer, failure, text};
use crate::context::RequestContext;
use crate::coordinator::group::request::{ByTopic, OffsetFetchRequest};
use crate::coordinator::group::response::FetchedOffset;
use crate::coordinator::group::{GroupRequest, GroupResponse};

/// Key and versions.
pub const API: Api = Api::new(ApiKey::OffsetFetch, 1..=10);

/// First version with an error for the group, and a way to ask for everything.
const GROUP_ERROR_FROM: i16 = 2;
/// First version that asks about several groups.
const BATCHED_FROM: i16 = 8;

/// Looks offsets up.
pub async fn handle(cx: &RequestContext, request: AnyOffsetFetch) -> OffsetFetchResponse {
    let AnyOffsetFetch(request) = request;
    let stable = request.require_stable;
    if cx.api_version < BATCHED_FROM {
        let topic = |topic: OffsetFetchRequestTopic| {
            OffsetFetchRequestTopics::default()
                .with_name(topic.name)
                .with_partition_indexes(topic.partition_indexes)
        };
        let topics = request.topics.map(|topics| topics.into_iter().map(topic).collect());
        let group =
            OffsetFetchRequestGroup::default().with_group_id(request.group_id).with_topics(topics);
        return single(fetch(cx, &group, stable).await, cx.api_version);
    }
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in &request.groups {
        groups.push(fetch(cx, group, stable).await);
    }
    OffsetFetchResponse::default().with_groups(groups)
}

/// One group's offsets, in the shape of the newest versions.
async fn fetch(
    cx: &RequestContext,
    group: &OffsetFetchRequestGroup,
    require_stable: bool,
) -> OffsetFetchResponseGroup {
    let by_id = cx.api_version >= TOPIC_IDS_FROM;
    let image = cx.node.controller.image();
    let name_of = |topic: &OffsetFetchRequestTopics| {
        if by_id {
            image.topic_by_id(TopicId(topic.topic_id)).map(|topic| topic.name.clone())
        } else {
            Some(TopicName::from(&topic.name))
        }
    };
    let known = group.topics.as_ref().map(|topics| {
        let topics = topics.iter().filter_map(|topic| {
            let partitions = topic.partition_indexes.iter();
            Some(ByTopic {
                name: name_of(topic)?,
                topic_id: TopicId(topic.topic_id),
                partitions: partitions.map(|&index| (PartitionIndex(index), ())).collect(),
            })
        });
        topics.collect()
    });
    let fetch = OffsetFetchRequest {
        group_id: group.group_id.as_str().into(),
        topics: known,
        require_stable,
    };
    let response = answer(cx, GroupRequest::OffsetFetch(fetch)).await;
    let fetched = match response {
        GroupResponse::OffsetFetch(fetched) => fetched,
        other => return refuse(cx, group, failure(&other)),
    };
    let mut topics = Vec::with_capacity(fetched.len());
    match &group.topics {
        Some(asked) => {
            let mut fetched = fetched.into_iter();
            for topic in asked {
                topics.push(match name_of(topic).and_then(|_| fetched.next()) {
                    Some(found) => encode(&found, topic.topic_id),
                    None => unknown(cx, topic, ErrorCode::UnknownTopicId),
                });
            }
        }
        // A topic that is gone has no id to be told by.
        None => topics.extend(fetched.iter().filter_map(|found| {
            let id = image.topic(&found.name).map(|topic| topic.id);
            if by_id {
                id.map(|id| encode(found, id.0))
            } else {
                Some(encode(found, uuid::Uuid::nil()))
            }
        })),
    }
    OffsetFetchResponseGroup::default()
        .with_group_id(text(&group.group_id).into())
        .with_topics(topics)
}

/// A group that was refused: with its partitions only for the version that has no other place.
fn refuse(
    cx: &RequestContext,
    group: &OffsetFetchRequestGroup,
    code: ErrorCode,
) -> OffsetFetchResponseGroup {
    cx.count(code);
    let response = OffsetFetchResponseGroup::default()
        .with_group_id(text(&group.group_id).into())
        .with_error_code(code.code());
    if cx.api_version >= GROUP_ERROR_FROM {
        return response;
    }
    let topics = group.topics.iter().flatten().map(|topic| unknown(cx, topic, code));
    response.with_topics(topics.collect())
}

fn unknown(
    cx: &RequestContext,
    topic: &OffsetFetchRequestTopics,
    code: ErrorCode,
) -> OffsetFetchResponseTopics {
    cx.count(code);
    let partitions = topic
        .partition_indexes
        .iter()
        .map(|&index| partition(index, &FetchedOffset::none()).with_error_code(code.code()));
    OffsetFetchResponseTopics::default()
        .with_name(text(&topic.name).into())
        .with_topic_id(topic.topic_id)
        .with_partitions(partitions.collect())
}

fn encode(found: &ByTopic<FetchedOffset>, id: uuid::Uuid) -> OffsetFetchResponseTopics {
    let partitions = found.partitions.iter();
    OffsetFetchResponseTopics::default()
        .with_name((&found.name).into())
        .with_topic_id(id)
        .with_partitions(partitions.map(|(index, offset)| partition(index.0, offset)).collect())
}

fn partition(index: i32, offset: &FetchedOffset) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions::default()
        .with_partition_index(index)
        .with_committed_offset(offset.offset.0)
        .with_committed_leader_epoch(offset.leader_epoch.0)
        .with_metadata(Some(text(&offset.metadata)))
}

/// The shape of the versions that have one group.
fn single(group: OffsetFetchResponseGroup, version: i16) -> OffsetFetchResponse {
    let topics = group.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|partition| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_committed_offset(partition.committed_offset)
                .with_committed_leader_epoch(partition.committed_leader_epoch)
                .with_metadata(partition.metadata)
                .with_error_code(partition.error_code)
        });
        OffsetFetchResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(partitions.collect())
    });
    let response = OffsetFetchResponse::default().with_topics(topics.collect());
    if version >= GROUP_ERROR_FROM { response.with_error_code(group.error_code) } else { response }
}
