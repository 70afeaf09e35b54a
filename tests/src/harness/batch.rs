//! Record batches written byte by byte, with every field open to lies, and a plain reader for what
//! comes back. Independent of the broker's own codec on purpose: it is the second opinion.
//!
//! Layout (magic 2): base offset i64, length i32, leader epoch i32, magic i8, CRC-32C u32 over all
//! that follows: attributes i16, last offset delta i32, base timestamp i64, max timestamp i64,
//! producer id i64, producer epoch i16, base sequence i32, record count i32, records.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use libtest_mimic::Failed;

use super::Tested;

/// Bytes before the records.
pub const HEADER_BYTES: usize = 61;
/// The attribute bits of each codec.
pub mod codec {
    /// Not compressed.
    pub const NONE: i16 = 0;
    /// gzip.
    pub const GZIP: i16 = 1;
    /// snappy in xerial's framing.
    pub const SNAPPY: i16 = 2;
    /// lz4 frames.
    pub const LZ4: i16 = 3;
    /// zstd.
    pub const ZSTD: i16 = 4;
}
/// Attribute bit: timestamps are the broker's.
pub const LOG_APPEND_TIME: i16 = 1 << 3;
/// Attribute bit: part of a transaction.
pub const TRANSACTIONAL: i16 = 1 << 4;
/// Attribute bit: a control batch.
pub const CONTROL: i16 = 1 << 5;

/// One record, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// Its offset less the batch's base offset.
    pub offset_delta: i32,
    /// Its timestamp less the batch's base timestamp, milliseconds.
    pub timestamp_delta: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A batch to be written. Fields in `Option` are computed truthfully unless given.
#[derive(Debug, Clone)]
pub struct RawBatch {
    /// First offset; clients send 0.
    pub base_offset: i64,
    /// Format version; 2 is the only one accepted.
    pub magic: i8,
    /// Codec and flag bits.
    pub attributes: i16,
    /// Offset of the last record less the base offset.
    pub last_offset_delta: Option<i32>,
    /// Milliseconds since the epoch.
    pub base_timestamp: i64,
    /// Milliseconds since the epoch; the base timestamp plus the largest delta.
    pub max_timestamp: Option<i64>,
    /// −1 without idempotence.
    pub producer_id: i64,
    /// −1 without idempotence.
    pub producer_epoch: i16,
    /// −1 without idempotence.
    pub base_sequence: i32,
    /// How many records it claims.
    pub record_count: Option<i32>,
    /// The checksum.
    pub crc: Option<u32>,
    /// The records.
    pub records: Vec<RawRecord>,
    /// The bytes after the header, instead of the encoded records: a compressed payload.
    pub payload: Option<Vec<u8>>,
}

impl RawBatch {
    /// A truthful batch of `count` small keyed records stamped `timestamp`.
    pub fn of(count: i32, timestamp: i64) -> RawBatch {
        let record = |delta: i32| RawRecord {
            offset_delta: delta,
            timestamp_delta: 0,
            key: Some(format!("key-{delta}").into_bytes()),
            value: Some(format!("value-{delta}").into_bytes()),
            headers: Vec::new(),
        };
        RawBatch {
            base_offset: 0,
            magic: 2,
            attributes: 0,
            last_offset_delta: None,
            base_timestamp: timestamp,
            max_timestamp: None,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: None,
            crc: None,
            records: (0..count).map(record).collect(),
            payload: None,
        }
    }

    /// One record with a value of `bytes` bytes.
    pub fn of_size(bytes: usize, timestamp: i64) -> RawBatch {
        let mut batch = RawBatch::of(1, timestamp);
        batch.records[0].value = Some(vec![b'v'; bytes]);
        batch
    }

    /// Marks the batch as an idempotent producer's.
    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> RawBatch {
        (self.producer_id, self.producer_epoch) = (id, epoch);
        self.base_sequence = base_sequence;
        self
    }

    /// The records as they lie in a batch, uncompressed.
    pub fn encoded_records(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for record in &self.records {
            let body = encode_record(record);
            put_varint(&mut out, body.len() as i64);
            out.extend_from_slice(&body);
        }
        out
    }

