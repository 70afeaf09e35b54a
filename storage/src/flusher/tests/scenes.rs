//! The histories.

use super::model::World;
use crate::disk::sim::{Fault, FaultPlan};
use crate::flusher::FlushError;

/// Names the seed of a failing history.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {}", self.0);
        }
    }
}

/// Acts and flushes; errors of the disk are met as a broker meets them. Returns early when the disk
/// is poisoned.
fn live(world: &mut World, deeds: u64) {
    for _ in 0..deeds {
        world.act();
        if world.dice.one_in(3) {
            match world.round() {
                Ok(()) | Err(FlushError::Write(_)) => {}
                Err(FlushError::Poisoned) => return,
            }
        }
    }
}

#[test]
fn what_was_promised_survives_every_death() {
    for seed in 0..500 {
        let _seed = Seed(seed);
        let mut world = World::new(seed);
        world.restart();
        for _ in 0..6 {
            let deeds = 5 + world.dice.below(60);
            match world.dice.below(5) {
                0 => {
                    let op = world.disk.op_count() + world.dice.below(60);
                    world.disk.fail(FaultPlan::once(op, Fault::Full));
                }
                1 => {
                    let op = world.disk.op_count() + world.dice.below(100);
                    world.disk.fail(FaultPlan::from(op, Fault::Io));
                }
                2 => {
                    let used: usize = world.disk.tree().values().map(bytes::Bytes::len).sum();
                    world.disk.set_space(Some(used as u64 + world.dice.below(10_000)));
                }
                _ => {}
            }
            live(&mut world, deeds);
            world.disk.set_space(None);
            if world.dice.one_in(3) {
                world.disk = world.disk.crash();
            } else {
                world.power_cut();
            }
            world.restart();
        }
    }
}

/// One history, the same up to the point where `fault` strikes.
fn scene(seed: u64, fault: Option<FaultPlan>) -> World {
    let mut world = World::new(seed);
    world.start().expect("an empty disk");
    if let Some(plan) = fault {
        world.disk.fail(plan);
    }
    live(&mut world, 60);
    world
}

#[test]
fn power_cut_at_every_operation() {
    for seed in 0..4 {
        let ops = scene(seed, None).disk.op_count();
        assert!(ops > 100, "{ops}");
        for op in 0..ops {
            let _seed = Seed(seed * 1_000_000 + op);
            let mut world = scene(seed, Some(FaultPlan::from(op, Fault::Io)));
            world.power_cut();
            world.start().expect("a healthy disk");
            live(&mut world, 10);
        }
    }
}

#[test]
fn a_full_disk_at_every_operation_costs_nothing_but_time() {
    for seed in 0..4 {
        let ops = scene(seed, None).disk.op_count();
        for op in 0..ops {
            let _seed = Seed(seed * 1_000_000 + op);
            for written in [0, 128, 256] {
                let plan = FaultPlan { written, ..FaultPlan::once(op, Fault::Full) };
                let mut world = scene(seed, Some(plan));
                // A failed sync poisons; anything else is made up for.
                loop {
                    match world.round() {
                        Ok(()) if world.queue.is_empty() => break,
                        Ok(()) | Err(FlushError::Write(_)) => {}
                        Err(FlushError::Poisoned) => break,
                    }
                }
                if !world.queue.is_poisoned() {
                    world.check_all_promised();
                }
                world.power_cut();
                world.start().expect("a healthy disk");
            }
        }
    }
}

#[test]
fn recovery_may_die_at_every_operation() {
    for seed in 0..4 {
        let mut ops = 1;
        let mut op = 0;
        while op < ops {
            let _seed = Seed(seed * 1_000_000 + op);
            let mut world = scene(seed, None);
            world.power_cut();
            world.disk.fail(FaultPlan::from(op, Fault::Full));
            if world.start().is_ok() {
                ops = world.disk.op_count();
            } else {
                ops = op + 2;
                world.power_cut();
                world.start().expect("a healthy disk");
            }
            op += 1;
        }
        assert!(ops > 10);
    }
}

