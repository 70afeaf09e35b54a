//! What a group wants done, in the only order that is safe.

use vltava_storage::ids::LogIndex;
use vltava_storage::state::VoteState;

use super::message::{PeerEntry, PeerMessage};

/// The work of one step of a group. The shell executes the effects of a step in their order, and
/// the steps in theirs.
#[derive(Debug)]
pub struct Step {
    /// The number of the step; rises by one.
    pub number: u64,
    /// Term or vote changed: until this step is durable no message of it *or of any later one* may
    /// leave, and no message of an earlier one is affected.
    pub vote_changed: bool,
    /// Raft's own opinion on whether this step needs a sync. It must not decide when held messages
    /// leave: a step without work of its own can carry an acknowledgement of an earlier one.
    pub must_sync: bool,
    /// What to do.
    pub effects: Vec<Effect>,
}

/// One thing to do.
#[derive(Debug)]
pub enum Effect {
    /// Remember term and vote.
    SaveState(VoteState),
    /// The snapshot whose segments were fetched replaces the whole log.
    Install,
    /// Drop the entries from here on: another leader's take their place.
    Cut(LogIndex),
    /// Append entries at the end of the log. Those that this replica wrote ahead as a leader lie
    /// there already and are only published.
    Write(Vec<PeerEntry>),
    /// Everything up to here is committed.
    Commit(LogIndex),
    /// A leader's messages: they need not wait for its own disk.
    Send(Vec<PeerMessage>),
    /// Promises (votes, acknowledgements): they leave when this step and all before it are durable,
    /// state and entries alike.
    Hold(Vec<PeerMessage>),
}
