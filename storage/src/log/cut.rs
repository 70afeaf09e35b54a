//! Dropping a tail that was never committed.

use std::io;

use super::append::Burnt;
use super::side_files::producers_as_of;
use super::{AppendError, PartitionLog, ReadError, best_effort};
use crate::ids::LogIndex;
use crate::index::BatchStart;
use crate::segment::SEGMENT_HEADER_BYTES;

impl PartitionLog {
    /// Drops the batches from `from` on, none of them committed, by starting a new segment there.
    /// What was written ahead is dropped with them. On an error nothing changes.
    pub fn cut(&mut self, from: LogIndex) -> Result<(), AppendError> {
        assert!(from > self.committed, "what is committed is never cut");
        assert!(from <= self.last_index().next(), "a cut lies inside the log");
        if from > self.last_index() && self.unpublished.is_empty() {
            return Ok(());
        }
        let before = from.prev();
        let at = BatchStart {
            position: SEGMENT_HEADER_BYTES,
            index: from,
            offset: self.end_offset_of(before),
            epoch_before: self.epoch_at(before).expect("the batch before a cut is in the log"),
        };
        let first_dropped = self.ring.get(from).map(|entry| entry.place);
        // Producer state is rolled back from files, so it comes first: it may fail.
        let producers =
            producers_as_of(&self.disk, &self.dir, &self.segments, &self.epochs, before)
                .map_err(io_error)?;
        self.start_segment(at, 0)?;
        self.unpublished.clear();
        self.burnt = self.burnt.map(Burnt::leave);
        if let Some(place) = first_dropped {
            let holder =
                self.segments.iter().find(|segment| segment.header.id.segment == place.segment);
            if let Some(segment) = holder {
                segment.index.write().truncate(BatchStart { position: place.position, ..at });
            }
            self.ring.truncate(from);
        }
        self.epochs.truncate(from);
        // Behind the creation: until that is durable the batches that were cut off are the log.
        self.save_epochs();
        self.producers = producers;
        best_effort(self.remove_snapshots(from), "removing producer snapshots", &self.dir);
        self.publish_view();
        Ok(())
    }
}

/// Headers that do not read back are a failing disk as much as an error of its driver.
fn io_error(error: ReadError) -> io::Error {
    match error {
        ReadError::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}
