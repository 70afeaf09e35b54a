//! A broker inside another program: for tests, for tools, for pipelines that bring their own log.
//!
//! ```text
//! caller ── Broker::start ──> thread "vltava" ── own runtime ── Node: listener, logs, flusher …
//!        <───── ready ──────        │
//!        ── drop, shutdown ──>      └─ closes the logs, ends the runtime, removes a temporary directory
//! ```
//!
//! The broker runs on a runtime of its own, behind a thread of its own, so it does not matter whether
//! the caller is inside a runtime, of which kind, or in none: dropping a [`Broker`] joins that thread
//! and depends on nothing that the caller would have to keep turning. Everything is the thread's,
//! the temporary directory too: a start that its caller has given up cleans up behind itself.
//!
//! Clients connect over TCP, as to any broker; what is linked in here is the whole broker, not a
//! double of it. The binary runs on an allocator that reserves without committing; a program that
//! lets strangers connect should use one too.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::{self, Runtime};
use tokio::sync::oneshot;
use vltava_protocol::ids::NodeId;

use crate::config::broker::{BrokerConfig, Flags, HostPort};
use crate::config::key::ConfigError;
use crate::config::settings::{Settings, SettingsError};
use crate::connection::DRAIN_MS_MAX;
use crate::node::{Node, RunningNode, StartError};

/// How long answers may take to leave when a [`Broker`] is dropped.
const DROP_PATIENCE: Duration = Duration::from_millis(200);
/// The directory of the data in a temporary one.
const DATA: &str = "data";
/// The node's id, unless it is told another.
const NODE_ID: NodeId = NodeId(1);

/// A broker of this process. Any number may run side by side.
///
/// Dropping it closes its connections and logs, ends its threads and removes its directory if that
/// was a temporary one. [`Broker::shutdown`] does the same and lets clients have the answers to what
/// they have asked.
///
/// # Example
///
/// ```
/// use std::collections::BTreeMap;
/// use std::time::Duration;
///
/// use vltava::Broker;
/// use vltava::client::{Client, Outgoing};
/// use vltava_protocol::ids::{Offset, PartitionIndex, Timestamp};
/// use vltava_protocol::record::Codec;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = Broker::ephemeral()?;
/// let mut client = Client::connect(&broker.bootstrap(), Duration::from_secs(10)).await?;
/// let topic = client.topic("rivers", true).await?; // created, since it is not there yet
///
/// let record = Outgoing {
///     partition: PartitionIndex(0),
///     key: Some("prague".into()),
///     value: Some("vltava".into()),
///     headers: Vec::new(),
///     timestamp: Timestamp(1_700_000_000_000),
/// };
/// let sent = client.produce(&topic, &[record], Codec::None, -1, 1).await?;
/// assert_eq!(sent[0].base_offset, Some(Offset(0)));
///
/// let mut positions = BTreeMap::from([(PartitionIndex(0), Offset(0))]);
/// let consumed = client.fetch(&topic, &mut positions, Duration::from_millis(500)).await?;
/// assert_eq!(consumed.records[0].value.as_deref(), Some(&b"vltava"[..]));
/// assert_eq!(positions[&PartitionIndex(0)], Offset(1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Broker {
    node: Arc<Node>,
    kafka_addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    runtime: runtime::Handle,
    /// Present until the broker ends: how long answers may take then.
    end: Option<oneshot::Sender<Duration>>,
    thread: Option<JoinHandle<()>>,
}

/// What a [`Broker`] is told: by default a temporary directory, a free port of the loopback address,
/// no admin listener, and the defaults of every key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    data_dir: Option<PathBuf>,
    listen: SocketAddr,
    advertise: Option<HostPort>,
    admin: Option<SocketAddr>,
    node_id: NodeId,
    workers: Option<usize>,
    sets: Vec<String>,
}

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// A key or its value is wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Keys contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No temporary directory, thread or runtime is to be had.
    #[error("cannot set up the broker: {0}")]
    SetUp(#[source] std::io::Error),
    /// The node did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The broker's thread ended before it was ready: a defect, which its panic told.
    #[error("the broker's thread panicked")]
    Panicked,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: None,
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            advertise: None,
            admin: None,
            node_id: NODE_ID,
            workers: None,
            sets: Vec::new(),
        }
    }
}

