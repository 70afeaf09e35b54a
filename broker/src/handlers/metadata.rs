//! Metadata (key 3), versions 0-13: the brokers, and the topics with their leaders.
//!
//! No topics named means all (an empty list in version 0, null from 1 on). A topic that does not
//! exist is created when broker and client allow it, and described at once: Kafka answers
//! `UNKNOWN_TOPIC_OR_PARTITION` first and lets the client ask again. Topics are asked for by id
//! from version 12 on; 10 and 11 have the field, and refuse it as Kafka does. One that is asked for
//! twice is described once. A partition whose
//! leader is not known here carries `LEADER_NOT_AVAILABLE`.
//!
//! Authorized operations are given when asked for: without an authorizer, all of them.

use std::collections::{BTreeSet, HashSet};

use tracing::warn;
use vltava_protocol::ErrorCode;
use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::ids::{NodeId, PartitionIndex, TopicId, TopicName};
use vltava_protocol::messages::metadata_request::MetadataRequestTopic;
use vltava_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use vltava_protocol::messages::{MetadataRequest, MetadataResponse, StrBytes};

use crate::context::RequestContext;
use crate::controller::MetadataImage;
use crate::controller::decide::ControlError;
use crate::controller::state::{BrokerInfo, TopicImage, is_internal_topic};
use crate::node::Node;
use crate::partition::Leadership;

/// Key and versions.
pub const API: Api = Api::new(ApiKey::Metadata, 0..=13);

/// All operations on a topic: read, write, create, delete, alter, describe, describe and alter
/// configs (bits by `AclOperation` code).
pub(super) const TOPIC_OPERATIONS: i32 =
    1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;
/// All operations on the cluster: create, alter, describe, cluster action, describe and alter
/// configs, idempotent write.
pub(super) const CLUSTER_OPERATIONS: i32 =
    1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

/// Describes the cluster.
pub async fn handle(cx: &RequestContext, request: MetadataRequest) -> MetadataResponse {
    let node = &cx.node;
    let missing = missing_topics(&node.controller.image(), &request, cx.api_version);
    let may_create = request.allow_auto_topic_creation && node.config.auto_create_topics_enable;
    if may_create && !missing.is_empty() {
        let results = node.controller.auto_create(&missing).await;
        for (name, result) in missing.into_iter().zip(results) {
            match result {
                // An illegal name is told from one that does not exist when it is described.
                Ok(()) | Err(ControlError::Name(..)) => {}
                Err(error) => warn!(topic = name, %error, "topic is not created automatically"),
            }
        }
    }
    let image = node.controller.image();
    let lookup = |topic: &TopicImage, index| leadership(node, topic, index);
    let mut response = describe(&image, &request, cx.api_version, &lookup);
    response.brokers = brokers(&image);
    response.controller_id = controller(node).into();
    for topic in &response.topics {
        if let Some(code) = ErrorCode::from_code(topic.error_code)
            && code != ErrorCode::None
        {
            cx.count(code);
        }
    }
    response
}

/// The names asked for that do not exist, each once.
fn missing_topics(image: &MetadataImage, request: &MetadataRequest, version: i16) -> Vec<String> {
    if refusal(request, version).is_some() || is_by_id(request) {
        return Vec::new();
    }
    let names = request.topics.iter().flatten().filter_map(|topic| topic.name.as_ref());
    let missing = names.filter(|name| image.topic(name).is_none()).map(|name| name.to_string());
    missing.collect::<BTreeSet<_>>().into_iter().collect()
}

/// What no version below 12 may ask for (`KafkaApis.handleTopicMetadataRequest`).
fn refusal(request: &MetadataRequest, version: i16) -> Option<ErrorCode> {
    let refused = |topic: &MetadataRequestTopic| topic.name.is_none() || !topic.topic_id.is_nil();
    let has_refused = version < 12 && request.topics.iter().flatten().any(refused);
    has_refused.then_some(ErrorCode::InvalidRequest)
}

/// Whether any id is asked for: names beside it then count for nothing. The Java client's names
/// are empty there, not null (`KafkaApis.handleTopicMetadataRequest`).
fn is_by_id(request: &MetadataRequest) -> bool {
    request.topics.iter().flatten().any(|topic| !topic.topic_id.is_nil())
}

