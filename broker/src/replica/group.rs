//! The state machine of one partition's replication: Raft, without a clock, a disk or a socket.
//!
//! Messages, ticks and proposals go in, [`Step`]s come out. This file, its conversions and
//! `log_store` are the only ones that know the `raft` crate; everything else sees our own types.
//!
//! **Invariants**
//! - A proposal was checked against every cause of a drop and written at the log's unpublished tail
//!   before it is stepped (raft has no un-append), so a dropped proposal is a bug.
//! - Election timeouts come from this group's own seeded generator: one seed, one history.
//! - Every message of a peer is range-checked before raft sees it: raft-rs panics by design on
//!   impossible indexes.

use protobuf::Message as _;
use raft::prelude::{
    ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, Entry,
    EntryType, Message, MessageType,
};
use raft::{Config, ProgressState, RawNode, ReadOnlyOption, SnapshotStatus, StateRole};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vltava_protocol::ids::Offset;
use vltava_protocol::record::control::{InternalBatch, InternalKind};
use vltava_storage::bugs::{Bug, planted};
use vltava_storage::ids::{LogIndex, ReplicaId};
use vltava_storage::log::{Durability, PartitionLog};
use vltava_storage::state::{Membership, VoteState};

mod check;
mod convert;
mod progress;

use convert::{from_entry, from_raft, into_raft};

use super::effects::{Effect, Step};
use super::log_store::{LogStore, conf_state, internal, membership, term_of};
use super::membership::{MemberRole, MembershipStep};
use super::message::{PeerBody, PeerMessage};

/// Bytes of entries in one append message, unless a single entry is larger.
const APPEND_BYTES_MAX: u64 = 1 << 20;
/// Bytes of committed entries, without payload, in one step.
const COMMITTED_BYTES_MAX: u64 = 1 << 20;
/// Append messages on their way to one follower.
const INFLIGHT_MAX: usize = 256;

/// How a group keeps time, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct GroupConfig {
    /// Ticks without a leader's word after which a follower campaigns (up to twice as many).
    pub election_ticks: u16,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: u16,
    /// Bytes of entries in one append message, unless a single entry is larger.
    pub append_bytes_max: u64,
    /// Seed of the election timeouts.
    pub seed: u64,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self { election_ticks: 10, heartbeat_ticks: 2, append_bytes_max: APPEND_BYTES_MAX, seed: 0 }
    }
}

/// What a replica is at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Appends what clients send.
    Leader,
    /// Asks for votes.
    Candidate,
    /// Copies a leader's log.
    Follower,
}

/// Why a group does not take a proposal. Nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProposeRefused {
    /// Another replica leads, or none.
    #[error("not the leader")]
    NotLeader,
    /// Leadership is being handed over.
    #[error("leadership is being transferred")]
    Transferring,
    /// This leader was removed from its own group.
    #[error("no longer a member of the group")]
    NotMember,
    /// An earlier change of membership may not be applied yet.
    #[error("a change of membership is under way")]
    Changing,
}

