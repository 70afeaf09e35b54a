//! One replica: a group's state machine, its log, and the order in which effects happen.
//!
//! The shell owns no thread, no clock and no socket. Whoever drives it (the broker's threads, the
//! simulator) calls it under the partition's lock, sends the [`Output::messages`] and delivers the
//! flusher's completed tickets to [`Replica::on_durable`].
//!
//! **Invariants** (each is a check of the simulator)
//! 1. While a changed term or vote is not durable, no message of that step or any later one leaves,
//!    leader or not: a lone voter becomes leader inside one step and would replicate an entry of a
//!    term that it can forget.
//! 2. A promise (vote, acknowledgement) leaves when its step and all before it are durable, state
//!    and entries alike.
//! 3. Raft learns that a step is persisted after both.
//! 4. Neither happens while a change of membership that was applied here is not in the row: who
//!    counts for a membership can tell of it after a restart. Nor while the row does not say that
//!    batches may be in memory only: after a power failure, a log that ended before its acknowledgements
//!    would pass for whole.
//! 5. A failed write after a step ends this replica's group, unsent: it begins again as a follower
//!    from what the log holds, once that is durable.
//! 6. A replica whose log reads back other than it was written is fenced.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use vltava_protocol::ids::{LeaderEpoch, Offset};
use vltava_protocol::record::batch::BatchHeader;
use vltava_protocol::record::control::{InternalBatch, InternalKind};
use vltava_storage::bugs::{Bug, planted};
use vltava_storage::flush::FlushItem;
use vltava_storage::flusher::FlushQueue;
use vltava_storage::ids::{LogIndex, ReplicaId};
use vltava_storage::log::{AppendError, Durability, PartitionLog};
use vltava_storage::state::Membership;

use super::abstention::Abstention;
use super::effects::{Effect, Step};
use super::group::{Fetch, GroupConfig, MessageRefused, PartitionGroup, Role};
use super::message::{Payload, PeerEntry, PeerMessage};
use super::snapshot::{SnapshotReceived, SnapshotsSent};

mod losses;
mod messages;
mod propose;
mod restart;
mod snapshots;

pub use propose::{AppendRefused, Placed};

/// Ticks between two saves of the applied index, if it moved and nothing else saved it.
const SAVE_COMMIT_TICKS: u32 = 50;

/// What a call left to be done outside the lock.
#[derive(Debug, Default)]
pub struct Output {
    /// For peers, in order per peer. They may be lost.
    pub messages: Vec<PeerMessage>,
    /// Ranges to read into memory, then to give to [`Replica::on_fetched`].
    pub fetches: Vec<Fetch>,
    /// What this replica gave up: too few voters of a page-cache topic kept their log.
    pub losses: Vec<TailLoss>,
}

/// A log goes on although committed batches past its end may be lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TailLoss {
    /// How far this replica knows that the group had committed.
    pub known_committed: LogIndex,
    /// The last index that any voter still has.
    pub end_index: LogIndex,
    /// The offset after its last record, from which on the log is written anew; `None` where
    /// another voter has it.
    pub end_offset: Option<Offset>,
}

/// Why a replica no longer takes part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fenced(pub String);

struct Outstanding {
    step: u64,
    ticket: u64,
    vote_changed: bool,
}

enum State {
    Active(Box<PartitionGroup>),
    /// A write failed: begin again when `ticket` is durable and time has passed.
    Restarting {
        log: Box<PartitionLog>,
        ticket: u64,
        is_durable: bool,
        has_ticked: bool,
    },
    Fenced(Fenced),
    /// The node stops, or the partition is deleted.
    Retired,
    /// Only inside a call, while the state is taken out.
    Taken,
}