/// The response but for brokers and controller. `leadership` is what is known of a partition.
fn describe(
    image: &MetadataImage,
    request: &MetadataRequest,
    version: i16,
    leadership: &dyn Fn(&TopicImage, PartitionIndex) -> Leadership,
) -> MetadataResponse {
    let found = |topic: &TopicImage| describe_topic(image, topic, leadership);
    let asked = |topic: &MetadataRequestTopic| describe_asked(image, topic, version, &found);
    let asked_by_id = |id: TopicId| match image.topic_by_id(id) {
        Some(topic) => found(topic),
        None => absent(None, id, ErrorCode::UnknownTopicId, version),
    };
    let topics = match (&request.topics, refusal(request, version)) {
        (Some(topics), Some(code)) => once_each(topics)
            .map(|topic| absent(topic.name.clone(), TopicId::ZERO, code, version))
            .collect(),
        (Some(topics), None) if is_by_id(request) => {
            let ids = once_each(topics).map(|topic| TopicId(topic.topic_id));
            ids.filter(|id| *id != TopicId::ZERO).map(asked_by_id).collect()
        }
        (Some(topics), None) if version > 0 || !topics.is_empty() => {
            once_each(topics).map(asked).collect()
        }
        _ => image.topics().map(|topic| found(topic)).collect(),
    };
    let mut topics: Vec<MetadataResponseTopic> = topics;
    if request.include_topic_authorized_operations {
        for topic in &mut topics {
            topic.topic_authorized_operations = TOPIC_OPERATIONS;
        }
    }
    let mut response = MetadataResponse::default()
        .with_topics(topics)
        .with_cluster_id(Some(StrBytes::from_string(image.cluster_id.clone())));
    if request.include_cluster_authorized_operations && (8..=10).contains(&version) {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}

/// Each topic at the place where it is first named. A name costs a request a few bytes and its
/// answer a line for each partition: repeated, it would make the response as large as one likes.
fn once_each(
    topics: &[MetadataRequestTopic],
) -> impl Iterator<Item = &MetadataRequestTopic> + use<'_> {
    let mut seen = HashSet::new();
    topics.iter().filter(move |topic| {
        // An id wins over a name that stands beside it.
        let name = if topic.topic_id.is_nil() { topic.name.as_ref() } else { None };
        seen.insert((name, topic.topic_id))
    })
}

fn describe_asked(
    image: &MetadataImage,
    asked: &MetadataRequestTopic,
    version: i16,
    found: &dyn Fn(&TopicImage) -> MetadataResponseTopic,
) -> MetadataResponseTopic {
    let Some(name) = &asked.name else {
        // Neither a name nor an id.
        return absent(None, TopicId::ZERO, ErrorCode::UnknownTopicId, version);
    };
    match image.topic(name) {
        Some(topic) => found(topic),
        None if TopicName::validate(name).is_err() => {
            absent(Some(name.clone()), TopicId::ZERO, ErrorCode::InvalidTopicException, version)
        }
        None => {
            absent(Some(name.clone()), TopicId::ZERO, ErrorCode::UnknownTopicOrPartition, version)
        }
    }
}

fn absent(
    name: Option<vltava_protocol::messages::TopicName>,
    id: TopicId,
    code: ErrorCode,
    version: i16,
) -> MetadataResponseTopic {
    let is_internal = name.as_deref().is_some_and(|name| is_internal_topic(name));
    // Before version 12 a topic cannot be without a name.
    let name = if version < 12 { Some(name.unwrap_or_default()) } else { name };
    MetadataResponseTopic::default()
        .with_name(name)
        .with_topic_id(id.0)
        .with_error_code(code.code())
        .with_is_internal(is_internal)
}

fn describe_topic(
    image: &MetadataImage,
    topic: &TopicImage,
    leadership: &dyn Fn(&TopicImage, PartitionIndex) -> Leadership,
) -> MetadataResponseTopic {
    let partitions = (0..).zip(&topic.partitions).map(|(index, partition)| {
        let Leadership { leader, epoch, .. } = leadership(topic, PartitionIndex(index));
        let leader = leader.filter(|leader| image.brokers.contains_key(leader));
        let code = if leader.is_some() { ErrorCode::None } else { ErrorCode::LeaderNotAvailable };
        let replicas = || partition.replicas.iter().map(|&(_, node)| node);
        let (live, gone): (Vec<NodeId>, Vec<NodeId>) =
            replicas().partition(|node| image.brokers.contains_key(node));
        MetadataResponsePartition::default()
            .with_error_code(code.code())
            .with_partition_index(index)
            .with_leader_id(leader.map_or(-1, |leader| leader.0).into())
            .with_leader_epoch(epoch.0)
            .with_replica_nodes(replicas().map(|node| node.0.into()).collect())
            .with_isr_nodes(live.into_iter().map(|node| node.0.into()).collect())
            .with_offline_replicas(gone.into_iter().map(|node| node.0.into()).collect())
    });
    let name = StrBytes::from_string(topic.name.to_string());
    MetadataResponseTopic::default()
        .with_name(Some(name.into()))
        .with_topic_id(topic.id.0)
        .with_is_internal(is_internal_topic(&topic.name))
        .with_partitions(partitions.collect())
}

