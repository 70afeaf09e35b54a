//! The 61-byte header of a record batch, and the walk from one batch to the next.
//!
//! Parsing reads the header alone: it proves that the arithmetic on it cannot overflow, and nothing
//! about the payload. What a client sends is judged by `validate`; what is on disk by its checksum.

use bytes::Bytes;

use super::compression::Codec;
use crate::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

/// Bytes before the first record.
pub const BATCH_HEADER_BYTES: usize = 61;
/// Bytes that `batch_length` does not count: base offset and the length itself.
pub const BATCH_OVERHEAD_BYTES: usize = 12;
/// Bytes before the magic: all that a leader writes anew on a client's batch.
pub const BATCH_PREFIX_BYTES: usize = 16;
/// The only format of this log; 0 and 1 went with Kafka 4.
pub const MAGIC: i8 = 2;

const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const BATCH_LENGTH_MIN: i32 = (BATCH_HEADER_BYTES - BATCH_OVERHEAD_BYTES) as i32;

/// What the timestamps of a batch mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// Each record carries its producer's time.
    #[default]
    CreateTime,
    /// `max_timestamp` is the broker's time of the append, and the time of every record.
    LogAppendTime,
}

/// The flags of a batch; under its checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes(pub i16);

impl Attributes {
    const CODEC: i16 = 0b111;
    const LOG_APPEND_TIME: i16 = 1 << 3;
    const TRANSACTIONAL: i16 = 1 << 4;
    const CONTROL: i16 = 1 << 5;
    const DELETE_HORIZON: i16 = 1 << 6;

    /// The codec of the payload; `None` for an id that Kafka does not know.
    pub fn codec(self) -> Option<Codec> {
        Codec::from_id((self.0 & Self::CODEC) as u8)
    }

    /// What the timestamps mean.
    pub fn timestamp_type(self) -> TimestampType {
        if self.0 & Self::LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether the batch speaks to brokers and clients themselves: a marker, or an internal batch.
    pub fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Whether `base_timestamp` is the time at which tombstones may go (KAFKA-8522).
    pub fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }

    /// The same flags with this codec.
    #[must_use]
    pub fn with_codec(self, codec: Codec) -> Self {
        Self(self.0 & !Self::CODEC | i16::from(codec.id()))
    }

    /// The same flags with this timestamp type.
    #[must_use]
    pub fn with_timestamp_type(self, timestamp_type: TimestampType) -> Self {
        match timestamp_type {
            TimestampType::CreateTime => Self(self.0 & !Self::LOG_APPEND_TIME),
            TimestampType::LogAppendTime => Self(self.0 | Self::LOG_APPEND_TIME),
        }
    }

    /// The same flags, of a transaction.
    #[must_use]
    pub fn with_transactional(self) -> Self {
        Self(self.0 | Self::TRANSACTIONAL)
    }

    /// The same flags, of a control batch.
    #[must_use]
    pub fn with_control(self) -> Self {
        Self(self.0 | Self::CONTROL)
    }

    /// The same flags, with a delete horizon in `base_timestamp`.
    #[must_use]
    pub fn with_delete_horizon(self) -> Self {
        Self(self.0 | Self::DELETE_HORIZON)
    }
}

/// Why bytes are no batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the header or its length ask for; a Fetch may end in such a batch.
    #[error("batch of {need} bytes is cut off after {have}")]
    Truncated {
        /// Bytes at hand.
        have: usize,
        /// Bytes of the header, or of the whole batch where its length could be read.
        need: usize,
    },
    /// A format other than v2.
    #[error("batch has magic {0}, only {MAGIC} is supported")]
    Magic(i8),
    /// A length shorter than the header.
    #[error("batch length {0} is less than that of a header, {BATCH_LENGTH_MIN}")]
    Length(i32),
    /// Offsets beyond the range of an `i64`, or a span below zero.
    #[error("batch at offset {base_offset} cannot span {last_offset_delta} more")]
    OffsetRange {
        /// As on the wire.
        base_offset: Offset,
        /// As on the wire.
        last_offset_delta: i32,
    },
}

