//! The operating system's file system: written with `pwritev`, read through read-only maps.
//!
//! **Invariant:** no slice of a map reaches beyond what this process has written to the file or
//! found in it, and no file is ever shortened, so that no read through a map is a `SIGBUS`. A full
//! or failing disk is an [`io::Error`] of the write, never a signal: nothing is stored through a
//! map. The map is longer than the file, so that what is appended later shows through it.
//!
//! This is the one file of the crate with `unsafe` code.

#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use memmap2::MmapOptions;
use parking_lot::Mutex;
use rustix::fs::sendfile;
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};

use super::reaper::{FILES_MAX, Reaper};
use super::{Disk, DiskFile, ignore_missing};

/// Parts of one `pwritev`: the limit of Linux (`UIO_MAXIOV`).
const PARTS_MAX: usize = 1024;

/// One page of so many bytes is looked at to tell whether a range is in the page cache: the kernel
/// reads and drops cached files in larger pieces.
const PROBE_BYTES: usize = 64 << 10;

/// What a call reports that was not even tried.
const CALL_REFUSED: [Errno; 5] =
    [Errno::INVAL, Errno::NOSYS, Errno::NOTSUP, Errno::PERM, Errno::SPIPE];

/// Syncs under way at a time.
const SYNC_THREADS_MAX: usize = 16;

/// Name of the lock file in the root of a disk.
const LOCK_FILE: &str = ".lock";

/// A directory of the operating system's file system.
#[derive(Debug)]
pub struct MappedDisk {
    root: PathBuf,
    reaper: Reaper,
}

impl MappedDisk {
    /// Opens the directory, creating it (durably) if it is not there.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Arc<Self>> {
        let root = root.into();
        if !root.is_dir() {
            fs::create_dir_all(&root)?;
            let root = fs::canonicalize(&root)?;
            if let Some(parent) = root.parent() {
                sync_dir(parent)?;
            }
        }
        Ok(Arc::new(Self { root, reaper: Reaper::start()? }))
    }

    /// Where it lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Removes a name, and leaves its file open for [`Reaper::close`].
    fn unlink(path: &Path) -> io::Result<Option<File>> {
        let held = OpenOptions::new().read(true).open(path).ok();
        fs::remove_file(path).map(|()| held)
    }

    /// Only plain relative paths: nothing may reach out of the root.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        if plain {
            Ok(self.root.join(path))
        } else {
            let message = format!("{} is not a plain relative path", path.display());
            Err(io::Error::new(ErrorKind::InvalidInput, message))
        }
    }
}

impl Disk for MappedDisk {
    fn create(&self, path: &Path, capacity: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).open(self.resolve(path)?)?;
        Ok(Arc::new(MappedFile::new(file, 0, capacity)))
    }

    fn open(&self, path: &Path, capacity: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.resolve(path)?)?;
        let written = file.metadata()?.len();
        Ok(Arc::new(MappedFile::new(file, written, capacity.max(written))))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if let Some(file) = Self::unlink(&self.resolve(path)?)? {
            self.reaper.close(file);
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(self.resolve(from)?, self.resolve(to)?)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(self.resolve(path)?)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let dir = self.resolve(path)?;
        let mut held = Vec::new();
        // What is no file, or cannot be opened or removed here, is for the call below.
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_file())
                && let Ok(Some(file)) = Self::unlink(&entry.path())
                && held.len() < FILES_MAX
            {
                held.push(file);
            }
        }
        let removed = fs::remove_dir_all(dir);
        // Only now: while the blocks of a removed file are freed, the kernel lets the removal of its
        // directory wait, and that on the processor.
        for file in held {
            self.reaper.close(file);
        }
        ignore_missing(removed)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.resolve(dir)?) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sync_dir(&self.resolve(dir)?)
    }

    fn sync_many(&self, files: &[Arc<dyn DiskFile>], dirs: &[PathBuf]) -> io::Result<()> {
        // A sync waits for the disk: many at a time share its round trips (a thousand files of a
        // page each took 667 ms one by one and 34 ms so).
        let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
        let work = || loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let synced = match (files.get(at), dirs.get(at.wrapping_sub(files.len()))) {
                (Some(file), _) => file.sync(),
                (None, Some(dir)) => ignore_missing(self.sync_dir(dir)),
                (None, None) => return,
            };
            if let Err(error) = synced {
                failure.lock().get_or_insert(error);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..SYNC_THREADS_MAX.min(files.len() + dirs.len()) {
                scope.spawn(work);
            }
            work();
        });
        failure.into_inner().map_or(Ok(()), Err)
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    OpenOptions::new().read(true).open(dir)?.sync_all()
}

