//! One file of a partition's log.
//!
//! ```text
//! 0   header, SEGMENT_HEADER_BYTES: written once, at creation
//! 64  record batches, byte for byte as replicated, one behind the other
//! ```
//!
//! **Invariant:** a position is written once. A segment never gets shorter on disk: where a newer
//! segment of its generation begins at an index inside it, it ends there, and its later bytes are
//! no longer part of any log. So a [`LogSlice`](crate::slice::LogSlice) never changes.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use vltava_protocol::ids::{LeaderEpoch, Offset};

use crate::disk::Disk;
use crate::flush::SegmentFile;
use crate::ids::{FileId, Generation, LogIndex};
use crate::index::SegmentIndex;

/// Bytes before the first batch of a segment.
pub const SEGMENT_HEADER_BYTES: u64 = 64;

/// What the first [`SEGMENT_HEADER_BYTES`] of a segment say. Written once, at creation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// Which segment this is: guards against a file under a wrong name.
    pub id: FileId,
    /// The set of segments it belongs to.
    pub generation: Generation,
    /// The index of its first batch.
    pub base_index: LogIndex,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The epoch of the batch before the first one.
    pub epoch_before: LeaderEpoch,
}

/// A segment as the log and its readers share it.
///
/// It keeps no descriptor by itself: whoever needs the file holds the [`SegmentFile`], the log that
/// of the segment it writes to, so an idle sealed segment costs none.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    path: PathBuf,
    /// Bytes that the file may grow to; what its map spans.
    capacity: u64,
    disk: Arc<dyn Disk>,
    open: Mutex<Weak<SegmentFile>>,
    pub(crate) index: RwLock<SegmentIndex>,
}

impl Segment {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        file: &Arc<SegmentFile>,
        header: SegmentHeader,
        capacity: u64,
        index: SegmentIndex,
    ) -> Self {
        assert_eq!(file.id, header.id, "a segment lies in its own file");
        Self {
            header,
            path: file.path.clone(),
            capacity,
            disk,
            open: Mutex::new(Arc::downgrade(file)),
            index: RwLock::new(index),
        }
    }

    /// Bytes that the file may grow to.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(crate) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// The open file; opened if nobody has it open. Fails with `NotFound` once it was deleted.
    pub(crate) fn file(&self) -> io::Result<Arc<SegmentFile>> {
        let mut open = self.open.lock();
        if let Some(file) = open.upgrade() {
            return Ok(file);
        }
        let file = self.disk.open(&self.path, self.capacity)?;
        let file = Arc::new(SegmentFile { id: self.header.id, path: self.path.clone(), file });
        *open = Arc::downgrade(&file);
        Ok(file)
    }

    /// Whether anybody has the file open.
    #[cfg(test)]
    pub(crate) fn is_open(&self) -> bool {
        self.open.lock().strong_count() > 0
    }

    /// Bytes of batches.
    pub(crate) fn bytes(&self) -> u64 {
        self.index.read().end().position - SEGMENT_HEADER_BYTES
    }
}
