//! `ApiVersions` (key 18), versions 0-4: what this broker serves, from the table of handlers.
//!
//! A version we do not know is answered in version 0 with `UNSUPPORTED_VERSION` and our own range
//! (KIP-511). From version 3 the client names its software; a name that is no name is
//! `INVALID_REQUEST`. Features: none are finalized as long as no group or transaction protocol
//! depends on one. Differs from Kafka 4.3: version 5 (KIP-1242) is not served.

use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::api_versions_response::ApiVersion;
use vltava_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse, encode_response};

use super::HANDLERS;
use crate::connection::{CloseCause, Reply};
use crate::context::RequestContext;

/// Key and versions.
pub const API: Api = Api::new(ApiKey::ApiVersions, 0..=4);

/// First version with the client's name and features.
const NAMED_FROM: i16 = 3;
/// Epoch of finalized features when there are none yet.
const FEATURES_EPOCH_UNKNOWN: i64 = -1;

/// Lists the APIs.
pub async fn handle(cx: &RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse {
    let named = is_software_name(&request.client_software_name)
        && is_software_name(&request.client_software_version);
    if cx.api_version >= NAMED_FROM && !named {
        cx.count(ErrorCode::InvalidRequest);
        return ApiVersionsResponse::default()
            .with_error_code(ErrorCode::InvalidRequest.code())
            .with_finalized_features_epoch(FEATURES_EPOCH_UNKNOWN);
    }
    ApiVersionsResponse::default()
        .with_api_keys(HANDLERS.iter().map(|handler| advertised(handler.api)).collect())
        .with_finalized_features_epoch(FEATURES_EPOCH_UNKNOWN)
}

/// The answer to a version we do not know.
pub fn unsupported(correlation_id: i32) -> Reply {
    let response = ApiVersionsResponse::default()
        .with_error_code(ErrorCode::UnsupportedVersion.code())
        .with_api_keys(vec![advertised(API)]);
    match encode_response(correlation_id, ApiKey::ApiVersions, 0, &response) {
        Ok(frame) => Reply::Frame(frame.into_frame_of()),
        Err(error) => Reply::Close(CloseCause::Encode(error.to_string())),
    }
}

fn advertised(api: Api) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(api.key as i16)
        .with_min_version(api.advertised_min)
        .with_max_version(api.max)
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?` (`ApiVersionsRequest.isValid`).
fn is_software_name(name: &str) -> bool {
    let ends = |at: Option<&u8>| at.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use vltava_protocol::messages::ResponsePart;

    use super::*;

    #[test]
    fn software_names() {
        for (name, good) in [
            ("librdkafka", true),
            ("apache-kafka-java", true),
            ("4.1.0", true),
            ("a", true),
            ("", false),
            ("-a", false),
            ("a.", false),
            ("a b", false),
            ("ä", false),
        ] {
            assert_eq!(is_software_name(name), good, "{name:?}");
        }
    }

    #[test]
    fn an_unknown_version_learns_our_range() {
        let Reply::Frame(frame) = unsupported(7) else { panic!("closed") };
        // length, correlation id, error 35, one key: 18, 0, 4; no throttle time in version 0
        let expected = [0, 0, 0, 16, 0, 0, 0, 7, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4];
        let parts: Vec<_> = frame.parts().iter().filter_map(ResponsePart::in_memory).collect();
        assert_eq!(parts, [&expected[..]]);
    }

    #[test]
    fn produce_is_advertised_from_zero() {
        let all: Vec<ApiVersion> = HANDLERS.iter().map(|h| advertised(h.api)).collect();
        let produce = all.iter().find(|api| api.api_key == 0).unwrap();
        assert_eq!((produce.min_version, produce.max_version), (0, 13));
    }
}
