//! The deterministic simulator, and the harness of the tests with real clients and real faults.

pub mod checker;
pub mod cluster;
pub mod coverage;
pub mod groups;
pub mod harness;
pub mod network;
pub mod numbers;
pub mod plan;
#[cfg(feature = "planted-bugs")]
pub mod planted;
pub mod script;
pub mod simulate;
pub mod workload;
pub mod world;
