//! The broker: sockets, replication, coordinators, the controller and the command line.

pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod connection;
pub mod controller;
pub mod fetch_sessions;
pub mod logging;
pub mod metrics;
pub mod producer_ids;
pub mod server;
