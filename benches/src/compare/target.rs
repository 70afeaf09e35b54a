//! The brokers that are compared, each a process with a data directory of its own.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use tempfile::TempDir;

use super::kafka::Kafka;
use super::kafka_streams::KafkaStreams;
use crate::client::Client;
use crate::dialog::Dialog;
use crate::error::{BenchError, foreign, io_error};
use crate::process::Process;
use crate::vltava::{Broker, scratch};

/// How long a broker of ours may take to start or stop a pipeline.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Apache Kafka, one KRaft node.
    Kafka,
    /// Vltava with `log.durability=page-cache`, which is Kafka's own bargain.
    PageCache,
    /// Vltava as it is by default: `log.durability=fsync`.
    Fsync,
    /// Kafka Streams, a process of its own, on Apache Kafka.
    StreamsOnKafka,
    /// Kafka Streams, a process of its own, on Vltava with `page-cache`.
    StreamsOnVltava,
    /// A pipeline of Vltava inside the broker, with `page-cache`.
    Pipeline,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: &[Self] = &[Self::Kafka, Self::PageCache, Self::Fsync];
    /// What runs pipelines.
    pub(crate) const STREAMS: &[Self] =
        &[Self::StreamsOnKafka, Self::StreamsOnVltava, Self::Pipeline];
    /// Those of the same bargain.
    pub(crate) const ALIKE: &[Self] = &[Self::Kafka, Self::PageCache];

    /// What it is called in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kafka => "Kafka",
            Self::PageCache => "Vltava page-cache",
            Self::Fsync => "Vltava fsync",
            Self::StreamsOnKafka => "Kafka Streams on Kafka",
            Self::StreamsOnVltava => "Kafka Streams on Vltava",
            Self::Pipeline => "Vltava in process",
        }
    }
}

/// What is needed to start them.
#[derive(Debug)]
pub(crate) struct Tools {
    /// Our binary.
    pub(crate) vltava: PathBuf,
    /// Apache Kafka's artifacts.
    pub(crate) kafka: Kafka,
    /// Kafka Streams' artifacts, where they are needed.
    pub(crate) kafka_streams: Option<KafkaStreams>,
}

/// A running broker. Dropping it kills it and removes its data.
#[derive(Debug)]
pub(crate) struct Target {
    kind: Kind,
    running: Running,
    dir: TempDir,
}

/// A process that serves.
#[derive(Debug)]
struct Running {
    process: Process,
    address: SocketAddr,
    /// How to talk to it, where it is one of ours.
    dialog: Option<RefCell<Dialog>>,
}

/// Time that passed, and processor time that a broker took meanwhile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    /// On the clock.
    pub(crate) wall: Duration,
    /// By the broker.
    pub(crate) processor: Duration,
}

impl Spent {
    /// Seconds of the broker for a gibibyte, if the work was `bytes`.
    pub(crate) fn per_gibibyte(&self, bytes: u64) -> f64 {
        self.processor.as_secs_f64() * (1_u64 << 30) as f64 / bytes as f64
    }

    /// Megabytes a second, if the work was `bytes`.
    pub(crate) fn rate(&self, bytes: u64) -> f64 {
        bytes as f64 / 1e6 / self.wall.as_secs_f64()
    }
}

impl Target {
    /// Starts a broker on an empty directory.
    pub(crate) fn start(kind: Kind, tools: &Tools) -> Result<Self, BenchError> {
        let dir = scratch()?;
        prepare(kind, tools, dir.path())?;
        let running = launch(kind, tools, dir.path())?;
        Ok(Self { kind, running, dir })
    }

    /// Starts a broker on an empty directory; also tells when its process was started. What comes
    /// before, formatting Kafka's directory, is not counted.
    pub(crate) fn start_timed(kind: Kind, tools: &Tools) -> Result<(Self, Instant), BenchError> {
        let dir = scratch()?;
        prepare(kind, tools, dir.path())?;
        let started = Instant::now();
        let running = launch(kind, tools, dir.path())?;
        Ok((Self { kind, running, dir }, started))
    }

    /// Ends the process with `kill -9` and starts it again on the same directory; tells when.
    pub(crate) fn crash_and_restart(&mut self, tools: &Tools) -> Result<Instant, BenchError> {
        self.running.process.kill()?;
        let started = Instant::now();
        self.running = launch(self.kind, tools, self.dir.path())?;
        Ok(started)
    }

    /// What it is.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Its process.
    pub(crate) fn process(&self) -> &Process {
        &self.running.process
    }

    /// Says a line to a broker that runs pipelines, and waits for its answer.
    pub(crate) fn ask(&self, line: &str, answer: &str) -> Result<(), BenchError> {
        let dialog = self.running.dialog.as_ref().ok_or(BenchError::Malformed("a command"))?;
        let asked = dialog.borrow_mut().ask(line, answer, ANSWER_WITHIN);
        asked.map_err(|error| foreign(self.kind.name())(error))
    }

    /// Where it serves Kafka's protocol.
    pub(crate) fn address(&self) -> SocketAddr {
        self.running.address
    }

    /// The same for foreign clients.
    pub(crate) fn bootstrap(&self) -> String {
        self.address().to_string()
    }

    /// Where its data lies.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A connection.
    pub(crate) fn client(&self) -> Result<Client, BenchError> {
        Client::connect(self.address())
    }

    /// Does `work` and tells what it took.
    pub(crate) fn spent<T>(
        &self,
        work: impl FnOnce() -> Result<T, BenchError>,
    ) -> Result<(T, Spent), BenchError> {
        let process = self.process();
        let (before, started) = (process.processor_time()?, Instant::now());
        let done = work()?;
        let wall = started.elapsed();
        let processor = process.processor_time()?.saturating_sub(before);
        Ok((done, Spent { wall, processor }))
    }

    /// Waits until nothing written earlier is still on its way to the disk, so that no run pays
    /// for the one before.
    pub(crate) fn settle(&self) -> Result<(), BenchError> {
        let dir = self.dir.path();
        let open = rustix::fs::open(dir, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
        let synced = open.and_then(rustix::fs::syncfs);
        synced.map_err(|error| io_error("cannot sync the file system")(error.into()))
    }
}

fn prepare(kind: Kind, tools: &Tools, dir: &Path) -> Result<(), BenchError> {
    match kind {
        Kind::Kafka | Kind::StreamsOnKafka => tools.kafka.format(dir),
        Kind::PageCache | Kind::Fsync | Kind::StreamsOnVltava | Kind::Pipeline => Ok(()),
    }
}

fn launch(kind: Kind, tools: &Tools, dir: &Path) -> Result<Running, BenchError> {
    let plain = |durability| Broker::start(&tools.vltava, dir, &[durability]);
    let broker = match kind {
        Kind::Kafka | Kind::StreamsOnKafka => {
            let (process, address) = tools.kafka.start(dir)?;
            return Ok(Running { process, address, dialog: None });
        }
        Kind::PageCache | Kind::StreamsOnVltava => plain("log.durability=page-cache")?,
        Kind::Fsync => plain("log.durability=fsync")?,
        Kind::Pipeline => Broker::start_embedded(dir)?,
    };
    let address = broker.address();
    let (process, dialog) = broker.into_parts();
    Ok(Running { process, address, dialog: Some(RefCell::new(dialog)) })
}
