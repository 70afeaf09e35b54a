//! What goes wrong, and the operator who replaces what is broken.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::RngExt;
use vltava::replica::shell::Replica;
use vltava_storage::disk::sim::{Fault, FaultPlan, SimDisk};
use vltava_storage::ids::{FileId, ReplicaId};
use vltava_storage::log::Durability;
use vltava_storage::paths::{parse_replica_dir_name, parse_segment_file_name};
use vltava_storage::wal;

use super::{Event, PlannedCut, Slot, TICK, Undo, World};
use crate::cluster::{Group, GroupId};
use crate::network::{NodeId, Time, Weather};
use crate::plan::Action;

/// A replica may be lost for good only so long after its group's target changed.
const SETTLED_AFTER: Time = 50 * TICK;

impl World {
    pub(super) fn act(&mut self, action: Action) {
        self.note(|| format!("-- {action}"));
        match action {
            Action::Produce { producer, records, value_bytes } => {
                self.produce(producer, records, value_bytes);
            }
            Action::Repeat { producer } => self.repeat(producer),
            Action::Read { group, pick, permille, max_bytes } => {
                self.read(group, pick, permille, max_bytes);
            }
            Action::DeleteRecords { group, permille } => self.delete_records(group, permille),
            Action::Transfer { group, pick } => self.transfer(group, pick),
            Action::Campaign { group, pick } => self.campaign(group, pick),
            Action::Retarget { group, nodes } => self.retarget(group, &nodes),
            Action::Flip { group } => self.flip(group),
            Action::KeepLearners { group, lasts } => {
                self.unpromoted.insert(group);
                self.schedule(self.now + lasts, Event::Undo(Undo::Unpromoted(group)));
            }
            Action::Crash { node, down } => {
                self.coverage.hit("fault: process crash");
                self.crash(node, down);
            }
            Action::PowerCut { node, seed, down } => {
                self.coverage.hit("fault: power cut");
                self.power_cut(node, seed, down);
            }
            Action::PowerCutAll { seed, down } => {
                self.coverage.hit("fault: power cut of all");
                for node in 0..self.machines.len() {
                    self.power_cut(node, seed + node as u64, down);
                }
            }
            Action::PowerCutAt { node, ops, seed, down } => {
                self.coverage.hit("fault: power cut within an event planned");
                self.power_cut_at(node, ops, seed, down);
            }
            Action::Stop { node, seed, down } => self.stop(node, seed, down),
            Action::Wipe { node, down } => self.wipe_if_safe(node, down),
            Action::Replace { node } if self.machines[node].is_damaged => self.wipe(node, 0),
            Action::Replace { .. } => {}
            Action::Damage { node, seed, down } => self.damage_if_safe(node, seed, down),
            Action::DiskFull { node, spare, lasts } => {
                self.coverage.hit("fault: disk full");
                let disk = &self.machines[node].disk;
                let used: u64 = disk.tree().values().map(|bytes| bytes.len() as u64).sum();
                disk.set_space(Some(used + spare));
                self.schedule(self.now + lasts, Event::Undo(Undo::Disk(node)));
            }
            Action::DiskError { node, ops, written, lasts } => {
                self.coverage.hit("fault: disk error");
                let disk = &self.machines[node].disk;
                let op = disk.op_count() + ops;
                disk.fail(FaultPlan {
                    written,
                    lasting: lasts.is_some(),
                    ..FaultPlan::once(op, Fault::Io)
                });
                if let Some(lasts) = lasts {
                    self.schedule(self.now + lasts, Event::Undo(Undo::Disk(node)));
                }
            }
            Action::SlowDisk { node, delay, lasts } => {
                self.coverage.hit("fault: slow disk");
                self.machines[node].flush_delay = delay;
                self.schedule(self.now + lasts, Event::Undo(Undo::Speed(node)));
            }
            Action::Skew { node, tick, lasts } => {
                self.coverage.hit("fault: clock skew");
                self.machines[node].tick = tick;
                self.schedule(self.now + lasts, Event::Undo(Undo::Clock(node)));
            }
            Action::Cut { from, to, both, lasts } => {
                self.coverage.hit(if both { "fault: cut" } else { "fault: asymmetric cut" });
                self.cut(from, to, lasts);
                if both {
                    self.cut(to, from, lasts);
                }
            }
            Action::Isolate { node, lasts } => {
                self.coverage.hit("fault: isolation");
                for other in (0..self.machines.len()).filter(|other| *other != node) {
                    self.cut(node, other, lasts);
                    self.cut(other, node, lasts);
                }
            }
            Action::Weather { weather, lasts } => {
                self.coverage.hit("fault: bad network");
                self.network.set_weather(weather);
                self.schedule(self.now + lasts, Event::Undo(Undo::Weather));
            }
        }
    }

