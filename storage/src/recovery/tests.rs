//! What recovery takes, drops and refuses.

use std::path::PathBuf;

use vltava_protocol::ids::LeaderEpoch;
use vltava_protocol::record::control::InternalKind;

use super::RecoverError;
use crate::disk::Disk;
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
    assert_eq!(log.log.take_flush_items().len(), 1);
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
