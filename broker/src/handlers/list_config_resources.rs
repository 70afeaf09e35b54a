//! `ListConfigResources` (key 74), versions 0-1: what has a configuration (KIP-1142).
//!
//! Version 0 lists the subscriptions to client metrics alone. From 1 on a request names kinds, none
//! meaning all: topics, brokers and their loggers all have one, groups and subscriptions where one
//! was set. A kind that does not exist is `UNSUPPORTED_VERSION` (`KafkaApis`).

use vltava_protocol::ErrorCode;
use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::messages::list_config_resources_response::ConfigResource;
use vltava_protocol::messages::{
    ListConfigResourcesRequest, ListConfigResourcesResponse, StrBytes,
};

use super::config_changes::{BROKER, CLIENT_METRICS, GROUP, LOGGERS, TOPIC};
use crate::context::RequestContext;
use crate::controller::MetadataImage;

/// Key and versions.
pub const API: Api = Api::new(ApiKey::ListConfigResources, 0..=1);

const ALL: [i8; 5] = [GROUP, CLIENT_METRICS, LOGGERS, BROKER, TOPIC];

/// Lists resources.
pub async fn handle(
    cx: &RequestContext,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let wanted = match (cx.api_version, request.resource_types.as_slice()) {
        (0, _) => &[CLIENT_METRICS],
        (_, []) => &ALL[..],
        (_, named) => named,
    };
    if !wanted.iter().all(|kind| ALL.contains(kind)) {
        cx.count(ErrorCode::UnsupportedVersion);
        return ListConfigResourcesResponse::default()
            .with_error_code(ErrorCode::UnsupportedVersion.code());
    }
    let image = cx.node.controller.image();
    let kinds = ALL.into_iter().filter(|kind| wanted.contains(kind));
    let resources = kinds.flat_map(|kind| {
        let on_the_wire = move |name: String| {
            ConfigResource::default()
                .with_resource_name(StrBytes::from_string(name))
                .with_resource_type(kind)
        };
        names(&image, kind).into_iter().map(on_the_wire)
    });
    ListConfigResourcesResponse::default().with_config_resources(resources.collect())
}

fn names(image: &MetadataImage, kind: i8) -> Vec<String> {
    match kind {
        TOPIC => image.topics().map(|topic| topic.name.to_string()).collect(),
        BROKER | LOGGERS => image.brokers.keys().map(ToString::to_string).collect(),
        other => {
            let configured = image.resource_configs.keys();
            let named = configured.filter(|(kind, _)| kind.code() == other);
            named.map(|(_, name)| name.clone()).collect()
        }
    }
}
