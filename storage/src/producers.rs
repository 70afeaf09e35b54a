//! What a partition remembers of each idempotent producer: enough to recognize a batch that came
//! twice and one that came out of order.
//!
//! The rules are Kafka's (`ProducerAppendInfo`, `ProducerStateEntry`, `UnifiedLog`). The table is a
//! pure function of the batches of the log, so every replica has the same one; it is written beside
//! the log now and then (`{index}.producers`) and otherwise rebuilt from batch headers. A snapshot
//! names the index and epoch of the last batch it includes: two logs that agree on those agree on
//! all before, so one that a truncation made stale is recognized.
//!
//! Time: a producer expires `expiration_ms` after this process last saw it, not after its last
//! record's timestamp as in Kafka, so that loading old records does not switch idempotence off.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes};
use vltava_protocol::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};
use vltava_protocol::record::batch::BatchHeader;

use crate::ids::LogIndex;
use crate::side_file::{self, Magic};

const MAGIC: Magic = Magic(*b"VPRD");
/// Batches of a producer that can be recognized (`ProducerStateEntry.NUM_BATCHES_TO_RETAIN`): a
/// client has at most five requests in flight.
pub const PRODUCER_BATCHES_MAX: usize = 5;

/// What to do with a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Append it.
    Append,
    /// It is in the log already: answer as for the original and append nothing.
    Duplicate {
        /// Offset of the original's first record.
        base_offset: Offset,
        /// Offset of its last record.
        last_offset: Offset,
        /// Its greatest timestamp.
        timestamp: Timestamp,
    },
}

/// Why a producer's batch is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProducerError {
    /// `INVALID_PRODUCER_EPOCH` (47).
    #[error("epoch {got} of producer {producer} is older than {current}")]
    InvalidEpoch {
        /// The producer.
        producer: ProducerId,
        /// The batch's epoch.
        got: ProducerEpoch,
        /// The epoch in force.
        current: ProducerEpoch,
    },
    /// `OUT_OF_ORDER_SEQUENCE_NUMBER` (45).
    #[error("sequence {got} of producer {producer} does not follow {last}")]
    OutOfOrderSequence {
        /// The producer.
        producer: ProducerId,
        /// The batch's first sequence.
        got: Sequence,
        /// The last sequence in the log; `NONE` where the epoch is new and must begin at 0.
        last: Sequence,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Batch {
    base_sequence: Sequence,
    last_sequence: Sequence,
    base_offset: Offset,
    last_offset: Offset,
    timestamp: Timestamp,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    epoch: ProducerEpoch,
    /// Oldest first, at most [`PRODUCER_BATCHES_MAX`].
    batches: Vec<Batch>,
    /// When this process saw it append, or noticed that it is there.
    seen: Option<Timestamp>,
}

impl Entry {
    fn new(epoch: ProducerEpoch) -> Self {
        Self { epoch, batches: Vec::new(), seen: None }
    }

    fn last_sequence(&self) -> Sequence {
        self.batches.last().map_or(Sequence::NONE, |batch| batch.last_sequence)
    }

    fn apply(&mut self, header: &BatchHeader) {
        if self.epoch != header.producer_epoch {
            self.epoch = header.producer_epoch;
            self.batches.clear();
        }
        if header.attributes.is_control() {
            return; // The end of a transaction: its epoch counts, it has no sequence.
        }
        if self.batches.len() == PRODUCER_BATCHES_MAX {
            self.batches.remove(0);
        }
        self.batches.push(Batch {
            base_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            timestamp: header.max_timestamp,
        });
    }
}

/// What a partition knows of one producer, for whoever describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerState {
    /// The producer.
    pub producer: ProducerId,
    /// The epoch in force.
    pub epoch: ProducerEpoch,
    /// The last sequence of that epoch in the log, or `NONE`.
    pub last_sequence: Sequence,
    /// The greatest timestamp of its last batch, or `NONE`.
    pub last_timestamp: Timestamp,
}

/// The producers of a partition.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProducerTable {
    entries: BTreeMap<ProducerId, Entry>,
}

impl ProducerTable {
    /// Takes a batch of the log into account, in order. `now` where this process appended it.
    pub fn apply(&mut self, header: &BatchHeader, now: Option<Timestamp>) {
        if !header.has_producer() || header.is_internal() {
            return;
        }
        let entry = self
            .entries
            .entry(header.producer_id)
            .or_insert_with(|| Entry::new(header.producer_epoch));
        entry.apply(header);
        entry.seen = now;
    }

