//! A whole cluster in one thread: nodes, disks, network, clients and time, driven by one seed.
//!
//! A node runs the product's own code: `wal::recover`, [`PartitionLog`], [`Flusher`] and
//! [`Replica`], over a [`SimDisk`]; only its loops are the world's. Everything that happens is an
//! event at a virtual time: a tick, a flush round, the arrival of a frame, a planned action. What an
//! event does outside of its node (messages, acknowledgements) leaves at its end, and not at all if
//! the power failed at one of its disk operations.
//!
//! **Invariant:** no clock, thread or hash order decides anything: one seed, one history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vltava::peers::codec::{BootFilter, PeerFrame, decode, encode};
use vltava::replica::group::Fetch;
use vltava::replica::message::PeerMessage;
use vltava::replica::pending::Pending;
use vltava::replica::shell::{Output, Replica};
use vltava_protocol::ids::LeaderEpoch;
use vltava_storage::disk::sim::{Failed, SimDisk};
use vltava_storage::flusher::{FlushQueue, Flusher};
use vltava_storage::ids::{LogIndex, ReplicaId};
use vltava_storage::log::{Durability, LogConfig, PartitionLog};
use vltava_storage::paths::replica_dir;
use vltava_storage::slice::LogSlice;
use vltava_storage::state::Membership;
use vltava_storage::wal::WalConfig;

use self::memberships::{Memberships, has_quorum};
use self::planned::PlannedFault;
use crate::checker::{Stake, Truth, Violation, violated};
use crate::cluster::{Cluster, GroupId};
use crate::coverage::Coverage;
use crate::network::{Network, NodeId, Time};
use crate::plan::Action;
use crate::workload::{Producer, Token};

mod clients;
mod ending;
mod faults;
pub(crate) mod hands;
mod memberships;
mod node;
mod planned;
mod status;

/// Virtual microseconds between two ticks of a node whose clock is right.
pub const TICK: Time = 1000;

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How many nodes.
    pub nodes: usize,
    /// The groups: where they live at first, and their contract.
    pub groups: Vec<(Vec<NodeId>, Durability)>,
    /// Size of a segment, small, so that logs roll all the time.
    pub segment_bytes: u64,
    /// Size of a file of the write-ahead set, small, so that files are recycled all the time.
    pub wal_bytes: u64,
    /// Bytes of entries in one message to a follower, small, so that logs grow in pieces.
    pub append_bytes_max: u64,
    /// Writes up to this size go through the write-ahead set.
    pub write_bytes_max: u64,
    /// Seed of everything that is decided while the world runs.
    pub seed: u64,
}

impl Setup {
    fn log_config(&self, durability: Durability) -> LogConfig {
        LogConfig {
            segment_bytes: self.segment_bytes,
            index_interval_bytes: 200,
            durability,
            ..LogConfig::default()
        }
    }

    fn wal_config(&self) -> WalConfig {
        WalConfig {
            first_file_bytes: self.wal_bytes,
            file_bytes: self.wal_bytes,
            files_max: 3,
            write_bytes_max: self.write_bytes_max,
            salt: self.seed,
            ..WalConfig::default()
        }
    }
}

/// A machine: its disk, and the broker on it while that runs.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) disk: SimDisk,
    /// Times that the operating system started.
    pub(crate) kernel: u64,
    /// Times that the broker started.
    pub(crate) boots: u64,
    pub(crate) broker: Option<Broker>,
    /// Microseconds between its ticks.
    pub(crate) tick: Time,
    /// No flush round begins.
    pub(crate) is_stalled: bool,
    /// Microseconds until a flush round begins, at most.
    pub(crate) flush_delay: Time,
    /// Operations of the disks that it had before, and what they were made to refuse.
    ops_before: u64,
    failed_before: Vec<Failed>,
    fault_at: Option<PlannedFault>,
    /// The power fails as soon as the disk was asked for more than so many operations.
    pub(crate) cut_at: Option<PlannedCut>,
    /// Bits were flipped below what was durable: its replicas may be fenced.
    pub(crate) is_damaged: bool,
    /// They were at some time: what left then may arrive later.
    pub(crate) was_damaged: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PlannedCut {
    pub(crate) op: u64,
    pub(crate) seed: u64,
    pub(crate) down: Time,
}

