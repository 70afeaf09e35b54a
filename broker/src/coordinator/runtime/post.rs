//! One shard on this node: its seat under a lock, those who wait for its answers, and the task that
//! keeps it in step with its partition.
//!
//! ```text
//! ask ──────────▶ ┌── lock ───────────────────────────┐
//!                 │ seat decides, appends, in order   │ ──▶ answered at once, or parked
//! keeper ───────▶ └───────────────────────────────────┘
//!   woken by the partition (commit, leadership), by the shard's next deadline
//!   follows: replays what is committed, in pieces, on the blocking pool
//! ```
//!
//! The lock is taken before the partition's and never held over an await or a read of a file.
//! Appends happen under it, so the order of records is the order of decisions.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{LeaderEpoch, Offset, Timestamp};
use vltava_protocol::record::validate::Validated;

use super::replay::{self, ReplayError};
use super::seat::{Log, Replies, Seat};
use super::{Figures, SteadyClock};
use crate::coordinator::shard::{EffectOf, Shard, Token};
use crate::coordinator::snapshot::Snapshots;
use crate::partition::{AckFuture, Leadership, Partition, Waiter};

/// Entries of a snapshot that are applied under the lock at a time.
const SNAPSHOT_ENTRIES_AT_ONCE: usize = 256;

/// See the module.
pub struct Post<S: Shard> {
    partition: Arc<Partition>,
    clock: SteadyClock,
    figures: Figures,
    snapshots: Snapshots,
    /// Wakes the keeper: the partition moved, or something is due earlier than it thinks.
    waiter: Arc<Waiter>,
    inner: Mutex<Inner<S>>,
}

struct Inner<S: Shard> {
    seat: Seat<S>,
    /// The promises of the seat's appends, oldest first.
    acks: VecDeque<AckFuture>,
    parked: HashMap<Token, oneshot::Sender<S::Response>>,
    replies: Replies<S>,
    next_token: u64,
    /// When the keeper looks at the time next.
    due: Option<Timestamp>,
    /// The log cannot be replayed: nothing is served here until the leadership changes.
    broken_in: Option<LeaderEpoch>,
    is_closed: bool,
}

/// An answer, or the wait for it.
pub enum Asked<S: Shard> {
    /// It needed no commit and nobody else.
    Answered(S::Response),
    /// It comes later.
    Parked(Parked<S>),
}

/// Resolves to the answer, or to why there is none. Dropped before that, the request is forgotten.
pub struct Parked<S: Shard> {
    post: Arc<Post<S>>,
    token: Token,
    answer: Option<oneshot::Receiver<S::Response>>,
}

/// What the keeper has to do next.
enum Turn {
    /// Nothing until it is woken, or until then.
    Wait(Option<Timestamp>),
    /// Replay from there.
    Replay(Offset),
    /// End.
    Close,
}

impl<S: Shard> Post<S> {
    /// A follower that has applied nothing. Its keeper is to be [run](Self::keep).
    pub fn new(
        partition: Arc<Partition>,
        shard: S,
        clock: SteadyClock,
        figures: Figures,
        snapshots: Snapshots,
    ) -> Arc<Self> {
        let waiter = Waiter::new();
        partition.watch(&waiter);
        let inner = Inner {
            seat: Seat::new(shard),
            acks: VecDeque::new(),
            parked: HashMap::new(),
            replies: Vec::new(),
            next_token: 0,
            due: None,
            broken_in: None,
            is_closed: false,
        };
        Arc::new(Self { partition, clock, figures, snapshots, waiter, inner: Mutex::new(inner) })
    }

    /// The partition that the shard lives on.
    pub fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// The snapshots of its committed state.
    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Puts a request to the shard. When this returns it is decided, and what it appends has its
    /// place in the log; the answer may come later. Errors: `NOT_COORDINATOR`,
    /// `COORDINATOR_LOAD_IN_PROGRESS`, `COORDINATOR_NOT_AVAILABLE`.
    pub fn ask(self: &Arc<Self>, request: S::Request) -> Result<Asked<S>, ErrorCode> {
        let now = self.clock.now();
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        self.check(inner)?;
        inner.next_token += 1;
        let token = Token(inner.next_token);
        let mut log = PostLog { partition: &self.partition, acks: &mut inner.acks };
        inner.seat.handle(token, request, now, &mut log, &mut inner.replies);
        self.schedule(inner);
        if let Some(response) = inner.deliver(Some(token)) {
            return Ok(Asked::Answered(response));
        }
        let (sender, receiver) = oneshot::channel();
        inner.parked.insert(token, sender);
        Ok(Asked::Parked(Parked { post: self.clone(), token, answer: Some(receiver) }))
    }

