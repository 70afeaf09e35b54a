//! Makes what the logs of a disk wrote durable, in rounds.
//!
//! ```text
//! take the queue ─ sync large writes in place ─ one write to the set ─ one sync ─ complete tickets
//!                                     │
//!                     a few segments, names and rows of the oldest file, to retire it
//! ```
//!
//! **Invariants.** A ticket completes only when everything that was pushed before it is durable.
//! After a failed write nothing has happened: the items stay queued. After a failed sync the disk
//! is poisoned for ever, because what a later sync says of the same pages is not true.
//!
//! A thread-free object: the broker's thread is a loop around [`FlushQueue::wait`] and
//! [`Flusher::round`], the simulator calls `round` itself. Everything that must survive is in the
//! write-ahead set ([`crate::wal`]), and a flusher begins with what recovery found there.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use self::dirty::DirtySegments;
use self::entries::{Entries, Removal};
use self::plan::Plan;
pub use self::queue::FlushQueue;
use self::retire::{Retired, Retirement};
use crate::disk::Disk;
use crate::flush::{FlushItem, SegmentFile};
use crate::ids::{FileId, Place, ReplicaId};
use crate::node::NodeState;
use crate::paths::{parse_replica_dir_name, parse_segment_file_name, replica_dir};
use crate::segment::SEGMENT_HEADER_BYTES;
use crate::state::ReplicaState;
use crate::wal::{Failure, Record, Recovered, RoundBuilder, Wal};

mod dirty;
mod entries;
mod plan;
mod queue;
mod retire;

/// What a round did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Round {
    /// The highest ticket of each replica that completed.
    pub completed: Vec<(ReplicaId, u64)>,
    /// What it took.
    pub stats: RoundStats,
}

/// The work of a round, for metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RoundStats {
    /// Items that completed.
    pub items: u64,
    /// Bytes written to the write-ahead set.
    pub wal_bytes: u64,
    /// Records in them.
    pub wal_records: u64,
    /// Segments and side files that were synced in place, for their items.
    pub synced_in_place: u64,
}

/// Why a round did not complete.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// A write failed, as on a full disk. The items are still queued: try again later.
    #[error("cannot write ahead: {0}")]
    Write(#[source] io::Error),
    /// A sync failed, now or earlier. Nothing will complete any more.
    #[error("the disk is poisoned: a sync failed")]
    Poisoned,
}

/// The row of a replica, and which files of the set it keeps from being retired.
#[derive(Debug)]
struct Row {
    state: ReplicaState,
    /// The file that has the row.
    sequence: u64,
    /// The file that has the only record of what the row will say in `durable`.
    synced_in: Option<u64>,
}

/// The flusher of one disk.
#[derive(Debug)]
pub struct Flusher {
    disk: Arc<dyn Disk>,
    queue: Arc<FlushQueue>,
    wal: Wal,
    rows: BTreeMap<ReplicaId, Row>,
    node: Option<NodeState>,
    /// The file of the set that has the node's row, if it is up to date.
    node_sequence: Option<u64>,
    dirty: DirtySegments,
    entries: Entries,
    /// What was synced in place, and is not recorded in the set yet.
    unrecorded: BTreeMap<FileId, u64>,
    unrecorded_bytes: u64,
    retirement: Option<Retirement>,
    write_back: Vec<(Arc<SegmentFile>, Range<u64>)>,
}

impl Flusher {
    /// Takes over what recovery found. Every log must have been recovered before the first round.
    pub fn new(recovered: Recovered, disk: Arc<dyn Disk>, queue: Arc<FlushQueue>) -> Self {
        let Recovered { wal, replicas, durable, node, dirs, .. } = recovered;
        let sequence = wal.sequence();
        let mut dirty = DirtySegments::default();
        for (id, end) in durable.into_iter().collect::<BTreeMap<_, _>>() {
            // The set has the only record of how far it is durable, so it counts as dirty. What a
            // row says is durable to the end needs no record.
            if end > 0 && end < u64::MAX {
                dirty.insert(id, end, sequence);
            }
        }
        let row = |state| Row { state, sequence, synced_in: None };
        let rows = replicas.into_iter().map(|(replica, state)| (replica, row(state))).collect();
        Self {
            disk,
            queue,
            wal,
            rows,
            node_sequence: node.is_some().then_some(sequence),
            node,
            dirty,
            entries: Entries::new(dirs),
            unrecorded: BTreeMap::new(),
            unrecorded_bytes: 0,
            retirement: None,
            write_back: Vec::new(),
        }
    }

    /// What the kernel may begin to write, as the rounds since the last call were told. For a thread
    /// of its own: asking the kernel waits while the disk is busy. Nothing is lost if nobody does.
    pub fn take_write_back(&mut self) -> Vec<(Arc<SegmentFile>, Range<u64>)> {
        std::mem::take(&mut self.write_back)
    }

    /// The node's row as of the last round.
    pub fn node(&self) -> Option<&NodeState> {
        self.node.as_ref()
    }

