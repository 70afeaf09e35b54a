//! The Produce response of each version.

use std::borrow::Cow;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    TopicProduceResponse,
};
use vltava_protocol::messages::{BrokerId, ProduceResponse, StrBytes};

use super::{Entry, Refusal, TOPIC_IDS_FROM, Topics};
use crate::connection::Reply;
use crate::context::RequestContext;
use crate::handlers::leader::{self, LeaderHint};

/// First version with the log start offset.
const LOG_START_FROM: i16 = 5;
/// First version with error texts and the records at fault (KIP-467).
const RECORD_ERRORS_FROM: i16 = 8;
/// First version that tells who leads (KIP-951).
const LEADER_FROM: i16 = 10;

/// Encodes what became of all entries.
pub(super) fn reply(cx: &RequestContext, topics: Topics) -> Reply {
    let version = cx.api_version;
    let mut endpoints = Vec::new();
    let responses = topics.into_iter().map(|(name, id, entries)| {
        let partitions = entries.into_iter().map(|entry| {
            let response = partition_response(&entry, version);
            let Err(refusal) = &entry.outcome else { return response };
            cx.count(refusal.code);
            match leader_of(cx, &entry) {
                Some(hint) => point_to(response, hint, &mut endpoints),
                None => response,
            }
        });
        let response =
            TopicProduceResponse::default().with_partition_responses(partitions.collect());
        if version >= TOPIC_IDS_FROM {
            response.with_topic_id(id)
        } else {
            response.with_name(name)
        }
    });
    let response = ProduceResponse::default().with_responses(responses.collect());
    cx.reply(&response.with_node_endpoints(endpoints))
}

fn partition_response(entry: &Entry, version: i16) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(entry.index);
    match &entry.outcome {
        Ok(appended) => {
            let response = response
                .with_base_offset(appended.base_offset.0)
                .with_log_append_time_ms(appended.log_append_time.0);
            if version >= LOG_START_FROM {
                response.with_log_start_offset(appended.log_start_offset.0)
            } else {
                response
            }
        }
        Err(refusal) => {
            let response = response
                .with_error_code(refusal.code.code())
                .with_base_offset(-1)
                .with_log_append_time_ms(-1);
            if version >= RECORD_ERRORS_FROM { explain(response, refusal) } else { response }
        }
    }
}

fn explain(response: PartitionProduceResponse, refusal: &Refusal) -> PartitionProduceResponse {
    let text = |text: &Cow<'static, str>| StrBytes::from_string(text.clone().into_owned());
    let records = refusal.record_errors.iter().map(|(index, message)| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(*index)
            .with_batch_index_error_message(message.as_ref().map(text))
    });
    response
        .with_record_errors(records.collect())
        .with_error_message(refusal.message.as_ref().map(text))
}

fn leader_of(cx: &RequestContext, entry: &Entry) -> Option<LeaderHint> {
    let moved = matches!(&entry.outcome, Err(Refusal { code: ErrorCode::NotLeaderOrFollower, .. }));
    if !moved || cx.api_version < LEADER_FROM {
        return None;
    }
    entry.partition.as_ref().map(|partition| leader::hint(&cx.node, partition))
}

fn point_to(
    response: PartitionProduceResponse,
    hint: LeaderHint,
    endpoints: &mut Vec<NodeEndpoint>,
) -> PartitionProduceResponse {
    let node = BrokerId(hint.leader.0);
    if let Some(endpoint) = hint.endpoint
        && endpoints.iter().all(|known| known.node_id != node)
    {
        endpoints.push(
            NodeEndpoint::default()
                .with_node_id(node)
                .with_host(StrBytes::from_string(endpoint.host))
                .with_port(i32::from(endpoint.port))
                .with_rack(endpoint.rack.map(StrBytes::from_string)),
        );
    }
    response.with_current_leader(
        LeaderIdAndEpoch::default().with_leader_id(node).with_leader_epoch(hint.epoch.0),
    )
}
