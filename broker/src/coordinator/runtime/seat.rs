//! A shard and its place in the log: what of the partition it has applied, whether it leads.
//!
//! ```text
//!             replay             elected              handle, on_time, on_committed
//! following ──────────▶ following ──────────▶ leading ──────────▶ leading
//!     ▲                                          │ lost, or an append that nobody confirms
//!     └──────────────────────────────────────────┘
//! ```
//!
//! No clock, no lock, no task: the broker drives it under one mutex, the simulator in its own loop.
//!
//! **Invariant:** `applied` is the offset after the last record that the shard's committed part
//! holds. Following, the next record to replay is at `applied`; leading, everything from there on
//! is this leader's own, and moves over when its append is committed. So a leadership that is lost
//! leaves exactly the state of a follower at `applied`.

use std::collections::VecDeque;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{LeaderEpoch, Offset, Timestamp};
use vltava_protocol::record::batch::BatchHeader;
use vltava_protocol::record::builder::{BatchBuilder, BatchFields};
use vltava_protocol::record::compression::Codec;
use vltava_protocol::record::validate::Validated;

use crate::coordinator::overlay::Seq;
use crate::coordinator::shard::{Effect, EffectOf, Shard, Token};

/// Where a leading shard appends. The order of calls is the order in the log.
pub trait Log {
    /// Appends a batch if this node still leads in `epoch`. Returns the offset after it; its commit
    /// is told by [`Seat::on_committed`], in the order of appends.
    fn append(
        &mut self,
        epoch: LeaderEpoch,
        batch: &Validated,
        now: Timestamp,
    ) -> Result<Offset, ErrorCode>;
}

/// Answers on their way to those who asked.
pub type Replies<S> = Vec<(Token, <S as Shard>::Response)>;

/// See the module.
pub struct Seat<S: Shard> {
    shard: S,
    applied: Offset,
    leading: Option<Leading>,
    effects: Vec<EffectOf<S>>,
    builder: BatchBuilder,
}

/// A leadership.
struct Leading {
    epoch: LeaderEpoch,
    /// Appends that are not committed, and the offsets after them.
    appends: VecDeque<(Seq, Offset)>,
}

impl<S: Shard> Seat<S> {
    /// A follower that has applied nothing.
    pub fn new(shard: S) -> Self {
        let builder = BatchBuilder::new(Codec::None, None);
        Self { shard, applied: Offset::ZERO, leading: None, effects: Vec::new(), builder }
    }

    /// The shard, to look at.
    pub fn shard(&self) -> &S {
        &self.shard
    }

    /// The offset after the last record in the committed part.
    pub fn applied(&self) -> Offset {
        self.applied
    }

    /// The epoch it leads in.
    pub fn epoch(&self) -> Option<LeaderEpoch> {
        self.leading.as_ref().map(|leading| leading.epoch)
    }

