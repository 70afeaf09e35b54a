//! Every parser against damaged input: whatever the bytes, an answer and never a panic.
//!
//! Deterministic: the seeds are fixed, so a failure repeats.
#![allow(clippy::unwrap_used)] // the configured exception knows only `#[test]` functions

use bytes::{Buf, Bytes, BytesMut};
use vltava_protocol::frame::{FrameDecoder, parse_head};
use vltava_protocol::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};
use vltava_protocol::messages::{ApiKey, RequestKind};
use vltava_protocol::record::batch::{BATCH_HEADER_BYTES, crc32c, split_batches};
use vltava_protocol::record::compression::{compress, decompress};
use vltava_protocol::record::{
    BatchBuilder, BatchFields, BatchHeader, Codec, EndTxnMarker, Header, InternalBatch,
    InternalKind, Records, Scratch, TimestampType, TransactionResult, ValidationRules, validate,
};

// A hostile array count reserves memory that the system's allocator may refuse to promise.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const MUTATIONS: usize = 3000;

struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// Bytes that lengths, counts and signs are made of come up more often than the rest.
    fn byte(&mut self) -> u8 {
        const LIKELY: [u8; 10] = [0, 0, 0, 1, 1, 2, 3, 0x7f, 0x80, 0xff];
        let at = self.below(2 * LIKELY.len());
        LIKELY.get(at).copied().unwrap_or(self.next() as u8)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }

    /// One to four edits: overwrite, cut, insert, repeat or drop a piece.
    fn mutate(&mut self, valid: &[u8]) -> Vec<u8> {
        let mut bytes = valid.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            let span = self.below(9).min(bytes.len() - at);
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.byte()),
                2 => drop(bytes.drain(at..at + span)),
                3 => {
                    let piece = bytes[at..at + span].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ => bytes[at..at + span].iter_mut().for_each(|byte| *byte = self.byte()),
            }
        }
        bytes
    }
}

fn sample_batch(codec: Codec, records: i64) -> Bytes {
    let mut builder = BatchBuilder::new(codec, None);
    for n in 0..records {
        let headers = [Header { key: b"a", value: None }, Header { key: b"b", value: Some(b"c") }];
        builder.append(Timestamp(n), Some(b"key"), Some(&[n as u8; 40]), &headers);
    }
    builder.build(&BatchFields::default()).unwrap()
}

/// Sets length and checksum right, so that damage gets past the envelope.
fn seal(mut batch: Vec<u8>) -> Bytes {
    if batch.len() >= BATCH_HEADER_BYTES {
        let length = (batch.len() as i32 - 12).to_be_bytes();
        batch[8..12].copy_from_slice(&length);
        let crc = crc32c(&batch[21..]).to_be_bytes();
        batch[17..21].copy_from_slice(&crc);
    }
    batch.into()
}

#[test]
fn batches_and_records() {
    let mut noise = Noise(1);
    let batch = sample_batch(Codec::None, 5);
    let (mut parsed, mut walked) = (0, 0);
    for round in 0..2 * MUTATIONS {
        let damaged = Bytes::from(noise.mutate(&batch.repeat(1 + round % 2)));
        for part in split_batches(&damaged) {
            let Ok((header, bytes)) = part else { break };
            assert_eq!(header.size(), bytes.len());
            assert!(header.last_offset() >= Offset::NONE);
            assert!(header.end_offset() >= header.base_offset);
            let _ = (header.last_sequence(), header.is_internal(), header.delete_horizon());
            parsed += 1;
            for record in Records::new(&bytes[BATCH_HEADER_BYTES..], header.record_count) {
                let Ok(record) = record else { break };
                assert_eq!(record.headers.iter().count(), record.headers.len());
                walked += 1;
            }
        }
    }
    assert!(parsed > MUTATIONS && walked > MUTATIONS, "{parsed} batches, {walked} records");
}

#[test]
fn a_batch_let_in_is_sound() {
    let mut noise = Noise(2);
    let mut scratch = Scratch::default();
    let codecs = [None, Some(Codec::None), Some(Codec::Lz4)];
    for codec in Codec::ALL {
        let batch = sample_batch(codec, 8);
        let mut accepted = 0;
        for round in 0..MUTATIONS {
            let mut damaged = noise.mutate(&batch);
            if round % 8 == 0 {
                // Damage under the codec: what inflates is not what was compressed.
                let payload = sample_batch(Codec::None, 8).slice(BATCH_HEADER_BYTES..);
                damaged = batch[..BATCH_HEADER_BYTES].to_vec();
                compress(codec, None, &noise.mutate(&payload), &mut damaged).unwrap();
            }
            let records = if round % 4 == 3 { damaged.into() } else { seal(damaged) };
            let rules = ValidationRules {
                max_message_bytes: 10_000,
                segment_bytes: 10_000,
                compression: codecs[noise.below(3)].map(|codec| (codec, None)),
                timestamp_type: match noise.below(2) {
                    0 => TimestampType::CreateTime,
                    _ => TimestampType::LogAppendTime,
                },
                timestamp_before_max_ms: i64::MAX,
                timestamp_after_max_ms: i64::MAX,
                compacted: noise.below(2) == 0,
                produce_version: 3 + noise.below(11) as i16,
                inflated_bytes_max: 100_000,
            };
            let now = Timestamp(noise.next() as i64 >> 8);
            let Ok(validated) = validate(&records, now, &rules, &mut scratch) else { continue };
            accepted += 1;
            assert_eq!(BatchHeader::parse(&validated.batch), Ok(validated.header));
            assert_eq!(validated.header.size(), validated.batch.len());
            // What was let in once is let in again, but for the broker's own time in it.
            if rules.timestamp_type == TimestampType::CreateTime {
                let again = validate(&validated.batch, now, &rules, &mut scratch).unwrap();
                assert_eq!(again, validated);
            }
        }
        assert!(accepted > 20, "{codec:?} {accepted}");
    }
}