    /// Changes the node's row, with the next round. A broker does it first of all, with `clean`
    /// unset, before it lets anything be written.
    pub fn set_node(&mut self, node: NodeState) {
        self.node = Some(node);
        self.node_sequence = None;
    }

    /// Makes the queued items durable: all of them, unless they are more than a round may have.
    pub fn round(&mut self) -> Result<Round, FlushError> {
        if self.queue.is_poisoned() {
            return Err(FlushError::Poisoned);
        }
        let mut items = self.queue.take(self.wal.config().round_bytes_max);
        for item in &items {
            match item {
                FlushItem::Node(node) => self.set_node(node.clone()),
                FlushItem::WriteBack { file, range } => {
                    self.write_back.push((file.clone(), range.clone()));
                }
                _ => {}
            }
        }
        if items.is_empty() && !self.node_is_stale() {
            return Ok(Round::default());
        }
        match self.flush(&items, false) {
            Ok(round) => {
                self.queue.complete(&items);
                Ok(round)
            }
            Err(failure) => {
                // These were handed on.
                items.retain(FlushItem::is_awaited);
                self.queue.put_back(items);
                Err(self.report(failure))
            }
        }
    }

    /// Stops in order: flushes the queue, syncs every segment in place and marks the node clean.
    /// Nothing may be pushed any more. Returns what completed. What a page-cache log wrote without
    /// telling the flusher it must have pushed as [`FlushItem::Sync`] before.
    pub fn shutdown(&mut self) -> Result<Vec<Round>, FlushError> {
        let mut rounds = Vec::new();
        while !self.queue.is_empty() || self.node_is_stale() {
            rounds.push(self.round()?);
        }
        if self.queue.is_poisoned() {
            return Err(FlushError::Poisoned);
        }
        let was = self.node.clone();
        if let Some(node) = &mut self.node {
            node.clean = true;
            self.node_sequence = None;
        }
        match self.sync_all().and_then(|()| self.flush(&[], true)) {
            Ok(round) => {
                rounds.push(round);
                Ok(rounds)
            }
            Err(failure) => {
                self.node = was;
                Err(self.report(failure))
            }
        }
    }

    fn report(&mut self, failure: Failure) -> FlushError {
        match failure {
            Failure::Write(error) => FlushError::Write(error),
            Failure::Sync(error) => {
                tracing::error!(%error, "a sync failed: the disk is given up");
                self.queue.poison();
                FlushError::Poisoned
            }
        }
    }

    fn node_is_stale(&self) -> bool {
        self.node.is_some() && self.node_sequence.is_none()
    }

    /// One round for `items`. With `retire_all` no file but the current one is needed afterwards.
    fn flush(&mut self, items: &[FlushItem], retire_all: bool) -> Result<Round, Failure> {
        let plan = Plan::of(items, self.wal.config());
        let mut stats = RoundStats { items: items.len() as u64, ..RoundStats::default() };
        self.sync_in_place(&plan, &mut stats)?;
        let unrecorded_max = self.wal.config().synced_unrecorded_bytes_max;
        let overdue = self.unrecorded_bytes >= unrecorded_max;
        if plan.needs_round() || self.node_is_stale() || overdue || retire_all {
            let round = self.write_ahead(&plan, retire_all).inspect_err(|_| {
                // The rows that were to be in the round are not rewritten.
                self.retirement = None;
            })?;
            stats.wal_bytes = round.framed_bytes();
            stats.wal_records = round.records();
            self.settle(&plan);
        }
        // What is not removed now is removed later; the items are durable all the same.
        if let Err(error) = self.entries.remove(&*self.disk) {
            tracing::warn!(%error, "a deleted file is still there");
        }
        Ok(Round { completed: plan.tickets.into_iter().collect(), stats })
    }

    /// Syncs side files, and the segments whose writes do not go through the set.
    fn sync_in_place(&mut self, plan: &Plan<'_>, stats: &mut RoundStats) -> Result<(), Failure> {
        for file in &plan.side_files {
            file.sync().map_err(Failure::Sync)?;
            stats.synced_in_place += 1;
        }
        for dir in &plan.side_dirs {
            let name = dir.file_name().and_then(|name| name.to_str());
            match name.and_then(parse_replica_dir_name) {
                // With the name of the directory, else all in it may be lost.
                Some(replica) => self.entries.link(&*self.disk, replica, true),
                None => entries::sync_dir(&*self.disk, dir),
            }
            .map_err(Failure::Sync)?;
        }
        for (&id, dirty) in plan.dirty.iter().filter(|(_, dirty)| dirty.in_place) {
            let created = plan.created.iter().any(|(file, _)| file.id == id);
            self.entries.link(&*self.disk, id.replica, created).map_err(Failure::Sync)?;
            dirty.file.file.sync().map_err(Failure::Sync)?;
            self.dirty.remove(id);
            self.unrecorded_bytes += dirty.bytes;
            self.synced(id, dirty.end)?;
            stats.synced_in_place += 1;
        }
        Ok(())
    }

