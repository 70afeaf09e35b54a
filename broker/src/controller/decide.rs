//! The controller's decisions: image and request in, records and answer out.
//!
//! Pure: no clock, no log, no random source but the one handed in. The service appends the
//! records and answers once they are committed. The rules are those of Kafka's
//! `ReplicationControlManager` and `ControllerApis`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use vltava_protocol::ErrorCode;
use vltava_protocol::ids::{InvalidTopicName, NodeId, PartitionIndex, TopicId, TopicName};

use super::placement;
use super::records::MetadataRecord;
use super::state::{
    BrokerInfo, METADATA_TOPIC, MetadataImage, OFFSETS_TOPIC, TRANSACTIONS_TOPIC, TopicImage,
};
use crate::config::layers::Overrides;
use crate::config::{BrokerConfig, ConfigError, TopicConfig};

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
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TopicRef {
    /// By its name.
    Name(String),
    /// By its id.
    Id(TopicId),
}

/// Why the controller refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControlError {
    /// The name is not legal.
    #[error("{0}")]
    Name(#[from] InvalidTopicName),
    /// The name would be the same as another's in metrics.
    #[error("topic '{name}' collides with existing topic: {existing}")]
    Collides {
        /// The name.
        name: String,
        /// The other.
        existing: TopicName,
    },
    /// The name is taken.
    #[error("topic '{0}' already exists")]
    Exists(String),
    /// The name belongs to the cluster's own log.
    #[error("creation of internal topic {METADATA_TOPIC} is prohibited")]
    Reserved,
    /// The request names one topic more than once.
    #[error("the request names topic {0} more than once")]
    Duplicate(String),
    /// Not a number of partitions.
    #[error("number of partitions must be at least 1, or -1 for the default, not {0}")]
    Partitions(i32),
    /// More partitions than one request may create.
    #[error(
        "excessively large number of partitions per request: {0} > {PARTITIONS_PER_REQUEST_MAX}"
    )]
    TooManyPartitions(usize),
    /// Not a replication factor.
    #[error("replication factor must be at least 1, or -1 for the default, not {0}")]
    ReplicationFactor(i32),
    /// There are not so many nodes.
    #[error(
        "replication factor {wanted} cannot be reached: only {brokers} broker(s) are registered"
    )]
    TooFewBrokers {
        /// What was asked for.
        wanted: i32,
        /// The nodes there are.
        brokers: usize,
    },
    /// A manual assignment comes with a count.
    #[error("a manual assignment was given, so {0} must be -1")]
    AssignmentAndCount(&'static str),
    /// A manual assignment is wrong.
    #[error("{0}")]
    Assignment(AssignmentError),
    /// A configuration value is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// No topic of this name.
    #[error("topic '{0}' does not exist")]
    UnknownName(String),
    /// No topic with this id.
    #[error("no topic has the id {0}")]
    UnknownId(TopicId),
    /// The broker does not delete topics.
    #[error("topic deletion is disabled (delete.topic.enable)")]
    DeletionDisabled,
    /// All producer ids were handed out.
    #[error("there are no producer ids left")]
    NoProducerIds,
    /// The log of group 0 did not take the records, or this node does not lead it.
    #[error("the metadata log refused the change: {0}")]
    Log(ErrorCode),
    /// The node can no longer follow the metadata log.
    #[error("this node cannot follow the metadata log: {0}")]
    Follow(String),
}

/// What is wrong with a manual assignment.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AssignmentError {
    /// A partition is assigned more than once.
    #[error("partition {0} is assigned more than once")]
    Twice(PartitionIndex),
    /// The partitions are not 0, 1, 2, ...
    #[error("partitions must be a consecutive 0-based sequence; {0} is missing")]
    Gap(usize),
    /// A partition has no replica.
    #[error("partition {0} has an empty replica list")]
    Empty(PartitionIndex),
    /// A node is named twice for a partition.
    #[error("partition {0} names broker {1} more than once")]
    Repeated(PartitionIndex, NodeId),
    /// A node is named that does not exist.
    #[error("partition {0} names broker {1}, but no such broker is registered")]
    NoBroker(PartitionIndex, NodeId),
    /// Partitions have different numbers of replicas.
    #[error("partition {partition} has {got} replica(s), others have {expected}")]
    Uneven {
        /// The partition.
        partition: PartitionIndex,
        /// Its replicas.
        got: usize,
        /// Those of the partitions before it.
        expected: usize,
    },
}

