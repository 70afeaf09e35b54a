//! Kafka's bytes and messages: identifiers, error codes, frames, record batches and wire types.
//!
//! **Architecture invariant:** nothing here does I/O, waits, reads a clock or draws a random
//! number; everything is a function of the bytes handed in. Bytes from the network never make it
//! panic: a parser answers an error.

#![forbid(unsafe_code)]

pub mod api;
pub mod error_code;
pub mod frame;
pub mod ids;
pub mod messages;
pub mod record;

pub use error_code::ErrorCode;

/// Hostile counts reserve memory that the system's allocator may refuse: see [`messages`].
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
