//! The write-ahead file set of a disk: one small write and one sync make the changes of a thousand
//! segments durable at once.
//!
//! The set is the files `wal/{sequence}.wal`. Rounds are written one after the other
//! to the newest; when it is full the next one takes over, which is an old file renamed, because
//! a sync over blocks that were written before costs half of one that extends a file. A file is
//! *retired* once nothing in it is needed any more: the segments it speaks of are synced in place
//! and the rows in it have been written again (see [`crate::flusher`]).
//!
//! **Invariants.** A round is written only when the one before is durable, so an invalid round
//! with a valid one behind it is damage, and one with nothing behind it is a torn tail that nobody
//! was promised. A file is renamed or removed only when a durable round says in `oldest` that it
//! is not needed. [`recover`] reads the set, puts everything in place and starts a fresh file.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::file::WalFile;
use self::round::{ROUND_ALIGNMENT, RoundHeader};
use crate::disk::Disk;
use crate::paths::{WAL_DIR, wal_path};

mod file;
mod record;
mod recover;
mod round;

pub use self::record::{Record, RecordError};
pub use self::recover::{Recovered, Redone, recover};
pub(crate) use self::round::RoundBuilder;
pub use self::round::{Dumped, RoundError, RoundHeader as DumpedHeader, dump};

/// Limits of the write-ahead file set and its flusher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalConfig {
    /// Size of the first file of an empty node, small so that it starts in milliseconds.
    pub first_file_bytes: u64,
    /// Size of the files after it. A round that is larger than a file still fits: the file grows.
    pub file_bytes: u64,
    /// How many files may be needed at a time. When the next would pass it, the oldest is retired
    /// at once, however long that takes. At least 2.
    pub files_max: usize,
    /// Bytes of batches that one round takes from the queue (more if one alone is larger).
    pub round_bytes_max: u64,
    /// Writes up to this size go through the set; a segment with a larger one is synced in place.
    pub write_bytes_max: u64,
    /// A segment that is the only dirty one, with nothing else to write, is synced in place if it
    /// has at least this many new bytes. Below, the set is faster although the bytes are written
    /// twice: a sync of a growing file commits its size too (best of 80, in place and ahead: 32 KiB
    /// 390 and 361 us, 64 KiB 465 and 282, 256 KiB 517 and 479, 1 MiB 1135 and 999).
    pub alone_bytes_min: u64,
    /// A round is written at the latest when so many bytes were synced in place without the set
    /// knowing: what it does not know is scanned at a restart.
    pub synced_unrecorded_bytes_max: u64,
    /// Segments synced per round while a file is being retired.
    pub retired_segments_per_round: usize,
    /// Rows rewritten per round while a file is being retired.
    pub retired_rows_per_round: usize,
    /// A random number, used when the set is begun; see [`DumpedHeader::salt`].
    pub salt: u64,
}

impl Default for WalConfig {
    fn default() -> Self {
        Self {
            first_file_bytes: 1 << 20,
            file_bytes: 64 << 20,
            files_max: 4,
            round_bytes_max: 8 << 20,
            write_bytes_max: 64 << 10,
            alone_bytes_min: 256 << 10,
            synced_unrecorded_bytes_max: 8 << 20,
            retired_segments_per_round: 8,
            retired_rows_per_round: 256,
            salt: 0,
        }
    }
}

/// Why the set cannot be recovered. The disk is not to be used then.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The disk did not do what it was asked; recovery may be tried again.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// A round that was durable once is not readable.
    #[error("{} is damaged at byte {position}: round {number} follows it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where a round should be.
        position: u64,
        /// A later round, which is readable.
        number: u64,
    },
    /// A file that is still needed is not there.
    #[error("{} is missing", .0.display())]
    Missing(PathBuf),
    /// There are logs, but no write-ahead file with a round in it.
    #[error("the directory {WAL_DIR} holds nothing although there are logs")]
    Lost,
    /// A newer program wrote a round.
    #[error("{}: {source}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        source: RoundError,
    },
    /// A round is readable, but not its content.
    #[error("{} at byte {position}: {source}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Where the round begins.
        position: u64,
        /// What is wrong with it.
        source: RecordError,
    },
}

impl WalError {
    fn io<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Self + use<'a> {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }
}

/// Why something did not become durable.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing was promised and nothing is lost: it may be tried again.
    Write(io::Error),
    /// A sync failed: what the page cache holds may never reach the disk, and no later sync tells.
    Sync(io::Error),
}

