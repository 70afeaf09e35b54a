//! A running node: opens the disk, starts the threads that do not wait for each other, and wires
//! what the handlers see.
//!
//! Starting writes nothing before everything that can be refused was asked: the ports are bound
//! and the directory is locked first. Stopping closes the logs and marks the directory clean, so
//! that the next start knows that no page-cache topic lost its tail.
//!
//! ```text
//! liveness  one thread: ticks                       touches no file
//! disk      one thread: flush rounds                the only one that syncs
//!           one thread: early write-back           waits for a busy disk, nobody for it
//! data      tokio's workers: connections, admin     appends are plain calls under a short lock
//! ```

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vltava_protocol::ids::{NodeId, PartitionIndex, TopicId, TopicName, TopicPartition};
use vltava_storage::disk::Disk;
use vltava_storage::disk::mapped::{DirLock, LockError, MappedDisk};
use vltava_storage::flush::FlushItem;
use vltava_storage::flusher::{FlushError, FlushQueue, Flusher};
use vltava_storage::ids::ReplicaId;
use vltava_storage::node::NodeState;
use vltava_storage::wal::{self, WalConfig, WalError};

use crate::admin;
use crate::clock::Clock;
use crate::config::broker::BrokerConfig;
use crate::config::topic::TopicConfig;
use crate::connection::DRAIN_MS_MAX;
use crate::controller::service::{ApplyError, ControlError, Controller};
use crate::coordinator::groups::Groups;
use crate::handlers;
use crate::metrics::{Metrics, RaftMetrics};
use crate::partition::{Identity, Partition, Waiter};
use crate::partitions::{Found, OpenError, Partitions, Storage};
use crate::pipelines::Pipelines;
use crate::room::Room;
use crate::server::{self, Server};
use crate::write_back::{WriteBackPart, WritingBack};

/// The replica of group 0 that a cluster begins with.
const GROUP_ZERO_REPLICA: ReplicaId = ReplicaId(1);
/// What group 0's log is called in log lines; it is no topic.
const GROUP_ZERO_NAME: &str = "__cluster_metadata";
/// One tick of the groups' clocks.
const TICK: Duration = Duration::from_millis(100);
/// Pause before a flush round that could not write is tried again.
const FLUSH_RETRY: Duration = Duration::from_millis(200);
/// Parts of files that may wait for the kernel to be asked to write them, 4 MiB and more each: more
/// than appends leave before they wait.
const WRITE_BACK_PARTS_MAX: usize = 512;
/// Stands in for the kernel's boot id in tests of power cuts.
pub const BOOT_ID_VARIABLE: &str = "VLTAVA_BOOT_ID";
/// How long a start waits for group 0 to elect its leader.
const GROUP_ZERO_WAIT: Duration = Duration::from_secs(30);

