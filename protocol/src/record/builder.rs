//! Builds record batches: coordinators, stream tasks and our own clients write through it.
//!
//! The builder keeps its buffers, so a long-lived one allocates nothing per record and, for
//! uncompressed batches whose predecessors were dropped, nothing per batch.

use bytes::{Bytes, BytesMut};

use super::batch::{Attributes, BATCH_HEADER_BYTES, BatchHeader, MAGIC};
use super::compression::{self, Codec, CompressionError};
use super::record::{Header, Record};
use super::varint::{put_varint, put_varlong, varint_bytes, varlong_bytes};
use crate::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

/// Most bytes of records that a builder takes; the caller closes its batches long before.
pub const BUILDER_BYTES_MAX: usize = 1 << 30;
// A codec makes an incompressible payload a little longer, and the length must fit an `i32`.
const _: () = assert!(BUILDER_BYTES_MAX < i32::MAX as usize / 3 * 2);

/// What stands in the header beside what follows from the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchFields {
    /// Offset of delta 0; a producer sends 0.
    pub base_offset: Offset,
    /// The leader's term; a producer sends `NONE`.
    pub leader_epoch: LeaderEpoch,
    /// Flags; the codec is the builder's.
    pub attributes: Attributes,
    /// Idempotent producer, or `NONE`.
    pub producer_id: ProducerId,
    /// Its epoch, or `NONE`.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of delta 0, or `NONE`.
    pub base_sequence: Sequence,
}

impl Default for BatchFields {
    /// As a producer without idempotence sends it.
    fn default() -> Self {
        Self {
            base_offset: Offset::ZERO,
            leader_epoch: LeaderEpoch::NONE,
            attributes: Attributes::default(),
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch::NONE,
            base_sequence: Sequence::NONE,
        }
    }
}

/// Gathers records and makes batches of them.
#[derive(Debug)]
pub struct BatchBuilder {
    codec: Codec,
    level: Option<i32>,
    /// Room for the header, then the records, uncompressed.
    batch: BytesMut,
    base_timestamp: Option<Timestamp>,
    max_timestamp: Timestamp,
    last_offset_delta: i32,
    record_count: i32,
}

/// How far a builder was: see [`BatchBuilder::mark`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    bytes: usize,
    base_timestamp: Option<Timestamp>,
    max_timestamp: Timestamp,
    last_offset_delta: i32,
    record_count: i32,
}

impl BatchBuilder {
    /// An empty builder; `level` is the codec's, its default where `None`.
    pub fn new(codec: Codec, level: Option<i32>) -> Self {
        let mut builder = Self {
            codec,
            level,
            batch: BytesMut::new(),
            base_timestamp: None,
            max_timestamp: Timestamp::NONE,
            last_offset_delta: -1,
            record_count: 0,
        };
        builder.clear();
        builder
    }

    /// Forgets the records gathered so far.
    pub fn clear(&mut self) {
        self.batch.clear();
        self.batch.resize(BATCH_HEADER_BYTES, 0);
        self.base_timestamp = None;
        self.max_timestamp = Timestamp::NONE;
        self.last_offset_delta = -1;
        self.record_count = 0;
    }

    /// Makes the records count their time from `base_timestamp` instead of from the first one's;
    /// a cleaner's delete horizon stands there. To be called before the first record.
    pub fn count_time_from(&mut self, base_timestamp: Timestamp) {
        assert!(self.is_empty(), "deltas of earlier records count from another time");
        self.base_timestamp = Some(base_timestamp);
    }

    /// How far the builder is, so that what comes after can be taken back.
    pub fn mark(&self) -> Mark {
        Mark {
            bytes: self.batch.len(),
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            last_offset_delta: self.last_offset_delta,
            record_count: self.record_count,
        }
    }

    /// Takes back the records that were added since `mark`, of which no batch was built.
    ///
    /// # Panics
    /// When a batch was built since.
    pub fn truncate(&mut self, mark: Mark) {
        assert!(mark.record_count <= self.record_count, "a batch was built since the mark");
        self.batch.truncate(mark.bytes);
        self.base_timestamp = mark.base_timestamp;
        self.max_timestamp = mark.max_timestamp;
        self.last_offset_delta = mark.last_offset_delta;
        self.record_count = mark.record_count;
    }

    /// Records gathered.
    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    /// Whether no record was gathered.
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Bytes of the batch if it were built now, uncompressed.
    pub fn bytes(&self) -> usize {
        self.batch.len()
    }

