//! What a topic's configuration means to a log, and what can go wrong with one.

use std::io;

use vltava_protocol::ids::{LeaderEpoch, Offset};
use vltava_protocol::record::batch::BatchError;
use vltava_protocol::record::control::ControlError;

use crate::ids::{LogIndex, SegmentId};

/// What "durable" means for the data of a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// Every batch is synced before it counts.
    #[default]
    Fsync,
    /// Data batches count once they are written, as with Kafka's defaults: their writes are not
    /// handed to the flusher. Internal batches, rows and creations are synced all the same.
    PageCache,
}

/// Settings of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// `segment.bytes`: a segment is left before it would grow longer. Default 1 GiB.
    pub segment_bytes: u64,
    /// `segment.ms`: a segment is left when it spans more time than this, by the timestamps of
    /// its records. Default 7 days.
    pub segment_ms: i64,
    /// `index.interval.bytes`: a batch at least every so many bytes is in the sparse index.
    pub index_interval_bytes: u32,
    /// When data is durable.
    pub durability: Durability,
    /// `producer.id.expiration.ms`: how long an idle producer is remembered. Default 1 day.
    pub producer_expiration_ms: i64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 60 * 60 * 1000,
            index_interval_bytes: 4096,
            durability: Durability::Fsync,
            producer_expiration_ms: 24 * 60 * 60 * 1000,
        }
    }
}

/// Why a log could not be created or closed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk failed or is full.
    #[error("disk: {0}")]
    Io(#[from] io::Error),
}

/// Why a batch was not written. The log is as it was before, but where stated.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The disk failed or is full. If the write of a batch failed, its position is burnt: see
    /// [`is_burnt`](super::PartitionLog::is_burnt).
    #[error("disk: {0}")]
    Io(#[from] io::Error),
    /// An earlier write of this epoch failed and is not yet durably invalid.
    #[error("a failed write in epoch {0} is not yet durably invalid")]
    Burnt(LeaderEpoch),
    /// The bytes are not exactly one batch.
    #[error("not a batch: {0}")]
    Batch(#[from] BatchError),
    /// The batch is not the one that belongs at the end of the log.
    #[error(
        "batch {index} has offset {got_offset} and epoch {got_epoch}, the log ends at offset \
         {end_offset} in epoch {epoch}"
    )]
    Mismatch {
        /// Where it was to go.
        index: LogIndex,
        /// Its base offset.
        got_offset: Offset,
        /// Its leader epoch.
        got_epoch: LeaderEpoch,
        /// Where the log ends.
        end_offset: Offset,
        /// The epoch of the log's last batch.
        epoch: LeaderEpoch,
    },
    /// An internal batch of a kind that this program does not know, or none at all.
    #[error("batch {index} is no internal batch: {reason}")]
    Internal {
        /// Where it was to go.
        index: LogIndex,
        /// What is wrong with it.
        reason: ControlError,
    },
}

/// Why batches could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk failed, or the segment was deleted meanwhile (`NotFound`).
    #[error("disk: {0}")]
    Io(#[from] io::Error),
    /// The log does not have that offset.
    #[error("offset {offset} is outside of the log, [{start}, {end}]")]
    OffsetOutOfRange {
        /// What was asked for.
        offset: Offset,
        /// The log start offset.
        start: Offset,
        /// The log end offset.
        end: Offset,
    },
    /// The log does not have that index.
    #[error("index {index} is outside of the log, [{first}, {last}]")]
    IndexOutOfRange {
        /// What was asked for.
        index: LogIndex,
        /// The first index.
        first: LogIndex,
        /// The last index.
        last: LogIndex,
    },
    /// What lies on disk is not what was written.
    #[error("segment {segment} is damaged at position {position}: {reason}")]
    Damaged {
        /// The segment.
        segment: SegmentId,
        /// Bytes from its start.
        position: u64,
        /// What was found.
        reason: String,
    },
}
