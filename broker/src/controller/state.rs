//! The image: what applying group 0's records in order gives.
//!
//! Readers hold an `Arc` of one image and see one moment of the cluster. Applying a record copies
//! only the shard of the map that it touches, so an image per commit is cheap.

use std::collections::BTreeMap;
use std::sync::Arc;

use vltava_protocol::ids::{NodeId, Offset, PartitionIndex, TopicId, TopicName};
use vltava_storage::ids::ReplicaId;

use super::records::MetadataRecord;
use super::sharded::ShardedMap;
use crate::config::layers::{Layers, Overrides};
use crate::config::resource::ResourceKind;
use crate::config::settings::Settings;

/// The first replica id that a topic's partition gets. Smaller ones belong to the replicas of
/// group 0, which exist before the first record.
pub const FIRST_REPLICA_ID: u64 = 1000;

/// The offsets that consumer groups commit.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// The states of transactions.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";
/// Kafka's name for its own metadata log. Here it is no topic, and none may be called so.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// Whether a topic belongs to the broker (`Topic.isInternal`).
pub fn is_internal_topic(name: &str) -> bool {
    name == OFFSETS_TOPIC || name == TRANSACTIONS_TOPIC
}

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerInfo {
    /// Where clients reach it.
    pub host: String,
    /// And at which port.
    pub port: u16,
    /// Its failure domain.
    pub rack: Option<String>,
}

/// One partition of a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionImage {
    /// The target set of replicas, the preferred leader first.
    pub replicas: Vec<(ReplicaId, NodeId)>,
}

impl PartitionImage {
    /// A partition with the replicas that a record names.
    fn of(replicas: Vec<(u64, i32)>) -> Self {
        let replicas = replicas.into_iter();
        let replicas = replicas.map(|(replica, node)| (ReplicaId(replica), NodeId(node)));
        Self { replicas: replicas.collect() }
    }
}

/// One topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicImage {
    /// Its name.
    pub name: TopicName,
    /// Its identity.
    pub id: TopicId,
    /// Its partitions, by index.
    pub partitions: Vec<PartitionImage>,
    /// What was set for it, normalized.
    pub config: Overrides,
}

impl TopicImage {
    /// A partition of this topic.
    pub fn partition(&self, index: PartitionIndex) -> Option<&PartitionImage> {
        self.partitions.get(usize::try_from(index.0).ok()?)
    }
}

/// Why a record cannot be applied: the log contradicts itself. The node must stop.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Contradiction {
    /// A topic is created whose name or id is taken.
    #[error("topic {name} ({id}) is created twice")]
    TopicExists {
        /// Its name.
        name: String,
        /// Its id.
        id: TopicId,
    },
    /// A topic is changed or deleted that is not there.
    #[error("topic {0} is changed, but does not exist")]
    NoTopic(TopicId),
    /// The cluster's id changes.
    #[error("the cluster is {had}, and becomes {got}")]
    ClusterId {
        /// Its id.
        had: String,
        /// The other one.
        got: String,
    },
    /// Producer ids are handed out again.
    #[error("producer ids were handed out up to {had}, and are again from {got}")]
    ProducerIds {
        /// The first free id.
        had: i64,
        /// What the record says it is.
        got: i64,
    },
}

/// The cluster's metadata at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetadataImage {
    /// The cluster's id; empty before the first record.
    pub cluster_id: String,
    /// The nodes.
    pub brokers: Arc<BTreeMap<NodeId, BrokerInfo>>,
    /// The first replica id that is free.
    pub next_replica_id: u64,
    /// The first producer id that is free.
    pub next_producer_id: i64,
    /// What is set at run time for single brokers, normalized.
    pub broker_configs: Arc<BTreeMap<NodeId, Overrides>>,
    /// What is set at run time for all brokers, normalized.
    pub cluster_config: Arc<Overrides>,
    /// What is set for groups and subscriptions to client metrics, normalized.
    pub resource_configs: Arc<BTreeMap<(ResourceKind, String), Overrides>>,
    /// The offset after the last record that was applied.
    pub applied: Offset,
    topics: ShardedMap<TopicName, Arc<TopicImage>>,
    ids: ShardedMap<TopicId, TopicName>,
    /// Topics whose names hold `.` or `_`, by their name with `_` for both.
    folded: ShardedMap<TopicName, TopicName>,
    partitions: usize,
}

impl Default for MetadataImage {
    fn default() -> Self {
        Self {
            cluster_id: String::new(),
            brokers: Arc::default(),
            next_replica_id: FIRST_REPLICA_ID,
            next_producer_id: 0,
            broker_configs: Arc::default(),
            cluster_config: Arc::default(),
            resource_configs: Arc::default(),
            applied: Offset::ZERO,
            topics: ShardedMap::default(),
            ids: ShardedMap::default(),
            folded: ShardedMap::default(),
            partitions: 0,
        }
    }
}

