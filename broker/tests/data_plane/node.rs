//! A node for a test.

use std::path::PathBuf;

use tempfile::TempDir;
use vltava::config::broker::{BrokerConfig, Flags};
use vltava::config::settings::Settings;
use vltava::node::{Node, RunningNode};
use vltava_protocol::ids::{NodeId, TopicId};
use vltava_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use vltava_protocol::messages::{ApiKey, CreateTopicsRequest, CreateTopicsResponse, StrBytes};

use crate::wire::{Wire, name};

pub(crate) struct TestNode {
    pub(crate) running: RunningNode,
    _dir: TempDir,
}

impl TestNode {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// A node with `key=value` settings.
    pub(crate) async fn with(sets: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let running = Node::start(config(dir.path().join("data"), sets)).await.unwrap();
        Self { running, _dir: dir }
    }

    pub(crate) async fn connect(&self) -> Wire {
        Wire::connect(self.running.kafka_addr()).await
    }

    /// Creates a topic with `key=value` settings; its id.
    pub(crate) async fn create(&self, topic: &str, partitions: i32, sets: &[&str]) -> TopicId {
        create(self.connect().await, topic, partitions, sets).await
    }
}

fn config(data_dir: PathBuf, sets: &[&str]) -> BrokerConfig {
    let flags = Flags {
        node_id: NodeId(1),
        data_dir,
        listen: "127.0.0.1:0".parse().unwrap(),
        advertise: None,
        admin: Some("127.0.0.1:0".parse().unwrap()),
    };
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    let collected = Settings::collect(None, [], &sets).unwrap();
    BrokerConfig::new(flags, collected.settings).unwrap()
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
