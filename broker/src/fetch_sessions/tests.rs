use super::*;

const NOW: Timestamp = Timestamp(1_000);

fn key(topic: u128, partition: i32) -> PartitionKey {
    PartitionKey {
        topic: TopicKey::Id(TopicId(uuid::Uuid::from_u128(topic))),
        partition: PartitionIndex(partition),
    }
}

fn fetch(partition: i32, offset: i64) -> PartitionFetch {
    PartitionFetch {
        key: key(7, partition),
        fetch_offset: Offset(offset),
        current_leader_epoch: LeaderEpoch::NONE,
        last_fetched_epoch: LeaderEpoch::NONE,
        max_bytes: 1_048_576,
    }
}

fn fetches(partitions: std::ops::Range<i32>) -> Vec<PartitionFetch> {
    partitions.map(|partition| fetch(partition, 0)).collect()
}

fn quiet(high_watermark: i64) -> Outcome {
    Outcome {
        record_bytes: 0,
        high_watermark: Offset(high_watermark),
        log_start_offset: Offset(0),
        must_tell: MustTell::No,
    }
}

fn with_records(high_watermark: i64) -> Outcome {
    Outcome { record_bytes: 100, ..quiet(high_watermark) }
}

fn failed() -> Outcome {
    Outcome {
        record_bytes: 0,
        high_watermark: Offset::NONE,
        log_start_offset: Offset::NONE,
        must_tell: MustTell::Error,
    }
}

/// Creates a session over `partitions` partitions at high watermark 10.
fn create(sessions: &FetchSessions, now: Timestamp, partitions: i32) -> i32 {
    let context = sessions.open(now, (0, 0), true, fetches(0..partitions), &[]).unwrap();
    let outcomes = vec![quiet(10); partitions as usize];
    context.answer(sessions, now, &outcomes).unwrap().session_id
}

/// One incremental round that names nothing.
fn round(sessions: &FetchSessions, id: i32, epoch: i32, outcomes: &[Outcome]) -> FetchAnswer {
    let context = sessions.open(NOW, (id, epoch), true, vec![], &[]).unwrap();
    context.answer(sessions, NOW, outcomes).unwrap()
}

#[test]
fn sessionless_requests_leave_nothing_behind() {
    let sessions = FetchSessions::new(10, 1);
    let context = sessions.open(NOW, (0, -1), true, fetches(0..2), &[]).unwrap();
    assert_eq!(context.partitions().len(), 2);
    let answer = context.answer(&sessions, NOW, &[quiet(1), quiet(1)]).unwrap();
    assert_eq!(answer, FetchAnswer { session_id: 0, told: vec![true, true] });
    assert!(sessions.is_empty());
}

#[test]
fn an_incremental_response_names_only_what_is_new() {
    let sessions = FetchSessions::new(10, 1);
    let id = create(&sessions, NOW, 3);
    assert!(id > 0);
    assert_eq!(round(&sessions, id, 1, &[quiet(10); 3]).told, [false, false, false]);
    // A moved watermark, a moved log start, a diverging epoch: each is told once.
    let start = Outcome { log_start_offset: Offset(4), ..quiet(10) };
    let diverging = Outcome { must_tell: MustTell::Diverging, ..quiet(10) };
    assert_eq!(round(&sessions, id, 2, &[quiet(11), start, diverging]).told, [true, true, true]);
    assert_eq!(round(&sessions, id, 3, &[quiet(11), start, quiet(10)]).told, [false; 3]);
}

#[test]
fn an_error_is_told_every_time_and_so_is_its_end() {
    let sessions = FetchSessions::new(10, 1);
    let id = create(&sessions, NOW, 1);
    assert_eq!(round(&sessions, id, 1, &[failed()]).told, [true]);
    assert_eq!(round(&sessions, id, 2, &[failed()]).told, [true]);
    assert_eq!(round(&sessions, id, 3, &[quiet(10)]).told, [true]);
    assert_eq!(round(&sessions, id, 4, &[quiet(10)]).told, [false]);
}

#[test]
fn partitions_with_records_move_to_the_end() {
    let sessions = FetchSessions::new(10, 1);
    let id = create(&sessions, NOW, 3);
    round(&sessions, id, 1, &[with_records(20), quiet(10), quiet(10)]);
    let context = sessions.open(NOW, (id, 2), true, vec![], &[]).unwrap();
    let order: Vec<i32> = context.partitions().iter().map(|f| f.key.partition.0).collect();
    assert_eq!(order, [1, 2, 0]);
}

#[test]
fn requests_add_update_and_forget_partitions() {
    let sessions = FetchSessions::new(10, 1);
    let id = create(&sessions, NOW, 2);
    let named = vec![fetch(0, 55), fetch(9, 1)];
    let context = sessions.open(NOW, (id, 1), true, named, &[key(7, 1), key(8, 8)]).unwrap();
    assert_eq!(context.partitions(), [fetch(0, 55), fetch(9, 1)]);
    let told = context.answer(&sessions, NOW, &[quiet(10), quiet(0)]).unwrap().told;
    assert_eq!(told, [false, true], "a partition new to the session is told at once");
}

#[test]
fn a_session_emptied_by_its_client_ends() {
    let sessions = FetchSessions::new(10, 1);
    let id = create(&sessions, NOW, 1);
    let context = sessions.open(NOW, (id, 1), true, vec![], &[key(7, 0)]).unwrap();
    assert_eq!(context.answer(&sessions, NOW, &[]).unwrap().session_id, 0);
    assert_eq!(
        sessions.open(NOW, (id, 2), true, vec![], &[]).unwrap_err(),
        ErrorCode::FetchSessionIdNotFound
    );
}

