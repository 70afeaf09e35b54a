//! The log against its model: appends, cuts, starts, restarts, every failing operation.

use vltava_protocol::ids::{LeaderEpoch, Offset};
use vltava_protocol::record::control::{InternalBatch, InternalKind};

use super::AppendError;
use super::model::{Dice, Harness, client_batch, idempotent_batch, small};
use crate::disk::sim::{Fault, FaultPlan};
use crate::ids::LogIndex;
use crate::state::VoteState;

/// One random step; `Err` only where the disk failed.
fn step(log: &mut Harness, dice: &mut Dice) -> Result<(), AppendError> {
    let last = log.last_index();
    match dice.below(20) {
        0..8 => log.produce(&dice.batch())?,
        8..11 => {
            let run: Vec<_> = (0..=dice.below(12)).map(|_| dice.batch()).collect();
            log.append(&run)?;
        }
        11..13 => {
            log.epoch = LeaderEpoch(log.epoch.0 + 1);
            log.internal(InternalKind::Noop, &[])?;
        }
        13..15 => {
            let open = last.0 - log.committed.0;
            log.commit(LogIndex(last.0 - dice.below(open.min(3) + 1)));
        }
        15..17 if last > log.committed => {
            let from = log.committed.0 + 1 + dice.below(last.0 - log.committed.0);
            log.epoch = LeaderEpoch(log.epoch.0 + 1);
            log.cut(LogIndex(from))?;
        }
        17 if dice.below(3) == 0 => {
            let high = log.end_offset_of(log.committed).0;
            let low = log.log_start.0;
            log.move_start(Offset(low + dice.below((high - low + 1) as u64) as i64))?;
        }
        18 => {
            log.flush();
            let term = log.epoch.0 as u64;
            log.log.save_vote(VoteState { term, vote: 0, commit: log.committed });
        }
        _ => log.flush(),
    }
    Ok(())
}

#[test]
fn a_power_cut_takes_only_what_was_not_flushed() {
    for seed in 0..120 {
        println!("seed {seed}");
        let mut dice = Dice::new(seed);
        let mut log = Harness::new(seed, small());
        for _ in 0..6 {
            for _ in 0..dice.below(20) {
                step(&mut log, &mut dice).unwrap();
            }
            if dice.below(4) == 0 {
                log.log.close().unwrap();
            }
            let disk = log.disk.power_cut(dice.seed());
            log.reopen_after_loss(disk);
            log.check();
            // What was recovered is durable: a second cut takes nothing of it.
            let found = log.model.clone();
            log.flush();
            let disk = log.disk.power_cut(dice.seed());
            log.reopen_after_loss(disk);
            assert_eq!(log.model, found);
            log.epoch = LeaderEpoch(log.epoch.0 + 1);
        }
    }
}

#[test]
fn the_write_ahead_set_brings_back_what_was_flushed() {
    for seed in 0..60 {
        println!("seed {seed}");
        let mut dice = Dice::new(seed);
        let mut log = Harness::with_wal(seed, small());
        for _ in 0..5 {
            for _ in 0..dice.below(25) {
                step(&mut log, &mut dice).unwrap();
            }
            if dice.below(3) == 0 {
                log.log.close().unwrap();
                log.flush();
            }
            let disk =
                if dice.below(4) == 0 { log.disk.crash() } else { log.disk.power_cut(dice.seed()) };
            log.reopen_after_loss(disk);
            log.check();
            log.epoch = LeaderEpoch(log.epoch.0 + 1);
        }
    }
}

#[test]
fn what_a_restart_found_is_durable() {
    for seed in 0..60 {
        println!("seed {seed}");
        let mut dice = Dice::new(seed);
        let mut log = Harness::new(seed, small());
        for _ in 0..30 {
            step(&mut log, &mut dice).unwrap();
        }
        let row = log.row.clone();
        let disk = log.disk.crash();
        log.reopen(disk);
        // Raft counts all of it as persisted, although no flush was ever asked for.
        let found = log.log.last_index();
        log.row = row;
        let disk = log.disk.power_cut(dice.seed());
        log.reopen(disk);
        assert_eq!(log.log.last_index(), found);
    }
}

