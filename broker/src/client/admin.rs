//! Changing the cluster: topics, their partitions, and configuration of topics, brokers and groups.
//!
//! Answers are per topic or resource, each its own success or refusal, in the order of the request.

use vltava_protocol::ids::{NodeId, TopicId};
use vltava_protocol::messages::create_partitions_request::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use vltava_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use vltava_protocol::messages::delete_topics_response::DeletableTopicResult;
use vltava_protocol::messages::describe_configs_request::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use vltava_protocol::messages::describe_configs_response::DescribeConfigsResult;
use vltava_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use vltava_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest, Request, StrBytes};

use super::connection::Versions;
use super::{Client, ClientError, text};

/// A topic to be created.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; the broker decides if not given.
    pub partitions: Option<i32>,
    /// How many replicas of each; the broker decides if not given.
    pub replication_factor: Option<i16>,
    /// What is set for it.
    pub configs: Vec<(String, String)>,
}

/// A topic that was created, or would be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreatedTopic {
    /// Its id; zero if it was only checked, or the broker has none.
    pub id: TopicId,
    /// How many partitions it has; -1 if the broker does not tell.
    pub partitions: i32,
    /// How many replicas each has; -1 if the broker does not tell.
    pub replication_factor: i16,
}

/// What a configuration belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resource {
    /// A topic.
    Topic(String),
    /// A broker.
    Broker(NodeId),
    /// All brokers: what was set for the cluster.
    Cluster,
    /// A group.
    Group(String),
}

impl Resource {
    /// The kind's number in requests.
    fn kind(&self) -> i8 {
        match self {
            Self::Topic(_) => 2,
            Self::Broker(_) | Self::Cluster => 4,
            Self::Group(_) => 32,
        }
    }

    /// Its name in requests: that of all brokers is empty.
    fn name(&self) -> String {
        match self {
            Self::Topic(name) | Self::Group(name) => name.clone(),
            Self::Broker(node) => node.to_string(),
            Self::Cluster => String::new(),
        }
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic {name}"),
            Self::Broker(node) => write!(f, "broker {node}"),
            Self::Cluster => write!(f, "cluster"),
            Self::Group(name) => write!(f, "group {name}"),
        }
    }
}

/// One key of a resource's configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigEntry {
    /// The key.
    pub name: String,
    /// Its value; none if it is secret, or nothing is set and there is no default.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: &'static str,
    /// Whether it was set, and is no default.
    pub is_set: bool,
    /// Whether it cannot be changed while the broker runs.
    pub read_only: bool,
    /// Whether brokers keep the value to themselves.
    pub sensitive: bool,
    /// The kind of its values.
    pub kind: &'static str,
    /// All values that it could take, from what wins to the default.
    pub synonyms: Vec<ConfigSynonym>,
    /// What the key is for, in the broker's words.
    pub documentation: Option<String>,
}

/// One of the values that a key could take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigSynonym {
    /// The key under which it was set.
    pub name: String,
    /// The value, if it is not secret.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: &'static str,
}

/// A change of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigChange {
    /// Sets it.
    Set(String, String),
    /// Forgets what was set: the default is back.
    Delete(String),
    /// Adds elements to a list.
    Append(String, String),
    /// Takes elements out of a list.
    Subtract(String, String),
}

