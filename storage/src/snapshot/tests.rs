//! Snapshots between two logs, with a crash at every operation.

use std::sync::Arc;

use bytes::Bytes;
use vltava_protocol::ids::{LeaderEpoch, Offset};
use vltava_protocol::record::control::InternalKind;

use super::{InstallError, SnapshotInstall, SnapshotManifest};
use crate::disk::Disk;
use crate::disk::sim::{Fault, FaultPlan, SimDisk};
use crate::ids::{LogIndex, ReplicaId};
use crate::log::PartitionLog;
use crate::log::model::{Dice, Harness, REPLICA, client_batch, idempotent_batch, small};
use crate::paths::parse_segment_file_name;
use crate::state::{LogStart, Membership, ReplicaState};

/// A leader with several segments, a moved start, producers, and a tail that is not committed.
fn leader() -> Harness {
    let mut dice = Dice::new(3);
    let mut leader = Harness::new(1, small());
    leader.epoch = LeaderEpoch(2);
    leader.internal(InternalKind::Noop, &[]).unwrap();
    leader.produce(&idempotent_batch(77, 0, 0, 3)).unwrap();
    for _ in 0..30 {
        leader.produce(&dice.batch()).unwrap();
    }
    leader.move_start(Offset(25)).unwrap();
    leader.epoch = LeaderEpoch(3);
    for _ in 0..10 {
        leader.produce(&dice.batch()).unwrap();
    }
    leader.commit(LogIndex(leader.last_index().0 - 4));
    let membership = Membership { voters: vec![ReplicaId(1), REPLICA], ..Membership::default() };
    leader.log.set_membership(LogIndex(5), membership);
    leader
}

/// A follower with a log of its own that has to go.
fn follower() -> Harness {
    let mut follower = Harness::new(9, small());
    follower.append(&[client_batch(2, 30, 5), client_batch(1, 400, 6)]).unwrap();
    follower.commit(LogIndex(2));
    follower.flush();
    follower
}

fn described(leader: &Harness) -> SnapshotManifest {
    leader.log.manifest(leader.log.committed()).unwrap()
}

/// Sends all chunks; errors are the follower's disk's.
fn send(leader: &Harness, log: &PartitionLog, chunk: u64) -> Result<SnapshotInstall, InstallError> {
    let manifest = SnapshotManifest::decode(&described(leader).encode()).unwrap();
    assert_eq!(manifest, described(leader));
    let mut install = SnapshotInstall::begin(log, manifest)?;
    while let Some((base_index, position)) = install.missing() {
        let data = leader.log.read_segment(base_index, position, chunk).unwrap();
        assert!(!data.is_empty());
        install.write_chunk(base_index, position, &data)?;
    }
    install.finish()?;
    Ok(install)
}

/// The follower's model becomes the leader's, up to the snapshot.
fn adopt(follower: &mut Harness, leader: &Harness) {
    let manifest = described(leader);
    follower.model = leader.model[..(manifest.index.0 - 1) as usize].to_vec();
    follower.committed = manifest.index;
    follower.log_start = manifest.log_start.offset;
    follower.epoch = leader.epoch;
}

fn segment_files(names: &[String]) -> usize {
    names.iter().filter(|name| parse_segment_file_name(name).is_some()).count()
}

#[test]
fn a_follower_gets_the_leaders_log() {
    let leader = leader();
    for chunk in [1, 61, 4096] {
        let mut follower = follower();
        let view = follower.log.view();
        let old = view.read().read(Offset(0), Offset(2), 1000, true).unwrap();
        let before = old[0].bytes().unwrap();
        let install = send(&leader, &follower.log, chunk).unwrap();
        // Until it is installed, the log goes on as it was.
        follower.check();
        follower.append(&[client_batch(1, 10, 1)]).unwrap();
        follower.log.install(install).unwrap();
        adopt(&mut follower, &leader);
        follower.check();
        assert_eq!(follower.log.membership_at(follower.committed).unwrap().voters.len(), 2);
        follower.flush();
        assert_eq!(old[0].bytes().unwrap(), before, "slices outlive their segment");
        follower.append(&[client_batch(3, 100, 1)]).unwrap();
        let committed = follower.committed;
        let disk = follower.disk.crash();
        follower.reopen(disk);
        assert_eq!(follower.log.committed(), committed);
        follower.check();
        follower.flush();
        let names = follower.disk.list(&crate::paths::replica_dir(REPLICA)).unwrap();
        let logs = segment_files(&names);
        assert_eq!(logs, follower.log.all_segments().count(), "the old log is gone");
    }
}

#[test]
fn a_log_that_rolls_while_it_receives_goes_on_behind_the_snapshot() {
    let leader = leader();
    let mut follower = Harness::with_wal(9, small());
    follower.append(&[client_batch(2, 30, 5)]).unwrap();
    follower.commit(LogIndex(2));
    let install = send(&leader, &follower.log, 4096).unwrap();
    // Segments that are newer than those of the snapshot, the last of them synced in place.
    for _ in 0..3 {
        follower.append(&[client_batch(1, 1200, 6)]).unwrap();
        follower.flush();
    }
    follower.append(&[client_batch(1, 100 << 10, 6)]).unwrap();
    follower.flush();
    follower.log.install(install).unwrap();
    adopt(&mut follower, &leader);
    follower.check();
    follower.flush();
    // The segment behind the snapshot is empty, then it is not: neither is damage.
    for seed in 0..2 {
        let disk = follower.disk.power_cut(seed);
        follower.reopen(disk);
        follower.check();
        follower.append(&[client_batch(3, 100, 1)]).unwrap();
        follower.flush();
    }
}

