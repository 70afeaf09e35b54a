//! Allocations of each step of a batch's way, counted, not timed.
//!
//! Runs with the benchmarks and, since counts do not depend on the machine, as a test as well: a
//! step that allocates more than its budget fails. The counts are of the thread that does the
//! step, after a few rounds that fill what is kept and used again.

use std::hint::black_box;

use allocation_counter::{AllocationInfo, measure, opt_out};
use bytes::{Bytes, BytesMut};
use vltava::replica::group::GroupConfig;
use vltava::replica::shell::{Output, Replica};
use vltava_benches::fixtures::{self, Batch, NOW, Values};
use vltava_benches::jobs::Job;
use vltava_benches::logs::{Workbench, append, fill};
use vltava_benches::tasks::{Chunk, Feeder, SINK, SOURCE};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::frame::{FRAME_BYTES_MAX, FRAME_LENGTH_BYTES, FrameDecoder, parse_head};
use vltava_protocol::ids::{PartitionIndex, TopicId, TopicName};
use vltava_protocol::messages::fetch::{FetchPartitionResponse, FetchResponse, FetchTopicResponse};
use vltava_protocol::messages::{ProduceRequest, decode_request};
use vltava_protocol::record::batch::BatchHeader;
use vltava_protocol::record::compression::Codec;
use vltava_protocol::record::validate::{Scratch, validate};
use vltava_storage::log::Durability;

const SCRATCH: &str = env!("CARGO_TARGET_TMPDIR");
const FETCH_VERSION: i16 = 17;
/// Times that a step is done before it is counted: what grows by doubling has grown by then.
const WARM_UP: u32 = 300;
/// Times that a step is counted.
const COUNTED: u32 = 100;

/// Counts of one step.
struct Step {
    name: &'static str,
    allocations: f64,
    bytes: f64,
    /// Most allocations it may make, on average.
    budget: f64,
}

fn count(name: &'static str, budget: f64, mut step: impl FnMut()) -> Step {
    for _ in 0..WARM_UP {
        step();
    }
    let AllocationInfo { count_total, bytes_total, .. } = measure(|| {
        for _ in 0..COUNTED {
            step();
        }
    });
    let per_step = |total: u64| total as f64 / f64::from(COUNTED);
    Step { name, allocations: per_step(count_total), bytes: per_step(bytes_total), budget }
}

fn frame(batch: &Batch, steps: &mut Vec<Step>) {
    let whole = fixtures::produce_frame("measurements", &batch.bytes, 1);
    let mut buffer = BytesMut::new();
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    steps.push(count("frame split off the connection's buffer", 1.0, || {
        opt_out(|| buffer = BytesMut::from(&whole[..]));
        black_box(decoder.decode(&mut buffer).expect("well formed"));
    }));
    let frame = whole.slice(FRAME_LENGTH_BYTES..);
    steps.push(count("request header read", 0.0, || {
        black_box(parse_head(&mut frame.clone()).expect("well formed"));
    }));
    let mut body = frame.clone();
    let head = parse_head(&mut body).expect("well formed");
    steps.push(count("Produce body read", 2.0, || {
        let request: ProduceRequest =
            decode_request(body.clone(), head.api_version).expect("well formed");
        black_box(request);
    }));
}

fn door(batch: &Batch, steps: &mut Vec<Step>) {
    let (rules, mut scratch) = (fixtures::rules(), Scratch::default());
    steps.push(count("batch validated", 0.0, || {
        black_box(validate(&batch.bytes, NOW, &rules, &mut scratch).expect("let in"));
    }));
    let compressed = fixtures::batch(batch.plain_bytes as usize + 64, Codec::Lz4);
    steps.push(count("batch validated, lz4", 2.0, || {
        black_box(validate(&compressed.bytes, NOW, &rules, &mut scratch).expect("let in"));
    }));
}

