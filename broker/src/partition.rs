//! One partition as the rest of the broker sees it: a log to append to and to read, a leader, and
//! moves to wait for. Nothing of Raft, of files or of locks shows here.
//!
//! Appends, ticks and completions take the partition's one short lock; readers use the published
//! view and never take it. The lock is never held over an await.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Notify, oneshot};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{LeaderEpoch, NodeId, Offset, Timestamp, TopicId, TopicPartition};
use vltava_protocol::record::validate::Validated;
use vltava_storage::ids::{LogIndex, ReplicaId};
use vltava_storage::log::{Durability, PartitionLog};
use vltava_storage::producers::{ProducerError, ProducerState};
use vltava_storage::read_view::{ReadView, ViewCell};

use crate::config::topic::TopicConfig;
use crate::metrics::{RaftMetrics, Traffic};
use crate::replica::group::{ProposeRefused, Role};
use crate::replica::pending::Pending;
use crate::replica::shell::{AppendRefused, Output, Replica};
use crate::room::Room;

/// When a producer wants its answer (`acks` of a Produce request).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acks {
    /// Never: 0.
    None,
    /// When the leader has written: 1.
    Leader,
    /// When the batch is committed: -1.
    All,
}

impl TryFrom<i16> for Acks {
    type Error = ErrorCode;

    fn try_from(acks: i16) -> Result<Self, ErrorCode> {
        match acks {
            0 => Ok(Self::None),
            1 => Ok(Self::Leader),
            -1 => Ok(Self::All),
            _ => Err(ErrorCode::InvalidRequiredAcks),
        }
    }
}

/// Who leads a partition, as this node knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leadership {
    /// The node that leads.
    pub leader: Option<NodeId>,
    /// In which epoch.
    pub epoch: LeaderEpoch,
    /// It is this node.
    pub is_leader: bool,
    /// An entry of the leader's own epoch is committed: it may answer for the high watermark.
    pub confirmed: bool,
    /// The replica here is out of service: fenced, or its disk failed.
    pub is_offline: bool,
}

impl Leadership {
    /// Nobody is known to lead.
    pub const UNKNOWN: Self = Self {
        leader: None,
        epoch: LeaderEpoch(0),
        is_leader: false,
        confirmed: false,
        is_offline: false,
    };
}

/// A batch in the log, and the promise of its commit.
#[derive(Debug)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The broker's time, if the topic stamps one, else [`Timestamp::NONE`].
    pub log_append_time: Timestamp,
    /// Where the log starts.
    pub log_start_offset: Offset,
    /// Done when the batch is as safe as the producer asked.
    pub ack: AckFuture,
}

/// Resolves when a batch is committed, or when nobody here will learn whether it is.
#[derive(Debug)]
pub struct AckFuture(Option<oneshot::Receiver<Result<(), ErrorCode>>>);

impl AckFuture {
    /// What it would resolve to, if that is known by now; to be asked until it is and not after.
    /// Whoever [watches](Partition::watch) the partition is woken after it has become known.
    pub fn outcome(&mut self) -> Option<Result<(), ErrorCode>> {
        let Some(receiver) = &mut self.0 else { return Some(Ok(())) };
        match receiver.try_recv() {
            Ok(answer) => Some(answer),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Closed) => Some(Err(ErrorCode::NotLeaderOrFollower)),
        }
    }
}

impl Future for AckFuture {
    type Output = Result<(), ErrorCode>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(receiver) = &mut self.0 else { return Poll::Ready(Ok(())) };
        // A dropped sender is a partition that went away with its waiters.
        Pin::new(receiver)
            .poll(cx)
            .map(|answer| answer.unwrap_or(Err(ErrorCode::NotLeaderOrFollower)))
    }
}