impl Config {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps the data in `path`, which is created if it is missing and stays when the broker ends.
    #[must_use]
    pub fn data_dir(self, path: impl Into<PathBuf>) -> Self {
        Self { data_dir: Some(path.into()), ..self }
    }

    /// Listens for Kafka clients on `addr`; port 0 takes a free one.
    #[must_use]
    pub fn listen(self, addr: SocketAddr) -> Self {
        Self { listen: addr, ..self }
    }

    /// Tells clients to connect to `host` and `port`, if that is not where the broker listens.
    #[must_use]
    pub fn advertise(self, host: &str, port: u16) -> Self {
        Self { advertise: Some((host.to_owned(), port)), ..self }
    }

    /// Serves metrics and health over HTTP on `addr`; port 0 takes a free one.
    #[must_use]
    pub fn admin(self, addr: SocketAddr) -> Self {
        Self { admin: Some(addr), ..self }
    }

    /// The id of the node, 0 or more; 1 by default. A directory remembers whose it is.
    #[must_use]
    pub fn node_id(self, id: i32) -> Self {
        Self { node_id: NodeId(id), ..self }
    }

    /// The threads that serve connections, at least 1; by default as many as there are cores.
    #[must_use]
    pub fn workers(self, threads: usize) -> Self {
        Self { workers: Some(threads.max(1)), ..self }
    }

    /// The threads that run pipelines, at least 1; by default as many as there are cores. The key
    /// `streams.threads`.
    #[must_use]
    pub fn stream_threads(self, threads: usize) -> Self {
        self.set("streams.threads", &threads.max(1).to_string())
    }

    /// The percent of its time that each of these threads may use a core, 1 to 100; by default 100.
    /// The key `streams.cpu.percent`; the other keys `streams.*` bound what a task holds.
    #[must_use]
    pub fn stream_cpu_percent(self, percent: u8) -> Self {
        self.set("streams.cpu.percent", &percent.to_string())
    }

    /// Sets a key of the broker by Kafka's name for it, as `--set` does. The last value of a key
    /// wins; a key or value that is wrong is refused at the start.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.sets.push(format!("{key}={value}"));
        self
    }

    /// The values of a run, with the data in `data_dir`.
    fn read(&self, data_dir: &Path) -> Result<BrokerConfig, BrokerError> {
        let flags = Flags {
            node_id: self.node_id,
            data_dir: data_dir.to_owned(),
            listen: self.listen,
            advertise: self.advertise.clone(),
            admin: self.admin,
        };
        let settings = Settings::collect(None, [], &self.sets)?.settings;
        Ok(BrokerConfig::new(flags, settings)?)
    }
}

impl Broker {
    /// A broker for a test: a temporary directory, a free port, ready in tens of milliseconds.
    /// Nothing of it survives, so nothing is synced: `log.durability` is `page-cache`.
    pub fn ephemeral() -> Result<Self, BrokerError> {
        Self::start(Config::new().set("log.durability", "page-cache"))
    }

    /// Starts a broker and waits until clients can connect. May be called anywhere; in a runtime it
    /// keeps its worker for tens of milliseconds, which [`Broker::start_async`] does not.
    pub fn start(config: Config) -> Result<Self, BrokerError> {
        let (ready, told) = mpsc::sync_channel(1);
        let thread = spawn(config, move |outcome| drop(ready.try_send(outcome)))?;
        Self::of(thread, told.recv().unwrap_or(Err(BrokerError::Panicked)))
    }

    /// Starts a broker; completes when clients can connect. Runs in any runtime. When it is dropped
    /// before that, the broker ends by itself.
    pub async fn start_async(config: Config) -> Result<Self, BrokerError> {
        let (ready, told) = oneshot::channel();
        let thread = spawn(config, move |outcome| drop(ready.send(outcome)))?;
        Self::of(thread, told.await.unwrap_or(Err(BrokerError::Panicked)))
    }