    /// Lets the shard of a leader do something that nobody waits for. Errors as [`Post::ask`].
    pub fn act(
        &self,
        act: impl FnOnce(&mut S, Timestamp, &mut Vec<EffectOf<S>>),
    ) -> Result<(), ErrorCode> {
        let now = self.clock.now();
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        self.check(inner)?;
        let mut log = PostLog { partition: &self.partition, acks: &mut inner.acks };
        inner.seat.act(act, now, &mut log, &mut inner.replies);
        self.schedule(inner);
        inner.deliver(None);
        Ok(())
    }

    /// Looks at the shard of a leader, under the lock: be short. Errors as [`Post::ask`].
    pub fn look<T>(&self, look: impl FnOnce(&S) -> T) -> Result<T, ErrorCode> {
        let inner = self.inner.lock();
        self.check(&inner)?;
        Ok(look(inner.seat.shard()))
    }

    /// Whether requests are answered here.
    pub fn is_leading(&self) -> bool {
        self.check(&self.inner.lock()).is_ok()
    }

    /// Ends the keeper; who waits is told that the coordinator is elsewhere.
    pub fn close(&self) {
        self.inner.lock().is_closed = true;
        self.waiter.notify();
    }

    /// Writes the committed state beside the log if enough has come since the last time. Reads and
    /// writes files: for threads that may block.
    pub fn housekeep(&self) {
        let view = self.partition.view();
        if let Err(error) = self.snapshots.renew(&view) {
            let partition = self.partition.tp();
            tracing::warn!(%partition, %error, "the coordinator's snapshot was not written");
        }
    }

    /// Keeps the shard in step with its partition until [`Post::close`].
    pub async fn keep(self: Arc<Self>) {
        let mut led_since = None;
        loop {
            match self.turn(&mut led_since) {
                Turn::Close => return,
                Turn::Replay(from) => self.follow(from).await,
                Turn::Wait(None) => self.waiter.notified().await,
                Turn::Wait(Some(due)) => {
                    // Out of time or woken: both are the next turn.
                    let pause = tokio::time::timeout(self.clock.until(due), self.waiter.notified());
                    let _ = pause.await;
                }
            }
        }
    }

    fn check(&self, inner: &Inner<S>) -> Result<(), ErrorCode> {
        let leadership = self.partition.leadership();
        if inner.is_closed || !leadership.is_leader {
            return Err(ErrorCode::NotCoordinator);
        }
        match inner.seat.epoch() {
            Some(epoch) if epoch == leadership.epoch => Ok(()),
            _ if inner.broken_in == Some(leadership.epoch) => {
                Err(ErrorCode::CoordinatorNotAvailable)
            }
            _ => Err(ErrorCode::CoordinatorLoadInProgress),
        }
    }

    /// Wakes the keeper if something is due before it looks at the time again. A deadline that
    /// moved further away does not wake it: it will find nothing to do and look again.
    fn schedule(&self, inner: &mut Inner<S>) {
        let next = inner.seat.next_deadline();
        if let Some(next) = next
            && inner.due.is_none_or(|due| next < due)
        {
            inner.due = Some(next);
            self.waiter.notify();
        }
    }

    /// One look at everything that may have moved.
    fn turn(&self, led_since: &mut Option<Instant>) -> Turn {
        let now = self.clock.now();
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        self.settle(inner, now);
        if inner.is_closed {
            inner.depose();
            return Turn::Close;
        }
        let leadership = self.partition.leadership();
        if let Some(epoch) = inner.seat.epoch()
            && !(leadership.is_leader && leadership.epoch == epoch)
        {
            inner.depose();
        }
        if inner.seat.epoch().is_none() {
            inner.due = None;
            if let Some(turn) = self.approach(inner, leadership, led_since, now) {
                return turn;
            }
        } else if inner.due.is_some_and(|due| due <= now) {
            let mut log = PostLog { partition: &self.partition, acks: &mut inner.acks };
            inner.seat.on_time(now, &mut log, &mut inner.replies);
        }
        inner.deliver(None);
        inner.due = inner.seat.next_deadline();
        Turn::Wait(inner.due)
    }

    /// A follower's turn: replays what is committed, and takes the lead once that is done and the
    /// partition is led here. `None` when it leads now.
    fn approach(
        &self,
        inner: &mut Inner<S>,
        leadership: Leadership,
        led_since: &mut Option<Instant>,
        now: Timestamp,
    ) -> Option<Turn> {
        if leadership.is_leader {
            led_since.get_or_insert_with(Instant::now);
        } else {
            *led_since = None;
        }
        if inner.broken_in == Some(leadership.epoch) {
            return Some(Turn::Wait(None));
        }
        // Read after the leadership: if that is confirmed, this covers all of former leaders.
        if self.partition.view().high_watermark > inner.seat.applied() {
            return Some(Turn::Replay(inner.seat.applied()));
        }
        if !leadership.is_leader || !leadership.confirmed {
            return Some(Turn::Wait(None));
        }
        inner.broken_in = None;
        let mut log = PostLog { partition: &self.partition, acks: &mut inner.acks };
        inner.seat.on_elected(leadership.epoch, now, &mut log, &mut inner.replies);
        let took = led_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.figures.load_duration.observe(took);
        tracing::debug!(partition = %self.partition.tp(), ?took, "the coordinator is loaded");
        None
    }

