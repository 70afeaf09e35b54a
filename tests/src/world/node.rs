//! What a node does: it starts from its disk, ticks, flushes, and keeps in step with the image.

use std::sync::Arc;

use rand::RngExt;
use vltava::replica::group::GroupConfig;
use vltava::replica::membership::{MemberRole, MembershipStep, next_step};
use vltava::replica::pending::Pending;
use vltava::replica::shell::Replica;
use vltava_storage::disk::Disk;
use vltava_storage::flush::FlushItem;
use vltava_storage::flusher::{FlushError, FlushQueue, Flusher};
use vltava_storage::ids::{FileId, LogIndex, ReplicaId, SegmentId};
use vltava_storage::log::PartitionLog;
use vltava_storage::node::NodeState;
use vltava_storage::paths::replica_dir;
use vltava_storage::recovery::RecoverError;
use vltava_storage::state::ReplicaState;
use vltava_storage::wal::{self, WalError};

use super::{Broker, Event, Live, Machine, Slot, TICK, World};
use crate::cluster::GroupId;
use crate::network::NodeId;

/// A broker that could not start tries again after this long.
const BOOT_AGAIN_AFTER: u64 = 20 * TICK;
/// The ticket behind what a log that is being opened counts on.
const OPENING_TICKET: u64 = 1;

/// Why a broker did not start.
enum Down {
    /// The disk refused something: again later.
    Again(String),
    /// What was durable is not there.
    Damaged(String),
}

impl World {
    pub(super) fn boot(&mut self, node: NodeId) {
        if self.machines[node].broker.is_some() {
            return;
        }
        match self.try_boot(node) {
            Ok(broker) => {
                self.note(|| format!("node {node} starts, boot {}", broker.boot));
                let boot = broker.boot;
                self.machines[node].broker = Some(broker);
                let first = self.rng.random_range(1..=self.machines[node].tick);
                self.schedule(self.now + first, Event::Tick { node, boot });
            }
            Err(Down::Again(reason)) => {
                self.coverage.hit("start failed, again later");
                self.note(|| format!("node {node} does not start: {reason}"));
                self.machines[node].broker = None;
                self.schedule(self.now + BOOT_AGAIN_AFTER, Event::Boot { node });
            }
            Err(Down::Damaged(reason)) if self.machines[node].is_damaged => {
                self.coverage.hit("damage noticed at the start of a node");
                self.note(|| format!("node {node} is damaged: {reason}"));
                self.wipe(node, 0);
            }
            Err(Down::Damaged(reason)) => {
                self.violate(format!(
                    "node {node} cannot start, and nothing was damaged: {reason}"
                ));
            }
        }
    }

    fn try_boot(&mut self, node: NodeId) -> Result<Broker, Down> {
        self.machines[node].boots += 1;
        let (boot, kernel) = (self.machines[node].boots, self.machines[node].kernel);
        let disk: Arc<dyn Disk> = Arc::new(self.machines[node].disk.clone());
        let recovered = wal::recover(disk.clone(), self.setup.wal_config()).map_err(|error| {
            let text = error.to_string();
            match error {
                WalError::Io { .. } => Down::Again(text),
                _ => Down::Damaged(text),
            }
        })?;
        let boot_id = kernel.to_string();
        let lost_memory =
            recovered.node.as_ref().is_some_and(|was| was.boot_id != boot_id && !was.clean);
        let (rows, durable) = (recovered.replicas.clone(), recovered.durable.clone());
        let queue = Arc::new(FlushQueue::default());
        let mut broker = Broker {
            boot,
            flusher: Flusher::new(recovered, disk.clone(), queue.clone()),
            queue,
            slots: std::collections::BTreeMap::new(),
            heard: vltava::peers::codec::BootFilter::default(),
            is_flush_due: false,
        };
        let here = self.cluster.on(node);
        for (id, row) in rows {
            let Some((group, _)) = here.iter().find(|(_, replica)| *replica == id) else {
                let dir = replica_dir(id);
                broker.queue.push([FlushItem::Forget { replica: id, dir }]);
                continue;
            };
            let durable = |segment: SegmentId| {
                durable.get(&FileId { replica: id, segment }).copied().unwrap_or(0)
            };
            let slot = self.recover(node, *group, id, row, &durable, lost_memory, &broker.queue)?;
            broker.slots.insert(id, slot);
        }
        let node_id = node as i32;
        let state = NodeState { node_id, boot_id, clean: false, ..NodeState::default() };
        broker.flusher.set_node(state);
        // Before anything is written: else a power cut finds the mark of the last orderly stop.
        let first = broker.flusher.round().map_err(|error| Down::Again(error.to_string()))?;
        assert!(first.completed.len() <= broker.slots.len(), "only what is being opened completes");
        self.machines[node].broker = Some(broker);
        for (id, _) in first.completed {
            self.opened(node, id);
        }
        Ok(self.machines[node].broker.take().expect("it was put there just now"))
    }

