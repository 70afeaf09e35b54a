//! Stories that are told once for each disk operation that fate can strike.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use vltava_storage::disk::sim::{Failed, Fault, FaultPlan};

use super::stage::Stage;
use crate::coverage::Coverage;

/// What happens at a disk operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// The power fails.
    PowerCut,
    /// A write is whole and reported as failed, anything else has no effect.
    Io,
    /// A short write; anything else has no effect.
    Full,
    /// The disk is full until it has room again.
    FullForAWhile,
}

impl Fate {
    /// The fates of a story with this command.
    pub(super) fn all_of(command: &str) -> Option<&'static [Self]> {
        match command {
            "power-cut-anywhere" => Some(&[Self::PowerCut]),
            "disk-error-anywhere" => Some(&[Self::Io, Self::Full, Self::FullForAWhile]),
            _ => None,
        }
    }

    /// How the disk fails.
    pub(super) fn plan(self, op: u64) -> FaultPlan {
        match self {
            Self::PowerCut => FaultPlan::from(op, Fault::Io),
            Self::Io => FaultPlan { written: 256, ..FaultPlan::once(op, Fault::Io) },
            Self::Full => FaultPlan { written: 128, ..FaultPlan::once(op, Fault::Full) },
            Self::FullForAWhile => FaultPlan::full(op),
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PowerCut => "a power cut",
            Self::Io => "an I/O error",
            Self::Full => "a full disk once",
            Self::FullForAWhile => "a full disk for a while",
        })
    }
}

/// What may follow from a failed disk operation.
const CONSEQUENCES: [&str; 5] = [
    "disk poisoned by a failed sync",
    "flush round failed",
    "replica began again after a failed write",
    "replica could not be created yet",
    "start failed, again later",
];

/// All tellings together.
#[derive(Debug, Default)]
pub(super) struct Report {
    tellings: u64,
    /// By what it was done to.
    failed: BTreeMap<&'static str, BTreeSet<&'static str>>,
    refusals: BTreeSet<String>,
    coverage: Coverage,
}

impl Report {
    /// A telling was struck.
    pub(super) fn add(&mut self, stage: &Stage) {
        self.tellings += 1;
        if let Some(Failed { what, path }) = stage.failed().first() {
            self.failed.entry(kind_of(path)).or_default().insert(what);
        }
        self.refusals.extend(stage.refusals().iter().cloned());
        self.coverage.add(&stage.coverage());
    }

    /// Not the exact count, which changes with every operation that is saved.
    pub(super) fn answers(&self) -> Vec<String> {
        let mut answers = vec![format!("told more than {} times", self.tellings / 100 * 100)];
        if !self.failed.is_empty() {
            for (kind, whats) in &self.failed {
                let whats: Vec<_> = whats.iter().copied().collect();
                answers.push(format!("failed, of {kind}: {}", whats.join(", ")));
            }
            answers.extend(self.refusals.iter().map(|told| format!("a client was told: {told}")));
            let hit = CONSEQUENCES.iter().filter(|what| self.coverage.count(what) > 0);
            answers.extend(hit.map(|what| format!("it led to: {what}")));
        }
        answers
    }
}

fn kind_of(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("log") => "a segment",
        Some("index") => "an index",
        Some("producers") => "a producer snapshot",
        Some("wal") => "a write-ahead file",
        _ if path == Path::new("wal") => "the write-ahead set's directory",
        _ if path == Path::new("logs") => "the replicas' directory",
        _ if path.starts_with("logs") => "a replica's directory",
        _ => "the root",
    }
}
