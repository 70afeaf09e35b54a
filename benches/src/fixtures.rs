//! Batches as producers send them, and Produce requests around them.
//!
//! Deterministic: the same arguments give the same bytes, so two runs measure the same work.

use bytes::{BufMut, Bytes, BytesMut};
use vltava_protocol::ids::Timestamp;
use vltava_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use vltava_protocol::messages::{
    ApiKey, Encodable, HeaderVersion, ProduceRequest, RequestHeader, StrBytes, TopicName,
};
use vltava_protocol::record::batch::{BATCH_HEADER_BYTES, TimestampType};
use vltava_protocol::record::builder::{BatchBuilder, BatchFields};
use vltava_protocol::record::compression::Codec;
use vltava_protocol::record::validate::ValidationRules;

/// The broker's time in every benchmark.
pub const NOW: Timestamp = Timestamp(1_790_000_000_000);
/// Bytes of a record's value.
pub const VALUE_BYTES: usize = 100;
/// The version of the Produce requests built here: the last that names topics by name.
pub const PRODUCE_VERSION: i16 = 12;
/// Lengths of uncompressed batches that are measured, with their names: a producer's default is
/// 16 KiB.
pub const BATCH_SIZES: [(&str, usize); 4] =
    [("1 KiB", 1 << 10), ("16 KiB", 16 << 10), ("64 KiB", 64 << 10), ("256 KiB", 256 << 10)];

/// Bytes of a record beside its value: lengths, deltas, key.
const RECORD_OVERHEAD_BYTES: usize = 24;

/// A batch, and what it holds.
#[derive(Clone, Debug)]
pub struct Batch {
    /// As a producer sends it.
    pub bytes: Bytes,
    /// Records in it.
    pub records: u64,
    /// Bytes of the same batch without compression.
    pub plain_bytes: u64,
}

/// What the records of a batch hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Values {
    /// So many bytes, at least [`VALUE_BYTES`], that begin like a JSON document and go on as noise.
    Noise(usize),
    /// Whole JSON documents of about 200 bytes.
    Documents,
    /// Eight words with a space between them, about 100 bytes.
    Words,
}

impl Values {
    /// Appends one value to `value`; `number` is the record's own.
    fn write(self, number: u64, noise: &mut Noise, value: &mut Vec<u8>) {
        let (station, level) = (number % 500, (number >> 16) % 900);
        let (flow, hundredths) = ((number >> 32) % 4000, (number >> 48) % 100);
        let head = format!(
            r#"{{"station":"Praha-{station:03}","level_cm":{level},"flow":{flow}.{hundredths:02},"#
        ) + r#""note":"#;
        let mut letters = |value: &mut Vec<u8>, count: usize| {
            let end = value.len() + count;
            value.resize_with(end, || b'a' + (noise.next() % 26) as u8);
        };
        match self {
            Self::Noise(bytes) => {
                value.extend_from_slice(head.as_bytes());
                let missing = bytes.saturating_sub(value.len());
                letters(value, missing);
            }
            Self::Documents => {
                value.extend_from_slice(head.as_bytes());
                value.push(b'"');
                letters(value, 100);
                value.extend_from_slice(br#"","valid":true,"sensors":[1,2,3]}"#);
            }
            Self::Words => {
                for word in 0..8 {
                    letters(value, 4 + (number >> (8 * word)) as usize % 16);
                    value.push(b' ');
                }
                value.pop();
            }
        }
    }
}

/// A batch of as many records as `plain_bytes` hold before compression. The records have keys of
/// eight bytes and values of [`VALUE_BYTES`] that look like small JSON documents.
///
/// # Panics
/// When `plain_bytes` does not hold one record, or the codec fails.
pub fn batch(plain_bytes: usize, codec: Codec) -> Batch {
    batch_of(Values::Noise(VALUE_BYTES), 0, plain_bytes, codec)
}

/// The same with other values. Another `variant` gives other records.
///
/// # Panics
/// When `plain_bytes` does not hold one record, or the codec fails.
pub fn batch_of(values: Values, variant: u64, plain_bytes: usize, codec: Codec) -> Batch {
    let mut builder = BatchBuilder::new(codec, None);
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15 ^ variant.rotate_left(32));
    let mut value = Vec::new();
    loop {
        let number = noise.next();
        value.clear();
        values.write(number, &mut noise, &mut value);
        if builder.bytes() + value.len() + RECORD_OVERHEAD_BYTES > plain_bytes {
            break;
        }
        let timestamp = Timestamp(NOW.0 - 1000 + i64::from(builder.record_count()));
        builder.append(timestamp, Some(&number.to_be_bytes()), Some(&value), &[]);
    }
    let (records, plain_bytes) = (builder.record_count(), builder.bytes());
    assert!(records > 0, "a batch of {plain_bytes} bytes holds no record");
    let bytes = builder.build(&BatchFields::default()).expect("the codecs take any payload");
    assert!(bytes.len() > BATCH_HEADER_BYTES);
    Batch { bytes, records: records as u64, plain_bytes: plain_bytes as u64 }
}

