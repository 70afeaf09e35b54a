//! The leader epochs of a log: for each epoch, the batch that began it.
//!
//! One list answers raft's question for the term of an index and Kafka's for the end of an epoch
//! (`LeaderEpochFileCache`). It is put together from the segments, whose headers and indexes name
//! the epochs that begin in them.
//!
//! The newest part of it lies in the replica's row too, under a checksum, because nothing else
//! proves the epoch that stands in a batch: the batch's own checksum begins behind it. A row is
//! saved before the first batch of an epoch, so `Epochs::allows` can refuse every epoch that a
//! batch was not written with, wherever in the log it lies.
//!
//! **Invariant:** epochs, indexes and (weakly) offsets rise along the list.

use bytes::{Buf, BufMut, Bytes};
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

/// Epochs that a row remembers. A log has as many as it saw elections; of those before the newest
/// so many, only the bounds are known to the row.
const IN_ROW_MAX: usize = 256;

/// The epochs of a log, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
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

    /// The first batch that the list knows of, and the epoch of the one before it.
    pub(crate) fn start(&self) -> (LogIndex, LeaderEpoch) {
        (self.first_index, self.before)
    }

    /// Appends the list to a record. See the write-ahead records.
    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        to.put_u64(self.first_index.0);
        to.put_i32(self.before.0);
        to.put_u32(u32::try_from(self.starts.len()).expect("fewer than the elections of a log"));
        for start in &self.starts {
            to.put_i32(start.epoch.0);
            to.put_u64(start.first_index.0);
            to.put_i64(start.first_offset.0);
        }
    }

    /// Takes a list from the front; none if there is none, or its epochs do not rise.
    pub(crate) fn decode(from: &mut Bytes) -> Option<Self> {
        let first_index = LogIndex(from.try_get_u64().ok()?);
        let before = LeaderEpoch(from.try_get_i32().ok()?);
        let mut list = Self::new(before, first_index);
        let mut index_min = first_index;
        for _ in 0..from.try_get_u32().ok()? {
            let start = EpochStart {
                epoch: LeaderEpoch(from.try_get_i32().ok()?),
                first_index: LogIndex(from.try_get_u64().ok()?),
                first_offset: Offset(from.try_get_i64().ok()?),
            };
            if start.epoch <= list.last() || start.first_index < index_min {
                return None;
            }
            index_min = start.first_index.next();
            list.starts.push(start);
        }
        Some(list)
    }

    /// Whether the batch at `index` was written with `epoch`: exactly known from the first index of
    /// the list on; before it, epochs were lower.
    pub(crate) fn allows(&self, index: LogIndex, epoch: LeaderEpoch) -> bool {
        if index < self.first_index { epoch <= self.before } else { self.at(index) == Some(epoch) }
    }

    /// Whether this list of a log that ends before `end` names the epochs that `row` remembers.
    pub(crate) fn agrees_with(&self, row: &Self, end: LogIndex) -> bool {
        let here = self.starts.iter().filter(|start| start.first_index >= row.first_index);
        let in_log = self.first_index..end;
        here.eq(row.starts.iter().filter(|start| in_log.contains(&start.first_index)))
    }

    /// The list as a row keeps it: the newest epochs.
    pub(crate) fn for_row(&self) -> Self {
        let mut list = self.clone();
        if let Some(gone) = list.starts.len().checked_sub(IN_ROW_MAX).filter(|gone| *gone > 0) {
            list.advance(list.starts[gone].first_index);
        }
        list
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

    /// Forgets the batches before `index`.
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

    #[test]
    fn a_row_keeps_the_newest() {
        let mut all = Epochs::new(LeaderEpoch(1), LogIndex(2));
        for epoch in 2..=600 {
            all.push(LeaderEpoch(epoch), LogIndex(3 * epoch as u64), Offset(0));
        }
        let row = all.for_row();
        assert_eq!(row.starts().len(), IN_ROW_MAX);
        assert!(all.agrees_with(&row, LogIndex(1801)));
        for index in [3 * 345, 3 * 345 + 2, 1800, 1801] {
            let epoch = all.at(LogIndex(index)).unwrap();
            assert!(row.allows(LogIndex(index), epoch));
            assert!(!row.allows(LogIndex(index), LeaderEpoch(epoch.0 - 1)), "{index}");
            assert!(!row.allows(LogIndex(index), LeaderEpoch(epoch.0 + 1)), "{index}");
        }
        assert!(row.allows(LogIndex(6), LeaderEpoch(2)));
        assert!(!row.allows(LogIndex(6), LeaderEpoch(345)), "an epoch that began later");
        let mut bytes = Vec::new();
        row.encode(&mut bytes);
        assert_eq!(Epochs::decode(&mut bytes.into()), Some(row));
    }
}
