//! Configuration of what is neither topic nor broker: groups (KIP-848, `GroupConfig`) and
//! subscriptions to client metrics (KIP-714, `ClientMetricsConfigs`).
//!
//! A resource that nobody has configured exists all the same, with its defaults: that is how Kafka
//! describes it. A group's keys fall back to the broker's; classic groups heed none of them. No
//! client metrics are collected, so their subscriptions are kept and have no effect, as in Kafka
//! without a receiver of them.

use super::broker::BrokerConfig;
use super::key::{ConfigError, ConfigKey, Synonym, Unit, key};
use super::layers::Overrides;
use super::value::ConfigType;

/// Which kind of resource.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
)]
pub enum ResourceKind {
    /// A group.
    Group,
    /// A subscription to client metrics.
    ClientMetrics,
}

const fn row(row: ConfigKey, doc: &'static str) -> ConfigKey {
    row.typed(ConfigType::Int, doc)
}

/// The keys of a group.
pub static GROUP_KEYS: &[ConfigKey] = &[
    row(
        key("consumer.assignment.interval.ms", "1000").at_least(0).synonyms(&[Synonym {
            name: "group.consumer.assignment.interval.ms",
            unit: Unit::Same,
        }]),
        "The shortest time between two assignments of the group.",
    ),
    row(
        key("consumer.heartbeat.interval.ms", "5000").at_least(1).synonyms(&[Synonym {
            name: "group.consumer.heartbeat.interval.ms",
            unit: Unit::Same,
        }]),
        "How often the group's members are told to send heartbeats.",
    ),
    row(
        key("consumer.session.timeout.ms", "45000")
            .at_least(1)
            .synonyms(&[Synonym { name: "group.consumer.session.timeout.ms", unit: Unit::Same }]),
        "A member of the group that is silent for this long is removed.",
    ),
];

/// The keys of a subscription to client metrics.
pub static CLIENT_METRICS_KEYS: &[ConfigKey] = &[
    row(
        key("interval.ms", "300000").between(100, 3_600_000),
        "How often clients are to push their metrics.",
    ),
    key("match", "").typed(
        ConfigType::List,
        "Which clients are meant: patterns of their attributes, attribute=pattern; none means all.",
    ),
    key("metrics", "").typed(
        ConfigType::List,
        "Which metrics are wanted: prefixes of their names; none means none.",
    ),
];

impl ResourceKind {
    /// The code on the wire (`ConfigResource.Type`).
    pub fn code(self) -> i8 {
        match self {
            Self::ClientMetrics => 16,
            Self::Group => 32,
        }
    }

    /// The table of its keys.
    pub fn keys(self) -> &'static [ConfigKey] {
        match self {
            Self::ClientMetrics => CLIENT_METRICS_KEYS,
            Self::Group => GROUP_KEYS,
        }
    }

    /// The row of one of its keys.
    pub fn key(self, name: &str) -> Option<&'static ConfigKey> {
        self.keys().iter().find(|key| key.name == name)
    }

    /// Checks what is set for a resource and brings it into the form in which it is stored.
    pub fn normalize(
        self,
        entries: &Overrides,
        broker: &BrokerConfig,
    ) -> Result<Overrides, ConfigError> {
        let known = |name: &str| {
            let unknown = || ConfigError::Unknown { scope: self.scope(), name: name.to_owned() };
            self.key(name).ok_or_else(unknown)
        };
        for name in entries.keys() {
            known(name)?;
        }
        let mut normal = Overrides::new();
        for (name, value) in entries {
            normal.insert(name.clone(), known(name)?.normalize(value)?);
        }
        if self == Self::Group {
            check_group(&normal, broker)?;
        }
        Ok(normal)
    }

    fn scope(self) -> &'static str {
        match self {
            Self::ClientMetrics => "client metrics",
            Self::Group => "group",
        }
    }
}

/// A group may not ask for more than the broker allows (`GroupConfig.validateValues`).
fn check_group(group: &Overrides, broker: &BrokerConfig) -> Result<(), ConfigError> {
    for (name, min, max) in [
        (
            "consumer.heartbeat.interval.ms",
            broker.group_consumer_min_heartbeat_interval_ms,
            broker.group_consumer_max_heartbeat_interval_ms,
        ),
        (
            "consumer.session.timeout.ms",
            broker.group_consumer_min_session_timeout_ms,
            broker.group_consumer_max_session_timeout_ms,
        ),
    ] {
        let Some(value) = group.get(name) else { continue };
        let Ok(number) = value.parse::<i32>() else { continue };
        let rule = match number {
            low if low < min => format!("Value must be at least {min}"),
            high if high > max => format!("Value must be no more than {max}"),
            _ => continue,
        };
        return Err(ConfigError::Value { name, value: value.clone(), rule });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vltava_protocol::ids::NodeId;

    use super::*;
    use crate::config::broker::{Flags, broker_key};
    use crate::config::settings::Settings;

    fn broker() -> BrokerConfig {
        let flags = Flags {
            node_id: NodeId(1),
            data_dir: "data".into(),
            listen: "127.0.0.1:0".parse().unwrap(),
            advertise: None,
            admin: None,
        };
        BrokerConfig::new(flags, Settings::default()).unwrap()
    }

    #[test]
    fn the_tables_are_documented_and_their_defaults_are_the_broker_s() {
        for kind in [ResourceKind::Group, ResourceKind::ClientMetrics] {
            for key in kind.keys() {
                assert!(key.doc.len() > 20 && key.doc.ends_with('.'), "{}", key.name);
                let default = key.default.unwrap();
                assert_eq!(key.normalize(default).as_deref(), Ok(default), "{}", key.name);
                for synonym in key.synonyms {
                    assert_eq!(broker_key(synonym.name).unwrap().default, key.default);
                }
            }
        }
    }

    #[test]
    fn values_are_checked_against_table_and_broker() {
        let check = |kind: ResourceKind, name: &str, value: &str| {
            let entries = [(name.to_owned(), value.to_owned())].into();
            kind.normalize(&entries, &broker()).map_err(|error| error.to_string())
        };
        let group = |name, value| check(ResourceKind::Group, name, value);
        assert!(group("consumer.session.timeout.ms", "50000").is_ok());
        assert!(group("consumer.session.timeout.ms", "1").unwrap_err().contains("at least 45000"));
        assert!(group("consumer.heartbeat.interval.ms", "60000").unwrap_err().contains("15000"));
        assert_eq!(group("x", "1").unwrap_err(), "Unknown group config name: x");
        let metrics = |name, value| check(ResourceKind::ClientMetrics, name, value);
        assert!(metrics("interval.ms", "99").unwrap_err().contains("at least 100"));
        assert!(metrics("metrics", "org.apache.").is_ok());
    }
}
