//! Writing batches at the tail and making them part of the log.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;
use vltava_protocol::ids::{LeaderEpoch, ProducerEpoch, ProducerId, Timestamp};
use vltava_protocol::record::batch::{BATCH_PREFIX_BYTES, BatchError, BatchHeader};
use vltava_protocol::record::control::{InternalBatch, InternalKind};

use super::ring::RingEntry;
use super::{AppendError, Durability, LogConfig, PartitionLog, best_effort};
use crate::bugs::{Bug, planted};
use crate::disk::Disk;
use crate::flush::{FlushItem, SegmentFile};
use crate::ids::{FileId, Generation, LogIndex, Place, ReplicaId, SegmentId};
use crate::index::{BatchStart, SEGMENT_BYTES_MAX, SegmentIndex};
use crate::paths::segment_path;
use crate::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader};

/// Batches written with one call.
const RUN_BATCHES_MAX: usize = 256;

/// A batch that lies in its segment and is not yet part of the log.
#[derive(Debug)]
pub(super) struct Written {
    segment: Arc<Segment>,
    file: Arc<SegmentFile>,
    position: u64,
    pub(super) header: BatchHeader,
    internal: Option<Internal>,
    bytes: Bytes,
    now: Option<Timestamp>,
}

/// What an internal batch means to the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Internal {
    pub(crate) kind: InternalKind,
    fence: Option<(ProducerId, ProducerEpoch)>,
}

/// A position where a write failed: its bytes may lie there whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Burnt {
    epoch: LeaderEpoch,
    /// The segment that makes the attempt invalid was started; whether it is durable is the
    /// flusher's to say.
    left: bool,
}

impl Burnt {
    /// The same, once a newer segment begins at the burnt position.
    pub(super) fn leave(self) -> Self {
        Self { left: true, ..self }
    }
}

/// A segment just created.
pub(crate) struct Created {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<SegmentFile>,
    pub(crate) item: FlushItem,
}

/// Creates a segment file with its header. After a failure nothing is there that counts.
pub(crate) fn create_segment(
    disk: &Arc<dyn Disk>,
    replica: ReplicaId,
    segment: SegmentId,
    generation: Generation,
    at: BatchStart,
    content_bytes: u64,
    config: &LogConfig,
) -> io::Result<Created> {
    let id = FileId { replica, segment };
    let path = segment_path(id);
    let header = SegmentHeader {
        id,
        generation,
        base_index: at.index,
        base_offset: at.offset,
        epoch_before: at.epoch_before,
    };
    let capacity = config.segment_bytes.max(SEGMENT_HEADER_BYTES + content_bytes);
    let file = disk.create(&path, capacity)?;
    if let Err(error) = file.write_at(0, &[IoSlice::new(&header.encode())]) {
        // The id is used up. A header that is not whole is no segment to recovery; of one that is
        // whole, a log that goes on must see to it that it never counts.
        super::best_effort(disk.remove(&path), "removal of a failed segment", &path);
        return Err(error);
    }
    let file = Arc::new(SegmentFile { id, path, file });
    let index = SegmentIndex::new(&header, config.index_interval_bytes);
    let item = FlushItem::Create { file: file.clone(), header };
    let segment = Arc::new(Segment::new(disk.clone(), &file, header, capacity, index));
    Ok(Created { segment, file, item })
}

/// Reads what an internal batch means; `None` for a data batch.
pub(crate) fn internal_of(
    index: LogIndex,
    header: &BatchHeader,
    batch: &Bytes,
) -> Result<Option<Internal>, AppendError> {
    if !header.is_internal() {
        return Ok(None);
    }
    let (kind, body) =
        InternalBatch::parse(batch).map_err(|reason| AppendError::Internal { index, reason })?;
    let fence = match kind {
        InternalKind::Fence => InternalBatch::parse_fence(&body),
        _ => None,
    };
    Ok(Some(Internal { kind, fence }))
}

impl PartitionLog {
    /// A leader's first step: writes a client's batch at the tail, its first 16 bytes replaced, and
    /// returns the bytes as they now lie in the map. Nothing of it is part of the log yet.
    ///
    /// `header` is that of `batch`; `now` counts for `segment.ms` where records carry no time.
    /// Several batches may be written ahead; they are published in order.
    pub fn write_ahead(
        &mut self,
        epoch: LeaderEpoch,
        batch: &Bytes,
        header: &BatchHeader,
        now: Timestamp,
    ) -> Result<Bytes, AppendError> {
        if batch.len() != header.size() {
            let (have, need) = (batch.len(), header.size());
            return Err(BatchError::Truncated { have, need }.into());
        }
        assert!(!header.is_internal(), "an internal batch is written by write_ahead_internal");
        self.write_one(epoch, batch, *header, None, Some(now))
    }

