//! `OffsetDelete` (key 47), version 0: a group forgets how far it has read, of topics that no
//! member reads (KIP-496).
//!
//! A topic or partition that does not exist is told so, and does not keep the rest from being
//! deleted; an error of the group stands alone (`KafkaApis.handleOffsetDeleteRequest`,
//! `OffsetDeleteResponse.Builder`).

use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::PartitionIndex;
use vltava_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use vltava_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::groups::{Outcomes, answer, failure, text, topic_of};
use crate::context::RequestContext;
use crate::controller::MetadataImage;
use crate::coordinator::group::request::{self, ByTopic};
use crate::coordinator::group::{GroupRequest, GroupResponse};

/// Key and versions.
pub const API: Api = Api::new(ApiKey::OffsetDelete, 0..=0);

/// Deletes offsets.
pub async fn handle(cx: &RequestContext, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let (outcomes, topics) = sort(&cx.node.controller.image(), &request);
    let group_id = request.group_id.as_str().into();
    let delete = request::OffsetDeleteRequest { group_id, topics };
    match answer(cx, GroupRequest::OffsetDelete(delete)).await {
        GroupResponse::OffsetDelete(answered) => encode(cx, &request, outcomes.settle(answered)),
        other => {
            let code = failure(&other);
            cx.count(code);
            OffsetDeleteResponse::default().with_error_code(code.code())
        }
    }
}

/// What is for the shard, and what is decided without it.
fn sort(image: &MetadataImage, request: &OffsetDeleteRequest) -> (Outcomes, Vec<ByTopic<()>>) {
    let mut outcomes = Outcomes::new();
    let mut topics = Vec::new();
    for topic in &request.topics {
        let Ok((name, topic_id)) = topic_of(image, false, &topic.name, uuid::Uuid::nil()) else {
            let unknown = Some(ErrorCode::UnknownTopicOrPartition);
            outcomes.push(vec![unknown; topic.partitions.len()]);
            continue;
        };
        let exists = |index: PartitionIndex| {
            image.topic(&name).is_some_and(|topic| topic.partition(index).is_some())
        };
        let indexes = topic.partitions.iter().map(|p| PartitionIndex(p.partition_index));
        outcomes.push(
            indexes
                .clone()
                .map(|index| (!exists(index)).then_some(ErrorCode::UnknownTopicOrPartition))
                .collect(),
        );
        let partitions: Vec<_> =
            indexes.filter(|index| exists(*index)).map(|index| (index, ())).collect();
        if !partitions.is_empty() {
            topics.push(ByTopic { name, topic_id, partitions });
        }
    }
    (outcomes, topics)
}

fn encode(
    cx: &RequestContext,
    request: &OffsetDeleteRequest,
    codes: Vec<Vec<ErrorCode>>,
) -> OffsetDeleteResponse {
    let topics = request.topics.iter().zip(codes).map(|(topic, codes)| {
        let partitions = topic.partitions.iter().zip(codes).map(|(partition, code)| {
            cx.count(code);
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code.code())
        });
        OffsetDeleteResponseTopic::default()
            .with_name(text(&topic.name).into())
            .with_partitions(partitions.collect())
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
