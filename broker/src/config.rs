//! Configuration: Kafka's keys, their tables, and the values that win.
//!
//! There is one table per scope ([`broker`], [`topic`]); each row gives a key its name, type,
//! default, bound and documentation, and drives parsing, validation, `--help` and DescribeConfigs
//! alike. A value is checked once, where it enters; the rest of the program reads plain fields.
//!
//! **Invariant:** every value that a [`settings::Settings`] or a committed metadata record holds has
//! passed [`key::ConfigKey::normalize`], so reading it again cannot fail.

#[macro_use]
mod table;

pub mod broker;
pub mod foreign;
pub mod key;
pub mod layers;
pub mod resource;
pub mod settings;
pub mod topic;
pub mod value;

pub use broker::BrokerConfig;
pub use key::{ConfigError, ConfigKey};
pub use topic::TopicConfig;
