//! The end of a history: all faults end, and the cluster must come back to life by itself.

use vltava_storage::ids::ReplicaId;
use vltava_storage::log::PartitionLog;

use super::{Event, TICK, World};
use crate::checker::{Violation, violated};
use crate::cluster::GroupId;
use crate::network::Time;

/// Ticks that a healthy cluster may take to elect, to replicate and to settle.
const SETTLE_TICKS: Time = 1500;

impl World {
    /// Every fault ends, and every node that is down starts.
    pub fn heal(&mut self) {
        self.note(|| "-- all faults end".to_owned());
        self.events.retain(|_, event| !matches!(event, Event::Act(_) | Event::Undo(_)));
        self.network.heal();
        self.unpromoted.clear();
        for node in 0..self.machines.len() {
            self.forget_fault(node);
            let machine = &mut self.machines[node];
            machine.disk.heal();
            machine.disk.set_space(None);
            machine.flush_delay = 300;
            machine.is_stalled = false;
            machine.tick = TICK;
            machine.cut_at = None;
            if machine.is_damaged {
                self.wipe(node, 0);
            }
            self.schedule(self.now, Event::Boot { node });
        }
    }

    /// Heals, waits until every group is well, and checks what must hold then.
    pub fn finish(&mut self) -> Result<(), Violation> {
        self.heal();
        let deadline = self.now + SETTLE_TICKS * TICK;
        self.settle(deadline)?;
        for group in 0..self.cluster.groups.len() {
            let producer = self.add_producer(group, crate::workload::Acks::All);
            self.produce(producer, 1, 10);
        }
        self.settle(deadline + SETTLE_TICKS * TICK)?;
        self.check_all_kept();
        for group in 0..self.cluster.groups.len() {
            self.check_end(group)?;
        }
        self.end_event()
    }

    /// Runs until every group is well.
    pub fn settle(&mut self, deadline: Time) -> Result<(), Violation> {
        loop {
            self.run_until(self.now + 10 * TICK)?;
            let reasons: Vec<_> =
                (0..self.cluster.groups.len()).filter_map(|group| self.unwell(group)).collect();
            if reasons.is_empty() {
                return Ok(());
            }
            if self.now >= deadline {
                violated!("no life after all faults ended: {}", reasons.join("; "));
            }
        }
    }

    /// What is still amiss with a group.
    fn unwell(&self, group: GroupId) -> Option<String> {
        let amiss = |what: String| Some(format!("group {group}: {what}"));
        let Some((_, leader, epoch)) = self.leader(group) else {
            return amiss(format!("no leader, {}", self.describe(group)));
        };
        let live = self.live(leader)?;
        let (Some(state), Some(log)) = (live.replica.group(), live.replica.log()) else {
            return amiss("its leader is out of service".to_owned());
        };
        if !state.is_confirmed() {
            return amiss(format!("leader {leader} of epoch {epoch} is not confirmed"));
        }
        let mut target = self.cluster.groups[group].target.clone();
        target.sort_unstable();
        let membership = state.membership();
        if membership.voters != target || !membership.outgoing.is_empty() {
            return amiss(format!("target {target:?}, {}", self.describe(group)));
        }
        let end = (log.last_index(), log.committed());
        if end.0 != end.1 || log.epoch_at(end.0).is_none_or(|last| last > epoch) {
            return amiss(format!("its log is not committed, {}", self.describe(group)));
        }
        for id in &target {
            let Some(other) = self.live(*id).and_then(|live| live.replica.log()) else {
                return amiss(format!("replica {id} does not take part, {}", self.describe(group)));
            };
            let replica = &self.live(*id)?.replica;
            if (other.last_index(), other.committed()) != end
                || replica.membership() != membership
                || replica.abstains()
            {
                return amiss(format!("replica {id} is behind, {}", self.describe(group)));
            }
        }
        let waiting = self.producers.iter().filter(|producer| producer.group == group);
        if waiting.clone().any(|producer| !producer.waiting.is_empty()) {
            return amiss(format!("producers wait, {}", self.describe(group)));
        }
        None
    }

    fn check_end(&mut self, group: GroupId) -> Result<(), Violation> {
        for id in self.cluster.groups[group].target.clone() {
            self.check_whole_log(group, id)?;
        }
        let Some((_, leader, _)) = self.leader(group) else {
            violated!("group {group} lost its leader at the end");
        };
        let log = self.live(leader).and_then(|live| live.replica.log());
        let log = log.expect("a leader has a log");
        self.truths[group].on_end(log.committed(), log.state().log_start.offset)
    }

    /// A consumer reads all of a replica, from its log start to its high watermark.
    fn check_whole_log(&self, group: GroupId, id: ReplicaId) -> Result<(), Violation> {
        let log = self.live(id).and_then(|live| live.replica.log());
        let view = log.map(PartitionLog::view).expect("the group is well").read();
        let what = format!("a consumer of replica {id} of group {group}");
        let mut from = view.log_start_offset;
        while from < view.high_watermark {
            let records = view.read(from, view.high_watermark, 3000, true);
            let records = records.map_err(|error| Violation(format!("{what}: {error}")))?;
            let mut bytes = Vec::new();
            for slice in &records {
                let slice = slice.bytes().map_err(|error| Violation(format!("{what}: {error}")))?;
                bytes.extend_from_slice(&slice);
            }
            let next =
                self.truths[group].on_read(&what, from, view.high_watermark, &bytes.into())?;
            if next <= from {
                violated!("{what} gets nothing at {from}");
            }
            from = next;
        }
        if view.high_watermark != self.truths[group].end_offset() {
            violated!("{what} ends at {}", view.high_watermark);
        }
        Ok(())
    }
}