    #[allow(clippy::too_many_arguments)]
    fn recover(
        &mut self,
        node: NodeId,
        group: GroupId,
        id: ReplicaId,
        row: ReplicaState,
        durable: &dyn Fn(SegmentId) -> u64,
        lost_memory: bool,
        queue: &FlushQueue,
    ) -> Result<Slot, Down> {
        let disk: Arc<dyn Disk> = Arc::new(self.machines[node].disk.clone());
        let durability = self.cluster.groups[group].durability;
        let config = self.setup.log_config(durability);
        let recovered = PartitionLog::recover(disk, id, config, row, durable);
        let (mut log, report) = match recovered {
            Ok(recovered) => recovered,
            Err(RecoverError::Io(error)) => return Err(Down::Again(error.to_string())),
            Err(error) if self.machines[node].is_damaged => {
                self.coverage.hit("damage noticed by recovery");
                self.note(|| format!("replica {id} on node {node} is refused: {error}"));
                return Ok(Slot::Refused);
            }
            Err(error) => {
                self.violate(format!("replica {id} on node {node} cannot be recovered: {error}"));
                return Ok(Slot::Refused);
            }
        };
        self.note(|| format!("replica {id} of group {group} recovered: {report:?}"));
        if report.torn_bytes > 0 {
            self.coverage.hit("torn tail recovered");
        }
        if report.dropped_segments > 0 {
            self.coverage.hit("segments behind a lost tail dropped");
        }
        if lost_memory && report.was_unsynced {
            self.coverage.hit("page-cache replica abstains");
            log.set_abstaining(Some(None));
        }
        if log.state().abstaining.is_some() {
            // Perhaps from before: that it ended may not have been durable.
            self.lossy.insert(id);
        }
        let ticket = FlushItem::Ticket { replica: id, ticket: OPENING_TICKET };
        queue.push(log.take_flush_items().into_iter().chain([ticket]));
        Ok(Slot::Opening { group, log: Box::new(log) })
    }

    /// What a log that was being opened counts on is durable: it takes part from now on.
    fn opened(&mut self, node: NodeId, id: ReplicaId) {
        let seed = self.setup.seed ^ (self.machines[node].boots << 20);
        let broker = self.machines[node].broker.as_mut().expect("its flusher completed a round");
        let Some(Slot::Opening { group, log }) = broker.slots.remove(&id) else {
            unreachable!("only what is being opened has this ticket");
        };
        let durability = self.cluster.groups[group].durability;
        let append_bytes_max = self.setup.append_bytes_max;
        let config = GroupConfig { seed, append_bytes_max, ..GroupConfig::default() };
        let replica = Replica::new(*log, durability, config, broker.queue.clone());
        let live = Live {
            group,
            replica,
            contract: durability,
            pending: Pending::default(),
            verified: LogIndex(0),
            is_restarting: false,
            failures: 0,
            fetches: Vec::new(),
        };
        broker.slots.insert(id, Slot::Open(Box::new(live)));
        self.drive(node, id, Replica::poll);
    }

    pub(super) fn tick(&mut self, node: NodeId, boot: u64) {
        let tick = self.machines[node].tick;
        let Some(broker) = self.machines[node].broker.as_ref().filter(|b| b.boot == boot) else {
            return;
        };
        let ids: Vec<_> = broker.slots.keys().copied().collect();
        for id in ids {
            self.drive(node, id, |replica, output| {
                if replica.needs_ticks() {
                    replica.tick(output);
                }
            });
            self.lead(node, id);
        }
        self.reconcile(node);
        self.schedule(self.now + tick, Event::Tick { node, boot });
    }

