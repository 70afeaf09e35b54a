//! `AlterConfigs` (key 33), versions 0-2: replaces all that is set for a resource.
//!
//! The older of two ways (KIP-133): what the request does not name falls back to its default. For
//! topics, brokers, groups and subscriptions to client metrics; loggers are changed by
//! `IncrementalAlterConfigs` alone. The checks are [`super::config_changes`]'.
//!
//! Differs from Kafka 4.3, which never answers a request that names a resource twice: here that is
//! `INVALID_REQUEST`, as in `IncrementalAlterConfigs`.

use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::messages::alter_configs_request::AlterConfigsResource;
use vltava_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use vltava_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use super::config_changes::{Asked, Verdict, carry_out, resource_target};
use super::control::message;
use crate::context::RequestContext;
use crate::controller::configs::ConfigOperation;

/// Key and versions.
pub const API: Api = Api::new(ApiKey::AlterConfigs, 0..=2);

/// Replaces configurations.
pub async fn handle(cx: &RequestContext, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let asked = request.resources.iter().map(|resource| asked(cx, resource)).collect();
    let verdicts = carry_out(cx, asked, request.validate_only).await;
    let answer = |(resource, verdict): (&AlterConfigsResource, Verdict)| {
        let answer = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
            .with_error_message(None);
        match verdict {
            Ok(()) => answer,
            Err(error) => {
                answer.with_error_code(error.code().code()).with_error_message(message(&error))
            }
        }
    };
    let answers = request.resources.iter().zip(verdicts).map(answer).collect();
    AlterConfigsResponse::default().with_responses(answers)
}

fn asked(cx: &RequestContext, resource: &AlterConfigsResource) -> Asked {
    let name = resource.resource_name.to_string();
    let operation = |value: &str| Ok(ConfigOperation::Set(value.to_owned()));
    Asked {
        resource: (resource.resource_type, name.clone()),
        target: resource_target(cx, resource.resource_type, &name),
        replaces: true,
        operations: resource
            .configs
            .iter()
            .map(|config| (config.name.to_string(), config.value.as_deref().map(operation)))
            .collect(),
    }
}
