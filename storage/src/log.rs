//! One replica's copy of a partition: segments, indexes, and the row of what must be remembered.
//!
//! **Invariants.** Indexes count batches, offsets count records; internal batches have an index and
//! span no offset. Leader epochs only grow along the log. A position of a file is written once:
//! dropping a tail ([`PartitionLog::cut`]) only starts a new segment, and *a segment ends where a
//! newer one of its generation begins*, which is also all of a truncation's recovery. What is
//! committed is never cut. Segment ids only grow (see [`crate::recovery`]).
//!
//! The log lives under its partition's lock; readers use the [`ViewCell`] it publishes. It never
//! syncs: what is to be made durable gathers in an outbox ([`PartitionLog::take_flush_items`]),
//! in the order in which it happened, for the disk's flusher.
//!
//! A leader writes a batch first ([`PartitionLog::write_ahead`]), has raft accept the very bytes
//! that now lie in the map, and only then makes it part of the log ([`PartitionLog::publish`]):
//!
//! ```text
//! write_ahead ─► bytes at the tail, not part of the log ─► raft takes them ─► publish
//!      │ failed: the position is burnt, raft never heard of it ─► unburn, wait, go on
//! ```

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use vltava_protocol::ids::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};
use vltava_protocol::record::batch::BatchHeader;

use crate::bugs::{Bug, planted};
use crate::disk::Disk;
use crate::epochs::Epochs;
use crate::flush::{FlushItem, SegmentFile};
use crate::ids::{Generation, LogIndex, Place, ReplicaId, SegmentId};
use crate::index::BatchStart;
use crate::paths::replica_dir;
use crate::producers::{Admission, ProducerError, ProducerState, ProducerTable};
use crate::read_view::{ReadView, ViewCell};
use crate::segment::{SEGMENT_HEADER_BYTES, Segment};
use crate::state::{Membership, ReplicaState, VoteState};

mod append;
mod attempts;
mod config;
mod cut;
mod log_start;
mod questions;
mod replace;
mod ring;
mod side_files;
mod write_back;

pub use config::{AppendError, Durability, LogConfig, LogError, ReadError};

pub(crate) use append::{Created, create_segment, internal_of};
pub(crate) use side_files::{newest_snapshot, producers_as_of, replay_producers};

use append::{Burnt, Written};
use attempts::Attempts;
use ring::{Ring, RingEntry};
use write_back::WriteBack;

/// Bytes behind the tail that count as surely in memory, if this process wrote them.
const RECENT_BYTES: u64 = 16 << 20;

/// See the module.
#[derive(Debug)]
pub struct PartitionLog {
    disk: Arc<dyn Disk>,
    replica: ReplicaId,
    dir: PathBuf,
    config: LogConfig,
    state: ReplicaState,
    /// Oldest first, never empty; the last is the one written to.
    segments: Arc<Vec<Arc<Segment>>>,
    /// The file of the last segment, held open.
    active: Arc<SegmentFile>,
    ids: Ids,
    /// Where the next batch is written, behind the unpublished ones.
    tail: BatchStart,
    /// Written ahead, not yet part of the log.
    unpublished: VecDeque<Written>,
    /// Segments before this one were synced in place when the log was opened.
    first_written: SegmentId,
    /// No segment before this one has batches in memory only.
    unsynced_from: SegmentId,
    /// Segments that were left since, whose side files are still to be written.
    left: Vec<Arc<Segment>>,
    /// Producer snapshots that may not be durable yet, each with the last index at its writing.
    fresh_snapshots: Vec<(LogIndex, LogIndex)>,
    ring: Ring,
    epochs: Epochs,
    producers: ProducerTable,
    committed: LogIndex,
    /// The commit in the row that was last handed to the flusher.
    saved_commit: LogIndex,
    burnt: Option<Burnt>,
    attempts: Attempts,
    /// What the age of the last segment counts from: its first record's time, or the clock.
    active_since: Option<Timestamp>,
    /// Whether snapshots in flight hold the first index.
    is_held: bool,
    /// The first index may not pass the one after this: the last applied log start.
    floor_limit: LogIndex,
    outbox: Vec<FlushItem>,
    write_back: WriteBack,
    view: Arc<ViewCell>,
    recent: Place,
}

/// The next segment id and generation. Taken by whoever receives a snapshot, too, which only
/// borrows the log: both numbers are used up by an attempt, whatever becomes of it.
#[derive(Debug)]
pub(crate) struct Ids {
    segment: AtomicU64,
    generation: AtomicU32,
}

