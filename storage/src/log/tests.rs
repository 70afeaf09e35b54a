//! The log against its model: appends, cuts, starts, restarts, every failing operation.

use vltava_protocol::ids::{LeaderEpoch, Offset};
use vltava_protocol::record::control::InternalKind;

use super::model::{Dice, Harness, client_batch, small};
use crate::ids::LogIndex;

/// One random step; `Err` only where the disk failed.
fn step(log: &mut Harness, dice: &mut Dice) -> Result<(), super::AppendError> {
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
        _ => log.flush(),
    }
    Ok(())
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