/// A replica of one partition.
pub struct Replica {
    id: ReplicaId,
    state: State,
    queue: Arc<FlushQueue>,
    config: GroupConfig,
    durability: Durability,
    last_ticket: u64,
    /// Executed steps that are not durable, oldest first.
    outstanding: VecDeque<Outstanding>,
    /// A leader's messages behind a vote that is not durable.
    parked: VecDeque<(u64, Vec<PeerMessage>)>,
    /// Promises behind steps that are not durable.
    held: VecDeque<(u64, Vec<PeerMessage>)>,
    sent: SnapshotsSent,
    received: Option<SnapshotReceived>,
    abstention: Option<Abstention>,
    /// The ticket of the segment that seals off a burnt position.
    unburn_ticket: Option<u64>,
    /// Since when the newest membership that a restart finds is in force, and the ticket and index
    /// of a newer one.
    durable_membership: LogIndex,
    pending_membership: Option<(u64, LogIndex)>,
    /// Whether the last row that was handed over says that batches may be in memory only, and the
    /// ticket of the first that says so while that is not durable.
    is_marked_unsynced: bool,
    pending_mark: Option<u64>,
    ticks_since_save: u32,
}

impl Replica {
    /// Takes part in the group of `log`, all of which is durable. Call [`Replica::poll`] next.
    pub fn new(
        log: PartitionLog,
        durability: Durability,
        config: GroupConfig,
        queue: Arc<FlushQueue>,
    ) -> Self {
        let id = log.replica();
        let abstention = log.state().abstaining.is_some().then(Abstention::default);
        let newest = log.state().memberships.last();
        let durable_membership = newest.map_or(LogIndex(0), |(since, _)| *since);
        let is_marked_unsynced = log.state().unsynced;
        let group = PartitionGroup::new(log, durability, config);
        Self {
            id,
            state: State::Active(Box::new(group)),
            queue,
            config,
            durability,
            last_ticket: 0,
            outstanding: VecDeque::new(),
            parked: VecDeque::new(),
            held: VecDeque::new(),
            sent: SnapshotsSent::default(),
            received: None,
            abstention,
            unburn_ticket: None,
            durable_membership,
            pending_membership: None,
            is_marked_unsynced,
            pending_mark: None,
            ticks_since_save: 0,
        }
    }

    /// This replica.
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// Its log, unless it is fenced.
    pub fn log(&self) -> Option<&PartitionLog> {
        match &self.state {
            State::Active(group) => Some(group.log()),
            State::Restarting { log, .. } => Some(log),
            State::Fenced(_) | State::Retired | State::Taken => None,
        }
    }

    /// Its group, while it takes part.
    pub fn group(&self) -> Option<&PartitionGroup> {
        match &self.state {
            State::Active(group) => Some(group),
            _ => None,
        }
    }

    /// Why it does not take part any more, if so.
    pub fn fenced(&self) -> Option<&Fenced> {
        match &self.state {
            State::Fenced(fenced) => Some(fenced),
            _ => None,
        }
    }

    /// What it is; a replica out of service follows.
    pub fn role(&self) -> Role {
        self.group().map_or(Role::Follower, PartitionGroup::role)
    }

    /// Whether it abstains because it may have lost a tail.
    pub fn abstains(&self) -> bool {
        self.abstention.is_some()
    }

    /// The term in which it leads.
    pub fn leading(&self) -> Option<LeaderEpoch> {
        let group = self.group().filter(|group| group.role() == Role::Leader)?;
        Some(epoch(group.term()))
    }

    /// Who takes part.
    pub fn membership(&self) -> Membership {
        self.group().map(PartitionGroup::membership).unwrap_or_default()
    }

    /// Whether a restart would find the present membership. Only then may others be told that a
    /// replica was removed: a leader that forgets the removal needs the removed one's vote.
    pub fn is_membership_durable(&self) -> bool {
        self.durable_membership >= self.membership_since()
    }

    /// Whether time matters to this replica: a lone voter that leads waits for nobody.
    pub fn needs_ticks(&self) -> bool {
        match &self.state {
            State::Active(group) => {
                group.has_peers()
                    || group.role() != Role::Leader
                    || group.log().is_burnt()
                    || group.log().config().durability != group.durability()
                    || self.abstention.is_some()
            }
            State::Restarting { .. } => true,
            State::Fenced(_) | State::Retired | State::Taken => false,
        }
    }

