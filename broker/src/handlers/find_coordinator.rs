//! `FindCoordinator` (key 10), versions 0-6: where groups are kept.
//!
//! The first question about a group creates `__consumer_offsets` and waits until it has leaders.
//! Transactions and share groups have no coordinator yet: `UNSUPPORTED_VERSION`, with which clients
//! fail at once. (`COORDINATOR_NOT_AVAILABLE` would be retried, by the Java admin client without a
//! pause.) A key type that the version does not know is `INVALID_REQUEST`, as is a share group's
//! key that is not `group:topic id:partition` (`SharePartitionKey.validate`). Versions until 3
//! ask for one key and are told an error's name, also that of none (`FindCoordinatorResponse.
//! prepareOldResponse`); from 4 on a request holds many keys.

use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{NodeId, TopicId};
use vltava_protocol::messages::find_coordinator_response::Coordinator;
use vltava_protocol::messages::{
    BrokerId, FindCoordinatorRequest, FindCoordinatorResponse, StrBytes,
};

use super::groups::text;
use crate::context::RequestContext;
use crate::controller::state::OFFSETS_TOPIC;

/// Key and versions.
pub const API: Api = Api::new(ApiKey::FindCoordinator, 0..=6);

/// First version that asks for many keys.
const BATCHED_FROM: i16 = 4;
/// Key types: 0 groups, 1 transactions, 2 share groups.
const KEY_TYPE_GROUP: i8 = 0;
const KEY_TYPE_TRANSACTION: i8 = 1;
const KEY_TYPE_SHARE: i8 = 2;
/// First version that knows share groups (KIP-932).
const SHARE_FROM: i16 = 6;

/// Where a coordinator is, or why nobody knows.
type Found = Result<(NodeId, String, u16), ErrorCode>;

/// Answers for each key.
pub async fn handle(
    cx: &RequestContext,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    if request.key_type == KEY_TYPE_GROUP {
        create_topic(cx).await;
    }
    let find = |key: &str| {
        let verdict = verdict(request.key_type, key, cx.api_version);
        let found = verdict.and_then(|()| find(cx, key));
        cx.count(found.as_ref().err().copied().unwrap_or_default());
        found
    };
    if cx.api_version < BATCHED_FROM {
        return single(find(&request.key), cx.api_version);
    }
    let coordinators = request.coordinator_keys.iter().map(|key| {
        let (code, node, host, port) = parts(find(key));
        Coordinator::default()
            .with_key(text(key))
            .with_node_id(node)
            .with_host(host)
            .with_port(port)
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::default()))
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}

fn single(found: Found, version: i16) -> FindCoordinatorResponse {
    let (code, node, host, port) = parts(found);
    let message = (version >= 1).then(|| text(code.name()));
    FindCoordinatorResponse::default()
        .with_error_code(code.code())
        .with_error_message(message)
        .with_node_id(node)
        .with_host(host)
        .with_port(port)
}

fn parts(found: Found) -> (ErrorCode, BrokerId, StrBytes, i32) {
    match found {
        Ok((node, host, port)) => {
            (ErrorCode::None, node.into(), StrBytes::from_string(host), port.into())
        }
        Err(code) => (code, BrokerId(-1), StrBytes::default(), -1),
    }
}

/// Whether there is a coordinator for keys of this type.
fn verdict(key_type: i8, key: &str, version: i16) -> Result<(), ErrorCode> {
    match key_type {
        KEY_TYPE_GROUP => Ok(()),
        KEY_TYPE_TRANSACTION => Err(ErrorCode::UnsupportedVersion),
        KEY_TYPE_SHARE if version >= SHARE_FROM && is_share_key(key) => {
            Err(ErrorCode::UnsupportedVersion)
        }
        _ => Err(ErrorCode::InvalidRequest),
    }
}

fn is_share_key(key: &str) -> bool {
    let mut parts = key.split(':');
    let [Some(group), Some(topic), Some(partition), None] = std::array::from_fn(|_| parts.next())
    else {
        return false;
    };
    !group.is_empty() && topic.parse::<TopicId>().is_ok() && partition.parse::<i32>().is_ok()
}

/// Creates the topic of the groups if this is the first question about one.
async fn create_topic(cx: &RequestContext) {
    let controller = &cx.node.controller;
    if controller.image().topic(OFFSETS_TOPIC).is_some() {
        return;
    }
    for result in controller.auto_create(&[OFFSETS_TOPIC.to_owned()]).await {
        if let Err(error) = result {
            tracing::warn!(topic = OFFSETS_TOPIC, %error, "the groups' topic is not created");
        }
    }
}

fn find(cx: &RequestContext, key: &str) -> Found {
    let unavailable = ErrorCode::CoordinatorNotAvailable;
    let index = cx.node.groups.runtime().partition_of(key).ok_or(unavailable)?;
    let partition = cx.node.partitions.get(OFFSETS_TOPIC, index).ok_or(unavailable)?;
    let leader = partition.leadership().leader.ok_or(unavailable)?;
    let image = cx.node.controller.image();
    let broker = image.brokers.get(&leader).ok_or(unavailable)?;
    Ok((leader, broker.host.clone(), broker.port))
}

#[cfg(test)]
mod tests {
    use vltava_protocol::messages::encode_response;

    use super::*;

    #[test]
    fn key_types() {
        for (key_type, version, expected) in [
            (0, 0, Ok(())),
            (0, 6, Ok(())),
            (1, 1, Err(ErrorCode::UnsupportedVersion)),
            (2, 6, Err(ErrorCode::UnsupportedVersion)),
            (2, 5, Err(ErrorCode::InvalidRequest)),
            (3, 6, Err(ErrorCode::InvalidRequest)),
            (-1, 6, Err(ErrorCode::InvalidRequest)),
        ] {
            let key = "group:AAAAAAAAAAAAAAAAAAAAAQ:0";
            assert_eq!(verdict(key_type, key, version), expected, "{key_type} v{version}");
        }
        for key in
            ["", "group", ":AAAAAAAAAAAAAAAAAAAAAQ:0", "g:b:1", "g:AAAAAAAAAAAAAAAAAAAAAQ:0:1"]
        {
            assert_eq!(verdict(2, key, 6), Err(ErrorCode::InvalidRequest), "{key}");
        }
    }

    #[test]
    fn old_versions_take_one_answer() {
        for version in 0..BATCHED_FROM {
            for found in [Ok((NodeId(1), "h".to_owned(), 9)), Err(ErrorCode::InvalidRequest)] {
                let response = single(found, version);
                encode_response(1, ApiKey::FindCoordinator, version, &response).unwrap();
            }
        }
    }
}