/// A broker that runs.
pub(crate) struct Broker {
    pub(crate) boot: u64,
    pub(crate) queue: Arc<FlushQueue>,
    pub(crate) flusher: Flusher,
    pub(crate) slots: BTreeMap<ReplicaId, Slot>,
    pub(crate) heard: BootFilter<NodeId>,
    is_flush_due: bool,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("boot", &self.boot).finish_non_exhaustive()
    }
}

/// A replica on a node.
pub(crate) enum Slot {
    /// Its log is there, and what it will count on is on its way to the disk.
    Opening { group: GroupId, log: Box<PartitionLog> },
    /// It takes part.
    Open(Box<Live>),
    /// Recovery refused its log.
    Refused,
}

/// A replica that takes part.
pub(crate) struct Live {
    pub(crate) group: GroupId,
    pub(crate) replica: Replica,
    /// The topic's durability as the node last heard of it.
    pub(crate) contract: Durability,
    pub(crate) pending: Pending<(Token, Durability)>,
    /// Committed batches up to here were compared with the truth.
    verified: LogIndex,
    /// It waits to begin again after a failed write.
    is_restarting: bool,
    /// Failures in its own directory that it began again after.
    failures: usize,
    fetches: Vec<Fetch>,
}

/// A leader's answer on its way to a client: that a batch is committed.
#[derive(Clone, Copy, Debug)]
struct Reply {
    /// Who answers.
    node: NodeId,
    group: GroupId,
    token: Token,
    durability: Durability,
}

/// Slices that a reader keeps, and what they were when it got them.
struct Kept {
    node: NodeId,
    kernel: u64,
    slice: LogSlice,
    bytes: Bytes,
}

#[derive(Debug)]
enum Event {
    Tick { node: NodeId, boot: u64 },
    Flush { node: NodeId, boot: u64 },
    Arrival { from: NodeId, to: NodeId, frame: Bytes },
    Fetched { node: NodeId, boot: u64, replica: ReplicaId },
    Boot { node: NodeId },
    Clients,
    Act(Box<Action>),
    Undo(Undo),
}

/// The end of a fault.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Undo {
    Disk(NodeId),
    Speed(NodeId),
    Clock(NodeId),
    Link(NodeId, NodeId),
    Weather,
    Unpromoted(GroupId),
}

/// See the module.
pub struct World {
    pub(crate) setup: Setup,
    pub(crate) now: Time,
    events: BTreeMap<(Time, u64), Event>,
    sequence: u64,
    /// Events that happened.
    pub steps: u64,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) network: Network,
    pub(crate) cluster: Cluster,
    pub(crate) machines: Vec<Machine>,
    pub(crate) truths: Vec<Truth>,
    /// The memberships of each group.
    pub(crate) memberships: Vec<Memberships>,
    /// The membership that each replica knew when it was last seen.
    pub(crate) known: BTreeMap<ReplicaId, Membership>,
    /// Groups whose learners stay learners.
    pub(crate) unpromoted: BTreeSet<GroupId>,
    /// When a group's target last changed.
    pub(crate) retargeted: Vec<Time>,
    /// Voters whose machine lost the memory of a page-cache log, until they are refilled.
    pub(crate) lossy: BTreeSet<ReplicaId>,
    pub(crate) producers: Vec<Producer>,
    next_producer_id: i64,
    kept: Vec<Kept>,
    outbox: BTreeMap<(NodeId, NodeId), Vec<PeerMessage>>,
    touched: BTreeSet<(NodeId, ReplicaId)>,
    acks: Vec<Reply>,
    violation: Option<Violation>,
    /// What happened, while somebody wants to read it.
    pub trace: Option<Vec<String>>,
    /// What the history went through.
    pub coverage: Coverage,
}