    /// As [`PartitionLog::write_ahead`], for an internal batch.
    pub fn write_ahead_internal(
        &mut self,
        epoch: LeaderEpoch,
        kind: InternalKind,
        body: &[u8],
    ) -> Result<Bytes, AppendError> {
        let batch = InternalBatch::encode(self.tail.offset, epoch, kind, body);
        let header = BatchHeader::parse(&batch)?;
        let internal = internal_of(self.tail.index, &header, &batch)?;
        self.write_one(epoch, &batch, header, internal, None)
    }

    /// A leader's second step: raft took the oldest batch written ahead, at `index`.
    pub fn publish(&mut self, index: LogIndex, epoch: LeaderEpoch) {
        let written = self.unpublished.pop_front().expect("publish follows write_ahead");
        assert_eq!(index, self.last_index().next(), "batches are published in order");
        assert_eq!(epoch, written.header.leader_epoch, "raft took the batch that was written");
        self.admit(written);
        self.publish_view();
    }

    /// Batches written ahead and not published yet.
    pub fn unpublished(&self) -> usize {
        self.unpublished.len()
    }

    /// Appends a complete batch that raft handed out: a follower's, or one born inside raft.
    pub fn append(
        &mut self,
        index: LogIndex,
        epoch: LeaderEpoch,
        batch: &Bytes,
    ) -> Result<(), AppendError> {
        self.append_all(&[(index, epoch, batch.clone())])
    }

    /// Appends complete batches, with one write for as many as fit in a segment. After an error
    /// those before the failed write are part of the log: see [`PartitionLog::last_index`].
    pub fn append_all(
        &mut self,
        batches: &[(LogIndex, LeaderEpoch, Bytes)],
    ) -> Result<(), AppendError> {
        assert!(self.unpublished.is_empty(), "raft's entries come in the order of the log");
        let mut rest = batches;
        let mut result = Ok(());
        while !rest.is_empty() && result.is_ok() {
            result = self.append_run(rest).map(|left| rest = left);
        }
        self.publish_view();
        result
    }

