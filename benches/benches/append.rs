//! A batch's way into the log: written ahead, published, flushed, and the whole of it through a
//! group of one voter.
//!
//! Page cache: the batch counts when it is written; processor time. Fsync: each iteration is so many
//! batches and one round of the real flusher, in processor time and as what a client waits, which
//! is the disk's; group commit shares a round among all batches that wait.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vltava::replica::group::{GroupConfig, Role};
use vltava::replica::shell::{Output, Replica};
use vltava_benches::fixtures::{self, BATCH_SIZES, Batch, NOW};
use vltava_benches::logs::{REPLICA, Workbench, append};
use vltava_benches::runs::{Clock, capacity, timed};
use vltava_protocol::record::batch::BatchHeader;
use vltava_protocol::record::compression::Codec;
use vltava_storage::log::{Durability, PartitionLog};

mod measure;

use measure::{By, by};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SCRATCH: &str = env!("CARGO_TARGET_TMPDIR");
/// Rounds of the flusher after which a lone voter leads at the latest.
const ROUNDS_MAX: usize = 16;

fn throughput(batches: u64, batch: &Batch) -> Throughput {
    Throughput::ElementsAndBytes { elements: batches, bytes: batches * batch.bytes.len() as u64 }
}

/// What takes batches, above a disk of its own.
trait Subject {
    fn new(durability: Durability) -> Self;
    fn append(&mut self, batch: &Batch, header: &BatchHeader);
    fn flush(&mut self);
}

/// A log alone. Fields drop in order: the disk's directory last.
struct Log {
    log: PartitionLog,
    bench: Workbench,
}

impl Subject for Log {
    fn new(durability: Durability) -> Self {
        let mut bench = Workbench::new(SCRATCH);
        Self { log: bench.log(durability), bench }
    }

    fn append(&mut self, batch: &Batch, header: &BatchHeader) {
        let index = append(&mut self.log, &batch.bytes, header);
        self.log.commit_to(index);
        let items = self.log.take_flush_items();
        if !items.is_empty() {
            self.bench.queue.push(items);
        }
    }

    fn flush(&mut self) {
        black_box(self.bench.flusher.round().expect("the disk works"));
    }
}

/// A leader: the same log under raft.
struct Group {
    replica: Replica,
    bench: Workbench,
}

impl Subject for Group {
    fn new(durability: Durability) -> Self {
        let mut bench = Workbench::new(SCRATCH);
        let log = bench.log(durability);
        let mut replica =
            Replica::new(log, durability, GroupConfig::default(), bench.queue.clone());
        replica.poll(&mut Output::default());
        let mut group = Self { replica, bench };
        for _ in 0..ROUNDS_MAX {
            group.flush();
        }
        assert_eq!(group.replica.role(), Role::Leader, "a lone voter leads");
        group
    }

    fn append(&mut self, batch: &Batch, header: &BatchHeader) {
        let mut output = Output::default();
        let placed = self.replica.append(&batch.bytes, header, NOW, &mut output);
        black_box(placed.expect("a leader appends"));
    }

    fn flush(&mut self) {
        let round = self.bench.flusher.round().expect("the disk works");
        for (replica, ticket) in round.completed {
            assert_eq!(replica, REPLICA);
            self.replica.on_durable(ticket, &mut Output::default());
        }
    }
}

/// Batches that count when they are written.
fn page_cache<S: Subject>(c: &mut Criterion<By>, name: &str) {
    let mut group = c.benchmark_group(format!("append/{name}, page cache"));
    for (name, size) in BATCH_SIZES {
        let batch = fixtures::batch(size, Codec::None);
        let header = BatchHeader::parse(&batch.bytes).expect("just built");
        group.throughput(throughput(1, &batch));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            let fresh = || S::new(Durability::PageCache);
            b.iter_custom(|n| {
                timed(Clock::Thread, n, capacity(size), fresh, |s| s.append(&batch, &header))
            });
        });
    }
    group.finish();
}

/// `batches` appends, then one round: what each of them waits for.
fn fsync<S: Subject>(c: &mut Criterion<By>, name: &str, clock: Clock, batches: u64) {
    let mut group =
        c.benchmark_group(format!("append/{name}, fsync, {batches} a round{}", suffix(clock)));
    group.sample_size(20);
    for (name, size) in BATCH_SIZES {
        let batch = fixtures::batch(size, Codec::None);
        let header = BatchHeader::parse(&batch.bytes).expect("just built");
        group.throughput(throughput(batches, &batch));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            let work = |subject: &mut S| {
                for _ in 0..batches {
                    subject.append(&batch, &header);
                }
                subject.flush();
            };
            let rounds = capacity(size * batches as usize);
            b.iter_custom(|n| timed(clock, n, rounds, || S::new(Durability::Fsync), work));
        });
    }
    group.finish();
}

fn suffix(clock: Clock) -> &'static str {
    if clock == Clock::Wall { "" } else { ", processor time" }
}

fn works(c: &mut Criterion<By>) {
    page_cache::<Log>(c, "log");
    page_cache::<Group>(c, "one voter");
    fsync::<Log>(c, "log", Clock::Thread, 1);
    fsync::<Group>(c, "one voter", Clock::Thread, 1);
}

fn waits(c: &mut Criterion<By>) {
    fsync::<Log>(c, "log", Clock::Wall, 1);
    fsync::<Log>(c, "log", Clock::Wall, 16);
    fsync::<Group>(c, "one voter", Clock::Wall, 1);
}

criterion_group! {
    name = threads;
    config = by(Clock::Thread);
    targets = works
}
criterion_group! {
    name = walls;
    config = by(Clock::Wall);
    targets = waits
}
criterion_main!(threads, walls);
