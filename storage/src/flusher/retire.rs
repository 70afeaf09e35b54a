//! Retires the oldest file of the write-ahead set, a little in every round, so that it can be used
//! again without a stall.
//!
//! In this order: what it says is gone is removed; the names that it created or removed are synced;
//! the segments that it holds bytes of are synced in place and recorded; the rows that only it has,
//! and what could not be removed, are written again. The round that completes this says that the
//! file is not needed any more.

use std::io;

use super::plan::Plan;
use super::{Flusher, rows_held_by};
use crate::ids::{FileId, ReplicaId};
use crate::paths::segment_path;
use crate::wal::{Failure, Record, RoundBuilder};

/// The rows that are left to be written before a file is not needed. Names and segments are looked
/// up as it goes on: a sync is a fact, even if the round that was to follow fails, but a row is not
/// rewritten then, and the list is made anew.
#[derive(Debug)]
pub(super) struct Retirement {
    sequence: u64,
    rows: Vec<ReplicaId>,
}

/// What a round that is being built will have done once it is written.
#[derive(Debug)]
pub(super) struct Retired {
    /// The oldest file that is still needed then.
    pub(super) oldest: u64,
    /// The rows it has that are not in the plan.
    pub(super) rewritten: Vec<ReplicaId>,
}

impl Flusher {
    /// Goes on with the oldest file. With `all`, and while the set has too many files, it goes on
    /// until it is done.
    pub(super) fn retire(
        &mut self,
        round: &mut RoundBuilder,
        plan: &Plan<'_>,
        all: bool,
    ) -> Result<Retired, Failure> {
        let live = self.wal.live();
        let mut retired = Retired { oldest: self.wal.sequence(), rewritten: Vec::new() };
        for (done, &sequence) in live.iter().enumerate() {
            let files = live.len() - done + 1;
            let hurry = all || files > self.wal.config().files_max;
            let mut retirement = match self.retirement.take() {
                Some(begun) if begun.sequence == sequence => begun,
                _ => Retirement { sequence, rows: rows_held_by(&self.rows, sequence) },
            };
            let step = self.step(&mut retirement, round, plan, &mut retired.rewritten, hurry);
            if !matches!(step, Ok(true)) {
                self.retirement = Some(retirement);
                retired.oldest = sequence;
                return step.map(|_| retired);
            }
        }
        Ok(retired)
    }

    /// Whether it is done.
    fn step(
        &mut self,
        retirement: &mut Retirement,
        round: &mut RoundBuilder,
        plan: &Plan<'_>,
        rewritten: &mut Vec<ReplicaId>,
        hurry: bool,
    ) -> Result<bool, Failure> {
        let config = self.wal.config();
        let mut syncs = if hurry { usize::MAX } else { config.retired_segments_per_round };
        let mut rows = if hurry { usize::MAX } else { config.retired_rows_per_round };
        let sequence = retirement.sequence;
        if self.entries.owed(sequence).next().is_some()
            && let Err(error) = self.entries.remove(&*self.disk)
        {
            // A file that nobody can remove holds up nothing else.
            tracing::debug!(%error, "a deleted file is still there, and is recorded again");
        }
        while syncs > 0
            && self.entries.sync_changed(&*self.disk, sequence).map_err(Failure::Sync)?
        {
            syncs -= 1;
        }
        while syncs > 0
            && let Some(id) = self.dirty.held_by(sequence)
        {
            self.sync_dirty(id)?;
            syncs -= 1;
        }
        if syncs == 0 {
            return Ok(false);
        }
        while let Some(&replica) = retirement.rows.last() {
            if rows == 0 {
                return Ok(false);
            }
            retirement.rows.pop();
            if plan.rows.contains_key(&replica) || plan.forgotten.contains_key(&replica) {
                continue;
            }
            let Some(row) = self.rows.get(&replica) else { continue };
            round.push(&Record::State { replica, state: row.state.clone() });
            rewritten.push(replica);
            rows -= 1;
        }
        self.entries.owed(sequence).for_each(|record| round.push(&record));
        Ok(true)
    }

    /// Syncs every dirty segment in its own file.
    pub(super) fn sync_all(&mut self) -> Result<(), Failure> {
        self.dirty.all().into_iter().try_for_each(|id| self.sync_dirty(id))
    }

    fn sync_dirty(&mut self, id: FileId) -> Result<(), Failure> {
        let Some(dirty) = self.dirty.get(id) else { return Ok(()) };
        let end = dirty.end;
        let file = match &dirty.segment {
            Some(segment) => segment.file.clone(),
            None => match self.disk.open(&segment_path(id), 0) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.dirty.remove(id);
                    return Ok(());
                }
                Err(error) => return Err(Failure::Write(error)),
            },
        };
        self.entries.link(&*self.disk, id.replica, false).map_err(Failure::Sync)?;
        file.sync().map_err(Failure::Sync)?;
        self.dirty.remove(id);
        self.synced(id, end)
    }
}