    /// What a leader owes its group: it moves the membership to the target.
    fn lead(&mut self, node: NodeId, id: ReplicaId) {
        let Some(live) = self.live(id) else { return };
        let Some(group) = live.replica.group().filter(|group| group.is_confirmed()) else { return };
        let target = &self.cluster.groups[live.group].target;
        let (current, matched) = (group.membership(), group.matched());
        let step = next_step(id, &current, target, &matched, group.log().committed());
        let is_held = self.unpromoted.contains(&live.group);
        let promotes = |step: &MembershipStep| match step {
            MembershipStep::Change(members) => {
                members.iter().any(|(_, role)| *role == MemberRole::Voter)
            }
            _ => false,
        };
        if let Some(step) = step.filter(|step| !(is_held && promotes(step))) {
            self.coverage.hit("membership change proposed");
            self.note(|| format!("replica {id} proposes {step:?}, membership {current:?}"));
            let proposed =
                self.drive(node, id, |replica, output| replica.propose_membership(&step, output));
            if let Some(Err(_)) = proposed {
                // The next tick looks again.
                self.coverage.hit("membership change refused");
            }
        }
    }

    /// Creates what the image names, drops what it no longer does, follows its contracts.
    fn reconcile(&mut self, node: NodeId) {
        let here = self.cluster.on(node);
        let broker = self.machines[node].broker.as_ref().expect("it ticks");
        let gone: Vec<_> = broker
            .slots
            .keys()
            .copied()
            .filter(|id| !here.iter().any(|(_, replica)| replica == id))
            .collect();
        let missing: Vec<_> =
            here.iter().copied().filter(|(_, id)| !broker.slots.contains_key(id)).collect();
        for id in gone {
            self.coverage.hit("replica dropped");
            let broker = self.machines[node].broker.as_mut().expect("it ticks");
            broker.slots.remove(&id);
            broker.queue.push([FlushItem::Forget { replica: id, dir: replica_dir(id) }]);
        }
        for (group, id) in missing {
            self.create(node, group, id);
        }
        for (group, id) in here {
            let durability = self.cluster.groups[group].durability;
            let config = self.setup.log_config(durability);
            let broker = self.machines[node].broker.as_mut().expect("it ticks");
            if let Some(Slot::Open(live)) = broker.slots.get_mut(&id)
                && live.contract != durability
            {
                live.contract = durability;
                live.replica.set_durability(durability);
                live.replica.with_log(|log| log.set_config(config));
            }
        }
    }

    fn create(&mut self, node: NodeId, group: GroupId, id: ReplicaId) {
        let this = &self.cluster.groups[group];
        let (row, config) = (this.first_row(id), self.setup.log_config(this.durability));
        let disk: Arc<dyn Disk> = Arc::new(self.machines[node].disk.clone());
        match PartitionLog::create(disk, id, config, row) {
            Ok(mut log) => {
                self.note(|| format!("replica {id} of group {group} created on node {node}"));
                let ticket = FlushItem::Ticket { replica: id, ticket: OPENING_TICKET };
                let items = log.take_flush_items().into_iter().chain([ticket]);
                let broker = self.machines[node].broker.as_mut().expect("it ticks");
                broker.queue.push(items);
                broker.slots.insert(id, Slot::Opening { group, log: Box::new(log) });
            }
            // The image still names it at the next tick.
            Err(_) => self.coverage.hit("replica could not be created yet"),
        }
    }

    pub(super) fn flush(&mut self, node: NodeId, boot: u64) {
        let Machine { broker, is_stalled, .. } = &mut self.machines[node];
        let Some(broker) = broker.as_mut().filter(|broker| broker.boot == boot) else { return };
        broker.is_flush_due = false;
        if *is_stalled {
            return;
        }
        match broker.flusher.round() {
            Ok(round) => {
                for (id, ticket) in round.completed {
                    let broker = self.machines[node].broker.as_ref().expect("it flushes");
                    match broker.slots.get(&id) {
                        Some(Slot::Opening { .. }) => self.opened(node, id),
                        Some(Slot::Open(_)) => {
                            self.drive(node, id, |replica, output| {
                                replica.on_durable(ticket, output);
                            });
                        }
                        _ => {}
                    }
                }
            }
            Err(FlushError::Write(error)) => {
                self.coverage.hit("flush round failed");
                self.note(|| format!("node {node} cannot flush: {error}"));
            }
            // The sync failed because the power did: the end of this event says what that means.
            Err(FlushError::Poisoned) if self.is_power_cut_due(node) => {}
            Err(FlushError::Poisoned) => {
                self.coverage.hit("disk poisoned by a failed sync");
                self.note(|| format!("the disk of node {node} is poisoned"));
                let down = self.rng.random_range(1..30) * TICK;
                if self.rng.random_bool(0.5) {
                    self.crash(node, down);
                } else {
                    let seed = self.rng.random();
                    self.power_cut(node, seed, down);
                }
            }
        }
    }
}