#[test]
fn a_failed_sync_poisons_for_ever() {
    let mut poisoned = 0;
    let ops = scene(1, None).disk.op_count();
    for op in 0..ops {
        let _seed = Seed(op);
        let mut world = scene(1, Some(FaultPlan::once(op, Fault::Io)));
        if world.queue.is_poisoned() {
            poisoned += 1;
            let ops = world.disk.op_count();
            world.act();
            assert!(world.queue.is_empty() && !world.queue.wait());
            assert!(matches!(world.flusher().round(), Err(FlushError::Poisoned)));
            assert!(matches!(world.flusher().shutdown(), Err(FlushError::Poisoned)));
            assert!(world.disk.op_count() - ops <= 4, "only the log itself wrote");
        }
        // Page cache whole, but what the failed sync covered counts as clean.
        world.disk = world.disk.crash();
        world.start().expect("a healthy disk");
        world.power_cut();
        world.start().expect("a healthy disk");
    }
    assert!(poisoned > 20, "{poisoned}");
}

#[test]
fn a_clean_end_leaves_nothing_to_redo() {
    for seed in 0..50 {
        let _seed = Seed(seed);
        let mut world = scene(seed, None);
        for round in world.flusher().shutdown().expect("a healthy disk") {
            world.completed(&round);
        }
        world.check_all_promised();
        world.power_cut();
        let disk = std::sync::Arc::new(world.disk.fork());
        let recovered = crate::wal::recover(disk, world.config).expect("a healthy disk");
        assert!(recovered.node.as_ref().expect("it was set").clean);
        assert_eq!(recovered.redone.writes, 0);
        assert_eq!(recovered.redone.segments_created, 0);
        world.start().expect("a healthy disk");
    }
}

#[test]
fn an_empty_queue_costs_nothing() {
    let mut world = World::new(1);
    world.start().expect("an empty disk");
    world.round().expect("the node's row");
    let ops = world.disk.op_count();
    world.round().expect("nothing");
    assert_eq!(world.disk.op_count(), ops);
}

#[test]
fn on_a_real_disk() {
    use std::io::IoSlice;
    use std::sync::Arc;

    use crate::disk::Disk;
    use crate::disk::mapped::MappedDisk;
    use crate::flush::{FlushItem, SegmentFile};
    use crate::flusher::{FlushQueue, Flusher};
    use crate::ids::{FileId, Generation, LogIndex, ReplicaId, SegmentId};
    use crate::paths::{replica_dir, segment_path};
    use crate::segment::SegmentHeader;
    use crate::state::ReplicaState;
    use crate::wal::{WalConfig, recover};

    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk: Arc<dyn Disk> = MappedDisk::open(dir.path().join("data")).expect("room");
    let config = WalConfig { first_file_bytes: 8192, file_bytes: 16384, ..WalConfig::default() };
    let replica = ReplicaId(1);
    let id = FileId { replica, segment: SegmentId(1) };
    let header = SegmentHeader {
        id,
        generation: Generation(1),
        base_index: LogIndex(2),
        base_offset: vltava_protocol::ids::Offset(0),
        epoch_before: vltava_protocol::ids::LeaderEpoch(1),
    };
    let queue = Arc::new(FlushQueue::default());
    let recovered = recover(disk.clone(), config).expect("an empty disk");
    let mut flusher = Flusher::new(recovered, disk.clone(), queue.clone());
    disk.create_dir(&replica_dir(replica)).expect("room");
    let path = segment_path(id);
    let file = disk.create(&path, 1 << 20).expect("room");
    file.write_at(0, &[IoSlice::new(&header.encode())]).expect("room");
    let file = Arc::new(SegmentFile { id, path: path.clone(), file });
    queue.push([
        FlushItem::State { replica, state: ReplicaState::default() },
        FlushItem::Create { file: file.clone(), header },
    ]);
    let mut position = 64;
    let mut completed = 0;
    for ticket in 1..=100u64 {
        let batch = vec![ticket as u8; 700];
        file.file.write_at(position, &[IoSlice::new(&batch)]).expect("room");
        let bytes = file.file.slice(position..position + 700).expect("just written");
        queue.push([
            FlushItem::Write { file: file.clone(), position, bytes },
            FlushItem::State { replica, state: ReplicaState::default() },
            FlushItem::Ticket { replica, ticket },
        ]);
        position += 700;
        let round = flusher.round().expect("a healthy disk");
        completed = round.completed.last().expect("one ticket a round").1;
    }
    assert_eq!(completed, 100);
    drop(flusher);
    let recovered = recover(disk.clone(), config).expect("a healthy disk");
    assert_eq!(recovered.durable_position(id), position);
    let found = disk.open(&path, 0).expect("it is there");
    assert_eq!(found.len().expect("it is there"), position);
    let mut flusher = Flusher::new(recovered, disk.clone(), queue);
    flusher.shutdown().expect("a healthy disk");
    drop(flusher);
    assert_eq!(recover(disk, config).expect("a healthy disk").redone.writes, 0);
}