impl World {
    /// Nodes that start at once, and the groups on them.
    pub fn new(setup: Setup) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(setup.seed);
        let machine = |rng: &mut ChaCha8Rng| Machine {
            disk: SimDisk::new(rng.random()),
            kernel: 1,
            boots: 0,
            broker: None,
            tick: TICK,
            is_stalled: false,
            flush_delay: 300,
            ops_before: 0,
            failed_before: Vec::new(),
            fault_at: None,
            cut_at: None,
            is_damaged: false,
            was_damaged: false,
        };
        let machines = (0..setup.nodes).map(|_| machine(&mut rng)).collect();
        let mut world = Self {
            now: 0,
            events: BTreeMap::new(),
            sequence: 0,
            steps: 0,
            rng,
            network: Network::default(),
            cluster: Cluster::default(),
            machines,
            truths: Vec::new(),
            memberships: Vec::new(),
            known: BTreeMap::new(),
            unpromoted: BTreeSet::new(),
            retargeted: Vec::new(),
            lossy: BTreeSet::new(),
            producers: Vec::new(),
            next_producer_id: 0,
            kept: Vec::new(),
            outbox: BTreeMap::new(),
            touched: BTreeSet::new(),
            acks: Vec::new(),
            violation: None,
            trace: None,
            coverage: Coverage::default(),
            setup,
        };
        for (nodes, durability) in world.setup.groups.clone() {
            world.cluster.create(&nodes, durability);
            world.truths.push(Truth::default());
            world.memberships.push(Memberships::default());
            world.retargeted.push(0);
        }
        for node in 0..world.setup.nodes {
            world.schedule(0, Event::Boot { node });
        }
        world.schedule(TICK, Event::Clients);
        world
    }

    /// Plans an action.
    pub fn plan(&mut self, at: Time, action: Action) {
        self.schedule(at, Event::Act(Box::new(action)));
    }

    /// Everything up to `until` happens.
    pub fn run_until(&mut self, until: Time) -> Result<(), Violation> {
        while let Some(entry) = self.events.first_entry() {
            let (at, _) = *entry.key();
            if at > until {
                break;
            }
            let event = entry.remove();
            self.now = self.now.max(at);
            self.steps += 1;
            self.happen(event)?;
        }
        self.now = until;
        Ok(())
    }

    /// The present moment.
    pub fn now(&self) -> Time {
        self.now
    }

    /// A hash of every message that was ever sent.
    pub fn hash(&self) -> u64 {
        self.network.hash()
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9} {}", self.now, text()));
        }
    }

    fn schedule(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Tick { node, boot } => self.tick(node, boot),
            Event::Flush { node, boot } => self.flush(node, boot),
            Event::Arrival { from, to, frame } => self.arrive(from, to, &frame),
            Event::Fetched { node, boot, replica } => self.fetched(node, boot, replica),
            Event::Boot { node } => self.boot(node),
            Event::Clients => {
                self.clients();
                self.retire_removed();
                self.schedule(self.now + TICK, Event::Clients);
            }
            Event::Act(action) => self.act(*action),
            Event::Undo(undo) => self.undo(undo),
        }
        self.end_event()
    }

    /// Runs one call of a replica; what it says goes to the outbox.
    pub(crate) fn drive<R>(
        &mut self,
        node: NodeId,
        id: ReplicaId,
        call: impl FnOnce(&mut Replica, &mut Output) -> R,
    ) -> Option<R> {
        let broker = self.machines[node].broker.as_mut()?;
        let boot = broker.boot;
        let Some(Slot::Open(live)) = broker.slots.get_mut(&id) else { return None };
        let mut output = Output::default();
        let result = call(&mut live.replica, &mut output);
        let group = live.group;
        if !output.fetches.is_empty() {
            live.fetches.append(&mut output.fetches);
            let delay = self.rng.random_range(50..2000);
            self.schedule(self.now + delay, Event::Fetched { node, boot, replica: id });
        }
        for loss in output.losses {
            self.coverage.hit("loss announced");
            self.note(|| format!("replica {id} announces a loss past {}", loss.end_index));
            // The first to announce it is a candidate, or a voter of an intact one; it abstains no
            // longer when others vote for it, and announce the loss too.
            let has_lost = self.truths[group].may_have_lost();
            let stake = if has_lost { Stake::Records } else { self.stake(group) };
            self.check(|world| world.truths[group].on_loss_announced(loss.end_index, stake));
        }
        for message in output.messages {
            let Some((_, to)) = self.cluster.home(message.to) else { continue };
            self.outbox.entry((node, to)).or_default().push(message);
        }
        self.touched.insert((node, id));
        Some(result)
    }

    /// Keeps the first violation; the event ends with it.
    pub(crate) fn check(&mut self, check: impl FnOnce(&mut Self) -> Result<(), Violation>) {
        if self.violation.is_none() {
            self.violation = check(self).err();
        }
    }

    pub(crate) fn violate(&mut self, text: String) {
        self.violation.get_or_insert(Violation(text));
    }

    /// What may be given up where a voter of a group announces a loss.
    fn stake(&self, group: GroupId) -> Stake {
        let is_intact = |voter: &&ReplicaId| !self.lossy.contains(voter);
        let possible = self.memberships[group].possible();
        let (whole, broken): (Vec<_>, Vec<_>) =
            possible.partition(|members| has_quorum(members, is_intact));
        match (whole.is_empty(), broken.is_empty()) {
            _ if !self.cluster.groups[group].was_page_cache => Stake::Forbidden,
            (_, true) => Stake::Forbidden,
            (true, false) => Stake::Records,
            (false, false) => Stake::Nothing,
        }
    }

    pub(crate) fn end_event(&mut self) -> Result<(), Violation> {
        for node in 0..self.machines.len() {
            let machine = &self.machines[node];
            let Some(cut) = machine.cut_at else { continue };
            if machine.disk.op_count() > cut.op {
                // The power failed within this event: nothing of it left the node.
                self.coverage.hit("power cut between two disk operations");
                self.outbox.retain(|(from, _), _| *from != node);
                self.acks.retain(|reply| reply.node != node);
                self.touched.retain(|(at, _)| *at != node);
                self.power_cut(node, cut.seed, cut.down);
            }
        }
        self.end_noticed_faults();
        for (node, id) in std::mem::take(&mut self.touched) {
            self.observe(node, id);
        }
        for reply in std::mem::take(&mut self.acks) {
            self.acknowledge(reply);
        }
        for ((from, to), messages) in std::mem::take(&mut self.outbox) {
            self.send(from, to, messages);
        }
        for node in 0..self.machines.len() {
            self.schedule_flush(node);
        }
        self.violation.take().map_or(Ok(()), Err)
    }

    fn schedule_flush(&mut self, node: NodeId) {
        let Machine { flush_delay: delay, is_stalled, .. } = self.machines[node];
        if is_stalled {
            return;
        }
        let Some(broker) = &mut self.machines[node].broker else { return };
        if broker.is_flush_due || broker.queue.is_empty() {
            return;
        }
        broker.is_flush_due = true;
        let boot = broker.boot;
        let delay = self.rng.random_range(20..=delay);
        self.schedule(self.now + delay, Event::Flush { node, boot });
    }

    fn send(&mut self, from: NodeId, to: NodeId, messages: Vec<PeerMessage>) {
        let Some(broker) = &self.machines[from].broker else { return };
        let frame = PeerFrame { boot: broker.boot, messages };
        let bytes: Bytes = encode(&frame).concat().into();
        let arrivals =
            self.network.send(self.now, (from, to), &bytes, &mut self.rng, &mut self.coverage);
        if let Some(trace) = &mut self.trace {
            for message in &frame.messages {
                let PeerMessage { from: replica, to: other, term, body } = message;
                let body: String = format!("{body:?}").chars().take(300).collect();
                trace.push(format!(
                    "{:>9} {from}>{to} {replica}>{other} t{term} {body} arrives {arrivals:?}",
                    self.now
                ));
            }
        }
        for at in arrivals {
            self.schedule(at, Event::Arrival { from, to, frame: bytes.clone() });
        }
    }

    fn arrive(&mut self, from: NodeId, to: NodeId, frame: &Bytes) {
        let mut buffer = bytes::BytesMut::from(&frame[..]);
        let decoded = decode(&mut buffer);
        let Some(broker) = &mut self.machines[to].broker else {
            self.coverage.hit("frame to a node that is down");
            return;
        };
        let frame = match decoded {
            Ok(Some(frame)) => frame,
            Ok(None) => return self.violate("a frame arrived in part".to_owned()),
            Err(error) if self.machines[from].was_damaged => {
                self.coverage.hit("damage noticed by a peer");
                self.note(|| format!("node {to} refuses a frame of node {from}: {error}"));
                return;
            }
            Err(error) => return self.violate(format!("node {to}: {error} (from {from})")),
        };
        if !broker.heard.admits(from, frame.boot) {
            self.coverage.hit("frame of an earlier boot dropped");
            return;
        }
        for message in frame.messages {
            self.deliver(to, message);
        }
    }

    fn deliver(&mut self, node: NodeId, message: PeerMessage) {
        let to = message.to;
        let what = self.trace.is_some().then(|| format!("{message:?}"));
        let refused = self.drive(node, to, |replica, output| replica.step(message, output));
        if let Some(Err(error)) = refused {
            self.note(|| format!("refused: {error}: {}", what.unwrap_or_default()));
            self.coverage.hit("peer message refused");
        }
    }

    fn fetched(&mut self, node: NodeId, boot: u64, id: ReplicaId) {
        let Some(broker) = self.machines[node].broker.as_mut().filter(|b| b.boot == boot) else {
            return;
        };
        let Some(Slot::Open(live)) = broker.slots.get_mut(&id) else { return };
        let fetches = std::mem::take(&mut live.fetches);
        self.coverage.hit("cold entries fetched");
        self.drive(node, id, |replica, output| replica.on_fetched(fetches, output));
    }

    /// A replica that takes part, wherever it lives.
    pub(crate) fn live(&self, id: ReplicaId) -> Option<&Live> {
        let brokers = self.machines.iter().filter_map(|machine| machine.broker.as_ref());
        let mut slots = brokers.filter_map(|broker| broker.slots.get(&id));
        match slots.next() {
            Some(Slot::Open(live)) => Some(live),
            _ => None,
        }
    }

    /// All replicas of a group that take part, with their nodes.
    pub(crate) fn lives(&self, group: GroupId) -> Vec<(NodeId, ReplicaId, &Live)> {
        let mut lives = Vec::new();
        for (node, machine) in self.machines.iter().enumerate() {
            let Some(broker) = &machine.broker else { continue };
            for (id, slot) in &broker.slots {
                if let Slot::Open(live) = slot
                    && live.group == group
                {
                    lives.push((node, *id, &**live));
                }
            }
        }
        lives
    }

    /// Who leads in the newest epoch, as far as those who are up know.
    pub(crate) fn leader(&self, group: GroupId) -> Option<(NodeId, ReplicaId, LeaderEpoch)> {
        let lives = self.lives(group).into_iter();
        let leaders =
            lives.filter_map(|(node, id, live)| Some((node, id, live.replica.leading()?)));
        leaders.max_by_key(|(_, _, epoch)| *epoch)
    }

    /// Compares what a replica shows with the truth, and tells those who waited for it.
    fn observe(&mut self, node: NodeId, id: ReplicaId) {
        let Self { machines, truths, lossy, coverage, memberships, acks, known, .. } = self;
        let Machine { broker, disk, is_damaged, .. } = &mut machines[node];
        let (is_damaged, Some(broker)) = (*is_damaged, broker) else { return };
        let Some(Slot::Open(live)) = broker.slots.get_mut(&id) else { return };
        let truth = &mut truths[live.group];
        let is_diverged = truth.may_have_lost()
            && live.replica.fenced().is_some_and(|why| why.0.contains("lacks what was committed"));
        if is_diverged {
            // The operator replaces it.
            let group = live.group;
            coverage.hit("replica with more than the loss left was fenced");
            self.cluster.replace_replicas(group, node, &[id]);
            self.retargeted[group] = self.now;
            return;
        }
        let was_restarting = live.is_restarting;
        live.is_restarting = live.replica.log().is_some() && live.replica.group().is_none();
        if live.is_restarting && !was_restarting {
            coverage.hit("replica began again after a failed write");
            let dir = replica_dir(id);
            let failed =
                disk.failed().iter().filter(|failed| failed.path.starts_with(&dir)).count();
            if failed <= live.failures {
                let text = format!("replica {id} begins again, and nothing of its own failed");
                self.violation.get_or_insert(Violation(text));
            }
            live.failures = failed;
        }
        let group = live.group;
        let result = live.observe(id, truth, &mut memberships[group], is_damaged);
        let result = result.map(|committed| {
            acks.extend(committed.into_iter().map(|(token, durability)| Reply {
                node,
                group,
                token,
                durability,
            }));
        });
        known.insert(id, live.replica.membership());
        // Until it is durable that it abstains no longer, a restart may find that it does.
        let is_over = !live.replica.abstains() && broker.queue.is_empty();
        if is_over && lossy.remove(&id) {
            coverage.hit("lost tail refilled or given up");
        }
        if let Err(violation) = result {
            self.violation.get_or_insert(violation);
        }
    }
}

