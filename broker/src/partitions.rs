//! The partitions that live on this node, kept in step with the cluster's metadata.
//!
//! A replica is created only when the image names it, and deleted only when the image, which is
//! committed, no longer does. What a directory holds beside that is a leftover of a deletion that a
//! crash cut short, and goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use vltava_protocol::ids::{LeaderEpoch, Offset};
use vltava_protocol::ids::{NodeId, PartitionIndex, Timestamp, TopicId, TopicName, TopicPartition};
use vltava_storage::disk::Disk;
use vltava_storage::flush::FlushItem;
use vltava_storage::flusher::FlushQueue;
use vltava_storage::ids::{FileId, LogIndex, ReplicaId};
use vltava_storage::log::{Durability, LogConfig, LogError, PartitionLog};
use vltava_storage::paths::replica_dir;
use vltava_storage::recovery::RecoverError;
use vltava_storage::state::{LogStart, Membership, ReplicaState, VoteState};

use crate::config::broker::BrokerConfig;
use crate::config::layers::Overrides;
use crate::config::topic::TopicConfig;
use crate::controller::MetadataImage;
use crate::controller::state::{TopicImage, is_internal_topic};
use crate::metrics::RaftMetrics;
use crate::partition::{Identity, Partition, Waiter};
use crate::replica::group::GroupConfig;
use crate::replica::shell::Replica;
use crate::room::Room;

/// A group's first replicas begin after a virtual entry of this index and epoch, so that every
/// later one, which begins at nothing, needs a snapshot, which brings the membership.
const VIRTUAL_INDEX: LogIndex = LogIndex(1);
const VIRTUAL_EPOCH: LeaderEpoch = LeaderEpoch(1);