#[test]
fn a_failing_disk_changes_nothing_and_a_retry_works() {
    for seed in 0..150 {
        println!("seed {seed}");
        let mut dice = Dice::new(seed);
        let mut log = Harness::new(seed, small());
        for _ in 0..12 {
            let fault = if dice.below(2) == 0 { Fault::Full } else { Fault::Io };
            let op = log.disk.op_count() + dice.below(20);
            let (written, lasting) = (dice.below(257) as u16, dice.below(2) == 0);
            log.disk.fail(FaultPlan { written, lasting, ..FaultPlan::once(op, fault) });
            for _ in 0..dice.below(12) {
                if step(&mut log, &mut dice).is_err() {
                    log.disk.heal();
                    log.check();
                    if dice.below(3) == 0 {
                        break; // with the position still burnt
                    }
                    log.recover_from_failure();
                }
            }
            if dice.below(2) == 0 {
                let disk = log.disk.power_cut(dice.seed());
                log.reopen_after_loss(disk);
                log.epoch = LeaderEpoch(log.epoch.0 + 1);
            } else {
                log.recover_from_failure();
            }
            log.check();
        }
    }
}

#[test]
fn a_failed_write_is_never_found_again() {
    let (attempt, other) = (client_batch(1, 50, 1), client_batch(1, 50, 2));
    for seed in 0..40 {
        let mut log = Harness::new(seed, small());
        let (op, fault) = (log.disk.op_count(), Fault::Io);
        // All bytes are written, and the disk reports an error all the same.
        log.disk.fail(FaultPlan { written: 256, ..FaultPlan::once(op, fault) });
        assert!(log.produce(&attempt).is_err());
        log.check();
        log.recover_from_failure();
        log.produce(&other).unwrap();
        let disk = log.disk.power_cut(seed);
        log.reopen_after_loss(disk);
    }
}

#[test]
fn nothing_is_proposed_over_a_failed_write() {
    let mut log = Harness::new(1, small());
    let (op, fault) = (log.disk.op_count(), Fault::Full);
    log.disk.fail(FaultPlan { written: 7, ..FaultPlan::once(op, fault) });
    assert!(matches!(log.produce(&client_batch(1, 50, 1)), Err(AppendError::Io(_))));
    assert!(log.log.is_burnt());
    assert!(matches!(log.produce(&client_batch(1, 50, 1)), Err(AppendError::Burnt(_))));
    assert!(matches!(log.append(&[client_batch(1, 50, 1)]), Err(AppendError::Burnt(_))));
    log.log.unburn().unwrap();
    log.log.unburn().unwrap();
    assert!(log.log.is_burnt(), "the new segment is not durable yet");
    log.flush();
    log.log.unburnt_durable();
    log.produce(&client_batch(1, 50, 1)).unwrap();
    log.check();
    // A later epoch cannot be mistaken for the attempt.
    log.disk.fail(FaultPlan { written: 7, ..FaultPlan::once(log.disk.op_count(), fault) });
    assert!(log.produce(&client_batch(1, 50, 1)).is_err());
    log.epoch = LeaderEpoch(2);
    log.append(&[client_batch(1, 50, 1)]).unwrap();
    log.check();
}

#[test]
fn every_operation_of_a_recovery_may_fail() {
    for seed in 0..25 {
        println!("seed {seed}");
        let mut dice = Dice::new(seed);
        let mut log = Harness::new(seed, small());
        for _ in 0..40 {
            step(&mut log, &mut dice).unwrap();
        }
        let disk = log.disk.power_cut(dice.seed());
        let row = log.row.clone();
        for op in 0.. {
            log.row = row.clone();
            let attempt = disk.fork();
            attempt.fail(FaultPlan::from(op, Fault::Io));
            let failed = log.try_reopen(&attempt).is_err();
            let after = attempt.power_cut(dice.seed());
            log.reopen_after_loss(after);
            log.check();
            if !failed {
                break;
            }
        }
    }
}

