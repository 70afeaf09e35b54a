//! Opens the log of a replica after a stop of any kind.
//!
//! The rule of truncation is all there is to it: among the segments of the row's generation, *a
//! segment ends where a newer one begins*. Each is known from its index file as far as that goes
//! and scanned from there: by headers below its durable place, checksums included above it. A bad
//! batch above that place is a torn tail and ends the log; below it is damage, and the replica is to
//! be fenced. Where something other than zeros lies behind the end, a new segment is started
//! instead of ever writing over it. Everything found is synced before the log is handed out, since
//! raft counts a recovered tail as persisted.
//!
//! **Latent damage.** A bit that flips in what was durable is never taken for a torn tail, and never
//! believed where raft or a consumer would act on it:
//!
//! - A segment's header has a checksum, and must join the segment before. An index file has one, and
//!   must name the epochs that the row names; a bad one is built again.
//! - The prefix of a batch (offset, length, epoch, magic) lies outside the batch's checksum, but all
//!   of it is known twice: offsets are dense, the row names the epochs, and the next batch begins
//!   where this one ends. It is held against that where no index covers it, and whenever a batch is
//!   read (see `segments::Trail`). Where no next batch tells the length, at the end
//!   of the log and of every segment that is scanned, the checksum of the whole batch does.
//! - Whole batches are held against their checksums above the durable place, where they are internal
//!   and no index covers them, and where they are sent to a follower from the disk, or received.
//!
//! Payloads below the durable place are not read at a start: that would be all of the disk. A
//! consumer is sent them as they are, with the checksum that it looks at; and of the batches inside
//! a run that it is sent, only the first and the last have their prefix looked at here. Those that
//! this process wrote lately lie in memory as they were written, and are not checked either.
//!
//! **Segment ids only grow.** The next id is one more than the greatest name in the directory. That
//! is safe without remembering ids: a file that the write-ahead set can name is removed only after
//! a segment with a greater id is durable (a log always has a segment to write to, and it is the
//! newest), and files of a generation that was never switched to are named by no record.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use vltava_protocol::ids::Offset;

use crate::bugs::{Bug, planted};
use crate::disk::Disk;
use crate::flush::{FlushItem, SegmentFile};
use crate::ids::{FileId, Generation, LogIndex, Place, ReplicaId, SegmentId};
use crate::index::{BatchStart, SegmentIndex};
use crate::log::{
    Durability, Ids, LogConfig, PartitionLog, Parts, ReadError, create_segment,
    log_start_forgotten, producers_as_of,
};
use crate::paths::{
    index_file_name, parse_producers_file_name, parse_segment_file_name, replica_dir, segment_path,
};
use crate::scan::read_at;
use crate::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use crate::segment_header::HeaderError;
use crate::side_file;
use crate::state::ReplicaState;

mod ends;
mod tail;

pub(crate) use ends::epochs_of;
use ends::{check_last_batch, ends_after};
pub(crate) use tail::scan_batches;
use tail::{has_content, write_again};

/// Bytes looked at, at once, for something other than zeros.
const TAIL_CHUNK_BYTES: usize = 64 * 1024;

/// What recovery found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RecoveryReport {
    /// The last batch.
    pub end_index: LogIndex,
    /// The offset after the last record.
    pub end_offset: Offset,
    /// Bytes behind the end of the log that are no whole batch.
    pub torn_bytes: u64,
    /// Later segments that were dropped because the log ends before they begin.
    pub dropped_segments: usize,
    /// The row says that the log was committed up to here, and it ends before: a page-cache topic
    /// lost its tail.
    pub lost_commit: Option<LogIndex>,
    /// Batches of it were in memory only: if the operating system died since, a tail may be missing
    /// that this replica had acknowledged, and it must abstain.
    pub was_unsynced: bool,
    /// Bytes that were scanned because no index covered them.
    pub scanned_bytes: u64,
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The disk failed, or is full.
    #[error("disk: {0}")]
    Io(#[from] io::Error),
    /// What was durable is not there any more. The replica must be fenced and replaced.
    #[error("segment {segment} is damaged at position {position}: {reason}")]
    Damaged {
        /// The segment.
        segment: SegmentId,
        /// Bytes from its start.
        position: u64,
        /// What was found.
        reason: String,
    },
    /// A newer program wrote it.
    #[error("segment {segment}: {error}")]
    Newer {
        /// The segment.
        segment: SegmentId,
        /// Which format.
        error: HeaderError,
    },
}