    /// Writes the batches that fit into one segment; returns the others.
    fn append_run<'a>(
        &mut self,
        batches: &'a [(LogIndex, LeaderEpoch, Bytes)],
    ) -> Result<&'a [(LogIndex, LeaderEpoch, Bytes)], AppendError> {
        let (index, epoch, first) = &batches[0];
        assert_eq!(*index, self.tail.index, "batches are appended in order");
        let header = check_next(self.tail, *epoch, first)?;
        self.leave_burnt(*epoch)?;
        self.make_room(&header, None)?;
        let mut at = self.tail;
        let mut run = Vec::new();
        for (index, epoch, batch) in batches.iter().take(RUN_BATCHES_MAX) {
            assert_eq!(*index, at.index, "batches are appended in order");
            let header = check_next(at, *epoch, batch)?;
            if !run.is_empty() && !self.fits(at, &header) {
                break;
            }
            let internal = internal_of(*index, &header, batch)?;
            run.push((header, internal, batch));
            at = after(at, &header);
        }
        let parts: Vec<IoSlice<'_>> = run.iter().map(|(.., batch)| IoSlice::new(batch)).collect();
        let start = self.tail.position;
        self.write(at.epoch_before, &parts)?;
        let bytes = self.active.file.slice(start..at.position);
        let bytes = bytes.inspect_err(|_| self.burn(at.epoch_before))?;
        let count = run.len();
        for (header, internal, batch) in run {
            let from = (self.tail.position - start) as usize;
            let bytes = bytes.slice(from..from + batch.len());
            let written = self.written(header, internal, bytes, None);
            self.admit(written);
        }
        Ok(&batches[count..])
    }

    /// Whether a write failed whose bytes may lie at the tail all the same. A second batch at that
    /// index and epoch could fork the log unseen, so until this is over nothing may be proposed in
    /// this epoch: raft must not append entries of its own either.
    pub fn is_burnt(&self) -> bool {
        self.burnt.is_some()
    }

    /// Starts a new segment, so that the burnt one ends before the failed write. Once that creation
    /// is durable (a ticket behind it has completed), call [`PartitionLog::unburnt_durable`]. On an
    /// error, try again later.
    pub fn unburn(&mut self) -> Result<(), AppendError> {
        if let Some(burnt) = self.burnt.filter(|burnt| !burnt.left) {
            self.start_segment(self.tail, 0)?;
            self.burnt = Some(burnt.leave());
            self.publish_view();
        }
        Ok(())
    }

    /// The segment that [`PartitionLog::unburn`] started is durable.
    pub fn unburnt_durable(&mut self) {
        if self.burnt.is_some_and(|burnt| burnt.left) {
            self.burnt = None;
        }
    }

    /// Appends of a later epoch cannot be mistaken for the failed write: they only must not lie
    /// behind it.
    fn leave_burnt(&mut self, epoch: LeaderEpoch) -> Result<(), AppendError> {
        let Some(burnt) = self.burnt else { return Ok(()) };
        if epoch <= burnt.epoch {
            return Err(AppendError::Burnt(burnt.epoch));
        }
        self.unburn()?;
        self.burnt = None;
        Ok(())
    }

    fn write_one(
        &mut self,
        epoch: LeaderEpoch,
        batch: &Bytes,
        mut header: BatchHeader,
        internal: Option<Internal>,
        now: Option<Timestamp>,
    ) -> Result<Bytes, AppendError> {
        assert!(epoch >= self.tail.epoch_before, "leader epochs only grow along the log");
        self.leave_burnt(epoch)?;
        header.base_offset = self.tail.offset;
        header.leader_epoch = epoch;
        self.make_room(&header, now)?;
        let prefix = BatchHeader::encode_prefix(header.base_offset, header.batch_length, epoch);
        let rest = &batch[BATCH_PREFIX_BYTES..];
        let position = self.tail.position;
        self.write(epoch, &[IoSlice::new(&prefix), IoSlice::new(rest)])?;
        let bytes = self.active.file.slice(position..position + batch.len() as u64);
        let bytes = bytes.inspect_err(|_| self.burn(epoch))?;
        let written = self.written(header, internal, bytes.clone(), now);
        self.unpublished.push_back(written);
        Ok(bytes)
    }

    /// Writes at the tail; a failure burns the position.
    fn write(&mut self, epoch: LeaderEpoch, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.renounce_attempts();
        let result = self.active.file.write_at(self.tail.position, parts);
        result.inspect_err(|_| self.burn(epoch))
    }

    fn burn(&mut self, epoch: LeaderEpoch) {
        if !planted(Bug::AttemptedPositionReused) {
            self.burnt = Some(Burnt { epoch, left: false });
        }
    }

    /// Moves the tail over a batch just written.
    fn written(
        &mut self,
        header: BatchHeader,
        internal: Option<Internal>,
        bytes: Bytes,
        now: Option<Timestamp>,
    ) -> Written {
        let position = self.tail.position;
        self.tail = after(self.tail, &header);
        if self.active_since.is_none() && internal.is_none() {
            let first = header.max_timestamp;
            self.active_since = if first.0 >= 0 { Some(first) } else { now };
        }
        let (segment, file) = (self.last_segment().clone(), self.active.clone());
        Written { segment, file, position, header, internal, bytes, now }
    }

    /// Makes a written batch part of the log.
    fn admit(&mut self, written: Written) {
        let Written { segment, file, position, header, internal, bytes, now } = written;
        if self.left.first().is_some_and(|left| left.header.id < segment.header.id) {
            self.write_side_files(segment.header.id.segment);
        }
        let index = self.last_index().next();
        {
            let mut sparse = segment.index.write();
            assert_eq!(sparse.end().position, position, "batches lie one behind the other");
            sparse.push(&header, internal.map(|internal| internal.kind));
        }
        if header.leader_epoch > self.epochs.last() {
            self.epochs.push(header.leader_epoch, index, header.base_offset);
            self.save_epochs();
        }
        self.producers.apply(&header, now);
        if let Some((producer, epoch)) = internal.and_then(|internal| internal.fence) {
            self.producers.fence(producer, epoch);
        }
        let place = Place { segment: segment.header.id.segment, position };
        self.ring.push(RingEntry { end_offset: header.end_offset(), place });
        if self.config.durability == Durability::Fsync || internal.is_some() {
            self.outbox.push(FlushItem::Write { file, position, bytes });
        } else {
            let written = position..position + bytes.len() as u64;
            if let Some(range) = self.write_back.wrote(file.id, written) {
                self.outbox.push(FlushItem::WriteBack { file, range });
            }
        }
        if internal.is_some_and(|internal| internal.kind != InternalKind::Noop) {
            // What it changes is remembered in the row too, so it must not be lost with a tail.
            best_effort(self.sync_what_is_in_memory(), "syncing before a change", &self.dir);
        }
        self.advance_recent();
    }

    /// Whether a batch may lie at `at` in the last segment.
    fn fits(&self, at: BatchStart, header: &BatchHeader) -> bool {
        let base = self.last_segment().header;
        let relative = header.end_offset() - base.base_offset;
        let end = at.position + header.size() as u64;
        let old = self.active_since.is_some_and(|since| {
            !header.is_internal()
                && header.max_timestamp.0.saturating_sub(since.0) > self.config.segment_ms
        });
        // A segment that was begun under a smaller `segment.bytes` keeps its size.
        let limit = self.config.segment_bytes.min(self.last_segment().capacity());
        end <= limit.min(SEGMENT_BYTES_MAX) && relative <= i64::from(i32::MAX) && !old
    }

    /// Starts a new segment if the last one has no room for a batch, or is too old for it.
    fn make_room(&mut self, header: &BatchHeader, now: Option<Timestamp>) -> io::Result<()> {
        let bytes = header.size() as u64;
        if self.tail.position == SEGMENT_HEADER_BYTES {
            // A batch larger than a segment gets one that is as large.
            if SEGMENT_HEADER_BYTES + bytes > self.last_segment().capacity() {
                self.start_segment(self.tail, bytes)?;
            }
            return Ok(());
        }
        // Records without a time: the clock tells how old the segment is.
        let idle = header.max_timestamp.0 < 0
            && now
                .zip(self.active_since)
                .is_some_and(|(now, since)| now.0.saturating_sub(since.0) > self.config.segment_ms);
        if idle || !self.fits(self.tail, header) {
            self.start_segment(self.tail, bytes)?;
        }
        Ok(())
    }

    /// Starts a new segment at `at`, which ends the older ones there. On an error nothing changes.
    pub(super) fn start_segment(&mut self, at: BatchStart, content_bytes: u64) -> io::Result<()> {
        self.attempts.clear_away(&*self.disk)?;
        let id = self.ids.next_segment();
        let made = create_segment(
            &self.disk,
            self.replica,
            id,
            self.state.generation,
            at,
            content_bytes,
            &self.config,
        );
        let id = FileId { replica: self.replica, segment: id };
        let made = made.inspect_err(|_| self.attempts.failed(&*self.disk, id))?;
        self.renounce_attempts();
        self.outbox.push(made.item);
        let segments = Arc::make_mut(&mut self.segments);
        while let Some(last) = segments.pop_if(|last| last.header.base_index >= at.index) {
            // Nothing of it is part of the log any more.
            self.left.retain(|left| !Arc::ptr_eq(left, &last));
            let (id, path) = (last.header.id, last.path().clone());
            self.outbox.push(FlushItem::Delete { id, path });
        }
        self.left.extend(segments.last().cloned());
        segments.push(made.segment);
        self.active = made.file;
        self.active_since = None;
        self.tail = BatchStart { position: SEGMENT_HEADER_BYTES, ..at };
        Ok(())
    }
}

/// Where the batch after one at `at` begins.
fn after(at: BatchStart, header: &BatchHeader) -> BatchStart {
    BatchStart {
        position: at.position + header.size() as u64,
        index: at.index.next(),
        offset: header.end_offset(),
        epoch_before: header.leader_epoch,
    }
}

/// Whether `batch` is what belongs at `at`.
fn check_next(
    at: BatchStart,
    epoch: LeaderEpoch,
    batch: &Bytes,
) -> Result<BatchHeader, AppendError> {
    let header = BatchHeader::parse(batch)?;
    if header.size() != batch.len() {
        let (have, need) = (batch.len(), header.size());
        return Err(BatchError::Truncated { have, need }.into());
    }
    let right =
        header.base_offset == at.offset && header.leader_epoch == epoch && epoch >= at.epoch_before;
    if !right {
        return Err(AppendError::Mismatch {
            index: at.index,
            got_offset: header.base_offset,
            got_epoch: header.leader_epoch,
            end_offset: at.offset,
            epoch: at.epoch_before,
        });
    }
    Ok(header)
}
