//! The committed state of a coordinator's partition, beside its log: what loading begins with.
//!
//! The state of a coordinator is the latest value of each key, so a snapshot is the log up to an
//! offset with nothing but those in it. It is made from the snapshot before and the batches since,
//! without the shard and its lock, and no coordinator is asked what its records mean.
//!
//! ```text
//! logs/{replica:016x}/{offset:016x}.committed
//!
//! 0  magic    8 bytes "VLTAVACS"
//! 8  version  u32 = 1
//! 12 spare    u32 = 0
//! 16 replica  u64, whose log it was made from
//! 24 offset   i64, everything before it is in here
//! 32 count    u64, entries
//! 40 entries  each: u32 length and key, u32 length and value
//!    crc32    u32, IEEE, of all before it
//! ```
//!
//! **Invariant:** nothing depends on a snapshot being there. One that is torn, damaged, of another
//! replica or version, or of an offset that the log has not committed, is passed over: the log
//! holds everything. Written under another name and renamed, so a crash leaves the old one whole.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use vltava_protocol::ids::Offset;
use vltava_storage::disk::Disk;
use vltava_storage::flush::FlushItem;
use vltava_storage::flusher::FlushQueue;
use vltava_storage::ids::ReplicaId;
use vltava_storage::paths::replica_dir;
use vltava_storage::read_view::ReadView;

use super::runtime::replay::{self, ReplayError};

/// Records that come after a snapshot before the next one is worth writing.
pub const SNAPSHOT_RECORDS: i64 = 10_000;
/// Snapshots kept: the newest may turn out torn by a power cut.
const SNAPSHOTS_KEPT: usize = 2;

const MAGIC: &[u8; 8] = b"VLTAVACS";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 40;
const CRC_BYTES: usize = 4;
const EXTENSION: &str = ".committed";
const UNFINISHED: &str = "unfinished.committed";

/// What was committed before an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The offset after the last record in it.
    pub offset: Offset,
    /// The latest value of each key, by key.
    pub entries: Vec<(Bytes, Bytes)>,
}

/// The snapshots of one replica.
#[derive(Debug)]
pub struct Snapshots {
    disk: Arc<dyn Disk>,
    queue: Arc<FlushQueue>,
    replica: ReplicaId,
    /// The offset of the newest, as far as it is known; it only saves looking.
    newest: AtomicI64,
}

