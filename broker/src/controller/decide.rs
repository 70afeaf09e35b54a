//! The controller's decisions: image and request in, records and answer out.
//!
//! Pure: no clock, no log, no random source but the one handed in. The service appends the
//! records and answers once they are committed. The rules are those of Kafka's
//! `ReplicationControlManager` and `ControllerApis`.

use std::collections::BTreeMap;
use std::ops::Range;

use vltava_protocol::ids::{NodeId, PartitionIndex, TopicId, TopicName};

use super::placement;
use super::records::MetadataRecord;
use super::state::{
    BrokerInfo, METADATA_TOPIC, MetadataImage, OFFSETS_TOPIC, TRANSACTIONS_TOPIC, TopicImage,
};
use crate::config::layers::Overrides;
use crate::config::{BrokerConfig, TopicConfig};

mod partitions;

pub use super::error::{AssignmentError, ControlError};
pub use partitions::{MorePartitions, create_partitions};

/// The most partitions that one request creates
/// (`ReplicationControlManager.MAX_PARTITIONS_PER_BATCH`).
pub const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;

/// How many producer ids a node takes at a time (`ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE`).
pub const PRODUCER_ID_BLOCK: i64 = 1000;

/// "The broker's default" in a request.
const DEFAULT: i32 = -1;

/// A topic as a request describes it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; -1 is the broker's default.
    pub partitions: i32,
    /// Replicas of each; -1 is the broker's default.
    pub replication_factor: i32,
    /// The nodes of each partition, if the request chooses them itself.
    pub assignments: Vec<(PartitionIndex, Vec<NodeId>)>,
    /// What to set for it.
    pub configs: Vec<(String, Option<String>)>,
}

/// What became, or would become, of a [`NewTopic`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreatedTopic {
    /// Its identity.
    pub id: TopicId,
    /// How many partitions it has.
    pub partitions: i32,
    /// Replicas of each (of the first, if they differ).
    pub replication_factor: i16,
    /// What was set for it.
    pub config: Overrides,
}

/// A topic as a request names it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum TopicRef {
    /// By its name.
    Name(String),
    /// By its id.
    Id(TopicId),
}

/// A decision for one thing: the record to append, if anything changes, and the answer once it is
/// committed.
pub type Decision<T> = Result<(Option<MetadataRecord>, T), ControlError>;

/// Decides on the topics of one CreateTopics request, each for itself. Later ones see earlier ones.
pub fn create_topics(
    image: &MetadataImage,
    topics: &[NewTopic],
    config: &BrokerConfig,
    new_id: &mut dyn FnMut() -> TopicId,
) -> Vec<Decision<CreatedTopic>> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in topics {
        *counts.entry(&topic.name).or_default() += 1;
    }
    let total = total_partitions(topics, config);
    let mut image = image.clone();
    let mut decide = |topic: &NewTopic| {
        if counts[topic.name.as_str()] > 1 {
            return Err(ControlError::Duplicate(topic.name.clone()));
        }
        if total > PARTITIONS_PER_REQUEST_MAX {
            return Err(ControlError::TooManyPartitions(total));
        }
        let (record, created) = create_topic(&image, topic, config, new_id)?;
        let applied = image.applied;
        image.apply(applied, record.clone()).expect("a decided topic is new");
        Ok((Some(record), created))
    };
    topics.iter().map(&mut decide).collect()
}

/// The partitions that a request asks for, as far as its numbers make sense.
fn total_partitions(topics: &[NewTopic], config: &BrokerConfig) -> usize {
    let partitions = |topic: &NewTopic| match topic.partitions {
        _ if !topic.assignments.is_empty() => topic.assignments.len(),
        DEFAULT => config.num_partitions.unsigned_abs() as usize,
        count => usize::try_from(count).unwrap_or(0),
    };
    topics.iter().map(partitions).fold(0, usize::saturating_add)
}

