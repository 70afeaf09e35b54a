//! A program with a broker and pipelines in it, as a user would write one: the process that tests
//! feed, look into, kill and start again. It takes the arguments of `vltava serve` that the harness
//! gives, and prints the same ready line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use vltava::{Broker, Config};
use vltava_tests::numbers;

/// As in the shipped binary: a hostile array count reserves memory without touching it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Parser)]
enum Command {
    /// Run a broker and the pipelines in it.
    Serve {
        #[arg(long)]
        data_dir: PathBuf,
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        admin: SocketAddr,
        #[arg(long = "set")]
        sets: Vec<String>,
    },
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let begun = Instant::now();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let Command::Serve { data_dir, listen, admin, sets } = Command::parse();
    let mut config = Config::new().data_dir(&data_dir).listen(listen).admin(admin);
    for set in &sets {
        let (key, value) = set.split_once('=').ok_or("--set takes KEY=VALUE")?;
        config = config.set(key, value);
    }
    let broker = Broker::start(config)?;
    let pipeline = numbers::topology().run_in(&broker)?;
    println!(
        "vltava ready: kafka={} admin={} data={} node=1 ({}ms)",
        broker.kafka_addr(),
        broker.admin_addr().map_or_else(|| "off".to_owned(), |addr| addr.to_string()),
        data_dir.display(),
        begun.elapsed().as_millis()
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        signal(SignalKind::terminate())?.recv().await;
        std::io::Result::Ok(())
    })?;
    drop(pipeline);
    broker.shutdown();
    Ok(())
}
