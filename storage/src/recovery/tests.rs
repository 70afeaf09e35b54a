//! What recovery takes, drops and refuses.

use std::path::PathBuf;

use vltava_protocol::ids::LeaderEpoch;
use vltava_protocol::record::control::InternalKind;

use super::RecoverError;
use crate::disk::Disk;
use crate::flush::FlushItem;
use crate::ids::{FileId, LogIndex, SegmentId};
use crate::log::model::{Harness, REPLICA, client_batch, small};
use crate::log::{Durability, LogConfig};
use crate::paths::{index_file_name, replica_dir, segment_path};
use crate::state::VoteState;

fn path(segment: u64) -> PathBuf {
    segment_path(FileId { replica: REPLICA, segment: SegmentId(segment) })
}

/// Three segments of four batches each, all flushed; the last batch of the log begins at the
/// position returned.
fn three_segments(config: LogConfig) -> (Harness, u64) {
    let mut log = Harness::new(1, config);
    let batch = client_batch(1, 200, 1);
    for _ in 0..12 {
        log.produce(&batch).unwrap();
    }
    assert_eq!(log.log.all_segments().count(), 3);
    (log, 64 + 3 * batch.len() as u64)
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: 1200, ..small() }
}

#[test]
fn damage_below_the_durable_place_condemns_the_replica() {
    // Headers are looked at everywhere, payloads only where they may be torn.
    for segment in 1..=3 {
        for (position, is_seen) in [(3, true), (64 + 16, true), (64 + 150, false)] {
            let (mut log, _) = three_segments(config());
            log.flush();
            // Without their indexes segments are scanned.
            for id in 1..=3 {
                let _gone =
                    log.disk.remove(&replica_dir(REPLICA).join(index_file_name(SegmentId(id))));
            }
            assert!(log.disk.corrupt(&path(segment), position));
            let disk = log.disk.crash();
            let result = log.try_reopen(&disk);
            match result {
                Err(RecoverError::Damaged { .. }) => assert!(is_seen, "{segment} {position}"),
                Err(error) => panic!("{error}"),
                Ok(_) => assert!(!is_seen, "{segment} at {position} was not noticed"),
            }
        }
    }
}

/// Three segments, two epochs, and where each batch begins.
fn two_epochs() -> (Harness, Vec<(u64, u64)>) {
    let mut log = Harness::new(1, config());
    log.epoch = LeaderEpoch(2);
    log.internal(InternalKind::Noop, &[]).unwrap();
    for _ in 0..4 {
        log.produce(&client_batch(1, 200, 1)).unwrap();
    }
    log.epoch = LeaderEpoch(3);
    log.internal(InternalKind::Noop, &[]).unwrap();
    for _ in 0..4 {
        log.produce(&client_batch(1, 200, 1)).unwrap();
    }
    log.commit(log.last_index());
    log.flush();
    let mut places = Vec::new();
    for segment in log.log.all_segments() {
        let (mut position, index) = (64, segment.index.read());
        for at in segment.header.base_index.0..index.end().index.0 {
            places.push((segment.header.id.segment.0, position));
            position += log.batch_at(LogIndex(at)).bytes.len() as u64;
        }
    }
    (log, places)
}

#[test]
fn no_damaged_prefix_is_believed() {
    let (whole, places) = two_epochs();
    assert_eq!(whole.log.all_segments().count(), 3);
    for (segment, at) in places {
        for position in at..at + 17 {
            for has_indexes in [false, true] {
                let (mut log, _) = two_epochs();
                for id in 1..=3 {
                    if !has_indexes {
                        let index_file = replica_dir(REPLICA).join(index_file_name(SegmentId(id)));
                        let _gone = log.disk.remove(&index_file);
                    }
                }
                assert!(log.disk.corrupt(&path(segment), position));
                let disk = log.disk.crash();
                match log.try_reopen(&disk) {
                    Err(RecoverError::Damaged { .. }) => continue,
                    Err(error) => panic!("{error}"),
                    Ok((recovered, _)) => (log.log, log.disk) = (recovered, disk),
                }
                // An index knows what the segment holds; whoever reads it is told.
                assert!(has_indexes, "segment {segment} position {position} was not noticed");
                assert_eq!(log.log.epochs(), whole.log.epochs());
                log.log.commit_to(log.last_index());
                let (first, end) = (log.log.first_index(), log.last_index().next());
                let mut read = Ok(Vec::new());
                for index in first.0..end.0 {
                    let one = log.log.batches(LogIndex(index)..LogIndex(index + 1), 1);
                    read = read.and(one);
                }
                assert!(read.is_err(), "segment {segment} position {position} was replicated");
            }
        }
    }
}

#[test]
fn a_damaged_epoch_above_the_durable_place_ends_the_log() {
    for position in 12..16 {
        let (mut log, places) = two_epochs();
        let (segment, last) = places[places.len() - 1];
        log.durable.insert(SegmentId(segment), last);
        assert!(log.disk.corrupt(&path(segment), last + position));
        let disk = log.disk.crash();
        let report = log.reopen(disk);
        assert_eq!(report.end_index, LogIndex(places.len() as u64));
        assert_eq!(log.log.epochs().last(), LeaderEpoch(3));
    }
}

