//! Payloads that lie: compressed streams whose frames promise other sizes than they hold, records
//! whose inner sizes do not add up. Nothing is appended, nothing is reserved for what is promised.

use std::io::Write;

use kafka_protocol::messages::ApiVersionsRequest;
use vltava_tests::harness::batch::{self, codec};
use vltava_tests::harness::{Broker, RawBatch, RawClient, Tested, now_ms, requests};

use crate::Row;

pub(crate) const ROWS: &[Row] = &[
    ("codecs_exchanged_are_refused", codecs_exchanged_are_refused),
    ("snappy_blocks_that_lie_are_refused", snappy_blocks_that_lie_are_refused),
    ("lz4_frames_that_lie_are_refused", lz4_frames_that_lie_are_refused),
    ("zstd_frames_that_lie_are_refused", zstd_frames_that_lie_are_refused),
    ("streams_cut_short_are_refused", streams_cut_short_are_refused),
    ("inner_sizes_that_lie_are_refused", inner_sizes_that_lie_are_refused),
    ("inner_sizes_that_lie_are_refused_compressed", inner_sizes_that_lie_are_refused_compressed),
];

/// What Kafka says to a payload that it cannot read: a corrupt message, an invalid record, or an
/// unknown error where its decompressor fails with another exception.
const REFUSALS: [i16; 3] = [2, 87, -1];

/// All payloads are refused on one connection, and nothing is appended.
fn refused(broker: &Broker, payloads: &[(i16, Vec<u8>)]) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "lies", 1, &[])?;
    for (at, (attributes, payload)) in payloads.iter().enumerate() {
        let mut batch = RawBatch::of(1, now_ms());
        (batch.attributes, batch.payload) = (*attributes, Some(payload.clone()));
        let answer = requests::produce(&mut client, &topic, batch.encode())?;
        let code = answer.error_code;
        assert!(REFUSALS.contains(&code), "payload {at}: {code}");
    }
    assert_eq!(requests::list_offsets(&mut client, 7, &topic, -1)?.offset, 0);
    // The connection lives on.
    client.call(0, &ApiVersionsRequest::default())?;
    if let Some(resident) = broker.resident_bytes()? {
        assert!(resident <= crate::RESIDENT_BYTES_MAX, "lies cost {resident} bytes");
    }
    Ok(())
}

/// The records of a truthful batch of one.
fn records() -> Vec<u8> {
    RawBatch::of(1, now_ms()).encoded_records()
}

fn gzip(bytes: &[u8]) -> Tested<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

fn codecs_exchanged_are_refused(broker: &Broker) -> Tested {
    let streams = [
        (codec::GZIP, gzip(&records())?),
        (codec::ZSTD, zstd::encode_all(&records()[..], 1)?),
        (codec::LZ4, lz4(&records(), |_| {})),
        (codec::SNAPPY, snappy(&records(), |_| {})),
    ];
    let mut payloads = Vec::new();
    for (own, stream) in &streams {
        for other in [codec::NONE, codec::GZIP, codec::SNAPPY, codec::LZ4, codec::ZSTD] {
            if other != *own {
                payloads.push((other, stream.clone()));
            }
        }
    }
    refused(broker, &payloads)
}

/// Xerial's framing around one raw snappy block of literals, spoiled by `spoil`.
fn snappy(bytes: &[u8], spoil: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("a small payload");
    assert!(length < 60, "one literal of a short form");
    let mut block = vec![length, (length - 1) << 2];
    block.extend_from_slice(bytes);
    spoil(&mut block);
    let mut stream = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    stream.extend_from_slice(&u32::try_from(block.len()).expect("a small block").to_be_bytes());
    stream.extend_from_slice(&block);
    stream
}

fn snappy_blocks_that_lie_are_refused(broker: &Broker) -> Tested {
    let records = records();
    let block_length = |length: u32| {
        let mut stream = snappy(&records, |_| {});
        stream[16..20].copy_from_slice(&length.to_be_bytes());
        stream
    };
    let lies = [
        // The block is longer or shorter than its frame says.
        block_length(u32::MAX),
        block_length(i32::MAX as u32),
        block_length(1),
        block_length(0),
        // It promises to inflate to 4 GiB, to 256 MiB, to nothing.
        snappy(&records, |block| drop(block.splice(..1, [0xff, 0xff, 0xff, 0xff, 0x0f]))),
        snappy(&records, |block| drop(block.splice(..1, [0x80, 0x80, 0x80, 0x80, 0x01]))),
        snappy(&records, |block| block[0] = 0),
        // A literal past the end; a copy from before the beginning.
        snappy(&records, |block| block[1] = 59 << 2),
        snappy(&records, |block| block[1] = 0b0000_0001),
        snappy(&records, |block| block.extend_from_slice(&[0xfe, 0xff, 0xff])),
        // The magic and nothing else; half a length.
        snappy(&records, |_| {})[..16].to_vec(),
        snappy(&records, |_| {})[..18].to_vec(),
    ];
    refused(broker, &lies.map(|lie| (codec::SNAPPY, lie)))
}