impl From<ReadError> for RecoverError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => Self::Io(error),
            ReadError::Damaged { segment, position, reason } => {
                Self::Damaged { segment, position, reason }
            }
            other => Self::Io(io::Error::new(io::ErrorKind::InvalidData, other)),
        }
    }
}

/// A segment file found in the directory.
struct Found {
    header: SegmentHeader,
    length: u64,
}

/// What the directory holds.
#[derive(Default)]
struct Directory {
    /// Of the row's generation, by id.
    segments: Vec<Found>,
    /// Of other generations, or without a whole header.
    leftovers: Vec<SegmentId>,
    last_id: SegmentId,
    last_generation: Generation,
}

/// The segments of the log as far as they are known, oldest first; only the last one's file is open.
#[derive(Default)]
struct Chain {
    segments: Vec<Arc<Segment>>,
    active: Option<Arc<SegmentFile>>,
}

impl Chain {
    fn push(&mut self, segment: Arc<Segment>, file: Arc<SegmentFile>) {
        self.segments.push(segment);
        self.active = Some(file);
    }

    /// Takes out the segments but the last that begin at `end` or behind it: a newer one begins
    /// where they do, so nothing of the log is in them.
    fn remove_empty(&mut self, end: LogIndex) -> Vec<FileId> {
        let Some(active) = self.segments.pop() else { return Vec::new() };
        let whole = self.segments.partition_point(|segment| segment.header.base_index < end);
        let gone = self.segments.drain(whole..).map(|segment| segment.header.id).collect();
        self.segments.push(active);
        gone
    }

    /// Where the log ends.
    fn end(&self) -> Option<BatchStart> {
        self.segments.last().map(|segment| segment.index.read().end())
    }
}

/// How far a scan of one segment came.
struct Scanned {
    index: SegmentIndex,
    /// Why it ended before the limit.
    bad: Option<String>,
    bytes: u64,
}

struct Recovery<'a> {
    disk: Arc<dyn Disk>,
    replica: ReplicaId,
    config: LogConfig,
    state: ReplicaState,
    durable: &'a dyn Fn(SegmentId) -> u64,
    report: RecoveryReport,
    outbox: Vec<FlushItem>,
}

impl PartitionLog {
    /// Opens the log of a replica whose row is `state`, after the write-ahead set has redone its
    /// records. `durable` is what the set knows of this replica's files: below that position a
    /// segment's bytes are on disk.
    pub fn recover(
        disk: Arc<dyn Disk>,
        replica: ReplicaId,
        config: LogConfig,
        state: ReplicaState,
        durable: &dyn Fn(SegmentId) -> u64,
    ) -> Result<(Self, RecoveryReport), RecoverError> {
        let report = RecoveryReport::default();
        let outbox = Vec::new();
        Recovery { disk, replica, config, state, durable, report, outbox }.run()
    }
}

