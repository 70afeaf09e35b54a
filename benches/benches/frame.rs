//! From a connection's bytes to a request, and from slices of the log to a response.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vltava_benches::fixtures::{self, BATCH_SIZES, PRODUCE_VERSION};
use vltava_benches::runs::Clock;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::frame::{FRAME_BYTES_MAX, FRAME_LENGTH_BYTES, FrameDecoder, parse_head};
use vltava_protocol::ids::{Offset, PartitionIndex, TopicId, TopicName};
use vltava_protocol::messages::fetch::{FetchPartitionResponse, FetchResponse, FetchTopicResponse};
use vltava_protocol::messages::{ProduceRequest, decode_request};
use vltava_protocol::record::compression::Codec;

mod measure;

use measure::{By, by};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Requests in one read of a pipelining client.
const PIPELINED: usize = 8;
const TOPIC: &str = "measurements";
const FETCH_VERSION: i16 = 17;

/// Splits the first frame off, as a connection does.
fn split(buffer: &mut BytesMut) -> Option<Bytes> {
    FrameDecoder::new(FRAME_BYTES_MAX).decode(buffer).expect("the frames are well formed")
}

fn produce(mut frame: Bytes) -> ProduceRequest {
    let head = parse_head(&mut frame).expect("the header is well formed");
    decode_request(frame, head.api_version).expect("the body is well formed")
}

fn steps(c: &mut Criterion<By>) {
    let batch = fixtures::batch(16 << 10, Codec::None);
    let whole = fixtures::produce_frame(TOPIC, &batch.bytes, 1);
    let frame = whole.slice(FRAME_LENGTH_BYTES..);
    let mut body = frame.clone();
    parse_head(&mut body).expect("the header is well formed");
    let mut group = c.benchmark_group("frame");
    group.bench_function("split one frame", |b| {
        let buffer = || BytesMut::from(&whole[..]);
        b.iter_batched_ref(buffer, split, BatchSize::NumIterations(256));
    });
    group.bench_function("parse_head", |b| {
        b.iter(|| parse_head(black_box(&mut frame.clone())).expect("the header is well formed"));
    });
    group.bench_function("decode Produce body", |b| {
        b.iter(|| -> ProduceRequest {
            decode_request(black_box(body.clone()), PRODUCE_VERSION).expect("well formed")
        });
    });
    group.finish();
}

fn pipelined(c: &mut Criterion<By>) {
    let mut group = c.benchmark_group("frame/pipelined Produce");
    for (name, size) in BATCH_SIZES {
        let batch = fixtures::batch(size, Codec::None);
        let mut stream = BytesMut::new();
        for correlation_id in 0..PIPELINED {
            stream.extend(&fixtures::produce_frame(TOPIC, &batch.bytes, correlation_id as i32));
        }
        group.throughput(Throughput::ElementsAndBytes {
            elements: PIPELINED as u64,
            bytes: stream.len() as u64,
        });
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter_batched_ref(
                || stream.clone(),
                |buffer| {
                    while let Some(frame) = split(buffer) {
                        black_box(produce(frame));
                    }
                },
                BatchSize::NumIterations(32),
            );
        });
    }
    group.finish();
}

fn fetch_response(partitions: i32, runs: usize, run: &Bytes) -> FetchResponse {
    let partition = |partition| FetchPartitionResponse {
        high_watermark: Offset(1000),
        last_stable_offset: Offset(1000),
        log_start_offset: Offset(0),
        records: vec![run.clone(); runs],
        ..FetchPartitionResponse::empty(PartitionIndex(partition), ErrorCode::None)
    };
    let topic = FetchTopicResponse {
        topic: TopicName::new(TOPIC),
        topic_id: TopicId::ZERO,
        partitions: (0..partitions).map(partition).collect(),
    };
    FetchResponse { topics: vec![topic], ..FetchResponse::default() }
}

fn encode_fetch(c: &mut Criterion<By>) {
    let mut group = c.benchmark_group("frame/encode Fetch");
    for (name, partitions, runs, run_bytes) in [
        ("1 partition, 1 run of 256 KiB", 1, 1, 256 << 10),
        ("1 partition, 4 runs of 64 KiB", 1, 4, 64 << 10),
        ("100 partitions, 1 run of 16 KiB each", 100, 1, 16 << 10),
        ("100 partitions, nothing new", 100, 0, 0),
    ] {
        let response = fetch_response(partitions, runs, &Bytes::from(vec![7; run_bytes]));
        let bytes = partitions as u64 * runs as u64 * run_bytes as u64;
        group.throughput(Throughput::ElementsAndBytes { elements: partitions as u64, bytes });
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| black_box(&response).encode(1, FETCH_VERSION).expect("it fits its version"));
        });
    }
    group.finish();
}

criterion_group! {
    name = frame;
    config = by(Clock::Thread);
    targets = steps, pipelined, encode_fetch
}
criterion_main!(frame);
