//! Decisions on configurations: what a request sets, added to what is set, checked, as one record.
//!
//! The rules are Kafka's (`ConfigAdminManager` for brokers, `ConfigurationControlManager` and
//! `ControllerConfigurationValidator` for the rest), KIP-339 and KIP-226. A change of one resource
//! is one record: all of it or nothing.

use vltava_protocol::ids::{NodeId, TopicName};

use super::decide::{ControlError, Decision};
use super::records::MetadataRecord;
use super::state::{MetadataImage, is_internal_topic};
use crate::config::foreign;
use crate::config::key::{ConfigError, ConfigKey, Update};
use crate::config::layers::Overrides;
use crate::config::resource::ResourceKind;
use crate::config::value::ConfigType;
use crate::config::{BrokerConfig, TopicConfig, broker, topic};

/// The most bytes of names and values that are set for one resource. Kafka has no such limit; here
/// every change writes the whole set.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;

/// Whose configuration is meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigTarget {
    /// A topic's.
    Topic(String),
    /// A broker's, or without a node that of all brokers.
    Broker(Option<NodeId>),
    /// Another resource's.
    Resource(ResourceKind, String),
}

/// What is done to one key (`AlterConfigOp.OpType`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigOperation {
    /// It gets this value.
    Set(String),
    /// It falls back to what it would be.
    Delete,
    /// These words are added to its list, those that are there already excepted.
    Append(String),
    /// These words are taken from its list.
    Subtract(String),
}

/// What one request changes of one resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigChange {
    /// Whose configuration.
    pub target: ConfigTarget,
    /// Whether what the request does not name is forgotten (`AlterConfigs`).
    pub replaces: bool,
    /// Each key at most once.
    pub operations: Vec<(String, ConfigOperation)>,
}

/// Decides on one resource.
pub fn alter(image: &MetadataImage, change: &ConfigChange, config: &BrokerConfig) -> Decision<()> {
    let had = current(image, &change.target);
    let wanted = apply(&had, change)?;
    let bytes: usize = wanted.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > CONFIG_BYTES_MAX {
        return Err(ControlError::ConfigTooLarge(CONFIG_BYTES_MAX));
    }
    let record = match &change.target {
        ConfigTarget::Topic(name) => {
            let config = check_topic(image, name, &wanted, config)?;
            let topic = image.topic(name);
            let topic = topic.ok_or_else(|| ControlError::NoTopicToConfigure(name.clone()))?;
            MetadataRecord::TopicConfig { id: topic.id, config }
        }
        ConfigTarget::Broker(node) => {
            let asked = change.operations.iter().map(|(name, _)| name.as_str());
            let config = check_broker(image, *node, asked, wanted, config)?;
            MetadataRecord::BrokerConfig { node: node.map(|node| node.0), config }
        }
        ConfigTarget::Resource(kind, name) => {
            check_resource_name(*kind, name)?;
            let config = kind.normalize(&wanted, config).map_err(|error| match kind {
                ResourceKind::Group => ControlError::Config(error),
                ResourceKind::ClientMetrics => client_metrics_refusal(&error),
            })?;
            MetadataRecord::ResourceConfig { kind: *kind, name: name.clone(), config }
        }
    };
    Ok(((set_by(&record) != Some(&had)).then_some(record), ()))
}

/// What is set for a resource.
fn current(image: &MetadataImage, target: &ConfigTarget) -> Overrides {
    let set = match target {
        ConfigTarget::Topic(name) => image.topic(name).map(|topic| &topic.config),
        ConfigTarget::Broker(None) => Some(&*image.cluster_config),
        ConfigTarget::Broker(Some(node)) => image.broker_configs.get(node),
        ConfigTarget::Resource(kind, name) => image.resource_configs.get(&(*kind, name.clone())),
    };
    set.cloned().unwrap_or_default()
}

/// What a record sets.
fn set_by(record: &MetadataRecord) -> Option<&Overrides> {
    match record {
        MetadataRecord::TopicConfig { config, .. }
        | MetadataRecord::BrokerConfig { config, .. }
        | MetadataRecord::ResourceConfig { config, .. } => Some(config),
        _ => None,
    }
}

/// What would be set, unchecked.
fn apply(had: &Overrides, change: &ConfigChange) -> Result<Overrides, ControlError> {
    let mut set = if change.replaces { Overrides::new() } else { had.clone() };
    for (name, operation) in &change.operations {
        let value = match operation {
            ConfigOperation::Delete => {
                set.remove(name);
                continue;
            }
            ConfigOperation::Set(value) => value.clone(),
            ConfigOperation::Append(words) => {
                let key = list_key(&change.target, name, "APPEND")?;
                let mut list = parts(had.get(name), key);
                for word in words.split(',') {
                    if !list.contains(&word) {
                        list.push(word);
                    }
                }
                list.join(",")
            }
            ConfigOperation::Subtract(words) => {
                let key = list_key(&change.target, name, "SUBTRACT")?;
                let mut list = parts(had.get(name), key);
                list.retain(|word| !words.split(',').any(|gone| gone == *word));
                list.join(",")
            }
        };
        set.insert(name.clone(), value);
    }
    Ok(set)
}

