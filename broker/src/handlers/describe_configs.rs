//! `DescribeConfigs` (key 32), versions 1-4: the configuration of topics, brokers and the rest.
//!
//! Every key is listed with the value in force, where it comes from and, when asked for, all places
//! that give it one and what it means (`ConfigHelper.describeConfigs`). The walk over those places
//! is [`Layers`], the same that the broker itself uses. A broker without a name stands for what is
//! set for all brokers at run time. Keys of a broker that nobody here knows, set at run time, are
//! shown without their value, as Kafka does with what might be a secret. Loggers show their levels
//! (KIP-412). Groups and subscriptions to client metrics that nobody configured have their defaults.
//! A resource that is asked for twice is described once.
//!
//! Differs from Kafka 4.3: of a broker, the keys are those that mean something here. The default of
//! a key in another unit (`log.retention.hours`) is no synonym, as in Kafka; what was set there is.

use std::collections::{BTreeMap, HashSet};

use vltava_protocol::ErrorCode;
use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::ids::{NodeId, TopicName};
use vltava_protocol::messages::describe_configs_request::DescribeConfigsResource;
use vltava_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use vltava_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse, StrBytes};

use super::config_changes::{BROKER, CLIENT_METRICS, GROUP, LOGGERS, TOPIC};
use crate::config::broker::{BROKER_KEYS, BrokerConfig, broker_key};
use crate::config::key::{ConfigKey, Update};
use crate::config::layers::{ConfigSource, Given, Layers, Overrides};
use crate::config::resource::ResourceKind;
use crate::config::topic::TOPIC_KEYS;
use crate::context::RequestContext;
use crate::controller::MetadataImage;
use crate::controller::error::InvalidName;
use crate::logging::loggers;

/// Key and versions.
pub const API: Api = Api::new(ApiKey::DescribeConfigs, 1..=4);

/// The type of a value that no table knows (`ConfigType.UNKNOWN`).
const UNKNOWN_TYPE: i8 = 0;
/// Kafka's words for a kind of resource that does not exist (`Errors.INVALID_REQUEST`).
const UNKNOWN_KIND: &str = "This most likely occurs because of a request being malformed by the client library or the \
     message was sent to an incompatible broker. See the broker logs for more details.";

/// Describes configurations.
pub async fn handle(
    cx: &RequestContext,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let image = cx.node.controller.image();
    let answer = |resource: &DescribeConfigsResource| {
        let answer = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match entries(&image, &cx.node.config, resource) {
            Ok(entries) => answer.with_error_message(Some(StrBytes::default())).with_configs(
                entries.into_iter().map(|entry| on_the_wire(entry, &request)).collect(),
            ),
            Err((code, message)) => {
                cx.count(code);
                answer
                    .with_error_code(code.code())
                    .with_error_message(Some(StrBytes::from_string(message)))
            }
        }
    };
    let results = once_each(&request.resources).map(answer).collect();
    DescribeConfigsResponse::default().with_results(results)
}

/// Each resource at the place where it is first named. A name costs a request a few bytes and its
/// answer a table: repeated, it would make the response as large as one likes.
fn once_each(
    resources: &[DescribeConfigsResource],
) -> impl Iterator<Item = &DescribeConfigsResource> + use<'_> {
    let mut seen = HashSet::new();
    resources.iter().filter(move |resource| {
        // A broker's number can be written in many ways.
        let number = resource.resource_name.parse().ok();
        let broker = number.filter(|_: &i32| resource.resource_type == BROKER);
        let name = if broker.is_none() { &*resource.resource_name } else { "" };
        seen.insert((resource.resource_type, broker, name))
    })
}

/// One thing that is described.
#[derive(Clone, PartialEq, Debug)]
enum Described {
    /// A key of a table.
    Key(Entry),
    /// A broker's key that no table has, which somebody set.
    Foreign { name: String, source: ConfigSource },
    /// A logger and its level.
    Logger { name: &'static str, level: &'static str },
}

/// One key as it is described.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Entry {
    /// The row of the table.
    pub(super) key: &'static ConfigKey,
    /// The value in force.
    pub(super) value: Option<String>,
    /// Where it comes from.
    pub(super) source: ConfigSource,
    /// All places that give it a value.
    pub(super) given: Vec<Given>,
    /// Whether only a restart changes it.
    pub(super) read_only: bool,
}

impl Described {
    fn name(&self) -> &str {
        match self {
            Self::Key(entry) => entry.key.name,
            Self::Foreign { name, .. } => name,
            Self::Logger { name, .. } => name,
        }
    }
}

