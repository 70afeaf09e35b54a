//! Control batches: transaction markers, which clients see, and internal batches, which are ours.
//!
//! A **marker** is Kafka's: one record, key `{version i16 = 0, type i16: 0 abort, 1 commit}`, value
//! `{version i16 = 0, coordinator_epoch i32}` (`EndTransactionMarker`).
//!
//! An **internal batch** is a Raft entry that carries no records: a no-op, a change of membership,
//! a new log start, a fence. It lies in the segment like any other batch but spans no offset, and
//! no client ever receives it. It is a function of place, kind and body alone, so that the bytes of
//! all replicas agree:
//!
//! ```text
//! header: control bit, last_offset_delta -1, timestamps 0, producer -1/-1/-1, record_count 0
//! payload: kind u8 | version u8 = 0 | body
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::batch::{
    Attributes, BATCH_HEADER_BYTES, BatchError, BatchHeader, MAGIC, split_batches, verify_crc,
};
use super::builder::{BatchBuilder, BatchFields};
use super::compression::Codec;
use super::record::{RecordError, Records};
use crate::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransactionResult {
    /// Its records are skipped by `read_committed` consumers.
    Abort,
    /// Its records count.
    Commit,
}

/// The record that ends a transaction in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTxnMarker {
    /// Commit or abort.
    pub result: TransactionResult,
    /// Epoch of the transaction coordinator that wrote it; an older one is fenced.
    pub coordinator_epoch: i32,
}

/// Why a batch is not the control batch that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The header cannot be read, or the bytes are not exactly one batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The checksum is wrong.
    #[error("control batch fails its checksum")]
    Crc,
    /// The records cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It is a data batch, or a control batch of the other sort.
    #[error("not the expected sort of control batch")]
    Sort,
    /// Key or value of a marker is too short, or of an unknown version or type.
    #[error("malformed transaction marker")]
    Marker,
    /// An internal batch of a kind or version that this program does not know.
    #[error("internal batch of unknown kind {kind}, version {version}")]
    Unknown {
        /// First byte of the payload.
        kind: u8,
        /// Second byte of the payload.
        version: u8,
    },
}

impl EndTxnMarker {
    /// The batch of this marker: one record, one offset.
    pub fn build(
        self,
        base_offset: Offset,
        leader_epoch: LeaderEpoch,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
        timestamp: Timestamp,
    ) -> Bytes {
        let mut key = [0; 4];
        key[3] = u8::from(self.result == TransactionResult::Commit);
        let mut value = [0; 6];
        value[2..].copy_from_slice(&self.coordinator_epoch.to_be_bytes());
        let mut builder = BatchBuilder::new(Codec::None, None);
        builder.append(timestamp, Some(&key), Some(&value), &[]);
        let attributes = Attributes::default().with_transactional().with_control();
        let base_sequence = Sequence::NONE;
        builder
            .build(&BatchFields {
                base_offset,
                leader_epoch,
                attributes,
                producer_id,
                producer_epoch,
                base_sequence,
            })
            .expect("nothing is compressed")
    }

    /// Reads the marker of `batch`, exactly one batch whose checksum is known to be right.
    /// Markers of later versions are read as version 0, whose fields they start with.
    pub fn parse(batch: &[u8]) -> Result<Self, ControlError> {
        let header = BatchHeader::parse(batch)?;
        if !header.attributes.is_control() || header.is_internal() {
            return Err(ControlError::Sort);
        }
        let mut records = Records::new(&batch[BATCH_HEADER_BYTES..], header.record_count);
        let record = records.next().ok_or(ControlError::Marker)??;
        let key = record.key.and_then(|key| key.first_chunk::<4>()).ok_or(ControlError::Marker)?;
        let value =
            record.value.and_then(|value| value.first_chunk::<6>()).ok_or(ControlError::Marker)?;
        let [version_high, _, 0, kind] = *key else { return Err(ControlError::Marker) };
        let result = match kind {
            0 if version_high < 0x80 => TransactionResult::Abort,
            1 if version_high < 0x80 => TransactionResult::Commit,
            _ => return Err(ControlError::Marker),
        };
        let [.., a, b, c, d] = *value;
        Ok(Self { result, coordinator_epoch: i32::from_be_bytes([a, b, c, d]) })
    }
}

/// What an internal batch is for. The numbers are on disk and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum InternalKind {
    /// A new leader's first entry; also what a refused change of membership becomes.
    Noop = 0,
    /// A change of one member, encoded by the Raft library.
    ConfChange = 1,
    /// A change of several members; an empty body leaves a joint configuration.
    ConfChangeV2 = 2,
    /// The log starts at a later offset: body [`InternalBatch::log_start_body`].
    LogStart = 3,
    /// Older epochs of a producer are refused from here on: body [`InternalBatch::fence_body`].
    Fence = 4,
}

