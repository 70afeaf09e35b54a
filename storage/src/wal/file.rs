//! One file of the write-ahead set.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{Disk, DiskFile};
use crate::paths::wal_path;

/// No file of the set is mapped, so that its capacity costs nothing.
const CAPACITY: u64 = 1 << 40;

/// Zeros written at a time.
const FILL_BYTES: usize = 64 << 10;

/// An open file of the set.
#[derive(Debug)]
pub(super) struct WalFile {
    pub(super) sequence: u64,
    pub(super) file: Arc<dyn DiskFile>,
    /// Bytes that have been written before, by zeros or by old rounds.
    pub(super) size: u64,
}

impl WalFile {
    /// A new, empty file.
    pub(super) fn create(disk: &dyn Disk, sequence: u64) -> io::Result<Self> {
        let file = disk.create(&wal_path(sequence), CAPACITY)?;
        Ok(Self { sequence, file, size: 0 })
    }

    /// A file that is there.
    pub(super) fn open(disk: &dyn Disk, sequence: u64) -> io::Result<Self> {
        let file = disk.open(&wal_path(sequence), CAPACITY)?;
        let size = file.len()?;
        Ok(Self { sequence, file, size })
    }

    /// Gives a file that is not needed a new name. Its old rounds stay in it: their sequence tells
    /// that they are stale.
    pub(super) fn recycle(disk: &dyn Disk, from: u64, sequence: u64) -> io::Result<Self> {
        let file = Self::open(disk, from)?;
        disk.rename(&wal_path(from), &wal_path(sequence))?;
        Ok(Self { sequence, ..file })
    }

    /// Writes zeros up to `until`, without a sync: they are only there to be written over.
    pub(super) fn fill(&mut self, until: u64) -> io::Result<()> {
        static ZEROS: [u8; FILL_BYTES] = [0; FILL_BYTES];
        let from = self.size;
        while self.size < until {
            let length = (until - self.size).min(FILL_BYTES as u64);
            self.file.write_at(self.size, &[IoSlice::new(&ZEROS[..length as usize])])?;
            self.size += length;
        }
        self.file.start_write_back(from..self.size);
        Ok(())
    }
}

/// The whole content of a file of the set.
pub(super) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Bytes> {
    let file = disk.open(path, CAPACITY)?;
    let length = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut content = vec![0; length];
    let read = file.read_at(0, &mut content)?;
    content.truncate(read);
    Ok(content.into())
}
