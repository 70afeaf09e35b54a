//! The controller at work: decides, appends to group 0, waits for the commit, applies, answers.
//!
//! Changes go one after the other under an async mutex (this is the control plane: clear before
//! fast). Each is decided on an image that holds everything appended before it, so a decision never
//! has to be taken back. Reading the log and opening the partitions of new topics happen on the
//! blocking pool: ten thousand of them must not hold up a worker.
//!
//! **Invariant:** an image is published only after its records are committed, and a request is
//! answered only after the local partitions have followed the image.
//!
//! A caller that goes away in the middle loses nothing: what it appended is applied by the next
//! one.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use vltava_protocol::ErrorCode;
use vltava_protocol::ids::{Offset, Timestamp, TopicId, TopicName};
use vltava_protocol::record::batch::{BATCH_HEADER_BYTES, BatchError, BatchHeader, split_batches};
use vltava_protocol::record::builder::{BatchBuilder, BatchFields};
use vltava_protocol::record::compression::Codec;
use vltava_protocol::record::record::{RecordError as WalkError, Records};
use vltava_protocol::record::validate::Validated;
use vltava_storage::log::ReadError;

use super::configs::{self, ConfigChange};
use super::decide::{self, CreatedTopic, Decision, MorePartitions, NewTopic, TopicRef};
pub use super::error::ControlError;
use super::records::{MetadataRecord, RecordError};
use super::state::{BrokerInfo, Contradiction, MetadataImage};
use crate::clock::Clock;
use crate::config::BrokerConfig;
use crate::partition::{AckFuture, Acks, Partition, Waiter};
use crate::partitions::Partitions;

/// How long a creation waits for its partitions' leaders before it answers all the same.
const LEADER_WAIT: Duration = Duration::from_secs(5);
/// How much of the log is read at a time while it is applied.
const CATCH_UP_BYTES: usize = 1 << 20;

/// Why a node cannot follow the metadata log. It must stop: its image is not the cluster's.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The log cannot be read.
    #[error("metadata log: {0}")]
    Read(#[from] ReadError),
    /// The bytes of the log are unreachable.
    #[error("metadata log: {0}")]
    Io(#[from] std::io::Error),
    /// A batch in it is not one.
    #[error("metadata log after offset {after}: {error}")]
    Batch {
        /// The offset after the last good record.
        after: Offset,
        /// What is wrong.
        error: BatchError,
    },
    /// A record in it is not one.
    #[error("metadata log at offset {offset}: {error}")]
    Walk {
        /// Where.
        offset: Offset,
        /// What is wrong.
        error: WalkError,
    },
    /// A record in it cannot be understood by this build.
    #[error("metadata log at offset {offset}: {error}")]
    Record {
        /// Where.
        offset: Offset,
        /// What is wrong.
        error: RecordError,
    },
    /// A record contradicts those before it.
    #[error("metadata log at offset {offset}: {error}")]
    Contradiction {
        /// Where.
        offset: Offset,
        /// What is wrong.
        error: Contradiction,
    },
}

/// Somebody who heeds what is set for the broker at run time. Must not block, nor call back.
pub type ConfigFollower = Box<dyn Fn(&BrokerConfig) + Send + Sync>;

/// See the module.
pub struct Controller {
    group_zero: Arc<Partition>,
    partitions: Arc<Partitions>,
    clock: Arc<Clock>,
    config: Arc<BrokerConfig>,
    image: RwLock<Arc<MetadataImage>>,
    /// What was set at run time laid over `config`.
    effective: RwLock<Arc<BrokerConfig>>,
    observers: Observers,
    followers: Mutex<Vec<ConfigFollower>>,
    /// Held while records are applied and the partitions follow; never over an await.
    applying: Mutex<()>,
    /// Held by the one change that is under way, over its awaits.
    changing: tokio::sync::Mutex<()>,
}

type Observer = Box<dyn Fn(&MetadataImage, &MetadataImage) + Send + Sync>;

/// Who follows the image beside the partitions.
#[derive(Default)]
struct Observers(RwLock<Vec<Observer>>);

impl std::fmt::Debug for Observers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} observers", self.0.read().len())
    }
}