impl Client {
    /// Creates topics, or only checks whether they could be.
    pub async fn create_topics(
        &mut self,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Result<Vec<Result<CreatedTopic, ClientError>>, ClientError> {
        let config = |(key, value): &(String, String)| {
            CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value)))
        };
        let topic = |topic: &NewTopic| {
            CreatableTopic::default()
                .with_name(text(&topic.name).into())
                .with_num_partitions(topic.partitions.unwrap_or(-1))
                .with_replication_factor(topic.replication_factor.unwrap_or(-1))
                .with_configs(topic.configs.iter().map(config).collect())
        };
        let request = CreateTopicsRequest::default()
            .with_topics(topics.iter().map(topic).collect())
            .with_timeout_ms(self.timeout_ms())
            .with_validate_only(validate_only);
        let response = self.ask(Versions::of(4, 7), |_| request).await?;
        let answer = |topic: &NewTopic| {
            let what = || format!("topic {}", topic.name);
            let found = response.topics.iter().find(|answer| *answer.name.0 == *topic.name);
            let found = found.ok_or_else(|| self.silence(&what()))?;
            ClientError::check(what, found.error_code, found.error_message.as_ref())?;
            Ok(CreatedTopic {
                id: TopicId(found.topic_id),
                partitions: found.num_partitions,
                replication_factor: found.replication_factor,
            })
        };
        Ok(topics.iter().map(answer).collect())
    }

    /// Deletes topics with all their records.
    pub async fn delete_topics(
        &mut self,
        names: &[String],
    ) -> Result<Vec<Result<(), ClientError>>, ClientError> {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(names.iter().map(|name| text(name).into()).collect())
            .with_timeout_ms(self.timeout_ms());
        let response = self.ask(Versions::of(1, 5), |_| request).await?;
        let answer = |name: &String| {
            let what = || format!("topic {name}");
            let is_its = |answer: &&DeletableTopicResult| {
                answer.name.as_ref().is_some_and(|answered| *answered.0 == **name)
            };
            let found = response.responses.iter().find(is_its);
            let found = found.ok_or_else(|| self.silence(&what()))?;
            ClientError::check(what, found.error_code, found.error_message.as_ref())
        };
        Ok(names.iter().map(answer).collect())
    }

    /// Gives a topic more partitions, so that it has `count`; or only checks whether it could.
    pub async fn create_partitions(
        &mut self,
        topic: &str,
        count: i32,
        validate_only: bool,
    ) -> Result<(), ClientError> {
        let asked = CreatePartitionsTopic::default()
            .with_name(text(topic).into())
            .with_count(count)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![asked])
            .with_timeout_ms(self.timeout_ms())
            .with_validate_only(validate_only);
        let response = self.ask(Versions::of(0, 3), |_| request).await?;
        let what = || format!("partitions of topic {topic}");
        let answer = response.results.first().ok_or_else(|| self.silence(&what()))?;
        ClientError::check(what, answer.error_code, answer.error_message.as_ref())
    }

    /// Describes the configuration of resources of one node.
    pub async fn describe_configs(
        &mut self,
        resources: &[Resource],
    ) -> Result<Vec<Result<Vec<ConfigEntry>, ClientError>>, ClientError> {
        let asked = |resource: &Resource| {
            DescribeConfigsResource::default()
                .with_resource_type(resource.kind())
                .with_resource_name(text(&resource.name()))
                .with_configuration_keys(None)
        };
        let asked = resources.iter().map(asked).collect();
        let build = |version| {
            DescribeConfigsRequest::default()
                .with_resources(asked)
                .with_include_synonyms(true)
                .with_include_documentation(version >= 3)
        };
        let response = self.ask_about(resources, Versions::of(1, 4), build).await?;
        let answer = |resource: &Resource| {
            let what = || format!("configuration of {resource}");
            let is_its = |answer: &&DescribeConfigsResult| {
                answer.resource_type == resource.kind() && *answer.resource_name == *resource.name()
            };
            let found = response.results.iter().find(is_its);
            let found = found.ok_or_else(|| self.silence(&what()))?;
            ClientError::check(what, found.error_code, found.error_message.as_ref())?;
            Ok(config_entries(found))
        };
        Ok(resources.iter().map(answer).collect())
    }

    /// Changes the configuration of a resource, or only checks whether it could be.
    pub async fn alter_config(
        &mut self,
        resource: &Resource,
        changes: &[ConfigChange],
        validate_only: bool,
    ) -> Result<(), ClientError> {
        let asked = AlterConfigsResource::default()
            .with_resource_type(resource.kind())
            .with_resource_name(text(&resource.name()))
            .with_configs(changes.iter().map(alterable).collect());
        let request = IncrementalAlterConfigsRequest::default()
            .with_resources(vec![asked])
            .with_validate_only(validate_only);
        let resources = std::slice::from_ref(resource);
        let response = self.ask_about(resources, Versions::of(0, 1), |_| request).await?;
        let what = || format!("configuration of {resource}");
        let answer = response.responses.first().ok_or_else(|| self.silence(&what()))?;
        ClientError::check(what, answer.error_code, answer.error_message.as_ref())
    }

    /// A broker's own configuration is that broker's to tell and to change.
    async fn ask_about<R: Request>(
        &mut self,
        resources: &[Resource],
        versions: Versions,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, ClientError> {
        let node = resources.iter().find_map(|resource| match resource {
            Resource::Broker(node) => Some(*node),
            _ => None,
        });
        match node {
            None => self.ask(versions, build).await,
            Some(node) => {
                self.cluster(Some(&[]), false).await?;
                self.ask_node(node, versions, build).await
            }
        }
    }

    /// How long the broker may take, in the unit of requests.
    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.timeout().as_millis()).unwrap_or(i32::MAX)
    }

    fn silence(&self, what: &str) -> ClientError {
        ClientError::Missing(format!("{} said nothing about {what}", self.bootstrap()))
    }
}

fn alterable(change: &ConfigChange) -> AlterableConfig {
    let (operation, name, value) = match change {
        ConfigChange::Set(name, value) => (0, name, Some(value)),
        ConfigChange::Delete(name) => (1, name, None),
        ConfigChange::Append(name, value) => (2, name, Some(value)),
        ConfigChange::Subtract(name, value) => (3, name, Some(value)),
    };
    AlterableConfig::default()
        .with_name(text(name))
        .with_config_operation(operation)
        .with_value(value.map(|value| text(value)))
}

fn config_entries(result: &DescribeConfigsResult) -> Vec<ConfigEntry> {
    let owned = |value: &Option<StrBytes>| value.as_ref().map(ToString::to_string);
    let mut entries: Vec<ConfigEntry> = result
        .configs
        .iter()
        .map(|entry| ConfigEntry {
            name: entry.name.to_string(),
            value: owned(&entry.value),
            source: source_name(entry.config_source),
            is_set: entry.config_source != DEFAULT_SOURCE,
            read_only: entry.read_only,
            sensitive: entry.is_sensitive,
            kind: kind_name(entry.config_type),
            synonyms: entry
                .synonyms
                .iter()
                .map(|synonym| ConfigSynonym {
                    name: synonym.name.to_string(),
                    value: owned(&synonym.value),
                    source: source_name(synonym.source),
                })
                .collect(),
            documentation: owned(&entry.documentation),
        })
        .collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}

/// Nobody has set the key.
const DEFAULT_SOURCE: i8 = 5;

/// Kafka's `ConfigSource` by its number (KIP-226).
fn source_name(source: i8) -> &'static str {
    match source {
        1 => "topic",
        2 => "broker",
        3 => "cluster",
        4 => "file",
        DEFAULT_SOURCE => "default",
        6 => "logger",
        7 => "client-metrics",
        8 => "group",
        _ => "unknown",
    }
}

/// Kafka's `ConfigType` by its number (KIP-569).
fn kind_name(kind: i8) -> &'static str {
    match kind {
        1 => "boolean",
        2 => "string",
        3 => "int",
        4 => "short",
        5 => "long",
        6 => "double",
        7 => "list",
        8 => "class",
        9 => "password",
        _ => "unknown",
    }
}