    pub(super) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Disk(node) => {
                self.forget_fault(node);
                self.machines[node].disk.heal();
                self.machines[node].disk.set_space(None);
            }
            Undo::Speed(node) => self.machines[node].flush_delay = 300,
            Undo::Clock(node) => self.machines[node].tick = TICK,
            Undo::Link(from, to) => self.network.join(from, to),
            Undo::Unpromoted(group) => _ = self.unpromoted.remove(&group),
            Undo::Weather => self.network.set_weather(Weather::FAIR),
        }
    }

    fn cut(&mut self, from: NodeId, to: NodeId, lasts: Time) {
        self.network.cut(from, to);
        self.schedule(self.now + lasts, Event::Undo(Undo::Link(from, to)));
    }

    /// The process dies; the page cache lives.
    pub(crate) fn crash(&mut self, node: NodeId, down: Time) {
        let machine = &mut self.machines[node];
        machine.put_disk(machine.disk.crash());
        self.gone_down(node, down);
    }

    /// The power fails. Where a page-cache log has a dead voter, nobody could ever tell what is
    /// lost: then only the process dies.
    pub(crate) fn power_cut(&mut self, node: NodeId, seed: u64, down: Time) {
        if self.would_be_undecidable(node) {
            self.coverage.hit("power cut softened to a crash");
            return self.crash(node, down);
        }
        for (group, id) in self.cluster.on(node) {
            if self.cluster.groups[group].was_page_cache {
                self.lossy.insert(id);
            }
        }
        let machine = &mut self.machines[node];
        machine.put_disk(machine.disk.power_cut(seed));
        machine.kernel += 1;
        self.gone_down(node, down);
    }

    pub(super) fn power_cut_at(&mut self, node: NodeId, ops: u64, seed: u64, down: Time) {
        if self.would_be_undecidable(node) {
            return;
        }
        let machine = &mut self.machines[node];
        let op = machine.disk.op_count() + ops;
        machine.disk.fail(FaultPlan::from(op, Fault::Io));
        machine.cut_at = Some(PlannedCut { op, seed, down });
    }

    /// A planned power cut has come within this event.
    pub(super) fn is_power_cut_due(&self, node: NodeId) -> bool {
        let machine = &self.machines[node];
        machine.cut_at.is_some_and(|cut| machine.disk.op_count() > cut.op)
    }

    /// A page-cache log of the node has a voter that will never speak again.
    pub(super) fn would_be_undecidable(&self, node: NodeId) -> bool {
        let here = self.cluster.on(node);
        here.iter()
            .any(|(group, _)| self.cluster.groups[*group].was_page_cache && self.has_dead(*group))
    }

    fn has_dead(&self, group: GroupId) -> bool {
        let Group { dead, homes, .. } = &self.cluster.groups[group];
        !dead.is_empty() || homes.values().any(|home| self.machines[*home].is_damaged)
    }

    fn gone_down(&mut self, node: NodeId, down: Time) {
        let machine = &mut self.machines[node];
        let broker = machine.broker.take();
        machine.cut_at = None;
        // Its clients' connections break.
        let ids: Vec<_> = broker.iter().flat_map(|broker| broker.slots.keys().copied()).collect();
        for producer in &mut self.producers {
            let sent = |waits: &crate::workload::Outgoing| {
                waits.sent.is_some_and(|(replica, ..)| ids.contains(&replica))
            };
            if producer.waiting.iter().any(sent) {
                producer.resend_all();
            }
        }
        self.schedule(self.now + down, Event::Boot { node });
    }

    /// An orderly stop, and then the power fails: nothing may be lost.
    fn stop(&mut self, node: NodeId, seed: u64, down: Time) {
        let Some(broker) = &mut self.machines[node].broker else { return };
        let mut is_clean = true;
        for slot in broker.slots.values_mut() {
            if let Slot::Open(live) = slot {
                let closed = live.replica.with_log(vltava_storage::log::PartitionLog::close);
                is_clean &= closed.is_none_or(|closed| closed.is_ok());
            }
        }
        is_clean &= broker.flusher.shutdown().is_ok();
        let machine = &mut self.machines[node];
        if is_clean && machine.cut_at.is_none() {
            self.coverage.hit("fault: orderly stop, then power cut");
            machine.put_disk(machine.disk.power_cut(seed));
            machine.kernel += 1;
            self.gone_down(node, down);
        } else {
            self.crash(node, down);
        }
    }

    /// Whether a group survives that what `node` holds of it is lost for good.
    fn survives(&self, group: GroupId, node: NodeId) -> bool {
        let Group { target, dead, homes, was_page_cache, .. } = &self.cluster.groups[group];
        let Some(newest) = self.memberships[group].newest() else { return false };
        // A replica that is down goes on with what it knew.
        let known = homes.keys().filter(|id| !dead.contains(id));
        let known = known.filter_map(|id| self.known.get(id)).chain([newest]);
        let mut sorted = target.clone();
        sorted.sort_unstable();
        let is_settled = newest.outgoing.is_empty()
            && newest.learners.is_empty()
            && newest.voters == sorted
            && self.now >= self.retargeted[group] + SETTLED_AFTER;
        let is_well = |id: &&ReplicaId| {
            !dead.contains(id)
                && homes
                    .get(id)
                    .is_some_and(|home| *home != node && !self.machines[*home].is_damaged)
                && !(*was_page_cache && self.lossy.contains(id))
        };
        let is_quorum = |voters: &[ReplicaId]| {
            let well = voters.iter().filter(is_well).count();
            voters.is_empty()
                || well > voters.len() / 2 && (!was_page_cache || well >= voters.len() - 1)
        };
        let mut known = known.filter(|known| !known.voters.is_empty());
        is_settled && known.all(|known| is_quorum(&known.voters) && is_quorum(&known.outgoing))
    }

    fn all_survive(&self, node: NodeId) -> bool {
        let here = self.cluster.on(node);
        here.iter().all(|(group, _)| self.survives(*group, node))
    }

    /// The first node from `node` on whose disk may be lost.
    fn expendable(&self, node: NodeId) -> Option<NodeId> {
        let count = self.machines.len();
        (0..count).map(|more| (node + more) % count).find(|node| self.all_survive(*node))
    }

    fn wipe_if_safe(&mut self, node: NodeId, down: Time) {
        if let Some(node) = self.expendable(node) {
            self.coverage.hit("fault: disk wiped");
            self.wipe(node, down);
        } else {
            self.coverage.hit("wipe avoided");
        }
    }

    /// The disk is lost; an empty one takes its place, and new replicas those that were on it.
    pub(crate) fn wipe(&mut self, node: NodeId, down: Time) {
        let seed = self.rng.random();
        self.machines[node].put_disk(SimDisk::new(seed));
        self.machines[node].is_damaged = false;
        self.machines[node].kernel += 1;
        for (group, id) in self.cluster.on(node) {
            self.lossy.remove(&id);
            self.cluster.replace(group, node);
            self.retargeted[group] = self.now;
        }
        self.gone_down(node, down);
    }

    /// Bits flip in what was durable. From then on the node's replicas may be fenced; the operator
    /// replaces its disk later.
    fn damage_if_safe(&mut self, node: NodeId, seed: u64, down: Time) {
        let Some(node) = self.expendable(node) else {
            return self.coverage.hit("damage avoided");
        };
        self.crash(node, down);
        let places = self.durable_places(node);
        if places.is_empty() {
            return;
        }
        self.coverage.hit("fault: latent damage");
        let (path, end) = &places[seed as usize % places.len()];
        let position = (seed >> 20) % end;
        self.machines[node].disk.corrupt(path, position);
        self.note(|| format!("byte {position} of {} is damaged", path.display()));
        self.machines[node].is_damaged = true;
        self.machines[node].was_damaged = true;
        // Until the disk is replaced its replicas count for nobody.
        for (group, _) in self.cluster.on(node) {
            self.retargeted[group] = self.now;
        }
        let replaced = self.now + down + 40 * TICK;
        self.schedule(replaced, Event::Act(Box::new(Action::Replace { node })));
    }

    /// The segments of a node whose broker is down, and how far each is durable: above that place
    /// damage cannot be told from a tail that was never whole.
    pub(super) fn durable_places(&self, node: NodeId) -> Vec<(PathBuf, u64)> {
        let disk = self.machines[node].disk.fork();
        let Ok(recovered) = wal::recover(Arc::new(disk.clone()), self.setup.wal_config()) else {
            return Vec::new();
        };
        let mut places = Vec::new();
        for (path, bytes) in disk.tree() {
            let Some(id) = segment_of(&path) else { continue };
            let end = recovered.durable_position(id).min(bytes.len() as u64);
            if end > 0 && recovered.replicas.contains_key(&id.replica) {
                places.push((path, end));
            }
        }
        places
    }

    fn transfer(&mut self, group: GroupId, pick: usize) {
        let Some((node, id, _)) = self.leader(group) else { return };
        let Some(live) = self.live(id) else { return };
        let voters = live.replica.membership().voters;
        let others: Vec<_> = voters.into_iter().filter(|voter| *voter != id).collect();
        if others.is_empty() {
            return;
        }
        let target = others[pick % others.len()];
        self.coverage.hit("leadership transfer");
        self.drive(node, id, |replica, output| replica.transfer_to(target, output));
    }

    fn campaign(&mut self, group: GroupId, pick: usize) {
        let lives = self.lives(group);
        if lives.is_empty() {
            return;
        }
        let (node, id, _) = lives[pick % lives.len()];
        self.coverage.hit("campaign");
        self.drive(node, id, Replica::campaign);
    }

    fn retarget(&mut self, group: GroupId, nodes: &[NodeId]) {
        if self.has_dead(group) || nodes.iter().any(|node| self.machines[*node].is_damaged) {
            return self.coverage.hit("retarget avoided");
        }
        self.coverage.hit("target changed");
        self.cluster.retarget(group, nodes);
        self.retargeted[group] = self.now;
    }

    /// The topic's contract changes.
    fn flip(&mut self, group: GroupId) {
        self.coverage.hit("durability changed");
        let this = &mut self.cluster.groups[group];
        this.durability = match this.durability {
            Durability::Fsync => Durability::PageCache,
            Durability::PageCache => Durability::Fsync,
        };
        this.was_page_cache = true;
    }

    /// A replica that its group has removed is dropped; where the newest leader says so.
    pub(super) fn retire_removed(&mut self) {
        for group in 0..self.cluster.groups.len() {
            let Some((_, id, epoch)) = self.leader(group) else { continue };
            let Some(live) = self.live(id) else { continue };
            let Some(state) = live.replica.group().filter(|group| group.is_confirmed()) else {
                continue;
            };
            if !self.truths[group].is_newest(epoch) {
                continue;
            }
            let membership = state.membership();
            // Only a member may say so: others may still need the vote of a leader that removed itself.
            if !membership.outgoing.is_empty() || !membership.voters.contains(&id) {
                continue;
            }
            let Group { target, homes, .. } = &self.cluster.groups[group];
            let is_member =
                |id: &ReplicaId| membership.voters.contains(id) || membership.learners.contains(id);
            let removed: Vec<_> =
                homes.keys().copied().filter(|id| !target.contains(id) && !is_member(id)).collect();
            // Most members must find the removal after a restart: one alone may forget or be lost, and
            // those who have not heard of it would need the removed one's vote.
            let knows = |id: &&ReplicaId| {
                self.live(**id).is_some_and(|live| {
                    live.replica.membership() == membership && live.replica.is_membership_durable()
                })
            };
            if membership.voters.iter().filter(knows).count() <= membership.voters.len() / 2 {
                continue;
            }
            for id in removed {
                self.note(|| format!("replica {id} of group {group} is retired"));
                self.cluster.groups[group].homes.remove(&id);
                self.cluster.groups[group].dead.remove(&id);
                self.lossy.remove(&id);
            }
        }
    }
}

/// Which segment a path means.
fn segment_of(path: &Path) -> Option<FileId> {
    let dir = path.parent()?.file_name()?.to_str()?;
    let replica = parse_replica_dir_name(dir)?;
    let segment = parse_segment_file_name(path.file_name()?.to_str()?)?;
    Some(FileId { replica, segment })
}
