//! Clients of the simulated cluster: they find a leader, produce, retry, read and remember.

use bytes::Bytes;
use rand::RngExt;
use vltava::replica::group::{PartitionGroup, Role};
use vltava::replica::shell::{AppendRefused, Placed};
use vltava_protocol::ids::{LeaderEpoch, Offset, ProducerId, Timestamp};
use vltava_storage::ids::{LogIndex, ReplicaId};
use vltava_storage::log::{Durability, PartitionLog, ReadError};
use vltava_storage::slice::LogSlice;

use super::{Kept, Live, Reply, World};
use crate::cluster::GroupId;
use crate::network::NodeId;
use crate::workload::{Acks, Outgoing, Producer, Token};

/// Slices that readers hold on to, over a whole history.
const KEPT_MAX: usize = 64;

/// What a refused batch must leave as it was: the term, the role, and both ends of the log.
fn standing(live: &Live) -> Option<(u64, Role, LogIndex, Offset)> {
    let (group, log) = (live.replica.group()?, live.replica.log()?);
    Some((group.term(), group.role(), log.last_index(), log.end_offset()))
}

impl World {
    /// A new producer of a group; answers its number.
    pub fn add_producer(&mut self, group: GroupId, acks: Acks) -> usize {
        let id = self.new_producer_id();
        self.producers.push(Producer::new(group, acks, id));
        self.producers.len() - 1
    }

    fn new_producer_id(&mut self) -> ProducerId {
        self.next_producer_id += 1;
        ProducerId(self.next_producer_id)
    }

    /// A producer has something new to say.
    pub(crate) fn produce(&mut self, producer: usize, records: i32, value_bytes: usize) {
        let now = self.now;
        if self.producers[producer].produce(records, value_bytes, now) {
            self.coverage.hit("batch produced");
        }
        self.send_waiting(producer);
    }

    /// Clients look at their clocks.
    pub(super) fn clients(&mut self) {
        for producer in 0..self.producers.len() {
            if self.producers[producer].is_overdue(self.now) {
                self.coverage.hit("batches sent again after a time-out");
                self.producers[producer].resend_all();
            }
            self.send_waiting(producer);
        }
    }

    /// Sends what was not sent to the present leader, in order, until it refuses.
    fn send_waiting(&mut self, producer: usize) {
        let group = self.producers[producer].group;
        let Some((node, id, epoch)) = self.leader_for_clients(group) else { return };
        let mut at = 0;
        while let Some(outgoing) = self.producers[producer].waiting.get(at) {
            if outgoing.sent.is_some_and(|(_, known, _)| known >= epoch) {
                at += 1;
                continue;
            }
            if !self.producers[producer].follows(at, (id, epoch)) {
                self.producers[producer].resend_all();
                at = 0;
                continue;
            }
            let outgoing = outgoing.clone();
            match self.append(node, id, &outgoing) {
                Some(Ok(placed)) => {
                    let sent = Some((id, epoch, self.now));
                    self.producers[producer].waiting[at].sent = sent;
                    if !self.placed(producer, node, id, &outgoing, placed) {
                        at += 1;
                    }
                }
                Some(Err(AppendRefused::Producer(error))) => {
                    if !self.truths[group].is_newest(epoch) {
                        // A deposed leader does not know what came after it.
                        return self.producers[producer].resend_all();
                    }
                    return self.sequence_refused(producer, &error.to_string());
                }
                Some(Err(_)) => {
                    self.coverage.hit("append refused");
                    return self.producers[producer].resend_all();
                }
                None => return,
            }
        }
    }

    pub(super) fn append(
        &mut self,
        node: NodeId,
        id: ReplicaId,
        outgoing: &Outgoing,
    ) -> Option<Result<Placed, AppendRefused>> {
        let now = Timestamp((self.now / 1000) as i64);
        let sequence = outgoing.sequence;
        let before = self.live(id).map(standing);
        let result = self.drive(node, id, |replica, output| {
            replica.append(&outgoing.batch, &outgoing.header, now, output)
        });
        let is_refused = matches!(
            result,
            Some(Err(AppendRefused::Log(_) | AppendRefused::Burnt | AppendRefused::Producer(_)))
        );
        if is_refused && self.live(id).map(standing) != before {
            self.violate(format!("replica {id} refused a batch, and is not as it was before"));
        }
        let producer = outgoing.header.producer_id;
        self.note(|| match &result {
            Some(Ok(placed)) => {
                format!("producer {producer} sequence {sequence} at {id}: {placed:?}")
            }
            Some(Err(error)) => format!("producer {producer} sequence {sequence} at {id}: {error}"),
            None => format!("producer {producer} finds {id} gone"),
        });
        result
    }