    /// Takes this replica out of service because it can no longer be trusted; its files stay as
    /// they are.
    pub fn fence(&mut self, reason: impl Into<String>) {
        let reason = reason.into();
        tracing::error!(replica = %self.id, %reason, "replica fenced");
        self.leave(State::Fenced(Fenced(reason)));
    }

    /// Takes this replica out of service: the node stops, or the partition is deleted.
    pub fn retire(&mut self) {
        self.leave(State::Retired);
    }

    fn leave(&mut self, state: State) {
        self.abandon_snapshot();
        self.state = state;
        self.outstanding.clear();
        self.parked.clear();
        self.held.clear();
    }

    /// Ends the replica and gives its log back.
    pub fn into_log(self) -> Option<PartitionLog> {
        match self.state {
            State::Active(group) => Some(group.into_log()),
            State::Restarting { log, .. } => Some(*log),
            State::Fenced(_) | State::Retired | State::Taken => None,
        }
    }

    /// Executes what is due.
    pub fn poll(&mut self, output: &mut Output) {
        self.guarded(output, |_, _| {});
    }

    /// Time passes.
    pub fn tick(&mut self, output: &mut Output) {
        if let State::Restarting { has_ticked, .. } = &mut self.state {
            *has_ticked = true;
            self.restart_if_due(output);
            return;
        }
        self.guarded(output, |replica, output| {
            replica.tick_abstention(output);
            replica.tick_snapshots(output);
            replica.tick_group();
        });
    }

    /// Asks for votes now, unless it abstains.
    pub fn campaign(&mut self, output: &mut Output) {
        if self.abstention.is_none() {
            self.guarded(output, |replica, _| replica.active().campaign());
        }
    }

    /// A peer says something. Impossible messages are dropped with the reason.
    pub fn step(
        &mut self,
        message: PeerMessage,
        output: &mut Output,
    ) -> Result<(), MessageRefused> {
        let mut result = Ok(());
        self.guarded(output, |replica, output| result = replica.dispatch(message, output));
        if let Err(refused @ MessageRefused::Diverged { .. }) = &result {
            self.fence(refused.to_string());
        }
        result
    }

    /// The flusher completed everything up to `ticket`.
    pub fn on_durable(&mut self, ticket: u64, output: &mut Output) {
        let is_remembered = self.note_remembered(ticket);
        self.pending_mark = self.pending_mark.filter(|at| *at > ticket);
        if let State::Restarting { ticket: waits_for, is_durable, .. } = &mut self.state {
            *is_durable |= ticket >= *waits_for;
            self.restart_if_due(output);
            return;
        }
        self.guarded(output, |replica, output| {
            if is_remembered {
                replica.active().count_itself();
            }
            if replica.unburn_ticket.is_some_and(|waits_for| ticket >= waits_for) {
                replica.unburn_ticket = None;
                replica.log_mut().unburnt_durable();
            }
            replica.settle(ticket, output);
        });
    }

    /// The ranges of an [`Output`] were read into memory.
    pub fn on_fetched(&mut self, fetches: Vec<Fetch>, output: &mut Output) {
        self.guarded(output, |replica, _| {
            for fetch in fetches {
                replica.active().on_fetched(fetch);
            }
        });
    }

    /// A peer could not be reached.
    pub fn report_unreachable(&mut self, peer: ReplicaId, output: &mut Output) {
        self.guarded(output, |replica, _| replica.active().report_unreachable(peer));
    }

    /// The topic's durability changed.
    pub fn set_durability(&mut self, durability: Durability) {
        self.durability = durability;
        if let State::Active(group) = &mut self.state {
            group.set_durability(durability);
        }
    }