    /// When it wants [`Seat::on_time`] next; a follower never.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.leading.as_ref().and_then(|_| self.shard.next_deadline())
    }

    /// Applies one committed record of the log.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) {
        debug_assert!(self.leading.is_none(), "a leader's own records are applied as it commits");
        self.shard.replay(key, value);
    }

    /// Everything before `offset` was replayed, or is gone from the log.
    pub fn advance(&mut self, offset: Offset) {
        assert!(self.leading.is_none() && offset >= self.applied, "{offset} < {}", self.applied);
        self.applied = offset;
    }

    /// It leads from now on; everything committed was replayed.
    pub fn on_elected(
        &mut self,
        epoch: LeaderEpoch,
        now: Timestamp,
        log: &mut dyn Log,
        replies: &mut Replies<S>,
    ) {
        assert!(self.leading.is_none(), "elected twice");
        self.leading = Some(Leading { epoch, appends: VecDeque::new() });
        self.shard.on_elected(now, &mut self.effects);
        self.execute(now, log, replies);
    }

    /// It leads no longer, or nobody here will learn what became of an append.
    pub fn on_lost(&mut self, replies: &mut Replies<S>) {
        if self.leading.take().is_some() {
            self.shard.on_lost(&mut self.effects);
            for effect in self.effects.drain(..) {
                // A follower appends nothing.
                if let Effect::Reply { token, response } = effect {
                    replies.push((token, response));
                }
            }
        }
    }

    /// Takes a request. Only while it leads.
    pub fn handle(
        &mut self,
        token: Token,
        request: S::Request,
        now: Timestamp,
        log: &mut dyn Log,
        replies: &mut Replies<S>,
    ) {
        assert!(self.leading.is_some(), "only a leader is asked");
        self.shard.handle(token, request, now, &mut self.effects);
        self.execute(now, log, replies);
    }

    /// Lets the shard do something that nobody waits for. Only while it leads.
    pub fn act(
        &mut self,
        act: impl FnOnce(&mut S, Timestamp, &mut Vec<EffectOf<S>>),
        now: Timestamp,
        log: &mut dyn Log,
        replies: &mut Replies<S>,
    ) {
        assert!(self.leading.is_some(), "only a leader acts");
        act(&mut self.shard, now, &mut self.effects);
        self.execute(now, log, replies);
    }

    /// The oldest append that was not committed is.
    pub fn on_committed(&mut self, now: Timestamp, log: &mut dyn Log, replies: &mut Replies<S>) {
        let Some(leading) = &mut self.leading else { return };
        let (seq, end) = leading.appends.pop_front().expect("an append is there to be committed");
        self.applied = end;
        self.shard.on_committed(seq, now, &mut self.effects);
        self.execute(now, log, replies);
    }

    /// Time has passed.
    pub fn on_time(&mut self, now: Timestamp, log: &mut dyn Log, replies: &mut Replies<S>) {
        if self.leading.is_some() {
            self.shard.on_time(now, &mut self.effects);
            self.execute(now, log, replies);
        }
    }

    /// Nobody waits for the answer any more.
    pub fn cancel(&mut self, token: Token) {
        if self.leading.is_some() {
            self.shard.cancel(token);
        }
    }

    /// Does what the shard wants, and what it wants after that.
    fn execute(&mut self, now: Timestamp, log: &mut dyn Log, replies: &mut Replies<S>) {
        while !self.effects.is_empty() {
            let mut effects = std::mem::take(&mut self.effects);
            let mut is_refused = false;
            for effect in effects.drain(..) {
                match effect {
                    Effect::Reply { token, response } => replies.push((token, response)),
                    // The shard has taken it back with the one that was refused before it.
                    Effect::Append { .. } if is_refused => {}
                    Effect::Append { seq, records } => {
                        if let Err(code) = self.append(seq, &records, now, log) {
                            is_refused = true;
                            self.shard.on_refused(seq, code, now, &mut self.effects);
                        }
                    }
                }
            }
            if self.effects.is_empty() {
                // Keeps its memory: nothing is allocated for the next request.
                self.effects = effects;
                return;
            }
        }
    }

    fn append(
        &mut self,
        seq: Seq,
        records: &[S::Record],
        now: Timestamp,
        log: &mut dyn Log,
    ) -> Result<(), ErrorCode> {
        assert!(!records.is_empty(), "an append has a record");
        let leading = self.leading.as_mut().expect("only a leader appends");
        self.builder.clear();
        for record in records {
            let (key, value) = S::encode(record);
            self.builder.append(now, Some(&key), value.as_deref(), &[]);
        }
        let batch = self.builder.build(&BatchFields::default()).expect("nothing is compressed");
        let batch = Validated {
            header: BatchHeader::parse(&batch).expect("it was just built"),
            batch,
            log_append_time: Timestamp::NONE,
            offset_of_max_timestamp: Offset::NONE,
        };
        let end = log.append(leading.epoch, &batch, now)?;
        leading.appends.push_back((seq, end));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
