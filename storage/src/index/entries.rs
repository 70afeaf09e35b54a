//! The entries of a sparse index: in memory while they grow, in their side file's bytes afterwards.
//!
//! ```text
//! 0 relative_index u32   4 relative_offset u32   8 position u32   12 max_timestamp_before i64
//! ```

use bytes::{Buf, BufMut, Bytes};
use vltava_protocol::ids::Timestamp;

pub(super) const ENTRY_BYTES: usize = 20;

/// One batch of the sparse index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct IndexEntry {
    pub(super) relative_index: u32,
    pub(super) relative_offset: u32,
    pub(super) position: u32,
    /// Greatest timestamp of the segment's batches before this one; `NONE` for the first.
    pub(super) max_timestamp_before: Timestamp,
}

impl IndexEntry {
    fn read(mut bytes: &[u8]) -> Self {
        Self {
            relative_index: bytes.get_u32(),
            relative_offset: bytes.get_u32(),
            position: bytes.get_u32(),
            max_timestamp_before: Timestamp(bytes.get_i64()),
        }
    }

    fn write(self, to: &mut Vec<u8>) {
        to.put_u32(self.relative_index);
        to.put_u32(self.relative_offset);
        to.put_u32(self.position);
        to.put_i64(self.max_timestamp_before.0);
    }
}

/// See the module. The entries of a large segment that was left are a slice of the map of its index
/// file, which the kernel may drop and read again.
#[derive(Clone, Debug)]
pub(super) enum Entries {
    Growing(Vec<IndexEntry>),
    Stored(Bytes),
}

impl Entries {
    pub(super) fn new() -> Self {
        Self::Growing(Vec::new())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Growing(entries) => entries.len(),
            Self::Stored(bytes) => bytes.len() / ENTRY_BYTES,
        }
    }

    pub(super) fn get(&self, at: usize) -> IndexEntry {
        match self {
            Self::Growing(entries) => entries[at],
            Self::Stored(bytes) => IndexEntry::read(&bytes[at * ENTRY_BYTES..]),
        }
    }

    pub(super) fn last(&self) -> Option<IndexEntry> {
        self.len().checked_sub(1).map(|last| self.get(last))
    }

    /// How many entries, all at the front, fulfil `is_before`.
    pub(super) fn partition_point(&self, is_before: impl Fn(&IndexEntry) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(&self.get(middle)) { low = middle + 1 } else { high = middle }
        }
        low
    }

    pub(super) fn push(&mut self, entry: IndexEntry) {
        if let Self::Stored(_) = self {
            *self = Self::Growing((0..self.len()).map(|at| self.get(at)).collect());
        }
        let Self::Growing(entries) = self else { unreachable!("it was just made to grow") };
        entries.push(entry);
    }

    pub(super) fn truncate(&mut self, length: usize) {
        match self {
            Self::Growing(entries) => entries.truncate(length),
            Self::Stored(bytes) => bytes.truncate(length * ENTRY_BYTES),
        }
    }

    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Self::Growing(entries) => entries.iter().for_each(|entry| entry.write(to)),
            Self::Stored(bytes) => to.put_slice(bytes),
        }
    }
}
