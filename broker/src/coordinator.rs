//! Coordinators: who is in a group, what its members were assigned, how far they have read.
//!
//! A coordinator is two halves. The *shard* ([`group::GroupShard`], one per partition of
//! `__consumer_offsets`) is a plain state machine: requests and the time in, records to append and
//! answers out. It never sees a log, a socket or a clock. The *runtime* owns those: it appends what
//! a shard decides to the shard's partition, tells it what became committed, and carries answers
//! to the handlers.
//!
//! All that must survive is in the partition's records, which are Kafka's own; so the state of a
//! shard is the latest value of each key, and [`overlay::Overlay`] keeps it in two parts: what is
//! committed, and what this leader has appended since.

pub mod explain;
pub mod group;
pub mod groups;
pub mod lag;
pub mod overlay;
pub mod report;
pub mod runtime;
pub mod shard;
pub mod snapshot;
