//! `InitProducerId` (key 22), versions 0-5: an identity for an idempotent producer.
//!
//! Without a transactional id every call gives a fresh id with epoch 0, as Kafka does. With one the
//! answer is that of a broker whose transaction coordinator cannot be reached,
//! `COORDINATOR_NOT_AVAILABLE`: clients ask again, and find it once there is one. An empty
//! transactional id is `INVALID_REQUEST`.

use tracing::warn;
use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use crate::context::RequestContext;

/// Key and versions.
pub const API: Api = Api::new(ApiKey::InitProducerId, 0..=5);

/// Gives a producer id.
pub async fn handle(cx: &RequestContext, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let response = InitProducerIdResponse::default();
    match give(cx, &request).await {
        Ok(id) => response.with_producer_id(ProducerId(id)).with_producer_epoch(0),
        Err(code) => {
            cx.count(code);
            response
                .with_error_code(code.code())
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1)
        }
    }
}

async fn give(cx: &RequestContext, request: &InitProducerIdRequest) -> Result<i64, ErrorCode> {
    match &request.transactional_id {
        Some(id) if id.0.is_empty() => Err(ErrorCode::InvalidRequest),
        Some(_) => Err(ErrorCode::CoordinatorNotAvailable),
        None => {
            let controller = &cx.node.controller;
            let id = cx.shared.producer_ids.next(async || controller.allocate_producer_ids().await);
            id.await.map_err(|error| {
                warn!(%error, "no producer ids");
                // Clients retry this one until a block can be had.
                ErrorCode::CoordinatorLoadInProgress
            })
        }
    }
}
