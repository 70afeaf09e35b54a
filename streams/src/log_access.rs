//! The port: what the stream runtime needs of a log, and all it may know of one.
//!
//! No call waits. What takes time hands out a [`Ticket`] or calls a [`Waker`] later, so tasks run on
//! plain threads and a simulator can drive them. A broker implements this for its own partitions:
//! reads are slices of the mapped segments, appends go to the local leaders. It also says when topics
//! have changed ([`PipelineWatch::refresh`](crate::PipelineWatch::refresh)).

use std::sync::Arc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use vltava_protocol::ErrorCode;
use vltava_protocol::ids::{LeaderEpoch, Offset, Timestamp, TopicId, TopicName, TopicPartition};

/// The logs of one node.
pub trait LogAccess: Send + Sync {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// How many partitions a topic has; `None` while it does not exist.
    fn partitions(&self, topic: &TopicName) -> Option<i32>;

    /// The identity of a topic, which one of the same name that is created later does not have;
    /// `None` while it does not exist.
    fn topic_id(&self, topic: &TopicName) -> Option<TopicId>;

    /// Creates a topic as a producer's first record would; no error where it exists.
    fn create_topic(&self, topic: &TopicName) -> Box<dyn Ticket>;

    /// The local replica of a partition, if there is one.
    fn open(&self, tp: &TopicPartition) -> Option<Arc<dyn PartitionAccess>>;

    /// The positions that an application has committed, in the order of `partitions`; `None` where
    /// it has committed none.
    fn committed(
        &self,
        application: &str,
        partitions: &[TopicPartition],
    ) -> Box<dyn Ticket<Vec<Option<Offset>>>>;

    /// Commits positions of an application: the offset of the next record that it wants of each.
    fn commit(&self, application: &str, positions: &[(TopicPartition, Offset)]) -> Box<dyn Ticket>;
}

/// A local replica of one partition.
pub trait PartitionAccess: Send + Sync {
    /// The identity of the topic that it is a partition of.
    fn topic_id(&self) -> TopicId;

    /// What can be read, and who leads.
    fn view(&self) -> View;

    /// Whole batches from the one that holds `from` up to the high watermark: about `bytes_max`,
    /// the first in any case. Nothing where nothing is there yet. May wait for the disk: not for a
    /// thread that serves clients.
    fn read(&self, from: Offset, bytes_max: usize) -> Result<Vec<Bytes>, ErrorCode>;

    /// The time of the record at `offset`, or of one shortly before it; for people, not for tasks.
    fn timestamp_at(&self, offset: Offset) -> Option<Timestamp>;

    /// Appends a batch to the leader, which must be here. When this returns the batch is in the
    /// log, in order; the ticket tells when it is committed.
    fn append(&self, batch: &Bytes) -> Result<Box<dyn Ticket>, AppendError>;

    /// Calls `waker` at each move of the high watermark, the log start or the leadership, until all
    /// clones of what is returned are gone.
    fn watch(&self, waker: Waker) -> Watch;
}

/// Keeps a watch alive.
pub type Watch = Box<dyn Send + Sync>;

/// What a local replica knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    /// The first offset that can be read.
    pub log_start_offset: Offset,
    /// The offset after the last record that can be read.
    pub high_watermark: Offset,
    /// The epoch of its leader.
    pub leader_epoch: LeaderEpoch,
    /// What the replica is.
    pub role: Role,
}

/// What a replica is to its partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It leads, and may answer for the high watermark.
    Leader,
    /// It follows, or does not know yet.
    Follower,
    /// It is out of service.
    Offline,
}

/// Why a batch was not appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppendError {
    /// The disk is behind, or the leader elsewhere: the same batch may be tried again later.
    #[error("not now")]
    Later,
    /// The log refuses the batch.
    #[error("{0:?}")]
    Refused(ErrorCode),
}

/// Something that will be known later.
pub trait Ticket<T = ()>: Send {
    /// What it is, once it is known; else `waker` is called when it is.
    fn poll(&mut self, waker: &Waker) -> Poll<Result<T, ErrorCode>>;
}