#[test]
fn is_its_model() {
    for seed in 0..60 {
        let mut dice = Dice::new(seed);
        let mut log = Harness::new(seed, small());
        for _ in 0..60 {
            step(&mut log, &mut dice).unwrap();
        }
        println!("seed {seed}");
        log.check();
    }
}

#[test]
fn a_killed_process_loses_nothing_it_wrote() {
    for seed in 0..40 {
        println!("seed {seed}");
        let mut dice = Dice::new(seed);
        let mut log = Harness::new(seed, small());
        for round in 0..6 {
            for _ in 0..dice.below(25) {
                step(&mut log, &mut dice).unwrap();
            }
            if round % 3 == 0 {
                log.log.close().unwrap();
            }
            // The rows of the outbox die with the process; batches and segments are files.
            log.flush();
            let disk = log.disk.crash();
            let report = log.reopen(disk);
            assert_eq!(report.torn_bytes, 0);
            // The commit is saved lazily: raft learns it again.
            assert!(log.log.committed() <= log.committed);
            log.log.commit_to(log.committed);
            log.check();
        }
    }
}

#[test]
fn rolls_by_the_time_of_its_records() {
    let mut config = small();
    config.segment_bytes = 1 << 20;
    config.segment_ms = 100;
    let mut log = Harness::new(1, config);
    for timestamp in [1000, 1050, 1098, 1101, 1300, 900] {
        log.produce(&client_batch(1, 10, timestamp)).unwrap();
    }
    let bases: Vec<u64> =
        log.log.segments.iter().map(|segment| segment.header.base_index.0).collect();
    assert_eq!(bases, [2, 5, 6]);
}

#[test]
fn finds_offsets_by_time() {
    let mut log = Harness::new(1, small());
    // Offsets:                 0..3  3..6  6..9  9..12
    for timestamp in [1000, 3000, 2000, 3001] {
        log.produce(&client_batch(3, 300, timestamp)).unwrap();
        log.internal(InternalKind::Noop, &[]).unwrap();
    }
    log.commit(log.last_index());
    let find = |log: &Harness, timestamp| {
        let view = log.log.view().read();
        let found = view.offset_for_timestamp(vltava_protocol::ids::Timestamp(timestamp)).unwrap();
        found.map(|(offset, at, _)| (offset.0, at.0))
    };
    let greatest = |log: &Harness| {
        let found = log.log.view().read().max_timestamp().unwrap();
        found.map(|(offset, at, _)| (offset.0, at.0))
    };
    assert_eq!(find(&log, 0), Some((0, 1000)));
    assert_eq!(find(&log, 1001), Some((1, 1001)));
    assert_eq!(find(&log, 1003), Some((3, 3000)));
    assert_eq!(find(&log, 3002), Some((5, 3002)));
    assert_eq!(find(&log, 3003), Some((11, 3003)));
    assert_eq!(find(&log, 3004), None);
    assert_eq!(greatest(&log), Some((11, 3003)));
    log.move_start(Offset(4)).unwrap();
    assert_eq!(find(&log, 0), Some((4, 3001)));
    // What is not committed is not found.
    log.produce(&client_batch(1, 300, 9000)).unwrap();
    assert_eq!(find(&log, 3004), None);
    assert_eq!(greatest(&log), Some((11, 3003)));
}

#[test]
fn retention_takes_whole_segments_below_the_high_watermark() {
    let mut config = small();
    config.segment_bytes = 700;
    let mut log = Harness::new(1, config);
    for timestamp in [1000, 2000, 3000, 4000] {
        log.produce(&client_batch(1, 500, timestamp)).unwrap(); // one a segment
    }
    let now = vltava_protocol::ids::Timestamp(4500);
    assert_eq!(log.log.retention_start(now, 0, 0), None, "nothing is committed");
    log.commit(LogIndex(4));
    let start = |ms, bytes| log.log.retention_start(now, ms, bytes).map(|offset| offset.0);
    assert_eq!(start(-1, -1), None);
    assert_eq!(start(3500, -1), None);
    assert_eq!(start(3499, -1), Some(1));
    assert_eq!(start(100, -1), Some(3));
    let size = log.log.view().read().size_bytes() as i64;
    assert_eq!(start(-1, size), None);
    assert_eq!(start(-1, size / 2), Some(2));
    assert_eq!(start(-1, 0), Some(3));
    log.commit(LogIndex(5));
    assert_eq!(log.log.retention_start(now, 100, -1), Some(Offset(4)), "the last one too");
    log.move_start(Offset(4)).unwrap();
    log.flush();
    assert_eq!(log.log.segments.len(), 1, "the last one was left");
    assert_eq!(log.log.first_index(), LogIndex(6));
    log.check();
}

