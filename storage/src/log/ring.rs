//! The batches near the tail: from the commit (and a few before it) to the end.
//!
//! **Invariant:** covers every index above `base`, without gaps, so moving the high watermark and
//! cutting the tail need no scan.

use std::collections::VecDeque;

use vltava_protocol::ids::Offset;

use crate::ids::{LogIndex, Place};

/// Committed batches that are remembered behind the commit, for followers that are just behind.
const COMMITTED_MAX: u64 = 16;
/// Room kept when a burst is over.
const IDLE_CAPACITY: usize = 64;

/// One batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RingEntry {
    pub(super) end_offset: Offset,
    pub(super) place: Place,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    base: LogIndex,
    base_end_offset: Offset,
    entries: VecDeque<RingEntry>,
}

impl Ring {
    /// A ring that knows where `base` ends and nothing after it.
    pub(super) fn new(base: LogIndex, base_end_offset: Offset) -> Self {
        Self { base, base_end_offset, entries: VecDeque::new() }
    }

    pub(super) fn push(&mut self, entry: RingEntry) {
        self.entries.push_back(entry);
    }

    pub(super) fn last_index(&self) -> LogIndex {
        LogIndex(self.base.0 + self.entries.len() as u64)
    }

    /// The batch at `index`, if it is that near to the tail.
    pub(super) fn get(&self, index: LogIndex) -> Option<&RingEntry> {
        let at = index.0.checked_sub(self.base.0)?.checked_sub(1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// The offset after the batch at `index`, known for the base as well.
    pub(super) fn end_offset(&self, index: LogIndex) -> Option<Offset> {
        if index == self.base {
            return Some(self.base_end_offset);
        }
        self.get(index).map(|entry| entry.end_offset)
    }

    /// Forgets the batches from `index` on.
    pub(super) fn truncate(&mut self, index: LogIndex) {
        assert!(index > self.base, "a cut lies above the commit");
        self.entries.truncate((index.0 - self.base.0 - 1) as usize);
    }

    /// Forgets most of what lies before the commit.
    pub(super) fn commit(&mut self, committed: LogIndex) {
        self.drop_to(LogIndex(committed.0.saturating_sub(COMMITTED_MAX)));
        if self.entries.len() < IDLE_CAPACITY && self.entries.capacity() > 4 * IDLE_CAPACITY {
            self.entries.shrink_to(IDLE_CAPACITY);
        }
    }

    /// Forgets everything up to `index`.
    pub(super) fn drop_to(&mut self, index: LogIndex) {
        while self.base < index {
            let Some(first) = self.entries.pop_front() else { break };
            (self.base, self.base_end_offset) = (self.base.next(), first.end_offset);
        }
    }
}