impl Controller {
    /// A controller that has applied nothing yet.
    pub fn new(
        group_zero: Arc<Partition>,
        partitions: Arc<Partitions>,
        clock: Arc<Clock>,
        config: Arc<BrokerConfig>,
    ) -> Self {
        Self {
            group_zero,
            partitions,
            clock,
            effective: RwLock::new(config.clone()),
            followers: Mutex::default(),
            config,
            image: RwLock::default(),
            observers: Observers::default(),
            applying: Mutex::new(()),
            changing: tokio::sync::Mutex::new(()),
        }
    }

    /// The newest image.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.image.read().clone()
    }

    /// The broker's configuration with what was set at run time; as of the newest image.
    pub fn broker_config(&self) -> Arc<BrokerConfig> {
        self.effective.read().clone()
    }

    /// Tells `follower` the broker's configuration, now and whenever it changes at run time.
    pub fn follow_broker_config(&self, follower: ConfigFollower) {
        // Held over the first call, so that a change in between is not told before it.
        let mut followers = self.followers.lock();
        follower(&self.broker_config());
        followers.push(follower);
    }

    /// The log of group 0.
    pub fn group_zero(&self) -> &Arc<Partition> {
        &self.group_zero
    }

    /// Applies what is committed and not yet applied, publishes the image and lets the partitions
    /// follow it. Reads files and opens partitions: not for an async worker.
    pub fn catch_up(&self) -> Result<(), ApplyError> {
        let _applying = self.applying.lock();
        let published = self.image();
        let mut image = MetadataImage::clone(&published);
        let view = self.group_zero.view();
        while image.applied < view.high_watermark {
            let before = image.applied;
            let slices = view.read(before, view.high_watermark, CATCH_UP_BYTES, true)?;
            for slice in slices {
                apply_batches(&mut image, &slice.bytes()?)?;
            }
            assert!(image.applied > before, "a read below the high watermark yields a batch");
        }
        if image.applied > published.applied {
            let image = Arc::new(image);
            if !Arc::ptr_eq(&image.cluster_config, &published.cluster_config)
                || !Arc::ptr_eq(&image.broker_configs, &published.broker_configs)
            {
                self.reconfigure(&image);
            }
            *self.image.write() = image.clone();
            self.partitions.reconcile(&image);
            for observer in &*self.observers.0.read() {
                observer(&published, &image);
            }
        }
        Ok(())
    }

    /// Lays what is set at run time over what was set at the start.
    fn reconfigure(&self, image: &MetadataImage) {
        let layers = image.layers(self.config.flags.node_id, &self.config.settings);
        match self.config.effective(&layers) {
            Ok(config) => {
                let followers = self.followers.lock();
                *self.effective.write() = Arc::new(config);
                let config = self.broker_config();
                followers.iter().for_each(|follower| follower(&config));
            }
            // Each part was right when it was set; together with another file they need not be.
            Err(error) => {
                tracing::error!(%error, "the configuration set at run time is not heeded");
            }
        }
    }

    /// Calls `observer` with the image before and the new one whenever one is published, once the
    /// partitions have followed it and before whoever asked for the change is answered. At once,
    /// too, with an empty image before, so that nothing is missed. It must not wait.
    pub fn observe(
        &self,
        observer: impl Fn(&MetadataImage, &MetadataImage) + Send + Sync + 'static,
    ) {
        let _applying = self.applying.lock();
        observer(&MetadataImage::default(), &self.image());
        self.observers.0.write().push(Box::new(observer));
    }

    /// Creates topics, each for itself. With `validate_only` nothing is created, but everything
    /// else is as if.
    pub async fn create_topics(
        self: &Arc<Self>,
        topics: Vec<NewTopic>,
        validate_only: bool,
    ) -> Vec<Result<CreatedTopic, ControlError>> {
        let decide = |image: &MetadataImage| {
            decide::create_topics(image, &topics, &self.config, &mut random_id)
        };
        if validate_only {
            return answers_only(decide(&self.image()));
        }
        let results = match self.change(decide).await {
            Ok(results) => results,
            Err(error) => return topics.iter().map(|_| Err(error.clone())).collect(),
        };
        for created in results.iter().flatten() {
            self.partitions.settled(created.id, LEADER_WAIT).await;
        }
        results
    }

    /// Creates topics that somebody asked for and needs. One that another request has just created
    /// is no error.
    pub async fn auto_create(self: &Arc<Self>, names: &[String]) -> Vec<Result<(), ControlError>> {
        let image = self.image();
        let topics = names.iter().map(|name| decide::automatic(&image, name, &self.config));
        let results = self.create_topics(topics.collect(), false).await;
        let exists = |result| match result {
            Ok(_) | Err(ControlError::Exists(_)) => Ok(()),
            Err(error) => Err(error),
        };
        results.into_iter().map(exists).collect()
    }

    /// Adds partitions to topics, each for itself.
    pub async fn create_partitions(
        self: &Arc<Self>,
        topics: Vec<MorePartitions>,
        validate_only: bool,
    ) -> Vec<Result<(), ControlError>> {
        let decide = |image: &MetadataImage| decide::create_partitions(image, &topics);
        if validate_only {
            return forget_ids(answers_only(decide(&self.image())));
        }
        let results = match self.change(decide).await {
            Ok(results) => results,
            Err(error) => return topics.iter().map(|_| Err(error.clone())).collect(),
        };
        for grown in results.iter().flatten() {
            self.partitions.settled(*grown, LEADER_WAIT).await;
        }
        forget_ids(results)
    }

    /// Changes what is set for topics, brokers and other resources, each for itself.
    pub async fn alter_configs(
        self: &Arc<Self>,
        changes: Vec<ConfigChange>,
        validate_only: bool,
    ) -> Vec<Result<(), ControlError>> {
        let decide = |image: &MetadataImage| {
            changes.iter().map(|change| configs::alter(image, change, &self.config)).collect()
        };
        if validate_only {
            return answers_only(decide(&self.image()));
        }
        match self.change(decide).await {
            Ok(results) => results,
            Err(error) => changes.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// Deletes topics, each for itself.
    pub async fn delete_topics(
        self: &Arc<Self>,
        topics: Vec<TopicRef>,
    ) -> Vec<Result<(TopicName, TopicId), ControlError>> {
        let decide = |image: &MetadataImage| decide::delete_topics(image, &topics, &self.config);
        match self.change(decide).await {
            Ok(results) => results,
            Err(error) => topics.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// Takes a block of producer ids that nobody else gets.
    pub async fn allocate_producer_ids(self: &Arc<Self>) -> Result<Range<i64>, ControlError> {
        let results = self.change(|image| vec![decide::allocate_producer_ids(image)]).await?;
        results.into_iter().next().expect("one decision has one result")
    }

    /// Introduces this node to the cluster, whose id becomes `cluster_id` if it has none yet.
    /// Returns the cluster's id.
    pub async fn register(
        self: &Arc<Self>,
        cluster_id: &str,
        advertised: &(String, u16),
    ) -> Result<String, ControlError> {
        let (host, port) = advertised.clone();
        let info = BrokerInfo { host, port, rack: self.config.broker_rack.clone() };
        let node = self.config.flags.node_id;
        let decide = |image: &MetadataImage| {
            let records = decide::register(image, cluster_id, node, &info);
            records.into_iter().map(|record| Ok((Some(record), ()))).collect()
        };
        self.change(decide).await?.into_iter().collect::<Result<(), _>>()?;
        Ok(self.image().cluster_id.clone())
    }

    /// Makes one change: decides on the newest image, appends the records, waits for their commit
    /// and for the node to follow.
    async fn change<T>(
        self: &Arc<Self>,
        decide: impl FnOnce(&MetadataImage) -> Vec<Decision<T>>,
    ) -> Result<Vec<Result<T, ControlError>>, ControlError> {
        let _changing = self.changing.lock().await;
        self.settle().await?;
        let mut pending = Vec::new();
        for decision in decide(&self.image()) {
            pending.push(match decision {
                Ok((Some(record), answer)) => {
                    self.append(&record).await.map(|ack| (Some(ack), answer))
                }
                Ok((None, answer)) => Ok((None, answer)),
                Err(refused) => Err(refused),
            });
        }
        let mut results = Vec::with_capacity(pending.len());
        for pending in pending {
            results.push(match pending {
                Ok((Some(ack), answer)) => ack.await.map(|()| answer).map_err(refusal),
                Ok((None, answer)) => Ok(answer),
                Err(error) => Err(error),
            });
        }
        self.follow().await?;
        Ok(results)
    }

    /// Waits until everything that was ever appended is committed and applied.
    async fn settle(self: &Arc<Self>) -> Result<(), ControlError> {
        let waiter = Waiter::new();
        self.group_zero.watch(&waiter);
        loop {
            let leadership = self.group_zero.leadership();
            if !leadership.is_leader {
                return Err(ControlError::Log(ErrorCode::NotController));
            }
            let view = self.group_zero.view();
            if self.image().applied < view.high_watermark {
                self.follow().await?;
            }
            // A new leader does not know yet what of its log is committed.
            if leadership.confirmed && view.high_watermark == view.log_end_offset {
                return Ok(());
            }
            waiter.notified().await;
        }
    }

    /// Applies what is committed, off the workers.
    async fn follow(self: &Arc<Self>) -> Result<(), ControlError> {
        let controller = self.clone();
        let applied = tokio::task::spawn_blocking(move || controller.catch_up()).await;
        let failure = match applied {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic.to_string(),
        };
        tracing::error!(error = failure, "cannot follow the metadata log");
        Err(ControlError::Follow(failure))
    }

    /// Appends one record as a batch of its own. In the log, in order, when this returns.
    async fn append(&self, record: &MetadataRecord) -> Result<AckFuture, ControlError> {
        let now = self.clock.now();
        let batch = batch_of(record, now);
        self.group_zero.room(batch.batch.len()).await;
        let appended = self.group_zero.append(&batch, Acks::All, now);
        appended.map(|appended| appended.ack).map_err(|refused| refusal(refused.code()))
    }
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("group_zero", &self.group_zero).finish_non_exhaustive()
    }
}

/// What would be answered, without anything being changed.
fn answers_only<T>(decisions: Vec<Decision<T>>) -> Vec<Result<T, ControlError>> {
    decisions.into_iter().map(|decision| decision.map(|(_, answer)| answer)).collect()
}

fn forget_ids(results: Vec<Result<TopicId, ControlError>>) -> Vec<Result<(), ControlError>> {
    results.into_iter().map(|result| result.map(|_| ())).collect()
}

/// An error of group 0's log, as the controller's clients know it.
fn refusal(code: ErrorCode) -> ControlError {
    ControlError::Log(match code {
        ErrorCode::NotLeaderOrFollower => ErrorCode::NotController,
        other => other,
    })
}

/// A random topic id. None starts with `-`, so that it can stand on a command line
/// (`Uuid.randomUuid`).
fn random_id() -> TopicId {
    loop {
        let id = TopicId(uuid::Uuid::new_v4());
        if !id.to_string().starts_with('-') {
            return id;
        }
    }
}

/// A batch of one record, as the log takes it.
fn batch_of(record: &MetadataRecord, now: Timestamp) -> Validated {
    let mut builder = BatchBuilder::new(Codec::None, None);
    builder.append(now, None, Some(&record.encode()), &[]);
    let batch = builder.build(&BatchFields::default()).expect("nothing is compressed");
    Validated {
        header: BatchHeader::parse(&batch).expect("it was just built"),
        batch,
        log_append_time: Timestamp::NONE,
        offset_of_max_timestamp: Offset::NONE,
    }
}

/// Applies the records of whole batches. Those that were applied before are passed over: a read
/// begins with the batch that holds its offset.
fn apply_batches(image: &mut MetadataImage, bytes: &bytes::Bytes) -> Result<(), ApplyError> {
    for batch in split_batches(bytes) {
        let (header, batch) =
            batch.map_err(|error| ApplyError::Batch { after: image.applied, error })?;
        for record in Records::new(&batch[BATCH_HEADER_BYTES..], header.record_count) {
            let offset = image.applied;
            let record = record.map_err(|error| ApplyError::Walk { offset, error })?;
            let offset = header.base_offset + i64::from(record.offset_delta);
            if offset < image.applied {
                continue;
            }
            let record = MetadataRecord::decode(record.value.unwrap_or_default())
                .map_err(|error| ApplyError::Record { offset, error })?;
            image
                .apply(offset, record)
                .map_err(|error| ApplyError::Contradiction { offset, error })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
