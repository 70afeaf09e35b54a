//! The operators, one file each: how it is added to a stream, the link in the chain, and what runs.

mod branch;
mod filter;
mod flat_map;
mod map;
mod map_values;
mod peek;
mod project;
mod select_key;
mod to;
mod try_map;

pub use try_map::{Reject, Rejects};

/// What a user's function must be, beside taking and giving the right things: each task has a copy
/// of its own, and tasks move between threads.
pub trait Function: Clone + Send + Sync + 'static {}

impl<F: Clone + Send + Sync + 'static> Function for F {}
