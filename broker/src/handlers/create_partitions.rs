//! `CreatePartitions` (key 37), versions 0-3: more partitions for topics that exist.
//!
//! Each topic is decided for itself (`ReplicationControlManager.createPartitions`); the answer comes
//! when the records are committed and the partitions exist here and have leaders. `validate_only`
//! runs all checks and adds nothing. A request's timeout ends the wait, not the change; without
//! time nothing is begun. A name that the request holds more than once has one answer, before the
//! others (`ControllerApis.createPartitions`). More than 10,000 partitions in one request are
//! `UNKNOWN_SERVER_ERROR`, as Kafka says it.

use std::collections::HashSet;
use std::sync::Arc;

use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::ids::NodeId;
use vltava_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use vltava_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use vltava_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::control::{message, within};
use crate::context::RequestContext;
use crate::controller::decide::{ControlError, MorePartitions};

/// Key and versions.
pub const API: Api = Api::new(ApiKey::CreatePartitions, 0..=3);

/// Adds partitions.
pub async fn handle(
    cx: &RequestContext,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let topics: Vec<MorePartitions> = request.topics.iter().map(more_partitions).collect();
    let controller = Arc::clone(&cx.node.controller);
    let change = async move { controller.create_partitions(topics, request.validate_only).await };
    let late = || vec![Err(ControlError::TimedOut); request.topics.len()];
    let results = within(request.timeout_ms, change).await.unwrap_or_else(late);
    let mut answers = Vec::with_capacity(results.len());
    let mut others = Vec::with_capacity(results.len());
    let mut seen = HashSet::new();
    for (topic, result) in request.topics.iter().zip(results) {
        if !seen.insert(&topic.name) {
            continue;
        }
        let answer = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
        match result {
            Ok(()) => others.push(answer.with_error_message(None)),
            Err(error) => {
                cx.count(error.code());
                // Kafka says nothing of a topic that it does not know.
                let text = match &error {
                    ControlError::UnknownName(_) => None,
                    told => message(told),
                };
                let answer = answer.with_error_code(error.code().code()).with_error_message(text);
                match error {
                    ControlError::Duplicate(_) => answers.push(answer),
                    _ => others.push(answer),
                }
            }
        }
    }
    answers.append(&mut others);
    CreatePartitionsResponse::default().with_results(answers)
}

/// The request's topic in the controller's words. Nothing of the request's frame is kept.
fn more_partitions(topic: &CreatePartitionsTopic) -> MorePartitions {
    let nodes = |assignment: &CreatePartitionsAssignment| {
        assignment.broker_ids.iter().map(|id| NodeId(id.0)).collect()
    };
    MorePartitions {
        topic: topic.name.to_string(),
        count: topic.count,
        assignments: topic.assignments.as_ref().map(|all| all.iter().map(nodes).collect()),
    }
}