    /// Takes a `Fence` into account: older epochs are refused from here on. The sequence goes on
    /// where it was, under the new epoch.
    pub fn fence(&mut self, producer: ProducerId, epoch: ProducerEpoch) {
        let entry = self.entries.entry(producer).or_insert_with(|| Entry::new(epoch));
        entry.epoch = entry.epoch.max(epoch);
    }

    /// Judges a batch as if `ahead` were in the log already, in order. Duplicates come first.
    pub fn check<'a>(
        &self,
        header: &BatchHeader,
        ahead: impl Iterator<Item = &'a BatchHeader>,
        now: Timestamp,
        expiration_ms: i64,
    ) -> Result<Admission, ProducerError> {
        if !header.has_producer() {
            return Ok(Admission::Append);
        }
        let producer = header.producer_id;
        let kept = self.entries.get(&producer);
        let mut entry = kept.filter(|entry| !expired(entry, now, expiration_ms)).cloned();
        for earlier in ahead.filter(|earlier| earlier.producer_id == producer) {
            entry.get_or_insert_with(|| Entry::new(earlier.producer_epoch)).apply(earlier);
        }
        // Without any state, every sequence is welcome: its records may have been deleted.
        let Some(entry) = entry else { return Ok(Admission::Append) };
        judge(header, &entry)
    }

    /// Forgets who was not seen for `expiration_ms`. To be called every few minutes; who was not
    /// seen at all by this process counts from the first call.
    pub fn expire(&mut self, now: Timestamp, expiration_ms: i64) {
        self.entries.retain(|_, entry| {
            entry.seen.get_or_insert(now);
            !expired(entry, now, expiration_ms)
        });
    }

    /// Epoch and last sequence of a producer; the sequence is `NONE` where it has none.
    pub fn last_of(&self, producer: ProducerId) -> Option<(ProducerEpoch, Sequence)> {
        self.entries.get(&producer).map(|entry| (entry.epoch, entry.last_sequence()))
    }

    /// What is known of each producer, by id.
    pub fn states(&self) -> impl Iterator<Item = ProducerState> {
        self.entries.iter().map(|(&producer, entry)| ProducerState {
            producer,
            epoch: entry.epoch,
            last_sequence: entry.last_sequence(),
            last_timestamp: entry.batches.last().map_or(Timestamp::NONE, |last| last.timestamp),
        })
    }

    /// The producers, by id.
    pub fn producers(&self) -> impl Iterator<Item = ProducerId> {
        self.entries.keys().copied()
    }

    /// Number of producers.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no producer is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A snapshot that includes the batch at `index`, appended in `epoch`, as a framed file.
    pub fn encode(&self, index: LogIndex, epoch: LeaderEpoch) -> Bytes {
        let mut body = Vec::with_capacity(16 + self.entries.len() * 64);
        body.put_u64(index.0);
        body.put_i32(epoch.0);
        body.put_u32(u32::try_from(self.entries.len()).expect("one entry a producer in memory"));
        for (producer, entry) in &self.entries {
            body.put_i64(producer.0);
            body.put_i16(entry.epoch.0);
            body.put_u8(entry.batches.len() as u8);
            for batch in &entry.batches {
                body.put_i32(batch.base_sequence.0);
                body.put_i32(batch.last_sequence.0);
                body.put_i64(batch.base_offset.0);
                body.put_i64(batch.last_offset.0);
                body.put_i64(batch.timestamp.0);
            }
        }
        side_file::encode(MAGIC, &body)
    }

    /// Reads a snapshot: the last index it includes, the epoch of that batch, and the table.
    pub fn decode(file: &Bytes) -> Option<(LogIndex, LeaderEpoch, Self)> {
        Self::decode_body(side_file::decode(MAGIC, file)?)
    }

    pub(crate) fn decode_body(mut body: Bytes) -> Option<(LogIndex, LeaderEpoch, Self)> {
        let index = LogIndex(body.try_get_u64().ok()?);
        let epoch = LeaderEpoch(body.try_get_i32().ok()?);
        let mut table = Self::default();
        for _ in 0..body.try_get_u32().ok()? {
            let producer = ProducerId(body.try_get_i64().ok()?);
            let mut entry = Entry::new(ProducerEpoch(body.try_get_i16().ok()?));
            let batches = usize::from(body.try_get_u8().ok()?);
            if batches > PRODUCER_BATCHES_MAX {
                return None;
            }
            for _ in 0..batches {
                entry.batches.push(Batch {
                    base_sequence: Sequence(body.try_get_i32().ok()?),
                    last_sequence: Sequence(body.try_get_i32().ok()?),
                    base_offset: Offset(body.try_get_i64().ok()?),
                    last_offset: Offset(body.try_get_i64().ok()?),
                    timestamp: Timestamp(body.try_get_i64().ok()?),
                });
            }
            table.entries.insert(producer, entry);
        }
        body.is_empty().then_some((index, epoch, table))
    }

    pub(crate) const fn magic() -> Magic {
        MAGIC
    }
}

