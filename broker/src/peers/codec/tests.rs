//! Frames read back, splice what they may, and hostile bytes are errors.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vltava_protocol::ids::{LeaderEpoch, Offset, Timestamp};
use vltava_protocol::record::builder::{BatchBuilder, BatchFields};
use vltava_protocol::record::compression::Codec;
use vltava_protocol::record::control::{InternalBatch, InternalKind};

use super::*;

fn batch(value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, None);
    builder.append(Timestamp(1), None, Some(value), &[]);
    let base_offset = Offset(77);
    let leader_epoch = LeaderEpoch(5);
    builder.build(&BatchFields { base_offset, leader_epoch, ..BatchFields::default() }).unwrap()
}

fn bodies() -> Vec<PeerBody> {
    let index = LogIndex;
    let entry = |at, payload| PeerEntry { index: index(at), term: 5, payload };
    let fence = InternalBatch::encode(Offset(3), LeaderEpoch(5), InternalKind::Fence, b"body");
    let entries = vec![
        entry(8, Payload::Batch(batch(b"value"))),
        entry(9, Payload::Noop),
        entry(10, Payload::ConfChange(Bytes::from_static(b"change"))),
        entry(11, Payload::ConfChangeV2(Bytes::new())),
        entry(12, Payload::Batch(fence)),
    ];
    let append = |durability, entries| PeerBody::Append {
        prev_index: index(7),
        prev_term: 4,
        commit: index(6),
        durability,
        entries,
    };
    vec![
        PeerBody::RequestVote {
            pre: true,
            transfer: false,
            last_index: index(1),
            last_term: 2,
            commit: index(3),
            commit_term: 4,
        },
        PeerBody::VoteResponse { pre: false, reject: true, commit: index(1), commit_term: 2 },
        append(Durability::Fsync, entries),
        append(Durability::PageCache, Vec::new()),
        PeerBody::AppendResponse {
            index: index(1),
            reject: true,
            hint_index: index(2),
            hint_term: 3,
            commit: index(4),
        },
        PeerBody::Heartbeat { commit: index(u64::MAX) },
        PeerBody::HeartbeatResponse { commit: index(0) },
        PeerBody::TimeoutNow,
        PeerBody::Snapshot { index: index(1), last_term: 2, manifest: Bytes::from_static(b"man") },
        PeerBody::ChunkRequest { index: index(1), base_index: index(2), position: 3 },
        PeerBody::Chunk {
            index: index(1),
            base_index: index(2),
            position: 3,
            data: Bytes::from_static(b"data"),
        },
        PeerBody::Chunk { index: index(1), base_index: index(2), position: 3, data: Bytes::new() },
        PeerBody::TailLost { last_index: index(1), last_term: 2 },
        PeerBody::Survey { nonce: 8, known: Known { index: index(3), term: 2 } },
        PeerBody::Testimony {
            nonce: 9,
            abstains: true,
            last_index: index(1),
            last_term: 2,
            electorate: Electorate {
                since: index(3),
                voters: vec![ReplicaId(4), ReplicaId(5)],
                outgoing: vec![ReplicaId(6)],
            },
            known: Known { index: index(7), term: 1 },
        },
        PeerBody::TailRefill { until: index(1) },
    ]
}

fn message(body: PeerBody) -> PeerMessage {
    PeerMessage { from: ReplicaId(1), to: ReplicaId(u64::MAX), term: 6, body }
}

fn all() -> PeerFrame {
    PeerFrame { boot: 9, messages: bodies().into_iter().map(message).collect() }
}

fn bytes_of(frame: &PeerFrame) -> BytesMut {
    encode(frame).iter().flat_map(|piece| piece.iter().copied()).collect()
}

#[test]
fn every_kind_reads_back() {
    let mut kinds = std::collections::BTreeSet::new();
    for body in bodies() {
        kinds.insert(kind_of(&body));
        let frame = PeerFrame { boot: u64::MAX, messages: vec![message(body)] };
        let mut bytes = bytes_of(&frame);
        assert!(bytes.len() <= HEADS_AT + message_bytes(&frame.messages[0]));
        assert_eq!(decode(&mut bytes), Ok(Some(frame)));
        assert!(bytes.is_empty());
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), (1..=14).collect::<Vec<_>>());
}

#[test]
fn frames_follow_each_other_and_may_arrive_in_pieces() {
    let frame = all();
    let whole = bytes_of(&frame);
    let mut buffer = BytesMut::new();
    for (at, byte) in whole.iter().chain(&whole).enumerate() {
        buffer.put_u8(*byte);
        let expected = ((at + 1) % whole.len() == 0).then(|| frame.clone());
        assert_eq!(decode(&mut buffer), Ok(expected), "after {at} bytes");
    }
}