/// The words that a list has, or has by default.
fn parts<'a>(set: Option<&'a String>, key: &ConfigKey) -> Vec<&'a str> {
    let text = set.map_or(key.default.unwrap_or_default(), String::as_str);
    text.split(',').filter(|word| !word.is_empty()).collect()
}

/// The row of a key that words can be added to.
fn list_key(
    target: &ConfigTarget,
    name: &str,
    operation: &str,
) -> Result<&'static ConfigKey, ControlError> {
    let key = match target {
        ConfigTarget::Topic(_) => topic::topic_key(name),
        ConfigTarget::Broker(_) => broker::broker_key(name),
        ConfigTarget::Resource(kind, _) => kind.key(name),
    };
    if let Some(key) = key
        && key.kind == ConfigType::List
    {
        return Ok(key);
    }
    Err(ControlError::ConfigOperation(match target {
        ConfigTarget::Broker(_) if key.is_none() => format!("Unknown config name: {name}"),
        ConfigTarget::Broker(_) => {
            let operation = operation.to_ascii_lowercase();
            format!("Config value {operation} is not allowed for config key: {name}")
        }
        _ => format!("Can't {operation} to key {name} because its type is not LIST."),
    }))
}

fn check_topic(
    image: &MetadataImage,
    name: &str,
    wanted: &Overrides,
    config: &BrokerConfig,
) -> Result<Overrides, ControlError> {
    if name.is_empty() {
        let refused = "Default topic resources are not allowed.";
        return Err(ControlError::Request(refused.to_owned()));
    }
    TopicName::validate(name).map_err(|error| ControlError::name(name, error))?;
    let layers = image.layers(config.flags.node_id, &config.settings);
    let entries = wanted.iter().map(|(name, value)| (name.as_str(), Some(value.as_str())));
    let config = TopicConfig::normalize(entries, &layers)?;
    match config.get("durability") {
        Some(value) if is_internal_topic(name) && value != "fsync" => {
            let rule = "What the broker keeps for itself is always synced".to_owned();
            let (name, value) = ("durability", value.clone());
            Err(ConfigError::Value { name, value, rule }.into())
        }
        _ => Ok(config),
    }
}

/// Checks what would be set for a broker or for all. Keys that are not in the table are kept as
/// they are, as Kafka does for those of plug-ins, unless Kafka knows them and would refuse.
fn check_broker<'a>(
    image: &MetadataImage,
    node: Option<NodeId>,
    asked: impl Iterator<Item = &'a str>,
    mut wanted: Overrides,
    config: &BrokerConfig,
) -> Result<Overrides, ControlError> {
    let is_read_only = |name: &&str| {
        wanted.contains_key(*name)
            && match broker::broker_key(name) {
                Some(key) => key.update == Update::ReadOnly,
                None => foreign::is_read_only(name),
            }
    };
    let read_only: Vec<&str> = asked.filter(is_read_only).collect();
    if !read_only.is_empty() {
        return Err(ControlError::BrokerConfig(ConfigError::ReadOnly(read_only.join(", "))));
    }
    for (name, value) in &mut wanted {
        if let Some(key) = broker::broker_key(name) {
            *value = key.normalize(value).map_err(ControlError::BrokerConfig)?;
        }
    }
    let mut layers = image.layers(config.flags.node_id, &config.settings);
    match node {
        Some(_) => layers.broker = Some(&wanted),
        None => layers.cluster = Some(&wanted),
    }
    config.effective(&layers).map_err(ControlError::BrokerConfig)?;
    Ok(wanted)
}

fn check_resource_name(kind: ResourceKind, name: &str) -> Result<(), ControlError> {
    if !name.is_empty() {
        return Ok(());
    }
    let refused = match kind {
        ResourceKind::Group => "Default group resources are not allowed.",
        ResourceKind::ClientMetrics => "Subscription name can't be empty",
    };
    Err(ControlError::Request(refused.to_owned()))
}

/// Client metrics have a code and words of their own (`ClientMetricsConfigs.validate`).
fn client_metrics_refusal(error: &ConfigError) -> ControlError {
    ControlError::Request(match error {
        ConfigError::Unknown { name, .. } => {
            format!("Unknown client metrics configuration: {name}")
        }
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests;