fn expired(entry: &Entry, now: Timestamp, expiration_ms: i64) -> bool {
    entry.seen.is_some_and(|seen| now.0.saturating_sub(seen.0) >= expiration_ms)
}

fn judge(header: &BatchHeader, entry: &Entry) -> Result<Admission, ProducerError> {
    let (producer, got) = (header.producer_id, header.base_sequence);
    if header.producer_epoch == entry.epoch {
        let twin = entry.batches.iter().find(|batch| {
            batch.base_sequence == got && batch.last_sequence == header.last_sequence()
        });
        if let Some(&Batch { base_offset, last_offset, timestamp, .. }) = twin {
            return Ok(Admission::Duplicate { base_offset, last_offset, timestamp });
        }
    }
    if header.producer_epoch < entry.epoch {
        let current = entry.epoch;
        return Err(ProducerError::InvalidEpoch { producer, got: header.producer_epoch, current });
    }
    let last =
        if header.producer_epoch == entry.epoch { entry.last_sequence() } else { Sequence::NONE };
    if got == last.plus(1) {
        Ok(Admission::Append)
    } else {
        Err(ProducerError::OutOfOrderSequence { producer, got, last })
    }
}

#[cfg(test)]
mod tests {
    use vltava_protocol::record::batch::Attributes;

    use super::*;

    const EXPIRATION_MS: i64 = 1000;

    fn batch(epoch: i16, sequence: i32, records: i32, offset: i64) -> BatchHeader {
        BatchHeader {
            base_offset: Offset(offset),
            batch_length: 49,
            leader_epoch: LeaderEpoch(1),
            magic: 2,
            crc: 0,
            attributes: Attributes(0),
            last_offset_delta: records - 1,
            base_timestamp: Timestamp(offset),
            max_timestamp: Timestamp(offset),
            producer_id: ProducerId(7),
            producer_epoch: ProducerEpoch(epoch),
            base_sequence: Sequence(sequence),
            record_count: records,
        }
    }

    fn table(batches: &[(i16, i32, i32)]) -> ProducerTable {
        let mut table = ProducerTable::default();
        let mut offset = 0;
        for &(epoch, sequence, records) in batches {
            table.apply(&batch(epoch, sequence, records, offset), Some(Timestamp(0)));
            offset += i64::from(records);
        }
        table
    }

    /// `Ok(None)` is an append, `Ok(Some(offset))` a duplicate, else Kafka's error code.
    fn verdict(table: &ProducerTable, header: &BatchHeader, now: i64) -> Result<Option<i64>, i16> {
        match table.check(header, std::iter::empty(), Timestamp(now), EXPIRATION_MS) {
            Ok(Admission::Append) => Ok(None),
            Ok(Admission::Duplicate { base_offset, .. }) => Ok(Some(base_offset.0)),
            Err(ProducerError::InvalidEpoch { .. }) => Err(47),
            Err(ProducerError::OutOfOrderSequence { .. }) => Err(45),
        }
    }

