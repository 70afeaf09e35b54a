//! `DescribeConfigs` (key 32), versions 1-4: the configuration of topics and brokers.
//!
//! Every key is listed with the value in force, where it comes from and, when asked for, all places
//! that give it one and what it means. The walk over those places is [`Layers`], the same that the
//! broker itself uses. A broker without a name stands for what is set for all brokers at run time.
//! Other kinds of resources are `INVALID_REQUEST`. A resource that is asked for twice is described
//! once.

use std::collections::HashSet;

use vltava_protocol::ErrorCode;
use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::ids::{NodeId, TopicName};
use vltava_protocol::messages::describe_configs_request::DescribeConfigsResource;
use vltava_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use vltava_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse, StrBytes};

use crate::config::broker::{BROKER_KEYS, BrokerConfig};
use crate::config::key::{ConfigKey, Update};
use crate::config::layers::{ConfigSource, Given, Layers, Overrides};
use crate::config::topic::TOPIC_KEYS;
use crate::context::RequestContext;
use crate::controller::MetadataImage;

/// Key and versions.
pub const API: Api = Api::new(ApiKey::DescribeConfigs, 1..=4);

/// The kind of a resource that is a topic (`ConfigResource.Type.TOPIC`).
const TOPIC: i8 = 2;
/// The kind of a resource that is a broker (`ConfigResource.Type.BROKER`).
const BROKER: i8 = 4;

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
            Ok(entries) => answer.with_configs(
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
    TOPIC_KEYS.iter().filter(|key| !key.internal).map(|key| {
        let given = layers.of_topic(key, topic);
        Entry {
            key,
            value: layers.topic_value(key, topic),
            source: given.first().map_or(ConfigSource::Default, |first| first.source),
            given,
            read_only: false,
        }
    })
}

/// All keys of a broker. The value of a key is its own: one that has none while a synonym has is
/// shown without (`log.retention.ms` beside `log.retention.hours`).
fn broker_entries(layers: &Layers<'_>) -> Vec<Entry> {
    let entry = |key: &'static ConfigKey| {
        let given = layers.of_broker(key);
        let own = given.iter().find(|given| given.name == key.name);
        Entry {
            key,
            value: own.map(|own| own.value.clone()),
            source: given.first().map_or(ConfigSource::Default, |first| first.source),
            given,
            read_only: key.update == Update::ReadOnly,
        }
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

fn entries(
    image: &MetadataImage,
    config: &BrokerConfig,
    resource: &DescribeConfigsResource,
) -> Result<Vec<Entry>, (ErrorCode, String)> {
    let node = config.flags.node_id;
    let layers = image.layers(node, &config.settings);
    let name = &*resource.resource_name;
    let mut entries = match resource.resource_type {
        TOPIC => {
            TopicName::validate(name)
                .map_err(|error| (ErrorCode::InvalidTopicException, error.to_string()))?;
            let topic = image.topic(name).ok_or_else(|| {
                let unknown = format!("topic '{name}' does not exist");
                (ErrorCode::UnknownTopicOrPartition, unknown)
            })?;
            topic_entries(&topic.config, &layers).collect()
        }
        BROKER if name.is_empty() => cluster_entries(&layers),
        BROKER if name.parse().is_ok_and(|id| NodeId(id) == node) => broker_entries(&layers),
        BROKER => {
            let shown: String = name.chars().take(64).flat_map(char::escape_debug).collect();
            let unexpected = format!("expected broker {node} or an empty name, not {shown}");
            return Err((ErrorCode::InvalidRequest, unexpected));
        }
        other => {
            let unsupported = format!("resources of type {other} have no configuration here");
            return Err((ErrorCode::InvalidRequest, unsupported));
        }
    };
    // No names mean all, by null and by an empty list alike (`ConfigHelper.describeConfigs`).
    if let Some(names) = &resource.configuration_keys
        && !names.is_empty()
    {
        entries.retain(|entry| names.iter().any(|name| **name == *entry.key.name));
    }
    Ok(entries)
}

fn on_the_wire(entry: Entry, request: &DescribeConfigsRequest) -> DescribeConfigsResourceResult {
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

    fn value(entries: &[Entry], name: &str) -> (Option<String>, ConfigSource) {
        let entry = entries.iter().find(|entry| entry.key.name == name).expect(name);
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
        assert!(entries.iter().all(|entry| entry.key.name != "internal.segment.bytes"));
    }

    #[test]
    fn a_broker_s_keys_tell_what_only_a_restart_changes() {
        let config = config(&[]);
        let of_node = entries(&image(), &config, &resource(BROKER, "1")).unwrap();
        assert_eq!(value(&of_node, "node.id"), (Some("1".into()), ConfigSource::Static));
        assert_eq!(value(&of_node, "log.retention.ms"), (None, ConfigSource::Default));
        assert_eq!(value(&of_node, "log.segment.bytes").1, ConfigSource::Cluster);
        let read_only =
            |name| of_node.iter().find(|entry| entry.key.name == name).unwrap().read_only;
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
            (8, "1", ErrorCode::InvalidRequest),
            (0, "", ErrorCode::InvalidRequest),
        ] {
            let refused = entries(&image(), &config, &resource(kind, name)).unwrap_err();
            assert_eq!(refused.0, expected, "{kind} {name}");
        }
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
                assert_eq!(sent.synonyms.len(), if full { 2 } else { 0 });
                assert_eq!(sent.documentation.is_some(), request.include_documentation);
                let result = DescribeConfigsResult::default().with_configs(vec![sent]);
                let response = DescribeConfigsResponse::default().with_results(vec![result]);
                encode_response(1, ApiKey::DescribeConfigs, version, &response).unwrap();
            }
        }
    }
}
