//! Which directory entries are not durable yet.
//!
//! A segment that was created lives on in the write-ahead set until its name is durable; before
//! anything of it counts as durable *in its own file*, its name must be, and the name of its
//! directory.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, ignore_missing};
use crate::ids::{FileId, ReplicaId};
use crate::paths::{LOGS_DIR, replica_dir};
use crate::wal::Record;

/// A file or directory to be removed, once the set says durably that it is gone.
#[derive(Debug)]
pub(super) enum Removal {
    File(FileId, PathBuf),
    Dir(ReplicaId, PathBuf),
}

impl Removal {
    fn path(&self) -> &Path {
        let (Self::File(_, path) | Self::Dir(_, path)) = self;
        path
    }

    /// What the set says of it.
    fn record(&self) -> Record {
        match self {
            Self::File(file, _) => Record::Delete { file: *file },
            Self::Dir(replica, _) => Record::Forget { replica: *replica },
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Entries {
    /// Replicas whose directory has a durable name.
    known: BTreeSet<ReplicaId>,
    /// Replicas with a segment whose name may not be durable.
    unlinked: BTreeSet<ReplicaId>,
    /// By file of the set: directories that are to be synced before it is retired.
    changed: BTreeMap<u64, BTreeSet<PathBuf>>,
    /// By file of the set, in order: what it says is gone, and is not removed yet.
    removals: Vec<(u64, Removal)>,
}

impl Entries {
    /// The directories that recovery found have durable names.
    pub(super) fn new(known: BTreeSet<ReplicaId>) -> Self {
        Self { known, ..Self::default() }
    }

    /// A segment was created, as the file `sequence` of the set says.
    pub(super) fn created(&mut self, replica: ReplicaId, sequence: u64) {
        let changed = self.changed.entry(sequence).or_default();
        changed.insert(replica_dir(replica));
        if !self.known.contains(&replica) {
            changed.insert(LOGS_DIR.into());
        }
        self.unlinked.insert(replica);
    }

    /// A segment or a replica is gone, as the file `sequence` of the set says.
    pub(super) fn gone(&mut self, removal: Removal, sequence: u64) {
        self.changes(&removal, sequence);
        self.removals.push((sequence, removal));
    }

    fn changes(&mut self, removal: &Removal, sequence: u64) {
        let parent = removal.path().parent().unwrap_or(Path::new("")).to_path_buf();
        self.changed.entry(sequence).or_default().insert(parent);
    }

    /// The replica will never come back.
    pub(super) fn forget(&mut self, replica: ReplicaId) {
        self.known.remove(&replica);
        self.unlinked.remove(&replica);
    }

    /// Makes the names of all segments of a replica durable. `created` says that this round may
    /// have created one of which [`Entries::created`] does not know yet.
    pub(super) fn link(
        &mut self,
        disk: &dyn Disk,
        replica: ReplicaId,
        created: bool,
    ) -> io::Result<()> {
        if !self.known.contains(&replica) {
            sync_dir(disk, Path::new(LOGS_DIR))?;
            self.known.insert(replica);
        }
        if created || self.unlinked.contains(&replica) {
            sync_dir(disk, &replica_dir(replica))?;
            self.unlinked.remove(&replica);
        }
        Ok(())
    }

    /// Removes what is gone. What cannot be removed now is tried again, and keeps nothing else.
    pub(super) fn remove(&mut self, disk: &dyn Disk) -> io::Result<()> {
        let mut failure = None;
        self.removals.retain(|(_, removal)| {
            let removed = match removal {
                Removal::File(_, path) => ignore_missing(disk.remove(path)),
                Removal::Dir(_, path) => disk.remove_dir(path),
            };
            removed.map_err(|error| failure.get_or_insert(error).kind()).is_err()
        });
        failure.map_or(Ok(()), Err)
    }

    /// What the file `sequence` or an older one says is gone, and is still there: the records that
    /// are to be in a newer file before that one is not needed.
    pub(super) fn owed(&self, sequence: u64) -> impl Iterator<Item = Record> {
        let owed = self.removals.iter().take_while(move |(of, _)| *of <= sequence);
        owed.map(|(_, removal)| removal.record())
    }

    /// What files before `oldest` say is gone was said again in the file `sequence`.
    pub(super) fn said_again(&mut self, oldest: u64, sequence: u64) {
        let count = self.removals.partition_point(|(of, _)| *of < oldest);
        for (_, removal) in self.removals.drain(..count).collect::<Vec<_>>() {
            self.gone(removal, sequence);
        }
    }

    /// Syncs one of the directories that are to be synced before the file `sequence` is retired.
    /// Returns whether there was one.
    pub(super) fn sync_changed(&mut self, disk: &dyn Disk, sequence: u64) -> io::Result<bool> {
        while let Some(mut first) = self.changed.first_entry()
            && *first.key() <= sequence
        {
            if let Some(dir) = first.get().first() {
                sync_dir(disk, dir)?;
                first.get_mut().pop_first();
                return Ok(true);
            }
            first.remove();
        }
        Ok(false)
    }
}

/// Syncs a directory, which may have been removed since.
pub(super) fn sync_dir(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    ignore_missing(disk.sync_dir(dir))
}
