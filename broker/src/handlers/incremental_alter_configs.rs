//! `IncrementalAlterConfigs` (key 44), versions 0-1: sets, deletes, appends to and subtracts from
//! single keys (KIP-339).
//!
//! For topics, brokers (a name that is empty means all of them), groups, subscriptions to client
//! metrics, and the loggers of this process (KIP-412). What is changed is in force when the answer
//! comes. The checks are [`super::config_changes`]', the decisions `controller::configs`'.
//!
//! Differs from Kafka 4.3: an operation that does not exist is `INVALID_REQUEST` for every kind of
//! resource, not only for brokers.

use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use vltava_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use vltava_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::config_changes::{Asked, LOGGERS, Target, Verdict, carry_out, resource_target};
use super::control::message;
use crate::context::RequestContext;
use crate::controller::configs::ConfigOperation;
use crate::controller::error::ControlError;

/// Key and versions.
pub const API: Api = Api::new(ApiKey::IncrementalAlterConfigs, 0..=1);

/// Changes configurations.
pub async fn handle(
    cx: &RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
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
    IncrementalAlterConfigsResponse::default().with_responses(answers)
}

fn asked(cx: &RequestContext, resource: &AlterConfigsResource) -> Asked {
    let name = resource.resource_name.to_string();
    let target = match resource.resource_type {
        LOGGERS => Ok(Target::Loggers),
        kind => resource_target(cx, kind, &name),
    };
    Asked {
        resource: (resource.resource_type, name),
        target,
        replaces: false,
        operations: resource
            .configs
            .iter()
            .map(|config| (config.name.to_string(), operation(config)))
            .collect(),
    }
}

/// What is to be done; `None` where a value is missing.
fn operation(config: &AlterableConfig) -> Option<Result<ConfigOperation, ControlError>> {
    const DELETE: i8 = 1;
    let value = || config.value.as_ref().map(ToString::to_string);
    Some(Ok(match config.config_operation {
        DELETE => ConfigOperation::Delete,
        0 => ConfigOperation::Set(value()?),
        2 => ConfigOperation::Append(value()?),
        3 => ConfigOperation::Subtract(value()?),
        other => {
            value()?;
            let unknown = format!("Unknown operations type {other}");
            return Some(Err(ControlError::Request(unknown)));
        }
    }))
}
