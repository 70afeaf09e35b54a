//! From a fetch offset to the parts of a response: the sparse index, the headers between its
//! entries, the slices, the encoder. No byte of a batch is touched but headers.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vltava_benches::fixtures::{self, BATCH_SIZES};
use vltava_benches::logs::{Workbench, fill};
use vltava_benches::runs::Clock;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{Offset, PartitionIndex, TopicId, TopicName};
use vltava_protocol::messages::ResponseFrame;
use vltava_protocol::messages::fetch::{FetchPartitionResponse, FetchResponse, FetchTopicResponse};
use vltava_protocol::record::compression::Codec;
use vltava_storage::log::Durability;
use vltava_storage::read_view::{ReadView, ViewCell};

mod measure;

use measure::{By, by};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SCRATCH: &str = env!("CARGO_TARGET_TMPDIR");
const FETCH_VERSION: i16 = 17;
/// A consumer's `max.partition.fetch.bytes` by default.
const FETCH_BYTES_MAX: usize = 1 << 20;
/// The log that is read: more than a processor's caches, and more than what counts as recent, so
/// that headers of the older part are read as those of a cold log are.
const LOG_BYTES: u64 = 64 << 20;

fn read(view: &ReadView, from: Offset) -> Vec<Bytes> {
    let slices = view.read(from, view.high_watermark, FETCH_BYTES_MAX, true).expect("in the log");
    slices.iter().map(|slice| slice.bytes().expect("the file is there")).collect()
}

fn respond(cell: &ViewCell, from: Offset) -> ResponseFrame {
    let view = cell.read();
    let partition = FetchPartitionResponse {
        high_watermark: view.high_watermark,
        last_stable_offset: view.last_stable_offset,
        log_start_offset: view.log_start_offset,
        records: read(&view, from),
        ..FetchPartitionResponse::empty(PartitionIndex(0), ErrorCode::None)
    };
    let topic = FetchTopicResponse {
        topic: TopicName::new("measurements"),
        topic_id: TopicId::ZERO,
        partitions: vec![partition],
    };
    let response = FetchResponse { topics: vec![topic], ..FetchResponse::default() };
    response.encode(1, FETCH_VERSION).expect("it fits its version")
}

fn fetch(c: &mut Criterion<By>) {
    for (name, size) in BATCH_SIZES {
        let batch = fixtures::batch(size, Codec::None);
        let mut bench = Workbench::new(SCRATCH);
        let mut log = bench.log(Durability::PageCache);
        fill(&mut log, &batch, LOG_BYTES);
        let cell = log.view();
        let end = cell.high_watermark();
        let last_batch = Offset(end.0 - batch.records as i64);

        let mut group = c.benchmark_group("fetch/last batch");
        group.throughput(Throughput::Bytes(batch.bytes.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| respond(black_box(&cell), last_batch));
        });
        group.finish();

        let mut group = c.benchmark_group("fetch/1 MiB of old batches");
        group.throughput(Throughput::Bytes(respond(&cell, Offset::ZERO).bytes() as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            // Strides over the first half of the log: other index entries, other headers each time.
            let mut from = 0;
            b.iter(|| {
                from = (from + 7_919) % (end.0 / 2);
                respond(black_box(&cell), Offset(from))
            });
        });
        group.finish();
    }
}

/// What a consumer at the end of the log costs while it waits.
fn nothing_new(c: &mut Criterion<By>) {
    let mut bench = Workbench::new(SCRATCH);
    let mut log = bench.log(Durability::PageCache);
    fill(&mut log, &fixtures::batch(16 << 10, Codec::None), 1 << 20);
    let cell = log.view();
    c.bench_function("fetch/nothing new", |b| {
        b.iter(|| read(&cell.read(), black_box(cell.high_watermark())));
    });
}

criterion_group! {
    name = benches;
    config = by(Clock::Thread);
    targets = fetch, nothing_new
}
criterion_main!(benches);
