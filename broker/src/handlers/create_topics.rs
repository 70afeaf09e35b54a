//! `CreateTopics` (key 19), versions 2-7.
//!
//! Each topic is decided for itself; the answer comes when the records are committed and the
//! partitions exist here. `validate_only` runs all checks and creates nothing. From version 5 on
//! the answer holds the configuration in force, from 7 on the topic's id. A request's timeout ends
//! the wait, not the creation; without time nothing is begun. A name that the request holds more
//! than once has one answer, behind the others (`ControllerApis.createTopics`).
//!
//! Differs from Kafka 4.3: of two names in one request that become the same in metrics (`a.b`,
//! `a_b`) the second is refused, as it is when the first exists already.

use std::collections::HashSet;
use std::sync::Arc;

use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::ids::{NodeId, PartitionIndex};
use vltava_protocol::messages::create_topics_request::CreatableTopic;
use vltava_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use vltava_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, StrBytes};

use super::control::{message, within};
use super::describe_configs::topic_entries;
use crate::config::layers::Layers;
use crate::context::RequestContext;
use crate::controller::decide::{ControlError, CreatedTopic, NewTopic};

/// Key and versions.
pub const API: Api = Api::new(ApiKey::CreateTopics, 2..=7);

/// Creates topics.
pub async fn handle(cx: &RequestContext, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let node = &cx.node;
    let topics: Vec<NewTopic> = request.topics.iter().map(new_topic).collect();
    let controller = Arc::clone(&node.controller);
    let creation = async move { controller.create_topics(topics, request.validate_only).await };
    let late = || vec![Err(ControlError::TimedOut); request.topics.len()];
    let results = within(request.timeout_ms, creation).await.unwrap_or_else(late);
    let image = node.controller.image();
    let layers = image.layers(node.node_id, &node.config.settings);
    let mut answers = Vec::with_capacity(results.len());
    let mut behind = Vec::new();
    let mut seen = HashSet::new();
    for (topic, result) in request.topics.iter().zip(results) {
        if let Err(error) = &result {
            cx.count(error.code());
        }
        let is_behind = matches!(result, Err(ControlError::Duplicate(_) | ControlError::Reserved));
        if !seen.insert(&topic.name) {
            continue;
        }
        let answer = CreatableTopicResult::default().with_name(topic.name.clone());
        let answer = answer_topic(answer, result, &layers, cx.api_version);
        if is_behind { behind.push(answer) } else { answers.push(answer) }
    }
    answers.append(&mut behind);
    CreateTopicsResponse::default().with_topics(answers)
}

/// The request's topic in the controller's words. Nothing of the request's frame is kept.
fn new_topic(topic: &CreatableTopic) -> NewTopic {
    let assignments = topic.assignments.iter().map(|assignment| {
        let nodes = assignment.broker_ids.iter().map(|id| NodeId(id.0)).collect();
        (PartitionIndex(assignment.partition_index), nodes)
    });
    let configs = topic
        .configs
        .iter()
        .map(|config| (config.name.to_string(), config.value.as_ref().map(ToString::to_string)));
    NewTopic {
        name: topic.name.to_string(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor.into(),
        assignments: assignments.collect(),
        configs: configs.collect(),
    }
}

fn answer_topic(
    answer: CreatableTopicResult,
    result: Result<CreatedTopic, ControlError>,
    layers: &Layers<'_>,
    version: i16,
) -> CreatableTopicResult {
    let answer = answer.with_error_message(None);
    let created = match result {
        Ok(created) => created,
        Err(error) => {
            return answer.with_error_code(error.code().code()).with_error_message(message(&error));
        }
    };
    if version < 5 {
        return answer;
    }
    let configs = topic_entries(&created.config, layers).map(|entry| {
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(entry.key.name))
            .with_value(entry.value.map(StrBytes::from_string))
            .with_read_only(false)
            .with_config_source(entry.source.code())
            .with_is_sensitive(false)
    });
    answer
        .with_topic_id(created.id.0)
        .with_num_partitions(created.partitions)
        .with_replication_factor(created.replication_factor)
        .with_configs(Some(configs.collect()))
}

#[cfg(test)]
mod tests {
    use vltava_protocol::ids::TopicId;
    use vltava_protocol::messages::create_topics_request::CreatableReplicaAssignment;
    use vltava_protocol::messages::encode_response;

    use super::*;
    use crate::config::settings::Settings;

    #[test]
    fn a_request_becomes_the_controller_s() {
        let assignment = CreatableReplicaAssignment::default()
            .with_partition_index(0)
            .with_broker_ids(vec![1.into(), 2.into()]);
        let topic = CreatableTopic::default()
            .with_name(StrBytes::from_static_str("t").into())
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_assignments(vec![assignment]);
        let new = new_topic(&topic);
        assert_eq!(new.assignments, [(PartitionIndex(0), vec![NodeId(1), NodeId(2)])]);
        assert_eq!((new.partitions, new.replication_factor), (-1, -1));
    }

    #[test]
    fn every_version_can_be_answered() {
        let settings = Settings::default();
        let layers = Layers::of_start(&settings);
        let created = CreatedTopic {
            id: TopicId(uuid::Uuid::from_u128(7)),
            partitions: 3,
            replication_factor: 1,
            config: [("retention.ms".to_owned(), "5".to_owned())].into(),
        };
        for version in 2..=7 {
            let fresh = CreatableTopicResult::default;
            let answer = answer_topic(fresh(), Ok(created.clone()), &layers, version);
            let configs = answer.configs.clone().unwrap_or_default();
            let retention = configs.iter().find(|config| &*config.name == "retention.ms");
            assert_eq!(retention.is_some(), version >= 5);
            if let Some(retention) = retention {
                assert_eq!((retention.value.as_deref(), retention.config_source), (Some("5"), 1));
            }
            let refused =
                answer_topic(fresh(), Err(ControlError::Exists("t".into())), &layers, version);
            assert_eq!(refused.error_code, 36);
            let response = CreateTopicsResponse::default().with_topics(vec![answer, refused]);
            encode_response(1, ApiKey::CreateTopics, version, &response).unwrap();
        }
    }
}