fn log(batch: &Batch, steps: &mut Vec<Step>) {
    let header = BatchHeader::parse(&batch.bytes).expect("just built");
    let mut bench = Workbench::new(SCRATCH);
    let mut log = bench.log(Durability::PageCache);
    steps.push(count("batch written, published, committed", 1.0, || {
        let index = append(&mut log, &batch.bytes, &header);
        log.commit_to(index);
    }));
    drop((log, bench));
    let mut bench = Workbench::new(SCRATCH);
    let mut log = bench.log(Durability::Fsync);
    steps.push(count("the same, and made durable alone in a round", 16.0, || {
        let index = append(&mut log, &batch.bytes, &header);
        log.commit_to(index);
        bench.queue.push(log.take_flush_items());
        bench.flusher.round().expect("the disk works");
    }));
}

fn group(batch: &Batch, steps: &mut Vec<Step>) {
    let header = BatchHeader::parse(&batch.bytes).expect("just built");
    let mut bench = Workbench::new(SCRATCH);
    let log = bench.log(Durability::Fsync);
    let config = GroupConfig::default();
    let mut replica = Replica::new(log, Durability::Fsync, config, bench.queue.clone());
    replica.poll(&mut Output::default());
    steps.push(count("through a group of one voter, and durable", 28.0, || {
        let mut output = Output::default();
        // Not the leader until its vote was made durable by the first rounds.
        black_box(replica.append(&batch.bytes, &header, NOW, &mut output).ok());
        for (_, ticket) in bench.flusher.round().expect("the disk works").completed {
            replica.on_durable(ticket, &mut output);
        }
    }));
}

fn fetch(batch: &Batch, steps: &mut Vec<Step>) {
    let mut bench = Workbench::new(SCRATCH);
    let mut log = bench.log(Durability::PageCache);
    fill(&mut log, batch, 4 << 20);
    let cell = log.view();
    let from = vltava_protocol::ids::Offset(cell.high_watermark().0 - batch.records as i64);
    let read = || {
        let view = cell.read();
        let slices = view.read(from, view.high_watermark, 1 << 20, true).expect("in the log");
        slices.iter().map(|slice| slice.bytes().expect("the file is there")).collect::<Vec<Bytes>>()
    };
    steps.push(count("last batch found, as slices", 2.0, || {
        black_box(read());
    }));
    let partition = FetchPartitionResponse {
        records: read(),
        ..FetchPartitionResponse::empty(PartitionIndex(0), ErrorCode::None)
    };
    let topic = FetchTopicResponse {
        topic: TopicName::new("measurements"),
        topic_id: TopicId::ZERO,
        partitions: vec![partition],
    };
    let response = FetchResponse { topics: vec![topic], ..FetchResponse::default() };
    steps.push(count("Fetch response encoded", 4.0, || {
        black_box(response.encode(1, FETCH_VERSION).expect("it fits its version"));
    }));
}

/// A chain allocates for a batch, not for its records: of ten times as many no more.
fn stream(steps: &mut Vec<Step>) {
    for (name, batch_bytes) in [
        ("batch of 16 KiB through filter and map_values", 16 << 10),
        ("batch of 160 KiB through filter and map_values", 160 << 10),
    ] {
        let topology = Job::FilterMark.topology("bench", SOURCE, SINK);
        let chunk = Chunk::new(Values::Noise(fixtures::VALUE_BYTES), batch_bytes, 1);
        let mut feeder = Feeder::new(topology, chunk);
        steps.push(count(name, 2.0, || {
            black_box(feeder.feed());
            opt_out(|| feeder.go_on());
        }));
    }
}

fn main() {
    let batch = fixtures::batch(16 << 10, Codec::None);
    let mut steps = Vec::new();
    frame(&batch, &mut steps);
    door(&batch, &mut steps);
    log(&batch, &mut steps);
    group(&batch, &mut steps);
    fetch(&batch, &mut steps);
    stream(&mut steps);
    println!("\nallocations per batch of {} bytes, {} records:", batch.bytes.len(), batch.records);
    for step in &steps {
        println!("{:<46} {:>6.2} of {:>7.0} bytes", step.name, step.allocations, step.bytes);
    }
    for Step { name, allocations, budget, .. } in steps {
        assert!(allocations <= budget, "{name}: {allocations} allocations, the budget is {budget}");
    }
}
