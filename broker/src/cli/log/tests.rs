//! Files as the broker writes them, whole, torn and damaged.

use vltava_protocol::ids::{LeaderEpoch, Offset, Timestamp};
use vltava_protocol::record::builder::{BatchBuilder, BatchFields};
use vltava_protocol::record::compression::Codec;
use vltava_protocol::record::control::{InternalBatch, InternalKind};
use vltava_storage::ids::{FileId, Generation, LogIndex, ReplicaId, SegmentId};

use super::*;

fn batch(base_offset: i64, values: &[&str], codec: Codec) -> Bytes {
    let mut builder = BatchBuilder::new(codec, None);
    for value in values {
        builder.append(Timestamp(9), Some(b"k"), Some(value.as_bytes()), &[]);
    }
    let fields = BatchFields {
        base_offset: Offset(base_offset),
        leader_epoch: LeaderEpoch(2),
        ..BatchFields::default()
    };
    builder.build(&fields).unwrap()
}

fn segment(batches: &[Bytes]) -> Vec<u8> {
    let header = SegmentHeader {
        id: FileId { replica: ReplicaId(1000), segment: SegmentId(3) },
        generation: Generation(0),
        base_index: LogIndex(7),
        base_offset: Offset(40),
        epoch_before: LeaderEpoch(1),
    };
    [&header.encode()[..]]
        .into_iter()
        .chain(batches.iter().map(|b| &b[..]))
        .flatten()
        .copied()
        .collect()
}

fn noop(offset: i64) -> Bytes {
    InternalBatch::encode(Offset(offset), LeaderEpoch(2), InternalKind::Noop, &[])
}

/// What is printed for a file, and how many damages it has.
fn shown(content: Vec<u8>, json: bool) -> (String, usize) {
    let mut out = Vec::new();
    let (file, progress) = (Path::new("f"), &mut Progress::none());
    let mut printer = Printer { out: &mut out, file, json, damages: 0, progress, before: 0 };
    dump(&mut printer, &content.into(), true).unwrap();
    let damages = printer.damages;
    (String::from_utf8(out).unwrap(), damages)
}

fn check(content: Vec<u8>, damages: usize, parts: &[&str]) {
    let (text, found) = shown(content.clone(), false);
    assert_eq!(found, damages, "{text}");
    for part in parts {
        assert!(text.contains(part), "{text} lacks {part}");
    }
    let (lines, found) = shown(content, true);
    assert_eq!(found, damages);
    for line in lines.lines() {
        let object: Value = serde_json::from_str(line).expect(line);
        assert!(object["kind"].is_string() && object["file"] == "f", "{line}");
    }
}

#[test]
fn a_whole_segment_shows_batches_and_records() {
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let content = segment(&[noop(40), batch(40, &["a", "b"], codec), noop(42)]);
        check(
            content,
            0,
            &[
                "segment 3 of replica 1000",
                "index 7 epoch 2 offset 40 Noop",
                "index 8 epoch 2 offset 40..41 2 record(s)",
                "offset 41 time 9 key \"k\" value \"b\"",
                "end: index 10 offset 42",
            ],
        );
    }
}

#[test]
fn a_torn_tail_is_no_damage() {
    let whole = segment(&[batch(40, &["a"], Codec::None)]);
    let torn = segment(&[batch(40, &["a"], Codec::None), batch(41, &["b"], Codec::None)]);
    let torn = torn[..torn.len() - 1].to_vec();
    check(torn, 0, &["torn tail", "offset 40..40"]);
    let zeros = [whole, vec![0; 100]].concat();
    check(zeros, 0, &["torn tail: 100 bytes without a whole batch, 0 of them not zero"]);
}

#[test]
fn damage_between_good_batches_is_found() {
    let first = batch(40, &["a"], Codec::None);
    let second = batch(41, &["b"], Codec::None);
    let mut content = segment(&[first.clone(), second]);
    let place = content.len() - 1;
    content[place - first.len()] ^= 1;
    check(content, 1, &["DAMAGED no batch up to"]);
    check(
        segment(&[first, batch(42, &["b"], Codec::None)]),
        1,
        &["gap: offset 42 follows, not 41"],
    );
    check(b"something else".to_vec(), 1, &["not a file of a log"]);
    let mut header = segment(&[]);
    header[20] ^= 1;
    check(header, 1, &["header is damaged"]);
}

#[test]
fn a_snapshot_of_producers_is_shown() {
    let table = vltava_storage::producers::ProducerTable::default();
    let file = table.encode(LogIndex(4), LeaderEpoch(2));
    check(file.to_vec(), 0, &["producers as of index 4 epoch 2: 0"]);
}
