//! The one door to files: what storage asks of a disk.
//!
//! Two implementations exist: [`mapped`] is the operating system's file system, [`sim`] is a disk
//! in memory that crashes, tears, loses what was not synced, fills up and fails. No other file of
//! the project opens a file of a broker's data.
//!
//! **Invariant:** a file only grows and a position of a segment is written once, so what a
//! [`DiskFile::slice`] showed, it shows for ever.

use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::net::SendFlags;

pub mod mapped;
mod reaper;
pub mod sim;

/// A directory tree of one disk. Paths are relative to its root.
///
/// Creating, removing and renaming are durable only after [`Disk::sync_dir`] of the parent.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Creates an empty file that may grow to `capacity` bytes; fails with `AlreadyExists` if it is
    /// there. The parent directory must exist.
    fn create(&self, path: &Path, capacity: u64) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for reading and writing, which may grow to `capacity` bytes or to its present
    /// length, whichever is more. Fails with `NotFound`.
    fn open(&self, path: &Path, capacity: u64) -> io::Result<Arc<dyn DiskFile>>;

    /// Removes a file. Open handles and slices stay valid.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Renames a file within its directory, over whatever `to` was.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Creates a directory and its parents; succeeds if it is there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with all it holds; succeeds if it is not there.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, sorted; empty if it is not there.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes the entries of a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes many files and directories durable, those that are gone excepted. One after the other
    /// here; a disk that can do several at a time takes the time of the slowest.
    fn sync_many(&self, files: &[Arc<dyn DiskFile>], dirs: &[PathBuf]) -> io::Result<()> {
        files.iter().try_for_each(|file| file.sync())?;
        dirs.iter().try_for_each(|dir| ignore_missing(self.sync_dir(dir)))
    }
}

/// What is gone need not be durable.
pub(crate) fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// An open file.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Writes all `parts` one after the other from `position`. On an error a part of the bytes, or
    /// all of them, may have been written. Beyond the capacity it is `InvalidInput`.
    fn write_at(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<()>;

    /// Reads up to `buffer.len()` bytes into `buffer`; fewer only at the end of the file. Does not
    /// go through the map: for cold data, recovery and scans.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Makes all that was written durable, as `fdatasync` does.
    fn sync(&self) -> io::Result<()>;

    /// Asks the kernel to start writing a range back, without waiting for it.
    fn start_write_back(&self, range: Range<u64>);

    /// Waits until a range that the kernel was asked to write is written, so that it is no longer
    /// memory that nobody else can have. It is not durable by that. An error is that of a sync: what
    /// a later sync says of the range is not true.
    fn finish_write_back(&self, _range: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    /// Bytes in the file.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// The bytes of `range` without a copy, through a read-only map of the file. The range must
    /// have been written, and lie within the file's capacity, else it is `InvalidInput`.
    fn slice(&self, range: Range<u64>) -> io::Result<Bytes>;

    /// Sends bytes of `range`, which was written, to a socket, without touching them where the disk
    /// can; how many it took, at least one. Fails with `WouldBlock` where a socket that does not
    /// block has no room.
    fn send(&self, range: Range<u64>, socket: BorrowedFd<'_>) -> io::Result<usize> {
        send_slice(self, range, socket)
    }

    /// Whether a range that was written is in the page cache, as far as a look at a part of its
    /// pages tells. Never waits. `false` where it cannot be known.
    fn is_cached(&self, _range: Range<u64>) -> bool {
        false
    }

    /// Brings a range that was written into the page cache, in order, so that a
    /// [slice](DiskFile::slice) of it can be touched without waiting for the disk, and without
    /// meeting its faults there. Blocks.
    fn populate(&self, range: Range<u64>) -> io::Result<()> {
        populate_by_reading(self, range)
    }
}

/// Sends a range from where it is in memory.
fn send_slice<F: DiskFile + ?Sized>(
    file: &F,
    range: Range<u64>,
    socket: BorrowedFd<'_>,
) -> io::Result<usize> {
    let bytes = file.slice(range)?;
    Ok(rustix::io::retry_on_intr(|| rustix::net::send(socket, &bytes, SendFlags::NOSIGNAL))?)
}

/// Bytes read at once to bring a cold range into memory.
const POPULATE_BYTES: u64 = 256 * 1024;

/// Reads a range for no other reason than that it is in the page cache afterwards.
fn populate_by_reading<F: DiskFile + ?Sized>(file: &F, range: Range<u64>) -> io::Result<()> {
    let mut scratch = vec![0; range.end.saturating_sub(range.start).min(POPULATE_BYTES) as usize];
    let mut position = range.start;
    while position < range.end {
        let left = (range.end - position).min(scratch.len() as u64) as usize;
        let read = file.read_at(position, &mut scratch[..left])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        position += read as u64;
    }
    Ok(())
}

/// The end of a write, which must lie within the capacity.
fn check_write(position: u64, length: u64, capacity: u64) -> io::Result<u64> {
    position.checked_add(length).filter(|&end| end <= capacity).ok_or_else(|| {
        let message = format!("write of {length} at {position} passes the capacity {capacity}");
        io::Error::new(io::ErrorKind::InvalidInput, message)
    })
}

/// A slice must lie within what was written, and within the capacity.
fn check_slice(range: &Range<u64>, written: u64, capacity: u64) -> io::Result<()> {
    if range.start <= range.end && range.end <= written.min(capacity) {
        return Ok(());
    }
    let message = format!("slice {range:?} passes {written} written of capacity {capacity}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}