/// Why a snapshot was not written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The log cannot be read.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The file cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Snapshots {
    /// The snapshots of `replica` on `disk`.
    pub fn new(disk: Arc<dyn Disk>, queue: Arc<FlushQueue>, replica: ReplicaId) -> Self {
        Self { disk, queue, replica, newest: AtomicI64::new(0) }
    }

    /// The newest good snapshot of what is committed before `high_watermark`.
    pub fn newest(&self, high_watermark: Offset) -> Option<Snapshot> {
        let offsets = self.offsets().unwrap_or_default();
        let found = offsets.into_iter().rev().filter(|offset| *offset <= high_watermark);
        let snapshot = found.into_iter().find_map(|offset| self.read(offset));
        if let Some(snapshot) = &snapshot {
            self.newest.fetch_max(snapshot.offset.0, Ordering::Relaxed);
        }
        snapshot
    }

    /// Writes a snapshot of everything committed if [`SNAPSHOT_RECORDS`] have come since the last
    /// one. Returns its offset.
    pub fn renew(&self, view: &ReadView) -> Result<Option<Offset>, SnapshotError> {
        let since = view.high_watermark.0 - self.newest.load(Ordering::Relaxed);
        if since < SNAPSHOT_RECORDS {
            return Ok(None);
        }
        let former = self.newest(view.high_watermark);
        let (mut at, mut entries) = match former {
            Some(former) => (former.offset, former.entries.into_iter().collect()),
            None => (Offset::ZERO, BTreeMap::new()),
        };
        if view.high_watermark.0 - at.0 < SNAPSHOT_RECORDS {
            return Ok(None);
        }
        loop {
            let chunk = replay::next_chunk(view, at)?;
            if chunk.is_empty() {
                break;
            }
            for batches in chunk {
                at = replay::each_record(&batches, at, |key, value| {
                    // Copies: a slice would keep the log's file.
                    let key = Bytes::copy_from_slice(key);
                    match value {
                        Some(value) => entries.insert(key, Bytes::copy_from_slice(value)),
                        None => entries.remove(&key),
                    };
                })?;
            }
        }
        let snapshot = Snapshot {
            offset: at.max(view.high_watermark),
            entries: entries.into_iter().collect(),
        };
        self.write(&snapshot)?;
        Ok(Some(snapshot.offset))
    }

    fn write(&self, snapshot: &Snapshot) -> io::Result<()> {
        let dir = self.dir();
        let unfinished = dir.join(UNFINISHED);
        ignore_missing(self.disk.remove(&unfinished))?;
        let bytes = encode(self.replica, snapshot);
        let file = self.disk.create(&unfinished, bytes.len() as u64)?;
        file.write_at(0, &[IoSlice::new(&bytes)])?;
        self.disk.rename(&unfinished, &self.path(snapshot.offset))?;
        self.newest.fetch_max(snapshot.offset.0, Ordering::Relaxed);
        self.queue.push([FlushItem::Sync { file, dir: dir.clone() }]);
        let offsets = self.offsets()?;
        let kept = offsets.len().saturating_sub(SNAPSHOTS_KEPT);
        for offset in &offsets[..kept] {
            ignore_missing(self.disk.remove(&self.path(*offset)))?;
        }
        Ok(())
    }

    fn read(&self, offset: Offset) -> Option<Snapshot> {
        let path = self.path(offset);
        let read = || {
            let file = self.disk.open(&path, 0)?;
            let mut content = vec![0; usize::try_from(file.len()?).unwrap_or(0)];
            let length = file.read_at(0, &mut content)?;
            content.truncate(length);
            Ok::<_, io::Error>(Bytes::from(content))
        };
        let decoded = read().ok().and_then(|bytes| decode(self.replica, offset, &bytes));
        if decoded.is_none() {
            tracing::warn!(path = %path.display(), "a coordinator's snapshot is passed over");
        }
        decoded
    }

    /// The offsets of all snapshots, in order.
    fn offsets(&self) -> io::Result<Vec<Offset>> {
        let names = self.disk.list(&self.dir())?;
        let mut offsets: Vec<_> = names.iter().filter_map(|name| parse_name(name)).collect();
        offsets.sort_unstable();
        Ok(offsets)
    }

    fn dir(&self) -> PathBuf {
        replica_dir(self.replica)
    }

    fn path(&self, offset: Offset) -> PathBuf {
        self.dir().join(format!("{:016x}{EXTENSION}", offset.0))
    }
}

fn parse_name(name: &str) -> Option<Offset> {
    let digits = name.strip_suffix(EXTENSION)?;
    let offset = i64::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 16)?;
    Some(Offset(offset))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn encode(replica: ReplicaId, snapshot: &Snapshot) -> Bytes {
    let entries = snapshot.entries.iter().map(|(key, value)| 8 + key.len() + value.len());
    let size = HEADER_BYTES + entries.sum::<usize>() + CRC_BYTES;
    let mut bytes = BytesMut::with_capacity(size);
    bytes.put_slice(MAGIC);
    bytes.put_u32(VERSION);
    bytes.put_u32(0);
    bytes.put_u64(replica.0);
    bytes.put_i64(snapshot.offset.0);
    bytes.put_u64(snapshot.entries.len() as u64);
    for (key, value) in &snapshot.entries {
        for part in [key, value] {
            bytes.put_u32(u32::try_from(part.len()).expect("a record is smaller than its batch"));
            bytes.put_slice(part);
        }
    }
    bytes.put_u32(crc32fast::hash(&bytes));
    bytes.freeze()
}

