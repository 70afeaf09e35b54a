//! The door: what it costs to judge a batch before it is appended.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vltava_benches::fixtures::{self, BATCH_SIZES, Batch, NOW};
use vltava_benches::runs::Clock;
use vltava_protocol::record::batch::{BATCH_HEADER_BYTES, BatchHeader, verify_crc};
use vltava_protocol::record::compression::Codec;
use vltava_protocol::record::record::Records;
use vltava_protocol::record::validate::{Scratch, validate};

mod measure;

use measure::{By, by};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn throughput(batch: &Batch) -> Throughput {
    Throughput::ElementsAndBytes { elements: batch.records, bytes: batch.plain_bytes }
}

fn parts(c: &mut Criterion<By>) {
    let batch = fixtures::batch(16 << 10, Codec::None);
    let header = BatchHeader::parse(&batch.bytes).expect("just built");
    let payload = &batch.bytes[BATCH_HEADER_BYTES..];
    c.bench_function("validate/parse header", |b| {
        b.iter(|| BatchHeader::parse(black_box(&batch.bytes)));
    });
    let mut group = c.benchmark_group("validate/parts of 16 KiB");
    group.throughput(throughput(&batch));
    group.bench_function("checksum", |b| b.iter(|| verify_crc(black_box(&batch.bytes))));
    group.bench_function("walk of the records", |b| {
        b.iter(|| {
            let records = Records::new(black_box(payload), header.record_count);
            records.fold(0, |sum, record| sum + record.expect("just built").offset_delta)
        });
    });
    group.finish();
}

fn door(c: &mut Criterion<By>, name: &str, batch: &Batch, id: &str) {
    let (rules, mut scratch) = (fixtures::rules(), Scratch::default());
    let mut group = c.benchmark_group(name);
    group.throughput(throughput(batch));
    group.bench_function(BenchmarkId::from_parameter(id), |b| {
        b.iter(|| validate(black_box(&batch.bytes), NOW, &rules, &mut scratch).expect("let in"));
    });
    group.finish();
}

fn sizes(c: &mut Criterion<By>) {
    for (name, size) in BATCH_SIZES {
        door(c, "validate/uncompressed", &fixtures::batch(size, Codec::None), name);
    }
}

fn codecs(c: &mut Criterion<By>) {
    for codec in Codec::ALL {
        door(c, "validate/16 KiB", &fixtures::batch(16 << 10, codec), codec.name());
    }
}

criterion_group! {
    name = benches;
    config = by(Clock::Thread);
    targets = parts, sizes, codecs
}
criterion_main!(benches);