fn create_topic(
    image: &MetadataImage,
    topic: &NewTopic,
    config: &BrokerConfig,
    new_id: &mut dyn FnMut() -> TopicId,
) -> Result<(MetadataRecord, CreatedTopic), ControlError> {
    let name = topic.name.as_str();
    if name == METADATA_TOPIC {
        return Err(ControlError::Reserved);
    }
    TopicName::validate(name).map_err(|error| ControlError::name(name, error))?;
    if image.topic(name).is_some() {
        return Err(ControlError::Exists(name.to_owned()));
    }
    if let Some(existing) = image.colliding(name) {
        return Err(ControlError::Collides { name: name.to_owned(), existing: existing.clone() });
    }
    let layers = image.layers(config.flags.node_id, &config.settings);
    let entries = topic.configs.iter().map(|(key, value)| (key.as_str(), value.as_deref()));
    let overrides = TopicConfig::normalize(entries, &layers)?;
    let placed = if topic.assignments.is_empty() {
        place(image, topic, config)?
    } else {
        assigned(&image.brokers, topic)?
    };

    let created = CreatedTopic {
        id: fresh(image, new_id),
        partitions: placed.len() as i32,
        replication_factor: placed.first().map_or(0, |nodes| nodes.len() as i16),
        config: overrides.clone(),
    };
    let record = MetadataRecord::Topic {
        name: name.to_owned(),
        id: created.id,
        partitions: with_ids(image, placed),
        config: overrides,
    };
    Ok((record, created))
}

/// Gives each replica an id that nobody had.
fn with_ids(image: &MetadataImage, placed: Vec<Vec<NodeId>>) -> Vec<Vec<(u64, i32)>> {
    let mut ids = image.next_replica_id..;
    let mut replicas = |nodes: Vec<NodeId>| -> Vec<(u64, i32)> {
        nodes.into_iter().map(|node| (ids.next().expect("2^64 ids"), node.0)).collect()
    };
    placed.into_iter().map(&mut replicas).collect()
}

/// An id that no topic has: a random one, drawn again in the case that never happens.
fn fresh(image: &MetadataImage, new_id: &mut dyn FnMut() -> TopicId) -> TopicId {
    loop {
        let id = new_id();
        if id != TopicId::ZERO && image.topic_by_id(id).is_none() {
            return id;
        }
    }
}

/// The nodes of a topic that gives counts.
fn place(
    image: &MetadataImage,
    topic: &NewTopic,
    config: &BrokerConfig,
) -> Result<Vec<Vec<NodeId>>, ControlError> {
    let replication_factor = match topic.replication_factor {
        DEFAULT => config.default_replication_factor,
        factor if factor < 1 => return Err(ControlError::ReplicationFactor(factor)),
        factor => factor,
    };
    let partitions = match topic.partitions {
        DEFAULT => config.num_partitions,
        count if count < 1 => return Err(ControlError::Partitions(count)),
        count => count,
    };
    let replicas = replication_factor.unsigned_abs() as usize;
    let partitions = partitions.unsigned_abs() as usize;
    placement::place(&image.brokers, partitions, replicas, image.next_replica_id).ok_or(
        ControlError::TooFewBrokers { wanted: replication_factor, brokers: image.brokers.len() },
    )
}

/// The nodes of a topic that names them.
fn assigned(
    brokers: &BTreeMap<NodeId, BrokerInfo>,
    topic: &NewTopic,
) -> Result<Vec<Vec<NodeId>>, ControlError> {
    if topic.replication_factor != DEFAULT {
        return Err(ControlError::AssignmentAndCount("replication factor"));
    }
    if topic.partitions != DEFAULT {
        return Err(ControlError::AssignmentAndCount("numPartitions"));
    }
    let mut by_partition = BTreeMap::new();
    let mut expected = None;
    for (partition, nodes) in &topic.assignments {
        if by_partition.contains_key(partition) {
            return Err(AssignmentError::Twice(*partition).into());
        }
        check_assignment(brokers, nodes, expected)?;
        expected = Some(nodes.len());
        by_partition.insert(*partition, nodes.clone());
    }
    if (0..).zip(by_partition.keys()).any(|(n, partition)| partition.0 != n) {
        return Err(AssignmentError::Gap.into());
    }
    Ok(by_partition.into_values().collect())
}

/// Whether a partition can be on these nodes: they exist, none is named twice, and there are as
/// many as of other partitions (`ReplicationControlManager.validateManualPartitionAssignment`).
fn check_assignment(
    brokers: &BTreeMap<NodeId, BrokerInfo>,
    nodes: &[NodeId],
    expected: Option<usize>,
) -> Result<(), AssignmentError> {
    if nodes.is_empty() {
        return Err(AssignmentError::Empty);
    }
    let mut sorted = nodes.to_vec();
    sorted.sort_unstable();
    let mut before = None;
    for node in sorted {
        if !brokers.contains_key(&node) {
            return Err(AssignmentError::NoBroker(node));
        }
        if before.replace(node) == Some(node) {
            return Err(AssignmentError::Repeated(node));
        }
    }
    match expected {
        Some(expected) if expected != nodes.len() => {
            Err(AssignmentError::Uneven { got: nodes.len(), expected })
        }
        _ => Ok(()),
    }
}