/// What this node knows of a partition's leader.
pub(super) fn leadership(node: &Node, topic: &TopicImage, index: PartitionIndex) -> Leadership {
    let unknown =
        Leadership { epoch: vltava_protocol::ids::LeaderEpoch::NONE, ..Leadership::UNKNOWN };
    node.partitions.get_by_id(topic.id, index).map_or(unknown, |local| local.leadership())
}

fn brokers(image: &MetadataImage) -> Vec<MetadataResponseBroker> {
    let broker = |(&id, info): (&NodeId, &BrokerInfo)| {
        MetadataResponseBroker::default()
            .with_node_id(id.0.into())
            .with_host(StrBytes::from_string(info.host.clone()))
            .with_port(info.port.into())
            .with_rack(info.rack.clone().map(StrBytes::from_string))
    };
    image.brokers.iter().map(broker).collect()
}

/// The node that leads group 0, as far as this one knows; -1 is nobody.
pub(super) fn controller(node: &Node) -> i32 {
    node.controller.group_zero().leadership().leader.map_or(-1, |leader| leader.0)
}

#[cfg(test)]
mod tests {
    use vltava_protocol::ids::LeaderEpoch;
    use vltava_protocol::messages::encode_response;

    use super::*;
    use crate::controller::records::MetadataRecord;

    fn id(n: u128) -> TopicId {
        TopicId(uuid::Uuid::from_u128(n))
    }

    fn image() -> MetadataImage {
        let mut image = MetadataImage::default();
        let topic = |name: &str, n, partitions| MetadataRecord::Topic {
            name: name.into(),
            id: id(n),
            partitions,
            config: std::collections::BTreeMap::default(),
        };
        for record in [
            MetadataRecord::Cluster { id: "cluster".into() },
            MetadataRecord::Broker { node: 1, host: "h".into(), port: 9, rack: None },
            topic("a", 1, vec![vec![(1000, 1)], vec![(1001, 1), (1002, 2)]]),
            topic("__consumer_offsets", 2, vec![vec![(1003, 2)]]),
        ] {
            image.apply(image.applied, record).unwrap();
        }
        image
    }

    /// The first replica leads.
    fn first(topic: &TopicImage, index: PartitionIndex) -> Leadership {
        let leader = topic.partition(index).map(|partition| partition.replicas[0].1);
        Leadership {
            leader,
            epoch: LeaderEpoch(3),
            is_leader: true,
            confirmed: true,
            ..Leadership::UNKNOWN
        }
    }

    fn by_name(name: &str) -> MetadataRequestTopic {
        MetadataRequestTopic::default().with_name(Some(StrBytes::from_string(name.into()).into()))
    }

    fn by_id(n: u128) -> MetadataRequestTopic {
        MetadataRequestTopic::default().with_name(None).with_topic_id(id(n).0)
    }

    /// Names (or ids) and errors of the topics in the answer to a request.
    fn check(
        topics: Option<Vec<MetadataRequestTopic>>,
        versions: std::ops::RangeInclusive<i16>,
        expected: &[(&str, ErrorCode)],
    ) {
        for version in versions {
            let request = MetadataRequest::default().with_topics(topics.clone());
            let response = describe(&image(), &request, version, &first);
            let mut got: Vec<_> = response
                .topics
                .iter()
                .map(|topic| {
                    let id = TopicId(topic.topic_id).to_string();
                    let name = topic.name.as_ref().map_or(id, |name| name.0.to_string());
                    (name, ErrorCode::from_code(topic.error_code).unwrap())
                })
                .collect();
            got.sort_by(|a, b| a.0.cmp(&b.0));
            let expected: Vec<_> =
                expected.iter().map(|&(name, code)| (name.to_owned(), code)).collect();
            assert_eq!(got, expected, "version {version}");
            encode_response(1, ApiKey::Metadata, version, &response).unwrap();
        }
    }

