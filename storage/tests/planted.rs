//! The bugs that can be planted in the write-ahead set are real: with each, a promise is broken.
//!
//! One test, because a planted bug is in force in the whole process.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use vltava_protocol::ids::{LeaderEpoch, Offset};
use vltava_storage::bugs::{Bug, plant};
use vltava_storage::disk::Disk;
use vltava_storage::disk::sim::SimDisk;
use vltava_storage::flush::{FlushItem, SegmentFile};
use vltava_storage::flusher::{FlushQueue, Flusher};
use vltava_storage::ids::{FileId, Generation, LogIndex, ReplicaId, SegmentId};
use vltava_storage::paths::{replica_dir, segment_path};
use vltava_storage::segment::SegmentHeader;
use vltava_storage::state::{ReplicaState, VoteState};
use vltava_storage::wal::{WalConfig, recover};

const REPLICA: ReplicaId = ReplicaId(1);

fn config() -> WalConfig {
    WalConfig { first_file_bytes: 4096, file_bytes: 4096, ..WalConfig::default() }
}

fn start(disk: &SimDisk) -> (Flusher, Arc<FlushQueue>) {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let recovered = recover(disk.clone(), config()).expect("a healthy disk");
    let queue = Arc::new(FlushQueue::default());
    (Flusher::new(recovered, disk, queue.clone()), queue)
}

fn state(term: u64) -> FlushItem {
    let vote = VoteState { term, ..VoteState::default() };
    let state = ReplicaState { vote, ..ReplicaState::default() };
    FlushItem::State { replica: REPLICA, state }
}

/// Whether a segment whose creation was promised outlives a power cut.
fn creation_survives(seed: u64) -> bool {
    let disk = SimDisk::new(seed);
    let (mut flusher, queue) = start(&disk);
    let id = FileId { replica: REPLICA, segment: SegmentId(1) };
    let header = SegmentHeader {
        id,
        generation: Generation(1),
        base_index: LogIndex(2),
        base_offset: Offset(0),
        epoch_before: LeaderEpoch(1),
    };
    let path = segment_path(id);
    disk.create_dir(&replica_dir(REPLICA)).expect("a healthy disk");
    let file = disk.create(&path, 1 << 20).expect("a healthy disk");
    let batch = Bytes::from_static(b"a batch");
    file.write_at(0, &[IoSlice::new(&header.encode()), IoSlice::new(&batch)]).expect("room");
    let file = Arc::new(SegmentFile { id, path: path.clone(), file });
    let write = FlushItem::Write { file: file.clone(), position: 64, bytes: batch };
    queue.push([state(1), FlushItem::Create { file, header }, write]);
    flusher.round().expect("a healthy disk");
    let disk = disk.power_cut(seed);
    recover(Arc::new(disk.clone()), config()).expect("a healthy disk");
    disk.tree().get(Path::new(&path)).is_some_and(|content| content.ends_with(b"a batch"))
}

/// Whether a replica remembers its last term, out of a set that was recycled many times.
fn last_term_survives(seed: u64) -> bool {
    let disk = SimDisk::new(seed);
    let (mut flusher, queue) = start(&disk);
    let terms = 20 + seed;
    for term in 1..=terms {
        queue.push([state(term)]);
        flusher.round().expect("a healthy disk");
    }
    let disk = disk.power_cut(seed);
    let recovered = recover(Arc::new(disk), config());
    recovered.is_ok_and(|recovered| recovered.replicas[&REPLICA].vote.term == terms)
}

#[test]
fn every_planted_bug_breaks_a_promise() {
    for (bug, survives) in [
        (Bug::CreationMissingFromWal, creation_survives as fn(u64) -> bool),
        (Bug::StaleRoundResurrected, last_term_survives),
    ] {
        plant(None);
        assert!((0..30).all(survives), "without {bug:?}");
        plant(Some(bug));
        assert!(!(0..30).all(survives), "with {bug:?}");
    }
}