/// The open set: appends rounds, moves from file to file. It does not know what rounds mean.
#[derive(Debug)]
pub struct Wal {
    disk: Arc<dyn Disk>,
    config: WalConfig,
    /// Files before the current one that are still needed, oldest first.
    live: VecDeque<u64>,
    current: WalFile,
    /// Where the next round begins.
    position: u64,
    /// What takes over when the current file is full; its name is durable.
    next: Option<WalFile>,
    /// A retired file, not yet renamed.
    spare: Option<u64>,
    /// The number of the next round.
    number: u64,
    /// Whether a failed write may have left a round of that number at the position.
    attempted: bool,
    salt: u64,
    /// The highest name ever used.
    sequence_max: u64,
}

impl Wal {
    pub(crate) fn config(&self) -> &WalConfig {
        &self.config
    }

    /// The file that the next round goes to.
    pub(crate) fn sequence(&self) -> u64 {
        self.current.sequence
    }

    /// The files before the current one that are still needed, oldest first.
    pub(crate) fn live(&self) -> Vec<u64> {
        self.live.iter().copied().collect()
    }

    /// Whether a round of this size has room in the current file.
    pub(crate) fn has_room(&self, framed_bytes: u64) -> bool {
        self.position == 0 || self.position + framed_bytes <= self.current.size
    }

    /// Moves on to the next file. No round is written yet.
    pub(crate) fn rotate(&mut self) -> Result<(), Failure> {
        if self.attempted {
            // The attempt may be whole, and the same number will stand in the next file.
            let zeros = [0; ROUND_ALIGNMENT as usize];
            let parts = [IoSlice::new(&zeros)];
            self.current.file.write_at(self.position, &parts).map_err(Failure::Write)?;
            self.current.file.sync().map_err(Failure::Sync)?;
            self.attempted = false;
        }
        let next = match self.next.take() {
            Some(next) => next,
            None => self.acquire()?,
        };
        let full = std::mem::replace(&mut self.current, next);
        self.live.push_back(full.sequence);
        self.position = 0;
        Ok(())
    }

    /// Writes a round and syncs it. Files before `oldest` are not needed from then on. After a
    /// failed write the same round number will stand at the same place.
    pub(crate) fn append(&mut self, round: &RoundBuilder, oldest: u64) -> Result<(), Failure> {
        assert!(oldest <= self.current.sequence, "the current file is always needed");
        let sequence = self.current.sequence;
        let header = RoundHeader { sequence, number: self.number, oldest, salt: self.salt };
        self.attempted = true;
        round
            .write(&header, |parts| self.current.file.write_at(self.position, parts))
            .map_err(Failure::Write)?;
        self.current.file.sync().map_err(Failure::Sync)?;
        self.attempted = false;
        self.number += 1;
        self.position += round.framed_bytes();
        self.current.size = self.current.size.max(self.position);
        while let Some(retired) = self.live.pop_front_if(|live| *live < oldest) {
            self.give_back(retired);
        }
        Ok(())
    }

    /// Gets the next file ready, bit by bit, while the current one fills: at its half the file is
    /// made, at its end it is filled. A disk without room for it is no error yet.
    pub(crate) fn prepare(&mut self) -> Result<(), Failure> {
        let late = (self.position * 2).saturating_sub(self.current.size);
        if late == 0 {
            return Ok(());
        }
        if self.next.is_none() {
            match self.acquire() {
                Ok(next) => self.next = Some(next),
                Err(Failure::Write(error)) => {
                    tracing::debug!(%error, "no next write-ahead file yet");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        let share = late as f64 / self.current.size as f64;
        let until = (self.config.file_bytes as f64 * share.min(1.0)) as u64;
        if let Some(next) = &mut self.next
            && let Err(error) = next.fill(until)
        {
            tracing::debug!(%error, "the next write-ahead file is not filled");
        }
        Ok(())
    }

    /// An unused file under a name of its own, durably.
    fn acquire(&mut self) -> Result<WalFile, Failure> {
        self.sequence_max += 1;
        let sequence = self.sequence_max;
        let file = match self.spare {
            Some(spare) => WalFile::recycle(&*self.disk, spare, sequence),
            None => WalFile::create(&*self.disk, sequence),
        };
        let file = file.map_err(Failure::Write)?;
        self.spare = None;
        self.disk.sync_dir(Path::new(WAL_DIR)).map_err(Failure::Sync)?;
        Ok(file)
    }

    /// Keeps a file that is not needed for later, or removes it. One that cannot be removed, or
    /// comes back because nobody synced the directory, is removed at the next start.
    fn give_back(&mut self, sequence: u64) {
        if self.spare.is_none() {
            self.spare = Some(sequence);
        } else if let Err(error) = self.disk.remove(&wal_path(sequence)) {
            tracing::debug!(%error, sequence, "a write-ahead file is left over");
        }
    }
}

#[cfg(test)]
mod tests;
