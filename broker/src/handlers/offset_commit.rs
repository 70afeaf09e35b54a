//! `OffsetCommit` (key 8), versions 2-10: how far a group has read, by partition.
//!
//! The order of commits is fixed when the request is decided; the answer waits for the commit of
//! the one batch that holds them all, for `offsets.commit.timeout.ms` at most, and the next
//! requests may begin meanwhile. Topics are named by id from version 10 on. What does not exist is
//! told apart by partition and does not keep the rest from being committed
//! (`KafkaApis.handleOffsetCommitRequest`).

use std::time::Duration;

use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{LeaderEpoch, Offset, PartitionIndex};
use vltava_protocol::messages::by_topic_id::{AnyOffsetCommit, TOPIC_IDS_FROM};
use vltava_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use vltava_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use vltava_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse, TopicName};

use super::groups::{Outcomes, copied, failure, park, refuse, room, text, topic_of};
use crate::connection::Stage;
use crate::context::RequestContext;
use crate::controller::MetadataImage;
use crate::coordinator::group::ids::Text;
use crate::coordinator::group::request::{self, ByTopic, OffsetToCommit};
use crate::coordinator::group::{GroupRequest, GroupResponse};

/// Key and versions.
pub const API: Api = Api::new(ApiKey::OffsetCommit, 2..=10);

/// Last version that says how long offsets are kept (KIP-211).
const RETENTION_UNTIL: i16 = 4;
/// First version whose clients know `GROUP_ID_NOT_FOUND` here.
const GROUP_ID_NOT_FOUND_FROM: i16 = 9;
/// Bytes of an offset in the log, beside its metadata; a guess.
const OFFSET_BYTES: usize = 128;

/// What the answer repeats of a topic.
struct Asked {
    name: TopicName,
    id: uuid::Uuid,
    partitions: Vec<i32>,
}

/// Commits.
pub async fn start(cx: RequestContext, request: AnyOffsetCommit) -> Stage {
    let AnyOffsetCommit(request) = request;
    let partitions: usize = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    room(&cx, partitions * OFFSET_BYTES).await;
    let asked: Vec<Asked> = request.topics.iter().map(Asked::new).collect();
    let (outcomes, topics) = sort(&cx.node.controller.image(), &request, cx.api_version);
    if topics.is_empty() {
        let response = encode(&cx, asked, outcomes.settle(Vec::new()));
        return Stage::Done(refuse(&cx, &response));
    }
    let retention = (cx.api_version <= RETENTION_UNTIL).then_some(request.retention_time_ms);
    let commit = request::OffsetCommitRequest {
        group_id: request.group_id.as_str().into(),
        member_id: request.member_id.as_str().into(),
        instance_id: copied(request.group_instance_id.as_ref()),
        generation: request.generation_id_or_member_epoch,
        // The default says that the broker decides.
        retention_ms: retention.filter(|&ms| ms != -1),
        knows_group_id_not_found: cx.api_version >= GROUP_ID_NOT_FOUND_FROM,
        topics,
    };
    drop(request);
    let patience = u64::try_from(cx.node.config.offsets_commit_timeout_ms).unwrap_or(0);
    let patience = Duration::from_millis(patience);
    park(cx, GroupRequest::OffsetCommit(commit), patience, move |cx, response| {
        let codes = match response {
            GroupResponse::OffsetCommit(answered) => outcomes.settle(answered),
            other => outcomes.fail(failure(&other)),
        };
        encode(cx, asked, codes)
    })
}

/// What is for the shard, and what is decided without it.
fn sort(
    image: &MetadataImage,
    request: &OffsetCommitRequest,
    version: i16,
) -> (Outcomes, Vec<ByTopic<OffsetToCommit>>) {
    let mut outcomes = Outcomes::new();
    let mut topics = Vec::new();
    for topic in &request.topics {
        let by_id = version >= TOPIC_IDS_FROM;
        match topic_of(image, by_id, &topic.name, topic.topic_id) {
            Ok((name, topic_id)) => {
                let count = image.topic(&name).map_or(0, |topic| topic.partitions.len());
                let exists = |index: i32| usize::try_from(index).is_ok_and(|i| i < count);
                let mut partitions = Vec::with_capacity(topic.partitions.len());
                let mut codes = Vec::with_capacity(topic.partitions.len());
                for partition in &topic.partitions {
                    if !exists(partition.partition_index) {
                        codes.push(Some(ErrorCode::UnknownTopicOrPartition));
                        continue;
                    }
                    codes.push(None);
                    let metadata = partition.committed_metadata.as_deref().unwrap_or("");
                    let offset = OffsetToCommit {
                        offset: Offset(partition.committed_offset),
                        leader_epoch: LeaderEpoch(partition.committed_leader_epoch),
                        metadata: Text::from(metadata),
                    };
                    partitions.push((PartitionIndex(partition.partition_index), offset));
                }
                outcomes.push(codes);
                if !partitions.is_empty() {
                    topics.push(ByTopic { name, topic_id, partitions });
                }
            }
            Err(code) => outcomes.push(vec![Some(code); topic.partitions.len()]),
        }
    }
    (outcomes, topics)
}

fn encode(
    cx: &RequestContext,
    asked: Vec<Asked>,
    codes: Vec<Vec<ErrorCode>>,
) -> OffsetCommitResponse {
    let topics = asked.into_iter().zip(codes).map(|(topic, codes)| {
        let partitions = topic.partitions.into_iter().zip(codes).map(|(index, code)| {
            cx.count(code);
            OffsetCommitResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(code.code())
        });
        OffsetCommitResponseTopic::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name)
            .with_topic_id(topic.id)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

impl Asked {
    /// Copies: the answer may wait, and keeps no frame.
    fn new(topic: &OffsetCommitRequestTopic) -> Self {
        Self {
            name: text(&topic.name).into(),
            id: topic.topic_id,
            partitions: topic.partitions.iter().map(|p| p.partition_index).collect(),
        }
    }
}