impl AppendRefused {
    /// What a Produce response says.
    pub fn code(&self) -> ErrorCode {
        match self {
            // Where leadership is being transferred too: Kafka's clients retry this one at once, and
            // find the new leader.
            Self::Propose(_) => ErrorCode::NotLeaderOrFollower,
            Self::Producer(ProducerError::OutOfOrderSequence { .. }) => {
                ErrorCode::OutOfOrderSequenceNumber
            }
            Self::Producer(ProducerError::InvalidEpoch { .. }) => ErrorCode::InvalidProducerEpoch,
            Self::Log(_) | Self::Burnt | Self::NotServing => ErrorCode::KafkaStorageError,
        }
    }
}

/// Somebody who waits for any of several partitions to move, without polling.
#[derive(Debug, Default)]
pub struct Waiter {
    notify: Notify,
    /// Called as well, for one who does not wait in a runtime.
    waker: Option<Waker>,
}

impl Waiter {
    /// A waiter, to be shown to [`Partition::watch`].
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A waiter that calls `waker` at each move.
    pub fn calling(waker: Waker) -> Arc<Self> {
        Arc::new(Self { notify: Notify::new(), waker: Some(waker) })
    }

    /// Returns after a move since the last return, or since the waiter was made: a move between a
    /// look and the wait is not lost. Cancel-safe.
    pub async fn notified(&self) {
        self.notify.notified().await;
    }

    /// Wakes the waiter, now or at its next wait.
    pub fn notify(&self) {
        self.notify.notify_one();
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

/// What a partition is called and who its replicas are.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its name.
    pub tp: TopicPartition,
    /// Its topic's id.
    pub topic_id: TopicId,
    /// The replica that lives here.
    pub replica: ReplicaId,
    /// All replicas, and the nodes that they live on.
    pub nodes: Vec<(ReplicaId, NodeId)>,
}

struct Inner {
    replica: Replica,
    pending: Pending<oneshot::Sender<Result<(), ErrorCode>>>,
    seen: Seen,
}

/// What the watchers were last told of.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    committed: LogIndex,
    log_start_offset: Offset,
    leadership: Leadership,
}

/// Watchers that went away are swept out once this many are registered.
const WATCHERS_SWEEP_LEN: usize = 16;

/// One local replica of one partition.
pub struct Partition {
    identity: Identity,
    view: Arc<ViewCell>,
    room: Arc<Room>,
    inner: Mutex<Inner>,
    leadership: RwLock<Leadership>,
    config: RwLock<Arc<TopicConfig>>,
    watchers: Mutex<Vec<Weak<Waiter>>>,
    traffic: Traffic,
    metrics: RaftMetrics,
    /// Whether time matters to the replica: what the ticker asks, ten times a second, of thousands.
    needs_ticks: AtomicBool,
}

impl Partition {
    /// A partition around a replica. It takes part in its group from [`Partition::start`] on.
    pub fn new(
        identity: Identity,
        config: Arc<TopicConfig>,
        replica: Replica,
        room: Arc<Room>,
        metrics: RaftMetrics,
    ) -> Arc<Self> {
        let log = replica.log().expect("a new replica has its log");
        let view = log.view();
        let leadership = Leadership::UNKNOWN;
        let seen = Seen {
            committed: log.committed(),
            log_start_offset: log.state().log_start.offset,
            leadership,
        };
        let inner = Inner { replica, pending: Pending::default(), seen };
        Arc::new(Self {
            identity,
            view,
            room,
            inner: Mutex::new(inner),
            leadership: RwLock::new(leadership),
            config: RwLock::new(config),
            watchers: Mutex::default(),
            traffic: Traffic::default(),
            metrics,
            needs_ticks: AtomicBool::new(true),
        })
    }

    /// Takes part in the group. The flusher must be able to find the partition by now: the first
    /// thing that a replica waits for is a completion.
    pub fn start(&self) {
        self.drive(|replica, output| {
            // What recovery has to say of the replica is on its way before it says anything.
            replica.flush_outbox();
            replica.poll(output);
        });
    }

    /// Its name.
    pub fn tp(&self) -> &TopicPartition {
        &self.identity.tp
    }

    /// The id of its topic.
    pub fn topic_id(&self) -> TopicId {
        self.identity.topic_id
    }