    /// The whole batch.
    pub fn encode(&self) -> Bytes {
        let last_delta = self.records.iter().map(|record| record.offset_delta).max();
        let max_delta = self.records.iter().map(|record| record.timestamp_delta).max();
        let max_timestamp =
            self.max_timestamp.unwrap_or(self.base_timestamp + max_delta.unwrap_or_default());
        let count = i32::try_from(self.records.len()).expect("test batches are small");
        let mut covered = Vec::new();
        covered.extend_from_slice(&self.attributes.to_be_bytes());
        let last_offset_delta = self.last_offset_delta.or(last_delta).unwrap_or(-1);
        covered.extend_from_slice(&last_offset_delta.to_be_bytes());
        covered.extend_from_slice(&self.base_timestamp.to_be_bytes());
        covered.extend_from_slice(&max_timestamp.to_be_bytes());
        covered.extend_from_slice(&self.producer_id.to_be_bytes());
        covered.extend_from_slice(&self.producer_epoch.to_be_bytes());
        covered.extend_from_slice(&self.base_sequence.to_be_bytes());
        covered.extend_from_slice(&self.record_count.unwrap_or(count).to_be_bytes());
        covered.extend_from_slice(self.payload.as_deref().unwrap_or(&self.encoded_records()));

        let crc = self.crc.unwrap_or_else(|| crc32c(&covered));
        let length = i32::try_from(covered.len() + 9).expect("test batches are small");
        let mut out = Vec::with_capacity(covered.len() + 21);
        out.extend_from_slice(&self.base_offset.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&(-1_i32).to_be_bytes());
        out.extend_from_slice(&self.magic.to_be_bytes());
        out.extend_from_slice(&crc.to_be_bytes());
        out.extend_from_slice(&covered);
        out.into()
    }
}

/// CRC-32C (Castagnoli), the checksum of a batch.
pub fn crc32c(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// A message set of magic 1 with one message, as clients before 0.11 wrote it.
pub fn magic_one(timestamp: i64) -> Bytes {
    let mut covered = vec![1_u8, 0];
    covered.extend_from_slice(&timestamp.to_be_bytes());
    for field in [b"key", b"old"] {
        covered.extend_from_slice(&3_i32.to_be_bytes());
        covered.extend_from_slice(field);
    }
    let crc = checksum(CrcAlgorithm::Crc32IsoHdlc, &covered) as u32;
    let mut out = Vec::new();
    out.extend_from_slice(&0_i64.to_be_bytes());
    out.extend_from_slice(&i32::try_from(covered.len() + 4).expect("small").to_be_bytes());
    out.extend_from_slice(&crc.to_be_bytes());
    out.extend_from_slice(&covered);
    out.into()
}

/// A batch as a broker served it.
#[derive(Debug, Clone)]
pub struct FetchedBatch {
    /// First offset.
    pub base_offset: i64,
    /// Epoch of the leader that appended it.
    pub leader_epoch: i32,
    /// Codec and flag bits.
    pub attributes: i16,
    /// Offset of the last record less the base offset.
    pub last_offset_delta: i32,
    /// Milliseconds since the epoch.
    pub base_timestamp: i64,
    /// Milliseconds since the epoch.
    pub max_timestamp: i64,
    /// How many records it claims.
    pub record_count: i32,
    /// All its bytes.
    pub bytes: Bytes,
}

impl FetchedBatch {
    /// The offset after its last record.
    pub fn end_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta) + 1
    }

    /// Its records. Errors: a compressed batch, or bytes that are no records.
    pub fn records(&self) -> Tested<Vec<RawRecord>> {
        if self.attributes & 7 != codec::NONE {
            return Err(Failed::from("a compressed batch is not walked here"));
        }
        let mut rest = &self.bytes[HEADER_BYTES..];
        let mut records = Vec::new();
        for _ in 0..self.record_count {
            let length = usize::try_from(take_varint(&mut rest)?)?;
            let (record, after) = rest.split_at_checked(length).ok_or("record past its batch")?;
            records.push(decode_record(record)?);
            rest = after;
        }
        if rest.is_empty() { Ok(records) } else { Err(Failed::from("bytes after the last record")) }
    }
}