    /// Adds a record at the next offset. Returns its offset delta.
    ///
    /// # Panics
    /// When the batch would exceed [`BUILDER_BYTES_MAX`].
    pub fn append(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> i32 {
        let offset_delta = self.last_offset_delta + 1;
        self.append_parts(offset_delta, timestamp, key, value, headers.iter().copied());
        offset_delta
    }

    /// Adds a record of another batch at a given offset delta, greater than the last: how a
    /// cleaner keeps the survivors where they were.
    ///
    /// # Panics
    /// When the delta is not greater, or the batch would exceed [`BUILDER_BYTES_MAX`].
    pub fn append_record(&mut self, offset_delta: i32, timestamp: Timestamp, record: &Record<'_>) {
        self.append_parts(offset_delta, timestamp, record.key, record.value, record.headers.iter());
    }

    fn append_parts<'h>(
        &mut self,
        offset_delta: i32,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = Header<'h>> + Clone,
    ) {
        assert!(offset_delta > self.last_offset_delta, "offsets of a batch ascend");
        let base_timestamp = *self.base_timestamp.get_or_insert(timestamp);
        let timestamp_delta = timestamp.0.wrapping_sub(base_timestamp.0);
        let header_count = headers.len();
        let headers_bytes: usize =
            headers.clone().map(|h| nullable_bytes(Some(h.key)) + nullable_bytes(h.value)).sum();
        let length = 1 // attributes
            + varlong_bytes(timestamp_delta)
            + varint_bytes(offset_delta)
            + nullable_bytes(key)
            + nullable_bytes(value)
            + varint_bytes(header_count as i32)
            + headers_bytes;
        assert!(self.batch.len() + length <= BUILDER_BYTES_MAX, "batch of 1 GiB");
        // The assertion bounds every part too: their lengths and number fit an i32.
        self.batch.reserve(length + varint_bytes(length as i32));
        put_varint(&mut self.batch, length as i32);
        self.batch.extend_from_slice(&[0]);
        put_varlong(&mut self.batch, timestamp_delta);
        put_varint(&mut self.batch, offset_delta);
        put_nullable(&mut self.batch, key);
        put_nullable(&mut self.batch, value);
        put_varint(&mut self.batch, header_count as i32);
        for header in headers {
            put_nullable(&mut self.batch, Some(header.key));
            put_nullable(&mut self.batch, header.value);
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.last_offset_delta = offset_delta;
        self.record_count += 1;
    }

    /// Makes one batch of the records gathered and forgets them. One without records is Kafka's
    /// empty batch of no offsets; callers ask [`BatchBuilder::is_empty`] first.
    pub fn build(&mut self, fields: &BatchFields) -> Result<Bytes, CompressionError> {
        let last_offset_delta = self.last_offset_delta;
        self.build_spanning(fields, last_offset_delta)
    }

    /// As [`BatchBuilder::build`], for a batch whose last offset outlives its last record: a
    /// cleaned batch spans what it always spanned.
    ///
    /// # Panics
    /// When `last_offset_delta` is less than that of the last record.
    pub fn build_spanning(
        &mut self,
        fields: &BatchFields,
        last_offset_delta: i32,
    ) -> Result<Bytes, CompressionError> {
        assert!(last_offset_delta >= self.last_offset_delta, "the span holds every record");
        let mut header = BatchHeader {
            base_offset: fields.base_offset,
            batch_length: 0,
            leader_epoch: fields.leader_epoch,
            magic: MAGIC,
            crc: 0,
            attributes: fields.attributes.with_codec(self.codec),
            last_offset_delta,
            base_timestamp: self.base_timestamp.unwrap_or(Timestamp::NONE),
            max_timestamp: self.max_timestamp,
            producer_id: fields.producer_id,
            producer_epoch: fields.producer_epoch,
            base_sequence: fields.base_sequence,
            record_count: self.record_count,
        };
        let built = if self.codec == Codec::None {
            header.seal(&mut self.batch);
            Ok(self.batch.split().freeze())
        } else {
            seal_compressed(&mut header, self.level, &self.batch[BATCH_HEADER_BYTES..])
        };
        self.clear();
        built
    }
}

/// Makes the batch of `header` again with another codec, given its uncompressed payload. Length,
/// checksum and codec change, everything else stays.
pub fn rebuild(
    header: &BatchHeader,
    payload: &[u8],
    codec: Codec,
    level: Option<i32>,
) -> Result<Bytes, CompressionError> {
    let attributes = header.attributes.with_codec(codec);
    seal_compressed(&mut BatchHeader { attributes, ..*header }, level, payload)
}

fn seal_compressed(
    header: &mut BatchHeader,
    level: Option<i32>,
    payload: &[u8],
) -> Result<Bytes, CompressionError> {
    let codec = header.attributes.codec().expect("the caller set a known codec");
    let mut batch = Vec::with_capacity(BATCH_HEADER_BYTES + payload.len() / 2);
    batch.resize(BATCH_HEADER_BYTES, 0);
    compression::compress(codec, level, payload, &mut batch)?;
    header.seal(&mut batch);
    Ok(Bytes::from(batch))
}

fn nullable_bytes(bytes: Option<&[u8]>) -> usize {
    match bytes {
        Some(bytes) => varint_bytes(bytes.len() as i32) + bytes.len(),
        None => varint_bytes(-1),
    }
}

fn put_nullable(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_varint(out, bytes.len() as i32);
            out.extend_from_slice(bytes);
        }
        None => put_varint(out, -1),
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::{TimestampType, verify_crc};
    use super::super::record::Records;
    use super::*;