impl InternalKind {
    const ALL: [Self; 5] =
        [Self::Noop, Self::ConfChange, Self::ConfChangeV2, Self::LogStart, Self::Fence];
    const VERSION: u8 = 0;
}

/// Encoding and reading of internal batches.
#[derive(Debug)]
pub struct InternalBatch;

/// Bytes of an internal batch's payload before its body: kind and version.
const INTERNAL_PREFIX_BYTES: usize = 2;

impl InternalBatch {
    /// Bytes of an internal batch with a body of `body_bytes`.
    pub const fn size(body_bytes: usize) -> usize {
        BATCH_HEADER_BYTES + INTERNAL_PREFIX_BYTES + body_bytes
    }

    /// The batch of `kind` and `body` that stands where the log ends, at `base_offset`.
    pub fn encode(
        base_offset: Offset,
        leader_epoch: LeaderEpoch,
        kind: InternalKind,
        body: &[u8],
    ) -> Bytes {
        let mut batch = BytesMut::with_capacity(Self::size(body.len()));
        batch.resize(BATCH_HEADER_BYTES, 0);
        batch.put_u8(kind as u8);
        batch.put_u8(InternalKind::VERSION);
        batch.put_slice(body);
        let mut header = BatchHeader {
            base_offset,
            batch_length: 0,
            leader_epoch,
            magic: MAGIC,
            crc: 0,
            attributes: Attributes::default().with_control(),
            last_offset_delta: -1,
            base_timestamp: Timestamp(0),
            max_timestamp: Timestamp(0),
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch::NONE,
            base_sequence: Sequence::NONE,
            record_count: 0,
        };
        header.seal(&mut batch);
        batch.freeze()
    }

    /// Kind and body of `batch`, exactly one internal batch; checks its checksum.
    pub fn parse(batch: &Bytes) -> Result<(InternalKind, Bytes), ControlError> {
        let cut = BatchError::Truncated { have: batch.len(), need: BATCH_HEADER_BYTES };
        let (header, whole) = split_batches(batch).next().ok_or(cut)??;
        if !header.is_internal() || !header.attributes.is_control() || whole.len() != batch.len() {
            return Err(ControlError::Sort);
        }
        if !verify_crc(batch) {
            return Err(ControlError::Crc);
        }
        let Some(&[kind, version]) = batch[BATCH_HEADER_BYTES..].first_chunk() else {
            return Err(ControlError::Sort);
        };
        let known = InternalKind::ALL.into_iter().find(|&known| known as u8 == kind);
        match known {
            Some(known) if version == InternalKind::VERSION => {
                Ok((known, batch.slice(BATCH_HEADER_BYTES + INTERNAL_PREFIX_BYTES..)))
            }
            _ => Err(ControlError::Unknown { kind, version }),
        }
    }

    /// Body of a [`InternalKind::LogStart`].
    pub fn log_start_body(log_start_offset: Offset) -> [u8; 8] {
        log_start_offset.0.to_be_bytes()
    }

    /// Reads [`InternalBatch::log_start_body`]; `None` for one that is none.
    pub fn parse_log_start(body: &[u8]) -> Option<Offset> {
        let offset = Offset(i64::from_be_bytes(body.try_into().ok()?));
        (offset >= Offset::ZERO).then_some(offset)
    }

    /// Body of a [`InternalKind::Fence`].
    pub fn fence_body(producer_id: ProducerId, producer_epoch: ProducerEpoch) -> [u8; 10] {
        let mut body = [0; 10];
        body[..8].copy_from_slice(&producer_id.0.to_be_bytes());
        body[8..].copy_from_slice(&producer_epoch.0.to_be_bytes());
        body
    }

