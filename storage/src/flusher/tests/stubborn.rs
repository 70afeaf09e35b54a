//! A disk on which one file cannot be removed.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vltava_protocol::ids::{LeaderEpoch, Offset};

use crate::disk::sim::SimDisk;
use crate::disk::{Disk, DiskFile};
use crate::flush::{FlushItem, SegmentFile};
use crate::flusher::{FlushQueue, Flusher};
use crate::ids::{FileId, Generation, LogIndex, ReplicaId, SegmentId};
use crate::paths::{WAL_DIR, replica_dir, segment_path};
use crate::segment::SegmentHeader;
use crate::state::{ReplicaState, VoteState};
use crate::wal::{WalConfig, recover};

const REPLICA: ReplicaId = ReplicaId(1);

#[derive(Debug)]
struct Stubborn {
    disk: SimDisk,
    stays: PathBuf,
}

impl Disk for Stubborn {
    fn create(&self, path: &Path, capacity: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(path, capacity)
    }

    fn open(&self, path: &Path, capacity: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(path, capacity)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if path == self.stays {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.disk.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
}

fn config() -> WalConfig {
    let (first_file_bytes, file_bytes, files_max) = (4096, 4096, 3);
    WalConfig { first_file_bytes, file_bytes, files_max, ..WalConfig::default() }
}

/// The item of a segment that was just created.
fn created(disk: &dyn Disk, segment: u64) -> FlushItem {
    let id = FileId { replica: REPLICA, segment: SegmentId(segment) };
    let (path, header) = (segment_path(id), header(id));
    disk.create_dir(&replica_dir(REPLICA)).unwrap();
    let file = disk.create(&path, 1 << 20).unwrap();
    file.write_at(0, &[IoSlice::new(&header.encode())]).unwrap();
    FlushItem::Create { file: Arc::new(SegmentFile { id, path, file }), header }
}

fn header(id: FileId) -> SegmentHeader {
    SegmentHeader {
        id,
        generation: Generation(0),
        base_index: LogIndex(id.segment.0),
        base_offset: Offset(0),
        epoch_before: LeaderEpoch(1),
    }
}

#[test]
fn a_file_that_cannot_be_removed_holds_up_nothing_and_is_not_forgotten() {
    let sim = SimDisk::new(1);
    let gone = FileId { replica: REPLICA, segment: SegmentId(1) };
    let stays = segment_path(gone);
    let disk: Arc<dyn Disk> = Arc::new(Stubborn { disk: sim.clone(), stays: stays.clone() });
    let queue = Arc::new(FlushQueue::default());
    let recovered = recover(disk.clone(), config()).unwrap();
    let mut flusher = Flusher::new(recovered, disk.clone(), queue.clone());
    queue.push([created(&*disk, 1), created(&*disk, 2)]);
    flusher.round().unwrap();
    queue.push([FlushItem::Delete { id: gone, path: stays.clone() }]);
    for term in 1..200 {
        let vote = VoteState { term, ..VoteState::default() };
        let state = ReplicaState { vote, ..ReplicaState::default() };
        queue.push([FlushItem::State { replica: REPLICA, state }]);
        flusher.round().unwrap();
    }
    // Those that may be needed, the next one and a spare.
    let files = disk.list(Path::new(WAL_DIR)).unwrap().len();
    assert!(files <= config().files_max + 2, "{files} files");
    assert!(sim.tree().contains_key(&stays));
    let sim = sim.power_cut(1);
    let recovered = recover(Arc::new(sim.clone()), config()).unwrap();
    assert_eq!(recovered.replicas[&REPLICA].vote.term, 199);
    assert!(!sim.tree().contains_key(&stays), "its removal was recorded again");
}
