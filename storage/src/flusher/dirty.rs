//! Segments whose bytes are durable only because the write-ahead set has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::flush::SegmentFile;
use crate::ids::{FileId, ReplicaId, SegmentId};

/// Bytes after which the kernel is asked to write a segment back, so that it is nearly clean when
/// its write-ahead file is retired, and the limit of dirty pages stays far.
const WRITE_BACK_BYTES: u64 = 4 << 20;

/// One such segment.
#[derive(Debug)]
pub(super) struct DirtySegment {
    /// The open file; `None` for one that recovery found, which is opened when needed.
    pub(super) segment: Option<Arc<SegmentFile>>,
    /// The end of what was written, and lies in the set or in place.
    pub(super) end: u64,
    /// The oldest file of the set that has bytes of it.
    oldest: u64,
    /// Up to where write-back was started.
    written_back: u64,
}

/// All of them, and by which file of the set they are held.
#[derive(Debug, Default)]
pub(super) struct DirtySegments {
    segments: BTreeMap<FileId, DirtySegment>,
    /// By file of the set: the segments that became dirty in it. Some of them are clean again.
    by_file: BTreeMap<u64, Vec<FileId>>,
}

impl DirtySegments {
    /// Bytes of a segment up to `end` are in the file `sequence` of the set.
    pub(super) fn wrote(&mut self, segment: &Arc<SegmentFile>, end: u64, sequence: u64) {
        let dirty = self.insert(segment.id, end, sequence);
        if dirty.segment.is_none() {
            dirty.segment = Some(segment.clone());
        }
        if dirty.end - dirty.written_back >= WRITE_BACK_BYTES {
            segment.file.start_write_back(dirty.written_back..dirty.end);
            dirty.written_back = dirty.end;
        }
    }

    /// As [`DirtySegments::wrote`], for a segment that nobody has opened yet.
    pub(super) fn insert(&mut self, id: FileId, end: u64, sequence: u64) -> &mut DirtySegment {
        let dirty = self.segments.entry(id).or_insert_with(|| {
            self.by_file.entry(sequence).or_default().push(id);
            DirtySegment { segment: None, end, oldest: sequence, written_back: end }
        });
        dirty.end = dirty.end.max(end);
        dirty
    }

    /// The segment is clean, or gone.
    pub(super) fn remove(&mut self, id: FileId) {
        self.segments.remove(&id);
    }

    pub(super) fn remove_replica(&mut self, replica: ReplicaId) {
        let ids = FileId { replica, segment: SegmentId(0) }..=FileId {
            replica,
            segment: SegmentId(u64::MAX),
        };
        let ids: Vec<FileId> = self.segments.range(ids).map(|(id, _)| *id).collect();
        for id in ids {
            self.remove(id);
        }
    }

    /// A segment that needs the file `sequence` of the set, or an older one. It is found again until
    /// it is removed.
    pub(super) fn held_by(&mut self, sequence: u64) -> Option<FileId> {
        while let Some(mut first) = self.by_file.first_entry()
            && *first.key() <= sequence
        {
            while let Some(id) = first.get().last() {
                if self.segments.get(id).is_some_and(|dirty| dirty.oldest <= sequence) {
                    return Some(*id);
                }
                first.get_mut().pop();
            }
            first.remove();
        }
        None
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<FileId> {
        self.segments.keys().copied().collect()
    }

    pub(super) fn get(&self, id: FileId) -> Option<&DirtySegment> {
        self.segments.get(&id)
    }
}