impl Ids {
    pub(crate) fn new(segment: SegmentId, generation: Generation) -> Self {
        let (segment, generation) = (segment.0.into(), generation.0.into());
        Self { segment, generation }
    }

    pub(crate) fn next_segment(&self) -> SegmentId {
        SegmentId(self.segment.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn next_generation(&self) -> Generation {
        Generation(self.generation.fetch_add(1, Ordering::Relaxed))
    }
}

/// What recovery, creation and installation hand to [`PartitionLog::assemble`].
pub(crate) struct Parts {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) replica: ReplicaId,
    pub(crate) config: LogConfig,
    pub(crate) state: ReplicaState,
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) active: Arc<SegmentFile>,
    pub(crate) ids: Ids,
    pub(crate) epochs: Epochs,
    pub(crate) producers: ProducerTable,
    pub(crate) committed: LogIndex,
    /// Where `committed` ends.
    pub(crate) high_watermark: Offset,
    /// The batches above `committed`: where each lies and ends.
    pub(crate) uncommitted: Vec<(Place, Offset)>,
    pub(crate) outbox: Vec<FlushItem>,
}

impl PartitionLog {
    /// Creates the log of a new replica: an empty one that begins where `state.log_start` says.
    /// (A group's first replicas start at first index 2 after epoch 1, every later one at first
    /// index 1 after epoch 0, so that it is brought up by a snapshot.)
    ///
    /// Whatever an unfinished creation left in the replica's directory is removed: call this only
    /// for a replica without a row. Nothing of the replica may be acknowledged before a ticket
    /// behind the creation's items has completed.
    pub fn create(
        disk: Arc<dyn Disk>,
        replica: ReplicaId,
        config: LogConfig,
        mut state: ReplicaState,
    ) -> Result<Self, LogError> {
        state.unsynced = config.durability == Durability::PageCache;
        let start = state.log_start;
        state.epochs = Epochs::new(start.epoch_before, start.first_index);
        assert!(start.first_index > LogIndex(0), "index 0 is before every log");
        let dir = replica_dir(replica);
        // The directory itself stays if it is there: its name may be taken for durable.
        disk.create_dir(&dir)?;
        for name in disk.list(&dir)? {
            disk.remove(&dir.join(name))?;
        }
        let at = BatchStart {
            position: SEGMENT_HEADER_BYTES,
            index: start.first_index,
            offset: start.offset,
            epoch_before: start.epoch_before,
        };
        let id = SegmentId(1);
        let made = create_segment(&disk, replica, id, state.generation, at, 0, &config)?;
        let outbox = vec![made.item, FlushItem::State { replica, state: state.clone() }];
        Ok(Self::assemble(Parts {
            disk,
            replica,
            config,
            segments: vec![made.segment],
            active: made.file,
            ids: Ids::new(id.next(), state.generation.next()),
            epochs: Epochs::new(start.epoch_before, start.first_index),
            producers: ProducerTable::default(),
            committed: start.first_index.prev(),
            high_watermark: start.offset,
            uncommitted: Vec::new(),
            outbox,
            state,
        }))
    }

    pub(crate) fn assemble(parts: Parts) -> Self {
        let Parts { disk, replica, config, state, segments, active, epochs, committed, .. } = parts;
        let last = segments.last().expect("a log has a segment");
        let tail = last.index.read().end();
        let first_timestamp = last.index.read().first_timestamp();
        let place = Place { segment: last.header.id.segment, position: tail.position };
        let mut ring = Ring::new(committed, parts.high_watermark);
        for (place, end_offset) in parts.uncommitted {
            ring.push(RingEntry { end_offset, place });
        }
        assert_eq!(ring.last_index().next(), tail.index, "the ring covers all up to the end");
        let segments = Arc::new(segments);
        let view = ReadView {
            segments: segments.clone(),
            log_start_offset: state.log_start.offset,
            high_watermark: parts.high_watermark,
            last_stable_offset: parts.high_watermark,
            log_end_offset: tail.offset,
            leader_epoch: epochs.last(),
            first_index: state.log_start.first_index,
            committed,
            recent: place,
        };
        Self {
            disk,
            replica,
            dir: replica_dir(replica),
            config,
            floor_limit: state.log_start.first_index.prev(),
            saved_commit: state.vote.commit,
            state,
            segments,
            active,
            ids: parts.ids,
            tail,
            unpublished: VecDeque::new(),
            left: Vec::new(),
            fresh_snapshots: Vec::new(),
            first_written: place.segment,
            unsynced_from: place.segment,
            ring,
            epochs,
            producers: parts.producers,
            committed,
            burnt: None,
            attempts: Attempts::default(),
            active_since: Some(first_timestamp).filter(|first| first.0 >= 0),
            is_held: false,
            outbox: parts.outbox,
            write_back: WriteBack::default(),
            view: Arc::new(ViewCell::new(view)),
            recent: place,
        }
    }

