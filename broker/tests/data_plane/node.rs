//! A node for a test.

use vltava::{Broker, Config};
use vltava_protocol::ids::TopicId;
use vltava_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use vltava_protocol::messages::{
    ApiKey, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    StrBytes,
};

use crate::wire::{Wire, name};

pub(crate) struct TestNode {
    pub(crate) broker: Broker,
}

impl TestNode {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// A node with `key=value` settings.
    pub(crate) async fn with(sets: &[&str]) -> Self {
        let config = Config::new().admin("127.0.0.1:0".parse().unwrap());
        let config = sets.iter().fold(config, |config, set| {
            let (key, value) = set.split_once('=').unwrap();
            config.set(key, value)
        });
        Self { broker: Broker::start_async(config).await.unwrap() }
    }

    pub(crate) async fn connect(&self) -> Wire {
        Wire::connect(self.broker.kafka_addr()).await
    }

    /// Creates a topic with `key=value` settings; its id.
    pub(crate) async fn create(&self, topic: &str, partitions: i32, sets: &[&str]) -> TopicId {
        create(self.connect().await, topic, partitions, sets).await
    }

    /// Deletes a topic.
    pub(crate) async fn delete(&self, topic: &str) {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![name(topic)])
            .with_timeout_ms(30_000);
        let mut wire = self.connect().await;
        let response: DeleteTopicsResponse = wire.call(ApiKey::DeleteTopics, 5, &request).await;
        assert_eq!(response.responses[0].error_code, 0, "{response:?}");
    }
}

/// Through the API, as a client does it.
async fn create(mut wire: Wire, topic: &str, partitions: i32, sets: &[&str]) -> TopicId {
    let configs = sets.iter().map(|set| {
        let (key, value) = set.split_once('=').unwrap();
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_string(key.to_owned()))
            .with_value(Some(StrBytes::from_string(value.to_owned())))
    });
    let topic = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(configs.collect());
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    let mut response: CreateTopicsResponse = wire.call(ApiKey::CreateTopics, 7, &request).await;
    let created = response.topics.remove(0);
    assert_eq!(created.error_code, 0, "{created:?}");
    TopicId(created.topic_id)
}