    /// Tells the seat which of its appends are committed. The partition wakes the keeper after it
    /// has told the promises, so none is missed.
    fn settle(&self, inner: &mut Inner<S>, now: Timestamp) {
        while let Some(ack) = inner.acks.front_mut() {
            let Some(outcome) = ack.outcome() else { return };
            inner.acks.pop_front();
            if outcome.is_err() {
                inner.depose();
                return;
            }
            let mut log = PostLog { partition: &self.partition, acks: &mut inner.acks };
            inner.seat.on_committed(now, &mut log, &mut inner.replies);
            inner.deliver(None);
        }
    }

    /// Replays up to the high watermark.
    async fn follow(self: &Arc<Self>, from: Offset) {
        let post = self.clone();
        let followed = tokio::task::spawn_blocking(move || post.replay(from)).await;
        let failure = match followed {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic.to_string(),
        };
        let partition = self.partition.tp();
        tracing::error!(%partition, failure, "the coordinator cannot be loaded");
        self.inner.lock().broken_in = Some(self.partition.leadership().epoch);
    }

    fn replay(&self, from: Offset) -> Result<(), ReplayError> {
        let view = self.partition.view();
        let mut at = from;
        if from == Offset::ZERO
            && let Some(snapshot) = self.snapshots.newest(view.high_watermark)
        {
            for entries in snapshot.entries.chunks(SNAPSHOT_ENTRIES_AT_ONCE) {
                let mut inner = self.inner.lock();
                for (key, value) in entries {
                    inner.seat.replay(key, Some(value));
                }
            }
            at = snapshot.offset;
            self.inner.lock().seat.advance(at);
        }
        loop {
            let chunk = replay::next_chunk(&view, at)?;
            if chunk.is_empty() {
                self.inner.lock().seat.advance(at.max(view.high_watermark));
                return Ok(());
            }
            for batches in chunk {
                let mut inner = self.inner.lock();
                at = replay::each_record(&batches, at, |key, value| inner.seat.replay(key, value))?;
                inner.seat.advance(at);
            }
        }
    }

    fn cancel(&self, token: Token) {
        let mut inner = self.inner.lock();
        if inner.parked.remove(&token).is_some() {
            inner.seat.cancel(token);
        }
    }
}

impl<S: Shard> Inner<S> {
    /// Sends the answers off; returns the one of `own`, who is still here.
    fn deliver(&mut self, own: Option<Token>) -> Option<S::Response> {
        let mut answer = None;
        for (token, response) in self.replies.drain(..) {
            if Some(token) == own {
                answer = Some(response);
            } else if let Some(sender) = self.parked.remove(&token) {
                // Whoever asked may be gone.
                let _ = sender.send(response);
            }
        }
        answer
    }

    fn depose(&mut self) {
        self.acks.clear();
        self.seat.on_lost(&mut self.replies);
        self.deliver(None);
        // Whoever the shard had no answer for learns it from the dropped sender.
        self.parked.clear();
    }
}

impl<S: Shard> Asked<S> {
    /// The answer, once it is there.
    pub async fn answer(self) -> Result<S::Response, ErrorCode> {
        match self {
            Self::Answered(response) => Ok(response),
            Self::Parked(parked) => parked.await,
        }
    }
}

impl<S: Shard> Future for Parked<S> {
    type Output = Result<S::Response, ErrorCode>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let receiver = self.answer.as_mut().expect("it is not polled after it resolved");
        let Poll::Ready(answer) = Pin::new(receiver).poll(cx) else { return Poll::Pending };
        self.answer = None;
        Poll::Ready(answer.map_err(|_| ErrorCode::NotCoordinator))
    }
}

impl<S: Shard> Drop for Parked<S> {
    fn drop(&mut self) {
        if self.answer.is_some() {
            self.post.cancel(self.token);
        }
    }
}

impl<S: Shard> std::fmt::Debug for Post<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Post").field("partition", &self.partition).finish_non_exhaustive()
    }
}

/// The partition, as the seat appends to it.
struct PostLog<'a> {
    partition: &'a Partition,
    acks: &'a mut VecDeque<AckFuture>,
}

impl Log for PostLog<'_> {
    fn append(
        &mut self,
        epoch: LeaderEpoch,
        batch: &Validated,
        now: Timestamp,
    ) -> Result<Offset, ErrorCode> {
        let bytes_max = self.partition.config().max_message_bytes;
        if batch.batch.len() > usize::try_from(bytes_max).unwrap_or(0) {
            return Err(ErrorCode::MessageTooLarge);
        }
        let appended = self.partition.append_in(epoch, batch, now).map_err(|e| e.code())?;
        self.acks.push_back(appended.ack);
        self.partition.traffic().appended(batch.batch.len(), batch.header.record_count);
        Ok(appended.base_offset + i64::from(batch.header.record_count))
    }
}