impl MetadataImage {
    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(name)
    }

    /// The topic with this id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<TopicImage>> {
        self.topic(self.ids.get(&id)?)
    }

    /// All topics, in an order that depends on their names alone.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.topics.values()
    }

    /// How many topics there are.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// How many partitions all topics have together.
    pub fn partition_count(&self) -> usize {
        self.partitions
    }

    /// Another topic whose name becomes the same in metrics, where `.` is written `_`.
    pub fn colliding(&self, name: &str) -> Option<&TopicName> {
        self.folded.get(fold(name).as_str()).filter(|other| ***other != *name)
    }

    /// The layers of configuration above the defaults, for a node that was started with these
    /// settings.
    pub fn layers<'a>(&'a self, node: NodeId, settings: &'a Settings) -> Layers<'a> {
        Layers {
            broker: self.broker_configs.get(&node),
            cluster: Some(&self.cluster_config),
            settings,
        }
    }

    /// Applies the record at `offset`, which must not be below what was applied before (offsets of
    /// a log may skip, never return).
    pub fn apply(&mut self, offset: Offset, record: MetadataRecord) -> Result<(), Contradiction> {
        assert!(offset >= self.applied, "record {offset} after {}", self.applied);
        match record {
            MetadataRecord::Cluster { id } => self.name_cluster(id)?,
            MetadataRecord::Broker { node, host, port, rack } => {
                let info = BrokerInfo { host, port, rack };
                Arc::make_mut(&mut self.brokers).insert(NodeId(node), info);
            }
            MetadataRecord::Topic { name, id, partitions, config } => {
                let partitions = partitions.into_iter().map(PartitionImage::of).collect();
                self.add_topic(TopicImage { name: name.into(), id, partitions, config })?;
            }
            MetadataRecord::Partitions { id, added } => {
                let topic = self.topic_by_id(id).ok_or(Contradiction::NoTopic(id))?;
                let mut topic = TopicImage::clone(topic);
                let had = topic.partitions.len();
                topic.partitions.extend(added.into_iter().map(PartitionImage::of));
                self.take_replica_ids(&topic.partitions[had..]);
                self.partitions += topic.partitions.len() - had;
                self.topics.insert(topic.name.clone(), Arc::new(topic));
            }
            MetadataRecord::TopicConfig { id, config } => {
                let topic = self.topic_by_id(id).ok_or(Contradiction::NoTopic(id))?;
                let topic = TopicImage { config, ..TopicImage::clone(topic) };
                self.topics.insert(topic.name.clone(), Arc::new(topic));
            }
            MetadataRecord::TopicDeleted { id } => self.remove_topic(id)?,
            MetadataRecord::BrokerConfig { node: Some(node), config } => {
                Arc::make_mut(&mut self.broker_configs).insert(NodeId(node), config);
            }
            MetadataRecord::BrokerConfig { node: None, config } => {
                self.cluster_config = Arc::new(config);
            }
            MetadataRecord::ResourceConfig { kind, name, config } => {
                let resources = Arc::make_mut(&mut self.resource_configs);
                if config.is_empty() {
                    resources.remove(&(kind, name));
                } else {
                    resources.insert((kind, name), config);
                }
            }
            MetadataRecord::ProducerIds { next } => {
                let had = self.next_producer_id;
                if next <= had {
                    return Err(Contradiction::ProducerIds { had, got: next });
                }
                self.next_producer_id = next;
            }
        }
        self.applied = offset.next();
        Ok(())
    }

    fn name_cluster(&mut self, id: String) -> Result<(), Contradiction> {
        if self.cluster_id.is_empty() {
            self.cluster_id = id;
        } else if self.cluster_id != id {
            return Err(Contradiction::ClusterId { had: self.cluster_id.clone(), got: id });
        }
        Ok(())
    }

    fn add_topic(&mut self, topic: TopicImage) -> Result<(), Contradiction> {
        if self.topic(&topic.name).is_some() || self.ids.get(&topic.id).is_some() {
            let name = topic.name.to_string();
            return Err(Contradiction::TopicExists { name, id: topic.id });
        }
        self.take_replica_ids(&topic.partitions);
        let name = topic.name.clone();
        if name.contains(['.', '_']) {
            self.folded.insert(fold(&name).into(), name.clone());
        }
        self.partitions += topic.partitions.len();
        self.ids.insert(topic.id, name.clone());
        self.topics.insert(name, Arc::new(topic));
        Ok(())
    }

    /// Replica ids never return: the next one is above all that were ever given.
    fn take_replica_ids(&mut self, partitions: &[PartitionImage]) {
        let ids = partitions.iter().flat_map(|partition| &partition.replicas);
        if let Some(last) = ids.map(|&(replica, _)| replica.0).max() {
            self.next_replica_id = self.next_replica_id.max(last + 1);
        }
    }

    fn remove_topic(&mut self, id: TopicId) -> Result<(), Contradiction> {
        let topic = self.topic_by_id(id).cloned().ok_or(Contradiction::NoTopic(id))?;
        self.partitions -= topic.partitions.len();
        self.folded.remove(fold(&topic.name).as_str());
        self.ids.remove(&id);
        self.topics.remove(&*topic.name);
        Ok(())
    }
}