impl PartialEq for ConfigKey {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// All keys of a topic that sets these.
pub(super) fn topic_entries<'a>(
    topic: &'a Overrides,
    layers: &'a Layers<'a>,
) -> impl Iterator<Item = Entry> + 'a {
    let keys = TOPIC_KEYS.iter().filter(|key| !key.internal);
    keys.map(|key| entry(key, layers.of_topic(key, topic)))
}

/// A key whose value anyone may change, with the places that give it one, the nearest first.
fn entry(key: &'static ConfigKey, mut given: Vec<Given>) -> Entry {
    let first = given.first();
    let value = match first {
        Some(first) => Some(first.unit.convert(&first.value)),
        None => key.default.map(str::to_owned),
    };
    let source = first.map_or(ConfigSource::Default, |first| first.source);
    // The default of a key in another unit is where the value of this one comes from only in that
    // both are the same.
    let nearest = key.synonyms.first().map_or(key.name, |synonym| synonym.name);
    given.retain(|given| {
        given.source != ConfigSource::Default || given.name == nearest || given.name == key.name
    });
    Entry { key, value, source, given, read_only: false }
}

/// All keys of a broker. The value of a key is its own: one that has none while a synonym has is
/// shown without (`log.retention.ms` beside `log.retention.hours`).
fn broker_entries(layers: &Layers<'_>) -> Vec<Entry> {
    let entry = |key: &'static ConfigKey| {
        let mut given = layers.of_broker(key);
        let own = given.iter().find(|given| given.name == key.name);
        let value = own.map(|own| own.value.clone());
        let source = given.first().map_or(ConfigSource::Default, |first| first.source);
        given.retain(|given| given.source != ConfigSource::Default || given.name == key.name);
        Entry { key, value, source, given, read_only: key.update == Update::ReadOnly }
    };
    BROKER_KEYS.iter().filter(|key| !key.internal).map(entry).collect()
}

/// What is set for all brokers at run time, and nothing else.
fn cluster_entries(layers: &Layers<'_>) -> Vec<Entry> {
    let mut entries = broker_entries(layers);
    for entry in &mut entries {
        entry.given.retain(|given| given.source == ConfigSource::Cluster);
        entry.value = entry.given.first().map(|given| given.value.clone());
        entry.source = ConfigSource::Cluster;
    }
    entries.retain(|entry| entry.value.is_some());
    entries
}

/// The keys that are set at run time and that no table has.
fn foreign(set: Option<&Overrides>, source: ConfigSource) -> Vec<Described> {
    let names = set.into_iter().flat_map(BTreeMap::keys);
    let unknown = names.filter(|name| broker_key(name).is_none());
    unknown.map(|name| Described::Foreign { name: name.clone(), source }).collect()
}

fn entries(
    image: &MetadataImage,
    config: &BrokerConfig,
    resource: &DescribeConfigsResource,
) -> Result<Vec<Described>, (ErrorCode, String)> {
    let node = config.flags.node_id;
    let layers = image.layers(node, &config.settings);
    let name = &*resource.resource_name;
    let refuse = |text: &str| Err((ErrorCode::InvalidRequest, text.to_owned()));
    let mut entries: Vec<Described> = match resource.resource_type {
        TOPIC => {
            TopicName::validate(name).map_err(|error| {
                (ErrorCode::InvalidTopicException, InvalidName(name, &error).to_string())
            })?;
            let topic = image.topic(name);
            let topic = topic.ok_or((ErrorCode::UnknownTopicOrPartition, String::new()))?;
            topic_entries(&topic.config, &layers).map(Described::Key).collect()
        }
        BROKER if name.is_empty() => {
            let mut entries = foreign(layers.cluster, ConfigSource::Cluster);
            entries.extend(cluster_entries(&layers).into_iter().map(Described::Key));
            entries
        }
        BROKER => {
            own_id(name, node, "Unexpected broker id, expected {} or empty string, but received")?;
            let mut entries = foreign(layers.broker, ConfigSource::Broker);
            let for_all = foreign(layers.cluster, ConfigSource::Cluster);
            for one in for_all {
                if !entries.iter().any(|entry| entry.name() == one.name()) {
                    entries.push(one);
                }
            }
            entries.extend(broker_entries(&layers).into_iter().map(Described::Key));
            entries
        }
        LOGGERS if name.is_empty() => return refuse("Broker id must not be empty"),
        LOGGERS => {
            own_id(name, node, "Unexpected broker id, expected {} but received")?;
            let logger = |(name, level)| Described::Logger { name, level };
            loggers::describe().into_iter().map(logger).collect()
        }
        CLIENT_METRICS if name.is_empty() => {
            return refuse("Client metrics subscription name must not be empty");
        }
        GROUP if name.is_empty() => return refuse("Group name must not be empty"),
        CLIENT_METRICS => resource_entries(image, ResourceKind::ClientMetrics, name, &layers),
        GROUP => resource_entries(image, ResourceKind::Group, name, &layers),
        _ => return refuse(UNKNOWN_KIND),
    };
    // No names mean all, by null and by an empty list alike (`ConfigHelper.describeConfigs`).
    if let Some(names) = &resource.configuration_keys
        && !names.is_empty()
    {
        entries.retain(|entry| names.iter().any(|name| **name == *entry.name()));
    }
    Ok(entries)
}