#[test]
fn batches_are_spliced() {
    let batch = batch(&[7; 5000]);
    let entry = PeerEntry { index: LogIndex(8), term: 5, payload: Payload::Batch(batch.clone()) };
    let body = PeerBody::Append {
        prev_index: LogIndex(7),
        prev_term: 5,
        commit: LogIndex(7),
        durability: Durability::Fsync,
        entries: vec![entry],
    };
    let frame = PeerFrame { boot: 1, messages: vec![message(body)] };
    let pieces = encode(&frame);
    assert_eq!(pieces.len(), 2);
    assert_eq!(pieces[1].as_ptr(), batch.as_ptr());
    let mut bytes = bytes_of(&frame);
    let place = bytes[bytes.len() - batch.len()..].as_ptr();
    let decoded = decode(&mut bytes).unwrap().unwrap();
    let PeerBody::Append { entries, .. } = &decoded.messages[0].body else { panic!() };
    let Payload::Batch(read) = &entries[0].payload else { panic!() };
    assert_eq!(read.as_ptr(), place);
}

#[test]
fn any_flipped_bit_is_noticed() {
    let whole = bytes_of(&all());
    for at in LENGTH_BYTES..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        assert!(decode(&mut bytes).is_err(), "byte {at} of {}", whole.len());
    }
}

#[test]
fn hostile_frames_are_errors() {
    let mut huge = BytesMut::from(&[0xff; 100][..]);
    assert_eq!(decode(&mut huge), Err(CodecError::Length(u32::MAX)));
    let mut short = BytesMut::from(&[0, 0, 0, 3, 0, 0, 0][..]);
    assert_eq!(decode(&mut short), Err(CodecError::Length(3)));
    let mut newer = bytes_of(&all());
    newer[LENGTH_BYTES] = FRAME_VERSION + 1;
    assert_eq!(decode(&mut newer), Err(CodecError::Version(FRAME_VERSION + 1)));
    let mut heads = bytes_of(&all());
    heads[CRC_AT + 4..HEADS_AT].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(decode(&mut heads), Err(CodecError::HeadsLength(u32::MAX)));
}

/// Random heads behind a right checksum: what a peer with a bug, or without scruples, sends.
#[test]
fn fuzzed_heads_never_panic_and_never_allocate_by_their_claims() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let whole = bytes_of(&all());
    let heads_len = u32::from_be_bytes(*whole[CRC_AT + 4..].first_chunk().unwrap()) as usize;
    let mut decoded = 0;
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..rng.random_range(1..4) {
            let at = HEADS_AT + rng.random_range(0..heads_len);
            bytes[at] = [0, 1, 0x7f, 0xff, rng.next_u32() as u8][rng.random_range(0..5)];
        }
        // As if the sender had meant it: the checksum fits what the prefixes are.
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[LENGTH_BYTES..CRC_AT]);
        crc.update(&bytes[HEADS_AT..HEADS_AT + heads_len]);
        for body in bodies() {
            let PeerBody::Append { entries, .. } = body else { continue };
            for entry in entries {
                if let Payload::Batch(batch) = entry.payload {
                    crc.update(&batch[..BATCH_UNCHECKED_BYTES]);
                }
            }
        }
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.finalize().to_be_bytes());
        if let Ok(Some(frame)) = decode(&mut bytes) {
            decoded += 1;
            let again = decode(&mut bytes_of(&frame));
            assert_eq!(again, Ok(Some(frame)));
        }
    }
    assert!(decoded > 100, "{decoded}");
    for _ in 0..20_000 {
        let mut bytes: BytesMut =
            (0..rng.random_range(0..80)).map(|_| rng.random::<u8>()).collect();
        if let Some(length) = bytes.first_chunk_mut::<LENGTH_BYTES>() {
            *length = [0, 0, 0, length[3]];
        }
        assert!(!matches!(decode(&mut bytes), Ok(Some(_))));
    }
}

#[test]
fn an_earlier_life_is_not_heard() {
    let mut filter = BootFilter::default();
    assert!(filter.admits("a", 3));
    assert!(filter.admits("a", 3));
    assert!(filter.admits("b", 1));
    assert!(filter.admits("a", 4));
    assert!(!filter.admits("a", 3));
    assert!(filter.admits("b", 1));
}