/// Splits what a Fetch returned into whole batches and checks each checksum. A last partial batch
/// is an error: brokers of today send whole ones.
pub fn split(records: &Bytes) -> Tested<Vec<FetchedBatch>> {
    let mut batches = Vec::new();
    let mut at = 0;
    while at < records.len() {
        let head = records.get(at..at + HEADER_BYTES).ok_or("partial batch header")?;
        let int = |from: usize| i32::from_be_bytes(head[from..from + 4].try_into().expect("4"));
        let long = |from: usize| i64::from_be_bytes(head[from..from + 8].try_into().expect("8"));
        let size = usize::try_from(int(8))? + 12;
        if records.len() < at + size {
            return Err(Failed::from("partial batch"));
        }
        let bytes = records.slice(at..at + size);
        if head[16] != 2 || crc32c(&bytes[21..]) != int(17).cast_unsigned() {
            return Err(Failed::from(format!("bad magic or checksum at offset {}", long(0))));
        }
        batches.push(FetchedBatch {
            base_offset: long(0),
            leader_epoch: int(12),
            attributes: i16::from_be_bytes([head[21], head[22]]),
            last_offset_delta: int(23),
            base_timestamp: long(27),
            max_timestamp: long(35),
            record_count: int(57),
            bytes,
        });
        at += size;
    }
    Ok(batches)
}

fn encode_record(record: &RawRecord) -> Vec<u8> {
    let mut body = vec![0];
    put_varint(&mut body, record.timestamp_delta);
    put_varint(&mut body, i64::from(record.offset_delta));
    put_bytes(&mut body, record.key.as_deref());
    put_bytes(&mut body, record.value.as_deref());
    put_varint(&mut body, record.headers.len() as i64);
    for (name, value) in &record.headers {
        put_bytes(&mut body, Some(name.as_bytes()));
        put_bytes(&mut body, value.as_deref());
    }
    body
}

fn decode_record(bytes: &[u8]) -> Tested<RawRecord> {
    let mut rest = bytes.split_first().ok_or("empty record")?.1;
    let timestamp_delta = take_varint(&mut rest)?;
    let offset_delta = i32::try_from(take_varint(&mut rest)?)?;
    let (key, value) = (take_bytes(&mut rest)?, take_bytes(&mut rest)?);
    let mut headers = Vec::new();
    for _ in 0..take_varint(&mut rest)? {
        let name = take_bytes(&mut rest)?.ok_or("null header key")?;
        headers.push((String::from_utf8(name)?, take_bytes(&mut rest)?));
    }
    if !rest.is_empty() {
        return Err(Failed::from("bytes after a record's headers"));
    }
    Ok(RawRecord { offset_delta, timestamp_delta, key, value, headers })
}

/// Appends a zig-zag varint.
pub fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}

fn take_varint(rest: &mut &[u8]) -> Tested<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or("varint past the end")?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    Err(Failed::from("varint of more than ten bytes"))
}

fn take_bytes(rest: &mut &[u8]) -> Tested<Option<Vec<u8>>> {
    let length = take_varint(rest)?;
    if length < 0 {
        return Ok(None);
    }
    let (bytes, after) =
        rest.split_at_checked(usize::try_from(length)?).ok_or("bytes past the end")?;
    *rest = after;
    Ok(Some(bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_read_back_as_written() {
        let mut batch = RawBatch::of(3, 1_000);
        batch.records[1].headers.push(("n".into(), Some(b"1".to_vec())));
        batch.records[2].key = None;
        let fetched = split(&batch.encode()).unwrap();
        assert_eq!(fetched.len(), 1);
        assert_eq!(fetched[0].end_offset(), 3);
        assert_eq!(fetched[0].records().unwrap(), batch.records);
    }

    #[test]
    fn varints_round_trip() {
        for value in [0, -1, 1, 63, 64, -65, i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(take_varint(&mut bytes.as_slice()).unwrap(), value);
        }
    }

    #[test]
    fn the_checksum_is_castagnoli() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
