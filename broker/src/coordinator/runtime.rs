//! Runs a coordinator's shards on the partitions of its internal topic that live on this node.
//!
//! ```text
//! image ──▶ Runtime ── one per local partition ──▶ Post (lock, keeper) ──▶ Seat ──▶ Shard
//! ```
//!
//! A key's partition is its hash, as Kafka computes it, so that outside tools find the records.
//! Posts come and go with the topic's replicas on this node; whether one answers is its partition's
//! leadership. All of the state is in the partition; here is only what it was computed to.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{PartitionIndex, Timestamp, TopicId};

use super::shard::Shard;
use super::snapshot::Snapshots;
use crate::clock::Clock;
use crate::controller::MetadataImage;
use crate::metrics::Histogram;
use crate::partitions::Partitions;

pub mod post;
pub mod replay;
pub mod seat;

pub use post::{Asked, Parked, Post};

/// The wall clock as it was when the node started, and steady since: a clock that is set must not
/// end all sessions at once.
#[derive(Clone, Copy, Debug)]
pub struct SteadyClock {
    base: Timestamp,
    since: Instant,
}

impl SteadyClock {
    /// Begins at what `clock` says.
    pub fn new(clock: &Clock) -> Self {
        Self { base: clock.now(), since: Instant::now() }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp(self.base.0.saturating_add(elapsed))
    }

    /// How long it is until `due`; a millisecond at least, since that is what it counts in.
    pub fn until(&self, due: Timestamp) -> Duration {
        let left = due.0.saturating_sub(self.now().0).max(1);
        Duration::from_millis(left.unsigned_abs())
    }
}

/// What the runtime counts.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// From the leadership of a partition to its first answer.
    pub load_duration: Histogram,
}

/// See the module.
pub struct Runtime<S: Shard> {
    topic: &'static str,
    partitions: Arc<Partitions>,
    clock: SteadyClock,
    figures: Figures,
    make: Box<dyn Fn(PartitionIndex) -> S + Send + Sync>,
    /// Where keepers run.
    tasks: Handle,
    posts: RwLock<Posts<S>>,
    keepers: Mutex<Vec<JoinHandle<()>>>,
}

/// The posts of one incarnation of the topic.
struct Posts<S: Shard> {
    topic: TopicId,
    /// By partition; none where no replica lives here.
    all: Vec<Option<Arc<Post<S>>>>,
    is_closed: bool,
}

impl<S: Shard> Runtime<S> {
    /// Runs shards that `make` makes on the partitions of `topic`. To be called on a tokio runtime,
    /// where the keepers will run. It does nothing before it is shown [an image](Self::follow).
    pub fn new(
        topic: &'static str,
        partitions: Arc<Partitions>,
        clock: SteadyClock,
        figures: Figures,
        make: impl Fn(PartitionIndex) -> S + Send + Sync + 'static,
    ) -> Self {
        Self {
            topic,
            partitions,
            clock,
            figures,
            make: Box::new(make),
            tasks: Handle::current(),
            posts: RwLock::new(Posts { topic: TopicId::ZERO, all: Vec::new(), is_closed: false }),
            keepers: Mutex::default(),
        }
    }

    /// Takes up the replicas that the image has given this node, and leaves those that it has
    /// taken. The partitions must have followed the image already.
    pub fn follow(&self, image: &MetadataImage) {
        let topic = image.topic(self.topic);
        let (id, count) = topic.map_or((TopicId::ZERO, 0), |t| (t.id, t.partitions.len()));
        let mut posts = self.posts.write();
        if posts.is_closed {
            return;
        }
        if posts.topic != id {
            posts.all.drain(..).flatten().for_each(|post| post.close());
            posts.topic = id;
        }
        posts.all.resize(count, None);
        for (index, place) in posts.all.iter_mut().enumerate() {
            let index = PartitionIndex(index as i32);
            if place.is_none() {
                *place = self.open(id, index);
            }
        }
    }

    fn open(&self, topic: TopicId, index: PartitionIndex) -> Option<Arc<Post<S>>> {
        let partition = self.partitions.get_by_id(topic, index)?;
        let storage = self.partitions.storage();
        let replica = partition.replica_id();
        let snapshots = Snapshots::new(storage.disk.clone(), storage.queue.clone(), replica);
        let shard = (self.make)(index);
        let post = Post::new(partition, shard, self.clock, self.figures.clone(), snapshots);
        let mut keepers = self.keepers.lock();
        keepers.retain(|keeper| !keeper.is_finished());
        keepers.push(self.tasks.spawn(post.clone().keep()));
        Some(post)
    }

    /// The partition that a key belongs to; none while the topic does not exist.
    pub fn partition_of(&self, key: &str) -> Option<PartitionIndex> {
        partition_for(key, self.posts.read().all.len())
    }

    /// The post that a key belongs to. Errors: `NOT_COORDINATOR` where it is not on this node.
    pub fn post_of(&self, key: &str) -> Result<Arc<Post<S>>, ErrorCode> {
        let posts = self.posts.read();
        let index = partition_for(key, posts.all.len()).ok_or(ErrorCode::NotCoordinator)?;
        posts.all[index.0 as usize].clone().ok_or(ErrorCode::NotCoordinator)
    }

    /// All posts on this node.
    pub fn posts(&self) -> Vec<Arc<Post<S>>> {
        self.posts.read().all.iter().flatten().cloned().collect()
    }

    /// Writes the snapshots that are due. Reads and writes files: for threads that may block.
    pub fn housekeep(&self) {
        for post in self.posts() {
            post.housekeep();
        }
    }

    /// Ends all keepers; requests that wait are answered, no more are taken.
    pub async fn shutdown(&self) {
        {
            let mut posts = self.posts.write();
            posts.is_closed = true;
            posts.all.iter().flatten().for_each(|post| post.close());
        }
        let keepers = std::mem::take(&mut *self.keepers.lock());
        for keeper in keepers {
            if let Err(failure) = keeper.await {
                tracing::error!(%failure, "the keeper of a coordinator failed");
            }
        }
    }
}

impl<S: Shard> Drop for Runtime<S> {
    /// A start that fails half-way leaves no keeper behind.
    fn drop(&mut self) {
        for keeper in self.keepers.get_mut() {
            keeper.abort();
        }
    }
}

impl<S: Shard> std::fmt::Debug for Runtime<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// Where Kafka keeps a key: Java's hash of the text, without its sign, modulo the partitions
/// (`GroupCoordinatorService.partitionFor`).
pub fn partition_for(key: &str, partitions: usize) -> Option<PartitionIndex> {
    let hash = key
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // `Utils.abs`: the one number without an opposite becomes 0.
    let hash = hash.checked_abs().unwrap_or(0);
    let partitions = i32::try_from(partitions).ok().filter(|&count| count > 0)?;
    Some(PartitionIndex(hash % partitions))
}

#[cfg(test)]
mod tests;