/// An lz4 frame of one stored block, its descriptor and block header spoiled by `spoil`.
fn lz4(bytes: &[u8], spoil: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    // Version 1, independent blocks, no checksums; blocks of 64 KiB; the header's checksum.
    let mut frame = vec![0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
    let stored = u32::try_from(bytes.len()).expect("a small block") | 1 << 31;
    frame.extend_from_slice(&stored.to_le_bytes());
    frame.extend_from_slice(bytes);
    frame.extend_from_slice(&[0; 4]);
    spoil(&mut frame);
    frame
}

fn lz4_frames_that_lie_are_refused(broker: &Broker) -> Tested {
    let records = records();
    let block =
        |length: u32| lz4(&records, |frame| frame[7..11].copy_from_slice(&length.to_le_bytes()));
    let lies = [
        // The block's size: all there is, more than a block may have, one that is not stored.
        block(u32::MAX),
        block(i32::MAX as u32),
        block(1 << 31 | 0x0001_0001),
        block(u32::try_from(records.len())?),
        block(1 << 31 | 1),
        // Not the version; not the checksum of the header; not a size of blocks.
        lz4(&records, |frame| frame[4] = 0xa0),
        lz4(&records, |frame| frame[6] ^= 0xff),
        lz4(&records, |frame| frame[5] = 0),
        // Compressed data whose match begins before the beginning, or never ends.
        lz4(&records, |frame| {
            frame.truncate(7);
            frame.extend_from_slice(&5_u32.to_le_bytes());
            frame.extend_from_slice(&[0x1f, b'x', 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        }),
        lz4(&records, |frame| {
            frame.truncate(7);
            frame.extend_from_slice(&64_u32.to_le_bytes());
            frame.extend_from_slice(&[0xff; 64]);
        }),
    ];
    refused(broker, &lies.map(|lie| (codec::LZ4, lie)))
}

fn zstd_frames_that_lie_are_refused(broker: &Broker) -> Tested {
    // Magic; a single segment whose content has the size that follows, in 8 bytes.
    let content = |size: u64| {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0];
        frame.extend_from_slice(&size.to_le_bytes());
        // The last block, stored, of 3 bytes.
        frame.extend_from_slice(&[0x19, 0, 0, 1, 2, 3]);
        frame
    };
    let mut window = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff];
    window.extend_from_slice(&[0x19, 0, 0, 1, 2, 3]);
    let mut long_block = zstd::encode_all(&records()[..], 1)?;
    let at = long_block.len() - 1;
    long_block.truncate(at);
    let lies =
        [content(u64::MAX), content(1 << 40), content(1 << 28), content(0), window, long_block];
    refused(broker, &lies.map(|lie| (codec::ZSTD, lie)))
}

fn streams_cut_short_are_refused(broker: &Broker) -> Tested {
    let whole = RawBatch::of_size(2_000, now_ms()).encoded_records();
    let streams = [(codec::GZIP, gzip(&whole)?), (codec::ZSTD, zstd::encode_all(&whole[..], 1)?)];
    let mut payloads = Vec::new();
    for (codec, stream) in streams {
        for length in [0, 1, stream.len() / 4, stream.len() / 2] {
            payloads.push((codec, stream[..length].to_vec()));
        }
    }
    refused(broker, &payloads)
}

/// A record of these varints, in order, behind its attributes and within its true length, or within
/// `length`.
fn record(length: Option<i64>, fields: &[i64]) -> Vec<u8> {
    let mut body = vec![0];
    for field in fields {
        batch::put_varint(&mut body, *field);
    }
    let mut record = Vec::new();
    batch::put_varint(&mut record, length.unwrap_or(body.len() as i64));
    record.extend_from_slice(&body);
    record
}

/// Timestamp delta, offset delta, key, value, count of headers, and what each header says. A key or
/// value whose length is below -1 is none of them: that is null, too (`Utils.readBytes`).
fn liars(broker: &Broker) -> Vec<Vec<u8>> {
    let most = i64::from(i32::MAX);
    let mut liars = vec![
        record(None, &[0, 0, most, -1, 0]),
        record(None, &[0, 0, 3, -1, 0]),
        record(None, &[0, 0, -1, most, 0]),
        record(None, &[0, 0, -1, 1, 0]),
        record(None, &[0, 0, -1, -1, most]),
        record(None, &[0, 0, -1, -1, 1]),
        record(None, &[0, 0, -1, -1, -1]),
        record(None, &[0, 0, -1, -1, 1, -1, 0]),
        record(None, &[0, 0, -1, -1, 1, most, 0]),
        record(None, &[0, 0, -1, -1, 1, 0, most]),
        record(None, &[0, 0, -1, -1, 0, 0]),
        record(Some(3), &[0, 0, -1, -1, 0]),
        record(Some(0), &[]),
        record(Some(i64::MAX), &[0, 0, -1, -1, 0]),
        vec![0xff; 11],
        Vec::new(),
    ];
    if !broker.is_external() {
        // Offsets that are not dense. Apache Kafka appends them as they are, or counts anew.
        liars.push(record(None, &[0, 1, -1, -1, 0]));
        liars.push(record(None, &[0, -1, -1, -1, 0]));
    }
    liars
}

fn inner_sizes_that_lie_are_refused(broker: &Broker) -> Tested {
    let payloads: Vec<_> = liars(broker).into_iter().map(|lie| (codec::NONE, lie)).collect();
    refused(broker, &payloads)
}

fn inner_sizes_that_lie_are_refused_compressed(broker: &Broker) -> Tested {
    let mut payloads = Vec::new();
    for lie in liars(broker) {
        payloads.push((codec::GZIP, gzip(&lie)?));
        payloads.push((codec::ZSTD, zstd::encode_all(&lie[..], 1)?));
        if !lie.is_empty() {
            payloads.push((codec::LZ4, lz4(&lie, |_| {})));
            payloads.push((codec::SNAPPY, snappy(&lie, |_| {})));
        }
    }
    refused(broker, &payloads)
}