#[test]
fn a_crash_at_any_operation_leaves_one_log_whole() {
    let leader = leader();
    for op in 0.. {
        let mut follower = follower();
        let plan = FaultPlan::from(follower.disk.op_count() + op, Fault::Io);
        follower.disk.fail(plan);
        let sent = send(&leader, &follower.log, 512);
        let done = sent.is_ok();
        let (old_model, old_committed) = (follower.model.clone(), follower.committed);
        if let Ok(install) = sent {
            follower.disk.heal();
            follower.log.install(install).unwrap();
        }
        // The row is durable or it is not.
        for is_flushed in [false, true] {
            let disk = follower.disk.fork().power_cut(op);
            let (model, committed) = (old_model.clone(), old_committed);
            if done && is_flushed {
                follower.flush();
                adopt(&mut follower, &leader);
                let disk = follower.disk.power_cut(op);
                follower.reopen(disk);
            } else {
                let (log, _) = follower.try_reopen(&disk).unwrap();
                let mut survivor = Harness::on(SimDisk::new(0), small());
                (survivor.log, survivor.model, survivor.committed) = (log, model, committed);
                survivor.log.commit_to(committed);
                survivor.check();
                let left = disk.list(&crate::paths::replica_dir(REPLICA)).unwrap();
                let logs = segment_files(&left);
                assert_eq!(logs, survivor.log.all_segments().count(), "leftovers are removed");
                continue;
            }
            follower.check();
        }
        if done {
            assert!(op > 10, "the snapshot takes more than {op} operations");
            return;
        }
    }
}

#[test]
fn damage_on_the_way_is_noticed() {
    let leader = leader();
    let follower = follower();
    let manifest = described(&leader);
    for flipped in 0..20 {
        let mut install = SnapshotInstall::begin(&follower.log, manifest.clone()).unwrap();
        let mut chunks = 0;
        while let Some((base_index, position)) = install.missing() {
            let mut data = leader.log.read_segment(base_index, position, 100).unwrap().to_vec();
            if chunks == flipped {
                data[50] ^= 1;
            }
            chunks += 1;
            install.write_chunk(base_index, position, &data).unwrap();
        }
        // All but the first 16 bytes of a batch are under its checksum, and those are known.
        assert!(matches!(install.finish(), Err(InstallError::Damaged { .. })), "chunk {flipped}");
        install.abandon();
        follower.check();
    }
    assert!(SnapshotInstall::begin(&leader.log, manifest).is_err(), "a stale one is refused");
}

#[test]
fn an_empty_group_has_a_snapshot_too() {
    let leader = Harness::new(1, small());
    let manifest = described(&leader);
    assert_eq!((manifest.index, manifest.epoch), (LogIndex(1), LeaderEpoch(1)));
    assert!(manifest.segments.is_empty());
    let shared: Arc<dyn Disk> = Arc::new(SimDisk::new(2));
    // A later replica begins with nothing at all.
    let log_start = LogStart { first_index: LogIndex(1), ..LogStart::default() };
    let state = ReplicaState { log_start, ..ReplicaState::default() };
    let mut log = PartitionLog::create(shared, REPLICA, small(), state).unwrap();
    assert_eq!((log.first_index(), log.last_index()), (LogIndex(1), LogIndex(0)));
    let mut install = SnapshotInstall::begin(&log, manifest).unwrap();
    assert_eq!(install.missing(), None);
    install.finish().unwrap();
    log.install(install).unwrap();
    assert_eq!((log.first_index(), log.last_index()), (LogIndex(2), LogIndex(1)));
    assert_eq!(log.epoch_at(LogIndex(1)), Some(LeaderEpoch(1)));
    assert_eq!(log.append(LogIndex(2), LeaderEpoch(2), &noop()).ok(), Some(()));
}

fn noop() -> Bytes {
    use vltava_protocol::record::control::InternalBatch;
    InternalBatch::encode(Offset(0), LeaderEpoch(2), InternalKind::Noop, &[])
}

#[test]
fn hostile_manifests_are_refused() {
    let good = described(&leader()).encode();
    for position in 0..good.len() {
        let mut bad = good.to_vec();
        bad[position] ^= 4;
        assert!(SnapshotManifest::decode(&Bytes::from(bad)).is_err());
        assert!(SnapshotManifest::decode(&good.slice(..position)).is_err());
    }
    let mut manifest = described(&leader());
    manifest.segments[1].base_index = manifest.segments[0].base_index;
    assert!(SnapshotManifest::decode(&manifest.encode()).is_err());
}

#[test]
fn a_snapshot_may_lag_behind_the_commit() {
    let leader = leader();
    let (first, committed) = (leader.log.first_index(), leader.log.committed());
    for index in first.0..=committed.0 {
        let manifest = leader.log.manifest(LogIndex(index)).unwrap();
        let behind = leader.log.batches(LogIndex(index + 1)..LogIndex(index + 2), 1).unwrap();
        let header = vltava_protocol::record::batch::BatchHeader::parse(&behind[0].2).unwrap();
        assert_eq!(manifest.end_offset, header.base_offset);
        if manifest.log_start.offset > manifest.end_offset {
            // What the row holds was not applied at so low an index.
            continue;
        }
        let follower = follower();
        let mut install = SnapshotInstall::begin(&follower.log, manifest).unwrap();
        while let Some((base_index, position)) = install.missing() {
            let data = leader.log.read_segment(base_index, position, 1000).unwrap();
            install.write_chunk(base_index, position, &data).unwrap();
        }
        install.finish().unwrap();
    }
}
