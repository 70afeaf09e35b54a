//! The states of a classic group.

use std::fmt;

/// Where a group is between two rebalances (`ClassicGroupState`).
///
/// ```text
/// Empty ──join──> PreparingRebalance ──all have joined──> CompletingRebalance ──sync──> Stable
///   ^                 │       ^                                  │                        │
///   └───nobody left───┘       └──── a member comes, goes or changes its mind ─────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// No members; perhaps offsets.
    Empty,
    /// Members are asked to join again.
    PreparingRebalance,
    /// Everybody has joined; the leader assigns.
    CompletingRebalance,
    /// Every member knows its assignment.
    Stable,
    /// There is no such group.
    Dead,
}

impl State {
    /// All but [`State::Dead`], which no group is in.
    pub const LIVING: [Self; 4] =
        [Self::Empty, Self::PreparingRebalance, Self::CompletingRebalance, Self::Stable];

    /// Kafka's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
