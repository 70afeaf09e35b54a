//! `FindCoordinator` (key 10), versions 0-6: where groups and transactions are kept.
//!
//! No coordinator runs yet, so the answer is `COORDINATOR_NOT_AVAILABLE`, which clients retry; the
//! API is served because librdkafka uses lz4 only with brokers that advertise it. A key type that
//! the version does not know is `INVALID_REQUEST`.

use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::find_coordinator_response::Coordinator;
use vltava_protocol::messages::{
    BrokerId, FindCoordinatorRequest, FindCoordinatorResponse, StrBytes,
};

use crate::context::RequestContext;

/// Key and versions.
pub const API: Api = Api::new(ApiKey::FindCoordinator, 0..=6);

/// First version that asks for many keys.
const BATCHED_FROM: i16 = 4;
/// Key types: 0 groups, 1 transactions, 2 share groups.
const KEY_TYPE_SHARE: i8 = 2;
/// First version that knows share groups (KIP-932).
const SHARE_FROM: i16 = 6;

/// Answers for each key.
pub async fn handle(
    cx: &RequestContext,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let (code, message) = verdict(request.key_type, cx.api_version);
    cx.count(code);
    let nobody = BrokerId(-1);
    let message = Some(StrBytes::from_static_str(message));
    let response = FindCoordinatorResponse::default();
    if cx.api_version < BATCHED_FROM {
        let message = if cx.api_version >= 1 { message } else { None };
        return response
            .with_error_code(code.code())
            .with_error_message(message)
            .with_node_id(nobody)
            .with_port(-1);
    }
    let coordinators = request.coordinator_keys.into_iter().map(|key| {
        Coordinator::default()
            .with_key(key)
            .with_node_id(nobody)
            .with_port(-1)
            .with_error_code(code.code())
            .with_error_message(message.clone())
    });
    response.with_coordinators(coordinators.collect())
}

fn verdict(key_type: i8, version: i16) -> (ErrorCode, &'static str) {
    let known = (0..=KEY_TYPE_SHARE).contains(&key_type)
        && (key_type != KEY_TYPE_SHARE || version >= SHARE_FROM);
    if known {
        (ErrorCode::CoordinatorNotAvailable, "no coordinator is available")
    } else {
        (ErrorCode::InvalidRequest, "unknown coordinator key type")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_types() {
        for (key_type, version, code) in [
            (0, 0, ErrorCode::CoordinatorNotAvailable),
            (1, 1, ErrorCode::CoordinatorNotAvailable),
            (2, 6, ErrorCode::CoordinatorNotAvailable),
            (2, 5, ErrorCode::InvalidRequest),
            (3, 6, ErrorCode::InvalidRequest),
            (-1, 6, ErrorCode::InvalidRequest),
        ] {
            assert_eq!(verdict(key_type, version).0, code, "{key_type} v{version}");
        }
    }
}