    /// A leader took a batch. Answers whether the producer is done with it.
    pub(super) fn placed(
        &mut self,
        producer: usize,
        node: NodeId,
        id: ReplicaId,
        outgoing: &Outgoing,
        placed: Placed,
    ) -> bool {
        let Producer { acks, group, id: producer_id, .. } = self.producers[producer];
        let base_offset = placed.base_offset;
        let token = Token { producer, id: producer_id, sequence: outgoing.sequence, base_offset };
        if placed.is_duplicate {
            self.coverage.hit("duplicate recognized");
        }
        if acks == Acks::Leader {
            self.producers[producer].acknowledged(token);
            return true;
        }
        if self.machines[node].is_damaged {
            return false;
        }
        let Some(broker) = &mut self.machines[node].broker else { return false };
        let Some(super::Slot::Open(live)) = broker.slots.get_mut(&id) else { return false };
        // An original of a page-cache time is no safer than it was.
        let is_lazy = placed.is_duplicate && self.cluster.groups[group].was_page_cache;
        let state = live.replica.group().filter(|_| !is_lazy);
        let durability = state.map_or(Durability::PageCache, PartitionGroup::durability);
        let committed = live.replica.log().map(PartitionLog::committed).unwrap_or_default();
        if placed.index <= committed {
            self.acks.push(Reply { node, group, token, durability });
        } else {
            live.pending.push(placed.index, placed.epoch, (token, durability));
        }
        false
    }

    fn sequence_refused(&mut self, producer: usize, error: &str) {
        let Producer { acks, group, .. } = self.producers[producer];
        if acks == Acks::All && !self.truths[group].may_have_lost() {
            return self.violate(format!("an acks=all producer of group {group} is told: {error}"));
        }
        self.coverage.hit("producer began again after a loss");
        let id = self.new_producer_id();
        let now = self.now;
        self.producers[producer].begin_again(id, now);
    }

    /// A producer hears that its batch is committed.
    pub(super) fn acknowledge(&mut self, reply: Reply) {
        let Reply { group, token, durability, .. } = reply;
        let Some(outgoing) = self.producers[token.producer].acknowledged(token) else { return };
        self.coverage.hit("batch acknowledged");
        self.note(|| format!("acknowledged: {token:?} {durability:?}"));
        self.check(|world| {
            world.truths[group].on_acked(token.base_offset, &outgoing.batch, durability)
        });
    }

    /// A producer sends a batch again that it was told is committed: the answer must be the same.
    pub(crate) fn repeat(&mut self, producer: usize) {
        let group = self.producers[producer].group;
        if self.producers[producer].acks != Acks::All {
            return;
        }
        let Some((outgoing, offset)) = self.producers[producer].recent.back().cloned() else {
            return;
        };
        let Some((node, id, epoch)) = self.leader_for_clients(group) else { return };
        if let Some(Ok(placed)) = self.append(node, id, &outgoing) {
            self.coverage.hit("acknowledged batch sent again");
            // A deposed leader may not know it, or elsewhere; what it took it will not acknowledge.
            let may_differ =
                self.truths[group].may_have_lost() || !self.truths[group].is_newest(epoch);
            if !(may_differ || placed.is_duplicate && placed.base_offset == offset) {
                self.violate(format!(
                    "a batch acknowledged at {offset} was taken again at {}",
                    placed.base_offset
                ));
            }
        }
    }

    /// The leader as a client would find it: most often the newest, sometimes a deposed one.
    fn leader_for_clients(&mut self, group: GroupId) -> Option<(NodeId, ReplicaId, LeaderEpoch)> {
        let lives = self.lives(group).into_iter();
        let leading: Vec<_> = lives
            .filter_map(|(node, id, live)| Some((node, id, live.replica.leading()?)))
            .collect();
        if leading.len() > 1 && self.rng.random_bool(0.3) {
            self.coverage.hit("client found a deposed leader");
            return leading.into_iter().min_by_key(|(_, _, epoch)| *epoch);
        }
        leading.into_iter().max_by_key(|(_, _, epoch)| *epoch)
    }