/// A topic's rules as they are by default.
pub fn rules() -> ValidationRules {
    ValidationRules {
        max_message_bytes: 1 << 20,
        segment_bytes: 1 << 30,
        compression: None,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: 3_600_000,
        compacted: false,
        produce_version: PRODUCE_VERSION,
        inflated_bytes_max: 64 << 20,
    }
}

/// A whole frame, its length included: a Produce request with `acks=all` of one batch for the first
/// partition of `topic`.
///
/// # Panics
/// Never: the request is well formed.
pub fn produce_frame(topic: &str, batch: &Bytes, correlation_id: i32) -> Bytes {
    produce_frame_to((topic, 0), -1, batch, correlation_id)
}

/// The same for any partition and any `acks`, as on the wire.
///
/// # Panics
/// Never: the request is well formed.
pub fn produce_frame_to(
    (topic, partition): (&str, i32),
    acks: i16,
    batch: &Bytes,
    correlation_id: i32,
) -> Bytes {
    let data = PartitionProduceData::default();
    let data = data.with_index(partition).with_records(Some(batch.clone()));
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic]);
    request_frame(ApiKey::Produce, PRODUCE_VERSION, correlation_id, &request)
}

/// A whole frame, its length included, of any request.
///
/// # Panics
/// When the request has a field that `version` lacks.
pub fn request_frame<R: Encodable + HeaderVersion>(
    api_key: ApiKey,
    version: i16,
    correlation_id: i32,
    request: &R,
) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(api_key as i16)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("vltava-benches")));
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    header.encode(&mut frame, R::header_version(version)).expect("the header is well formed");
    request.encode(&mut frame, version).expect("the request fits its version");
    let length = frame.len() as i32 - 4;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

/// A small generator: the records must differ, and be the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vltava_protocol::frame::{FRAME_BYTES_MAX, FrameDecoder, parse_head};
    use vltava_protocol::messages::decode_request;
    use vltava_protocol::record::batch::BatchHeader;
    use vltava_protocol::record::record::Records;
    use vltava_protocol::record::validate::{Scratch, validate};

    #[test]
    fn batches_are_let_in_whatever_their_codec() {
        for codec in Codec::ALL {
            for (name, size) in BATCH_SIZES {
                let batch = batch(size, codec);
                assert!(
                    batch.plain_bytes as usize <= size && batch.plain_bytes as usize > size / 2
                );
                let validated = validate(&batch.bytes, NOW, &rules(), &mut Scratch::default());
                let header = validated.unwrap_or_else(|e| panic!("{name} {codec:?}: {e:?}")).header;
                assert_eq!(header.record_count as u64, batch.records);
            }
        }
    }

    #[test]
    fn values_are_what_they_are_called_and_variants_differ() {
        for values in [Values::Noise(100), Values::Noise(1024), Values::Documents, Values::Words] {
            let [batch, other] = [0, 1].map(|at| batch_of(values, at, 16 << 10, Codec::None).bytes);
            assert_ne!(batch, other);
            let header = BatchHeader::parse(&batch).unwrap();
            for record in Records::new(&batch[BATCH_HEADER_BYTES..], header.record_count) {
                let value = record.unwrap().value.unwrap();
                match values {
                    Values::Noise(bytes) => assert_eq!(value.len(), bytes),
                    Values::Documents => {
                        let document: serde_json::Value = serde_json::from_slice(value).unwrap();
                        assert!(document["level_cm"].is_u64());
                    }
                    Values::Words => assert_eq!(value.split(|byte| *byte == b' ').count(), 8),
                }
            }
        }
    }

    #[test]
    fn frames_decode_to_their_batch() {
        let batch = batch(1 << 10, Codec::None);
        let mut buffer = BytesMut::from(&produce_frame("topic", &batch.bytes, 7)[..]);
        let mut frame = FrameDecoder::new(FRAME_BYTES_MAX).decode(&mut buffer).unwrap().unwrap();
        let head = parse_head(&mut frame).unwrap();
        assert_eq!((head.correlation_id, head.api_version), (7, PRODUCE_VERSION));
        let request: ProduceRequest = decode_request(frame, PRODUCE_VERSION).unwrap();
        let records = request.topic_data[0].partition_data[0].records.as_ref().unwrap();
        assert_eq!(*records, batch.bytes);
    }
}