    const HEADERS: &[Header<'_>] =
        &[Header { key: b"h", value: Some(b"1") }, Header { key: b"h", value: None }];

    fn fields() -> BatchFields {
        BatchFields {
            base_offset: Offset(100),
            leader_epoch: LeaderEpoch(3),
            attributes: Attributes::default().with_transactional(),
            producer_id: ProducerId(9),
            producer_epoch: ProducerEpoch(1),
            base_sequence: Sequence(40),
        }
    }

    #[test]
    fn builds_what_the_walk_reads_with_every_codec() {
        for codec in Codec::ALL {
            let mut builder = BatchBuilder::new(codec, None);
            for round in 0..3 {
                builder.append(Timestamp(1000), Some(b"k"), Some(b"v"), HEADERS);
                builder.append(Timestamp(990), None, Some(&[7; 500]), &[]);
                builder.append(Timestamp(1005), Some(b""), None, &[]);
                let batch = builder.build(&fields()).unwrap();
                assert!(builder.is_empty());

                let header = BatchHeader::parse(&batch).unwrap();
                assert!(verify_crc(&batch), "{codec:?} {round}");
                assert_eq!(header.size(), batch.len());
                assert_eq!(header.attributes.codec(), Some(codec));
                assert!(header.attributes.is_transactional());
                assert_eq!((header.last_offset(), header.record_count), (Offset(102), 3));
                assert_eq!(header.base_timestamp, Timestamp(1000));
                assert_eq!(header.max_timestamp, Timestamp(1005));

                let mut payload = Vec::new();
                let packed = &batch[BATCH_HEADER_BYTES..];
                compression::decompress(codec, packed, 10_000, &mut payload).unwrap();
                let records: Vec<_> = Records::new(&payload, 3).map(Result::unwrap).collect();
                let times: Vec<_> =
                    records.iter().map(|r| header.timestamp_of(r.timestamp_delta).0).collect();
                assert_eq!(times, [1000, 990, 1005]);
                assert_eq!(records[0].headers.iter().collect::<Vec<_>>(), HEADERS);
                assert_eq!(records[1].value.map(<[u8]>::len), Some(500));
                assert_eq!((records[2].key, records[2].value), (Some(&b""[..]), None));
            }
        }
    }

    #[test]
    fn rebuilding_changes_the_codec_alone() {
        let mut builder = BatchBuilder::new(Codec::None, None);
        builder.append(Timestamp(5), None, Some(&[1; 1000]), &[]);
        let plain = builder.build(&fields()).unwrap();
        let header = BatchHeader::parse(&plain).unwrap();
        let payload = &plain[BATCH_HEADER_BYTES..];
        for codec in Codec::ALL {
            let batch = rebuild(&header, payload, codec, None).unwrap();
            assert!(verify_crc(&batch));
            let rebuilt = BatchHeader::parse(&batch).unwrap();
            let BatchHeader { batch_length, crc, .. } = rebuilt;
            let attributes = header.attributes.with_codec(codec);
            assert_eq!(rebuilt, BatchHeader { batch_length, crc, attributes, ..header });
        }
        assert_eq!(rebuild(&header, payload, Codec::None, None).unwrap(), plain);
    }

    #[test]
    fn a_cleaned_batch_keeps_offsets_and_span() {
        let mut builder = BatchBuilder::new(Codec::None, None);
        for time in [10, 20, 30] {
            builder.append(Timestamp(time), Some(b"k"), None, &[]);
        }
        let batch = builder.build(&fields()).unwrap();
        let header = BatchHeader::parse(&batch).unwrap();

        builder.count_time_from(Timestamp(500));
        let mut records = Records::new(&batch[BATCH_HEADER_BYTES..], 3);
        let survivor = records.nth(1).unwrap().unwrap();
        let timestamp = header.timestamp_of(survivor.timestamp_delta);
        builder.append_record(survivor.offset_delta, timestamp, &survivor);
        let attributes = header.attributes.with_delete_horizon();
        let cleaned = builder.build_spanning(&BatchFields { attributes, ..fields() }, 2).unwrap();

        let header = BatchHeader::parse(&cleaned).unwrap();
        assert_eq!((header.record_count, header.last_offset_delta), (1, 2));
        assert_eq!(header.delete_horizon(), Some(Timestamp(500)));
        let kept = Records::new(&cleaned[BATCH_HEADER_BYTES..], 1).next().unwrap().unwrap();
        assert_eq!(kept.offset_delta, 1);
        assert_eq!(header.timestamp_of(kept.timestamp_delta), Timestamp(20));
    }

    #[test]
    fn log_append_time_is_every_records_time() {
        let attributes = Attributes::default().with_timestamp_type(TimestampType::LogAppendTime);
        let mut builder = BatchBuilder::new(Codec::None, None);
        builder.append(Timestamp(77), None, None, &[]);
        let batch = builder.build(&BatchFields { attributes, ..fields() }).unwrap();
        let header = BatchHeader::parse(&batch).unwrap();
        assert_eq!(header.timestamp_of(-50), Timestamp(77));
    }
}