    fn of(
        thread: JoinHandle<()>,
        outcome: Result<Ready, BrokerError>,
    ) -> Result<Self, BrokerError> {
        match outcome {
            Ok(Ready { node, kafka_addr, admin_addr, runtime, end }) => Ok(Self {
                node,
                kafka_addr,
                admin_addr,
                runtime,
                end: Some(end),
                thread: Some(thread),
            }),
            Err(error) => {
                let _ = thread.join();
                Err(error)
            }
        }
    }

    /// The address of the Kafka listener, with the real port.
    pub fn kafka_addr(&self) -> SocketAddr {
        self.kafka_addr
    }

    /// `HOST:PORT` of the Kafka listener, as clients' `bootstrap.servers` wants it.
    pub fn bootstrap(&self) -> String {
        self.kafka_addr.to_string()
    }

    /// The address of the admin listener, if there is one.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// Where the data lies.
    pub fn data_dir(&self) -> &Path {
        &self.node.config.flags.data_dir
    }

    /// The node inside, for what runs beside its partitions in this process.
    #[doc(hidden)]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The runtime that the node runs on. It ends with the broker, which must not be dropped on it.
    #[doc(hidden)]
    pub fn runtime(&self) -> &runtime::Handle {
        &self.runtime
    }

    /// Ends it as dropping does, but lets clients have the answers to what they have asked.
    pub fn shutdown(mut self) {
        self.finish(Duration::from_millis(DRAIN_MS_MAX));
    }

    fn finish(&mut self, patience: Duration) {
        if let Some(end) = self.end.take() {
            let _ = end.send(patience);
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the broker's thread panicked");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.finish(DROP_PATIENCE);
    }
}

/// What the thread tells of a broker that is ready.
struct Ready {
    node: Arc<Node>,
    kafka_addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    runtime: runtime::Handle,
    end: oneshot::Sender<Duration>,
}

/// Starts the broker's thread; `ready` is called once.
fn spawn(
    config: Config,
    ready: impl FnOnce(Result<Ready, BrokerError>) + Send + 'static,
) -> Result<JoinHandle<()>, BrokerError> {
    let work = move || match start(&config) {
        Err(error) => ready(Err(error)),
        Ok(Started { runtime, running, scratch }) => {
            let (end, ended) = oneshot::channel();
            ready(Ok(Ready {
                node: running.node(),
                kafka_addr: running.kafka_addr(),
                admin_addr: running.admin_addr(),
                runtime: runtime.handle().clone(),
                end,
            }));
            runtime.block_on(async {
                // Nobody there to tell the end: nobody there who would wait for answers.
                let patience = ended.await.unwrap_or(DROP_PATIENCE);
                running.shutdown_within(patience).await;
            });
            drop(runtime);
            if let Some(Err(error)) = scratch.map(TempDir::close) {
                tracing::warn!(%error, "the broker's temporary directory stays");
            }
        }
    };
    std::thread::Builder::new().name("vltava".to_owned()).spawn(work).map_err(BrokerError::SetUp)
}

/// A running node with what it needs. Fields are dropped in this order: the runtime's threads are
/// joined before the directory goes.
struct Started {
    running: RunningNode,
    runtime: Runtime,
    scratch: Option<TempDir>,
}

fn start(config: &Config) -> Result<Started, BrokerError> {
    let scratch = match &config.data_dir {
        Some(_) => None,
        None => Some(TempDir::with_prefix("vltava-").map_err(BrokerError::SetUp)?),
    };
    let of_scratch = scratch.as_ref().map(|scratch| scratch.path().join(DATA));
    let data_dir = config.data_dir.clone().or(of_scratch).expect("one or the other is there");
    let values = config.read(&data_dir)?;
    let mut builder = runtime::Builder::new_multi_thread();
    if let Some(workers) = config.workers {
        builder.worker_threads(workers);
    }
    let runtime =
        builder.thread_name("vltava-worker").enable_all().build().map_err(BrokerError::SetUp)?;
    let running = runtime.block_on(Node::start(values))?;
    Ok(Started { running, runtime, scratch })
}

#[cfg(test)]
mod tests;