/// Whether a broker's name is this one's; `unexpected` says so with `{}` for the own id.
fn own_id(name: &str, node: NodeId, unexpected: &str) -> Result<(), (ErrorCode, String)> {
    let text = match name.parse::<i32>() {
        Ok(id) if id == node.0 => return Ok(()),
        Ok(_) => format!("{} {name}", unexpected.replace("{}", &node.to_string())),
        Err(_) => format!("Broker id must be an integer, but it is: {name}"),
    };
    Err((ErrorCode::InvalidRequest, text))
}

fn resource_entries(
    image: &MetadataImage,
    kind: ResourceKind,
    name: &str,
    layers: &Layers<'_>,
) -> Vec<Described> {
    let nothing = Overrides::new();
    let own = image.resource_configs.get(&(kind, name.to_owned())).unwrap_or(&nothing);
    let source = match kind {
        ResourceKind::Group => ConfigSource::Group,
        ResourceKind::ClientMetrics => ConfigSource::ClientMetrics,
    };
    let described = |key| Described::Key(entry(key, layers.of_resource(key, own, source)));
    kind.keys().iter().map(described).collect()
}

fn on_the_wire(
    described: Described,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResourceResult {
    let entry = match described {
        Described::Key(entry) => entry,
        Described::Foreign { name, source } => return foreign_on_the_wire(name, source, request),
        Described::Logger { name, level } => {
            return DescribeConfigsResourceResult::default()
                .with_name(StrBytes::from_static_str(name))
                .with_value(Some(StrBytes::from_static_str(level)))
                .with_read_only(false)
                .with_config_source(ConfigSource::Logger.code())
                .with_is_sensitive(false)
                .with_config_type(UNKNOWN_TYPE)
                .with_documentation(None);
        }
    };
    let synonym = |given: Given| {
        DescribeConfigsSynonym::default()
            .with_name(StrBytes::from_static_str(given.name))
            .with_value(Some(StrBytes::from_string(given.value)))
            .with_source(given.source.code())
    };
    let synonyms = if request.include_synonyms { entry.given } else { Vec::new() };
    let documentation = request.include_documentation.then(|| entry.key.text());
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(entry.key.name))
        .with_value(entry.value.map(StrBytes::from_string))
        .with_read_only(entry.read_only)
        .with_config_source(entry.source.code())
        .with_is_sensitive(false)
        .with_synonyms(synonyms.into_iter().map(synonym).collect())
        .with_config_type(entry.key.kind.code())
        .with_documentation(documentation.map(StrBytes::from_string))
}

