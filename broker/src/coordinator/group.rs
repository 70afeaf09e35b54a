//! Groups: their members, and the offsets they commit.
//!
//! [`GroupShard`] is the coordinator of the groups that hash to one partition of
//! `__consumer_offsets`. It is a plain state machine: the caller gives it requests, the time and
//! what the log committed, and carries out the [`Effect`]s in order. It never sees a log, a socket
//! or a clock, and the same calls give the same effects.
//!
//! Every replica of the partition has a shard and applies committed records to it; only the
//! leader's handles requests. What survives a failover is in the records ([`records`]): committed
//! offsets, and each group as of its last finished rebalance. Sessions, parked requests and a
//! rebalance under way are the leader's own and are lost with the leadership; the members find the
//! next leader and go on.
//!
//! Two rules keep answers true. What the log has not committed is never shown: reads look at the
//! committed part, and the answer to a change leaves when its records are committed. And a decision
//! sees everything decided before it: it looks at what is appended as well.
//!
//! The semantics are those of Kafka's `GroupMetadataManager`, `OffsetMetadataManager` and
//! `ClassicGroup`, for the classic protocol.

pub mod assignment;
pub mod classic;
pub mod config;
mod describe;
mod desk;
mod expiry;
pub mod history;
pub mod ids;
mod join;
mod leave;
mod ledger;
pub mod member;
mod offsets;
pub mod records;
mod refusal;
pub mod request;
pub mod response;
pub mod state;
pub mod subscription;
pub mod summary;
mod sync;
mod timers;
mod wire;

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use vltava_protocol::ErrorCode;
use vltava_protocol::ids::Timestamp;

pub use self::config::GroupConfig;
pub use self::records::GroupRecord;
pub use self::request::GroupRequest;
pub use self::response::GroupResponse;
pub use super::overlay::Seq;
pub use super::shard::Token;
pub use wire::DecodeError;

use self::classic::ClassicGroup;
use self::desk::Desk;
use self::ids::GroupId;
use self::ledger::{AfterCommit, Ledger, Place};
use self::records::OffsetKey;
use self::summary::Counters;
use self::timers::{Timer, Timers};

/// What a shard wants done, in order.
pub type Effect = super::shard::Effect<GroupRecord, GroupResponse>;

/// The coordinator of the groups of one partition.
#[derive(Debug)]
pub struct GroupShard {
    config: GroupConfig,
    rng: ChaCha8Rng,
    leading: bool,
    ledger: Ledger,
    /// On a leader: every group that has metadata, offsets or members.
    groups: BTreeMap<GroupId, ClassicGroup>,
    timers: Timers,
    /// The last group whose offsets were looked at, while a look for expired ones is under way.
    expiry_cursor: Option<GroupId>,
    counters: Counters,
}

impl GroupShard {
    /// An empty shard, following. `seed` is for the ids that it gives to members: a random one,
    /// or two leaders could give the same id.
    pub fn new(config: GroupConfig, seed: u64) -> Self {
        Self {
            config,
            rng: ChaCha8Rng::seed_from_u64(seed),
            leading: false,
            ledger: Ledger::default(),
            groups: BTreeMap::new(),
            timers: Timers::default(),
            expiry_cursor: None,
            counters: Counters::default(),
        }
    }

    /// Takes over another configuration; what is scheduled already stays so.
    pub fn set_config(&mut self, config: GroupConfig) {
        self.config = config;
    }

    /// Whether this node leads the partition, as far as the shard was told.
    pub fn is_leading(&self) -> bool {
        self.leading
    }

    /// Applies a committed record: while loading, and on followers.
    ///
    /// # Panics
    /// When leading: a leader's records are committed by [`on_committed`](Self::on_committed).
    pub fn apply_committed(&mut self, record: GroupRecord) {
        assert!(!self.leading, "a leader applies its own appends");
        match record {
            GroupRecord::Offset(key, value) => self.ledger.offsets.apply_committed(key, value),
            GroupRecord::Group(group_id, value) => {
                self.ledger.metadata.apply_committed(group_id, value);
            }
        }
    }

    /// Begins to lead, with everything committed by earlier leaders applied. Groups are as of
    /// their last finished rebalance, and the sessions of their members begin anew.
    ///
    /// # Panics
    /// When leading already.
    pub fn on_elected(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        assert!(!self.leading, "leads already");
        self.leading = true;
        for (group_id, metadata) in self.ledger.metadata.iter_committed() {
            let group = ClassicGroup::load(group_id.clone(), metadata, now);
            self.groups.insert(group_id.clone(), group);
        }
        let mut last = None;
        for (OffsetKey { group_id, .. }, _) in self.ledger.offsets.iter_committed() {
            // Offsets are by group: one look a group.
            if last != Some(group_id) && !self.groups.contains_key(group_id) {
                self.groups.insert(group_id.clone(), ClassicGroup::new(group_id.clone(), now));
            }
            last = Some(group_id);
        }
        self.schedule_expiry(now);
        let ids: Vec<GroupId> = self.groups.keys().cloned().collect();
        for group_id in ids {
            self.with_group(&group_id, now, out, ClassicGroup::resume);
        }
    }

    /// Leads no more. What was appended and not committed is forgotten (if it is committed after
    /// all, it comes by [`apply_committed`](Self::apply_committed)), and everybody who waits is
    /// told `NOT_COORDINATOR`.
    pub fn on_lost(&mut self, out: &mut Vec<Effect>) {
        self.leading = false;
        self.ledger.lose(out);
        self.groups.clear();
        self.timers.clear();
        self.expiry_cursor = None;
    }