    /// Reads [`InternalBatch::fence_body`]; `None` for one that is none.
    pub fn parse_fence(body: &[u8]) -> Option<(ProducerId, ProducerEpoch)> {
        let body: &[u8; 10] = body.try_into().ok()?;
        let (id, epoch) = body.split_first_chunk::<8>()?;
        let epoch = epoch.first_chunk::<2>()?;
        Some((ProducerId(i64::from_be_bytes(*id)), ProducerEpoch(i16::from_be_bytes(*epoch))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_read_back() {
        for (result, coordinator_epoch) in
            [(TransactionResult::Commit, 0), (TransactionResult::Abort, i32::MAX)]
        {
            let marker = EndTxnMarker { result, coordinator_epoch };
            let (id, epoch) = (ProducerId(77), ProducerEpoch(3));
            let batch = marker.build(Offset(9), LeaderEpoch(2), id, epoch, Timestamp(1234));
            assert!(verify_crc(&batch));
            assert_eq!(EndTxnMarker::parse(&batch), Ok(marker));
            let header = BatchHeader::parse(&batch).unwrap();
            assert!(header.attributes.is_control() && header.attributes.is_transactional());
            assert_eq!((header.base_offset, header.end_offset()), (Offset(9), Offset(10)));
            assert_eq!((header.producer_id, header.producer_epoch), (id, epoch));
            assert_eq!((header.base_sequence, header.record_count), (Sequence::NONE, 1));
            assert_eq!(header.max_timestamp, Timestamp(1234));
        }
    }

    #[test]
    fn data_is_no_marker() {
        let mut builder = BatchBuilder::new(Codec::None, None);
        builder.append(Timestamp(0), Some(&[0, 0, 0, 1]), Some(&[0; 6]), &[]);
        let data = builder.build(&BatchFields::default()).unwrap();
        assert_eq!(EndTxnMarker::parse(&data), Err(ControlError::Sort));

        let attributes = Attributes::default().with_control();
        for (key, value) in
            [(&[0, 0, 0, 2][..], &[0; 6][..]), (&[0, 0, 0], &[0; 6]), (&[0; 4], &[])]
        {
            builder.append(Timestamp(0), Some(key), Some(value), &[]);
            let batch = builder.build(&BatchFields { attributes, ..Default::default() }).unwrap();
            assert_eq!(EndTxnMarker::parse(&batch), Err(ControlError::Marker), "{key:?} {value:?}");
        }
        let internal =
            InternalBatch::encode(Offset(0), LeaderEpoch(1), InternalKind::Noop, &[0; 9]);
        assert_eq!(EndTxnMarker::parse(&internal), Err(ControlError::Sort));
    }

    #[test]
    fn internal_batches_are_deterministic_and_span_nothing() {
        for kind in InternalKind::ALL {
            let encode = |body: &[u8]| InternalBatch::encode(Offset(5), LeaderEpoch(4), kind, body);
            let batch = encode(b"body");
            assert_eq!(batch, encode(b"body"));
            assert_eq!(batch.len(), InternalBatch::size(4));
            assert_eq!(InternalBatch::parse(&batch), Ok((kind, Bytes::from_static(b"body"))));
            assert_eq!(InternalBatch::parse(&encode(b"")), Ok((kind, Bytes::new())));
            let header = BatchHeader::parse(&batch).unwrap();
            assert!(header.is_internal() && header.attributes.is_control());
            assert_eq!((header.base_offset, header.end_offset()), (Offset(5), Offset(5)));
        }
    }

    #[test]
    fn bodies_read_back() {
        let body = InternalBatch::log_start_body(Offset(1 << 40));
        assert_eq!(InternalBatch::parse_log_start(&body), Some(Offset(1 << 40)));
        assert_eq!(InternalBatch::parse_log_start(&[0xff; 8]), None);
        assert_eq!(InternalBatch::parse_log_start(&[0; 7]), None);
        let fence = (ProducerId(12), ProducerEpoch(34));
        let body = InternalBatch::fence_body(fence.0, fence.1);
        assert_eq!(InternalBatch::parse_fence(&body), Some(fence));
        assert_eq!(InternalBatch::parse_fence(&body[1..]), None);
    }

    #[test]
    fn damage_is_no_internal_batch() {
        let batch = InternalBatch::encode(Offset(0), LeaderEpoch(1), InternalKind::Noop, b"x");
        let edited = |at: usize, byte: u8| {
            let mut bytes = batch.to_vec();
            bytes[at] = byte;
            Bytes::from(bytes)
        };
        assert_eq!(InternalBatch::parse(&edited(63, b'y')), Err(ControlError::Crc));
        assert_eq!(InternalBatch::parse(&edited(22, 0)), Err(ControlError::Sort));
        let longer = Bytes::from([&batch[..], b"z"].concat());
        assert_eq!(InternalBatch::parse(&longer), Err(ControlError::Sort));
        assert!(InternalBatch::parse(&batch.slice(..63)).is_err());
        assert!(InternalBatch::parse(&Bytes::new()).is_err());

        let mut unknown = edited(BATCH_HEADER_BYTES, 9).to_vec();
        BatchHeader::parse(&unknown).unwrap().seal(&mut unknown);
        let unknown = InternalBatch::parse(&Bytes::from(unknown));
        assert_eq!(unknown, Err(ControlError::Unknown { kind: 9, version: 0 }));
    }
}
