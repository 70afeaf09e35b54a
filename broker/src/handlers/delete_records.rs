//! `DeleteRecords` (key 21), versions 0-2: moves the start of partitions.
//!
//! Offset −1 means the high watermark. The start moves by a committed entry, so that what was
//! deleted does not come back with a failover; the answer comes after its commit and holds the new
//! start (of all replicas: here the commit is what they agree on). An offset below the start changes
//! nothing and succeeds, one past the high watermark is `OFFSET_OUT_OF_RANGE`. A topic that is only
//! compacted is `POLICY_VIOLATION`, one of the broker's own `INVALID_TOPIC_EXCEPTION`
//! (`UnifiedLog`, `Partition.deleteRecordsOnLeader`, `ReplicaManager.deleteRecordsOnLocalLog`). Of a
//! partition that is named twice the last offset counts.
//!
//! Differs from Kafka 4.3: one replica needs a sync of its disk too, so a timeout of less than
//! [`PATIENCE_MIN`] is taken for that.

use std::collections::BTreeMap;
use std::time::Duration;

use vltava_protocol::ErrorCode;
use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::ids::{LeaderEpoch, Offset, PartitionIndex};
use vltava_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use vltava_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse, TopicName};

use super::leader;
use crate::context::RequestContext;
use crate::controller::state::is_internal_topic;
use crate::partition::AckFuture;

/// Key and versions.
pub const API: Api = Api::new(ApiKey::DeleteRecords, 0..=2);

/// The least time that the commit of a new start is given.
pub const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// The start of a partition whose records were not deleted.
const NO_START: Offset = Offset(-1);

/// Deletes records.
pub async fn handle(cx: &RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut wanted: BTreeMap<(&TopicName, PartitionIndex), Offset> = BTreeMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let index = PartitionIndex(partition.partition_index);
            wanted.insert((&topic.name, index), Offset(partition.offset));
        }
    }
    // All are in their logs before the first is waited for.
    let begun: Vec<_> = wanted
        .into_iter()
        .map(|((topic, partition), offset)| {
            ((topic, partition), begin(cx, topic, partition, offset))
        })
        .collect();
    let patience = u64::try_from(request.timeout_ms).map(Duration::from_millis);
    let deadline = cx.begun + patience.unwrap_or_default().max(PATIENCE_MIN);
    let mut topics: Vec<DeleteRecordsTopicResult> = Vec::new();
    for ((topic, partition), begun) in begun {
        let result = match begun {
            Ok((start, ack)) => {
                let committed = tokio::time::timeout_at(deadline, ack).await;
                committed.unwrap_or(Err(ErrorCode::RequestTimedOut)).map(|()| start)
            }
            Err(code) => Err(code),
        };
        let answer = answer(cx, partition, result);
        match topics.last_mut() {
            Some(last) if last.name == *topic => last.partitions.push(answer),
            _ => topics.push(
                DeleteRecordsTopicResult::default()
                    .with_name(topic.clone())
                    .with_partitions(vec![answer]),
            ),
        }
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

/// Proposes the new start of one partition.
fn begin(
    cx: &RequestContext,
    topic: &str,
    partition: PartitionIndex,
    offset: Offset,
) -> Result<(Offset, AckFuture), ErrorCode> {
    let partition = leader::by_name(&cx.node, topic, partition)?;
    if is_internal_topic(topic) {
        return Err(ErrorCode::InvalidTopicException);
    }
    leader::check(&partition.leadership(), LeaderEpoch::NONE)?;
    let policy = partition.config().cleanup_policy;
    if policy.compact && !policy.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    partition.delete_records(offset)
}

fn answer(
    cx: &RequestContext,
    partition: PartitionIndex,
    result: Result<Offset, ErrorCode>,
) -> DeleteRecordsPartitionResult {
    let code = result.err().unwrap_or_default();
    cx.count(code);
    DeleteRecordsPartitionResult::default()
        .with_partition_index(partition.0)
        .with_low_watermark(result.unwrap_or(NO_START).0)
        .with_error_code(code.code())
}