    #[test]
    fn all_some_or_no_topics_by_version() {
        let all = [("__consumer_offsets", ErrorCode::None), ("a", ErrorCode::None)];
        check(Some(vec![]), 0..=0, &all);
        check(Some(vec![]), 1..=13, &[]);
        check(None, 1..=13, &all);
        check(Some(vec![by_name("a")]), 0..=13, &[("a", ErrorCode::None)]);
    }

    #[test]
    fn topics_that_are_not_there_are_told_apart() {
        let asked = vec![by_name("a b"), by_name("none")];
        let unknown = ErrorCode::UnknownTopicOrPartition;
        check(Some(asked), 0..=13, &[("a b", ErrorCode::InvalidTopicException), ("none", unknown)]);
    }

    #[test]
    fn ids_are_asked_for_from_version_12_on() {
        check(Some(vec![by_id(1)]), 12..=13, &[("a", ErrorCode::None)]);
        let nobody = id(9).to_string();
        check(Some(vec![by_id(9)]), 12..=13, &[(&nobody, ErrorCode::UnknownTopicId)]);
        check(Some(vec![by_id(1)]), 10..=11, &[("", ErrorCode::InvalidRequest)]);
        let mut beside = by_id(1);
        beside.name = Some(StrBytes::default().into());
        check(Some(vec![beside, by_name("none")]), 12..=13, &[("a", ErrorCode::None)]);
    }

    #[test]
    fn a_topic_named_again_is_described_once() {
        let mut asked = vec![by_name("a"); 1000];
        asked.extend([by_name("none"), by_name("a"), by_name("none")]);
        let unknown = ErrorCode::UnknownTopicOrPartition;
        check(Some(asked), 0..=13, &[("a", ErrorCode::None), ("none", unknown)]);
        let nobody = id(9).to_string();
        let ids = vec![by_id(9), by_id(1), by_id(9), by_id(1)];
        check(Some(ids), 12..=13, &[(&nobody, ErrorCode::UnknownTopicId), ("a", ErrorCode::None)]);
    }

    #[test]
    fn partitions_tell_leaders_and_what_is_offline() {
        let request = MetadataRequest::default().with_topics(None);
        let response = describe(&image(), &request, 13, &first);
        let offsets = response.topics.iter().find(|topic| topic.is_internal).unwrap();
        let lost = &offsets.partitions[0];
        assert_eq!(lost.error_code, ErrorCode::LeaderNotAvailable.code());
        assert_eq!((lost.leader_id.0, lost.isr_nodes.len()), (-1, 0));
        assert_eq!(lost.offline_replicas[0].0, 2);
        let a = response.topics.iter().find(|topic| !topic.is_internal).unwrap();
        let partition = &a.partitions[1];
        assert_eq!((partition.leader_id.0, partition.leader_epoch), (1, 3));
        assert_eq!((partition.replica_nodes.len(), partition.offline_replicas.len()), (2, 1));
        assert_eq!(a.topic_authorized_operations, i32::MIN);
        assert_eq!(response.cluster_id.as_deref(), Some("cluster"));
    }

    #[test]
    fn operations_are_given_when_asked_for() {
        for version in 8..=13 {
            let request = MetadataRequest::default()
                .with_topics(None)
                .with_include_topic_authorized_operations(true)
                .with_include_cluster_authorized_operations(version <= 10);
            let response = describe(&image(), &request, version, &first);
            assert_eq!(response.topics[0].topic_authorized_operations, TOPIC_OPERATIONS);
            assert_eq!(response.cluster_authorized_operations > 0, version <= 10);
            encode_response(1, ApiKey::Metadata, version, &response).unwrap();
        }
    }

    #[test]
    fn only_names_that_do_not_exist_are_created() {
        let mut asked = vec![by_name("b"), by_name("a"), by_name("b")];
        let request = MetadataRequest::default().with_topics(Some(asked.clone()));
        assert_eq!(missing_topics(&image(), &request, 13), ["b"]);
        asked.push(by_id(9));
        let request = MetadataRequest::default().with_topics(Some(asked));
        assert!(missing_topics(&image(), &request, 13).is_empty(), "ids are asked for");
        assert!(missing_topics(&image(), &request, 10).is_empty(), "a refused request");
    }
}
