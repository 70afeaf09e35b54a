//! Segments whose creation failed, and which may be there all the same.
//!
//! A segment ends where a newer one begins, and recovery knows a segment by its header alone. So a
//! file whose header was written by a call that failed would end the log at a place where the log
//! went on in an older segment, and take away what was promised since; and so would one that was
//! removed, if a power cut takes back the removal. Until the log goes on that does no harm: a
//! segment that begins at the end is empty, and one that was to begin before the end was to cut off
//! what raft had given up.
//!
//! **Invariant:** before a batch is written or another segment begins, the removal of every failed
//! attempt is on its way to the flusher, and so durable before anything after it is promised.

use std::io;

use super::PartitionLog;
use crate::disk::{Disk, ignore_missing};
use crate::flush::FlushItem;
use crate::ids::FileId;
use crate::paths::segment_path;

/// The failed attempts since the log went on last. However many there were, one file is left.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// One that could not be removed.
    stray: Option<FileId>,
    /// Some that were removed; the directory does not durably say so.
    removed: bool,
}

impl Attempts {
    /// The creation of a segment failed.
    pub(super) fn failed(&mut self, disk: &dyn Disk, id: FileId) {
        self.removed = true;
        self.stray = Some(id);
        if let Err(error) = self.clear_away(disk) {
            tracing::warn!(segment = %id.segment, %error, "a failed segment is still there");
        }
    }

    /// Removes what is left, before another attempt.
    pub(super) fn clear_away(&mut self, disk: &dyn Disk) -> io::Result<()> {
        if let Some(id) = self.stray {
            ignore_missing(disk.remove(&segment_path(id)))?;
            self.stray = None;
        }
        Ok(())
    }
}

impl PartitionLog {
    /// Makes sure that failed attempts never count, as the log goes on without them.
    pub(super) fn renounce_attempts(&mut self) {
        let Attempts { stray, removed } = std::mem::take(&mut self.attempts);
        if let Some(id) = stray {
            self.outbox.push(FlushItem::Delete { id, path: segment_path(id) });
        }
        if removed {
            // For the directory's sake.
            let file = self.active.file.clone();
            self.outbox.push(FlushItem::Sync { file, dir: self.dir.clone() });
        }
    }
}