impl ControlError {
    /// The error on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Name(_) | Self::Collides { .. } => ErrorCode::InvalidTopicException,
            Self::Exists(_) => ErrorCode::TopicAlreadyExists,
            Self::Reserved | Self::Duplicate(_) | Self::AssignmentAndCount(_) => {
                ErrorCode::InvalidRequest
            }
            Self::Partitions(_) => ErrorCode::InvalidPartitions,
            Self::TooManyPartitions(_) => ErrorCode::PolicyViolation,
            Self::ReplicationFactor(_) | Self::TooFewBrokers { .. } => {
                ErrorCode::InvalidReplicationFactor
            }
            Self::Assignment(_) => ErrorCode::InvalidReplicaAssignment,
            Self::Config(_) => ErrorCode::InvalidConfig,
            Self::UnknownName(_) => ErrorCode::UnknownTopicOrPartition,
            Self::UnknownId(_) => ErrorCode::UnknownTopicId,
            Self::DeletionDisabled => ErrorCode::TopicDeletionDisabled,
            Self::NoProducerIds | Self::Follow(_) => ErrorCode::UnknownServerError,
            Self::Log(code) => *code,
        }
    }
}

/// A decision for one topic: the record to append and the answer once it is committed.
pub type Decision<T> = Result<(MetadataRecord, T), ControlError>;

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
        Ok((record, created))
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
) -> Decision<CreatedTopic> {
    let name = topic.name.as_str();
    if name == METADATA_TOPIC {
        return Err(ControlError::Reserved);
    }
    TopicName::validate(name)?;
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
    let mut replica_ids = image.next_replica_id..;
    let mut with_ids = |nodes: Vec<NodeId>| -> Vec<(u64, i32)> {
        nodes.into_iter().map(|node| (replica_ids.next().expect("2^64 ids"), node.0)).collect()
    };
    let record = MetadataRecord::Topic {
        name: name.to_owned(),
        id: created.id,
        partitions: placed.into_iter().map(&mut with_ids).collect(),
        config: overrides,
    };
    Ok((record, created))
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
        return Err(ControlError::AssignmentAndCount("the replication factor"));
    }
    if topic.partitions != DEFAULT {
        return Err(ControlError::AssignmentAndCount("the number of partitions"));
    }
    let mut by_partition = BTreeMap::new();
    let mut expected = None;
    for (partition, nodes) in &topic.assignments {
        let refuse = |error| Err(ControlError::Assignment(error));
        if nodes.is_empty() {
            return refuse(AssignmentError::Empty(*partition));
        }
        let mut seen = BTreeSet::new();
        for node in nodes {
            if !seen.insert(node) {
                return refuse(AssignmentError::Repeated(*partition, *node));
            }
            if !brokers.contains_key(node) {
                return refuse(AssignmentError::NoBroker(*partition, *node));
            }
        }
        let expected = *expected.get_or_insert(nodes.len());
        if nodes.len() != expected {
            let (partition, got) = (*partition, nodes.len());
            return refuse(AssignmentError::Uneven { partition, got, expected });
        }
        if by_partition.insert(*partition, nodes.clone()).is_some() {
            return refuse(AssignmentError::Twice(*partition));
        }
    }
    let gap = (0..).zip(by_partition.keys()).find(|&(n, partition)| partition.0 != n);
    match gap {
        Some((missing, _)) => {
            Err(ControlError::Assignment(AssignmentError::Gap(missing.unsigned_abs() as usize)))
        }
        None => Ok(by_partition.into_values().collect()),
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
    let find = |topic: &TopicRef| match topic {
        TopicRef::Name(name) => image.topic(name),
        TopicRef::Id(id) => image.topic_by_id(*id),
    };
    let mut counts: BTreeMap<TopicId, usize> = BTreeMap::new();
    for topic in topics.iter().filter_map(find) {
        *counts.entry(topic.id).or_default() += 1;
    }
    let decide = |topic: &TopicRef| {
        if !config.delete_topic_enable {
            return Err(ControlError::DeletionDisabled);
        }
        let found: &TopicImage = find(topic).ok_or_else(|| match topic {
            TopicRef::Name(name) => ControlError::UnknownName(name.clone()),
            TopicRef::Id(id) => ControlError::UnknownId(*id),
        })?;
        if counts[&found.id] > 1 {
            return Err(ControlError::Duplicate(found.name.to_string()));
        }
        Ok((MetadataRecord::TopicDeleted { id: found.id }, (found.name.clone(), found.id)))
    };
    topics.iter().map(decide).collect()
}

/// Hands out the next block of producer ids.
pub fn allocate_producer_ids(image: &MetadataImage) -> Decision<Range<i64>> {
    let first = image.next_producer_id;
    let next = first.checked_add(PRODUCER_ID_BLOCK).ok_or(ControlError::NoProducerIds)?;
    Ok((MetadataRecord::ProducerIds { next }, first..next))
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
