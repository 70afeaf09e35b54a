//! Walks the batches of a segment by their headers.
//!
//! A [`Walker`] reads windows of the file, through the map where the range was written lately and
//! by `pread` elsewhere, and never parses a record.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use vltava_protocol::record::batch::{BATCH_HEADER_BYTES, BatchError, BatchHeader};

use crate::flush::SegmentFile;

/// Bytes read at first by a walk over headers: the one that is looked for is often the first.
const WINDOW_BYTES_MIN: u64 = 1024;
/// Bytes read at once by a walk that goes on; each window is twice the one before it.
const WINDOW_BYTES_MAX: u64 = 16 * 1024;

/// How a walk reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// Through the map: the range was written lately and lies in memory.
    Mapped,
    /// With `pread`: a full or failing disk is an error, not a signal.
    Pread,
}

/// Reads bytes of a segment below a fixed end.
#[derive(Debug)]
pub(crate) struct Walker {
    file: Arc<SegmentFile>,
    end: u64,
    access: Access,
    window: Bytes,
    window_at: u64,
    /// The length of the next window.
    window_bytes: u64,
}

/// Why a walk cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WalkError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("no batch at position {position}: {reason}")]
    Bad { position: u64, reason: BatchError },
}

impl Walker {
    /// A walker over the bytes of `file` before `end`.
    pub(crate) fn new(file: Arc<SegmentFile>, end: u64, access: Access) -> Self {
        let (window, window_bytes) = (Bytes::new(), WINDOW_BYTES_MIN);
        Self { file, end, access, window, window_at: 0, window_bytes }
    }

    /// The header of the batch at `position`, the whole of which lies before the end.
    pub(crate) fn header(&mut self, position: u64) -> Result<BatchHeader, WalkError> {
        let bytes = self.bytes(position, BATCH_HEADER_BYTES)?;
        let bad = |reason| WalkError::Bad { position, reason };
        let header = BatchHeader::parse(&bytes).map_err(bad)?;
        let have = usize::try_from(self.end.saturating_sub(position)).unwrap_or(usize::MAX);
        if header.size() > have {
            return Err(bad(BatchError::Truncated { have, need: header.size() }));
        }
        Ok(header)
    }

    /// The `length` bytes at `position`, fewer where the end comes first.
    pub(crate) fn bytes(&mut self, position: u64, length: usize) -> io::Result<Bytes> {
        let available = self.end.saturating_sub(position);
        let length = length.min(usize::try_from(available).unwrap_or(usize::MAX));
        let inside = position >= self.window_at
            && position + length as u64 <= self.window_at + self.window.len() as u64;
        if !inside {
            let window_bytes = self.window_bytes.max(length as u64).min(available);
            self.window = self.read(position, window_bytes)?;
            self.window_at = position;
            self.window_bytes = (2 * self.window_bytes).min(WINDOW_BYTES_MAX);
        }
        let at = (position - self.window_at) as usize;
        Ok(self.window.slice(at..(at + length).min(self.window.len())))
    }

    /// The `length` bytes at `position` as bytes of their own: a slice of the map, or a copy.
    pub(crate) fn whole(&mut self, position: u64, length: usize) -> io::Result<Bytes> {
        let bytes = match self.access {
            Access::Mapped => self.read(position, length as u64)?,
            // A slice of the window would keep the whole window in memory.
            Access::Pread => read_at(&self.file, position, length)?,
        };
        if bytes.len() == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn read(&self, position: u64, length: u64) -> io::Result<Bytes> {
        match self.access {
            Access::Mapped => self.file.file.slice(position..position + length),
            Access::Pread => read_at(&self.file, position, length as usize),
        }
    }
}

/// Copies bytes of a file into memory of their own; fewer at the end of the file.
pub(crate) fn read_at(file: &SegmentFile, position: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; length];
    let read = file.file.read_at(position, &mut buffer)?;
    buffer.truncate(read);
    Ok(Bytes::from(buffer))
}
