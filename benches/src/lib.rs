//! What the benchmarks share: batches as producers send them, requests around them, and a clock
//! that leaves preparations out.
//!
//! Called by the files in `benches/` and by the command in `main.rs`. Nothing here is part of the
//! broker; nothing here is measured itself.

#![deny(missing_docs)]

pub mod fixtures;
pub mod jobs;
pub mod logs;
pub mod runs;
pub mod tasks;
