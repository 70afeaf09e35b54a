//! `DescribeProducers` (key 61), version 0: the idempotent producers that partitions know (KIP-664).
//!
//! Only the leader answers. Epoch, last sequence and the time of the last batch are those that the
//! check of sequences goes by; a producer is listed until it expires. No transaction is open as long
//! as none can be begun: coordinator epoch and start offset are −1. A topic's name is checked first,
//! then whether it exists, for all its partitions (`KafkaApis.handleDescribeProducersRequest`).
//!
//! Differs from Kafka 4.3: of a partition that is asked for again the producers are listed once.
//! Its number costs a request four bytes, and its answer a line a producer.

use std::collections::HashSet;

use vltava_protocol::ErrorCode;
use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::ids::{LeaderEpoch, PartitionIndex, TopicName};
use vltava_protocol::messages::describe_producers_request::TopicRequest;
use vltava_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use vltava_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, StrBytes};
use vltava_storage::producers;

use super::leader;
use crate::context::RequestContext;
use crate::controller::error::ControlError;

/// Key and versions.
pub const API: Api = Api::new(ApiKey::DescribeProducers, 0..=0);

/// No transaction.
const NO_COORDINATOR: i32 = -1;
/// No open transaction.
const NO_START: i64 = -1;

/// Describes producers.
pub async fn handle(
    cx: &RequestContext,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let mut seen = HashSet::new();
    let topics = request.topics.iter().map(|topic| {
        let fresh = |index: &&i32| seen.insert((&*topic.name, **index));
        let partitions = topic.partition_indexes.iter().filter(fresh).copied().collect();
        answer_topic(cx, topic, partitions)
    });
    let topics = topics.collect();
    DescribeProducersResponse::default().with_topics(topics)
}

fn answer_topic(cx: &RequestContext, asked: &TopicRequest, partitions: Vec<i32>) -> TopicResponse {
    let name = &*asked.name;
    let refusal = match TopicName::validate(name) {
        Err(error) => Some(ControlError::name(name, error)),
        Ok(()) if cx.node.controller.image().topic(name).is_none() => {
            Some(ControlError::UnknownName(name.to_string()))
        }
        Ok(()) => None,
    };
    let answer = |index: i32| {
        let answer =
            PartitionResponse::default().with_partition_index(index).with_error_message(None);
        if let Some(refusal) = &refusal {
            cx.count(refusal.code());
            return answer
                .with_error_code(refusal.code().code())
                .with_error_message(Some(StrBytes::from_string(refusal.to_string())));
        }
        match producers(cx, name, PartitionIndex(index)) {
            Ok(producers) => {
                answer.with_active_producers(producers.iter().map(on_the_wire).collect())
            }
            Err(code) => {
                cx.count(code);
                answer.with_error_code(code.code())
            }
        }
    };
    TopicResponse::default()
        .with_name(asked.name.clone())
        .with_partitions(partitions.into_iter().map(answer).collect())
}

fn producers(
    cx: &RequestContext,
    topic: &str,
    partition: PartitionIndex,
) -> Result<Vec<producers::ProducerState>, ErrorCode> {
    let partition = leader::by_name(&cx.node, topic, partition)?;
    leader::check(&partition.leadership(), LeaderEpoch::NONE)?;
    Ok(partition.producers())
}

fn on_the_wire(state: &producers::ProducerState) -> ProducerState {
    ProducerState::default()
        .with_producer_id(state.producer.into())
        .with_producer_epoch(state.epoch.0.into())
        .with_last_sequence(state.last_sequence.0)
        .with_last_timestamp(state.last_timestamp.0)
        .with_coordinator_epoch(NO_COORDINATOR)
        .with_current_txn_start_offset(NO_START)
}
