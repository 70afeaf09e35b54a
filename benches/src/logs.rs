//! Logs on a real disk, as a group's only voter has them.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;
use vltava_protocol::ids::{LeaderEpoch, Offset};
use vltava_protocol::record::batch::BatchHeader;
use vltava_storage::disk::Disk;
use vltava_storage::disk::mapped::MappedDisk;
use vltava_storage::flusher::{FlushQueue, Flusher};
use vltava_storage::ids::{LogIndex, ReplicaId};
use vltava_storage::log::{Durability, LogConfig, PartitionLog};
use vltava_storage::state::{LogStart, Membership, ReplicaState, VoteState};
use vltava_storage::wal::{self, WalConfig};

use crate::fixtures::{Batch, NOW};

/// The replica of every log here.
pub const REPLICA: ReplicaId = ReplicaId(7);
/// The epoch of every append here that goes past raft.
pub const EPOCH: LeaderEpoch = LeaderEpoch(2);

/// An empty disk with its write-ahead set and flusher, in a directory of its own.
#[derive(Debug)]
pub struct Workbench {
    /// Where logs are created.
    pub disk: Arc<dyn Disk>,
    /// Where what they wrote goes.
    pub queue: Arc<FlushQueue>,
    /// Makes it durable when asked.
    pub flusher: Flusher,
    /// Last, so that it is removed after everything in it was closed.
    _dir: TempDir,
}

impl Workbench {
    /// A disk under `scratch`, which must lie on a real one for the syncs to mean anything.
    ///
    /// # Panics
    /// When the directory cannot be used.
    pub fn new(scratch: &str) -> Self {
        let dir = TempDir::new_in(Path::new(scratch)).expect("a scratch directory");
        let disk: Arc<dyn Disk> = MappedDisk::open(dir.path()).expect("a scratch directory");
        let recovered =
            wal::recover(disk.clone(), WalConfig::default()).expect("an empty directory");
        let queue = Arc::new(FlushQueue::default());
        let flusher = Flusher::new(recovered, disk.clone(), queue.clone());
        Self { disk, queue, flusher, _dir: dir }
    }

    /// An empty log of a group with one voter, durably created.
    ///
    /// # Panics
    /// When the disk fails.
    pub fn log(&mut self, durability: Durability) -> PartitionLog {
        let config = LogConfig { durability, ..LogConfig::default() };
        let mut log = PartitionLog::create(self.disk.clone(), REPLICA, config, lone_voter())
            .expect("an empty directory");
        self.queue.push(log.take_flush_items());
        self.flusher.round().expect("the disk works");
        log
    }
}

/// The row of a group's only voter.
pub fn lone_voter() -> ReplicaState {
    let membership = Membership { voters: vec![REPLICA], ..Membership::default() };
    ReplicaState {
        vote: VoteState { term: 1, vote: 0, commit: LogIndex(1) },
        log_start: LogStart {
            first_index: LogIndex(2),
            epoch_before: LeaderEpoch(1),
            offset: Offset::ZERO,
        },
        memberships: vec![(LogIndex(1), membership)],
        ..ReplicaState::default()
    }
}

/// What a leader does to its log for one batch, raft's part left out.
///
/// # Panics
/// When the disk fails.
pub fn append(log: &mut PartitionLog, batch: &Bytes, header: &BatchHeader) -> LogIndex {
    log.write_ahead(EPOCH, batch, header, NOW).expect("the disk works");
    let index = log.last_index().next();
    log.publish(index, EPOCH);
    index
}

/// Appends and commits `batch` until the log has `bytes` of it.
///
/// # Panics
/// When the disk fails.
pub fn fill(log: &mut PartitionLog, batch: &Batch, bytes: u64) {
    let header = BatchHeader::parse(&batch.bytes).expect("a batch");
    for _ in 0..(bytes / batch.bytes.len() as u64).max(1) {
        let index = append(log, &batch.bytes, &header);
        log.commit_to(index);
    }
    // Nobody flushes it: it is there to be read.
    drop(log.take_flush_items());
}
