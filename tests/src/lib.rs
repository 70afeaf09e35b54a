//! The deterministic simulator, and the harness of the tests with real clients and real faults.

pub mod harness;