    /// Reads from some replica, from somewhere in its log.
    pub(crate) fn read(&mut self, group: GroupId, pick: usize, permille: u64, max_bytes: usize) {
        let lives = self.lives(group);
        if lives.is_empty() {
            return;
        }
        let (node, id, live) = lives[pick % lives.len()];
        let Some(log) = live.replica.log() else { return };
        let view = log.view().read();
        let span = (view.high_watermark.0 - view.log_start_offset.0).max(0) as u64;
        let from = Offset(view.log_start_offset.0 + (span * permille / 1000) as i64);
        let slices = match view.read(from, view.high_watermark, max_bytes, true) {
            Ok(slices) => slices,
            Err(error) => return self.read_failed(node, id, &error),
        };
        let records: Result<Vec<Bytes>, _> = slices.iter().map(LogSlice::bytes).collect();
        let records = match records {
            Ok(records) => records,
            Err(error) => return self.read_failed(node, id, &ReadError::Io(error)),
        };
        if records.is_empty() && from < view.high_watermark {
            return self.violate(format!("replica {id} hands out nothing at {from}"));
        }
        self.coverage.hit("read");
        let what = format!("a reader of replica {id}");
        let all: Bytes = records.concat().into();
        match self.truths[group].on_read(&what, from, view.high_watermark, &all) {
            Err(_) if self.machines[node].is_damaged => self.coverage.hit("damage read"),
            Err(violation) => self.violate(violation.0),
            Ok(_) => self.keep(node, slices, records),
        }
    }

    fn read_failed(&mut self, node: NodeId, id: ReplicaId, error: &ReadError) {
        if self.machines[node].is_damaged {
            return self.coverage.hit("damage read");
        }
        self.violate(format!("replica {id} cannot be read: {error}"));
    }

    /// A slow reader holds on to a slice; it must never change.
    fn keep(&mut self, node: NodeId, slices: Vec<LogSlice>, records: Vec<Bytes>) {
        let kernel = self.machines[node].boots;
        let kept = slices.into_iter().zip(records);
        let kept = kept.map(|(slice, bytes)| Kept { node, kernel, slice, bytes });
        self.kept.extend(kept.take(2));
        while self.kept.len() > KEPT_MAX {
            let oldest = self.kept.remove(0);
            self.check_kept(&oldest);
        }
    }

    /// Every slice that readers still hold is as it was.
    pub(crate) fn check_all_kept(&mut self) {
        for kept in std::mem::take(&mut self.kept) {
            self.check_kept(&kept);
        }
    }

    fn check_kept(&mut self, kept: &Kept) {
        let machine = &self.machines[kept.node];
        if machine.boots != kept.kernel || machine.broker.is_none() || machine.is_damaged {
            return;
        }
        self.coverage.hit("old slice checked");
        match kept.slice.bytes() {
            Ok(bytes) if bytes == kept.bytes => {}
            Ok(_) => self.violate("a slice changed while a reader held it".to_owned()),
            Err(error) => self.violate(format!("a slice that a reader holds is gone: {error}")),
        }
    }

    /// A client asks the leader to delete records up to somewhere.
    pub(crate) fn delete_records(&mut self, group: GroupId, permille: u64) {
        let Some((node, id, _)) = self.leader(group) else { return };
        let Some(log) = self.live(id).and_then(|live| live.replica.log()) else { return };
        let (start, high_watermark) = (log.state().log_start.offset, log.high_watermark());
        let span = (high_watermark.0 - start.0) as u64;
        let offset = Offset(start.0 + (span * permille / 1000) as i64);
        if offset <= start {
            return;
        }
        let result =
            self.drive(node, id, |replica, output| replica.propose_log_start(offset, output));
        if let Some(Ok(_)) = result {
            self.coverage.hit("log start proposed");
            self.note(|| format!("log start {offset} proposed at {id}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{PlannedCut, Setup, TICK};

    /// What the broker of one node answers does not get lost because the power of another fails: a
    /// client would send that batch again when five later ones were answered, too late for any broker
    /// to recognize it.
    #[test]
    fn an_answer_is_lost_only_with_the_node_that_gives_it() {
        for is_leaders in [false, true] {
            let mut world = World::new(Setup {
                nodes: 3,
                groups: vec![(vec![0, 1, 2], Durability::Fsync)],
                segment_bytes: 4000,
                wal_bytes: 16_384,
                append_bytes_max: 1 << 20,
                write_bytes_max: 4096,
                seed: 7,
            });
            let producer = world.add_producer(0, Acks::All);
            world.run_until(60 * TICK).expect("all is well");
            world.produce(producer, 1, 10);
            world.run_until(70 * TICK).expect("all is well");
            let (outgoing, _) = world.producers[producer].recent.pop_back().expect("acknowledged");
            world.producers[producer].waiting.push_back(Outgoing { sent: None, ..outgoing });
            let (leader, ..) = world.leader(0).expect("it acknowledged");
            let node = if is_leaders { leader } else { (leader + 1) % 3 };
            world.machines[node].cut_at = Some(PlannedCut { op: 0, seed: 1, down: TICK });
            world.send_waiting(producer);
            world.end_event().expect("all is well");
            assert_eq!(world.producers[producer].waiting.is_empty(), !is_leaders);
        }
    }
}