    /// What happened since the last call and is to be made durable, in order.
    pub fn take_flush_items(&mut self) -> Vec<FlushItem> {
        std::mem::take(&mut self.outbox)
    }

    /// Which replica this is.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// The settings in force.
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Changes the settings; they count from the next append on.
    pub fn set_config(&mut self, config: LogConfig) {
        let durability = self.config.durability;
        self.config = LogConfig { durability, ..config };
        self.set_durability(config.durability);
    }

    /// What readers use instead of the lock.
    pub fn view(&self) -> Arc<ViewCell> {
        self.view.clone()
    }

    /// The replica's row.
    pub fn state(&self) -> &ReplicaState {
        &self.state
    }

    /// Takes note that the group committed everything up to `index`, which this log has.
    pub fn commit_to(&mut self, index: LogIndex) {
        assert!(index >= self.committed, "the commit never goes back");
        assert!(index <= self.last_index(), "only what is here can be committed here");
        if index == self.committed {
            return;
        }
        let high_watermark = self.end_offset_of(index);
        self.committed = index;
        self.ring.commit(index);
        self.view.update(|view| {
            assert!(high_watermark >= view.high_watermark, "a consumer has seen it");
            view.high_watermark = high_watermark;
            view.last_stable_offset = high_watermark;
            view.committed = index;
        });
    }

    /// Takes note that everything up to `index` was applied: the commit that the row will hold when
    /// it is next saved.
    pub fn set_applied(&mut self, index: LogIndex) {
        assert!(index >= self.state.vote.commit, "what was applied stays applied");
        self.state.vote.commit = index;
    }

    /// Saves how far the log was applied, if the saved row is behind.
    pub fn save_applied(&mut self) {
        if self.state.vote.commit > self.saved_commit {
            self.prune_memberships();
            self.save_state();
        }
    }

    /// Changes when batches count as durable, from the next append on.
    ///
    /// Before the first batch that may stay in memory, the row says so; and before the first that
    /// must not, everything that may be in memory is synced, since a batch is no safer than those
    /// before it. If that cannot begin the change is put off: call it again.
    pub fn set_durability(&mut self, durability: Durability) {
        if self.config.durability == durability {
            return;
        }
        match durability {
            Durability::PageCache if self.state.unsynced => {}
            Durability::PageCache => {
                self.state.unsynced = true;
                self.unsynced_from = self.active.id.segment;
                self.save_state();
            }
            Durability::Fsync => {
                if let Err(error) = self.sync_what_is_in_memory() {
                    tracing::warn!(replica = %self.replica, %error, "cannot sync the log yet");
                    return;
                }
                self.state.unsynced = false;
                self.save_state();
            }
        }
        self.config.durability = durability;
    }

    /// Has the flusher sync every segment that may have batches in memory only.
    fn sync_what_is_in_memory(&mut self) -> io::Result<()> {
        if !self.state.unsynced {
            return Ok(());
        }
        self.sync_segments(self.unsynced_from)?;
        self.unsynced_from = self.active.id.segment;
        Ok(())
    }

    /// Has the flusher sync the segments from `from` on, in place.
    fn sync_segments(&mut self, from: SegmentId) -> io::Result<()> {
        let segments = self.segments.iter().filter(|segment| segment.header.id.segment >= from);
        let files = segments.map(|segment| segment.file()).collect::<io::Result<Vec<_>>>()?;
        let items = files
            .into_iter()
            .map(|segment| FlushItem::Sync { file: segment.file.clone(), dir: self.dir.clone() });
        self.outbox.extend(items);
        Ok(())
    }

    /// Saves term, vote and commit.
    pub fn save_vote(&mut self, vote: VoteState) {
        assert!(vote.term >= self.state.vote.term, "terms only grow");
        self.state.vote = vote;
        self.prune_memberships();
        self.save_state();
    }

