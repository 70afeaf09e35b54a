//! Scenes of groups, written as scripts; see [`scene`] for the language.

mod failover;
mod members;
mod offsets;
mod random;
mod rebalances;
mod requests;
mod scene;
mod statics;
