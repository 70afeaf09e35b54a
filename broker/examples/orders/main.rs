//! An order pipeline inside a broker: orders come in over a client's connection, are validated,
//! their card numbers masked, and split into items that are routed by category.
//!
//! ```text
//! orders ─ orders ─ validate ─┬─ split ─ route ─> items.<category>
//!                             └─ rejects ───────> orders.invalid     the bytes as they came
//! ```
//!
//! `cargo run --release --example orders -- --seconds 20 --seed 7`. While it runs, any Kafka client
//! can read the topics at the address that it prints.

mod generator;
mod pipeline;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use vltava::client::admin::NewTopic;
use vltava::client::{Client, LATEST};
use vltava::{Broker, Config};
use vltava_streams::{Pipeline, PipelineStatus};

use generator::{Generator, Sent};

/// As in the binary: the decoders reserve what a request claims to hold.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Partitions of the topic that is read: as many tasks.
const PARTITIONS: i32 = 4;
/// How long the pipeline may take to catch up at the end.
const CATCH_UP: Duration = Duration::from_secs(30);

/// Runs an order pipeline inside a broker.
#[derive(Debug, Parser)]
struct Args {
    /// How long orders are sent.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// What the orders are made of: the same seed makes the same orders.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Orders a second, on average.
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
}

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("orders: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Failure> {
    let config =
        Config::new().set("log.durability", "page-cache").admin(([127, 0, 0, 1], 0).into());
    let broker = Broker::start_async(config).await?;
    let mut client = Client::connect(&broker.bootstrap(), Duration::from_secs(10)).await?;
    let topic = NewTopic {
        name: pipeline::ORDERS.to_owned(),
        partitions: Some(PARTITIONS),
        ..NewTopic::default()
    };
    for created in client.create_topics(&[topic], false).await? {
        created?;
    }
    let running = tokio::task::block_in_place(|| pipeline::topology().run_in(&broker))?;
    println!("{}", running.explain());
    let admin = broker.admin_addr().map_or_else(String::new, |addr| addr.to_string());
    println!("kafka={} admin={admin}", broker.bootstrap());

    let sent = send(&args, &mut client, &running).await?;
    let status = caught_up(&running, &sent).await?;
    summary(&status, &sent);
    let items = read_back(&mut client).await?;
    if items != sent.items {
        return Err(format!("items by category: sent {:?}, read {items:?}", sent.items).into());
    }
    println!("every item was read back from its topic");
    tokio::task::block_in_place(move || {
        drop(running);
        broker.shutdown();
    });
    Ok(())
}

/// Sends orders in bursts for as long as it was asked for, and shows how it goes.
async fn send(args: &Args, client: &mut Client, running: &Pipeline) -> Result<Sent, Failure> {
    let mut generator = Generator::new(args.seed, args.rate, PARTITIONS);
    let topic = client.topic(pipeline::ORDERS, false).await?;
    let begun = Instant::now();
    let mut shown = Instant::now();
    while begun.elapsed() < Duration::from_secs(args.seconds) {
        let burst = generator.burst();
        client.produce(&topic, &burst.orders, burst.codec, -1, 3).await?;
        if shown.elapsed() >= Duration::from_secs(1) {
            show(begun.elapsed(), generator.sent(), &running.status());
            shown = Instant::now();
        }
        let due = begun + generator.due();
        tokio::time::sleep_until(due.into()).await;
    }
    Ok(generator.sent().clone())
}

fn show(elapsed: Duration, sent: &Sent, status: &PipelineStatus) {
    let lag: i64 = status.tasks.iter().map(|task| task.lag).sum();
    println!(
        "{:>4.0} s  {:>9} orders  {:>7.0}/s  lag {lag:>6}  latency p50 {} ms, p99 {} ms",
        elapsed.as_secs_f64(),
        sent.orders,
        sent.orders as f64 / elapsed.as_secs_f64(),
        status.latency_us.p50 / 1000,
        status.latency_us.p99 / 1000,
    );
}

/// Waits until everything that was sent went through.
async fn caught_up(running: &Pipeline, sent: &Sent) -> Result<PipelineStatus, Failure> {
    let begun = Instant::now();
    loop {
        let status = running.status();
        if let Some(reason) = status.tasks.iter().find_map(|task| task.stopped.clone()) {
            return Err(reason.into());
        }
        let safe: i64 = status.tasks.iter().map(|task| task.safe).sum();
        if safe >= sent.orders as i64 {
            return Ok(status);
        }
        if begun.elapsed() > CATCH_UP {
            return Err(format!("{safe} of {} orders went through", sent.orders).into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn summary(status: &PipelineStatus, sent: &Sent) {
    println!(
        "\n{} orders sent, {} of them invalid, {} sent twice; {} items expected",
        sent.orders,
        sent.invalid,
        sent.twice,
        sent.items.values().sum::<i64>(),
    );
    println!("{:<16} {:>12} {:>14} {:>9} {:>7}", "node", "records", "bytes", "rejects", "faults");
    for node in &status.nodes {
        println!(
            "{:<16} {:>12} {:>14} {:>9} {:>7}",
            node.name, node.records, node.bytes, node.rejects, node.faults
        );
    }
    let ms = |micros: u64| micros as f64 / 1000.0;
    for (what, measured) in [
        ("from an order's time to its readable items", &status.latency_us),
        ("in the pipeline, the commit included", &status.turnaround_us),
    ] {
        println!(
            "p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms {what}",
            ms(measured.p50),
            ms(measured.p99),
            ms(measured.max),
        );
    }
    println!(
        "{:.2} us in operators an order",
        status.busy_seconds * 1e6 / sent.orders.max(1) as f64
    );
}

/// How many items each category's topic holds, as a client sees it.
async fn read_back(client: &mut Client) -> Result<BTreeMap<String, i64>, Failure> {
    let mut items = BTreeMap::new();
    for category in generator::CATEGORIES {
        let name = format!("{}{category}", pipeline::ITEMS_PREFIX);
        let Ok(topic) = client.topic(&name, false).await else { continue };
        let partitions: Vec<_> = topic.partitions.iter().map(|partition| partition.index).collect();
        let ends = client.list_offsets(&topic, &partitions, LATEST).await?;
        items.insert(category.to_owned(), ends.values().map(|end| end.0).sum());
    }
    Ok(items)
}
