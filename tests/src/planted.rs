//! Bugs planted on purpose: a check that cannot find a known bug proves nothing.
//!
//! Only with the feature `planted-bugs`. A planted bug is in force in the whole process, so plant
//! one at a time.

use vltava_storage::bugs::{Bug, plant};

use crate::plan::Plan;
use crate::simulate::run;

/// All of them, with their names.
pub const BUGS: [(&str, Bug); 15] = [
    ("creation-missing-from-wal", Bug::CreationMissingFromWal),
    ("stale-round-resurrected", Bug::StaleRoundResurrected),
    ("cut-recovered-from-older-segment", Bug::CutRecoveredFromOlderSegment),
    ("recovered-tail-not-synced", Bug::RecoveredTailNotSynced),
    ("attempted-position-reused", Bug::AttemptedPositionReused),
    ("zero-record-batch-served", Bug::ZeroRecordBatchServed),
    ("log-start-forgotten", Bug::LogStartForgotten),
    ("ack-before-persist", Bug::AckBeforePersist),
    ("vote-not-persisted", Bug::VoteNotPersisted),
    ("message-before-vote-durable", Bug::MessageBeforeVoteDurable),
    ("held-released-by-must-sync", Bug::HeldReleasedByMustSync),
    ("high-watermark-without-own-term", Bug::HighWatermarkWithoutOwnTerm),
    ("high-watermark-answered-early", Bug::HighWatermarkAnsweredEarly),
    ("learner-without-conf-state", Bug::LearnerWithoutConfState),
    ("duplicate-acked-before-original", Bug::DuplicateAckedBeforeOriginal),
];

/// How a bug was caught.
#[derive(Clone, Debug)]
pub struct Caught {
    /// After how many seeds.
    pub seeds: u64,
    /// By which check.
    pub violation: String,
}

/// Runs seeds from `first` with a bug in force, until one of them fails or `seeds_max` were run.
pub fn hunt(bug: Bug, first: u64, seeds_max: u64) -> Option<Caught> {
    plant(Some(bug));
    let caught = (0..seeds_max).find_map(|at| {
        let outcome = run(&Plan::of_seed(first + at), false);
        let violation = outcome.violation?.0;
        Some(Caught { seeds: at + 1, violation })
    });
    plant(None);
    caught
}
