//! One partition's log on disk, and the write-ahead file set of a disk.
//!
//! **Architecture invariant:** `storage` knows offsets, indexes and leader epochs, but no peers, no
//! clock and no async. It never decides; it is told. This lets the simulator run it in memory.

#![deny(missing_docs)]

pub mod bugs;
pub mod disk;
pub mod dump;
pub mod epochs;
pub mod flush;
pub mod flusher;
pub mod ids;
mod index;
pub mod log;
pub mod node;
pub mod paths;
pub mod producers;
pub mod read_view;
pub mod recovery;
pub mod retention;
mod scan;
pub mod segment;
pub mod segment_header;
mod segments;
mod side_file;
pub mod slice;
pub mod snapshot;
pub mod state;
pub mod time_lookup;
pub mod wal;
