//! Reading back what a partition holds: the keys and values of its committed records.

use bytes::Bytes;
use vltava_protocol::ids::Offset;
use vltava_protocol::record::batch::{BATCH_HEADER_BYTES, BatchError, BatchHeader, split_batches};
use vltava_protocol::record::compression::{Codec, CompressionError, decompress};
use vltava_protocol::record::record::{RecordError, Records};
use vltava_storage::log::ReadError;
use vltava_storage::read_view::ReadView;

/// How much of a log is read at a time, and applied under one hold of a shard's lock.
const READ_BYTES: usize = 64 << 10;
/// The most that a batch may inflate to. Coordinators do not compress; what does was written by a
/// tool, and passed the same bound when it was produced.
const INFLATED_BYTES_MAX: usize = 64 << 20;

/// Why a log cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its bytes are unreachable.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A batch in it is not one.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A batch cannot be inflated.
    #[error("batch at offset {0}: {1}")]
    Inflate(Offset, CompressionError),
    /// A batch is of a codec that is not known.
    #[error("batch at offset {0} has an unknown codec")]
    Codec(Offset),
    /// A record in it is not one.
    #[error("batch at offset {0}: {1}")]
    Record(Offset, RecordError),
}

/// The next committed batches from `from` on, some tens of KiB. None at the high watermark. Reads
/// files: for threads that may block.
pub fn next_chunk(view: &ReadView, from: Offset) -> Result<Vec<Bytes>, ReplayError> {
    let from = from.max(view.log_start_offset);
    if from >= view.high_watermark {
        return Ok(Vec::new());
    }
    let slices = view.read(from, view.high_watermark, READ_BYTES, true)?;
    let mut chunk = Vec::with_capacity(slices.len());
    for slice in slices {
        if !slice.is_recent() {
            slice.prefault()?;
        }
        chunk.push(slice.bytes()?);
    }
    Ok(chunk)
}

/// Calls `visit` with the key and the value of each record from `from` on. Returns the offset after
/// the last batch. Records without a key, which a compacted topic does not hold, and control
/// batches are passed over.
pub fn each_record(
    batches: &Bytes,
    from: Offset,
    mut visit: impl FnMut(&[u8], Option<&[u8]>),
) -> Result<Offset, ReplayError> {
    let mut end = from;
    let mut inflated = Vec::new();
    for batch in split_batches(batches) {
        let (header, batch) = batch?;
        end = end.max(header.end_offset());
        if header.attributes.is_control() {
            continue;
        }
        let payload = payload(&header, &batch, &mut inflated)?;
        for record in Records::new(payload, header.record_count) {
            let record = record.map_err(|error| ReplayError::Record(header.base_offset, error))?;
            let offset = header.base_offset + i64::from(record.offset_delta);
            if let Some(key) = record.key
                && offset >= from
            {
                visit(key, record.value);
            }
        }
    }
    Ok(end)
}

/// The records of a batch, uncompressed; `inflated` is their room if they are not.
pub fn payload<'a>(
    header: &BatchHeader,
    batch: &'a Bytes,
    inflated: &'a mut Vec<u8>,
) -> Result<&'a [u8], ReplayError> {
    let offset = header.base_offset;
    let payload = &batch[BATCH_HEADER_BYTES..];
    match header.attributes.codec().ok_or(ReplayError::Codec(offset))? {
        Codec::None => Ok(payload),
        codec => {
            inflated.clear();
            decompress(codec, payload, INFLATED_BYTES_MAX, inflated)
                .map_err(|error| ReplayError::Inflate(offset, error))?;
            Ok(inflated)
        }
    }
}
