//! The broker: sockets, replication, coordinators, the controller and the command line.

pub mod admin;
pub mod cli;
pub mod client;
pub mod client_metrics;
pub mod clock;
pub mod config;
pub mod connection;
pub mod context;
pub mod controller;
pub mod coordinator;
pub mod embedded;
pub mod fetch_sessions;
pub mod group_metrics;
pub mod handlers;
pub mod log_access;
pub mod logging;
pub mod metrics;
pub mod node;
pub mod node_metrics;
pub mod partition;
pub mod partitions;
pub mod peers;
pub mod pipelines;
pub mod producer_ids;
pub mod replica;
pub mod request_memory;
pub mod room;
pub mod server;
mod write_back;

pub use embedded::{Broker, BrokerError, Config};
