//! One partition's log on disk, and the write-ahead file set of a disk.
//!
//! **Architecture invariant:** `storage` knows offsets, indexes and leader epochs, but no peers, no
//! clock and no async. It never decides; it is told. This lets the simulator run it in memory.

#![deny(missing_docs)]

pub mod bugs;
pub mod disk;
pub mod flush;
pub mod ids;
pub mod node;
pub mod paths;
pub mod segment;
pub mod segment_header;
pub mod state;