#[test]
fn epochs_past_a_lost_tail_are_forgotten() {
    let config = LogConfig { durability: Durability::PageCache, ..config() };
    let mut log = Harness::new(1, config);
    log.produce(&client_batch(1, 200, 1)).unwrap();
    log.flush();
    let end = 64 + log.batch_at(LogIndex(2)).bytes.len() as u64;
    log.produce(&client_batch(1, 200, 1)).unwrap();
    log.epoch = LeaderEpoch(2);
    log.internal(InternalKind::Noop, &[]).unwrap();
    log.flush();
    // The batch in memory is lost, and all behind it.
    assert!(log.disk.corrupt(&path(1), end + 100));
    log.durable.insert(SegmentId(1), end);
    let disk = log.disk.crash();
    assert_eq!(log.reopen(disk).end_index, LogIndex(2));
    log.model.truncate(1);
    log.epoch = LeaderEpoch(1);
    // The same indexes in an older epoch, of which no row speaks when they are written.
    log.append(&[client_batch(1, 10, 1), client_batch(1, 10, 1)]).unwrap();
    log.flush();
    let disk = log.disk.crash();
    assert_eq!(log.reopen(disk).end_index, LogIndex(4));
    log.check();
}

#[test]
fn a_bad_batch_above_the_durable_place_ends_the_log() {
    let (mut log, last) = three_segments(config());
    log.flush();
    log.durable.insert(SegmentId(3), last); // the last batch was not synced
    assert!(log.disk.corrupt(&path(3), last + 100));
    let disk = log.disk.crash();
    let report = log.reopen(disk);
    assert_eq!(report.end_index, LogIndex(12));
    assert!(report.torn_bytes > 0);
    assert_eq!(log.log.all_segments().last().unwrap().header.id.segment, SegmentId(4));
    // Nothing is ever written over the torn bytes.
    let torn = log.disk.tree()[&path(3)].clone();
    log.model.pop();
    log.append(&[client_batch(2, 10, 1)]).unwrap();
    log.check();
    assert_eq!(log.disk.tree()[&path(3)], torn);
    log.flush();
    let disk = log.disk.crash();
    assert_eq!(log.reopen(disk).end_index, LogIndex(13));
    log.check();
}

#[test]
fn a_page_cache_topic_drops_what_lies_behind_its_lost_tail() {
    let config = LogConfig { durability: Durability::PageCache, ..config() };
    let (mut log, _) = three_segments(config);
    log.flush(); // creations and rows only: data is not handed over
    log.commit(LogIndex(10));
    log.log.save_vote(VoteState { term: 1, vote: 0, commit: LogIndex(10) });
    log.flush();
    for segment in 2..=3 {
        log.durable.insert(SegmentId(segment), 64);
    }
    assert!(log.disk.corrupt(&path(2), 64 + 100));
    let disk = log.disk.crash();
    let report = log.reopen(disk);
    assert_eq!(report.end_index, LogIndex(5), "the first segment is whole");
    assert_eq!((report.dropped_segments, report.lost_commit), (1, Some(LogIndex(10))));
    assert_eq!(log.log.committed(), LogIndex(5));
    log.model.truncate(4);
    log.committed = LogIndex(5);
    log.check();
    log.append(&[client_batch(1, 10, 1)]).unwrap();
    log.flush();
    log.check();
    let names = log.disk.list(&replica_dir(REPLICA)).unwrap();
    assert!(!names.contains(&"0000000000000003.log".to_string()), "{names:?}");
}

#[test]
fn page_cache_topics_hand_over_no_data_writes() {
    let config = LogConfig { durability: Durability::PageCache, ..config() };
    let mut log = Harness::new(1, config);
    log.produce(&client_batch(1, 10, 1)).unwrap();
    assert!(log.log.take_flush_items().is_empty());
    log.epoch = LeaderEpoch(2);
    log.internal(InternalKind::Noop, &[]).unwrap();
    // The batch, and before it the row that knows its epoch.
    let items = log.log.take_flush_items();
    assert!(matches!(items[..], [FlushItem::State { .. }, FlushItem::Write { .. }]));
}

#[test]
fn a_clean_close_leaves_nothing_to_scan() {
    let (mut log, _) = three_segments(config());
    log.log.close().unwrap();
    log.flush();
    let disk = log.disk.power_cut(5);
    assert_eq!(log.reopen(disk).scanned_bytes, 0);
    log.check();
    // A bad index is as good as none.
    assert!(log.disk.corrupt(&replica_dir(REPLICA).join(index_file_name(SegmentId(2))), 40));
    let disk = log.disk.crash();
    assert!(log.reopen(disk).scanned_bytes > 0);
    log.check();
}

#[test]
fn a_missing_first_segment_is_damage() {
    let (mut log, _) = three_segments(config());
    log.flush();
    log.disk.remove(&path(1)).unwrap();
    let disk = log.disk.crash();
    assert!(matches!(log.try_reopen(&disk), Err(RecoverError::Damaged { .. })));
}

#[test]
fn an_idle_sealed_segment_costs_no_descriptor() {
    let (log, _) = three_segments(config());
    let mut log = log;
    log.flush();
    let open = |log: &Harness| log.log.all_segments().filter(|segment| segment.is_open()).count();
    assert_eq!(open(&log), 1, "the one written to");
    log.commit(log.last_index());
    let view = log.log.view().read();
    let slices =
        view.read(vltava_protocol::ids::Offset(0), view.high_watermark, 10_000, true).unwrap();
    assert_eq!(open(&log), 3);
    drop(slices);
    assert_eq!(open(&log), 1);
}