/// An open file and, once it was asked for a slice, its map.
struct MappedFile {
    file: File,
    /// Invariant: the file has at least this many bytes. Only grows.
    written: AtomicU64,
    capacity: u64,
    /// All bytes of the map, which lives as long as any slice of them.
    map: OnceLock<Bytes>,
}

impl std::fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MappedFile")
            .field("file", &self.file)
            .field("written", &self.written)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

impl MappedFile {
    fn new(file: File, written: u64, capacity: u64) -> Self {
        Self { file, written: AtomicU64::new(written), capacity, map: OnceLock::new() }
    }

    fn map(&self) -> io::Result<&Bytes> {
        if let Some(map) = self.map.get() {
            return Ok(map);
        }
        let length = usize::try_from(self.capacity)
            .map_err(|_| io::Error::new(ErrorKind::InvalidInput, "capacity exceeds the memory"))?;
        // SAFETY: the map is read-only and shared; `slice` hands out only bytes below `written`,
        // which lie within the file, and no code of ours shortens a file or writes a position
        // twice while a reader may hold it (see the invariants of this module and of `disk`).
        // That no other program does either is what `DirLock` is for.
        let map = unsafe { MmapOptions::new().len(length).map(&self.file)? };
        // Two first readers may race here; the loser's map is dropped.
        Ok(self.map.get_or_init(|| Bytes::from_owner(map)))
    }
}