/// Why a node did not start. Each is one line for a person.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port is in use, or not ours to take.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Clients would be told to connect to every address, which is none.
    #[error("--listen {0} needs --advertise HOST:PORT: nobody can connect to that address")]
    Unroutable(SocketAddr),
    /// Another broker uses the directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The directory cannot be used.
    #[error("cannot use the data directory {}: {source}", dir.display())]
    Disk {
        /// Which.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The write-ahead files cannot be recovered.
    #[error("cannot recover the write-ahead files: {0}")]
    Wal(#[from] WalError),
    /// The directory belongs to another node.
    #[error("the data directory belongs to node {found}, not to node {configured}")]
    OtherNode {
        /// Whose it is.
        found: i32,
        /// Who was started.
        configured: i32,
    },
    /// Group 0 could not be put into service.
    #[error("cannot open the cluster's metadata log: {0}")]
    GroupZero(#[from] OpenError),
    /// Group 0 found no leader, or what it holds could not be applied.
    #[error("cannot read the cluster's metadata: {0}")]
    Metadata(#[from] ApplyError),
    /// The node could not register itself.
    #[error("cannot register with the cluster: {0}")]
    Register(#[from] ControlError),
    /// Group 0 has no leader.
    #[error("the cluster's metadata log has no leader after {0:?}")]
    NoController(Duration),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// What every request handler may use.
#[derive(Debug)]
pub struct Node {
    /// The configuration that the node was started with.
    pub config: Arc<BrokerConfig>,
    /// The wall clock.
    pub clock: Arc<Clock>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The partitions that live here.
    pub partitions: Arc<Partitions>,
    /// The cluster's metadata.
    pub controller: Arc<Controller>,
    /// The coordinator of the groups whose partitions this node leads.
    pub groups: Arc<Groups>,
    /// The pipelines that run in this process.
    pub pipelines: Arc<Pipelines>,
    /// The cluster's id.
    pub cluster_id: String,
    /// This node's id.
    pub node_id: NodeId,
    /// Where clients are told to connect.
    pub advertised: (String, u16),
}

/// A node, and what must be ended when it stops.
#[derive(Debug)]
pub struct RunningNode {
    node: Arc<Node>,
    server: Server,
    admin: Option<admin::AdminServer>,
    housekeeper: Housekeeper,
    threads: Threads,
    _lock: DirLock,
}

/// The node's own threads. Dropping it ends and joins them: nothing writes to the directory once
/// its lock is released, also when a start fails half-way.
#[derive(Debug)]
struct Threads {
    stop: Arc<AtomicBool>,
    /// All logs were closed: the disk may be marked clean.
    is_whole: Arc<AtomicBool>,
    queue: Arc<FlushQueue>,
    flusher: Option<JoinHandle<()>>,
    /// Ends when the flusher has, which has the other end of its channel.
    write_back: Option<JoinHandle<()>>,
    ticker: Option<JoinHandle<()>>,
}

impl Threads {
    /// Ends them in order: no tick meets a closed log, no log is open when the flusher ends.
    fn close(mut self, partitions: &Partitions) {
        self.end_ticker();
        self.is_whole.store(partitions.close(), Ordering::Relaxed);
    }

    fn end_ticker(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(ticker) = self.ticker.take() {
            let _ = ticker.join();
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.end_ticker();
        self.queue.close();
        for thread in [self.flusher.take(), self.write_back.take()].into_iter().flatten() {
            let _ = thread.join();
        }
    }
}

impl Node {
    /// Starts a node. When this returns, clients can connect.
    pub async fn start(config: BrokerConfig) -> Result<RunningNode, StartError> {
        let config = Arc::new(config);
        let flags = &config.flags;
        if flags.listen.ip().is_unspecified() && flags.advertise.is_none() {
            return Err(StartError::Unroutable(flags.listen));
        }
        let listener = listen(flags.listen)?;
        let admin_listener = flags.admin.map(listen).transpose()?;
        let kafka_addr = listener
            .local_addr()
            .map_err(|source| StartError::Listen { addr: flags.listen, source })?;
        let advertised = flags
            .advertise
            .clone()
            .unwrap_or_else(|| (kafka_addr.ip().to_string(), kafka_addr.port()));
        let disk = MappedDisk::open(&flags.data_dir)
            .map_err(|source| StartError::Disk { dir: flags.data_dir.clone(), source })?;
        let lock = DirLock::acquire(&flags.data_dir)?;
        let opened = OpenedDisk::open(disk, flags.node_id)?;

        let clock = Arc::new(Clock::default());
        let metrics = Arc::new(Metrics::new(handlers::name_of));
        let partitions = Arc::new(Partitions::new(
            flags.node_id,
            config.clone(),
            opened.storage.clone(),
            metrics.raft.clone(),
        ));
        let threads =
            Threads::spawn(opened.flusher, &opened.storage, &partitions, metrics.clone())?;

        let group_zero =
            open_group_zero(&opened.storage, &partitions, flags.node_id, metrics.raft.clone())?;
        wait_for_leader(&group_zero).await?;
        let controller = Arc::new(Controller::new(
            group_zero,
            partitions.clone(),
            clock.clone(),
            config.clone(),
        ));
        controller.catch_up()?;
        let cluster_id = controller.register(&opened.cluster_id, &advertised).await?;
        opened.storage.delete_unclaimed();
        // While a replica could not be opened, and so not be marked, the old boot id stays: else
        // its next start would not know that it may have lost a tail.
        if !opened.storage.has_failed() {
            opened.storage.queue.push(vec![FlushItem::Node(NodeState {
                node_id: flags.node_id.0,
                cluster_id: cluster_id.clone(),
                boot_id: opened.boot_id,
                clean: false,
            })]);
        }

        let groups = Groups::new(partitions.clone(), &clock, &config);
        groups.observe(&controller);
        let pipelines = Arc::new(Pipelines::new(&config));
        pipelines.observe(&controller);
        let housekeeper =
            spawn_housekeeper(&config, partitions.clone(), groups.clone(), clock.clone());
        let node = Arc::new(Self {
            node_id: flags.node_id,
            clock,
            metrics: metrics.clone(),
            partitions,
            controller,
            groups,
            pipelines,
            cluster_id,
            advertised,
            config: config.clone(),
        });
        let server = handlers::serve(listener, node.clone()).map_err(StartError::Thread)?;
        let admin = match admin_listener {
            Some(listener) => Some(
                admin::AdminServer::start(listener, node.clone()).map_err(StartError::Thread)?,
            ),
            None => None,
        };
        Ok(RunningNode { node, server, admin, housekeeper, threads, _lock: lock })
    }
}

impl RunningNode {
    /// The address of the Kafka listener, with the real port.
    pub fn kafka_addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// The address of the admin listener, if there is one.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(admin::AdminServer::addr)
    }

    /// What the handlers see.
    pub fn node(&self) -> Arc<Node> {
        self.node.clone()
    }

    /// Stops in order: no new requests, answers to the old ones, closed logs, a clean mark.
    pub async fn shutdown(self) {
        self.shutdown_within(Duration::from_millis(DRAIN_MS_MAX)).await;
    }

    /// Stops in order, and gives the answers to what has begun no more time than `patience`.
    pub async fn shutdown_within(self, patience: Duration) {
        let Self { node, server, admin, housekeeper, threads, _lock } = self;
        server.shutdown_within(patience).await;
        if let Some(admin) = admin {
            admin.shutdown().await;
        }
        drop(housekeeper);
        let pipelines = node.pipelines.clone();
        if let Err(failure) = tokio::task::spawn_blocking(move || pipelines.close()).await {
            tracing::error!(%failure, "the pipelines did not end in order");
        }
        node.groups.runtime().shutdown().await;
        let ending = tokio::task::spawn_blocking(move || threads.close(&node.partitions));
        if let Err(failure) = ending.await {
            tracing::error!(%failure, "the node did not stop in order");
        }
    }
}

/// A disk whose write-ahead files are recovered.
struct OpenedDisk {
    storage: Arc<Storage>,
    flusher: Flusher,
    cluster_id: String,
    boot_id: String,
}

impl OpenedDisk {
    fn open(disk: Arc<dyn Disk>, node: NodeId) -> Result<Self, StartError> {
        let (salt, _) = uuid::Uuid::new_v4().as_u64_pair();
        let recovered = wal::recover(disk.clone(), WalConfig { salt, ..WalConfig::default() })?;
        let boot_id = boot_id();
        let former = recovered.node.clone().unwrap_or_default();
        let is_new = former.cluster_id.is_empty() && recovered.replicas.is_empty();
        if !is_new && former.node_id != node.0 && !former.cluster_id.is_empty() {
            return Err(StartError::OtherNode { found: former.node_id, configured: node.0 });
        }
        let lost_memory = !is_new && !former.clean && former.boot_id != boot_id;
        if lost_memory {
            tracing::warn!("the operating system stopped without the broker being stopped first");
        }
        let cluster_id = match former.cluster_id.as_str() {
            "" => TopicId(uuid::Uuid::new_v4()).to_string(),
            known => known.to_owned(),
        };
        let queue = Arc::new(FlushQueue::default());
        let room = Room::new(queue.clone());
        let found = Found {
            replicas: recovered.replicas.clone(),
            durable: recovered.durable.clone(),
            lost_memory,
            ..Found::default()
        };
        let flusher = Flusher::new(recovered, disk.clone(), queue.clone());
        // Until every page-cache replica is durably marked as abstaining, the old boot id stays:
        // else a second crash would hide the first.
        queue.push(vec![FlushItem::Node(NodeState {
            node_id: node.0,
            cluster_id: cluster_id.clone(),
            boot_id: if lost_memory { former.boot_id } else { boot_id.clone() },
            clean: false,
        })]);
        let storage = Arc::new(Storage::new(disk, queue, room, found));
        Ok(Self { storage, flusher, cluster_id, boot_id })
    }
}

/// The kernel's boot id: it changes when the operating system does, and with it the page cache.
fn boot_id() -> String {
    let kernel = || std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    std::env::var(BOOT_ID_VARIABLE).unwrap_or_else(|_| kernel()).trim().to_owned()
}

fn listen(addr: SocketAddr) -> Result<tokio::net::TcpListener, StartError> {
    server::bind(addr).map_err(|source| StartError::Listen { addr, source })
}

fn open_group_zero(
    storage: &Storage,
    partitions: &Partitions,
    node: NodeId,
    metrics: RaftMetrics,
) -> Result<Arc<Partition>, StartError> {
    let config = TopicConfig::of_metadata();
    let replica =
        storage.open(GROUP_ZERO_REPLICA, &[GROUP_ZERO_REPLICA], config.log_config(i64::MAX))?;
    let identity = Identity {
        tp: TopicPartition {
            topic: TopicName::from(GROUP_ZERO_NAME),
            partition: PartitionIndex(0),
        },
        topic_id: TopicId::ZERO,
        replica: GROUP_ZERO_REPLICA,
        nodes: vec![(GROUP_ZERO_REPLICA, node)],
    };
    let room = storage.room.clone();
    let partition = Partition::new(identity, Arc::new(config), replica, room, metrics);
    partitions.insert_group(partition.clone());
    partition.start();
    Ok(partition)
}

async fn wait_for_leader(group_zero: &Arc<Partition>) -> Result<(), StartError> {
    let waiter = Waiter::new();
    group_zero.watch(&waiter);
    let confirmed = async {
        while !group_zero.leadership().confirmed {
            waiter.notified().await;
        }
    };
    tokio::time::timeout(GROUP_ZERO_WAIT, confirmed)
        .await
        .map_err(|_| StartError::NoController(GROUP_ZERO_WAIT))
}

impl Threads {
    fn spawn(
        flusher: Flusher,
        storage: &Storage,
        partitions: &Arc<Partitions>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let (stop, is_whole) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (write_back, parts) = mpsc::sync_channel(WRITE_BACK_PARTS_MAX);
        let flushing = Flushing {
            flusher,
            write_back,
            queue: storage.queue.clone(),
            room: storage.room.clone(),
            partitions: partitions.clone(),
            metrics,
            stop: stop.clone(),
            is_whole: is_whole.clone(),
        };
        let flusher = thread("flusher", move || flushing.run())?;
        let queue = storage.queue.clone();
        let flusher = Some(flusher);
        let mut threads = Self { stop, is_whole, queue, flusher, write_back: None, ticker: None };
        let on_failure = {
            let partitions = partitions.clone();
            move || partitions.on_disk_failed()
        };
        let (queue, room) = (storage.queue.clone(), storage.room.clone());
        let writing = WritingBack { parts, queue, room, on_failure };
        threads.write_back = Some(thread("write-back", move || writing.run())?);
        let (partitions, stop) = (partitions.clone(), threads.stop.clone());
        threads.ticker = Some(thread("ticker", move || tick(&partitions, &stop))?);
        Ok(threads)
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(StartError::Thread)
}

/// What the flusher's thread works with.
struct Flushing {
    flusher: Flusher,
    /// To a thread of its own, since asking the kernel waits while the disk is busy. Bounded; what
    /// does not fit the kernel writes in its own time.
    write_back: mpsc::SyncSender<WriteBackPart>,
    queue: Arc<FlushQueue>,
    room: Arc<Room>,
    partitions: Arc<Partitions>,
    metrics: Arc<Metrics>,
    stop: Arc<AtomicBool>,
    is_whole: Arc<AtomicBool>,
}

impl Flushing {
    fn run(mut self) {
        while self.queue.wait() {
            let goes_on = self.round();
            for part in self.flusher.take_write_back() {
                let bytes = part.1.end - part.1.start;
                if self.write_back.try_send(part).is_err() {
                    self.queue.written_back(bytes);
                }
            }
            self.room.freed();
            if !goes_on {
                return;
            }
        }
        if !self.is_whole.load(Ordering::Relaxed) {
            tracing::warn!("not all logs could be closed: the disk is not marked clean");
        } else if let Err(error) = self.flusher.shutdown() {
            tracing::error!(%error, "the disk could not be marked clean");
        }
    }

    /// One round; whether there may be another.
    fn round(&mut self) -> bool {
        let begun = Instant::now();
        match self.flusher.round() {
            Ok(round) => {
                for (replica, ticket) in &round.completed {
                    if let Some(partition) = self.partitions.by_replica(*replica) {
                        partition.on_durable(*ticket);
                    }
                }
                let metrics = &self.metrics.flush;
                metrics.rounds.inc();
                metrics.items.inc_by(round.stats.items);
                metrics.bytes.inc_by(round.stats.wal_bytes);
                metrics.duration.observe(begun.elapsed());
                true
            }
            Err(error @ FlushError::Write { .. }) if self.stop.load(Ordering::Relaxed) => {
                tracing::error!(%error, "the last flush round could not write");
                false
            }
            Err(error @ FlushError::Write { .. }) => {
                tracing::error!(%error, "a flush round could not write, it is tried again");
                std::thread::sleep(FLUSH_RETRY);
                true
            }
            Err(error) => {
                tracing::error!(%error, "the disk is out of service until the next start");
                self.partitions.on_disk_failed();
                false
            }
        }
    }
}

fn tick(partitions: &Partitions, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(TICK);
        for partition in partitions.ticking() {
            partition.tick();
        }
    }
}

/// The task of retention; dropping it ends it.
#[derive(Debug)]
struct Housekeeper(tokio::task::JoinHandle<()>);

impl Drop for Housekeeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn spawn_housekeeper(
    config: &BrokerConfig,
    partitions: Arc<Partitions>,
    groups: Arc<Groups>,
    clock: Arc<Clock>,
) -> Housekeeper {
    let every = Duration::from_millis(config.log_retention_check_interval_ms.unsigned_abs());
    Housekeeper(tokio::spawn(async move {
        let mut interval = tokio::time::interval(every);
        loop {
            interval.tick().await;
            let (partitions, groups, now) = (partitions.clone(), groups.clone(), clock.now());
            let work = tokio::task::spawn_blocking(move || {
                partitions.housekeep(now);
                groups.runtime().housekeep();
            });
            if let Err(failure) = work.await {
                tracing::error!(%failure, "housekeeping failed");
            }
        }
    }))
}