    #[test]
    fn rules_are_kafkas() {
        const MAX: i32 = i32::MAX;
        let five: &[(i16, i32, i32)] =
            &[(0, 0, 2), (0, 2, 1), (0, 3, 1), (0, 4, 1), (0, 5, 1), (0, 6, 3)];
        let check = |before: &[(i16, i32, i32)], next: (i16, i32, i32), expected| {
            let (epoch, sequence, records) = next;
            let header = batch(epoch, sequence, records, 0);
            assert_eq!(verdict(&table(before), &header, 0), expected, "{before:?} {next:?}");
        };
        check(&[], (0, 0, 1), Ok(None));
        check(&[], (3, 41, 1), Ok(None)); // no state: any sequence
        check(&[(0, 0, 3)], (0, 3, 1), Ok(None));
        check(&[(0, 0, 3)], (0, 4, 1), Err(45));
        check(&[(0, 0, 3)], (0, 2, 1), Err(45)); // overlaps, equals none
        check(&[(0, 0, 3)], (0, 0, 3), Ok(Some(0))); // exactly the same
        check(&[(0, 0, 3)], (0, 0, 2), Err(45)); // the same start only
        check(&[(0, 0, 3), (0, 3, 2)], (0, 0, 3), Ok(Some(0)));
        check(&[(0, 0, 3), (0, 3, 2)], (0, 3, 2), Ok(Some(3)));
        check(five, (0, 2, 1), Ok(Some(2))); // the fifth last
        check(five, (0, 0, 2), Err(45)); // the sixth last is forgotten
        check(five, (0, 9, 1), Ok(None));
        check(&[(0, MAX - 1, 2)], (0, 0, 1), Ok(None)); // the sequence wraps
        check(&[(0, MAX - 1, 1)], (0, MAX, 3), Ok(None));
        check(&[(0, MAX, 3)], (0, 2, 1), Ok(None)); // MAX, 0, 1
        check(&[(0, MAX, 3)], (0, 0, 1), Err(45));
        check(&[(1, 0, 3)], (2, 0, 1), Ok(None)); // a new epoch begins at 0
        check(&[(1, 0, 3)], (2, 3, 1), Err(45));
        check(&[(1, 0, 3)], (0, 0, 3), Err(47)); // an old epoch, even of an equal batch
        check(&[(0, 0, 3), (1, 0, 1)], (1, 1, 1), Ok(None));
        check(&[(0, 0, 3), (1, 0, 1)], (1, 3, 1), Err(45)); // the old epoch's sequence is gone
    }

    #[test]
    fn batches_written_ahead_count() {
        let table = table(&[(0, 0, 3)]);
        let ahead = [batch(0, 3, 2, 3), batch(0, 5, 1, 5)];
        let check = |sequence, records| {
            let header = batch(0, sequence, records, 0);
            table.check(&header, ahead.iter(), Timestamp(0), EXPIRATION_MS)
        };
        assert_eq!(check(6, 1), Ok(Admission::Append));
        assert!(matches!(check(3, 2), Ok(Admission::Duplicate { base_offset: Offset(3), .. })));
        assert!(matches!(check(3, 1), Err(ProducerError::OutOfOrderSequence { .. })));
    }

    #[test]
    fn idle_producers_are_forgotten() {
        let mut table = table(&[(0, 0, 3)]);
        let gap = batch(0, 41, 1, 0);
        assert_eq!(verdict(&table, &gap, EXPIRATION_MS - 1), Err(45));
        assert_eq!(verdict(&table, &gap, EXPIRATION_MS), Ok(None));
        table.expire(Timestamp(EXPIRATION_MS - 1), EXPIRATION_MS);
        assert_eq!(table.len(), 1);
        table.expire(Timestamp(EXPIRATION_MS), EXPIRATION_MS);
        assert!(table.is_empty());
        // Learned from the log: it counts from the first look.
        table.apply(&batch(0, 0, 1, 0), None);
        table.expire(Timestamp(9000), EXPIRATION_MS);
        assert_eq!(verdict(&table, &gap, 9999), Err(45));
        assert_eq!(verdict(&table, &gap, 10_000), Ok(None));
    }

    #[test]
    fn a_fence_refuses_older_epochs_and_keeps_the_sequence() {
        let mut table = table(&[(1, 0, 3)]);
        table.fence(ProducerId(7), ProducerEpoch(4));
        assert_eq!(table.last_of(ProducerId(7)), Some((ProducerEpoch(4), Sequence(2))));
        assert_eq!(verdict(&table, &batch(1, 3, 1, 0), 0), Err(47));
        assert_eq!(verdict(&table, &batch(4, 3, 1, 0), 0), Ok(None));
        assert_eq!(verdict(&table, &batch(4, 0, 3, 0), 0), Ok(Some(0)), "it is there already");
        table.fence(ProducerId(8), ProducerEpoch(0));
        assert_eq!(table.last_of(ProducerId(8)), Some((ProducerEpoch(0), Sequence::NONE)));
    }

    #[test]
    fn snapshots_read_back() {
        let mut table = table(&[(0, 0, 2), (0, 2, 1), (1, 0, 4)]);
        table.fence(ProducerId(9), ProducerEpoch(2));
        let file = table.encode(LogIndex(40), LeaderEpoch(3));
        let (index, epoch, read) = ProducerTable::decode(&file).unwrap();
        assert_eq!((index, epoch), (LogIndex(40), LeaderEpoch(3)));
        assert_eq!(read.encode(index, epoch), file);
        for position in 0..file.len() {
            let mut bad = file.to_vec();
            bad[position] ^= 1;
            assert!(ProducerTable::decode(&Bytes::from(bad)).is_none(), "flipped {position}");
        }
    }
}