impl MappedFile {
    /// One write of as many parts as a call may have. Returns how many bytes it took.
    fn write_some(&self, parts: &[IoSlice<'_>], at: u64) -> io::Result<u64> {
        let some = &parts[..parts.len().min(PARTS_MAX)];
        loop {
            match rustix::io::pwritev(&self.file, some, at) {
                Ok(written) => return Ok(written as u64),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Has the kernel write a range, or wait for that, without the file's length or the disk's cache.
    fn sync_range(&self, range: Range<u64>, flags: libc::c_uint) -> io::Result<()> {
        let length = range.end.saturating_sub(range.start);
        let (Ok(offset), Ok(length)) = (i64::try_from(range.start), i64::try_from(length)) else {
            return Err(ErrorKind::InvalidInput.into());
        };
        if length == 0 {
            return Ok(()); // to the kernel, 0 means "to the end"
        }
        let descriptor = self.file.as_raw_fd();
        // SAFETY: the descriptor is open for as long as `self.file` lives, and the call touches no
        // memory of ours.
        match unsafe { libc::sync_file_range(descriptor, offset, length, flags) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Goes on behind the first `written` bytes of `parts`, which begin at `position`.
    fn write_rest(&self, parts: &[IoSlice<'_>], position: u64, written: u64) -> io::Result<()> {
        let mut parts = parts.to_vec();
        let mut rest = parts.as_mut_slice();
        let mut at = position + written;
        // Drops empty parts too, so that a write of 0 bytes below means that nothing was taken.
        IoSlice::advance_slices(&mut rest, written as usize);
        while !rest.is_empty() {
            let written = self.write_some(rest, at)?;
            if written == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            at += written;
            IoSlice::advance_slices(&mut rest, written as usize);
        }
        Ok(())
    }
}

impl DiskFile for MappedFile {
    fn write_at(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let length: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let end = super::check_write(position, length, self.capacity)?;
        // Nearly always one call takes all of it.
        let written = self.write_some(parts, position)?;
        if written < length {
            self.write_rest(parts, position, written)?;
        }
        self.written.fetch_max(end, Ordering::Release);
        Ok(())
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    fn start_write_back(&self, range: Range<u64>) {
        // It is advice: the sync that follows reports what it meets.
        let _ = self.sync_range(range, libc::SYNC_FILE_RANGE_WRITE);
    }

    fn finish_write_back(&self, range: Range<u64>) -> io::Result<()> {
        let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
            | libc::SYNC_FILE_RANGE_WRITE
            | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        match self.sync_range(range, flags).map_err(|error| (error.raw_os_error(), error)) {
            // A sandbox or a file system that does not know the call: the kernel sees to it alone.
            Err((Some(code), _))
                if CALL_REFUSED.iter().any(|known| known.raw_os_error() == code) =>
            {
                Ok(())
            }
            done => done.map_err(|(_, error)| error),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn slice(&self, range: Range<u64>) -> io::Result<Bytes> {
        super::check_slice(&range, self.written.load(Ordering::Acquire), self.capacity)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        // Fits: the end is at most the capacity, which was mapped.
        Ok(self.map()?.slice(range.start as usize..range.end as usize))
    }

    fn send(&self, range: Range<u64>, socket: BorrowedFd<'_>) -> io::Result<usize> {
        super::check_slice(&range, self.written.load(Ordering::Acquire), self.capacity)?;
        let mut position = range.start;
        // Below the capacity, and the kernel takes less if it is told too much.
        let length = (range.end - range.start) as usize;
        match retry_on_intr(|| sendfile(socket, &self.file, Some(&mut position), length)) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(sent) => Ok(sent),
            // A file system that cannot do it.
            Err(Errno::INVAL | Errno::NOSYS) => super::send_slice(self, range, socket),
            Err(error) => Err(error.into()),
        }
    }

    fn is_cached(&self, range: Range<u64>) -> bool {
        let Some(last) = range.end.checked_sub(1) else { return true };
        let probes = range.step_by(PROBE_BYTES).chain([last]);
        let mut byte = [0];
        probes.into_iter().all(|at| {
            let mut parts = [IoSliceMut::new(&mut byte)];
            // It reads only what is in memory, and fails where it would have to wait.
            let read = rustix::io::preadv2(&self.file, &mut parts, at, ReadWriteFlags::NOWAIT);
            read.is_ok_and(|read| read == 1)
        })
    }

    fn populate(&self, range: Range<u64>) -> io::Result<()> {
        super::check_slice(&range, self.written.load(Ordering::Acquire), self.capacity)?;
        let Some(nowhere) = nowhere() else { return super::populate_by_reading(self, range) };
        let mut position = range.start;
        while position < range.end {
            // Below the capacity, and the kernel takes less if it is told too much.
            let left = (range.end - position) as usize;
            match sendfile(nowhere, &self.file, Some(&mut position), left) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                // A file system that cannot do it.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    return super::populate_by_reading(self, position..range.end);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Where the pages of a file are sent so that the kernel reads them and nobody copies or maps them.
///
/// The kernel sees a reader that goes on from where it was, reads ahead for it, and keeps what it
/// reads in large pieces. Advice (`POSIX_FADV_WILLNEED`) makes it read page by page instead, which
/// costs eight times the processor time.
fn nowhere() -> Option<&'static File> {
    static NOWHERE: OnceLock<Option<File>> = OnceLock::new();
    NOWHERE.get_or_init(|| OpenOptions::new().write(true).open("/dev/null").ok()).as_ref()
}

/// Why a disk could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("{} is in use by another broker", .0.display())]
    InUse(PathBuf),
    /// The lock file could not be opened or locked.
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The right to be the only broker on a disk; held as long as it lives, gone with the process.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the lock of `root`, which must exist, without waiting.
    pub fn acquire(root: &Path) -> Result<Self, LockError> {
        let path = root.join(LOCK_FILE);
        let io = |source| LockError::Io { path: root.to_path_buf(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::InUse(root.to_path_buf())),
            Err(TryLockError::Error(source)) => Err(io(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    fn disk() -> (tempfile::TempDir, Arc<MappedDisk>) {
        let dir = tempfile::tempdir().unwrap();
        let disk = MappedDisk::open(dir.path().join("data")).unwrap();
        (dir, disk)
    }

    #[test]
    fn later_appends_show_through_the_map() {
        let (_dir, disk) = disk();
        let file = disk.create(Path::new("a"), 1 << 20).unwrap();
        file.write_at(0, &[IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cd")]).unwrap();
        let first = file.slice(1..3).unwrap();
        file.write_at(4, &[IoSlice::new(b"ef")]).unwrap();
        assert_eq!(&first[..], b"bc");
        assert_eq!(&file.slice(0..6).unwrap()[..], b"abcdef");
        file.populate(1..5).unwrap();
        assert!(file.is_cached(0..6) && file.is_cached(2..2));
        // Nothing can be read there, so nothing is known of it.
        assert!(!file.is_cached(0..7));
        file.populate(3..3).unwrap();
        disk.remove(Path::new("a")).unwrap();
        drop(file);
        assert_eq!(&first[..], b"bc");
    }

    #[test]
    fn a_socket_takes_what_it_has_room_for() {
        let (_dir, disk) = disk();
        let file = disk.create(Path::new("a"), 8 << 20).unwrap();
        let bytes: Vec<u8> = (0..8 << 20).map(|at: u32| (at / 7) as u8).collect();
        file.write_at(0, &[IoSlice::new(&bytes)]).unwrap();
        let (sender, mut receiver) = std::os::unix::net::UnixStream::pair().unwrap();
        sender.set_nonblocking(true).unwrap();
        let (mut sent, mut received) = (5, vec![0; 64 << 10]);
        while sent < bytes.len() {
            match file.send(sent as u64..bytes.len() as u64, sender.as_fd()) {
                Ok(taken) => {
                    for part in bytes[sent..sent + taken].chunks(received.len()) {
                        receiver.read_exact(&mut received[..part.len()]).unwrap();
                        assert_eq!(received[..part.len()], *part);
                    }
                    sent += taken;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        let beyond = file.send(0..(8 << 20) + 1, sender.as_fd()).unwrap_err();
        assert_eq!(beyond.kind(), ErrorKind::InvalidInput);
        drop(receiver);
        let gone = file.send(0..10, sender.as_fd()).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn nobody_sees_beyond_what_was_written() {
        let (_dir, disk) = disk();
        let file = disk.create(Path::new("a"), 8).unwrap();
        file.write_at(0, &[IoSlice::new(b"abcd")]).unwrap();
        for range in [0..5, 5..6, 8..9] {
            assert_eq!(file.slice(range.clone()).unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(file.populate(range).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(
            file.write_at(6, &[IoSlice::new(b"abc")]).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        // Found in the file, so it may be seen, though the capacity asked for is less.
        let again = disk.open(Path::new("a"), 1).unwrap();
        assert_eq!(&again.slice(0..4).unwrap()[..], b"abcd");
    }

    #[test]
    fn a_write_of_many_parts_is_whole() {
        let (_dir, disk) = disk();
        let file = disk.create(Path::new("a"), 1 << 20).unwrap();
        let bytes: Vec<u8> = (0..3000u32).map(|i| i as u8).collect();
        let parts: Vec<IoSlice<'_>> = bytes.chunks(1).map(IoSlice::new).collect();
        file.write_at(10, &parts).unwrap();
        file.sync().unwrap();
        file.start_write_back(0..3010);
        file.finish_write_back(0..3010).unwrap();
        let mut read = vec![0; 4000];
        assert_eq!(file.read_at(10, &mut read).unwrap(), 3000);
        assert_eq!(read[..3000], bytes);
        assert_eq!(&file.slice(10..3010).unwrap()[..], &bytes[..]);
    }

    #[test]
    fn directories() {
        let (_dir, disk) = disk();
        disk.create_dir(Path::new("x/y")).unwrap();
        disk.create_dir(Path::new("x/y")).unwrap();
        disk.create(Path::new("x/y/2"), 0).unwrap();
        disk.create(Path::new("x/y/1"), 0).unwrap();
        let there = disk.create(Path::new("x/y/1"), 0).unwrap_err();
        assert_eq!(there.kind(), ErrorKind::AlreadyExists);
        assert_eq!(disk.list(Path::new("x/y")).unwrap(), ["1", "2"]);
        disk.rename(Path::new("x/y/1"), Path::new("x/y/3")).unwrap();
        disk.sync_dir(Path::new("x/y")).unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        assert_eq!(disk.list(Path::new("x/y")).unwrap(), ["2", "3"]);
        assert_eq!(disk.open(Path::new("x/y/1"), 0).unwrap_err().kind(), ErrorKind::NotFound);
        disk.remove_dir(Path::new("x")).unwrap();
        disk.remove_dir(Path::new("x")).unwrap();
        assert!(disk.list(Path::new("x/y")).unwrap().is_empty());
        for outside in ["/etc", "../a", "x/../../a"] {
            let error = disk.list(Path::new(outside)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{outside}");
        }
    }

    #[test]
    fn the_second_broker_is_refused() {
        let (_dir, disk) = disk();
        let lock = DirLock::acquire(disk.root()).unwrap();
        let refused = DirLock::acquire(disk.root()).unwrap_err();
        assert!(refused.to_string().ends_with("is in use by another broker"));
        drop(lock);
        DirLock::acquire(disk.root()).unwrap();
    }
}
