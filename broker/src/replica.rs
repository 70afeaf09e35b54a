//! Replication: one Raft group per partition, whose log entries are the partition's record batches.
//!
//! ```text
//! messages, ticks,      ┌───────┐  Step{effects}  ┌───────┐  FlushItems   ┌─────────┐
//! proposals        ───> │ group │ ──────────────> │ shell │ ────────────> │ flusher │
//!                       └───────┘  <────────────  └───────┘ <──────────── └─────────┘
//!                        (raft)      on_durable    │     ^     tickets
//!                                                  v     │
//!                                            messages   log
//! ```
//!
//! **Architecture invariant:** only [`group`], its conversions and `log_store` name the `raft`
//! crate. Nothing here reads a clock, waits or spawns: the broker's threads and the simulator run
//! the same code.

pub mod abstention;
pub mod effects;
pub mod group;
mod log_store;
pub mod membership;
pub mod message;
pub mod pending;
pub mod shell;
pub mod snapshot;