fn decode(replica: ReplicaId, offset: Offset, bytes: &Bytes) -> Option<Snapshot> {
    let checked = bytes.len().checked_sub(CRC_BYTES).filter(|&length| length >= HEADER_BYTES)?;
    if crc32fast::hash(&bytes[..checked]) != (&bytes[checked..]).get_u32() {
        return None;
    }
    let mut rest = bytes.slice(..checked);
    let mut magic = [0; MAGIC.len()];
    rest.copy_to_slice(&mut magic);
    let (version, spare) = (rest.get_u32(), rest.get_u32());
    let named = (ReplicaId(rest.get_u64()), Offset(rest.get_i64()));
    if magic != *MAGIC || (version, spare) != (VERSION, 0) || named != (replica, offset) {
        return None;
    }
    let mut entries = Vec::new();
    for _ in 0..rest.get_u64() {
        entries.push((take(&mut rest)?, take(&mut rest)?));
    }
    rest.is_empty().then_some(Snapshot { offset, entries })
}

fn take(rest: &mut Bytes) -> Option<Bytes> {
    let length = rest.try_get_u32().ok()? as usize;
    (rest.len() >= length).then(|| rest.split_to(length))
}

#[cfg(test)]
mod tests {
    use vltava_storage::disk::sim::SimDisk;

    use super::*;

    const REPLICA: ReplicaId = ReplicaId(7);

    fn snapshot(offset: i64) -> Snapshot {
        let entry = |n: i64| (Bytes::from(format!("key {n}")), Bytes::from(format!("value {n}")));
        Snapshot { offset: Offset(offset), entries: (0..offset % 10).map(entry).collect() }
    }

    fn snapshots() -> Snapshots {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        disk.create_dir(&replica_dir(REPLICA)).unwrap();
        Snapshots::new(disk, Arc::default(), REPLICA)
    }

    #[test]
    fn takes_only_what_it_wrote() {
        let bytes = encode(REPLICA, &snapshot(13));
        let read = |bytes: Bytes| decode(REPLICA, Offset(13), &bytes);
        assert_eq!(read(bytes.clone()), Some(snapshot(13)));
        assert_eq!(decode(ReplicaId(8), Offset(13), &bytes), None, "of another replica");
        assert_eq!(decode(REPLICA, Offset(14), &bytes), None, "renamed");
        for length in 0..bytes.len() {
            assert_eq!(read(bytes.slice(..length)), None, "cut to {length}");
        }
        for position in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[position] ^= 0x10;
            assert_eq!(read(bad.into()), None, "bit flipped at {position}");
        }
    }

    #[test]
    fn the_newest_good_one_that_is_committed_is_taken() {
        let snapshots = snapshots();
        assert_eq!(snapshots.newest(Offset(100)), None);
        for offset in [11, 22, 33] {
            snapshots.write(&snapshot(offset)).unwrap();
        }
        assert_eq!(snapshots.offsets().unwrap(), [Offset(22), Offset(33)], "two are kept");
        assert_eq!(snapshots.newest(Offset(33)), Some(snapshot(33)));
        assert_eq!(snapshots.newest(Offset(32)), Some(snapshot(22)), "33 is not committed");
        assert_eq!(snapshots.newest(Offset(21)), None);

        let torn = encode(REPLICA, &snapshot(44)).slice(..50);
        let file = snapshots.disk.create(&snapshots.path(Offset(44)), 50).unwrap();
        file.write_at(0, &[IoSlice::new(&torn)]).unwrap();
        assert_eq!(snapshots.newest(Offset(100)), Some(snapshot(33)));
    }

    #[test]
    fn other_names_are_no_snapshots() {
        for name in ["unfinished.committed", "10.committed", "0000000000000010.log"] {
            assert_eq!(parse_name(name), None, "{name}");
        }
        assert_eq!(parse_name("0000000000000010.committed"), Some(Offset(16)));
    }
}
