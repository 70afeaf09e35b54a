//! A range of whole batches in a segment: what a Fetch sends and a stream task reads.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bytes::Bytes;

use crate::flush::SegmentFile;

/// Whole batches of one segment, none of them internal.
///
/// It holds the file, so it stays valid and unchanged for as long as it lives, whatever happens to
/// the log: a position is written once.
#[derive(Clone, Debug)]
pub struct LogSlice {
    file: Arc<SegmentFile>,
    range: Range<u64>,
    recent: bool,
}

impl LogSlice {
    pub(crate) fn new(file: Arc<SegmentFile>, range: Range<u64>, recent: bool) -> Self {
        assert!(range.start < range.end, "a slice holds a batch");
        Self { file, range, recent }
    }

    /// The bytes, without a copy, through the file's map. Of a slice that is not
    /// [recent](Self::is_recent), call [`LogSlice::prefault`] first, on a thread that may block.
    pub fn bytes(&self) -> io::Result<Bytes> {
        self.file.file.slice(self.range.clone())
    }

    /// Sends what follows the first `skipped` bytes to a socket, as much as that takes. Nothing of it
    /// goes through this process where the system can do without. Of a slice that is not
    /// [recent](Self::is_recent), call [`LogSlice::prefault`] first: it may wait for the disk.
    pub fn send(&self, skipped: usize, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.file.file.send(self.range.start + skipped as u64..self.range.end, socket)
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        (self.range.end - self.range.start) as usize
    }

    /// Never: a slice holds a batch.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Whether this process wrote the range lately, so that touching it does not wait for a disk.
    pub fn is_recent(&self) -> bool {
        self.recent
    }

    /// Whether the range is in the page cache, as far as a look at a part of its pages tells.
    pub fn is_cached(&self) -> bool {
        self.file.file.is_cached(self.range.clone())
    }

    /// Brings the range into memory, so that touching it does not wait for a disk. Blocks.
    pub fn prefault(&self) -> io::Result<()> {
        self.file.file.populate(self.range.clone())
    }
}