impl Live {
    /// Compares what this replica shows with the truth. Answers which batches that clients wait for
    /// are committed.
    fn observe(
        &mut self,
        id: ReplicaId,
        truth: &mut Truth,
        memberships: &mut Memberships,
        is_damaged: bool,
    ) -> Result<Vec<(Token, Durability)>, Violation> {
        if let Some(fenced) = self.replica.fenced() {
            if is_damaged {
                return Ok(Vec::new());
            }
            violated!("replica {id} was fenced: {}", fenced.0);
        }
        let Some(log) = self.replica.log() else { return Ok(Vec::new()) };
        if is_damaged {
            // What it says is worth nothing, until it is noticed and replaced.
            self.pending.lost().for_each(drop);
            return Ok(Vec::new());
        }
        let committed = log.committed();
        let from = self.verified.next().max(log.first_index());
        if from <= committed {
            let batches = match log.batches(from..committed.next(), u64::MAX) {
                Ok(batches) => batches,
                Err(error) => violated!("replica {id} cannot read what it committed: {error}"),
            };
            for (index, epoch, batch) in batches {
                if truth.is_lost(index, &batch) {
                    // Nor does what follows it count.
                    break;
                }
                truth.on_committed(id, index, log.first_index(), epoch, &batch)?;
            }
        }
        self.verified = committed;
        truth.on_log_start(log.state().log_start.offset);
        if let Some(newest) = log.state().memberships.last() {
            memberships.shown(id, newest, self.replica.is_membership_durable());
        }
        let epoch_at = |index| log.epoch_at(index);
        let answered = self.pending.committed(committed, epoch_at);
        let answered = answered.filter_map(|(token, is_ours)| is_ours.then_some(token)).collect();
        let Some(epoch) = self.replica.leading() else {
            self.pending.lost().for_each(drop);
            return Ok(answered);
        };
        truth.on_leader(epoch, id, committed, log.epoch_at(committed))?;
        if self.replica.group().is_some_and(vltava::replica::group::PartitionGroup::is_confirmed) {
            truth.on_answer(epoch, log.high_watermark(), log.state().log_start.offset)?;
        }
        Ok(answered)
    }
}
