//! The hands of a script: what happens to the world exactly when, where and to whom a story says.
//!
//! The clocks of a script's world stand still until it lets them run, so that no election and no
//! heartbeat comes between two lines; messages and flush rounds go their way all the same.
//!
//! **Invariant:** whatever a hand does ends as an event does, with the checks of
//! [`World::end_event`].

use vltava::replica::shell::{AppendRefused, Replica};
use vltava_protocol::ids::{LeaderEpoch, Offset};
use vltava_protocol::record::batch::BatchHeader;
use vltava_protocol::record::control::InternalBatch;
use vltava_storage::disk::sim::{Fault, FaultPlan};
use vltava_storage::ids::{LogIndex, ReplicaId};
use vltava_storage::log::Durability;
use vltava_storage::slice::LogSlice;

use super::{Event, Live, Slot, TICK, World};
use crate::checker::{Violation, violated};
use crate::cluster::GroupId;
use crate::network::{NodeId, Time};
use crate::workload::Acks;

/// The only group of a script's world.
pub(crate) const GROUP: GroupId = 0;
/// Further away than any story lasts.
pub(crate) const NEVER: Time = 1 << 40;
/// Virtual microseconds between two looks at a condition.
const LOOK: Time = 20;

/// An entry of a log, for the eyes of a reader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    pub(crate) index: LogIndex,
    pub(crate) epoch: LeaderEpoch,
    pub(crate) base_offset: Offset,
    pub(crate) end_offset: Offset,
    /// `[base_offset,end_offset)`, or the kind of an internal entry.
    pub(crate) what: String,
}

impl World {
    /// The clocks stop, or run again: no node ticks while they stand still.
    pub(crate) fn set_clocks(&mut self, are_running: bool) {
        self.events.retain(|_, event| !matches!(event, Event::Tick { .. }));
        for node in 0..self.machines.len() {
            self.machines[node].tick = if are_running { TICK } else { NEVER };
            let Some(broker) = &self.machines[node].broker else { continue };
            let boot = broker.boot;
            // Not all at the same moment, and always in the same order.
            let at = self.now + if are_running { 100 * (node as Time + 1) } else { NEVER };
            self.schedule(at, Event::Tick { node, boot });
        }
    }

    /// One tick of a node whose clock stands still: it sees the image, and its replicas the time.
    pub(crate) fn tick_once(&mut self, node: NodeId) -> Result<(), Violation> {
        if let Some(broker) = &self.machines[node].broker {
            let boot = broker.boot;
            self.tick(node, boot);
        }
        self.end_event()
    }

    /// Time passes for the replicas of a node alone.
    pub(crate) fn tick_replica(&mut self, node: NodeId) -> Result<(), Violation> {
        if let Some((id, _)) = self.replica_on(node) {
            self.drive(node, id, Replica::tick);
        }
        self.end_event()
    }

    /// Things happen until `is_enough` or for `time`; answers whether it was enough.
    pub(crate) fn run_until_seen(
        &mut self,
        time: Time,
        mut is_enough: impl FnMut(&mut Self) -> bool,
    ) -> Result<bool, Violation> {
        let deadline = self.now + time;
        while !is_enough(self) {
            if self.now >= deadline {
                return Ok(false);
            }
            self.run_until(self.now + LOOK)?;
        }
        Ok(true)
    }

    /// The newest replica on a node that takes part.
    pub(crate) fn replica_on(&self, node: NodeId) -> Option<(ReplicaId, &Live)> {
        let lives = self.lives(GROUP).into_iter().filter(|(home, ..)| *home == node);
        lives.map(|(_, id, live)| (id, live)).max_by_key(|(id, _)| *id)
    }

    /// Whether a replica on a node was refused by recovery or fenced since.
    pub(crate) fn is_refused(&self, node: NodeId) -> bool {
        let Some(broker) = &self.machines[node].broker else { return false };
        broker.slots.values().any(|slot| match slot {
            Slot::Refused => true,
            Slot::Open(live) => live.replica.fenced().is_some(),
            Slot::Opening { .. } => false,
        })
    }