#[test]
fn epochs_are_followed_exactly() {
    let sessions = FetchSessions::new(10, 1);
    let id = create(&sessions, NOW, 1);
    let refusal = |session, ids| sessions.open(NOW, session, ids, vec![], &[]).unwrap_err();
    assert_eq!(refusal((id, 2), true), ErrorCode::InvalidFetchSessionEpoch);
    assert_eq!(refusal((id ^ 1, 1), true), ErrorCode::FetchSessionIdNotFound);
    assert_eq!(refusal((id, 1), false), ErrorCode::FetchSessionTopicIdError);
    let first = sessions.open(NOW, (id, 1), true, vec![], &[]).unwrap();
    assert_eq!(refusal((id, 1), true), ErrorCode::InvalidFetchSessionEpoch);
    let second = sessions.open(NOW, (id, 2), true, vec![], &[]).unwrap();
    assert_eq!(
        first.answer(&sessions, NOW, &[quiet(10)]).unwrap_err(),
        ErrorCode::InvalidFetchSessionEpoch,
        "a newer request of the session came while this one waited"
    );
    assert!(second.answer(&sessions, NOW, &[quiet(10)]).is_ok());
    assert_eq!(next_epoch(i32::MAX), 1);
}

#[test]
fn a_full_request_closes_the_session_it_names() {
    let sessions = FetchSessions::new(10, 1);
    for epoch in [EPOCH_INITIAL, EPOCH_FINAL] {
        let id = create(&sessions, NOW, 1);
        let before = sessions.len();
        sessions.open(NOW, (id, epoch), true, fetches(0..1), &[]).unwrap();
        assert_eq!(sessions.len(), before - 1);
    }
}

#[test]
fn a_full_cache_answers_without_a_session() {
    let sessions = FetchSessions::new(2, 1);
    create(&sessions, NOW, 1);
    create(&sessions, NOW, 1);
    assert_eq!(create(&sessions, NOW, 5), 0);
    assert_eq!(sessions.len(), 2);
}

#[test]
fn a_stale_session_gives_way_and_an_old_small_one_to_a_larger() {
    let sessions = FetchSessions::new(2, 1);
    let small = create(&sessions, NOW, 1);
    let large = create(&sessions, NOW, 9);
    let later = Timestamp(NOW.0 + EVICTION_MS + 1);
    // Both stay in use, so neither is stale; only the small one gives way, and to a larger one.
    for id in [small, large] {
        sessions.open(later, (id, 1), true, vec![], &[]).unwrap();
    }
    assert!(create(&sessions, later, 3) > 0);
    let refusal = sessions.open(later, (small, 2), true, vec![], &[]).unwrap_err();
    assert_eq!(refusal, ErrorCode::FetchSessionIdNotFound);
    assert_eq!(create(&sessions, later, 2), 0, "the newcomer is not old, the large one is larger");
    // Much later all are stale: anyone may come in.
    assert!(create(&sessions, Timestamp(later.0 + EVICTION_MS + 1), 1) > 0);
    assert_eq!(sessions.len(), 2);
}

#[test]
fn a_partition_named_twice_counts_once_with_the_last_word() {
    let sessions = FetchSessions::new(2, 1);
    let named = vec![fetch(0, 1), fetch(1, 2), fetch(0, 3)];
    let context = sessions.open(NOW, (0, -1), true, named, &[]).unwrap();
    assert_eq!(context.partitions(), [fetch(0, 3), fetch(1, 2)]);
}

#[test]
fn the_partitions_of_all_sessions_together_are_bounded() {
    let most = 10;
    let sessions = FetchSessions::bounded(10, 10, 1);
    let (half, late) = (most / 2, Timestamp(NOW.0 + EVICTION_MS + 1));
    let first = create(&sessions, NOW, half);
    let second = create(&sessions, NOW, half);
    assert!(first != 0 && second != 0);
    assert_eq!(sessions.partitions(), 10);
    assert_eq!(create(&sessions, NOW, 1), 0, "nobody is old enough to give way");
    assert_eq!(create(&sessions, late, most + 1), 0, "more than there is at all");
    assert_eq!(sessions.len(), 2, "nothing was taken in vain");
    // Nor may one grow: it ends, and the client begins again.
    let refused = sessions.open(NOW, (first, 1), true, fetches(half..half + 1), &[]);
    assert_eq!(refused.unwrap_err(), ErrorCode::FetchSessionIdNotFound);
    assert_eq!(sessions.partitions(), 5);
    // Naming what it has is no growth.
    let context = sessions.open(late, (second, 1), true, fetches(0..5), &[]).unwrap();
    drop(context);
    assert_ne!(create(&sessions, late, most - half), 0);
    let newest = create(&sessions, Timestamp(late.0 + EVICTION_MS + 1), most);
    assert_ne!(newest, 0, "the stale ones give way, both of them");
    assert_eq!((sessions.len(), sessions.partitions()), (1, 10));
}

#[test]
fn a_name_that_no_topic_can_have_is_not_remembered() {
    let sessions = FetchSessions::new(10, 1);
    let topic = TopicKey::Name(TopicName::new(&"x".repeat(TOPIC_NAME_BYTES_MAX + 1)));
    let long = PartitionFetch { key: PartitionKey { topic, ..key(1, 0) }, ..fetch(0, 0) };
    let context = sessions.open(NOW, (0, 0), false, vec![long.clone()], &[]).unwrap();
    assert_eq!(context.answer(&sessions, NOW, &[failed()]).unwrap().session_id, SESSION_NONE);
    let id = create(&sessions, NOW, 1);
    let refused = sessions.open(NOW, (id, 1), true, vec![long], &[]);
    assert_eq!(refused.unwrap_err(), ErrorCode::FetchSessionIdNotFound);
    assert!(sessions.is_empty());
}
