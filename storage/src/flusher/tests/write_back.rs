//! What a page-cache log leaves in memory is handed on once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Disk;
use crate::disk::sim::{Fault, FaultPlan, SimDisk};
use crate::flush::{FlushItem, SegmentFile};
use crate::flusher::{FlushError, FlushQueue, Flusher};
use crate::ids::{FileId, ReplicaId};
use crate::state::ReplicaState;
use crate::wal::{WalConfig, recover};

#[test]
fn a_part_is_handed_on_once_however_often_its_round_fails() {
    let sim = SimDisk::new(1);
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let queue = Arc::new(FlushQueue::default());
    let recovered = recover(disk.clone(), WalConfig::default()).unwrap();
    let mut flusher = Flusher::new(recovered, disk.clone(), queue.clone());
    let file = disk.create(Path::new("segment"), 100).unwrap();
    let file = Arc::new(SegmentFile { id: FileId::default(), path: PathBuf::new(), file });
    let (replica, state) = (ReplicaId(1), ReplicaState::default());
    let part = FlushItem::WriteBack { file, range: 10..90 };
    queue.push([part, FlushItem::State { replica, state }]);
    assert_eq!((queue.unwritten_bytes(), queue.queued_bytes()), (80, 0));
    sim.fail(FaultPlan::from(sim.op_count(), Fault::Full));
    for _ in 0..3 {
        assert!(matches!(flusher.round(), Err(FlushError::Write(_))));
    }
    sim.heal();
    flusher.round().unwrap();
    let parts = flusher.take_write_back();
    assert!(matches!(&parts[..], [(_, range)] if *range == (10..90)));
    queue.written_back(80);
    assert_eq!(queue.unwritten_bytes(), 0);
}
