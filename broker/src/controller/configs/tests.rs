//! Tables of changes and what must become of them.

use vltava_protocol::ErrorCode;
use vltava_protocol::ids::TopicId;

use super::*;
use crate::config::broker::Flags;
use crate::config::settings::Settings;

fn config() -> BrokerConfig {
    let flags = Flags {
        node_id: NodeId(1),
        data_dir: "data".into(),
        listen: "127.0.0.1:0".parse().unwrap(),
        advertise: None,
        admin: None,
    };
    BrokerConfig::new(flags, Settings::default()).unwrap()
}

fn overrides(pairs: &[(&str, &str)]) -> Overrides {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn image() -> MetadataImage {
    let mut image = MetadataImage::default();
    let record = MetadataRecord::Topic {
        name: "t".into(),
        id: TopicId(uuid::Uuid::from_u128(1)),
        partitions: vec![vec![(1000, 1)]],
        config: overrides(&[("retention.ms", "5"), ("cleanup.policy", "delete")]),
    };
    image.apply(image.applied, record).unwrap();
    image
}

fn topic(name: &str) -> ConfigTarget {
    ConfigTarget::Topic(name.to_owned())
}

/// What is set for a resource after a change, or the code and text of its refusal.
fn decide(
    image: &mut MetadataImage,
    target: ConfigTarget,
    replaces: bool,
    operations: &[(&str, ConfigOperation)],
) -> Result<Overrides, (ErrorCode, String)> {
    let operations =
        operations.iter().map(|(name, operation)| ((*name).to_owned(), operation.clone()));
    let change = ConfigChange { target, replaces, operations: operations.collect() };
    let decision = alter(image, &change, &config());
    let (record, ()) = decision.map_err(|error| (error.code(), error.to_string()))?;
    if let Some(record) = record {
        image.apply(image.applied, record).unwrap();
    }
    Ok(current(image, &change.target))
}

fn set(value: &str) -> ConfigOperation {
    ConfigOperation::Set(value.to_owned())
}

#[test]
fn single_keys_change_and_the_others_stay() {
    use ConfigOperation::{Append, Delete, Subtract};
    let mut image = image();
    let mut now = |operations: &[(&str, ConfigOperation)]| {
        decide(&mut image, topic("t"), false, operations).unwrap()
    };
    let policy = |policy| overrides(&[("retention.ms", "7"), ("cleanup.policy", policy)]);
    assert_eq!(now(&[("retention.ms", set(" 07 "))]), policy("delete"));
    let appended = Append("compact,delete".to_owned());
    assert_eq!(now(&[("cleanup.policy", appended.clone())]), policy("delete,compact"));
    assert_eq!(now(&[("cleanup.policy", appended)]), policy("delete,compact"));
    assert_eq!(now(&[("cleanup.policy", Subtract("delete,x".to_owned()))]), policy("compact"));
    assert_eq!(now(&[("flush.ms", Delete), ("no.such", Delete)]), policy("compact"));
    assert_eq!(now(&[("cleanup.policy", Delete)]), overrides(&[("retention.ms", "7")]));
    // The default is what is added to.
    let appended = now(&[("cleanup.policy", Append("compact".to_owned()))]);
    assert_eq!(appended, policy("delete,compact"));
}

#[test]
fn a_set_is_replaced_whole() {
    let mut image = image();
    let now = decide(&mut image, topic("t"), true, &[("segment.ms", set("9"))]).unwrap();
    assert_eq!(now, overrides(&[("segment.ms", "9")]));
    assert_eq!(decide(&mut image, topic("t"), true, &[]).unwrap(), Overrides::new());
}

#[test]
fn what_changes_nothing_writes_nothing() {
    let image = image();
    let operations = vec![("retention.ms".to_owned(), set("5"))];
    let change = ConfigChange { target: topic("t"), replaces: false, operations };
    assert_eq!(alter(&image, &change, &config()), Ok((None, ())));
}

#[test]
fn refusals_are_kafka_s() {
    use ConfigOperation::{Append, Subtract};
    use ErrorCode::{
        InvalidConfig, InvalidRequest, InvalidTopicException, UnknownTopicOrPartition,
    };
    let node = || ConfigTarget::Broker(Some(NodeId(1)));
    let word = || "x".to_owned();
    let long = "x".repeat(CONFIG_BYTES_MAX);
    let group = |name: &str| ConfigTarget::Resource(ResourceKind::Group, name.to_owned());
    let metrics = |name: &str| ConfigTarget::Resource(ResourceKind::ClientMetrics, name.to_owned());
    for (target, key, operation, code, text) in [
        (topic("t"), "no.such", set("1"), InvalidConfig, "Unknown topic config name: no.such"),
        (topic("t"), "flush.ms", set("x"), InvalidConfig, "Not a number of type LONG"),
        (topic("t"), "flush.ms", Append(word()), InvalidConfig, "Can't APPEND to key flush.ms"),
        (topic("t"), "no.such", Subtract(word()), InvalidConfig, "Can't SUBTRACT to key no.such"),
        (topic("u"), "flush.ms", set("x"), InvalidConfig, "Not a number"),
        (topic("u"), "flush.ms", set("1"), UnknownTopicOrPartition, "The topic 'u' does not"),
        (topic("a b"), "flush.ms", set("1"), InvalidTopicException, "Topic name is invalid"),
        (topic(""), "flush.ms", set("1"), InvalidRequest, "Default topic resources"),
        (node(), "process.roles", set("x"), InvalidRequest, "dynamically: [process.roles]"),
        (node(), "num.partitions", set("3"), InvalidRequest, "dynamically: [num.partitions]"),
        (node(), "log.segment.bytes", set("x"), InvalidRequest, "Not a number of type INT"),
        (node(), "log.segment.bytes", set("1"), InvalidRequest, "at least 1048576"),
        (node(), "log.segment.bytes", Append(word()), InvalidConfig, "append is not allowed"),
        (node(), "no.such", Append(word()), InvalidConfig, "Unknown config name: no.such"),
        (node(), "no.such", set(&long), InvalidConfig, "1048576 bytes"),
        (group("g"), "no.such", set("1"), InvalidConfig, "Unknown group config name"),
        (group(""), "consumer.session.timeout.ms", set("50000"), InvalidRequest, "Default group"),
        (metrics("m"), "no.such", set("1"), InvalidRequest, "Unknown client metrics config"),
        (metrics(""), "interval.ms", set("1000"), InvalidRequest, "can't be empty"),
    ] {
        let refused = decide(&mut image(), target, false, &[(key, operation)]).unwrap_err();
        assert_eq!(refused.0, code, "{key}: {}", refused.1);
        assert!(refused.1.contains(text), "{key}: {} lacks {text}", refused.1);
    }
}

#[test]
fn what_the_broker_keeps_for_itself_is_synced() {
    let mut image = image();
    let record = MetadataRecord::Topic {
        name: "__consumer_offsets".into(),
        id: TopicId(uuid::Uuid::from_u128(2)),
        partitions: vec![vec![(1001, 1)]],
        config: Overrides::new(),
    };
    image.apply(image.applied, record).unwrap();
    let cache = [("durability", set("page-cache"))];
    assert!(decide(&mut image, topic("t"), false, &cache).is_ok());
    let refused = decide(&mut image, topic("__consumer_offsets"), false, &cache).unwrap_err();
    assert_eq!(refused.0, ErrorCode::InvalidConfig);
    let synced = [("durability", set("fsync"))];
    assert!(decide(&mut image, topic("__consumer_offsets"), false, &synced).is_ok());
}

#[test]
fn a_broker_s_keys_are_kept_known_or_not() {
    let mut image = image();
    let changes = [("log.segment.bytes", set("2000000")), ("a.plug.in", set(" as it is "))];
    let all = decide(&mut image, ConfigTarget::Broker(None), false, &changes).unwrap();
    assert_eq!(all, overrides(&[("log.segment.bytes", "2000000"), ("a.plug.in", " as it is ")]));
    // A read-only key that is only deleted was never set.
    let gone = [("num.partitions", ConfigOperation::Delete)];
    assert!(decide(&mut image, ConfigTarget::Broker(None), false, &gone).is_ok());
    // What one broker sets is checked together with what all have.
    let lag = [("log.cleaner.max.compaction.lag.ms", set("5"))];
    decide(&mut image, ConfigTarget::Broker(None), false, &lag).unwrap();
    let longer = [("log.cleaner.min.compaction.lag.ms", set("6"))];
    let node = ConfigTarget::Broker(Some(NodeId(1)));
    let refused = decide(&mut image, node, false, &longer).unwrap_err();
    assert!(refused.1.contains("log.cleaner.min.compaction.lag.ms (6) >"), "{}", refused.1);
}

#[test]
fn other_resources_exist_as_long_as_something_is_set() {
    let mut image = image();
    let group = || ConfigTarget::Resource(ResourceKind::Group, "g".to_owned());
    let timeout = [("consumer.session.timeout.ms", set("50000"))];
    assert_eq!(decide(&mut image, group(), false, &timeout).unwrap().len(), 1);
    assert_eq!(image.resource_configs.len(), 1);
    decide(&mut image, group(), true, &[]).unwrap();
    assert!(image.resource_configs.is_empty());
}
