//! The files beside the segments: written when a segment is left and at a clean close.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use vltava_protocol::record::control::{InternalBatch, InternalKind};

use super::{LogError, PartitionLog, ReadError, best_effort};
use crate::disk::{Disk, DiskFile};
use crate::epochs::Epochs;
use crate::flush::FlushItem;
use crate::ids::{LogIndex, Place, SegmentId};
use crate::paths::{index_file_name, parse_producers_file_name, producers_file_name};
use crate::producers::ProducerTable;
use crate::scan::Access;
use crate::segment::Segment;
use crate::segments::walk_indexes;
use crate::side_file;

/// Producer snapshots kept that are durable and at or before the saved commit, below which nothing
/// is cut or lost.
const SAFE_SNAPSHOTS_MAX: usize = 2;

impl PartitionLog {
    /// Writes the side files of the segments left before `active`, whose first batch is about to
    /// become part of the log. Failures only cost a scan at the next start.
    pub(super) fn write_side_files(&mut self, active: SegmentId) {
        let left = self.left.partition_point(|left| left.header.id.segment < active);
        for segment in self.left.drain(..left).collect::<Vec<_>>() {
            let written = self.write_index(&segment);
            let shrunk = written.and_then(|file| segment.index.write().shrink(&*file));
            best_effort(shrunk, "writing an index", &self.dir);
        }
        best_effort(self.write_producers(), "writing a producer snapshot", &self.dir);
    }

    /// Writes the side files of the whole log, so that the next start scans nothing. Call it when
    /// no more batches will come; the flusher then makes them durable, and with them what a
    /// page-cache log has in memory. On an error the node was not stopped in order.
    pub fn close(&mut self) -> Result<(), LogError> {
        if self.state.unsynced {
            // All of it, so that the row may say how far that is.
            self.sync_segments(self.first_written)?;
            self.unsynced_from = self.active.id.segment;
            let position = self.last_segment().index.read().end().position;
            self.state.durable = Some(Place { segment: self.active.id.segment, position });
            self.save_state();
        }
        let mut left = std::mem::take(&mut self.left);
        left.extend(self.segments.last().cloned());
        for segment in &left {
            let written = self.write_index(segment).map(drop);
            best_effort(written, "writing an index", &self.dir);
        }
        best_effort(self.write_producers(), "writing a producer snapshot", &self.dir);
        Ok(())
    }

    fn write_index(&mut self, segment: &Arc<Segment>) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.dir.join(index_file_name(segment.header.id.segment));
        let bytes = segment.index.read().encode(&segment.header);
        let file = side_file::write(&*self.disk, &path, &bytes)?;
        self.outbox.push(FlushItem::Sync { file: file.clone(), dir: self.dir.clone() });
        Ok(file)
    }

    /// Writes producer state as of the end of the log, and removes snapshots that are not needed.
    fn write_producers(&mut self) -> io::Result<()> {
        let last = self.last_index();
        self.write_snapshot(last, &self.producers.encode(last, self.epochs.last()))?;
        // One that was written before the batch at the saved commit is durable as that batch is.
        let saved = self.committed.min(self.state.vote.commit);
        self.fresh_snapshots.retain(|(_, written_at)| *written_at >= saved);
        let is_fresh = |index| self.fresh_snapshots.iter().any(|(fresh, _)| *fresh == index);
        let safe = producer_snapshots(&*self.disk, &self.dir)?
            .into_iter()
            .rev()
            .filter(|index| *index <= saved && !is_fresh(*index));
        for index in safe.skip(SAFE_SNAPSHOTS_MAX) {
            self.disk.remove(&self.dir.join(producers_file_name(index)))?;
        }
        Ok(())
    }

    /// Makes sure of a snapshot that includes all before the segments that stay, and no batch that
    /// may still be cut.
    pub(super) fn keep_producers(&mut self, floor: LogIndex) -> io::Result<()> {
        let committed = self.committed;
        let newest = newest_snapshot(&self.disk, &self.dir, &self.epochs, committed)?;
        if newest.as_ref().is_some_and(|(index, _)| *index >= floor) {
            return Ok(());
        }
        let table = replay_producers(newest, &self.segments, floor).map_err(io::Error::other)?;
        let epoch = self.epochs.at(floor).expect("the floor lies in the log");
        self.write_snapshot(floor, &table.encode(floor, epoch))
    }

    fn write_snapshot(&mut self, index: LogIndex, bytes: &Bytes) -> io::Result<()> {
        let path = self.dir.join(producers_file_name(index));
        let file = side_file::write(&*self.disk, &path, bytes)?;
        self.outbox.push(FlushItem::Sync { file, dir: self.dir.clone() });
        self.fresh_snapshots.push((index, self.last_index()));
        Ok(())
    }

    /// Removes the snapshots that include `from`, which was cut off.
    pub(super) fn remove_snapshots(&self, from: LogIndex) -> io::Result<()> {
        for index in producer_snapshots(&*self.disk, &self.dir)? {
            if index >= from {
                self.disk.remove(&self.dir.join(producers_file_name(index)))?;
            }
        }
        Ok(())
    }
}

/// The producer snapshots of a directory, oldest first.
fn producer_snapshots(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<LogIndex>> {
    let mut indexes: Vec<LogIndex> =
        disk.list(dir)?.iter().filter_map(|name| parse_producers_file_name(name)).collect();
    indexes.sort_unstable();
    Ok(indexes)
}

/// The newest producer snapshot of this very log at or before `last`: the last index it includes,
/// and the table. One of another history, cut off since, is recognized: index and epoch name a
/// batch and all before it.
pub(crate) fn newest_snapshot(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    epochs: &Epochs,
    last: LogIndex,
) -> io::Result<Option<(LogIndex, ProducerTable)>> {
    let snapshots = producer_snapshots(&**disk, dir)?;
    for index in snapshots.into_iter().rev().filter(|index| *index <= last) {
        let path = dir.join(producers_file_name(index));
        let body = side_file::read(&**disk, &path, ProducerTable::magic())?;
        if let Some((as_of, epoch, table)) = body.and_then(ProducerTable::decode_body)
            && as_of == index
            && epochs.at(index) == Some(epoch)
        {
            return Ok(Some((index, table)));
        }
    }
    Ok(None)
}

/// Producer state that includes the batch at `last`: a snapshot and the headers since.
pub(crate) fn producers_as_of(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    segments: &[Arc<Segment>],
    epochs: &Epochs,
    last: LogIndex,
) -> Result<ProducerTable, ReadError> {
    let snapshot = newest_snapshot(disk, dir, epochs, last)?;
    replay_producers(snapshot, segments, last)
}

/// Takes the headers behind a snapshot into account, up to the batch at `last`.
pub(crate) fn replay_producers(
    snapshot: Option<(LogIndex, ProducerTable)>,
    segments: &[Arc<Segment>],
    last: LogIndex,
) -> Result<ProducerTable, ReadError> {
    let first = segments.first().map_or(last.next(), |segment| segment.header.base_index);
    let (from, mut table) = match snapshot {
        Some((index, table)) => (index.next().max(first), table),
        None => (first, ProducerTable::default()),
    };
    walk_indexes(segments, from..last.next(), Access::Pread, |batch, walker| {
        table.apply(&batch.header, None);
        if batch.header.is_internal() {
            let bytes = walker.bytes(batch.position, batch.header.size())?;
            if let Ok((InternalKind::Fence, body)) = InternalBatch::parse(&bytes)
                && let Some((producer, epoch)) = InternalBatch::parse_fence(&body)
            {
                table.fence(producer, epoch);
            }
        }
        Ok(true)
    })?;
    Ok(table)
}
