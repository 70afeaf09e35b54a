//! What the runtime runs: a coordinator's decisions over one partition of its topic.
//!
//! A shard is a plain state machine. It never sees a log, a socket or a clock, and it never waits:
//! what it wants done is an [`Effect`].

use bytes::Bytes;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::Timestamp;

use super::overlay::Seq;

/// Names one parked request; the caller's choice, never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What a shard wants done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<R, A> {
    /// Append these records as one batch. The shard sees them as appended already.
    ///
    /// If the log refuses them, the caller calls [`Shard::on_refused`] with this `seq` at once and
    /// leaves out every later `Append` of the same call: the shard takes back everything from
    /// `seq` on. Later `Reply`s stay good.
    Append {
        /// Its number, the last one's successor.
        seq: Seq,
        /// One or more.
        records: Vec<R>,
    },
    /// Answer a request. Everything that the answer depends on is committed.
    Reply {
        /// Which request.
        token: Token,
        /// The answer.
        response: A,
    },
}

/// What a shard of this kind wants done.
pub type EffectOf<S> = Effect<<S as Shard>::Record, <S as Shard>::Response>;

/// A coordinator's state and decisions on one partition. Replicas that do not lead only
/// [replay](Shard::replay).
pub trait Shard: Send + 'static {
    /// What it is asked.
    type Request: Send + 'static;
    /// What it answers.
    type Response: Send + 'static;
    /// What it appends.
    type Record: Send + 'static;

    /// The key and the value, none for a tombstone, of a record in the log.
    fn encode(record: &Self::Record) -> (Bytes, Option<Bytes>);

    /// Applies a committed record: while loading, and on followers. What it does not understand it
    /// passes over.
    fn replay(&mut self, key: &[u8], value: Option<&[u8]>);

    /// The partition is led here and everything committed was replayed.
    fn on_elected(&mut self, now: Timestamp, out: &mut Vec<EffectOf<Self>>);

    /// The leadership is over: what was appended and not committed is forgotten, every parked
    /// request is answered.
    fn on_lost(&mut self, out: &mut Vec<EffectOf<Self>>);

    /// Takes a request, to be answered at once or later.
    fn handle(
        &mut self,
        token: Token,
        request: Self::Request,
        now: Timestamp,
        out: &mut Vec<EffectOf<Self>>,
    );

    /// Everything appended up to `seq` is committed.
    fn on_committed(&mut self, seq: Seq, now: Timestamp, out: &mut Vec<EffectOf<Self>>);

    /// The log did not take the append `seq`, nor any after it. `code` says why, as Produce would.
    fn on_refused(
        &mut self,
        seq: Seq,
        code: ErrorCode,
        now: Timestamp,
        out: &mut Vec<EffectOf<Self>>,
    );

    /// Time has passed.
    fn on_time(&mut self, now: Timestamp, out: &mut Vec<EffectOf<Self>>);

    /// When it wants [`Shard::on_time`] next.
    fn next_deadline(&self) -> Option<Timestamp>;

    /// Nobody waits for the answer any more.
    fn cancel(&mut self, token: Token);
}

#[cfg(test)]
pub(crate) mod toy;