/// Why a peer's message was dropped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MessageRefused {
    /// It is not for this replica, or names nobody as its sender.
    #[error("message from {from} to {to} reached replica {replica}")]
    Misaddressed {
        /// Its sender.
        from: ReplicaId,
        /// Its addressee.
        to: ReplicaId,
        /// Who got it.
        replica: ReplicaId,
    },
    /// A leader lacks what was committed here: too few voters of a page-cache topic kept their log,
    /// and this replica, which had more, was not asked. It must be replaced.
    #[error("the leader {from} lacks what was committed here at index {index}")]
    Diverged {
        /// The leader.
        from: ReplicaId,
        /// Where the logs differ.
        index: LogIndex,
    },
    /// Its numbers cannot be.
    #[error("impossible message from {from}: {what}")]
    Impossible {
        /// Its sender.
        from: ReplicaId,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// A committed entry that changes more than the high watermark.
#[derive(Debug)]
enum Applied {
    Membership(LogIndex, Membership),
    LogStart(LogIndex, Offset),
}

/// One replica's view of its group.
pub struct PartitionGroup {
    id: ReplicaId,
    node: RawNode<LogStore>,
    config: GroupConfig,
    rng: ChaCha8Rng,
    /// The step that was handed out and not finished.
    current: Option<raft::Ready>,
    /// The step that installed a snapshot and is not durable, and the snapshot's index. Until then
    /// raft has not applied it, and would look for the entries that it stands for if it campaigned.
    installing: Option<(u64, u64)>,
    /// What `commit_to` was last told.
    committed: LogIndex,
    durability: Durability,
    last_seen: (u64, StateRole),
    /// Raft's own, as ours: asked on every tick of every group.
    membership: Membership,
}

impl PartitionGroup {
    /// A group over what its log remembers. Everything in the log must be durable: raft counts it
    /// as persisted.
    pub fn new(log: PartitionLog, durability: Durability, config: GroupConfig) -> Self {
        let id = log.replica();
        let applied = log.state().vote.commit;
        // What is committed here may be ahead of what raft will know again.
        let committed = applied.max(log.committed());
        let raft_config = Config {
            id: id.0,
            election_tick: usize::from(config.election_ticks),
            heartbeat_tick: usize::from(config.heartbeat_ticks),
            applied: applied.0,
            max_size_per_msg: config.append_bytes_max,
            max_inflight_msgs: INFLIGHT_MAX,
            // Room is our own count of bytes: raft subtracts what it reads back, and it reads back
            // entries without payload.
            max_uncommitted_size: raft::NO_LIMIT,
            max_committed_size_per_ready: COMMITTED_BYTES_MAX,
            check_quorum: true,
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&raft_config, LogStore::new(log), &logger)
            .expect("the configuration is valid and the log answers from memory");
        let rng = ChaCha8Rng::seed_from_u64(config.seed ^ id.0.rotate_left(32));
        let last_seen = (node.raft.term, node.raft.state);
        let mut group = Self {
            id,
            node,
            config,
            rng,
            current: None,
            installing: None,
            committed,
            durability,
            last_seen,
            membership: Membership::default(),
        };
        group.learn_membership();
        group.draw_election_timeout();
        group
    }

    /// The replica's log.
    pub fn log(&self) -> &PartitionLog {
        &self.node.store().log
    }

    /// The replica's log, to write to.
    pub fn log_mut(&mut self) -> &mut PartitionLog {
        &mut self.node.mut_store().log
    }

    /// Gives the log back; the group ends.
    pub fn into_log(self) -> PartitionLog {
        self.node.raft.r.raft_log.store.log
    }

    /// This replica.
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// The present term.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// What this replica is.
    pub fn role(&self) -> Role {
        match self.node.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Follower => Role::Follower,
        }
    }

    /// The leader of the present term, if this replica knows it.
    pub fn leader(&self) -> Option<ReplicaId> {
        match self.node.raft.leader_id {
            0 => None,
            id => Some(ReplicaId(id)),
        }
    }

    /// Whether this leader may answer for the high watermark: an entry of its own term is
    /// committed, so its commit index is not behind any other's (Ongaro, §6.4).
    pub fn is_confirmed(&self) -> bool {
        if self.role() != Role::Leader {
            return false;
        }
        if planted(Bug::HighWatermarkAnsweredEarly) {
            return true;
        }
        self.log()
            .epoch_at(LogIndex(self.node.raft.raft_log.committed))
            .is_some_and(|epoch| term_of(epoch) == self.term())
    }

    /// Who takes part.
    pub fn membership(&self) -> Membership {
        self.membership.clone()
    }

    /// Whether anybody else takes part, voter or learner.
    pub fn has_peers(&self) -> bool {
        !self.is_lone_voter() || !self.membership.learners.is_empty()
    }

    /// Whether this replica is all the voters there are: it needs nobody's word.
    pub fn is_lone_voter(&self) -> bool {
        self.membership.voters == [self.id] && self.membership.outgoing.is_empty()
    }

    /// How far each other replica is known to match this leader's log; empty if it does not lead.
    pub fn matched(&self) -> Vec<(ReplicaId, LogIndex)> {
        if self.role() != Role::Leader {
            return Vec::new();
        }
        let progress = self.node.raft.prs().iter();
        progress.map(|(id, progress)| (ReplicaId(*id), LogIndex(progress.matched))).collect()
    }

    /// When entries of this group count as persisted.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// The topic's contract changed.
    pub fn set_durability(&mut self, durability: Durability) {
        self.durability = durability;
        self.log_mut().set_durability(durability);
    }

    /// Time passes.
    pub fn tick(&mut self) {
        if self.installing.is_some() {
            return;
        }
        self.node.tick();
        self.draw_election_timeout();
    }

    /// Asks for votes now, if it is a voter: raft would let one without a vote elect itself.
    pub fn campaign(&mut self) {
        if !self.node.raft.promotable() || self.installing.is_some() {
            return;
        }
        // The only error is that a message could not be stepped, which a local one cannot cause.
        let _ = self.node.campaign();
        self.draw_election_timeout();
    }

    /// Whether a batch may be proposed: every cause of a drop that raft has.
    pub fn check_propose(&self) -> Result<(), ProposeRefused> {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            return Err(ProposeRefused::NotLeader);
        }
        if raft.lead_transferee.is_some() {
            return Err(ProposeRefused::Transferring);
        }
        if raft.prs().get(self.id.0).is_none() {
            return Err(ProposeRefused::NotMember);
        }
        Ok(())
    }

    /// Proposes the batches that the log wrote ahead, after [`PartitionGroup::check_propose`].
    ///
    /// # Panics
    /// If raft drops them: the checks are incomplete, and the written batch would be orphaned.
    pub fn propose_written(&mut self, batches: Vec<bytes::Bytes>) {
        let entries =
            batches.into_iter().map(|data| Entry { data, ..Entry::default() }).collect::<Vec<_>>();
        let message = Message {
            msg_type: MessageType::MsgPropose,
            from: self.id.0,
            entries: entries.into(),
            ..Message::default()
        };
        self.node.step(message).expect("every cause of a drop was checked before the write");
    }

    /// Proposes a change of membership, unless another one is under way: raft would append an empty
    /// entry in its place, for every time that somebody asks.
    pub fn propose_membership(&mut self, step: &MembershipStep) -> Result<(), ProposeRefused> {
        self.check_propose()?;
        if self.node.raft.has_pending_conf() {
            return Err(ProposeRefused::Changing);
        }
        assert!(!matches!(step, MembershipStep::Transfer(_)), "a transfer is no entry");
        let mut change = ConfChangeV2::default();
        if let MembershipStep::Change(members) = step {
            change.set_transition(ConfChangeTransition::Auto);
            for (replica, role) in members {
                let kind = match role {
                    MemberRole::Voter => ConfChangeType::AddNode,
                    MemberRole::Learner => ConfChangeType::AddLearnerNode,
                    MemberRole::Removed => ConfChangeType::RemoveNode,
                };
                let mut single = ConfChangeSingle { node_id: replica.0, ..Default::default() };
                single.set_change_type(kind);
                change.changes.push(single);
            }
        }
        self.node.propose_conf_change(Vec::new(), change).map_err(|_| ProposeRefused::Transferring)
    }

    /// Hands leadership to `target`, once it has the whole log.
    pub fn transfer_to(&mut self, target: ReplicaId) {
        if self.role() == Role::Leader && self.node.raft.prs().get(target.0).is_some() {
            self.node.transfer_leader(target.0);
        }
    }

    /// A peer could not be reached: what is in flight to it may be lost.
    pub fn report_unreachable(&mut self, peer: ReplicaId) {
        if self.node.raft.prs().get(peer.0).is_some() {
            self.node.report_unreachable(peer.0);
        }
    }

    /// The transfer of a snapshot to `peer` ended.
    pub fn report_snapshot(&mut self, peer: ReplicaId, arrived: bool) {
        let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        if self.node.raft.prs().get(peer.0).is_some() {
            self.node.report_snapshot(peer.0, status);
        }
    }

    /// Whether this leader waits for `peer` to install a snapshot.
    pub fn awaits_snapshot(&self, peer: ReplicaId) -> bool {
        let progress = self.node.raft.prs().get(peer.0);
        progress.is_some_and(|progress| progress.state == ProgressState::Snapshot)
    }

    /// A number that was most likely never drawn before, of the group's own generator.
    pub fn draw_nonce(&mut self) -> u64 {
        self.rng.random()
    }

    /// The leader has been silent for so long that another one may be elected: a replica that
    /// abstains does not hear time pass in raft, which would refuse every candidate for ever.
    pub fn forget_leader(&mut self) {
        if self.role() == Role::Follower && self.leader().is_some() {
            self.stand_down();
        }
    }

    /// Follows nobody, in the same term.
    fn stand_down(&mut self) {
        let term = self.term();
        self.node.raft.become_follower(term, raft::INVALID_ID);
        self.draw_election_timeout();
    }

    /// Whether something is known to be committed that was not applied yet: a change of membership
    /// may be among it.
    pub fn has_unapplied(&self) -> bool {
        self.node.raft.raft_log.applied < self.node.raft.raft_log.committed
    }

    /// Ranges that must be read into memory before they can be sent. After that,
    /// [`PartitionGroup::on_fetched`] sends them.
    pub fn take_fetches(&mut self) -> Vec<Fetch> {
        let fetches = self.node.store().take_fetches().into_iter();
        fetches.map(|(range, context)| Fetch { range, context }).collect()
    }

    /// What the log was found to hold that was never written.
    pub fn take_damage(&self) -> Option<String> {
        self.node.store().take_damage()
    }

    /// The range of `fetch` was read.
    pub fn on_fetched(&mut self, fetch: Fetch) {
        self.node.store().set_fetched(Some(fetch.range.start));
        self.node.on_entries_fetched(fetch.context);
        self.node.store().set_fetched(None);
    }

    /// A peer says something.
    pub fn step(&mut self, mut message: PeerMessage) -> Result<(), MessageRefused> {
        self.check(&message)?;
        self.count_ignorance(&mut message.body);
        if let PeerBody::Append { durability, .. } = &message.body
            && message.term >= self.term()
            && self.role() != Role::Leader
        {
            self.set_durability(*durability);
        }
        self.check_agreement(&message)?;
        if message.body == PeerBody::TimeoutNow && self.installing.is_some() {
            return Ok(());
        }
        let last_index = self.log().last_index();
        // An error means that the sender is no member, or that a proposal was dropped: neither is
        // worth a word.
        let _ = self.node.step(into_raft(message, last_index));
        self.draw_election_timeout();
        Ok(())
    }

    /// The segments of the snapshot in `message` have arrived: raft may take it.
    pub fn step_snapshot(&mut self, from: ReplicaId, term: u64, snapshot: ReceivedSnapshot) {
        let mut message = Message {
            msg_type: MessageType::MsgSnapshot,
            from: from.0,
            to: self.id.0,
            term,
            ..Message::default()
        };
        let raft_snapshot = message.mut_snapshot();
        raft_snapshot.data = snapshot.manifest;
        let metadata = raft_snapshot.mut_metadata();
        metadata.index = snapshot.index.0;
        metadata.term = snapshot.last_term;
        metadata.set_conf_state(conf_state(&snapshot.membership));
        let _ = self.node.step(message);
        self.learn_membership();
        self.draw_election_timeout();
    }

    /// The next step to execute, if there is work. [`PartitionGroup::finish`] must follow before
    /// anything else is asked of the group.
    pub fn next_step(&mut self) -> Option<Step> {
        assert!(self.current.is_none(), "a step is finished before the next one begins");
        let has_ready = self.node.has_ready();
        let committed = self.committed_index();
        if !has_ready && committed <= self.committed {
            return None;
        }
        let mut ready = self.node.ready();
        let mut effects = Vec::new();
        let before = self.log().state().vote;
        let vote_changed =
            ready.hs().is_some_and(|hs| (hs.term, hs.vote) != (before.term, before.vote));
        if let Some(hs) = ready.hs()
            && vote_changed
        {
            // The commit index is saved as applied, never above what is durable here.
            effects.push(Effect::SaveState(VoteState {
                term: hs.term,
                vote: hs.vote,
                commit: before.commit,
            }));
        }
        if !ready.snapshot().is_empty() {
            effects.push(Effect::Install);
        }
        let entries = ready.take_entries();
        if let Some(first) = entries.first() {
            let first = LogIndex(first.index);
            if first <= self.log().last_index() && ready.snapshot().is_empty() {
                effects.push(Effect::Cut(first));
            }
            effects.push(Effect::Write(entries.into_iter().map(from_entry).collect()));
        }
        if committed > self.committed {
            effects.push(Effect::Commit(committed));
            self.committed = committed;
        }
        let now = self.outgoing(ready.take_messages());
        if !now.is_empty() {
            effects.push(Effect::Send(now));
        }
        let held = self.outgoing(ready.take_persisted_messages());
        if !held.is_empty() {
            effects.push(Effect::Hold(held));
        }
        let (number, must_sync) = (ready.number(), ready.must_sync());
        self.current = Some(ready);
        Some(Step { number, vote_changed, must_sync, effects })
    }

    /// The current step was executed: its writes can be read from the log. Applies what it
    /// committed to the log's own state.
    pub fn finish(&mut self) {
        let mut ready = self.current.take().expect("next_step came before");
        let committed = ready.take_committed_entries();
        let (number, installed) = (ready.number(), ready.snapshot().get_metadata().index);
        self.node.advance_append_async(ready);
        if installed > 0 {
            self.installing = Some((number, installed));
        }
        let Some(last) = committed.last().map(|entry| LogIndex(entry.index)) else { return };
        for entry in committed {
            // The saved membership is never newer than the saved applied index: raft hands entries
            // past that out again, and a change cannot be applied twice.
            self.log_mut().set_applied(LogIndex(entry.index));
            match self.applied(&entry) {
                Some(Applied::Membership(index, membership)) => {
                    self.log_mut().set_membership(index, membership);
                }
                Some(Applied::LogStart(index, offset)) => {
                    self.log_mut().apply_log_start(index, offset);
                }
                None => {}
            }
        }
        self.node.advance_apply_to(last.0);
        if self.role() == Role::Leader && !self.node.raft.promotable() {
            // Raft leaves a leader that its group has removed in office, and panics when it next
            // looks for its own progress.
            self.stand_down();
        }
    }

    /// Every step up to `number` is durable.
    pub fn on_durable(&mut self, number: u64) {
        self.node.on_persist_ready(number);
        if let Some((step, index)) = self.installing
            && step <= number
        {
            self.installing = None;
            if self.node.raft.raft_log.applied < index {
                self.node.advance_apply_to(index);
            }
        }
    }

    /// Proposes what a leader owes its group without being asked: a joint configuration that an
    /// earlier leader did not leave. Whether it did.
    pub fn leave_stale_joint(&mut self) -> bool {
        let is_joint = !self.membership.outgoing.is_empty();
        is_joint
            && self.is_confirmed()
            && self.propose_membership(&MembershipStep::LeaveJoint).is_ok()
    }

    /// The end of what is committed. The quorum may commit before this replica's own disk has it.
    fn committed_index(&self) -> LogIndex {
        let raft = &self.node.raft;
        if planted(Bug::HighWatermarkWithoutOwnTerm) && raft.state == StateRole::Leader {
            let matched = raft.prs().iter().map(|(_, progress)| progress.matched);
            let mut matched: Vec<u64> = matched.collect();
            matched.sort_unstable_by(|a, b| b.cmp(a));
            let by_progress = matched[matched.len() / 2].min(raft.raft_log.persisted);
            return LogIndex(raft.raft_log.committed.max(by_progress));
        }
        LogIndex(raft.raft_log.committed)
    }

    fn applied(&mut self, entry: &Entry) -> Option<Applied> {
        let index = LogIndex(entry.index);
        let change = match entry.get_entry_type() {
            EntryType::EntryNormal => {
                let (kind, body) = internal(&entry.data)?;
                return match kind {
                    InternalKind::LogStart => {
                        let offset = InternalBatch::parse_log_start(&body)?;
                        Some(Applied::LogStart(index, offset))
                    }
                    _ => None,
                };
            }
            EntryType::EntryConfChange => {
                self.count_anew_behind(index);
                let mut change = ConfChange::default();
                change.merge_from_bytes(&entry.data).expect("raft parsed it when it was proposed");
                self.node.apply_conf_change(&change)
            }
            EntryType::EntryConfChangeV2 => {
                self.count_anew_behind(index);
                let mut change = ConfChangeV2::default();
                change.merge_from_bytes(&entry.data).expect("raft parsed it when it was proposed");
                self.node.apply_conf_change(&change)
            }
        };
        let state = change.expect("a change that does not fit was refused when it was proposed");
        self.learn_membership();
        Some(Applied::Membership(index, membership(&state)))
    }

    fn learn_membership(&mut self) {
        self.membership = membership(&self.node.raft.prs().conf().to_conf_state());
    }

    fn outgoing(&self, messages: Vec<Message>) -> Vec<PeerMessage> {
        let durability = self.durability;
        messages.into_iter().filter_map(|message| from_raft(message, durability)).collect()
    }

    /// Replaces the election timeout that raft drew from a generator of its own.
    fn draw_election_timeout(&mut self) {
        let seen = (self.node.raft.term, self.node.raft.state);
        if seen == self.last_seen && self.node.raft.election_elapsed != 0 {
            return;
        }
        self.last_seen = seen;
        let least = usize::from(self.config.election_ticks);
        let timeout = self.rng.random_range(least..2 * least);
        self.node.raft.set_randomized_election_timeout(timeout);
    }
}

/// Entries that must be read into memory before raft can send them.
#[derive(Debug)]
pub struct Fetch {
    /// Which.
    pub range: std::ops::Range<LogIndex>,
    context: raft::GetEntriesContext,
}

/// A snapshot whose segments have arrived.
#[derive(Clone, Debug)]
pub struct ReceivedSnapshot {
    /// The last index that it covers.
    pub index: LogIndex,
    /// The term of that entry.
    pub last_term: u64,
    /// The membership as of that index.
    pub membership: Membership,
    /// The encoded manifest.
    pub manifest: bytes::Bytes,
}