    /// Saves the membership that is in force from `index` on, a committed change of it.
    pub fn set_membership(&mut self, index: LogIndex, membership: Membership) {
        match self.state.memberships.last_mut() {
            Some((last, current)) if *last == index => *current = membership,
            Some((last, _)) => {
                // After a restart raft applies changes again that the row has already.
                if *last > index {
                    return;
                }
                self.state.memberships.push((index, membership));
            }
            None => self.state.memberships.push((index, membership)),
        }
        self.prune_memberships();
        self.save_state();
    }

    /// Saves that this replica may have lost an acknowledged tail, or that it was refilled.
    pub fn set_abstaining(&mut self, abstaining: Option<Option<LogIndex>>) {
        self.state.abstaining = abstaining;
        self.save_state();
    }

    /// Judges a producer's batch, the batches written ahead included.
    pub fn check_producer(
        &self,
        header: &BatchHeader,
        now: Timestamp,
    ) -> Result<Admission, ProducerError> {
        let ahead = self.unpublished.iter().map(|written| &written.header);
        self.producers.check(header, ahead, now, self.config.producer_expiration_ms)
    }

    /// Forgets idle producers; to be called every few minutes.
    pub fn expire_producers(&mut self, now: Timestamp) {
        self.producers.expire(now, self.config.producer_expiration_ms);
    }

    /// What is known of each producer.
    pub fn producers(&self) -> impl Iterator<Item = ProducerState> {
        self.producers.states()
    }

    /// Epoch and last sequence of a producer.
    pub fn last_of_producer(&self, producer: ProducerId) -> Option<(ProducerEpoch, Sequence)> {
        self.producers.last_of(producer)
    }

    /// Memberships older than the one at the saved commit can no longer be asked for.
    fn prune_memberships(&mut self) {
        let known = self.state.vote.commit.min(self.committed);
        let needed = self.state.memberships.iter().rposition(|(index, _)| *index <= known);
        self.state.memberships.drain(..needed.unwrap_or(0));
    }

    /// Saves which epochs the log has, if that changed: before any batch that is told by it.
    fn save_epochs(&mut self) {
        let epochs = self.epochs.for_row();
        if self.state.epochs != epochs {
            self.state.epochs = epochs;
            self.save_state();
        }
    }

    fn save_state(&mut self) {
        self.saved_commit = self.state.vote.commit;
        self.outbox.push(FlushItem::State { replica: self.replica, state: self.state.clone() });
    }

    /// Every segment, oldest first.
    pub(crate) fn all_segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.segments.iter()
    }

    fn last_segment(&self) -> &Arc<Segment> {
        self.segments.last().expect("a log has a segment")
    }

    /// Hands the present ends to readers.
    fn publish_view(&mut self) {
        let end_offset = self.end_offset();
        let (epoch, recent) = (self.epochs.last(), self.recent);
        let segments = &self.segments;
        self.view.update(|view| {
            if !Arc::ptr_eq(&view.segments, segments) {
                view.segments = segments.clone();
            }
            view.log_end_offset = end_offset;
            view.leader_epoch = epoch;
            view.recent = recent;
        });
    }

    /// Moves the place from which on everything was written lately.
    fn advance_recent(&mut self) {
        let position = self.tail.position;
        let segment = self.active.id.segment;
        let behind = match position.checked_sub(RECENT_BYTES) {
            Some(position) => Place { segment, position },
            None => match self.segments.len().checked_sub(2).map(|at| &self.segments[at]) {
                Some(previous) => {
                    let end = previous.index.read().end().position;
                    let back = (RECENT_BYTES - position).min(end);
                    Place { segment: previous.header.id.segment, position: end - back }
                }
                None => Place { segment, position: 0 },
            },
        };
        self.recent = self.recent.max(behind);
    }
}

/// A disk's refusal as text for messages that outlive it.
pub(crate) fn damaged(segment: SegmentId, position: u64, reason: &impl ToString) -> ReadError {
    ReadError::Damaged { segment, position, reason: reason.to_string() }
}

/// Whether a planted bug forgets the log start.
pub(crate) fn log_start_forgotten() -> bool {
    planted(Bug::LogStartForgotten)
}

/// Ignores a failure of what can be done again at any time.
fn best_effort(result: io::Result<()>, what: &str, dir: &std::path::Path) {
    if let Err(error) = result {
        tracing::warn!(dir = %dir.display(), %error, "{what} failed, it will be rebuilt");
    }
}

#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
mod tests;
