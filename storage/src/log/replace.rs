//! Switching to the segments of a snapshot.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use vltava_protocol::ids::Offset;

use super::ring::Ring;
use super::{Ids, PartitionLog, ReadError};
use crate::disk::Disk;
use crate::flush::FlushItem;
use crate::ids::{Generation, LogIndex, Place, SegmentId};
use crate::paths::index_file_name;
use crate::producers::ProducerTable;
use crate::read_view::ReadView;
use crate::scan::Access;
use crate::segment::SEGMENT_HEADER_BYTES;
use crate::segments::walk_indexes;
use crate::snapshot::Checked;
use crate::snapshot::SnapshotManifest;

impl PartitionLog {
    pub(crate) fn ids(&self) -> &Ids {
        &self.ids
    }

    /// The segment that is written to.
    pub(crate) fn newest_segment(&self) -> SegmentId {
        self.active.id.segment
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn producer_table(&self) -> &ProducerTable {
        &self.producers
    }

    /// The row that names the new generation leaves first; everything it needs is synced already.
    pub(crate) fn replace(
        &mut self,
        manifest: &SnapshotManifest,
        generation: Generation,
        checked: Checked,
    ) {
        let index = manifest.index;
        assert!(index >= self.committed, "a snapshot never takes back what is committed");
        assert!(generation > self.state.generation, "generations only grow");
        assert!(checked.active.id > self.active.id, "a log writes to its newest segment");
        let place = Place { segment: checked.active.id.segment, position: SEGMENT_HEADER_BYTES };
        let log_start_offset = self.state.log_start.offset.max(manifest.log_start.offset);
        self.state.generation = generation;
        self.state.log_start = manifest.log_start;
        self.state.log_start.offset = log_start_offset;
        self.state.memberships.clone_from(&manifest.memberships);
        self.state.vote.commit = self.state.vote.commit.max(index);
        self.state.durable = Some(place);
        self.state.epochs = checked.epochs.for_row();
        let old = std::mem::replace(&mut self.segments, Arc::new(checked.segments));
        self.active = checked.active;
        self.first_written = self.active.id.segment;
        self.unsynced_from = self.active.id.segment;
        self.active_since = None;
        let end = self.last_segment().index.read().end();
        self.tail = end;
        self.unpublished = VecDeque::new();
        self.left.clear();
        self.ring = Ring::new(index, manifest.end_offset);
        self.epochs = checked.epochs;
        self.producers = checked.producers;
        self.committed = index;
        self.burnt = None;
        self.is_held = false;
        self.floor_limit = index;
        self.recent = place;
        self.save_state();
        self.outbox.push(checked.created);
        for segment in old.iter() {
            // Not there if the segment was never left; stray ones go at the next start.
            let _gone =
                self.disk.remove(&self.dir.join(index_file_name(segment.header.id.segment)));
            let (id, path) = (segment.header.id, segment.path().clone());
            self.outbox.push(FlushItem::Delete { id, path });
        }
        let view = ReadView {
            segments: self.segments.clone(),
            log_start_offset,
            high_watermark: manifest.end_offset,
            last_stable_offset: manifest.end_offset,
            log_end_offset: manifest.end_offset,
            leader_epoch: manifest.epoch,
            first_index: self.state.log_start.first_index,
            committed: index,
            recent: place,
        };
        self.view.update(|current| {
            assert!(view.high_watermark >= current.high_watermark, "a consumer has seen it");
            *current = view;
        });
    }

    /// Where the batch behind the one at `index` begins in its segment, or 0 if that is the last one;
    /// and the offset after the batch at `index`.
    pub(crate) fn end_of(&self, index: LogIndex) -> Result<(u64, Offset), ReadError> {
        let next = index.next();
        if next > self.last_index() {
            return Ok((0, self.end_offset()));
        }
        if let (Some(entry), Some(offset)) = (self.ring.get(next), self.ring.end_offset(index)) {
            return Ok((entry.place.position, offset));
        }
        let mut end = None;
        walk_indexes(&self.segments, next..next.next(), Access::Pread, |met, _| {
            end = Some((met.position, met.header.base_offset));
            Ok(false)
        })?;
        let (first, last) = (self.first_index(), self.last_index());
        end.ok_or(ReadError::IndexOutOfRange { index: next, first, last })
    }
}