    /// Hands what the log left in its outbox to the flusher, for changes made outside a step.
    pub fn flush_outbox(&mut self) -> u64 {
        let items = match &mut self.state {
            State::Active(group) => group.log_mut().take_flush_items(),
            State::Restarting { log, .. } => log.take_flush_items(),
            State::Fenced(_) | State::Retired | State::Taken => Vec::new(),
        };
        self.push(items)
    }

    /// The log, for decisions that are no steps (retention, rolling, closing).
    pub fn with_log<R>(&mut self, change: impl FnOnce(&mut PartitionLog) -> R) -> Option<R> {
        let result = match &mut self.state {
            State::Active(group) => Some(change(group.log_mut())),
            State::Restarting { log, .. } => Some(change(log)),
            State::Fenced(_) | State::Retired | State::Taken => None,
        };
        let items = match &mut self.state {
            State::Active(group) => group.log_mut().take_flush_items(),
            State::Restarting { log, .. } => log.take_flush_items(),
            State::Fenced(_) | State::Retired | State::Taken => Vec::new(),
        };
        if !items.is_empty() {
            self.push(items);
        }
        result
    }

    /// Runs `change` on an active group, then everything that is due. A panic inside raft is a
    /// fact about this group alone: it is fenced, the node lives.
    fn guarded(&mut self, output: &mut Output, change: impl FnOnce(&mut Self, &mut Output)) {
        if !matches!(self.state, State::Active(_)) {
            return;
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            change(self, output);
            self.run(output);
        }));
        if let Err(panic) = outcome {
            output.messages.clear();
            self.fence(format!("panic in the group: {}", panic_text(&*panic)));
        }
    }

    fn run(&mut self, output: &mut Output) {
        loop {
            self.lead_if_alone(output);
            let Some(step) = self.active().next_step() else {
                // The entry that this bears is a step of its own.
                if self.active().leave_stale_joint() {
                    continue;
                }
                break;
            };
            let (number, vote_changed, must_sync) =
                (step.number, step.vote_changed, step.must_sync);
            if let Err(error) = self.execute(step, output) {
                return self.restart_after(&error);
            }
            let items = self.take_items(vote_changed);
            let needs_disk = items.iter().any(FlushItem::is_awaited);
            let ticket = if needs_disk { self.push(items) } else { self.hand_over(items) };
            self.note_membership(ticket);
            self.active().finish();
            self.outstanding.push_back(Outstanding { step: number, ticket, vote_changed });
            let is_durable_at_once = !needs_disk && self.outstanding.len() == 1;
            let released_by_bug = planted(Bug::AckBeforePersist)
                || (planted(Bug::HeldReleasedByMustSync) && !must_sync);
            if is_durable_at_once {
                self.settle(ticket, output);
            } else if released_by_bug {
                self.release_early(number, output);
            }
            // What finishing applied (membership, log start) is saved with the applied index. It is
            // found again from the log if the row is lost, but who promises what lies behind a change
            // of membership must remember the change: until then nothing is settled.
            let items = self.log_mut().take_flush_items();
            if !items.is_empty() {
                let ticket = self.push(items);
                self.note_membership(ticket);
            }
        }
        if self.role() != Role::Leader {
            let Self { state: State::Active(group), sent, .. } = self else { return };
            sent.end_all(group.log_mut());
        }
        output.fetches.extend(self.active().take_fetches());
        self.end_abstention_if_refilled();
        if let Some(damage) = self.active().take_damage() {
            self.fence(damage);
        }
    }

    fn note_membership(&mut self, ticket: u64) {
        let since = self.membership_since();
        if since > self.durable_membership
            && self.pending_membership.is_none_or(|(_, pending)| since > pending)
        {
            self.pending_membership = Some((ticket, since));
        }
    }

    /// Everything up to `ticket` is durable. Whether a restart finds the present membership from now
    /// on, and would not have before.
    fn note_remembered(&mut self, ticket: u64) -> bool {
        let Some((_, since)) = self.pending_membership.filter(|(at, _)| *at <= ticket) else {
            return false;
        };
        (self.durable_membership, self.pending_membership) = (since, None);
        true
    }

    /// A row that says that batches may be in memory only is behind the last ticket, or one that no
    /// longer says so.
    fn note_mark(&mut self) {
        let Some(is_unsynced) = self.log().map(|log| log.state().unsynced) else { return };
        if !is_unsynced {
            self.pending_mark = None;
        } else if !self.is_marked_unsynced {
            self.pending_mark = Some(self.last_ticket);
        }
        self.is_marked_unsynced = is_unsynced;
    }

    fn membership_since(&self) -> LogIndex {
        let newest = self.log().and_then(|log| log.state().memberships.last());
        newest.map_or(LogIndex(0), |(since, _)| *since)
    }

    fn take_items(&mut self, vote_changed: bool) -> Vec<FlushItem> {
        let mut items = self.log_mut().take_flush_items();
        if vote_changed && planted(Bug::VoteNotPersisted) {
            items.retain(|item| !matches!(item, FlushItem::State { .. }));
        }
        items
    }

    fn execute(&mut self, step: Step, output: &mut Output) -> Result<(), AppendError> {
        let Step { number, vote_changed, effects, .. } = step;
        for effect in effects {
            match effect {
                Effect::SaveState(vote) => self.log_mut().save_vote(vote),
                Effect::Install => self.install()?,
                Effect::Cut(from) => self.log_mut().cut(from)?,
                Effect::Write(entries) => self.write(entries)?,
                Effect::Commit(index) => self.log_mut().commit_to(index),
                Effect::Send(messages) => {
                    let messages = self.outgoing(messages);
                    let waits_for_vote =
                        vote_changed || self.outstanding.iter().any(|step| step.vote_changed);
                    if waits_for_vote && !planted(Bug::MessageBeforeVoteDurable) {
                        self.parked.push_back((number, messages));
                    } else {
                        output.messages.extend(messages);
                    }
                }
                Effect::Hold(messages) => {
                    let messages = self.outgoing(messages);
                    self.held.push_back((number, messages));
                }
            }
        }
        Ok(())
    }

    /// Writes entries at the end of the log, or publishes those that were written ahead.
    fn write(&mut self, entries: Vec<PeerEntry>) -> Result<(), AppendError> {
        let leading = self.leading();
        let log = self.log_mut();
        if log.unpublished() > 0 {
            assert_eq!(log.unpublished(), entries.len(), "a step holds all that was written ahead");
            for entry in entries {
                log.publish(entry.index, epoch(entry.term));
            }
            return Ok(());
        }
        if let Some(epoch) = leading
            && log.is_burnt()
        {
            // An entry that raft bore itself would be sent before the burnt position is sealed off.
            return Err(AppendError::Burnt(epoch));
        }
        let mut base_offset = log.end_offset();
        let mut batches = Vec::with_capacity(entries.len());
        for entry in entries {
            let epoch = epoch(entry.term);
            let batch = into_batch(entry.payload, base_offset, epoch);
            if let Ok(header) = BatchHeader::parse(&batch) {
                base_offset = header.end_offset();
            }
            batches.push((entry.index, epoch, batch));
        }
        log.append_all(&batches)
    }

    /// Everything up to `ticket` is durable: tells raft, and lets go what waited for it.
    fn settle(&mut self, ticket: u64, output: &mut Output) {
        // Batches that stay in memory are promised only when a restart knows that they did.
        if self.pending_membership.is_some() || self.pending_mark.is_some() {
            return;
        }
        let mut durable_step = None;
        while let Some(step) = self.outstanding.front() {
            if step.ticket > ticket {
                break;
            }
            durable_step = Some(step.step);
            self.outstanding.pop_front();
        }
        let Some(durable_step) = durable_step else { return };
        self.active().on_durable(durable_step);
        while self.held.front().is_some_and(|(step, _)| *step <= durable_step) {
            let (_, messages) = self.held.pop_front().expect("it was just seen");
            let messages = self.allowed(messages);
            output.messages.extend(messages);
        }
        let barrier = self.outstanding.iter().find(|step| step.vote_changed);
        let barrier = barrier.map_or(u64::MAX, |step| step.step);
        while self.parked.front().is_some_and(|(step, _)| *step < barrier) {
            let (_, messages) = self.parked.pop_front().expect("it was just seen");
            output.messages.extend(messages);
        }
    }

    /// Only for planted bugs: lets promises go that nothing on disk backs.
    fn release_early(&mut self, step: u64, output: &mut Output) {
        if planted(Bug::AckBeforePersist) {
            self.active().on_durable(step);
        }
        while let Some((_, messages)) = self.held.pop_front() {
            output.messages.extend(messages);
        }
    }

    /// A lone voter needs nobody's vote; all it holds must be durable first, because it becomes
    /// leader inside one step. If it may have lost a tail there is nobody to compare with.
    fn lead_if_alone(&mut self, output: &mut Output) {
        let group = self.active();
        let is_idle = group.role() != Role::Leader && group.is_lone_voter();
        // What was committed before a restart may have given it company.
        if !is_idle || group.has_unapplied() || !self.outstanding.is_empty() {
            return;
        }
        if self.abstention.is_none() {
            self.active().campaign();
        } else {
            self.lead_with_what_is_left(output);
        }
    }

    /// Passes on what nobody waits for; what follows waits for no more than what came before.
    fn hand_over(&mut self, items: Vec<FlushItem>) -> u64 {
        if !items.is_empty() {
            self.queue.push(items);
        }
        self.last_ticket
    }

    fn push(&mut self, mut items: Vec<FlushItem>) -> u64 {
        self.last_ticket += 1;
        items.push(FlushItem::Ticket { replica: self.id, ticket: self.last_ticket });
        self.queue.push(items);
        self.note_mark();
        self.last_ticket
    }

    fn tick_group(&mut self) {
        self.seal_burnt_position();
        let durability = self.active().durability();
        self.log_mut().set_durability(durability);
        self.ticks_since_save += 1;
        if self.ticks_since_save >= SAVE_COMMIT_TICKS {
            self.ticks_since_save = 0;
            self.log_mut().save_applied();
            self.log_mut().advance_floor();
        }
        if self.abstention.is_some() && self.role() != Role::Leader {
            return;
        }
        let is_waiting_alone = {
            let has_outstanding = !self.outstanding.is_empty();
            let group = self.active();
            group.is_lone_voter() && group.role() != Role::Leader && has_outstanding
        };
        if !is_waiting_alone {
            self.active().tick();
        }
    }

    fn active(&mut self) -> &mut PartitionGroup {
        match &mut self.state {
            State::Active(group) => group,
            _ => unreachable!("guarded calls run on an active group only"),
        }
    }

    fn log_mut(&mut self) -> &mut PartitionLog {
        self.active().log_mut()
    }
}

/// A term as Kafka's leader epoch; peers' terms are range-checked, ours grow by one.
fn epoch(term: u64) -> LeaderEpoch {
    LeaderEpoch(i32::try_from(term).expect("terms are checked to fit a leader epoch"))
}

/// The bytes of an entry in the log: the same on every replica.
fn into_batch(payload: Payload, base_offset: Offset, epoch: LeaderEpoch) -> Bytes {
    match payload {
        Payload::Batch(batch) => batch,
        Payload::Noop => InternalBatch::encode(base_offset, epoch, InternalKind::Noop, &[]),
        Payload::ConfChange(body) => {
            InternalBatch::encode(base_offset, epoch, InternalKind::ConfChange, &body)
        }
        Payload::ConfChangeV2(body) => {
            InternalBatch::encode(base_offset, epoch, InternalKind::ConfChangeV2, &body)
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}
