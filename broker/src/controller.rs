//! The controller: what the cluster is made of, decided in one place and replicated as a log.
//!
//! Brokers, topics, configurations, replica ids and blocks of producer ids are [`records`] in the
//! log of group 0. [`state`] is the image that applying them in order gives; every node has the
//! same. [`decide`] holds the pure decisions (image and request in, records and answer out),
//! [`placement`] the one about nodes. The service runs them: decide, append, wait for the commit,
//! apply, let the node follow, answer.
//!
//! **Invariant:** there is no metadata beside the log of group 0. An image is never changed but by
//! applying its next record.

pub mod configs;
pub mod decide;
pub mod error;
pub mod placement;
pub mod records;
pub mod service;
mod sharded;
pub mod state;

pub use state::MetadataImage;
