//! The checker finds what it is there for.

use vltava_protocol::ids::{ProducerEpoch, ProducerId, Sequence, Timestamp};
use vltava_protocol::record::builder::{BatchBuilder, BatchFields};
use vltava_protocol::record::compression::Codec;

use super::*;

const ONE: ReplicaId = ReplicaId(1);
const TWO: ReplicaId = ReplicaId(2);

fn data(base_offset: i64, epoch: i32, sequence: i32, records: i32) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, None);
    for _ in 0..records {
        builder.append(Timestamp(5), None, Some(b"value"), &[]);
    }
    let fields = BatchFields {
        base_offset: Offset(base_offset),
        leader_epoch: LeaderEpoch(epoch),
        producer_id: ProducerId(7),
        producer_epoch: ProducerEpoch(0),
        base_sequence: Sequence(sequence),
        ..BatchFields::default()
    };
    builder.build(&fields).unwrap()
}

fn noop(base_offset: i64, epoch: i32) -> Bytes {
    InternalBatch::encode(Offset(base_offset), LeaderEpoch(epoch), InternalKind::Noop, &[])
}

/// A no-op, then two data batches of three records, all of epoch 2.
fn truth() -> Truth {
    let mut truth = Truth::default();
    for (index, batch) in [(2, noop(0, 2)), (3, data(0, 2, 0, 3)), (4, data(3, 2, 3, 3))] {
        truth.on_committed(ONE, LogIndex(index), LogIndex(2), LeaderEpoch(2), &batch).unwrap();
    }
    truth
}

fn error(result: Result<(), Violation>) -> String {
    result.expect_err("a violation").0
}

#[test]
fn replicas_agree_up_to_the_commit() {
    let mut truth = truth();
    truth.on_committed(TWO, LogIndex(3), LogIndex(2), LeaderEpoch(2), &data(0, 2, 0, 3)).unwrap();
    let other =
        truth.on_committed(TWO, LogIndex(3), LogIndex(2), LeaderEpoch(3), &data(0, 3, 0, 2));
    assert!(error(other).contains("another batch at index 3"));
}

#[test]
fn offsets_are_dense_and_nothing_is_doubled() {
    let at =
        |batch: Bytes| truth().on_committed(ONE, LogIndex(5), LogIndex(2), LeaderEpoch(2), &batch);
    at(data(6, 2, 6, 1)).unwrap();
    assert!(error(at(data(7, 2, 6, 1))).contains("not dense"));
    assert!(error(at(data(6, 2, 3, 3))).contains("doubled"));
    let gap =
        truth().on_committed(ONE, LogIndex(6), LogIndex(2), LeaderEpoch(2), &data(6, 2, 6, 1));
    assert!(error(gap).contains("nobody ever showed 5"));
}

#[test]
fn an_epoch_has_one_leader() {
    let mut truth = Truth::default();
    let mut leads = |epoch, replica, committed, last| {
        truth.on_leader(LeaderEpoch(epoch), replica, LogIndex(committed), Some(LeaderEpoch(last)))
    };
    leads(2, ONE, 3, 1).unwrap();
    leads(2, ONE, 5, 2).unwrap();
    leads(3, TWO, 5, 2).unwrap();
    assert!(error(leads(2, TWO, 5, 2)).contains("both lead epoch 2"));
    assert!(error(leads(3, TWO, 6, 2)).contains("of an older epoch"));
}

#[test]
fn answers_never_go_back() {
    let mut truth = truth();
    truth.on_answer(LeaderEpoch(2), Offset(6), Offset(0)).unwrap();
    // A deposed leader may be behind: its clients have seen the newer epoch.
    truth.on_answer(LeaderEpoch(4), Offset(6), Offset(3)).unwrap();
    truth.on_answer(LeaderEpoch(3), Offset(6), Offset(0)).unwrap();
    let back = truth.on_answer(LeaderEpoch(5), Offset(3), Offset(3));
    assert!(error(back).contains("high watermark 3"));
    let deleted = truth.on_answer(LeaderEpoch(5), Offset(6), Offset(0));
    assert!(error(deleted).contains("deleted data came back"));
    let past = truth.on_answer(LeaderEpoch(5), Offset(7), Offset(3));
    assert!(error(past).contains("past what is committed"));
}

#[test]
fn acknowledged_means_committed() {
    let mut truth = truth();
    truth.on_acked(Offset(3), &data(0, 0, 3, 3), Durability::Fsync).unwrap();
    let wrong = truth.on_acked(Offset(3), &data(0, 0, 0, 3), Durability::Fsync);
    assert!(error(wrong).contains("committed there is"));
    let early = truth.on_acked(Offset(6), &data(0, 0, 6, 3), Durability::Fsync);
    assert!(error(early).contains("before it was committed"));
    truth.on_end(LogIndex(4), Offset(0)).unwrap();
    assert!(truth.on_end(LogIndex(3), Offset(0)).is_err());
}

#[test]
fn a_loss_must_be_announced_and_never_takes_what_was_synced() {
    let acked = |durability| {
        let mut truth = truth();
        truth.on_acked(Offset(3), &data(0, 0, 3, 3), durability).unwrap();
        truth
    };
    let other = data(3, 3, 3, 1);
    let lose = |truth: &mut Truth| {
        truth.on_committed(TWO, LogIndex(4), LogIndex(2), LeaderEpoch(3), &other)
    };
    assert!(lose(&mut acked(Durability::PageCache)).is_err());
    let mut announced = acked(Durability::PageCache);
    assert!(announced.on_loss_announced(LogIndex(3), Stake::Forbidden).is_err());
    announced.on_loss_announced(LogIndex(3), Stake::Records).unwrap();
    lose(&mut announced).unwrap();
    assert_eq!(announced.acked_lost, 1);
    announced.on_end(LogIndex(4), Offset(0)).unwrap();
    let mut synced = acked(Durability::Fsync);
    synced.on_loss_announced(LogIndex(3), Stake::Records).unwrap();
    assert!(error(lose(&mut synced)).contains("acknowledged as synced"));
}

#[test]
fn readers_get_committed_data_only() {
    let truth = truth();
    let read = |from, high_watermark, records: &[Bytes]| {
        let records: Vec<u8> = records.concat();
        truth.on_read("reader", Offset(from), Offset(high_watermark), &records.into())
    };
    let (first, second) = (data(0, 2, 0, 3), data(3, 2, 3, 3));
    assert_eq!(read(1, 6, &[first.clone(), second.clone()]), Ok(Offset(6)));
    assert!(read(0, 6, std::slice::from_ref(&second)).is_err());
    assert!(read(0, 6, &[noop(0, 2), first.clone()]).is_err());
    assert!(read(0, 3, &[first.clone(), second]).is_err());
    assert!(read(0, 6, &[data(0, 2, 1, 3)]).is_err());
    assert!(read(0, 6, &[first.slice(..70)]).is_err());
}
