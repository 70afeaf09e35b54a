//! The simulated disk does what a disk may do, and never what it may not.

use std::collections::BTreeSet;

use super::*;

fn put(file: &Arc<dyn DiskFile>, position: u64, bytes: &[u8]) {
    file.write_at(position, &[IoSlice::new(bytes)]).unwrap();
}

fn content(disk: &SimDisk, path: &str) -> Option<Bytes> {
    disk.tree().get(Path::new(path)).cloned()
}

fn new_file(disk: &SimDisk, path: &str) -> Arc<dyn DiskFile> {
    disk.create(Path::new(path), 1 << 20).unwrap()
}

#[test]
fn what_was_synced_survives_the_power_cut() {
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let file = new_file(&disk, "a");
        put(&file, 0, &[1; 700]);
        file.sync().unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        put(&file, 600, &[2; 2000]);
        let after = content(&disk.power_cut(seed), "a").expect("synced entry");
        assert!(after.len() >= 700 && after.len() <= 2600, "seed {seed}");
        assert_eq!(after[..512], [1; 512], "seed {seed}");
        for (at, &byte) in after[..700].iter().enumerate() {
            assert!(byte == 1 || (at >= 600 && byte == 2), "seed {seed}: {byte} at {at}");
        }
        // Whole sectors: all of a sector's new bytes, or none.
        for sector in after.chunks(512).skip(2) {
            assert!(sector.iter().all(|&byte| byte == sector[0]), "seed {seed}");
        }
        assert!(file.len().is_err() && file.sync().is_err() && file.slice(0..1).is_err());
        assert!(disk.list(Path::new("")).is_err());
    }
}

#[test]
fn every_kind_of_loss_occurs() {
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let disk = SimDisk::new(1);
        let file = new_file(&disk, "a");
        disk.sync_dir(Path::new("")).unwrap();
        put(&file, 0, &[1; 512]);
        put(&file, 512, &[2; 1024]);
        let after = content(&disk.power_cut(seed), "a").expect("synced entry");
        let sectors: Vec<u8> = after.chunks(512).map(|sector| sector[0]).collect();
        seen.insert(sectors);
    }
    // Nothing; the first write; both; the later one alone; torn ones; size without content.
    for wanted in [&[][..], &[1], &[1, 2, 2], &[0, 2, 2], &[1, 2, 0], &[1, 0, 2], &[0, 0, 0]] {
        assert!(seen.contains(wanted), "{wanted:?} of {seen:?}");
    }
}

#[test]
fn unsynced_entries_are_kept_or_lost() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        disk.create_dir(Path::new("d")).unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        new_file(&disk, "d/old");
        new_file(&disk, "d/gone");
        disk.sync_dir(Path::new("d")).unwrap();
        disk.rename(Path::new("d/old"), Path::new("d/new")).unwrap();
        disk.remove(Path::new("d/gone")).unwrap();
        new_file(&disk, "d/made");
        let names = disk.power_cut(seed).list(Path::new("d")).unwrap();
        assert!(names.contains(&"old".to_owned()) != names.contains(&"new".to_owned()));
        seen.insert(names);
    }
    assert_eq!(seen.len(), 8, "{seen:?}");
}

#[test]
fn a_directory_that_was_not_synced_may_take_all_with_it() {
    let lost = (0..50).filter(|&seed| {
        let disk = SimDisk::new(seed);
        disk.create_dir(Path::new("d/e")).unwrap();
        let file = new_file(&disk, "d/e/f");
        put(&file, 0, b"x");
        file.sync().unwrap();
        disk.sync_dir(Path::new("d/e")).unwrap();
        disk.sync_dir(Path::new("d")).unwrap();
        content(&disk.power_cut(seed), "d/e/f").is_none()
    });
    let lost = lost.count();
    assert!((1..50).contains(&lost), "{lost}");
}

#[test]
fn a_crash_keeps_the_page_cache_but_does_not_sync_it() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let file = new_file(&disk, "a");
        put(&file, 0, &[7; 100]);
        let crashed = disk.crash();
        assert!(file.write_at(0, &[]).is_err());
        assert_eq!(content(&crashed, "a").unwrap()[..], [7; 100]);
        assert_eq!(crashed.op_count(), 0);
        lost += u32::from(content(&crashed.power_cut(seed), "a").is_none());
    }
    assert!(lost > 0);
}

#[test]
fn a_failed_sync_loses_for_ever() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let file = new_file(&disk, "a");
        disk.sync_dir(Path::new("")).unwrap();
        put(&file, 0, &[7; 100]);
        disk.fail(FaultPlan::once(disk.op_count(), Fault::Io));
        assert!(file.sync().is_err());
        file.sync().unwrap();
        put(&file, 1024, &[8; 512]);
        file.sync().unwrap();
        let after = content(&disk.power_cut(seed), "a").unwrap();
        assert_eq!(after[1024..], [8; 512]);
        lost += u32::from(after[0] == 0);
    }
    assert!(lost > 0);
}

#[test]
fn planned_failures() {
    let disk = SimDisk::new(1);
    let file = new_file(&disk, "a");
    disk.fail(FaultPlan::from(2, Fault::Full));
    put(&file, 0, &[1; 10]);
    let error = file.write_at(10, &[IoSlice::new(&[2; 5]), IoSlice::new(&[3; 5])]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(content(&disk, "a").unwrap().len(), 15);
    assert!(disk.create(Path::new("b"), 0).is_err());
    disk.heal();
    new_file(&disk, "b");
    assert_eq!(disk.cost(), DiskCost { ops: 5, bytes_written: 15, syncs: 0 });
}

#[test]
fn a_full_disk_writes_what_fits() {
    let disk = SimDisk::new(1);
    disk.set_space(Some(100));
    let file = new_file(&disk, "a");
    put(&file, 0, &[1; 60]);
    let other = new_file(&disk, "b");
    let error = other.write_at(0, &[IoSlice::new(&[2; 50])]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(content(&disk, "b").unwrap().len(), 40);
    put(&file, 10, &[3; 50]); // over what is there
    disk.remove(Path::new("b")).unwrap();
    put(&file, 60, &[1; 40]);
}

#[test]
fn latent_damage() {
    let disk = SimDisk::new(1);
    let file = new_file(&disk, "a");
    put(&file, 0, &[4; 10]);
    assert!(disk.corrupt(Path::new("a"), 3));
    assert!(!disk.corrupt(Path::new("a"), 10));
    assert_eq!(content(&disk.fork(), "a").unwrap()[2..5], [4, 5, 4]);
}

#[test]
fn a_fork_lives_its_own_life() {
    let disk = SimDisk::new(1);
    let file = new_file(&disk, "a");
    let fork = disk.fork();
    put(&file, 0, b"x");
    assert!(content(&fork, "a").unwrap().is_empty());
    put(&fork.open(Path::new("a"), 10).unwrap(), 0, b"yz");
    assert_eq!(content(&disk, "a").unwrap()[..], b"x"[..]);
}
