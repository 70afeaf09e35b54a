//! The leader epochs of a log: for each epoch, the batch that began it.
//!
//! One list answers raft's question for the term of an index and Kafka's for the end of an epoch
//! (`LeaderEpochFileCache`). It is not stored: it is put together from the segments, whose headers
//! and indexes name the epochs that begin in them.
//!
//! **Invariant:** epochs, indexes and (weakly) offsets rise along the list.

use vltava_protocol::ids::{LeaderEpoch, Offset};

use crate::ids::LogIndex;

/// The first batch of an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Index of its first batch.
    pub first_index: LogIndex,
    /// Where that batch stands; a leader's first batch is internal, so an epoch may have no record.
    pub first_offset: Offset,
}

/// The epochs of a log, oldest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Epochs {
    /// Epoch of the batch before the first one that the log still has.
    before: LeaderEpoch,
    first_index: LogIndex,
    starts: Vec<EpochStart>,
}

impl Epochs {
    /// The list of a log that begins at `first_index`, after a batch of epoch `before`.
    pub fn new(before: LeaderEpoch, first_index: LogIndex) -> Self {
        Self { before, first_index, starts: Vec::new() }
    }

    /// The epoch in force at the end of the log.
    pub fn last(&self) -> LeaderEpoch {
        self.starts.last().map_or(self.before, |start| start.epoch)
    }

    /// The list.
    pub fn starts(&self) -> &[EpochStart] {
        &self.starts
    }

    /// Takes note of a batch appended at `index` and `offset`.
    pub fn push(&mut self, epoch: LeaderEpoch, index: LogIndex, offset: Offset) {
        assert!(epoch >= self.last(), "leader epochs only grow along the log");
        if epoch > self.last() {
            self.starts.push(EpochStart { epoch, first_index: index, first_offset: offset });
        }
    }

    /// Forgets the batches from `index` on.
    pub fn truncate(&mut self, index: LogIndex) {
        self.starts.retain(|start| start.first_index < index);
    }

    /// Forgets the batches before `index`, which was the start of a segment.
    pub fn advance(&mut self, index: LogIndex) {
        assert!(index >= self.first_index, "the start of a log never goes back");
        let gone = self.starts.partition_point(|start| start.first_index < index);
        if let Some(last) = gone.checked_sub(1) {
            let last = self.starts[last];
            self.before = last.epoch;
            self.starts.drain(..gone);
        }
        self.first_index = index;
    }

    /// The epoch of the batch at `index`, for the one before the first batch as well. The caller
    /// knows where the log ends.
    pub fn at(&self, index: LogIndex) -> Option<LeaderEpoch> {
        if index < self.first_index.prev() {
            return None;
        }
        let begun = self.starts.partition_point(|start| start.first_index <= index);
        Some(begun.checked_sub(1).map_or(self.before, |last| self.starts[last].epoch))
    }

    /// Kafka's answer to `OffsetForLeaderEpoch` (`LeaderEpochFileCache.endOffsetFor`): the largest
    /// epoch at or below `requested`, and where it ends. `log_start` is where the oldest epoch of
    /// the list begins, `log_end` where the newest ends.
    pub fn end_offset_for(
        &self,
        requested: LeaderEpoch,
        log_start: Offset,
        log_end: Offset,
    ) -> (LeaderEpoch, Offset) {
        let undefined = (LeaderEpoch::NONE, Offset::NONE);
        // The epoch in force at the start is known only while a batch of it is here.
        let carried = self.starts.first().is_none_or(|start| start.first_index > self.first_index)
            && log_end > log_start;
        let first = if carried { Some((self.before, log_start)) } else { None };
        let listed = self.starts.iter().map(|start| (start.epoch, start.first_offset));
        let list: Vec<(LeaderEpoch, Offset)> = first.into_iter().chain(listed).collect();
        let Some(&(latest, _)) = list.last() else { return undefined };
        if requested == latest {
            return (requested, log_end);
        }
        if requested > latest || requested == LeaderEpoch::NONE {
            return undefined;
        }
        let higher = list.partition_point(|&(epoch, _)| epoch <= requested);
        let end = list[higher].1.max(log_start);
        match higher.checked_sub(1) {
            Some(floor) => (list[floor].0, end),
            None => (requested, end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs() -> Epochs {
        let mut epochs = Epochs::new(LeaderEpoch(1), LogIndex(2));
        for (epoch, index, offset) in [(2, 2, 0), (2, 3, 0), (4, 7, 10), (4, 8, 10), (7, 9, 25)] {
            epochs.push(LeaderEpoch(epoch), LogIndex(index), Offset(offset));
        }
        epochs
    }

    #[test]
    fn answers_for_every_index() {
        let mut epochs = epochs();
        for (index, epoch) in
            [(0, None), (1, Some(1)), (2, Some(2)), (6, Some(2)), (7, Some(4)), (9, Some(7))]
        {
            assert_eq!(epochs.at(LogIndex(index)), epoch.map(LeaderEpoch), "index {index}");
        }
        epochs.advance(LogIndex(8));
        for (index, epoch) in [(6, None), (7, Some(4)), (8, Some(4)), (9, Some(7))] {
            assert_eq!(epochs.at(LogIndex(index)), epoch.map(LeaderEpoch), "index {index}");
        }
        epochs.truncate(LogIndex(9));
        assert_eq!(epochs.last(), LeaderEpoch(4));
    }

    #[test]
    fn ends_of_epochs_are_kafkas() {
        let check = |requested: i32, expected: (i32, i64)| {
            let got = epochs().end_offset_for(LeaderEpoch(requested), Offset(0), Offset(30));
            assert_eq!(got, (LeaderEpoch(expected.0), Offset(expected.1)), "epoch {requested}");
        };
        check(7, (7, 30)); // the current one
        check(8, (-1, -1)); // a later one
        check(-1, (-1, -1));
        check(1, (1, 0)); // before the first
        check(2, (2, 10));
        check(3, (2, 10)); // between
        check(4, (4, 25));
        check(5, (4, 25));
    }

    #[test]
    fn the_epoch_in_force_at_a_moved_start_counts() {
        let mut epochs = epochs();
        epochs.advance(LogIndex(8));
        let end = |epoch| epochs.end_offset_for(LeaderEpoch(epoch), Offset(12), Offset(30));
        assert_eq!(end(4), (LeaderEpoch(4), Offset(25)));
        assert_eq!(end(3), (LeaderEpoch(3), Offset(12)));
    }
}