fn fold(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> TopicId {
        TopicId(uuid::Uuid::from_u128(n))
    }

    fn topic(name: &str, n: u128, replicas: &[u64]) -> MetadataRecord {
        MetadataRecord::Topic {
            name: name.into(),
            id: id(n),
            partitions: replicas.iter().map(|&replica| vec![(replica, 1)]).collect(),
            config: Overrides::new(),
        }
    }

    fn apply(image: &mut MetadataImage, record: MetadataRecord) -> Result<(), Contradiction> {
        image.apply(image.applied, record)
    }

    #[test]
    fn topics_come_and_go() {
        let mut image = MetadataImage::default();
        apply(&mut image, topic("a.b", 1, &[1000, 1001])).unwrap();
        apply(&mut image, topic("c", 2, &[1002])).unwrap();
        let before = image.clone();
        assert_eq!(image.topic("a.b").unwrap().id, id(1));
        assert_eq!(&*image.topic_by_id(id(2)).unwrap().name, "c");
        assert_eq!((image.topic_count(), image.partition_count()), (2, 3));
        assert_eq!(image.next_replica_id, 1003);
        assert_eq!(image.colliding("a_b").map(|name| &**name), Some("a.b"));
        assert_eq!(image.colliding("a.b"), None);

        apply(&mut image, MetadataRecord::TopicDeleted { id: id(1) }).unwrap();
        assert_eq!((image.topic("a.b"), image.topic_by_id(id(1))), (None, None));
        assert_eq!((image.topic_count(), image.partition_count()), (1, 1));
        assert_eq!(image.colliding("a_b"), None);
        assert_eq!(image.next_replica_id, 1003, "replica ids never return");
        assert_eq!(image.applied, Offset(3));
        assert!(before.topic("a.b").is_some(), "an older image keeps its moment");
    }

    #[test]
    fn a_topic_grows_behind_what_it_has() {
        let mut image = MetadataImage::default();
        apply(&mut image, topic("a", 1, &[1000, 1001])).unwrap();
        let before = image.topic("a").unwrap().clone();
        let added = vec![vec![(1002, 1)], vec![(1003, 2)]];
        apply(&mut image, MetadataRecord::Partitions { id: id(1), added }).unwrap();
        let grown = image.topic("a").unwrap();
        assert_eq!(grown.partitions[..2], before.partitions);
        assert_eq!(grown.partitions[3].replicas, [(ReplicaId(1003), NodeId(2))]);
        assert_eq!((grown.id, before.partitions.len()), (id(1), 2));
        assert_eq!((image.partition_count(), image.next_replica_id), (4, 1004));
        apply(&mut image, MetadataRecord::TopicDeleted { id: id(1) }).unwrap();
        assert_eq!(image.partition_count(), 0);
    }

    #[test]
    fn a_log_that_contradicts_itself_is_refused() {
        let mut image = MetadataImage::default();
        apply(&mut image, topic("a", 1, &[1000])).unwrap();
        apply(&mut image, MetadataRecord::Cluster { id: "x".into() }).unwrap();
        apply(&mut image, MetadataRecord::ProducerIds { next: 1000 }).unwrap();
        let same = image.clone();
        for record in [
            topic("a", 2, &[1001]),
            topic("b", 1, &[1001]),
            MetadataRecord::TopicDeleted { id: id(9) },
            MetadataRecord::Partitions { id: id(9), added: Vec::new() },
            MetadataRecord::TopicConfig { id: id(9), config: Overrides::new() },
            MetadataRecord::Cluster { id: "y".into() },
            MetadataRecord::ProducerIds { next: 1000 },
        ] {
            apply(&mut image, record.clone()).expect_err(&format!("{record:?}"));
        }
        assert_eq!(image, same);
    }

    #[test]
    fn configs_replace_what_was_set() {
        let mut image = MetadataImage::default();
        apply(&mut image, topic("a", 1, &[1000])).unwrap();
        let config: Overrides = [("retention.ms".to_owned(), "1".to_owned())].into();
        apply(&mut image, MetadataRecord::TopicConfig { id: id(1), config: config.clone() })
            .unwrap();
        assert_eq!(image.topic("a").unwrap().config, config);
        let node = MetadataRecord::BrokerConfig { node: Some(1), config: config.clone() };
        apply(&mut image, node).unwrap();
        let all = MetadataRecord::BrokerConfig { node: None, config: config.clone() };
        apply(&mut image, all).unwrap();
        assert_eq!(image.broker_configs.get(&NodeId(1)), Some(&config));
        assert_eq!(*image.cluster_config, config);
    }
}
