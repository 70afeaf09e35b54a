//! What recovery takes from a set, and what it refuses.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::disk::sim::SimDisk;
use crate::ids::ReplicaId;
use crate::state::{ReplicaState, VoteState};

const CONFIG: WalConfig = WalConfig {
    first_file_bytes: 2048,
    file_bytes: 2048,
    files_max: 2,
    round_bytes_max: 1 << 20,
    write_bytes_max: 1024,
    alone_bytes_min: 0,
    synced_unrecorded_bytes_max: 1024,
    retired_segments_per_round: 1,
    retired_rows_per_round: 1,
    salt: 77,
};

fn start(disk: &SimDisk) -> Result<Recovered, WalError> {
    recover(Arc::new(disk.clone()), CONFIG)
}

fn row(term: u64) -> RoundBuilder {
    let vote = VoteState { term, ..VoteState::default() };
    let state = ReplicaState { vote, ..ReplicaState::default() };
    let mut round = RoundBuilder::default();
    round.push(&Record::State { replica: ReplicaId(1), state });
    round
}

fn term(recovered: &Recovered) -> u64 {
    recovered.replicas.get(&ReplicaId(1)).map_or(0, |row| row.vote.term)
}

/// Terms 1 to 3 in the first file, 4 and 5 in the next; both needed.
fn two_files(disk: &SimDisk) -> Wal {
    let mut wal = start(disk).unwrap().wal;
    for term in 1..=3 {
        wal.append(&row(term), 1).unwrap();
    }
    assert!(!wal.has_room(row(4).framed_bytes()));
    wal.rotate().unwrap();
    wal.append(&row(4), 1).unwrap();
    wal.append(&row(5), 1).unwrap();
    wal
}

fn overwrite(disk: &SimDisk, path: &Path, position: u64, bytes: &[u8]) {
    disk.open(path, 1 << 20).unwrap().write_at(position, &[IoSlice::new(bytes)]).unwrap();
}

#[test]
fn an_empty_disk_begins_a_set_and_every_start_goes_on_with_it() {
    let disk = SimDisk::new(1);
    let first = start(&disk).unwrap();
    assert!(first.replicas.is_empty() && first.node.is_none() && first.durable.is_empty());
    assert_eq!(disk.tree()[&wal_path(1)].len(), 2048);
    let mut wal = first.wal;
    wal.append(&row(7), 1).unwrap();
    for restarts in 1..5 {
        let disk = disk.crash();
        assert_eq!(term(&start(&disk).unwrap()), 7, "{restarts}");
        // The file in use and a spare one, whatever went before.
        assert!(disk.tree().len() <= 2);
    }
}

#[test]
fn rounds_of_all_needed_files_count() {
    let disk = SimDisk::new(1);
    two_files(&disk);
    let recovered = start(&disk).unwrap();
    assert_eq!(term(&recovered), 5);
    assert_eq!(recovered.redone.rounds, 6);
}

#[test]
fn a_torn_tail_is_dropped_and_damage_is_not() {
    let check = |file: u64, position: u64, expected: Result<u64, (u64, u64)>| {
        let disk = SimDisk::new(1);
        two_files(&disk);
        assert!(disk.corrupt(&wal_path(file), position));
        match (start(&disk), expected) {
            (Ok(recovered), Ok(expected)) => assert_eq!(term(&recovered), expected),
            (Err(WalError::Damaged { path, position, number }), Err((at, by))) => {
                assert_eq!((path, position, number), (wal_path(file), at, by));
            }
            (found, expected) => panic!("{file}/{position}: {found:?} instead of {expected:?}"),
        }
    };
    // The last round: nobody can tell it from a torn one.
    check(2, 512 + 60, Ok(4));
    // A round with a later one in the same file, seen by header and by payload.
    check(2, 3, Err((0, 6)));
    check(2, 60, Err((0, 6)));
    check(1, 512 + 60, Err((512, 3)));
    check(1, 20, Err((0, 2)));
}

#[test]
fn a_damaged_last_round_of_an_earlier_file_is_noticed_by_the_next() {
    let disk = SimDisk::new(1);
    two_files(&disk);
    disk.corrupt(&wal_path(1), 3 * 512 + 60);
    let Err(WalError::Damaged { path, position: 0, number: 5 }) = start(&disk) else {
        panic!("taken");
    };
    assert_eq!(path, wal_path(2));
}