    /// A client that sends one batch to the broker of `node`, whoever leads, and never again.
    /// Answers its number and the base offset.
    pub(crate) fn produce_once(
        &mut self,
        node: NodeId,
        acks: Acks,
        records: i32,
        value_bytes: usize,
    ) -> Result<Result<(usize, Offset), String>, Violation> {
        let Some((id, _)) = self.replica_on(node) else {
            return Ok(Err("not serving".to_owned()));
        };
        let producer = self.add_producer(GROUP, acks);
        let now = self.now;
        self.producers[producer].produce(records, value_bytes, now);
        // As if it had been sent to a leader newer than all: so it is not sent by itself.
        let elsewhere = Some((ReplicaId(0), LeaderEpoch(i32::MAX), now + NEVER));
        self.producers[producer].waiting[0].sent = elsewhere;
        let outgoing = self.producers[producer].waiting[0].clone();
        let result = self.append(node, id, &outgoing);
        let answer = match result {
            Some(Ok(placed)) => {
                self.placed(producer, node, id, &outgoing, placed);
                Ok((producer, placed.base_offset))
            }
            refused => {
                self.producers[producer].waiting.clear();
                Err(match refused {
                    Some(Err(AppendRefused::Producer(error))) => error.to_string(),
                    Some(Err(error)) => error.to_string(),
                    _ => "not serving".to_owned(),
                })
            }
        };
        self.end_event()?;
        Ok(answer)
    }

    /// Whether a client of [`World::produce_once`] had its answer.
    pub(crate) fn was_answered(&self, producer: usize) -> bool {
        self.producers[producer].waiting.is_empty()
    }

    /// Clients that still wait go away.
    pub(crate) fn clients_give_up(&mut self) {
        for producer in &mut self.producers {
            producer.waiting.clear();
        }
    }

    /// The replica on a node asks for votes.
    pub(crate) fn campaign_on(&mut self, node: NodeId) -> Result<(), Violation> {
        if let Some((id, _)) = self.replica_on(node) {
            self.drive(node, id, Replica::campaign);
        }
        self.end_event()
    }

    /// The leader hands over to the replica on a node.
    pub(crate) fn transfer_to_node(&mut self, to: NodeId) -> Result<(), Violation> {
        if let Some((node, id, _)) = self.leader(GROUP)
            && let Some((target, _)) = self.replica_on(to)
        {
            self.drive(node, id, |replica, output| replica.transfer_to(target, output));
        }
        self.end_event()
    }

    /// The leader proposes that the log starts at `offset`.
    pub(crate) fn retain_from(&mut self, offset: Offset) -> Result<Result<(), String>, Violation> {
        let Some((node, id, _)) = self.leader(GROUP) else { return Ok(Err("no leader".into())) };
        let result =
            self.drive(node, id, |replica, output| replica.propose_log_start(offset, output));
        self.end_event()?;
        Ok(match result {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("not serving".to_owned()),
        })
    }

    /// The group is to live on `nodes`.
    pub(crate) fn retarget_to(&mut self, nodes: &[NodeId]) {
        self.cluster.retarget(GROUP, nodes);
        self.retargeted[GROUP] = self.now;
    }

    /// What the topic promises changes, at the next tick of each node.
    pub(crate) fn set_durability(&mut self, durability: Durability) {
        let group = &mut self.cluster.groups[GROUP];
        group.was_page_cache |= durability == Durability::PageCache;
        group.durability = durability;
    }

    /// The nodes where the group is to live.
    pub(crate) fn target_nodes(&self) -> Vec<NodeId> {
        let group = &self.cluster.groups[GROUP];
        let mut nodes: Vec<_> = group.target.iter().filter_map(|id| group.homes.get(id)).collect();
        nodes.sort_unstable();
        nodes.into_iter().copied().collect()
    }

    /// A broker that is down starts.
    pub(crate) fn start(&mut self, node: NodeId) {
        self.schedule(self.now, Event::Boot { node });
    }

    /// The power of these nodes fails at once. `false`: who could tell later what is lost is dead.
    pub(crate) fn cut_power(&mut self, nodes: &[NodeId], seed: u64) -> bool {
        if nodes.iter().any(|node| self.would_be_undecidable(*node)) {
            return false;
        }
        for node in nodes {
            self.power_cut(*node, seed + *node as u64, NEVER);
        }
        true
    }

    /// The power of a node fails at the disk operation after `ops` more; it is back after `down`.
    pub(crate) fn cut_power_at(&mut self, node: NodeId, ops: u64, seed: u64, down: Time) {
        self.power_cut_at(node, ops, seed, down);
    }

    /// Whether a planned power cut has not come yet.
    pub(crate) fn awaits_power_cut(&self, node: NodeId) -> bool {
        self.machines[node].cut_at.is_some()
    }