#[test]
fn compressed_payloads() {
    let mut noise = Noise(3);
    let text: Vec<u8> = (0..6000u32).map(|n| ((n * n) >> 7) as u8).collect();
    for codec in Codec::ALL {
        let mut valid = Vec::new();
        compress(codec, None, &text, &mut valid).unwrap();
        let mut out = Vec::new();
        for round in 0..MUTATIONS {
            let damaged = match round % 4 {
                0 => {
                    let length = noise.below(60);
                    noise.bytes(length)
                }
                1 => {
                    // A whole header, then noise.
                    let length = noise.below(60);
                    [&valid[..16], &noise.bytes(length)].concat()
                }
                _ => noise.mutate(&valid),
            };
            let limit = noise.below(20_000);
            out.clear();
            if decompress(codec, &damaged, limit, &mut out).is_ok() {
                assert!(out.len() <= limit, "{codec:?}");
            }
            assert!(out.len() <= limit + 1, "{codec:?}");
        }
    }
}

#[test]
fn control_batches() {
    let mut noise = Noise(4);
    let (id, epoch) = (ProducerId(1), ProducerEpoch(2));
    let marker = EndTxnMarker { result: TransactionResult::Abort, coordinator_epoch: 3 };
    let marker = marker.build(Offset(5), LeaderEpoch(1), id, epoch, Timestamp(9));
    let body = InternalBatch::fence_body(id, epoch);
    let fence = InternalBatch::encode(Offset(5), LeaderEpoch(1), InternalKind::Fence, &body);
    for _ in 0..MUTATIONS {
        let _ = EndTxnMarker::parse(&seal(noise.mutate(&marker)));
        if let Ok((_, body)) = InternalBatch::parse(&seal(noise.mutate(&fence))) {
            let _ = (InternalBatch::parse_fence(&body), InternalBatch::parse_log_start(&body));
        }
    }
}

#[test]
fn frames_and_heads() {
    let mut noise = Noise(5);
    // ApiVersions v3, then Metadata v1, each in its frame.
    let valid = b"\0\0\0\x11\0\x12\0\x03\0\0\0\x01\0\x01c\0\x02a\x02b\0\
        \0\0\0\x0e\0\x03\0\x01\0\0\0\x02\0\0\0\0\0\0";
    let (mut frames, mut heads) = (0, 0);
    for _ in 0..2 * MUTATIONS {
        let mut decoder = FrameDecoder::new(1000);
        let mut buf = BytesMut::from(&noise.mutate(valid)[..]);
        while let Ok(Some(mut frame)) = decoder.decode(&mut buf) {
            frames += 1;
            let length = frame.len();
            match parse_head(&mut frame) {
                Ok(_) => heads += 1,
                Err(_) => assert_eq!(frame.len(), length),
            }
        }
        assert!(decoder.missing(&buf) <= 1004);
    }
    assert!(frames > MUTATIONS && heads > MUTATIONS, "{frames} frames, {heads} heads");
}

#[test]
fn requests_of_every_api() {
    let mut noise = Noise(6);
    let (mut apis, mut decoded) = (0, 0);
    for key in 0..=200 {
        let Ok(api) = ApiKey::try_from(key) else { continue };
        apis += 1;
        let versions = api.valid_versions();
        // The last body that could be read: damage to it gets deeper than noise does.
        let mut valid = Vec::new();
        for round in 0..MUTATIONS {
            let span = (versions.max - versions.min + 1) as usize;
            let version = versions.min + noise.below(span) as i16;
            let length = noise.below(80);
            let bytes = if round % 2 == 0 { noise.bytes(length) } else { noise.mutate(&valid) };
            let mut body = Bytes::from(bytes.clone());
            if RequestKind::decode(api, &mut body, version).is_ok() {
                decoded += 1;
                valid = bytes[..bytes.len() - body.remaining()].to_vec();
            }
        }
    }
    assert!(apis > 80 && decoded > 5 * MUTATIONS, "{apis} APIs, {decoded} decoded");
}

#[test]
fn hostile_counts_do_not_abort() {
    for key in 0..=200 {
        let Ok(api) = ApiKey::try_from(key) else { continue };
        for version in api.valid_versions().min..=api.valid_versions().max {
            for count in [&[0x7f, 0xff, 0xff, 0xff][..], &[0xff, 0xff, 0xff, 0xff, 0x0f]] {
                for before in 0..12 {
                    let mut body = Bytes::from([&vec![0; before][..], count].concat());
                    let _ = RequestKind::decode(api, &mut body, version);
                }
            }
        }
    }
}