#[test]
fn a_held_first_index_moves_when_it_is_released() {
    let mut config = small();
    config.segment_bytes = 700;
    let mut log = Harness::new(1, config);
    for timestamp in [1000, 2000, 3000] {
        log.produce(&client_batch(1, 500, timestamp)).unwrap();
    }
    log.log.hold_first_index();
    log.move_start(Offset(2)).unwrap();
    assert_eq!(log.log.first_index(), LogIndex(2));
    log.check();
    log.log.release_first_index();
    assert_eq!(log.log.first_index(), LogIndex(4));
    log.check();
}

/// Producers outlive their batches: on a disk that takes no snapshot of them, the batches stay.
#[test]
fn deleted_segments_go_when_their_producers_are_kept() {
    for fault in [Fault::Io, Fault::Full] {
        let mut config = small();
        config.segment_bytes = 700;
        let mut log = Harness::new(1, config);
        log.produce(&idempotent_batch(7, 0, 0, 3)).unwrap();
        for timestamp in [1000, 2000] {
            log.produce(&client_batch(1, 500, timestamp)).unwrap();
        }
        let offset = Offset(4);
        log.internal(InternalKind::LogStart, &InternalBatch::log_start_body(offset)).unwrap();
        let index = log.last_index();
        log.commit(index);
        log.flush();
        // As if it had failed when the segments were left, too.
        log.log.remove_snapshots(LogIndex(0)).unwrap();
        log.disk.fail(FaultPlan::from(log.disk.op_count(), fault));
        for _ in 0..2 {
            log.log.apply_log_start(index, offset);
            assert_eq!(log.log.first_index(), LogIndex(2), "{fault:?}");
        }
        log.disk.heal();
        log.log_start = offset;
        log.log.advance_floor();
        assert!(log.log.first_index() > LogIndex(2));
        log.flush();
        let disk = log.disk.power_cut(3);
        log.reopen(disk);
        log.log.commit_to(index);
        log.check();
    }
}

/// A segment is not started, at the end or for a cut, but its header was written; the log goes on
/// where it was, and dies.
fn goes_on_after_a_failed_segment(seed: u64, is_cut: bool, is_removed: bool) {
    let mut log = Harness::new(seed, small());
    log.append(&[client_batch(1, 500, 1), client_batch(1, 500, 1)]).unwrap();
    log.commit(LogIndex(2));
    log.flush();
    // After the file is created, its header fails in spite of being there whole.
    let op = log.disk.op_count() + 1;
    let plan = FaultPlan { written: 256, lasting: !is_removed, ..FaultPlan::once(op, Fault::Io) };
    log.disk.fail(plan);
    // Where it cannot be removed it is tried again and again: no more than one file is left.
    for _ in 0..if is_removed { 1 } else { 3 } {
        let failed =
            if is_cut { log.cut(LogIndex(3)) } else { log.produce(&client_batch(1, 900, 1)) };
        assert!(failed.is_err());
    }
    log.disk.heal();
    log.produce(&client_batch(1, 10, 1)).unwrap();
    log.flush();
    let disk = if seed == 0 { log.disk.crash() } else { log.disk.power_cut(seed) };
    log.reopen(disk);
    log.log.commit_to(log.committed);
    log.check();
}

#[test]
fn a_segment_that_failed_to_start_never_ends_the_log() {
    for seed in 0..30 {
        for (is_cut, is_removed) in [(false, false), (false, true), (true, false), (true, true)] {
            println!("seed {seed} cut {is_cut} removed {is_removed}");
            goes_on_after_a_failed_segment(seed, is_cut, is_removed);
        }
    }
}
