//! Talking to other nodes.

pub mod codec;
