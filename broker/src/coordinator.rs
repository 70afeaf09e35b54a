//! Coordinators: what groups decide, and the runtime that makes the decisions durable.
//!
//! A coordinator is a pure state machine over one partition of an internal topic: a request goes
//! in, records to append and answers to send come out. The runtime appends the records, waits for
//! their commit and lets the answers go; followers apply what is committed, so a failover costs no
//! replay.

pub mod report;
