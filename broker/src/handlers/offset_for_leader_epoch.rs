//! `OffsetForLeaderEpoch` (key 23), versions 2-4: where the log of an epoch ends (KIP-101, KIP-320).
//!
//! Clients ask after a change of leader, to learn whether what they have read was cut off.

use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{LeaderEpoch, Offset, PartitionIndex};
use vltava_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use vltava_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use vltava_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::leader;
use crate::context::RequestContext;

/// Key and versions.
pub const API: Api = Api::new(ApiKey::OffsetForLeaderEpoch, 2..=4);

/// Answers for each partition.
pub async fn handle(
    cx: &RequestContext,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let found = end_offset(cx, &topic.topic, asked);
            let code = found.err().unwrap_or(ErrorCode::None);
            cx.count(code);
            let (epoch, offset) = found.unwrap_or((LeaderEpoch::NONE, Offset::NONE));
            EpochEndOffset::default()
                .with_error_code(code.code())
                .with_partition(asked.partition)
                .with_leader_epoch(epoch.0)
                .with_end_offset(offset.0)
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

fn end_offset(
    cx: &RequestContext,
    topic: &str,
    asked: &OffsetForLeaderPartition,
) -> Result<(LeaderEpoch, Offset), ErrorCode> {
    let partition = leader::by_name(&cx.node, topic, PartitionIndex(asked.partition))?;
    leader::check(&partition.leadership(), LeaderEpoch(asked.current_leader_epoch))?;
    Ok(partition.end_offset_for_epoch(LeaderEpoch(asked.leader_epoch)))
}
