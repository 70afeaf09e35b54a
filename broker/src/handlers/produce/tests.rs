use vltava_protocol::record::builder::{BatchBuilder, BatchFields};
use vltava_protocol::record::{TimestampType, ValidationRules};

use super::*;

const NOW: Timestamp = Timestamp(1_000_000);

fn rules(compression: Option<(Codec, Option<i32>)>) -> ValidationRules {
    ValidationRules {
        max_message_bytes: 1 << 20,
        segment_bytes: 1 << 30,
        compression,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        compacted: false,
        produce_version: 13,
        inflated_bytes_max: 16 << 20,
    }
}

/// A batch of one value of zeros.
fn zeros(codec: Codec, length: usize) -> Bytes {
    let mut builder = BatchBuilder::new(codec, None);
    builder.append(NOW, None, Some(&vec![0; length]), &[]);
    builder.build(&BatchFields::default()).unwrap()
}

#[test]
fn a_small_batch_that_inflates_to_much_is_not_judged_inline() {
    for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd] {
        let bomb = zeros(codec, 8 << 20);
        assert!(bomb.len() <= INLINE_BYTES_MAX, "{codec:?}: {}", bomb.len());
        assert!(!is_slow(&bomb, &rules(None)));
        assert_eq!(checked_inline(&bomb, NOW, &rules(None)), None, "{codec:?}");
        assert!(checked(&bomb, NOW, &rules(None)).is_ok(), "the rules themselves allow it");
    }
    let small = zeros(Codec::Zstd, 1000);
    assert!(matches!(checked_inline(&small, NOW, &rules(None)), Some(Ok(_))));
    let tight = ValidationRules { inflated_bytes_max: 500, ..rules(None) };
    let refused = checked_inline(&small, NOW, &tight);
    assert!(matches!(refused, Some(Err(Rejected { code: ErrorCode::MessageTooLarge, .. }))));
    let cut = small.slice(..small.len() - 1);
    assert!(matches!(checked_inline(&cut, NOW, &rules(None)), Some(Err(_))));
}

#[test]
fn what_is_long_or_compressed_slowly_goes_to_the_pool() {
    let long = zeros(Codec::None, INLINE_BYTES_MAX);
    let small = zeros(Codec::None, 100);
    for (records, compression, expected) in [
        (&small, None, false),
        (&long, None, false),
        (&long, Some((Codec::None, None)), false),
        (&long, Some((Codec::Lz4, None)), true),
        (&small, Some((Codec::Lz4, None)), false),
        (&small, Some((Codec::Gzip, Some(1))), true),
        (&small, Some((Codec::Zstd, None)), false),
        (&small, Some((Codec::Zstd, Some(19))), true),
        (&zeros(Codec::Zstd, 100), Some((Codec::Zstd, Some(19))), false),
        (&Bytes::from_static(b"no batch"), Some((Codec::Gzip, None)), false),
    ] {
        let got = is_slow(records, &rules(compression));
        assert_eq!(got, expected, "{} bytes to {compression:?}", records.len());
    }
}
