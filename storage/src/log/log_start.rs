//! Moving the start of the log and letting go of what lies before it.

use std::sync::Arc;

use vltava_protocol::ids::Offset;

use super::{PartitionLog, best_effort, log_start_forgotten};
use crate::flush::FlushItem;
use crate::ids::LogIndex;
use crate::paths::index_file_name;
use crate::segment::Segment;

impl PartitionLog {
    /// Applies a committed `LogStart` that lies at `index`: nothing before `offset` is readable any
    /// more, and whole segments before it go. An offset behind the present start changes nothing.
    pub fn apply_log_start(&mut self, index: LogIndex, offset: Offset) {
        assert!(index <= self.committed, "only what is committed is applied");
        assert!(offset <= self.high_watermark(), "a log starts where it is committed");
        self.floor_limit = self.floor_limit.max(index);
        if offset > self.state.log_start.offset {
            self.state.log_start.offset = offset;
            self.view.update(|view| view.log_start_offset = offset);
            if !log_start_forgotten() {
                self.save_state();
            }
        }
        self.advance_floor();
    }

    /// Keeps every segment that the log has now, for snapshots in flight, until
    /// [`PartitionLog::release_first_index`]. The caller bounds the time.
    pub fn hold_first_index(&mut self) {
        self.is_held = true;
    }

    /// Ends the hold; what could have gone meanwhile goes now.
    pub fn release_first_index(&mut self) {
        self.is_held = false;
        self.advance_floor();
    }

    /// Lets go of whole segments before the log start, none of them above the last applied one. Those
    /// that cannot go yet (see [`PartitionLog::hold_first_index`]; a snapshot of the producers could
    /// not be written) go when it is called again.
    pub fn advance_floor(&mut self) {
        if self.is_held {
            return;
        }
        self.leave_deleted_tail();
        let offset = self.state.log_start.offset;
        let gone = self
            .segments
            .iter()
            .take(self.segments.len() - 1)
            .take_while(|segment| {
                let end = segment.index.read().end();
                end.offset <= offset && end.index <= self.floor_limit.next()
            })
            .count();
        if gone == 0 {
            return;
        }
        // Producers outlive their batches: from here on only a snapshot knows them, so without one
        // the segments stay.
        let floor = self.segments[gone].header.base_index.prev();
        if let Err(error) = self.keep_producers(floor) {
            tracing::warn!(dir = %self.dir.display(), %error, "deleted segments cannot go yet");
            // On a full disk these make room for it; they would go with their segments anyway.
            for segment in &self.segments[..gone] {
                self.remove_index_file(segment);
            }
            return;
        }
        let dropped: Vec<_> = Arc::make_mut(&mut self.segments).drain(..gone).collect();
        let first = self.segments[0].header;
        assert!(first.base_index <= self.committed.next(), "nothing uncommitted goes");
        self.state.log_start.first_index = first.base_index;
        self.state.log_start.epoch_before = first.epoch_before;
        self.epochs.advance(first.base_index);
        self.state.epochs = self.epochs.for_row();
        self.ring.drop_to(first.base_index.prev());
        self.left.retain(|left| left.header.base_index >= first.base_index);
        self.save_state();
        for segment in dropped {
            self.remove_index_file(&segment);
            let (id, path) = (segment.header.id, segment.path().clone());
            self.outbox.push(FlushItem::Delete { id, path });
        }
        let segments = self.segments.clone();
        self.view.update(|view| {
            view.first_index = first.base_index;
            view.segments = segments;
        });
    }

    /// Removes the index of a segment that goes. It may never have been written, and recovery removes
    /// one that is left without its segment.
    fn remove_index_file(&self, segment: &Segment) {
        let path = self.dir.join(index_file_name(segment.header.id.segment));
        self.disk.remove(&path).ok();
    }

    /// Leaves the last segment if all records it has are deleted, so that its space can be freed.
    fn leave_deleted_tail(&mut self) {
        let last = self.last_segment();
        let has_records = self.end_offset() > last.header.base_offset;
        let deleted = self.end_offset() <= self.state.log_start.offset;
        if has_records && deleted && self.unpublished.is_empty() && self.burnt.is_none() {
            let started = self.start_segment(self.tail, 0);
            best_effort(started, "leaving a deleted segment", &self.dir);
            self.publish_view();
        }
    }
}