    /// A planned power cut will not come.
    pub(crate) fn forget_power_cut(&mut self, node: NodeId) {
        if self.machines[node].cut_at.take().is_some() {
            self.machines[node].disk.heal();
        }
    }

    /// The broker of a node dies, and a bit flips in what is durable of its `segment`-th file, from
    /// 1, or its newest. Answers where, unless nothing is durable.
    pub(crate) fn damage_node(
        &mut self,
        node: NodeId,
        segment: usize,
        position: u64,
    ) -> Option<String> {
        self.crash(node, NEVER);
        let places = self.durable_places(node);
        let (path, end) = places.get(segment.clamp(1, places.len().max(1)) - 1)?;
        let position = position.min(end - 1);
        self.machines[node].disk.corrupt(path, position);
        self.machines[node].is_damaged = true;
        self.machines[node].was_damaged = true;
        Some(format!("byte {position} of {end} of {}", path.display()))
    }

    /// Disk operations of a node fail from the one after `ops` more on.
    pub(crate) fn fail_disk(&mut self, node: NodeId, ops: u64, fault: Fault) {
        let disk = &self.machines[node].disk;
        disk.fail(FaultPlan::from(disk.op_count() + ops, fault));
    }

    /// The disk of a node is full but for `spare` bytes.
    pub(crate) fn fill_disk(&mut self, node: NodeId, spare: u64) {
        let disk = &self.machines[node].disk;
        let used: u64 = disk.tree().values().map(|bytes| bytes.len() as u64).sum();
        disk.set_space(Some(used + spare));
    }

    /// Nothing that a node writes becomes durable, or does again.
    pub(crate) fn stall_disk(&mut self, node: NodeId, is_stalled: bool) {
        self.machines[node].is_stalled = is_stalled;
    }

    /// The disk of a node works again and has room.
    pub(crate) fn heal_disk(&mut self, node: NodeId) {
        self.machines[node].disk.heal();
        self.machines[node].disk.set_space(None);
    }

    /// Reads from the replica of a node up to its high watermark. Answers where the records begin
    /// and end; the checker compares every byte.
    pub(crate) fn read_from(
        &mut self,
        node: NodeId,
        from: Offset,
    ) -> Result<Result<(Offset, Offset, Offset), String>, Violation> {
        let Some(log) = self.replica_on(node).and_then(|(_, live)| live.replica.log()) else {
            return Ok(Err("not serving".to_owned()));
        };
        let view = log.view().read();
        let high_watermark = view.high_watermark;
        let slices = match view.read(from, high_watermark, usize::MAX, true) {
            Ok(slices) => slices,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let bytes: Result<Vec<_>, _> = slices.iter().map(LogSlice::bytes).collect();
        let Ok(bytes) = bytes else { violated!("node {node} cannot read what it hands out") };
        let bytes: bytes::Bytes = bytes.concat().into();
        let first = BatchHeader::parse(&bytes).map_or(from, |header| header.base_offset);
        let what = format!("a reader of node {node}");
        match self.truths[GROUP].on_read(&what, from, high_watermark, &bytes) {
            Ok(next) => Ok(Ok((first, next, high_watermark))),
            Err(_) if self.machines[node].is_damaged => Ok(Err("damaged records".to_owned())),
            Err(violation) => Err(violation),
        }
    }

    /// What the log of a node holds.
    pub(crate) fn entries_of(&self, node: NodeId) -> Vec<Seen> {
        let log = self.replica_on(node).and_then(|(_, live)| live.replica.log());
        let Some(log) = log else { return Vec::new() };
        let Ok(batches) = log.batches(log.first_index()..log.last_index().next(), u64::MAX) else {
            return Vec::new();
        };
        let entries = batches.into_iter().filter_map(|(index, epoch, batch)| {
            let header = BatchHeader::parse(&batch).ok()?;
            let (base_offset, end_offset) = (header.base_offset, header.end_offset());
            let what = match InternalBatch::parse(&batch) {
                Ok((kind, _)) => format!("{kind:?}"),
                Err(_) => format!("[{base_offset},{end_offset})"),
            };
            Some(Seen { index, epoch, base_offset, end_offset, what })
        });
        entries.collect()
    }

    /// Acknowledged batches that went with an announced loss.
    pub(crate) fn acked_lost(&self) -> u64 {
        self.truths[GROUP].acked_lost
    }
}
