//! Which value of a key wins, and where it comes from.
//!
//! Nearest first: what was set for the topic; then, for each broker's key behind it, what was set
//! at run time for this node, at run time for all nodes, by this node's file, environment or flags;
//! and then that key's default. The same walk serves the broker itself and DescribeConfigs
//! (`ConfigHelper.createTopicConfigEntry`), so a client is shown just what is in force.

use std::collections::BTreeMap;

use super::broker::broker_key;
use super::key::{ConfigKey, Unit};
use super::settings::Settings;

/// Where a value comes from (`DescribeConfigsResponse.ConfigSource`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigSource {
    /// Set for this topic.
    Topic,
    /// Set for this group.
    Group,
    /// Set for this subscription to client metrics.
    ClientMetrics,
    /// The level of a logger of this process.
    Logger,
    /// Set at run time for one broker.
    Broker,
    /// Set at run time for all brokers.
    Cluster,
    /// Set by file, environment or flag when the broker started.
    Static,
    /// Nobody set it.
    Default,
}

impl ConfigSource {
    /// The code on the wire.
    pub fn code(self) -> i8 {
        match self {
            Self::Topic => 1,
            Self::Group => 8,
            Self::ClientMetrics => 7,
            Self::Logger => 6,
            Self::Broker => 2,
            Self::Cluster => 3,
            Self::Static => 4,
            Self::Default => 5,
        }
    }

    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Group => "group",
            Self::ClientMetrics => "client-metrics",
            Self::Logger => "logger",
            Self::Broker => "broker",
            Self::Cluster => "cluster",
            Self::Static => "static",
            Self::Default => "default",
        }
    }
}

/// One place that gives a key a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Given {
    /// The key there, which may be a synonym.
    pub name: &'static str,
    /// The value there, in that key's unit.
    pub value: String,
    /// What kind of place it is.
    pub source: ConfigSource,
    /// How the value becomes the asked key's.
    pub unit: Unit,
}

/// What was set at run time, by key.
pub type Overrides = BTreeMap<String, String>;

/// All layers above the defaults, as of one moment.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// Set at run time for one broker.
    pub broker: Option<&'a Overrides>,
    /// Set at run time for all brokers.
    pub cluster: Option<&'a Overrides>,
    /// Set when the broker started.
    pub settings: &'a Settings,
}

impl<'a> Layers<'a> {
    /// Only what was set when the broker started.
    pub fn of_start(settings: &'a Settings) -> Self {
        Self { broker: None, cluster: None, settings }
    }

    /// All places that give a topic's key a value, the one in force first. A key that has no
    /// broker's key behind it and is not set has none: its default is in force.
    pub fn of_topic(&self, key: &ConfigKey, topic: &Overrides) -> Vec<Given> {
        self.of_resource(key, topic, ConfigSource::Topic)
    }

    /// The same of any resource whose own values have this source.
    pub fn of_resource(
        &self,
        key: &ConfigKey,
        own: &Overrides,
        source: ConfigSource,
    ) -> Vec<Given> {
        let mut given = Vec::new();
        if let Some(value) = own.get(key.name) {
            let value = value.clone();
            given.push(Given { name: key.name, value, source, unit: Unit::Same });
        }
        for synonym in key.synonyms {
            self.push(&mut given, synonym.name, synonym.unit);
        }
        given
    }

    /// All places that give a broker's key a value, the one in force first.
    pub fn of_broker(&self, key: &ConfigKey) -> Vec<Given> {
        let mut given = Vec::new();
        self.push(&mut given, key.name, Unit::Same);
        for synonym in key.synonyms {
            self.push(&mut given, synonym.name, synonym.unit);
        }
        given
    }

    /// The value of a topic's key that is in force, if it has one.
    pub fn topic_value(&self, key: &ConfigKey, topic: &Overrides) -> Option<String> {
        match self.of_topic(key, topic).first() {
            Some(given) => Some(given.unit.convert(&given.value)),
            None => key.default.map(str::to_owned),
        }
    }

    fn push(&self, given: &mut Vec<Given>, name: &str, unit: Unit) {
        let Some(key) = broker_key(name) else { return };
        let mut add = |value: Option<&str>, source| {
            if let Some(value) = value {
                given.push(Given { name: key.name, value: value.to_owned(), source, unit });
            }
        };
        let of = |overrides: Option<&'a Overrides>| overrides?.get(name).map(String::as_str);
        add(of(self.broker), ConfigSource::Broker);
        add(of(self.cluster), ConfigSource::Cluster);
        add(self.settings.get(name), ConfigSource::Static);
        add(key.default, ConfigSource::Default);
    }
}