/// A topic as it is created when somebody asks for it that needs it: with the broker's defaults,
/// and the internal ones with their own settings. An internal topic gets one replica a node where
/// there are fewer nodes than its replication factor, so that a single node works without being
/// told.
pub fn automatic(image: &MetadataImage, name: &str, config: &BrokerConfig) -> NewTopic {
    let internal = |partitions: i32, factor: i16, segment_bytes: i32| {
        let set = |key: &str, value: String| (key.to_owned(), Some(value));
        let segment = match segment_bytes {
            small if small < 1 << 20 => set("internal.segment.bytes", small.to_string()),
            usual => set("segment.bytes", usual.to_string()),
        };
        let nodes = image.brokers.len().max(1) as i32;
        NewTopic {
            name: name.to_owned(),
            partitions,
            replication_factor: i32::from(factor).min(nodes),
            assignments: Vec::new(),
            configs: vec![
                set("cleanup.policy", "compact".to_owned()),
                set("compression.type", "producer".to_owned()),
                set("durability", "fsync".to_owned()),
                segment,
            ],
        }
    };
    match name {
        OFFSETS_TOPIC => internal(
            config.offsets_topic_num_partitions,
            config.offsets_topic_replication_factor,
            config.offsets_topic_segment_bytes,
        ),
        TRANSACTIONS_TOPIC => internal(
            config.transaction_state_log_num_partitions,
            config.transaction_state_log_replication_factor,
            config.transaction_state_log_segment_bytes,
        ),
        _ => NewTopic {
            name: name.to_owned(),
            partitions: DEFAULT,
            replication_factor: DEFAULT,
            ..NewTopic::default()
        },
    }
}

/// Decides on the topics of one DeleteTopics request, each for itself.
pub fn delete_topics(
    image: &MetadataImage,
    topics: &[TopicRef],
    config: &BrokerConfig,
) -> Vec<Decision<(TopicName, TopicId)>> {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut ids: BTreeMap<TopicId, usize> = BTreeMap::new();
    for topic in topics {
        match topic {
            TopicRef::Name(name) => *names.entry(name).or_default() += 1,
            TopicRef::Id(id) => *ids.entry(*id).or_default() += 1,
        }
    }
    let find = |topic: &TopicRef| match topic {
        TopicRef::Name(name) if names[name.as_str()] > 1 => {
            Err(ControlError::Duplicate(name.clone()))
        }
        TopicRef::Id(id) if ids[id] > 1 => Err(ControlError::DuplicateId(*id)),
        TopicRef::Name(name) => {
            let topic = image.topic(name);
            let topic = topic.ok_or_else(|| ControlError::UnknownName(name.clone()))?;
            if ids.contains_key(&topic.id) {
                return Err(ControlError::NameAndId(topic.id));
            }
            Ok(topic)
        }
        TopicRef::Id(id) => {
            let topic = image.topic_by_id(*id).ok_or(ControlError::UnknownId(*id))?;
            if names.contains_key(&*topic.name) {
                return Err(ControlError::NameAndId(*id));
            }
            Ok(topic)
        }
    };
    let decide = |topic: &TopicRef| {
        if !config.delete_topic_enable {
            return Err(ControlError::DeletionDisabled);
        }
        let found: &TopicImage = find(topic)?;
        let record = MetadataRecord::TopicDeleted { id: found.id };
        Ok((Some(record), (found.name.clone(), found.id)))
    };
    topics.iter().map(decide).collect()
}

/// Hands out the next block of producer ids.
pub fn allocate_producer_ids(image: &MetadataImage) -> Decision<Range<i64>> {
    let first = image.next_producer_id;
    let next = first.checked_add(PRODUCER_ID_BLOCK).ok_or(ControlError::NoProducerIds)?;
    Ok((Some(MetadataRecord::ProducerIds { next }), first..next))
}

/// What a starting node adds to the metadata: the cluster's id, if there is none yet, and itself,
/// if it is new or has moved.
pub fn register(
    image: &MetadataImage,
    cluster_id: &str,
    node: NodeId,
    info: &BrokerInfo,
) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    if image.cluster_id.is_empty() {
        records.push(MetadataRecord::Cluster { id: cluster_id.to_owned() });
    }
    if image.brokers.get(&node) != Some(info) {
        let BrokerInfo { host, port, rack } = info.clone();
        records.push(MetadataRecord::Broker { node: node.0, host, port, rack });
    }
    records
}

#[cfg(test)]
mod tests;