impl Recovery<'_> {
    fn run(mut self) -> Result<(PartitionLog, RecoveryReport), RecoverError> {
        if log_start_forgotten() {
            self.state.log_start.offset = Offset(0);
        }
        let mut directory = self.read_directory()?;
        let last_generation = directory.last_generation.max(self.state.generation);
        let ids = Ids::new(directory.last_id.next(), last_generation.next());
        let found = std::mem::take(&mut directory.segments);
        let (kept, superseded) = self.effective(found);
        if kept.is_empty() {
            return self.start_again(&directory, ids);
        }
        let (mut log, torn, mut dropped) = self.scan_all(kept)?;
        if log.segments.iter().any(|segment| self.durable(segment.header.id.segment) == 0) {
            // Its creation may be known to nobody but the directory.
            self.disk.sync_dir(&self.dir())?;
        }
        if torn || !dropped.is_empty() {
            let end = log.end().expect("the first segment is kept");
            self.create(&mut log, ids.next_segment(), end)?;
            dropped.extend(log.remove_empty(end.index));
        }
        let gone = superseded.into_iter().chain(dropped);
        self.outbox.extend(gone.map(|id| FlushItem::Delete { id, path: segment_path(id) }));
        self.remove_leftovers(&directory, &log)?;
        self.finish(log, ids)
    }

    fn dir(&self) -> std::path::PathBuf {
        replica_dir(self.replica)
    }

    /// The position below which a segment's bytes are known to be on disk.
    fn durable(&self, segment: SegmentId) -> u64 {
        let by_row = match self.state.durable {
            Some(place) if segment < place.segment => u64::MAX,
            Some(place) if segment == place.segment => place.position,
            _ => 0,
        };
        (self.durable)(segment).max(by_row)
    }

    fn read_directory(&self) -> Result<Directory, RecoverError> {
        let mut directory = Directory::default();
        let dir = self.dir();
        let mut names = self.disk.list(&dir)?;
        names.sort();
        for segment in names.iter().filter_map(|name| parse_segment_file_name(name)) {
            directory.last_id = directory.last_id.max(segment);
            let id = FileId { replica: self.replica, segment };
            let file = self.open(id)?;
            let bytes = read_at(&file, 0, SEGMENT_HEADER_BYTES as usize)?;
            match SegmentHeader::decode(&bytes) {
                Ok(header) if header.id == id => {
                    directory.last_generation = directory.last_generation.max(header.generation);
                    if header.generation == self.state.generation {
                        let length = file.file.len()?;
                        directory.segments.push(Found { header, length });
                    } else {
                        directory.leftovers.push(segment);
                    }
                }
                Err(error @ HeaderError::Newer(_)) => {
                    return Err(RecoverError::Newer { segment, error });
                }
                _ => {
                    // Its creation never finished, or what was durable is gone.
                    let is_named = self.state.durable.is_some_and(|at| at.segment == segment);
                    if is_named || (self.durable)(segment) >= SEGMENT_HEADER_BYTES {
                        return Err(damaged(segment, 0, "its header is gone"));
                    }
                    directory.leftovers.push(segment);
                }
            }
        }
        Ok(directory)
    }

    fn open(&self, id: FileId) -> io::Result<Arc<SegmentFile>> {
        let path = segment_path(id);
        let file = self.disk.open(&path, self.config.segment_bytes)?;
        Ok(Arc::new(SegmentFile { id, path, file }))
    }

    /// Pairs each segment of the log with the index at which it ends: where any newer one begins.
    /// Those of which nothing is left are named apart.
    fn effective(&self, found: Vec<Found>) -> (Vec<(Found, Option<LogIndex>)>, Vec<FileId>) {
        let mut limit = None;
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        for found in found.into_iter().rev() {
            let base = found.header.base_index;
            if limit.is_some_and(|limit| base >= limit) {
                gone.push(found.header.id);
                continue;
            }
            kept.push((found, limit));
            limit = Some(base);
        }
        kept.reverse();
        // Whole segments before the first index only were not removed yet.
        let first_index = self.state.log_start.first_index;
        let start = kept.partition_point(|(_, limit)| limit.is_some_and(|end| end <= first_index));
        gone.extend(kept.drain(..start).map(|(found, _)| found.header.id));
        (kept, gone)
    }

    /// Scans the segments in order, up to where the log ends. Returns them, whether something other
    /// than zeros lies behind the end, and the segments that begin behind it.
    fn scan_all(
        &mut self,
        kept: Vec<(Found, Option<LogIndex>)>,
    ) -> Result<(Chain, bool, Vec<FileId>), RecoverError> {
        let first = kept[0].0.header;
        if first.base_index > self.state.log_start.first_index {
            return Err(damaged(first.id.segment, 0, "the log's first segment is missing"));
        }
        let mut log = Chain::default();
        let mut torn = false;
        let mut rest = kept.into_iter();
        let mut dropped: Vec<FileId> = Vec::new();
        for (found, limit) in rest.by_ref() {
            let id = found.header.id.segment;
            if let Some(end) = log.end()
                && !self.joins(&found.header, end)?
            {
                dropped.push(found.header.id);
                break;
            }
            let durable = self.durable(id);
            let file = self.open(found.header.id)?;
            let is_planted = planted(Bug::CutRecoveredFromOlderSegment);
            let scan_limit = limit.filter(|_| !is_planted);
            let scanned = self.scan(&found, &file, scan_limit, durable)?;
            let end = scanned.index.end();
            self.report.scanned_bytes += scanned.bytes;
            let ends_here = limit.is_none_or(|limit| end.index != limit);
            if ends_here && end.position < durable {
                let reason = scanned.bad.as_deref().unwrap_or("it ends before its durable place");
                return Err(damaged(id, end.position, reason));
            }
            if ends_here {
                torn = has_content(&file, end.position, found.length)?;
                self.report.torn_bytes = if torn { found.length - end.position } else { 0 };
            }
            if scanned.bytes > 0 && !ends_here {
                self.write_index(&found.header, &scanned.index);
            }
            if end.position > durable && !planted(Bug::RecoveredTailNotSynced) {
                write_again(&file, durable..end.position)?;
                file.file.sync()?;
            }
            let capacity = self.config.segment_bytes.max(found.length);
            let disk = self.disk.clone();
            let segment = Segment::new(disk, &file, found.header, capacity, scanned.index);
            log.push(Arc::new(segment), file);
            if ends_here {
                break;
            }
        }
        dropped.extend(rest.map(|(found, _)| found.header.id));
        // Its creation was durable, and so was all before it; only page-cache data may be lost.
        let created = dropped.iter().find(|id| self.durable(id.segment) > 0);
        if let Some(id) = created.filter(|_| self.must_have_all()) {
            return Err(damaged(id.segment, 0, "what lies before it is gone"));
        }
        self.report.dropped_segments = dropped.len();
        Ok((log, torn, dropped))
    }

    /// Whether the creation of a segment being durable says that all before it is.
    fn must_have_all(&self) -> bool {
        !self.state.unsynced && !planted(Bug::CutRecoveredFromOlderSegment)
    }

    /// Whether a segment begins where the one before it ends, in every measure. Index and epoch name
    /// a batch and all before it, so one that does belongs to the same log. If it does not, a
    /// segment between them was lost with all that was written in vain, or what was durable is gone.
    fn joins(&self, next: &SegmentHeader, end: BatchStart) -> Result<bool, RecoverError> {
        let joins = next.base_index == end.index
            && next.base_offset == end.offset
            && next.epoch_before == end.epoch_before;
        if !joins && self.durable(next.id.segment) > 0 {
            let reason = "it does not begin where the one before ends";
            return Err(damaged(next.id.segment, 0, reason));
        }
        Ok(joins)
    }

    /// Reads one segment from where its index file ends, up to `limit`.
    fn scan(
        &self,
        found: &Found,
        file: &Arc<SegmentFile>,
        limit: Option<LogIndex>,
        durable: u64,
    ) -> Result<Scanned, RecoverError> {
        let interval = self.config.index_interval_bytes;
        let path = self.dir().join(index_file_name(found.header.id.segment));
        let stored = SegmentIndex::load(&*self.disk, &path, &found.header, interval)?;
        let mut index = stored.unwrap_or_else(|| SegmentIndex::new(&found.header, interval));
        let stored_end = index.end().position;
        // The index of bytes that may be lost is believed no further than they are.
        index.rewind_to_position(found.length.min(durable));
        index.rewind(limit.unwrap_or(LogIndex(u64::MAX)));
        let from = index.end().position;
        let known = &self.state.epochs;
        let bad = scan_batches(&mut index, file, found.length, limit, durable, known)?;
        let end = index.end().position;
        if stored_end > end {
            // It speaks of bytes that were lost, and others may be written in their place.
            self.disk.remove(&path)?;
            self.disk.sync_dir(&self.dir())?;
        }
        Ok(Scanned { index, bad, bytes: end - from })
    }

    /// Writes the index that a segment's scan was for, so that the next start need not scan.
    fn write_index(&mut self, header: &SegmentHeader, index: &SegmentIndex) {
        let dir = self.dir();
        let path = dir.join(index_file_name(header.id.segment));
        match side_file::write(&*self.disk, &path, &index.encode(header)) {
            Ok(file) => self.outbox.push(FlushItem::Sync { file, dir }),
            Err(error) => tracing::warn!(path = %path.display(), %error, "index not written"),
        }
    }

    /// Starts a segment at `end`, durable before anything behind it is written or removed.
    fn create(
        &mut self,
        log: &mut Chain,
        id: SegmentId,
        end: BatchStart,
    ) -> Result<(), RecoverError> {
        let generation = self.state.generation;
        let (disk, replica) = (self.disk.clone(), self.replica);
        let made = create_segment(&disk, replica, id, generation, end, 0, &self.config)?;
        made.file.file.sync()?;
        disk.sync_dir(&self.dir())?;
        self.outbox.push(made.item);
        log.push(made.segment, made.file);
        Ok(())
    }

    /// Removes what no log of this replica needs, and stray side files.
    fn remove_leftovers(&self, directory: &Directory, log: &Chain) -> Result<(), RecoverError> {
        let dir = self.dir();
        for &segment in &directory.leftovers {
            self.disk.remove(&segment_path(FileId { replica: self.replica, segment }))?;
        }
        let kept: BTreeSet<String> =
            log.segments.iter().map(|s| index_file_name(s.header.id.segment)).collect();
        for name in self.disk.list(&dir)? {
            if Path::new(&name).extension().is_some_and(|e| e == "index") && !kept.contains(&name) {
                self.disk.remove(&dir.join(&name))?;
            }
        }
        if !directory.leftovers.is_empty() {
            self.disk.sync_dir(&dir)?;
        }
        Ok(())
    }

    /// Removes producer state as of batches that are lost. An epoch whose vote was lost with them
    /// comes again, and then index and epoch would name another batch.
    fn remove_producers_past(&self, last: LogIndex) -> Result<(), RecoverError> {
        let dir = self.dir();
        let mut is_changed = false;
        for name in self.disk.list(&dir)? {
            if parse_producers_file_name(&name).is_some_and(|index| index > last) {
                self.disk.remove(&dir.join(&name))?;
                is_changed = true;
            }
        }
        if is_changed {
            self.disk.sync_dir(&dir)?;
        }
        Ok(())
    }

    /// A row without segments: a new replica whose directory entries were lost before anything was
    /// acknowledged. Anything else is damage.
    fn start_again(
        mut self,
        directory: &Directory,
        ids: Ids,
    ) -> Result<(PartitionLog, RecoveryReport), RecoverError> {
        let last = directory.last_id;
        if self.state.durable.is_some()
            || self.state.vote.commit >= self.state.log_start.first_index
        {
            return Err(damaged(last, 0, "every segment is gone"));
        }
        let start = self.state.log_start;
        let at = BatchStart {
            position: SEGMENT_HEADER_BYTES,
            index: start.first_index,
            offset: start.offset,
            epoch_before: start.epoch_before,
        };
        self.disk.create_dir(&self.dir())?;
        let mut log = Chain::default();
        self.create(&mut log, ids.next_segment(), at)?;
        for dir in self.dir().ancestors().skip(1) {
            self.disk.sync_dir(dir)?;
        }
        self.remove_leftovers(directory, &log)?;
        self.finish(log, ids)
    }

    /// Puts the log together from its segments.
    fn finish(
        mut self,
        log: Chain,
        ids: Ids,
    ) -> Result<(PartitionLog, RecoveryReport), RecoverError> {
        let end = log.end().expect("a log has a segment");
        let Chain { segments, active } = log;
        let active = active.expect("a log has a segment to write to");
        let last = end.index.prev();
        let first_index = self.state.log_start.first_index;
        if last < first_index.prev() {
            return Err(damaged(segments[0].header.id.segment, 0, "the log ends before it starts"));
        }
        check_last_batch(&segments)?;
        let epochs = epochs_of(&segments, first_index);
        if !epochs.agrees_with(&self.state.epochs, end.index) {
            let reason = "the epochs of its indexes are not those of the row";
            return Err(damaged(segments[0].header.id.segment, 0, reason));
        }
        let committed = self.state.vote.commit.min(last).max(first_index.prev());
        if self.state.vote.commit > last {
            let reason = "committed batches are gone";
            if !self.state.unsynced {
                return Err(damaged(active.id.segment, end.position, reason));
            }
            self.report.lost_commit = Some(self.state.vote.commit);
            self.state.vote.commit = committed;
        }
        let dir = self.dir();
        self.remove_producers_past(last)?;
        let producers = producers_as_of(&self.disk, &dir, &segments, &epochs, last)?;
        let (high_watermark, uncommitted) = ends_after(&segments, committed, end)?;
        let durable = Some(Place { segment: active.id.segment, position: end.position });
        let unsynced = self.config.durability == Durability::PageCache;
        self.report.was_unsynced = self.state.unsynced;
        let known = epochs.for_row();
        if self.state.durable < durable
            || self.state.unsynced != unsynced
            || self.state.epochs != known
        {
            // True from here on: everything was synced above.
            self.state.durable = self.state.durable.max(durable);
            self.state.unsynced = unsynced;
            self.state.epochs = known;
            let (replica, state) = (self.replica, self.state.clone());
            self.outbox.insert(0, FlushItem::State { replica, state });
        }
        self.report.end_index = last;
        self.report.end_offset = end.offset;
        let report = self.report;
        let log = PartitionLog::assemble(Parts {
            disk: self.disk,
            replica: self.replica,
            config: self.config,
            state: self.state,
            segments,
            active,
            ids,
            epochs,
            producers,
            committed,
            high_watermark,
            uncommitted,
            outbox: self.outbox,
        });
        Ok((log, report))
    }
}

fn damaged(segment: SegmentId, position: u64, reason: &str) -> RecoverError {
    RecoverError::Damaged { segment, position, reason: reason.into() }
}

#[cfg(test)]
mod tests;
