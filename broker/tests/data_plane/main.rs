//! The data plane of a whole node, spoken to over raw sockets with Kafka's own messages.
//!
//! Each test starts a node of its own on free ports, with a directory of its own.

// Helpers of tests are tests; the lint's own exception knows only the functions marked as such.
#![allow(clippy::unwrap_used)]

mod admission;
mod fetch;
mod groups;
mod node;
mod offsets;
mod produce;
mod wire;

/// As in the binary: the generated decoders reserve what a request claims to hold.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