    /// Handles a request. The answer comes at once, or later under `token`.
    pub fn handle(
        &mut self,
        token: Token,
        request: GroupRequest,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let response = match request.check() {
            _ if !self.leading => Err(ErrorCode::NotCoordinator),
            Err(code) => Err(code),
            Ok(()) => match request {
                GroupRequest::Join(request) => Ok(self.join(token, &request, now, out)),
                GroupRequest::Sync(request) => self.sync(token, request, now, out),
                GroupRequest::Heartbeat(request) => self.heartbeat(&request, now).map(Some),
                GroupRequest::Leave(request) => Ok(self.leave(token, &request, now, out)),
                GroupRequest::OffsetCommit(request) => self.commit(token, request, now, out),
                GroupRequest::OffsetFetch(request) => Ok(self.fetch(token, &request, out)),
                GroupRequest::Describe(request) => Ok(Some(self.describe(&request))),
                GroupRequest::List(request) => Ok(Some(self.list(&request))),
                GroupRequest::Delete(request) => self.delete(token, &request, out),
                GroupRequest::OffsetDelete(request) => self.delete_offsets(token, &request, out),
            },
        };
        let response = response.unwrap_or_else(|code| Some(GroupResponse::Failed(code)));
        if let Some(response) = response {
            out.push(Effect::Reply { token, response });
        }
    }

    /// All appends up to `seq` are committed. In the order of the appends, but not necessarily
    /// for each.
    pub fn on_committed(&mut self, seq: Seq, now: Timestamp, out: &mut Vec<Effect>) {
        if !self.leading {
            return;
        }
        while let Some(after) = self.ledger.commit(seq) {
            match after {
                AfterCommit::Reply(token, response) => self.ledger.reply(token, response, out),
                AfterCommit::Created(_) => {}
                AfterCommit::Assigned { group_id, generation, assignments } => {
                    self.with_group(&group_id, now, out, |group, desk| {
                        group.assigned(generation, &assignments, desk);
                    });
                }
                AfterCommit::StaticReplaced {
                    group_id,
                    member_id,
                    leader,
                    can_skip_assignment,
                    ..
                } => {
                    self.with_group(&group_id, now, out, |group, desk| {
                        group.static_replaced(&member_id, leader, can_skip_assignment, desk);
                    });
                }
            }
        }
    }

    /// The log did not take the append `seq`, nor any after it: they never were. `code` says why,
    /// as Produce would.
    pub fn on_refused(&mut self, seq: Seq, code: ErrorCode, now: Timestamp, out: &mut Vec<Effect>) {
        if !self.leading {
            return;
        }
        let (taken_back, hanging) = self.ledger.refuse(seq);
        for group_id in taken_back {
            self.restore(&group_id, now);
        }
        for after in hanging {
            self.refused(after, code, now, out);
        }
    }

    /// Does what is due: sessions that expired, rebalances that waited long enough, offsets that
    /// nobody needs any more.
    pub fn on_time(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        while let Some(timer) = self.timers.take_due(now) {
            match timer {
                Timer::Session(group_id, member_id) => {
                    self.with_group(&group_id, now, out, |group, desk| {
                        group.session_timer(&member_id, desk);
                    });
                }
                Timer::Join(group_id) => {
                    self.with_group(&group_id, now, out, ClassicGroup::join_timer);
                }
                Timer::Sync(group_id) => {
                    self.with_group(&group_id, now, out, ClassicGroup::sync_timer);
                }
                Timer::Expiry => {
                    // Looks at a part and sets itself again, so that others get their turn.
                    self.expire_offsets(now, out);
                    return;
                }
            }
        }
    }

    /// When [`on_time`](Self::on_time) should be called next. May change with every call.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.timers.next()
    }

    /// The connection that asked has gone: `token` is not answered any more. A member stays one,
    /// and counts as having asked.
    pub fn cancel(&mut self, token: Token) {
        match self.ledger.cancel(token) {
            Some(Place::Join(group_id, member_id)) => {
                let member = self.groups.get_mut(&group_id).and_then(|g| g.member_mut(&member_id));
                if let Some(waiting) = member.and_then(|member| member.join.as_mut()) {
                    waiting.forget(token);
                }
            }
            Some(Place::Sync(group_id, member_id)) => {
                let member = self.groups.get_mut(&group_id).and_then(|g| g.member_mut(&member_id));
                if let Some(waiting) = member.and_then(|member| member.sync.as_mut()) {
                    waiting.forget(token);
                }
            }
            Some(Place::Commit) | None => {}
        }
    }

    /// Everything that is committed, for a snapshot: applied to an empty shard, it gives this one.
    pub fn iter_committed(&self) -> impl Iterator<Item = GroupRecord> {
        let groups = self.ledger.metadata.iter_committed();
        let groups = groups.map(|(id, value)| GroupRecord::Group(id.clone(), Some(value.clone())));
        let offsets = self.ledger.offsets.iter_committed();
        let offsets =
            offsets.map(|(key, value)| GroupRecord::Offset(key.clone(), Some(value.clone())));
        groups.chain(offsets)
    }

    /// Lets a group act, if it is there.
    fn with_group(
        &mut self,
        group_id: &str,
        now: Timestamp,
        out: &mut Vec<Effect>,
        act: impl FnOnce(&mut ClassicGroup, &mut Desk<'_>),
    ) {
        if let Some(group) = self.groups.get_mut(group_id) {
            let mut desk = Desk {
                config: &self.config,
                ledger: &mut self.ledger,
                timers: &mut self.timers,
                counters: &mut self.counters,
                now,
                out,
            };
            act(group, &mut desk);
        }
    }
}

#[cfg(test)]
mod tests;