/// What nobody knows might be a secret, and nobody knows what would heed a change.
fn foreign_on_the_wire(
    name: String,
    source: ConfigSource,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResourceResult {
    let name = StrBytes::from_string(name);
    let synonym = DescribeConfigsSynonym::default()
        .with_name(name.clone())
        .with_value(None)
        .with_source(source.code());
    DescribeConfigsResourceResult::default()
        .with_name(name)
        .with_value(None)
        .with_read_only(true)
        .with_config_source(source.code())
        .with_is_sensitive(true)
        .with_synonyms(if request.include_synonyms { vec![synonym] } else { Vec::new() })
        .with_config_type(UNKNOWN_TYPE)
        .with_documentation(None)
}

#[cfg(test)]
mod tests {
    use vltava_protocol::ids::TopicId;
    use vltava_protocol::messages::encode_response;

    use super::*;
    use crate::config::broker::Flags;
    use crate::config::settings::Settings;
    use crate::controller::records::MetadataRecord;

    fn config(sets: &[&str]) -> BrokerConfig {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        let flags = Flags {
            node_id: NodeId(1),
            data_dir: "data".into(),
            listen: "127.0.0.1:9092".parse().unwrap(),
            advertise: None,
            admin: None,
        };
        let settings = Settings::collect(None, [], &sets).unwrap().settings;
        BrokerConfig::new(flags, settings).unwrap()
    }

    fn image() -> MetadataImage {
        let mut image = MetadataImage::default();
        let set = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
        for record in [
            MetadataRecord::Topic {
                name: "t".into(),
                id: TopicId(uuid::Uuid::from_u128(1)),
                partitions: vec![vec![(1000, 1)]],
                config: set("retention.ms", "5"),
            },
            MetadataRecord::BrokerConfig {
                node: None,
                config: set("log.segment.bytes", "2000000"),
            },
        ] {
            image.apply(image.applied, record).unwrap();
        }
        image
    }

    fn resource(kind: i8, name: &str) -> DescribeConfigsResource {
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(StrBytes::from_string(name.to_owned()))
            .with_configuration_keys(None)
    }

    fn find<'a>(entries: &'a [Described], name: &str) -> &'a Entry {
        let found = entries.iter().find(|described| described.name() == name);
        let Some(Described::Key(entry)) = found else { panic!("{name} is no key: {found:?}") };
        entry
    }

    fn value(entries: &[Described], name: &str) -> (Option<String>, ConfigSource) {
        let entry = find(entries, name);
        (entry.value.clone(), entry.source)
    }

    #[test]
    fn a_topic_s_keys_come_with_their_sources() {
        let config = config(&["log.retention.bytes=77"]);
        let entries = entries(&image(), &config, &resource(TOPIC, "t")).unwrap();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(value(&entries, "retention.ms"), (some("5"), ConfigSource::Topic));
        assert_eq!(value(&entries, "segment.bytes"), (some("2000000"), ConfigSource::Cluster));
        assert_eq!(value(&entries, "retention.bytes"), (some("77"), ConfigSource::Static));
        assert_eq!(value(&entries, "segment.ms"), (some("604800000"), ConfigSource::Default));
        assert_eq!(value(&entries, "durability"), (some("fsync"), ConfigSource::Default));
        assert!(entries.iter().all(|entry| entry.name() != "internal.segment.bytes"));
    }

    #[test]
    fn a_broker_s_keys_tell_what_only_a_restart_changes() {
        let config = config(&[]);
        let of_node = entries(&image(), &config, &resource(BROKER, "1")).unwrap();
        assert_eq!(value(&of_node, "node.id"), (Some("1".into()), ConfigSource::Static));
        assert_eq!(value(&of_node, "log.retention.ms"), (None, ConfigSource::Default));
        assert_eq!(value(&of_node, "log.segment.bytes").1, ConfigSource::Cluster);
        let read_only = |name| find(&of_node, name).read_only;
        assert!(read_only("num.partitions") && !read_only("log.segment.bytes"));

        let of_all = entries(&image(), &config, &resource(BROKER, "")).unwrap();
        assert_eq!(of_all.len(), 1);
        let segment = (Some("2000000".into()), ConfigSource::Cluster);
        assert_eq!(value(&of_all, "log.segment.bytes"), segment);
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let config = config(&[]);
        for (kind, name, expected) in [
            (TOPIC, "none", ErrorCode::UnknownTopicOrPartition),
            (TOPIC, "a b", ErrorCode::InvalidTopicException),
            (TOPIC, "", ErrorCode::InvalidTopicException),
            (BROKER, "2", ErrorCode::InvalidRequest),
            (BROKER, "one", ErrorCode::InvalidRequest),
            (LOGGERS, "", ErrorCode::InvalidRequest),
            (LOGGERS, "2", ErrorCode::InvalidRequest),
            (GROUP, "", ErrorCode::InvalidRequest),
            (CLIENT_METRICS, "", ErrorCode::InvalidRequest),
            (3, "1", ErrorCode::InvalidRequest),
            (0, "", ErrorCode::InvalidRequest),
        ] {
            let refused = entries(&image(), &config, &resource(kind, name)).unwrap_err();
            assert_eq!(refused.0, expected, "{kind} {name}");
        }
    }

    #[test]
    fn what_nobody_configured_has_its_defaults() {
        let config = config(&[]);
        let group = entries(&image(), &config, &resource(GROUP, "g")).unwrap();
        let session = (Some("45000".into()), ConfigSource::Default);
        assert_eq!(value(&group, "consumer.session.timeout.ms"), session);
        let metrics = entries(&image(), &config, &resource(CLIENT_METRICS, "m")).unwrap();
        assert_eq!(value(&metrics, "interval.ms").0.as_deref(), Some("300000"));

        let mut image = image();
        let set = MetadataRecord::ResourceConfig {
            kind: ResourceKind::Group,
            name: "g".into(),
            config: [("consumer.session.timeout.ms".to_owned(), "50000".to_owned())].into(),
        };
        image.apply(image.applied, set).unwrap();
        let group = entries(&image, &config, &resource(GROUP, "g")).unwrap();
        let session = (Some("50000".into()), ConfigSource::Group);
        assert_eq!(value(&group, "consumer.session.timeout.ms"), session);
        assert_eq!(find(&group, "consumer.session.timeout.ms").given.len(), 2);
    }

    #[test]
    fn keys_that_nobody_knows_keep_their_values_to_themselves() {
        let mut image = image();
        let set = |name: &str| [(name.to_owned(), "secret".to_owned())].into();
        for (node, name) in [(Some(1), "a.plug.in"), (None, "another")] {
            let record = MetadataRecord::BrokerConfig { node, config: set(name) };
            image.apply(image.applied, record).unwrap();
        }
        let config = config(&[]);
        let of_node = entries(&image, &config, &resource(BROKER, "1")).unwrap();
        let expected = [("a.plug.in", ConfigSource::Broker), ("another", ConfigSource::Cluster)]
            .map(|(name, source)| Described::Foreign { name: name.to_owned(), source });
        assert_eq!(of_node[..2], expected);
        let of_all = entries(&image, &config, &resource(BROKER, "")).unwrap();
        assert_eq!(of_all, expected[1..]);
        let request = DescribeConfigsRequest::default().with_include_synonyms(true);
        let sent = on_the_wire(of_all[0].clone(), &request);
        assert_eq!((sent.value, sent.is_sensitive, sent.config_source), (None, true, 3));
    }

    #[test]
    fn the_default_of_another_unit_is_no_synonym() {
        let all = entries(&image(), &config(&[]), &resource(TOPIC, "t")).unwrap();
        assert_eq!(find(&all, "segment.ms").given, []);
        assert_eq!(find(&all, "segment.ms").value.as_deref(), Some("604800000"));
        let hours = config(&["log.roll.hours=2"]);
        let all = entries(&image(), &hours, &resource(TOPIC, "t")).unwrap();
        assert_eq!(find(&all, "segment.ms").value.as_deref(), Some("7200000"));
        assert_eq!(find(&all, "segment.ms").source, ConfigSource::Static);
        assert_eq!(find(&all, "segment.ms").given.len(), 1);
    }

    #[test]
    fn a_resource_named_again_is_described_once() {
        let asked = [
            resource(TOPIC, "t"),
            resource(BROKER, "1"),
            resource(TOPIC, "1"),
            resource(BROKER, "+01"),
            resource(TOPIC, "01"),
            resource(BROKER, ""),
            resource(TOPIC, "t"),
            resource(BROKER, ""),
        ];
        let told: Vec<(i8, &str)> =
            once_each(&asked).map(|told| (told.resource_type, &*told.resource_name)).collect();
        assert_eq!(told, [(TOPIC, "t"), (BROKER, "1"), (TOPIC, "1"), (TOPIC, "01"), (BROKER, "")]);
    }

    #[test]
    fn only_what_is_asked_for_is_sent() {
        let asked = resource(TOPIC, "t").with_configuration_keys(Some(vec![
            StrBytes::from_static_str("retention.ms"),
            StrBytes::from_static_str("no.such.key"),
        ]));
        let few = entries(&image(), &config(&[]), &asked).unwrap();
        assert_eq!(few.len(), 1);
        let no_names = resource(TOPIC, "t").with_configuration_keys(Some(Vec::new()));
        let all = entries(&image(), &config(&[]), &resource(TOPIC, "t")).unwrap();
        assert_eq!(entries(&image(), &config(&[]), &no_names).unwrap(), all);
        for version in 1..=4 {
            for full in [false, true] {
                let request = DescribeConfigsRequest::default()
                    .with_include_synonyms(full)
                    .with_include_documentation(full && version >= 3);
                let sent = on_the_wire(few[0].clone(), &request);
                assert_eq!(sent.synonyms.len(), usize::from(full));
                assert_eq!(sent.documentation.is_some(), request.include_documentation);
                let result = DescribeConfigsResult::default().with_configs(vec![sent]);
                let response = DescribeConfigsResponse::default().with_results(vec![result]);
                encode_response(1, ApiKey::DescribeConfigs, version, &response).unwrap();
            }
        }
    }
}
