//! What a task of the stream runtime makes of the log's batches: the walk over borrowed records,
//! and whole chains from input batches to output batches, without a broker.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vltava_benches::fixtures::Values;
use vltava_benches::jobs::Job;
use vltava_benches::runs::Clock;
use vltava_benches::tasks::{Chunk, Feeder, SINK, SOURCE, source};
use vltava_protocol::record::batch::{BATCH_HEADER_BYTES, split_batches};
use vltava_streams::{Blob, InputBatch, Raw, Record, Topology, bytes, raw};

mod measure;

use measure::{By, by};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// As large as a producer's default batch.
const BATCH_BYTES: usize = 16 << 10;
/// As many as a task reads at a time.
const BATCHES: u64 = 64;

/// Every record's views are made and looked at; nothing is done with them.
fn decode(c: &mut Criterion<By>) {
    for (name, values) in [("100 B", Values::Noise(100)), ("1 KiB", Values::Noise(1024))] {
        let (chunk, source) = (Chunk::new(values, BATCH_BYTES, BATCHES), source());
        let mut group = c.benchmark_group("streams/records decoded");
        group.throughput(throughput(&chunk));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut seen = 0;
                for batch in split_batches(black_box(&chunk.bytes)) {
                    let (header, bytes) = batch.expect("it was just built");
                    let payload = &bytes[BATCH_HEADER_BYTES..];
                    let batch = InputBatch { source: &source, header: &header, payload };
                    for record in batch.records() {
                        let record = record.expect("it was just built");
                        seen += record.key.map_or(0, <[u8]>::len);
                        seen += record.value.map_or(0, <[u8]>::len);
                    }
                }
                seen
            });
        });
        group.finish();
    }
}

/// The chain alone: a record in 500 comes out, so that the output costs next to nothing.
fn chains(c: &mut Criterion<By>) {
    let narrow = Topology::new("bench");
    narrow
        .stream(SOURCE, (bytes(), raw()))
        .filter(|record| record.key.last_chunk().is_some_and(|end| u16::from_be_bytes(*end) < 131))
        .project(raw(), |record: Record<'_, Blob, Raw>| {
            record.value.and_then(|value| value.get(..32))
        })
        .to(SINK);
    chain(c, "filter and project, 1 in 500 kept", Values::Noise(100), narrow);

    let wide = Topology::new("bench");
    wide.stream(SOURCE, (bytes(), raw()))
        .filter(|record| record.key.last().is_some_and(|last| last.is_multiple_of(2)))
        .project(raw(), |record: Record<'_, Blob, Raw>| {
            record.value.and_then(|value| value.get(..32))
        })
        .to(SINK);
    chain(c, "filter and project, half kept", Values::Noise(100), wide);

    for (name, job, values) in [
        ("filter and map_values, 100 B", Job::FilterMark, Values::Noise(100)),
        ("filter and map_values, 1 KiB", Job::FilterMark, Values::Noise(1024)),
        ("JSON checked, filter, one field", Job::Pick, Values::Documents),
        ("flat_map into 8 words", Job::Split, Values::Words),
    ] {
        chain(c, name, values, job.topology("bench", SOURCE, SINK));
    }
}

fn chain(c: &mut Criterion<By>, name: &str, values: Values, topology: Topology) {
    let chunk = Chunk::new(values, BATCH_BYTES, BATCHES);
    let mut group = c.benchmark_group("streams/chain");
    group.throughput(throughput(&chunk));
    let mut feeder = Feeder::new(topology, chunk);
    group.bench_function(name, |b| b.iter(|| black_box(feeder.round())));
    group.finish();
}

fn throughput(chunk: &Chunk) -> Throughput {
    Throughput::ElementsAndBytes { elements: chunk.records, bytes: chunk.bytes.len() as u64 }
}

criterion_group! {
    name = benches;
    config = by(Clock::Thread);
    targets = decode, chains
}
criterion_main!(benches);