/// Why a replica could not be put into service.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its log could not be created.
    #[error(transparent)]
    Create(#[from] LogError),
    /// Its log could not be recovered.
    #[error(transparent)]
    Recover(#[from] RecoverError),
}

/// What recovery found on the disk and nobody has claimed yet.
#[derive(Debug, Default)]
pub struct Found {
    /// The rows of replicas.
    pub replicas: BTreeMap<ReplicaId, ReplicaState>,
    /// How far segments are durable.
    pub durable: HashMap<FileId, u64>,
    /// The operating system died since the last run, and nobody closed the logs before.
    pub lost_memory: bool,
    /// Replicas that could not be opened: their rows stay, and so do their files.
    pub failed: BTreeSet<ReplicaId>,
}

/// Where replicas of this node live.
#[derive(Debug)]
pub struct Storage {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// Its flusher's queue.
    pub queue: Arc<FlushQueue>,
    /// Its back-pressure.
    pub room: Arc<Room>,
    found: Mutex<Found>,
}

impl Storage {
    /// A disk with what recovery found on it.
    pub fn new(disk: Arc<dyn Disk>, queue: Arc<FlushQueue>, room: Arc<Room>, found: Found) -> Self {
        Self { disk, queue, room, found: Mutex::new(found) }
    }

    /// Opens the log of a replica, or creates it, and makes the replica of it.
    pub fn open(
        &self,
        replica: ReplicaId,
        voters: &[ReplicaId],
        config: LogConfig,
    ) -> Result<Replica, OpenError> {
        let durability = config.durability;
        // The row stays until the log is open: a replica that has one is never created anew.
        let row = self.found.lock().replicas.get(&replica).cloned();
        let log = if let Some(row) = row {
            let recovered = self.recover(replica, config, row);
            let mut found = self.found.lock();
            match recovered {
                Ok(log) => {
                    found.failed.remove(&replica);
                    found.replicas.remove(&replica);
                    log
                }
                Err(error) => {
                    found.failed.insert(replica);
                    return Err(error);
                }
            }
        } else {
            PartitionLog::create(self.disk.clone(), replica, config, first_state(voters))?
        };
        let (seed, _) = uuid::Uuid::new_v4().as_u64_pair();
        let group = GroupConfig { seed, ..GroupConfig::default() };
        Ok(Replica::new(log, durability, group, self.queue.clone()))
    }

    fn recover(
        &self,
        replica: ReplicaId,
        config: LogConfig,
        row: ReplicaState,
    ) -> Result<PartitionLog, OpenError> {
        let (durable, lost_memory) = {
            let found = self.found.lock();
            let durable: HashMap<_, _> = found
                .durable
                .iter()
                .filter(|(file, _)| file.replica == replica)
                .map(|(file, position)| (file.segment, *position))
                .collect();
            (durable, found.lost_memory)
        };
        let durable = |segment| durable.get(&segment).copied().unwrap_or(0);
        let (mut log, report) =
            PartitionLog::recover(self.disk.clone(), replica, config, row, &durable)?;
        if report.torn_bytes > 0 || report.lost_commit.is_some() {
            tracing::warn!(%replica, ?report, "the log was cut by a crash");
        }
        if report.was_unsynced && lost_memory {
            log.set_abstaining(Some(None));
        }
        Ok(log)
    }

    /// Deletes whatever replicas were found that nobody opened: their topics are gone.
    pub fn delete_unclaimed(&self) {
        let unclaimed: Vec<_> = {
            let found = &mut *self.found.lock();
            let failed = &found.failed;
            found.replicas.extract_if(.., |replica, _| !failed.contains(replica)).collect()
        };
        for (replica, _) in unclaimed {
            tracing::info!(%replica, "deleting the replica of a topic that is gone");
            self.forget(replica);
        }
    }

    /// Whether a replica that is wanted could not be opened.
    pub fn has_failed(&self) -> bool {
        !self.found.lock().failed.is_empty()
    }

    fn forget(&self, replica: ReplicaId) {
        self.queue.push(vec![FlushItem::Forget { replica, dir: replica_dir(replica) }]);
    }
}

/// The row of a replica that begins with its group.
fn first_state(voters: &[ReplicaId]) -> ReplicaState {
    let membership = Membership { voters: voters.to_vec(), ..Membership::default() };
    ReplicaState {
        vote: VoteState { term: VIRTUAL_EPOCH.0 as u64, vote: 0, commit: VIRTUAL_INDEX },
        log_start: LogStart {
            first_index: VIRTUAL_INDEX.next(),
            epoch_before: VIRTUAL_EPOCH,
            offset: Offset::ZERO,
        },
        memberships: vec![(VIRTUAL_INDEX, membership)],
        ..ReplicaState::default()
    }
}

#[derive(Default)]
struct Registry {
    topics: HashMap<TopicName, Entry>,
    names: HashMap<TopicId, TopicName>,
    replicas: HashMap<ReplicaId, Arc<Partition>>,
}

struct Entry {
    image: Arc<TopicImage>,
    /// By partition index; `None` where no replica lives here.
    partitions: Vec<Option<Arc<Partition>>>,
}

/// The partitions of this node.
pub struct Partitions {
    node: NodeId,
    config: Arc<BrokerConfig>,
    storage: Arc<Storage>,
    registry: RwLock<Registry>,
    metrics: RaftMetrics,
    /// What configurations were computed from, to see when that changes.
    layers: Mutex<Option<Layers>>,
    /// How long silent producers are remembered.
    producer_expiration_ms: AtomicI64,
}

/// The run-time configuration that all topics inherit.
#[derive(PartialEq)]
struct Layers {
    cluster: Arc<Overrides>,
    brokers: Arc<BTreeMap<NodeId, Overrides>>,
}

impl Partitions {
    /// No partitions yet.
    pub fn new(
        node: NodeId,
        config: Arc<BrokerConfig>,
        storage: Arc<Storage>,
        metrics: RaftMetrics,
    ) -> Self {
        let (registry, layers) = (RwLock::default(), Mutex::new(None));
        let producer_expiration_ms = AtomicI64::new(config.producer_id_expiration_ms.into());
        Self { node, config, storage, registry, metrics, layers, producer_expiration_ms }
    }

    /// A partition by its topic's name.
    pub fn get(&self, topic: &str, partition: PartitionIndex) -> Option<Arc<Partition>> {
        let registry = self.registry.read();
        registry.topics.get(topic)?.get(partition)
    }

    /// A partition by its topic's id.
    pub fn get_by_id(&self, id: TopicId, partition: PartitionIndex) -> Option<Arc<Partition>> {
        let registry = self.registry.read();
        registry.topics.get(registry.names.get(&id)?)?.get(partition)
    }

    /// The disk that they live on.
    pub fn storage(&self) -> &Arc<Storage> {
        &self.storage
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Partition>> {
        self.registry.read().replicas.values().cloned().collect()
    }

    /// Waits until the replicas of a topic that live here know their leader, so that whoever
    /// created it can use it at once; not longer than `patience`.
    pub async fn settled(&self, topic: TopicId, patience: Duration) {
        let partitions: Vec<_> = {
            let registry = self.registry.read();
            let entry = registry.names.get(&topic).and_then(|name| registry.topics.get(name));
            entry
                .map_or_else(Vec::new, |entry| entry.partitions.iter().flatten().cloned().collect())
        };
        let waiter = Waiter::new();
        for partition in &partitions {
            partition.watch(&waiter);
        }
        let is_settled = |partition: &Arc<Partition>| {
            let leadership = partition.leadership();
            let is_led_elsewhere = leadership.leader.is_some() && !leadership.is_leader;
            leadership.is_offline || leadership.confirmed || is_led_elsewhere
        };
        let all = async {
            while !partitions.iter().all(is_settled) {
                waiter.notified().await;
            }
        };
        // Out of patience, the client's own retries take over.
        let _ = tokio::time::timeout(patience, all).await;
    }

    /// Those whose replicas wait for time to pass.
    pub fn ticking(&self) -> Vec<Arc<Partition>> {
        let registry = self.registry.read();
        let partitions = registry.replicas.values();
        partitions.filter(|partition| partition.needs_ticks()).cloned().collect()
    }

    /// A replica that lives here, group 0's included.
    pub fn by_replica(&self, replica: ReplicaId) -> Option<Arc<Partition>> {
        self.registry.read().replicas.get(&replica).cloned()
    }

    /// Registers a partition that is no topic's: group 0's.
    pub fn insert_group(&self, partition: Arc<Partition>) {
        self.registry.write().replicas.insert(partition.replica_id(), partition);
    }

    /// Creates and deletes local replicas so that they match the image, and applies changed
    /// configurations. A replica that cannot be opened is logged and left out: the node serves the
    /// others.
    pub fn reconcile(&self, image: &MetadataImage) {
        self.delete_absent(image);
        let layers =
            Layers { cluster: image.cluster_config.clone(), brokers: image.broker_configs.clone() };
        let inherited_changed = {
            let mut seen = self.layers.lock();
            let changed = seen.as_ref() != Some(&layers);
            let is_first = seen.replace(layers).is_none();
            if changed {
                self.reconfigure(image);
            }
            changed && !is_first
        };
        let changed: Vec<_> = {
            let registry = self.registry.read();
            let is_changed = |topic: &&Arc<TopicImage>| {
                let known = registry.topics.get(&topic.name);
                inherited_changed || known.is_none_or(|known| !Arc::ptr_eq(&known.image, topic))
            };
            image.topics().filter(is_changed).cloned().collect()
        };
        for topic in self.open_missing(image, &changed) {
            self.adopt(topic);
        }
    }

    /// Opens the replicas of changed topics that live here and are not open, on all cores: after a
    /// crash there may be thousands.
    fn open_missing(&self, image: &MetadataImage, changed: &[Arc<TopicImage>]) -> Vec<Opened> {
        let next = AtomicUsize::new(0);
        let opened = Mutex::new(Vec::with_capacity(changed.len()));
        let work = || {
            while let Some(topic) = changed.get(next.fetch_add(1, Ordering::Relaxed)) {
                let topic = self.open_topic(image, topic);
                opened.lock().push(topic);
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        if changed.len() < 2 * cores {
            work();
        } else {
            std::thread::scope(|scope| {
                for _ in 0..cores {
                    scope.spawn(work);
                }
            });
        }
        opened.into_inner()
    }

    fn open_topic(&self, image: &MetadataImage, topic: &Arc<TopicImage>) -> Opened {
        let config = Arc::new(self.effective(image, topic));
        let mut partitions = Vec::new();
        for (index, partition) in topic.partitions.iter().enumerate() {
            let local = partition.replicas.iter().find(|(_, node)| *node == self.node);
            let Some((replica, _)) = local else { continue };
            if self.by_replica(*replica).is_some() {
                continue;
            }
            let identity = Identity {
                tp: TopicPartition {
                    topic: topic.name.clone(),
                    partition: PartitionIndex(index as i32),
                },
                topic_id: topic.id,
                replica: *replica,
                nodes: partition.replicas.clone(),
            };
            match self.open(identity, &config) {
                Ok(partition) => partitions.push(partition),
                Err(error) => tracing::error!(
                    topic = %topic.name, partition = index, %replica, %error,
                    "the replica cannot be opened and stays out of service"
                ),
            }
        }
        Opened { topic: topic.clone(), config, partitions }
    }

    fn open(
        &self,
        identity: Identity,
        config: &Arc<TopicConfig>,
    ) -> Result<Arc<Partition>, OpenError> {
        let voters: Vec<_> = identity.nodes.iter().map(|(replica, _)| *replica).collect();
        let log_config = config.log_config(self.producer_expiration_ms());
        let replica = self.storage.open(identity.replica, &voters, log_config)?;
        let (room, metrics) = (self.storage.room.clone(), self.metrics.clone());
        Ok(Partition::new(identity, config.clone(), replica, room, metrics))
    }

    /// Registers opened replicas, and gives those that were there the topic's configuration.
    fn adopt(&self, opened: Opened) {
        let Opened { topic, config, partitions } = opened;
        let mut registry = self.registry.write();
        let count = topic.partitions.len();
        let entry = registry
            .topics
            .entry(topic.name.clone())
            .or_insert_with(|| Entry { image: topic.clone(), partitions: Vec::new() });
        entry.image = topic.clone();
        entry.partitions.resize(count, None);
        for partition in entry.partitions.iter().flatten() {
            partition.set_config(config.clone(), self.producer_expiration_ms());
        }
        for partition in &partitions {
            let index = partition.tp().partition.0 as usize;
            entry.partitions[index] = Some(partition.clone());
        }
        registry.names.insert(topic.id, topic.name.clone());
        for partition in &partitions {
            registry.replicas.insert(partition.replica_id(), partition.clone());
        }
        drop(registry);
        for partition in partitions {
            partition.start();
        }
    }

    fn delete_absent(&self, image: &MetadataImage) {
        let gone: Vec<_> = {
            let registry = self.registry.read();
            let is_gone = |entry: &&Entry| image.topic_by_id(entry.image.id).is_none();
            registry.topics.values().filter(is_gone).map(|entry| entry.image.clone()).collect()
        };
        for topic in gone {
            let mut registry = self.registry.write();
            let Some(entry) = registry.topics.remove(&topic.name) else { continue };
            registry.names.remove(&topic.id);
            for partition in entry.partitions.into_iter().flatten() {
                registry.replicas.remove(&partition.replica_id());
                partition.retire();
                self.storage.forget(partition.replica_id());
            }
        }
    }

    /// The configuration in force for a topic. What the broker keeps for itself is always synced,
    /// whatever is set: no commit of a group is lost that was acknowledged.
    fn effective(&self, image: &MetadataImage, topic: &TopicImage) -> TopicConfig {
        let layers = image.layers(self.node, &self.config.settings);
        let mut config = TopicConfig::effective(&topic.config, &layers);
        if is_internal_topic(&topic.name) {
            config.durability = Durability::Fsync;
        }
        config
    }

    fn producer_expiration_ms(&self) -> i64 {
        self.producer_expiration_ms.load(Ordering::Relaxed)
    }

    /// Takes over what is set for the broker at run time and no topic inherits.
    fn reconfigure(&self, image: &MetadataImage) {
        // What contradicts itself is told where the whole configuration is laid together.
        if let Ok(config) = self.config.effective(&image.layers(self.node, &self.config.settings)) {
            let expiration_ms = config.producer_id_expiration_ms.into();
            self.producer_expiration_ms.store(expiration_ms, Ordering::Relaxed);
        }
    }

    /// Retention and the expiry of silent producers, on all partitions that this node leads.
    pub fn housekeep(&self, now: Timestamp) {
        for partition in self.all() {
            partition.expire_producers(now);
            partition.save_applied();
            if let Some(offset) = partition.apply_retention(now) {
                tracing::info!(partition = %partition.tp(), %offset, "retention moves the log start");
            }
        }
    }

    /// Whether the disk was taken out of service.
    pub fn is_disk_failed(&self) -> bool {
        self.storage.queue.is_poisoned()
    }

    /// Takes all partitions out of service: their disk failed.
    pub fn on_disk_failed(&self) {
        for partition in self.all() {
            partition.on_disk_failed();
        }
    }

    /// Closes all logs, so that the next start finds them whole. Whether it will: a log that could
    /// not be closed, or was out of service, may lack what only memory held.
    pub fn close(&self) -> bool {
        let closed: Vec<_> = self.all().iter().map(|partition| partition.close()).collect();
        closed.into_iter().all(|is_whole| is_whole)
    }
}

/// A topic whose missing replicas are open.
struct Opened {
    topic: Arc<TopicImage>,
    config: Arc<TopicConfig>,
    partitions: Vec<Arc<Partition>>,
}

impl Entry {
    fn get(&self, partition: PartitionIndex) -> Option<Arc<Partition>> {
        self.partitions.get(usize::try_from(partition.0).ok()?)?.clone()
    }
}

impl std::fmt::Debug for Partitions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let registry = self.registry.read();
        f.debug_struct("Partitions")
            .field("node", &self.node)
            .field("topics", &registry.topics.len())
            .field("replicas", &registry.replicas.len())
            .finish_non_exhaustive()
    }
}