/// A batch's header, field by field as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record, also where compaction removed that record.
    pub base_offset: Offset,
    /// Bytes after this field: the batch is 12 longer.
    pub batch_length: i32,
    /// Term of the leader that appended it.
    pub leader_epoch: LeaderEpoch,
    /// Always [`MAGIC`].
    pub magic: i8,
    /// CRC-32C of everything after this field.
    pub crc: u32,
    /// Codec and flags.
    pub attributes: Attributes,
    /// Offset of the last record less the base; kept by compaction; -1 of an internal batch.
    pub last_offset_delta: i32,
    /// What the records' timestamps count from, or the delete horizon.
    pub base_timestamp: Timestamp,
    /// Greatest timestamp of a record, or the time of the append.
    pub max_timestamp: Timestamp,
    /// Idempotent producer, or `NONE`.
    pub producer_id: ProducerId,
    /// Its epoch, or `NONE`.
    pub producer_epoch: ProducerEpoch,
    /// Its sequence of the first record, or `NONE`.
    pub base_sequence: Sequence,
    /// Records in the payload; fewer than the offsets spanned after compaction.
    pub record_count: i32,
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has N bytes")
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which may end before the batch does.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        if bytes.len() < BATCH_HEADER_BYTES {
            return Err(BatchError::Truncated { have: bytes.len(), need: BATCH_HEADER_BYTES });
        }
        let header = Self {
            base_offset: Offset(i64::from_be_bytes(field(bytes, 0))),
            batch_length: i32::from_be_bytes(field(bytes, 8)),
            leader_epoch: LeaderEpoch(i32::from_be_bytes(field(bytes, 12))),
            magic: i8::from_be_bytes(field(bytes, BATCH_PREFIX_BYTES)),
            crc: u32::from_be_bytes(field(bytes, CRC_AT)),
            attributes: Attributes(i16::from_be_bytes(field(bytes, ATTRIBUTES_AT))),
            last_offset_delta: i32::from_be_bytes(field(bytes, 23)),
            base_timestamp: Timestamp(i64::from_be_bytes(field(bytes, 27))),
            max_timestamp: Timestamp(i64::from_be_bytes(field(bytes, 35))),
            producer_id: ProducerId(i64::from_be_bytes(field(bytes, 43))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(field(bytes, 51))),
            base_sequence: Sequence(i32::from_be_bytes(field(bytes, 53))),
            record_count: i32::from_be_bytes(field(bytes, 57)),
        };
        if header.magic != MAGIC {
            return Err(BatchError::Magic(header.magic));
        }
        if header.batch_length < BATCH_LENGTH_MIN {
            return Err(BatchError::Length(header.batch_length));
        }
        let Self { base_offset, last_offset_delta, .. } = header;
        let end = base_offset.checked_add(i64::from(last_offset_delta) + 1);
        if base_offset < Offset::ZERO || last_offset_delta < -1 || end.is_none() {
            return Err(BatchError::OffsetRange { base_offset, last_offset_delta });
        }
        Ok(header)
    }

    /// Bytes of the whole batch.
    pub fn size(&self) -> usize {
        self.batch_length as usize + BATCH_OVERHEAD_BYTES
    }

    /// Offset of the last record; one before the base for a batch that spans none.
    pub fn last_offset(&self) -> Offset {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// The offset after the last; the base itself for a batch that spans none.
    pub fn end_offset(&self) -> Offset {
        self.last_offset().next()
    }

    /// The producer's sequence of the last record, or `NONE` where there is no first.
    pub fn last_sequence(&self) -> Sequence {
        if self.base_sequence == Sequence::NONE {
            Sequence::NONE
        } else {
            self.base_sequence.plus(self.last_offset_delta)
        }
    }

    /// Whether the batch is one of ours that spans no offset and that no client ever sees.
    pub fn is_internal(&self) -> bool {
        self.record_count == 0 && self.last_offset_delta == -1
    }

    /// Whether an idempotent or transactional producer sent it.
    pub fn has_producer(&self) -> bool {
        self.producer_id.0 > ProducerId::NONE.0
    }

    /// When the tombstones of a cleaned batch may go.
    pub fn delete_horizon(&self) -> Option<Timestamp> {
        self.attributes.has_delete_horizon().then_some(self.base_timestamp)
    }

    /// The timestamp of a record of this batch, given its delta. Wraps on hostile deltas, as
    /// Kafka's does.
    pub fn timestamp_of(&self, timestamp_delta: i64) -> Timestamp {
        match self.attributes.timestamp_type() {
            TimestampType::CreateTime => {
                Timestamp(self.base_timestamp.0.wrapping_add(timestamp_delta))
            }
            TimestampType::LogAppendTime => self.max_timestamp,
        }
    }

    /// The first 16 bytes of a batch, none of them under the checksum.
    pub fn encode_prefix(
        base_offset: Offset,
        batch_length: i32,
        leader_epoch: LeaderEpoch,
    ) -> [u8; BATCH_PREFIX_BYTES] {
        let mut prefix = [0; BATCH_PREFIX_BYTES];
        prefix[..8].copy_from_slice(&base_offset.0.to_be_bytes());
        prefix[8..12].copy_from_slice(&batch_length.to_be_bytes());
        prefix[12..].copy_from_slice(&leader_epoch.0.to_be_bytes());
        prefix
    }

    /// Writes the header, its checksum as it stands, over the first 61 bytes of `batch`.
    ///
    /// # Panics
    /// When `batch` is shorter than a header.
    pub fn write(&self, batch: &mut [u8]) {
        let prefix = Self::encode_prefix(self.base_offset, self.batch_length, self.leader_epoch);
        batch[..BATCH_PREFIX_BYTES].copy_from_slice(&prefix);
        batch[16..17].copy_from_slice(&self.magic.to_be_bytes());
        batch[17..21].copy_from_slice(&self.crc.to_be_bytes());
        batch[21..23].copy_from_slice(&self.attributes.0.to_be_bytes());
        batch[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        batch[27..35].copy_from_slice(&self.base_timestamp.0.to_be_bytes());
        batch[35..43].copy_from_slice(&self.max_timestamp.0.to_be_bytes());
        batch[43..51].copy_from_slice(&self.producer_id.0.to_be_bytes());
        batch[51..53].copy_from_slice(&self.producer_epoch.0.to_be_bytes());
        batch[53..57].copy_from_slice(&self.base_sequence.0.to_be_bytes());
        batch[57..61].copy_from_slice(&self.record_count.to_be_bytes());
    }

    /// Completes `batch`, whose payload stands behind 61 spare bytes: sets length and checksum in
    /// this header and writes it.
    ///
    /// # Panics
    /// When `batch` is shorter than a header or longer than an `i32` counts.
    pub fn seal(&mut self, batch: &mut [u8]) {
        let length = batch.len() - BATCH_OVERHEAD_BYTES;
        self.batch_length = i32::try_from(length).expect("builders bound a batch below 2 GiB");
        self.write(batch);
        self.crc = crc32c(&batch[ATTRIBUTES_AT..]);
        batch[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&self.crc.to_be_bytes());
    }
}

/// CRC-32C (Castagnoli) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Whether the checksum of `batch`, exactly one batch, is right.
pub fn verify_crc(batch: &[u8]) -> bool {
    batch.len() >= BATCH_HEADER_BYTES
        && u32::from_be_bytes(field(batch, CRC_AT)) == crc32c(&batch[ATTRIBUTES_AT..])
}

/// The batches that lie one behind the other in `records`, as slices of it.
///
/// Ends after the first error: what follows a broken length cannot be found.
pub fn split_batches(records: &Bytes) -> Batches {
    Batches { rest: records.clone() }
}

/// See [`split_batches`].
#[derive(Clone, Debug)]
pub struct Batches {
    rest: Bytes,
}

impl Iterator for Batches {
    type Item = Result<(BatchHeader, Bytes), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = BatchHeader::parse(&self.rest).and_then(|header| {
            let (have, need) = (self.rest.len(), header.size());
            if have < need { Err(BatchError::Truncated { have, need }) } else { Ok(header) }
        });
        Some(match parsed {
            Ok(header) => Ok((header, self.rest.split_to(header.size()))),
            Err(error) => {
                self.rest.clear();
                Err(error)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> BatchHeader {
        BatchHeader {
            base_offset: Offset(42),
            batch_length: 49,
            leader_epoch: LeaderEpoch(7),
            magic: MAGIC,
            crc: 0xdead_beef,
            attributes: Attributes(0).with_codec(Codec::Zstd).with_transactional(),
            last_offset_delta: 9,
            base_timestamp: Timestamp(1000),
            max_timestamp: Timestamp(1009),
            producer_id: ProducerId(5),
            producer_epoch: ProducerEpoch(6),
            base_sequence: Sequence(i32::MAX - 3),
            record_count: 10,
        }
    }

    fn written(header: &BatchHeader) -> Vec<u8> {
        let mut bytes = vec![0; header.size()];
        header.write(&mut bytes);
        bytes
    }

    #[test]
    fn writes_what_it_reads() {
        let bytes = written(&header());
        assert_eq!(BatchHeader::parse(&bytes), Ok(header()));
        assert_eq!(header().last_offset(), Offset(51));
        assert_eq!(header().end_offset(), Offset(52));
        assert_eq!(header().last_sequence(), Sequence(5));
        assert_eq!(header().size(), BATCH_HEADER_BYTES);
        assert_eq!(
            BatchHeader::encode_prefix(Offset(42), 49, LeaderEpoch(7)),
            bytes[..BATCH_PREFIX_BYTES]
        );
    }

    #[test]
    fn refuses_what_is_no_batch() {
        let check = |edit: &dyn Fn(&mut BatchHeader), expected: BatchError| {
            let mut edited = header();
            edit(&mut edited);
            let mut bytes = vec![0; BATCH_HEADER_BYTES];
            edited.write(&mut bytes);
            assert_eq!(BatchHeader::parse(&bytes), Err(expected));
        };
        check(&|h| h.magic = 1, BatchError::Magic(1));
        check(&|h| h.batch_length = 48, BatchError::Length(48));
        check(&|h| h.batch_length = -1, BatchError::Length(-1));
        for (base_offset, last_offset_delta) in [(-1, 0), (0, -2), (i64::MAX, 0), (0, i32::MIN)] {
            let base_offset = Offset(base_offset);
            check(
                &|h| (h.base_offset, h.last_offset_delta) = (base_offset, last_offset_delta),
                BatchError::OffsetRange { base_offset, last_offset_delta },
            );
        }
        let cut = BatchHeader::parse(&[0; 60]);
        assert_eq!(cut, Err(BatchError::Truncated { have: 60, need: 61 }));
    }

    #[test]
    fn attributes_are_kafkas_bits() {
        let all = Attributes(0)
            .with_codec(Codec::Lz4)
            .with_timestamp_type(TimestampType::LogAppendTime)
            .with_transactional()
            .with_control()
            .with_delete_horizon();
        assert_eq!(all, Attributes(0b111_1011));
        assert_eq!(all.codec(), Some(Codec::Lz4));
        assert_eq!(all.with_codec(Codec::Gzip).codec(), Some(Codec::Gzip));
        assert_eq!(Attributes(5).codec(), None);
        let create = all.with_timestamp_type(TimestampType::CreateTime);
        assert_eq!(create.timestamp_type(), TimestampType::CreateTime);
        assert!(create.is_control() && create.is_transactional() && create.has_delete_horizon());
    }

    #[test]
    fn checksum_is_castagnoli() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let mut bytes = written(&header());
        header().seal(&mut bytes);
        assert!(verify_crc(&bytes));
        bytes[0] ^= 1; // the base offset is not covered
        assert!(verify_crc(&bytes));
        bytes[30] ^= 1;
        assert!(!verify_crc(&bytes));
        assert!(!verify_crc(&bytes[..60]));
    }

    #[test]
    fn splits_batches_without_copying() {
        let mut bytes = written(&header());
        bytes.extend_from_slice(&written(&BatchHeader { batch_length: 59, ..header() }));
        bytes.extend_from_slice(&[0; 3]);
        let records = Bytes::from(bytes);
        let mut batches = split_batches(&records);
        assert_eq!(batches.next().unwrap().unwrap().1.as_ptr(), records.as_ptr());
        assert_eq!(batches.next().unwrap().unwrap().1.len(), 71);
        let cut = Err(BatchError::Truncated { have: 3, need: BATCH_HEADER_BYTES });
        assert_eq!(batches.next(), Some(cut));
        assert_eq!(batches.next(), None);

        let cut = split_batches(&records.slice(61..100)).next();
        assert_eq!(cut, Some(Err(BatchError::Truncated { have: 39, need: 61 })));
        let cut = split_batches(&records.slice(61..131)).next();
        assert_eq!(cut, Some(Err(BatchError::Truncated { have: 70, need: 71 })));
    }
}
