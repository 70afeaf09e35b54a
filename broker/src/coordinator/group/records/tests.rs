use super::*;

fn offset(metadata: &str) -> CommittedOffset {
    CommittedOffset {
        offset: Offset(7),
        leader_epoch: LeaderEpoch(3),
        metadata: metadata.into(),
        commit_timestamp: Timestamp(1000),
        expire_timestamp: Timestamp::NONE,
        topic_id: TopicId::ZERO,
    }
}

fn key() -> OffsetKey {
    OffsetKey { group_id: "g".into(), tp: TopicPartition::new("t", PartitionIndex(2)) }
}

fn group() -> GroupMetadata {
    GroupMetadata {
        protocol_type: "consumer".into(),
        generation: 5,
        protocol: Some("range".into()),
        leader: Some("m".into()),
        state_timestamp: Timestamp(9),
        members: vec![MemberMetadata {
            member_id: "m".into(),
            instance_id: Some("i".into()),
            client_id: "c".into(),
            client_host: "/h".into(),
            rebalance_timeout_ms: 4,
            session_timeout_ms: 6,
            subscription: Bytes::from_static(b"sub"),
            assignment: Bytes::from_static(b"asg"),
        }],
    }
}

fn read_back(record: &GroupRecord) {
    let (key, value) = record.encode();
    assert_eq!(GroupRecord::decode(&key, value.as_deref()).as_ref(), Ok(&Some(record.clone())));
    // Cut anywhere, it is an error and no panic.
    for end in 0..key.len() {
        assert!(GroupRecord::decode(&key[..end], value.as_deref()).is_err());
    }
    for end in 0..value.as_ref().map_or(0, Bytes::len) {
        let value = value.as_ref().map(|value| &value[..end]);
        assert!(GroupRecord::decode(&key, value).is_err(), "{end}");
    }
}

#[test]
fn what_is_written_is_read() {
    for value in [
        Some(offset("")),
        Some(offset("metadata ř")),
        Some(CommittedOffset { topic_id: TopicId(uuid::Uuid::from_u128(77)), ..offset("m") }),
        None,
    ] {
        read_back(&GroupRecord::Offset(key(), value));
    }
    // The version with a time at which it expires has no leader epoch.
    let expiring = CommittedOffset {
        leader_epoch: LeaderEpoch::NONE,
        expire_timestamp: Timestamp(2000),
        ..offset("m")
    };
    read_back(&GroupRecord::Offset(key(), Some(expiring)));
    let empty = GroupMetadata { protocol: None, leader: None, members: Vec::new(), ..group() };
    for value in [Some(group()), Some(empty), None] {
        read_back(&GroupRecord::Group("g".into(), value.map(Arc::new)));
    }
}

#[test]
fn the_bytes_are_kafkas() {
    let (key, value) = GroupRecord::Offset(key(), Some(offset("m"))).encode();
    assert_eq!(&key[..], b"\0\x01\0\x01g\0\x01t\0\0\0\x02");
    let expected = b"\0\x04\0\0\0\0\0\0\0\x07\0\0\0\x03\x02m\0\0\0\0\0\0\x03\xe8\0";
    assert_eq!(value.as_deref(), Some(&expected[..]));
    // Written by Kafka 4.3.1: an offset with a topic id, one with a time at which it expires, a
    // group that has just begun.
    for (key, value) in [
        (
            &b"\0\x01\0\x06e21737\0\x01t\0\0\0\0"[..],
            &b"\0\x04\0\0\0\0\0\0\0\x05\xff\xff\xff\xff\x01\0\0\x01\xa2\x0d\x6f\x8f\xc5\x01\0\x10\
              \x59\x22\xf2\xb2\x97\x50\x44\x87\xa1\xcd\x94\x16\xb2\xfc\x34\x79"[..],
        ),
        (
            b"\0\x01\0\x06r21938\0\x01t\0\0\0\0",
            b"\0\x01\0\0\0\0\0\0\0\x07\0\x01m\0\0\x01\xa2\x0d\x72\x86\xb5\0\0\x01\xa2\x0d\x73\x71\x15",
        ),
        (
            b"\0\x02\0\x06a21693",
            b"\0\x03\0\0\0\0\0\0\xff\xff\xff\xff\0\0\x01\xa2\x0d\x6e\xcc\x54\0\0\0\0",
        ),
    ] {
        let record = GroupRecord::decode(key, Some(value)).unwrap().unwrap();
        let (key_again, value_again) = record.encode();
        assert_eq!((&key_again[..], value_again.as_deref()), (key, Some(value)));
    }

    let (key, value) = GroupRecord::Group("g".into(), Some(Arc::new(group()))).encode();
    assert_eq!(&key[..], b"\0\x02\0\x01g");
    let expected = b"\0\x03\0\x08consumer\0\0\0\x05\0\x05range\0\x01m\0\0\0\0\0\0\0\x09\0\0\0\x01\
        \0\x01m\0\x01i\0\x01c\0\x02/h\0\0\0\x04\0\0\0\x06\0\0\0\x03sub\0\0\0\x03asg";
    assert_eq!(value.as_deref(), Some(&expected[..]));
}

