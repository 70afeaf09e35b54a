//! The Fetch response: which partitions it names, and what it says of each.

use std::sync::Arc;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{PartitionIndex, TopicId, TopicName};
use vltava_protocol::messages::fetch::{FetchPartitionResponse, FetchTopicResponse, NodeEndpoint};
use vltava_protocol::messages::{FetchRequest, FetchResponse};

use super::read::{Isolation, PartitionRead};
use super::{FetchContext, Partition, PartitionKey, TOPIC_IDS_FROM, TopicKey, topic_key};
use crate::connection::{Part, Reply};
use crate::context::RequestContext;
use crate::fetch_sessions::{MustTell, Outcome};
use crate::handlers::leader;

/// First version that knows `KAFKA_STORAGE_ERROR`; older clients look for another leader instead
/// (`KafkaApis.maybeDownConvertStorageError`).
const STORAGE_ERROR_FROM: i16 = 6;
/// First version that tells who leads (KIP-951).
const LEADER_FROM: i16 = 16;

/// Answers with what was read, as the session wants it told.
pub(super) fn reply(
    cx: &RequestContext,
    context: FetchContext,
    targets: &[Result<Arc<Partition>, ErrorCode>],
    isolation: Isolation,
    mut reads: Vec<PartitionRead>,
) -> Reply {
    // Before the outcomes: what cannot be had of the map is an error, not bytes.
    let runs: Vec<_> = reads.iter_mut().map(PartitionRead::take_runs).collect();
    let outcomes: Vec<_> = reads.iter().map(outcome).collect();
    let keys: Vec<PartitionKey> =
        context.partitions().iter().map(|fetch| fetch.key.clone()).collect();
    let answer = match context.answer(&cx.shared.fetch_sessions, cx.node.clock.now(), &outcomes) {
        Ok(answer) => answer,
        Err(code) => return refuse(cx, code),
    };
    let mut response = FetchResponse { session_id: answer.session_id, ..FetchResponse::default() };
    let partitions = keys.into_iter().zip(reads).zip(runs).zip(targets).zip(answer.told);
    for ((((key, read), records), target), told) in partitions {
        if !told {
            continue;
        }
        cx.count(read.code);
        let mut partition = FetchPartitionResponse {
            partition: key.partition,
            error_code: for_version(read.code, cx.api_version),
            high_watermark: read.high_watermark,
            last_stable_offset: read.last_stable_offset,
            log_start_offset: read.log_start_offset,
            diverging_epoch: read.diverging,
            // No transaction can be open or aborted yet.
            aborted_transactions: (isolation == Isolation::ReadCommitted).then(Vec::new),
            records,
            ..FetchPartitionResponse::empty(key.partition, read.code)
        };
        if let Ok(target) = target {
            target.traffic().sent(read.bytes);
            point_to_leader(cx, target, &mut partition, &mut response.node_endpoints);
        }
        push(&mut response.topics, &key.topic, partition);
    }
    encode(cx, &response)
}

/// Refuses a request as a whole; without a session.
pub(super) fn refuse(cx: &RequestContext, code: ErrorCode) -> Reply {
    cx.count(code);
    encode(cx, &FetchResponse { error_code: code, ..FetchResponse::default() })
}

/// Refuses every partition of a request.
pub(super) fn refuse_partitions(
    cx: &RequestContext,
    request: &FetchRequest,
    code: ErrorCode,
) -> Reply {
    cx.count(code);
    let by_id = cx.api_version >= TOPIC_IDS_FROM;
    let mut response = FetchResponse::default();
    for topic in &request.topics {
        let key = topic_key(&topic.topic, topic.topic_id, by_id);
        for partition in &topic.partitions {
            let index = PartitionIndex(partition.partition);
            push(&mut response.topics, &key, FetchPartitionResponse::empty(index, code));
        }
    }
    encode(cx, &response)
}

/// The code as a client of this version knows it.
fn for_version(code: ErrorCode, version: i16) -> ErrorCode {
    match code {
        ErrorCode::KafkaStorageError if version < STORAGE_ERROR_FROM => {
            ErrorCode::NotLeaderOrFollower
        }
        code => code,
    }
}

fn encode(cx: &RequestContext, response: &FetchResponse<Part>) -> Reply {
    cx.reply_encoded(response.encode(cx.correlation_id, cx.api_version))
}

fn outcome(read: &PartitionRead) -> Outcome {
    let must_tell = if read.code != ErrorCode::None {
        MustTell::Error
    } else if read.diverging.is_some() {
        MustTell::Diverging
    } else {
        MustTell::No
    };
    Outcome {
        record_bytes: read.bytes,
        high_watermark: read.high_watermark,
        log_start_offset: read.log_start_offset,
        must_tell,
    }
}

fn point_to_leader(
    cx: &RequestContext,
    target: &Partition,
    partition: &mut FetchPartitionResponse<Part>,
    endpoints: &mut Vec<NodeEndpoint>,
) {
    let moved = matches!(
        partition.error_code,
        ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch
    );
    if !moved || cx.api_version < LEADER_FROM {
        return;
    }
    let hint = leader::hint(&cx.node, target);
    partition.current_leader = Some((hint.leader, hint.epoch));
    if let Some(endpoint) = hint.endpoint
        && endpoints.iter().all(|known| known.node_id != hint.leader)
    {
        let leader::Endpoint { host, port, rack } = endpoint;
        endpoints.push(NodeEndpoint { node_id: hint.leader, host, port: i32::from(port), rack });
    }
}

/// Adds a partition, to the topic before it if that is its own.
fn push(
    topics: &mut Vec<FetchTopicResponse<Part>>,
    key: &TopicKey,
    partition: FetchPartitionResponse<Part>,
) {
    if let Some(last) = topics.last_mut()
        && is_topic(last, key)
    {
        last.partitions.push(partition);
        return;
    }
    let (topic, topic_id) = match key {
        TopicKey::Name(name) => (name.clone(), TopicId::ZERO),
        TopicKey::Id(id) => (TopicName::new(""), *id),
    };
    topics.push(FetchTopicResponse { topic, topic_id, partitions: vec![partition] });
}

fn is_topic(topic: &FetchTopicResponse<Part>, key: &TopicKey) -> bool {
    match key {
        TopicKey::Name(name) => topic.topic == *name,
        TopicKey::Id(id) => topic.topic_id == *id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_clients_take_a_failed_disk_for_a_move() {
        let storage = ErrorCode::KafkaStorageError;
        assert_eq!(for_version(storage, 5), ErrorCode::NotLeaderOrFollower);
        assert_eq!(for_version(storage, 6), storage);
        assert_eq!(for_version(ErrorCode::OffsetOutOfRange, 4), ErrorCode::OffsetOutOfRange);
    }

    #[test]
    fn neighbors_of_one_topic_share_it() {
        let key = |id| TopicKey::Id(TopicId(uuid::Uuid::from_u128(id)));
        let mut topics = Vec::new();
        for (topic, index) in [(1, 0), (1, 1), (2, 0), (1, 2)] {
            let partition = FetchPartitionResponse::empty(PartitionIndex(index), ErrorCode::None);
            push(&mut topics, &key(topic), partition);
        }
        let shape: Vec<usize> = topics.iter().map(|topic| topic.partitions.len()).collect();
        assert_eq!(shape, [2, 1, 1]);
    }
}