#[test]
fn files_that_are_missing_are_missed() {
    let disk = SimDisk::new(1);
    two_files(&disk);
    disk.remove(&wal_path(1)).unwrap();
    let Err(WalError::Missing(path)) = start(&disk) else { panic!("taken") };
    assert_eq!(path, wal_path(1));

    let disk = SimDisk::new(1);
    two_files(&disk);
    disk.create_dir(Path::new("logs/0000000000000001")).unwrap();
    disk.remove_dir(Path::new(WAL_DIR)).unwrap();
    assert!(matches!(start(&disk), Err(WalError::Lost)));
}

#[test]
fn stale_rounds_of_a_recycled_file_are_dead() {
    let disk = SimDisk::new(1);
    let mut wal = two_files(&disk);
    // The first file is retired, renamed and begun again: its old rounds lie behind the new one.
    wal.append(&row(6), 2).unwrap();
    assert!(wal.live().is_empty());
    wal.rotate().unwrap();
    assert!(disk.tree().contains_key(&wal_path(3)));
    wal.append(&row(7), 3).unwrap();
    let old = dump(&disk.tree()[&wal_path(3)])
        .filter(|at| matches!(at, Dumped::Round { header, .. } if header.sequence == 1));
    assert_eq!(old.count(), 3);
    assert_eq!(term(&start(&disk).unwrap()), 7);
}

#[test]
fn a_round_in_a_batch_is_not_a_round() {
    let disk = SimDisk::new(1);
    let mut wal = two_files(&disk);
    // A client writes what the next rounds of this very file would be, but for the salt.
    let header = RoundHeader { sequence: 2, number: 9, oldest: 1, salt: 78 };
    let forged = row(100).write(&header, |parts| {
        parts.iter().flat_map(|part| part.iter().copied()).collect::<Vec<u8>>()
    });
    let position = 512 - 48 - 29; // where the bytes stand on a boundary
    let mut round = RoundBuilder::default();
    let bytes = [vec![0; position], forged].concat().into();
    round.push(&Record::Write { file: crate::ids::FileId::default(), position: 0, bytes });
    wal.append(&round, 1).unwrap();
    // The header of that round is torn: what is behind it is payload, and no later round.
    disk.corrupt(&wal_path(2), 1024);
    assert_eq!(term(&start(&disk).unwrap()), 5);
}

#[test]
fn the_future_is_refused() {
    let disk = SimDisk::new(1);
    let mut wal = two_files(&disk);
    wal.append(&RoundBuilder::raw(vec![99]), 1).unwrap();
    let Err(WalError::Record { path, position, source }) = start(&disk) else { panic!("taken") };
    assert_eq!((path, position, source), (wal_path(2), 1024, RecordError::UnknownKind(99)));

    let disk = SimDisk::new(1);
    two_files(&disk);
    let mut bytes = disk.tree()[&wal_path(2)][512..1024].to_vec();
    let length = u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize;
    bytes[5] = 2;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..12]);
    crc.update(&bytes[16..48 + length]);
    bytes[12..16].copy_from_slice(&crc.finalize().to_be_bytes());
    overwrite(&disk, &wal_path(2), 512, &bytes);
    assert!(matches!(start(&disk), Err(WalError::Newer { source: RoundError::Newer(2), .. })));
}

#[test]
fn a_failed_round_is_never_there_beside_its_second_attempt() {
    use crate::disk::sim::{Fault, FaultPlan};
    let disk = SimDisk::new(1);
    let mut wal = start(&disk).unwrap().wal;
    wal.append(&row(1), 1).unwrap();
    let plan = FaultPlan { written: 256, ..FaultPlan::once(disk.op_count(), Fault::Io) };
    disk.fail(plan);
    assert!(matches!(wal.append(&row(2), 1), Err(Failure::Write(_))));
    // The same round is larger now and goes to the next file.
    wal.rotate().unwrap();
    wal.append(&row(3), 1).unwrap();
    assert_eq!(term(&start(&disk).unwrap()), 3);
}