#[test]
fn older_and_flexible_versions_are_read() {
    let read =
        |value: &[u8]| match GroupRecord::decode(b"\0\0\0\x01g\0\x01t\0\0\0\x02", Some(value)) {
            Ok(Some(GroupRecord::Offset(at, Some(value)))) if at == key() => value,
            other => panic!("{other:?}"),
        };
    let none = CommittedOffset { leader_epoch: LeaderEpoch::NONE, ..offset("m") };
    let v0 = b"\0\0\0\0\0\0\0\0\0\x07\0\x01m\0\0\0\0\0\0\x03\xe8\0\0\0\0\0\0\0\0";
    assert_eq!(read(v0), none);
    let v3 = b"\0\x03\0\0\0\0\0\0\0\x07\0\0\0\x03\0\x01m\0\0\0\0\0\0\x03\xe8";
    assert_eq!(read(v3), offset("m"));
    let v4 = b"\0\x04\0\0\0\0\0\0\0\x07\0\0\0\x03\x02m\0\0\0\0\0\0\x03\xe8\x01\x09\x02xx";
    assert_eq!(read(v4), offset("m"));

    let read = |value: &[u8]| match GroupRecord::decode(b"\0\x02\0\x01g", Some(value)) {
        Ok(Some(GroupRecord::Group(_, Some(value)))) => value,
        other => panic!("{other:?}"),
    };
    let mut expected = group();
    let v4 = b"\0\x04\x09consumer\0\0\0\x05\x06range\x02m\0\0\0\0\0\0\0\x09\x02\
        \x02m\x02i\x02c\x03/h\0\0\0\x04\0\0\0\x06\x04sub\x04asg\0\0";
    assert_eq!(*read(v4), expected);
    expected.state_timestamp = Timestamp::NONE;
    expected.members[0].instance_id = None;
    expected.members[0].rebalance_timeout_ms = 6;
    let v0 = b"\0\0\0\x08consumer\0\0\0\x05\0\x05range\0\x01m\0\0\0\x01\
        \0\x01m\0\x01c\0\x02/h\0\0\0\x06\0\0\0\x03sub\0\0\0\x03asg";
    assert_eq!(*read(v0), expected);
}

#[test]
fn unknown_keys_are_skipped_and_lies_refused() {
    for key_type in [3i16, 8, 16, -1, 17] {
        assert_eq!(GroupRecord::decode(&key_type.to_be_bytes(), None), Ok(None));
    }
    let many = b"\0\x03\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0\x7f\xff\xff\xff";
    assert!(GroupRecord::decode(b"\0\x02\0\x01g", Some(many)).is_err());
    assert!(GroupRecord::decode(b"\0\x02\0\x01g", Some(b"\0\x05")).is_err());
    assert!(GroupRecord::decode(b"\0\x02\0\x01\xff", None).is_err());
}