    /// Writes and syncs the round of a plan.
    fn write_ahead(&mut self, plan: &Plan<'_>, retire_all: bool) -> Result<RoundBuilder, Failure> {
        self.wal.prepare()?;
        let mut round = RoundBuilder::default();
        for record in plan.records() {
            round.push(&record);
        }
        for (&replica, &state) in &plan.rows {
            let state = self.with_durable(replica, state);
            round.push(&Record::State { replica, state });
        }
        if !self.wal.has_room(round.framed_bytes()) {
            self.wal.rotate()?;
        }
        let Retired { oldest, rewritten } = self.retire(&mut round, plan, retire_all)?;
        for (&file, &position) in &self.unrecorded {
            round.push(&Record::Synced { file, position });
        }
        let holds_node = self.node_sequence.is_none_or(|sequence| sequence < oldest);
        if let Some(node) = self.node.clone().filter(|_| holds_node) {
            round.push(&Record::Node(node));
        }
        self.wal.append(&round, oldest)?;
        self.entries.said_again(oldest, self.wal.sequence());
        if holds_node && self.node.is_some() {
            self.node_sequence = Some(self.wal.sequence());
        }
        for replica in rewritten {
            let row = self.rows.get_mut(&replica).expect("rewritten from the rows just now");
            row.sequence = self.wal.sequence();
            row.synced_in = None;
        }
        Ok(round)
    }

    /// Remembers what the round just written holds.
    fn settle(&mut self, plan: &Plan<'_>) {
        let sequence = self.wal.sequence();
        for (file, _) in &plan.created {
            self.entries.created(file.id.replica, sequence);
            if !plan.dirty.get(&file.id).is_some_and(|dirty| dirty.in_place) {
                self.dirty.wrote(file, SEGMENT_HEADER_BYTES, sequence);
            }
        }
        for dirty in plan.dirty.values().filter(|dirty| !dirty.in_place) {
            self.dirty.wrote(dirty.file, dirty.end, sequence);
        }
        for (&replica, &state) in &plan.rows {
            let state = self.with_durable(replica, state);
            self.rows.insert(replica, Row { state, sequence, synced_in: None });
        }
        for id in std::mem::take(&mut self.unrecorded).into_keys() {
            if let Some(row) = self.rows.get_mut(&id.replica) {
                row.synced_in.get_or_insert(sequence);
            }
        }
        self.unrecorded_bytes = 0;
        for &(id, path) in &plan.deleted {
            self.dirty.remove(id);
            self.entries.gone(Removal::File(id, path.to_path_buf()), sequence);
        }
        for (&replica, &dir) in &plan.forgotten {
            self.rows.remove(&replica);
            self.dirty.remove_replica(replica);
            self.entries.forget(replica);
            self.entries.gone(Removal::Dir(replica, dir.to_path_buf()), sequence);
        }
    }

    /// A row as it is written: how far the log is durable is the flusher's to say.
    fn with_durable(&self, replica: ReplicaId, state: &ReplicaState) -> ReplicaState {
        let known = self.rows.get(&replica).and_then(|row| row.state.durable);
        let place = |durable: Option<Place>| durable.map(|place| (place.segment, place.position));
        let durable = if place(known) > place(state.durable) { known } else { state.durable };
        ReplicaState { durable, ..state.clone() }
    }

    /// All bytes of a segment up to `end` are durable in its file, under a durable name. If that
    /// is the newest segment of its log that the flusher heard of, the older ones are synced too:
    /// a page-cache log does not tell what it writes.
    fn synced(&mut self, id: FileId, end: u64) -> Result<(), Failure> {
        let recorded = self.unrecorded.entry(id).or_default();
        *recorded = end.max(*recorded);
        let Some(row) = self.rows.get_mut(&id.replica) else {
            // No row to say it in: the record is written again when its file is retired.
            self.dirty.insert(id, end, self.wal.sequence());
            return Ok(());
        };
        let from = match row.state.durable {
            Some(place) if place.segment > id.segment => return Ok(()),
            Some(place) if place.segment == id.segment => {
                let position = end.max(place.position);
                row.state.durable = Some(Place { position, ..place });
                return Ok(());
            }
            Some(place) => Some(place.segment),
            None => None,
        };
        let dir = replica_dir(id.replica);
        for name in self.disk.list(&dir).map_err(Failure::Write)? {
            let Some(segment) = parse_segment_file_name(&name) else { continue };
            if Some(segment) >= from && segment < id.segment {
                match self.disk.open(&dir.join(name), 0) {
                    Ok(file) => file.sync().map_err(Failure::Sync)?,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(Failure::Write(error)),
                }
            }
        }
        row.state.durable = Some(Place { segment: id.segment, position: end });
        Ok(())
    }
}

/// The replicas whose row, or what it says of `durable`, only the file `sequence` or an older one
/// of the set has.
fn rows_held_by(rows: &BTreeMap<ReplicaId, Row>, sequence: u64) -> Vec<ReplicaId> {
    let held = |row: &Row| {
        row.sequence <= sequence || row.synced_in.is_some_and(|synced| synced <= sequence)
    };
    rows.iter().filter(|(_, row)| held(row)).map(|(replica, _)| *replica).collect()
}

#[cfg(test)]
mod tests;