    /// The replica that lives here.
    pub fn replica_id(&self) -> ReplicaId {
        self.identity.replica
    }

    /// The nodes that its replicas live on, the preferred leader first.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.identity.nodes.iter().map(|(_, node)| *node).collect()
    }

    /// What went through it, for the metrics.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The effective configuration of its topic.
    pub fn config(&self) -> Arc<TopicConfig> {
        self.config.read().clone()
    }

    /// Who leads it.
    pub fn leadership(&self) -> Leadership {
        *self.leadership.read()
    }

    /// Waits until a disk that is behind has room for `bytes` more. Cancel-safe.
    pub async fn room(&self, bytes: usize) {
        self.room.available(bytes, self.config().durability).await;
    }

    /// Whether a disk that may be behind has room for `bytes` more now.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.room.has(bytes, self.config().durability)
    }

    /// What can be read now, without the partition's lock.
    pub fn view(&self) -> ReadView {
        self.view.read()
    }

    /// Appends a batch. When this returns the batch is in the log, in order; whether it is
    /// committed is what [`Appended::ack`] tells. A retry that is already in the log gets the
    /// original's offset and waits for the original's commit.
    pub fn append(
        &self,
        batch: &Validated,
        acks: Acks,
        now: Timestamp,
    ) -> Result<Appended, AppendRefused> {
        self.append_under(self.inner.lock(), batch, acks, now)
    }

    /// Like [`Partition::append`] with [`Acks::All`], but only while this node leads in `epoch`:
    /// for whoever decided what to append from what was committed before that epoch. Leadership
    /// that was lost and won again in between is another one.
    pub fn append_in(
        &self,
        epoch: LeaderEpoch,
        batch: &Validated,
        now: Timestamp,
    ) -> Result<Appended, AppendRefused> {
        let inner = self.inner.lock();
        if inner.replica.leading() != Some(epoch) {
            return Err(ProposeRefused::NotLeader.into());
        }
        self.append_under(inner, batch, Acks::All, now)
    }

    fn append_under(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        batch: &Validated,
        acks: Acks,
        now: Timestamp,
    ) -> Result<Appended, AppendRefused> {
        let mut output = Output::default();
        let placed = inner.replica.append(&batch.batch, &batch.header, now, &mut output);
        let placed = match placed {
            Ok(placed) => placed,
            Err(refused) => {
                self.after(&mut inner, output);
                return Err(refused);
            }
        };
        let is_committed = placed.index <= committed(&inner.replica);
        let ack = match acks {
            Acks::All if !is_committed => {
                let (sender, receiver) = oneshot::channel();
                inner.pending.push(placed.index, placed.epoch, sender);
                AckFuture(Some(receiver))
            }
            _ => AckFuture(None),
        };
        self.after(&mut inner, output);
        let log_append_time =
            if placed.is_duplicate { placed.timestamp } else { batch.log_append_time };
        Ok(Appended {
            base_offset: placed.base_offset,
            log_append_time,
            log_start_offset: inner.seen.log_start_offset,
            ack,
        })
    }

    /// Where the log of `epoch` ends (KIP-101, `LeaderEpochFileCache.endOffsetFor`).
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> (LeaderEpoch, Offset) {
        let inner = self.inner.lock();
        let log = inner.replica.log();
        log.map_or((LeaderEpoch::NONE, Offset::NONE), |log| log.end_offset_for_epoch(epoch))
    }

    /// Wakes `waiter` at every move of the high watermark, the log start or the leadership, until
    /// it is dropped.
    pub fn watch(&self, waiter: &Arc<Waiter>) {
        let mut watchers = self.watchers.lock();
        if watchers.len() >= WATCHERS_SWEEP_LEN {
            watchers.retain(|watcher| watcher.strong_count() > 0);
        }
        watchers.push(Arc::downgrade(waiter));
    }

    /// Moves the log start to `offset`, or to the high watermark for [`Offset::NONE`]; resolves
    /// when that is committed. The offset must not lie past the high watermark.
    pub fn delete_records(&self, offset: Offset) -> Result<(Offset, AckFuture), ErrorCode> {
        let view = self.view();
        let offset = if offset == Offset::NONE { view.high_watermark } else { offset };
        if offset < Offset::ZERO || offset > view.high_watermark {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        if offset <= view.log_start_offset {
            return Ok((view.log_start_offset, AckFuture(None)));
        }
        let mut output = Output::default();
        let mut inner = self.inner.lock();
        let placed = inner.replica.propose_log_start(offset, &mut output);
        let ack = placed.map_err(|refused| refused.code()).map(|placed| {
            let (sender, receiver) = oneshot::channel();
            inner.pending.push(placed.index, placed.epoch, sender);
            (offset, AckFuture(Some(receiver)))
        });
        self.after(&mut inner, output);
        ack
    }

    /// Moves the log start past what the topic's retention no longer keeps. Returns the new start
    /// if there is one.
    pub fn apply_retention(&self, now: Timestamp) -> Option<Offset> {
        let config = self.config();
        if !config.cleanup_policy.delete {
            return None;
        }
        let start = {
            let inner = self.inner.lock();
            inner.replica.leading()?;
            let log = inner.replica.log()?;
            log.retention_start(now, config.retention_ms, config.retention_bytes)?
        };
        self.delete_records(start).ok().map(|(offset, _)| offset)
    }

    /// What the log knows of its producers.
    pub fn producers(&self) -> Vec<ProducerState> {
        let inner = self.inner.lock();
        inner.replica.log().map_or_else(Vec::new, |log| log.producers().collect())
    }

    /// Forgets producers that were silent for too long.
    pub fn expire_producers(&self, now: Timestamp) {
        self.inner.lock().replica.with_log(|log| log.expire_producers(now));
    }

    /// The topic's configuration changed.
    pub fn set_config(&self, config: Arc<TopicConfig>, producer_expiration_ms: i64) {
        let mut inner = self.inner.lock();
        let log_config = config.log_config(producer_expiration_ms);
        inner.replica.set_durability(log_config.durability);
        inner.replica.with_log(|log| log.set_config(log_config));
        *self.config.write() = config;
    }

    /// The flusher completed everything that this replica pushed up to `ticket`.
    pub fn on_durable(&self, ticket: u64) {
        self.drive(|replica, output| replica.on_durable(ticket, output));
    }

    /// The disk is out of service: nothing that waits will be durable, nothing can be appended.
    pub fn on_disk_failed(&self) {
        self.drive(|replica, _| replica.fence("the disk failed"));
    }

    /// Time passes.
    pub fn tick(&self) {
        self.drive(Replica::tick);
    }

    /// Whether time matters to this replica; a lone voter that leads needs no ticks.
    pub fn needs_ticks(&self) -> bool {
        self.needs_ticks.load(Ordering::Relaxed)
    }

    /// Bytes on disk, and term and role, for the metrics.
    pub fn status(&self) -> PartitionStatus {
        let inner = self.inner.lock();
        let group = inner.replica.group();
        PartitionStatus {
            size_bytes: self.view.read().size_bytes(),
            term: group.map_or(0, crate::replica::group::PartitionGroup::term),
            is_fenced: inner.replica.fenced().is_some(),
        }
    }

    /// Saves how far the log was applied, so that the next start need not go through it again.
    pub fn save_applied(&self) {
        self.inner.lock().replica.with_log(PartitionLog::save_applied);
    }

    /// Takes the replica out of service and closes its log, so that the next start finds it whole.
    /// Whether it will.
    pub fn close(&self) -> bool {
        let mut inner = self.inner.lock();
        let closed = inner.replica.with_log(|log| {
            log.save_applied();
            log.close()
        });
        let is_whole = match closed {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                tracing::error!(partition = %self.identity.tp, %error, "the log cannot be closed");
                false
            }
            None => self.config().durability == Durability::Fsync,
        };
        inner.replica.retire();
        self.after(&mut inner, Output::default());
        is_whole
    }

    /// Takes the replica of a deleted partition out of service; whoever waits here is told.
    pub fn retire(&self) {
        let mut inner = self.inner.lock();
        inner.replica.retire();
        self.after(&mut inner, Output::default());
    }

    fn drive(&self, change: impl FnOnce(&mut Replica, &mut Output)) {
        let mut output = Output::default();
        let mut inner = self.inner.lock();
        change(&mut inner.replica, &mut output);
        self.after(&mut inner, output);
    }

    /// Lets those go whose wait is over, and publishes what moved.
    fn after(&self, inner: &mut Inner, output: Output) {
        // A lone voter has nobody to talk to; links to peers send these once nodes have peers.
        assert!(output.messages.is_empty(), "a group of one sends no messages");
        let mut output = output;
        while !output.fetches.is_empty() {
            let fetches = std::mem::take(&mut output.fetches);
            inner.replica.on_fetched(fetches, &mut output);
        }
        let Inner { replica, pending, seen } = inner;
        self.needs_ticks.store(replica.needs_ticks(), Ordering::Relaxed);
        let leadership = self.leadership_of(replica);
        let now = Seen {
            committed: committed(replica),
            log_start_offset: replica
                .log()
                .map_or(seen.log_start_offset, |log| log.state().log_start.offset),
            leadership,
        };
        if now.committed > seen.committed {
            let log = replica.log();
            let epoch_at = |index| log.and_then(|log| log.epoch_at(index));
            for (sender, is_ours) in pending.committed(now.committed, epoch_at) {
                let answer = if is_ours { Ok(()) } else { Err(ErrorCode::NotLeaderOrFollower) };
                // The producer may have gone; its batch stays.
                let _ = sender.send(answer);
            }
        }
        if !leadership.is_leader && !pending.is_empty() {
            let code = if leadership.is_offline {
                ErrorCode::KafkaStorageError
            } else {
                ErrorCode::NotLeaderOrFollower
            };
            for sender in pending.lost() {
                let _ = sender.send(Err(code));
            }
        }
        if now != *seen {
            if leadership != seen.leadership {
                self.count(seen.leadership, leadership);
                *self.leadership.write() = leadership;
                tracing::debug!(partition = %self.identity.tp, ?leadership, "leadership");
            }
            *seen = now;
            self.wake();
        }
    }

    fn leadership_of(&self, replica: &Replica) -> Leadership {
        let Some(group) = replica.group() else {
            let epoch = self.leadership.read().epoch;
            let is_offline = replica.fenced().is_some();
            return Leadership { epoch, is_offline, ..Leadership::UNKNOWN };
        };
        let node_of = |id: ReplicaId| {
            let found = self.identity.nodes.iter().find(|(replica, _)| *replica == id);
            found.map(|(_, node)| *node)
        };
        Leadership {
            leader: group.leader().and_then(node_of),
            epoch: LeaderEpoch(group.term() as i32),
            is_leader: group.role() == Role::Leader,
            confirmed: group.is_confirmed(),
            is_offline: false,
        }
    }

    fn count(&self, before: Leadership, now: Leadership) {
        if now.is_leader && (!before.is_leader || now.epoch != before.epoch) {
            self.metrics.elections_won.inc();
        }
        if now.is_offline && !before.is_offline {
            self.metrics.groups_fenced.inc();
        }
    }

    fn wake(&self) {
        self.watchers.lock().retain(|watcher| match watcher.upgrade() {
            Some(waiter) => {
                waiter.notify();
                true
            }
            None => false,
        });
    }
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partition").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// What the metrics tell of a partition.
#[derive(Clone, Copy, Debug)]
pub struct PartitionStatus {
    /// Bytes of its segments.
    pub size_bytes: u64,
    /// Its group's term.
    pub term: u64,
    /// It is out of service.
    pub is_fenced: bool,
}

fn committed(replica: &Replica) -> LogIndex {
    replica.log().map_or(LogIndex(0), PartitionLog::committed)
}
