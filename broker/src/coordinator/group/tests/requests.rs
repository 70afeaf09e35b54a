//! Requests that are refused at the door, lists, and hostile sizes.

use bytes::Bytes;
use vltava_protocol::ErrorCode;
use vltava_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId};

use super::scene::{Scene, play, subscription};
use crate::coordinator::group::config::PENDING_MEMBERS_MAX;
use crate::coordinator::group::request::*;
use crate::coordinator::group::response::GroupResponse;
use crate::coordinator::group::{Effect, GroupConfig, GroupRequest, Seq, Token};

#[test]
fn an_empty_group_id_names_no_group_to_join() {
    play(
        "
        join a group=      => a join INVALID_GROUP_ID
        sync a group=      => a sync INVALID_GROUP_ID
        beat a group=      => a beat INVALID_GROUP_ID
        leave a group=     => leave INVALID_GROUP_ID
        forget t-0 group=  => forget INVALID_GROUP_ID
        offsets - t-0=1 group= => - offsets t-0=NONE
        fetch t-0 group=   => fetch t-0=1
        delete group=      => delete ok
        describe group=    => describe GROUP_ID_NOT_FOUND Group  not found.
        ",
    );
}

#[test]
fn lists_have_filters() {
    play(
        "
        offsets - t-0=1 group=simple => - offsets t-0=NONE
        join a v=3         =>
        list               => list g:PreparingRebalance:consumer simple:Empty:
        +0                 => a joined 1 range leader=a members=a
        list states=empty  => list simple:Empty:
        list states=COMPLETINGREBALANCE => list g:CompletingRebalance:consumer
        list states=Dead   => list
        list types=Classic => list g:CompletingRebalance:consumer simple:Empty:
        list types=consumer => list
        ",
    );
}

#[test]
fn followers_refuse_everything() {
    play(
        "
        lose               =>
        join a             => a join NOT_COORDINATOR
        list               => list NOT_COORDINATOR
        fetch t-0          => fetch NOT_COORDINATOR
        elect              =>
        list               => list
        ",
    );
}

#[test]
fn an_offset_of_an_earlier_topic_of_that_name_is_none() {
    let mut scene = Scene::new(GroupConfig::default());
    let id = |id| TopicId(uuid::Uuid::from_u128(id));
    let topic = |topic_id| ByTopic {
        name: "t".into(),
        topic_id,
        partitions: vec![(PartitionIndex(0), ())],
    };
    let offset =
        OffsetToCommit { offset: Offset(5), leader_epoch: LeaderEpoch::NONE, metadata: "".into() };
    let commit = OffsetCommitRequest {
        group_id: "g".into(),
        member_id: "".into(),
        instance_id: None,
        generation: -1,
        retention_ms: None,
        knows_group_id_not_found: true,
        topics: vec![ByTopic {
            name: "t".into(),
            topic_id: id(1),
            partitions: vec![(PartitionIndex(0), offset)],
        }],
    };
    let mut out = Vec::new();
    scene.shard.handle(Token(0), GroupRequest::OffsetCommit(commit), scene.now, &mut out);
    scene.shard.on_committed(Seq(1), scene.now, &mut out);
    for (token, topic_id, expected) in
        [(1, id(1), 5), (2, TopicId::ZERO, 5), (3, id(2), -1), (4, id(1), 5)]
    {
        let fetch = OffsetFetchRequest {
            group_id: "g".into(),
            topics: Some(vec![topic(topic_id)]),
            require_stable: false,
        };
        let answer = ask(&mut scene, token, GroupRequest::OffsetFetch(fetch));
        let GroupResponse::OffsetFetch(topics) = answer else {
            panic!("a fetch is answered");
        };
        assert_eq!(topics[0].partitions[0].1.offset, Offset(expected), "{token}");
    }
}

fn join(scene: &Scene, group_id: &str, client_id: &str, metadata: Bytes) -> JoinRequest {
    assert!(scene.shard.is_leading());
    JoinRequest {
        group_id: group_id.into(),
        member_id: "".into(),
        instance_id: None,
        client: Client { id: client_id.into(), host: "/127.0.0.1".into() },
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![Protocol { name: "range".into(), metadata }],
        reason: None,
        requires_member_id: true,
        can_skip_assignment: true,
    }
}

/// The answer to a request that is answered at once.
fn ask(scene: &mut Scene, token: u64, request: GroupRequest) -> GroupResponse {
    let mut out = Vec::new();
    scene.shard.handle(Token(token), request, scene.now, &mut out);
    let reply = out.into_iter().find_map(|effect| match effect {
        Effect::Reply { response, .. } => Some(response),
        Effect::Append { .. } => None,
    });
    reply.expect("answered at once")
}

#[test]
fn texts_that_no_record_holds_are_refused() {
    let mut scene = Scene::new(GroupConfig::default());
    let longest = "x".repeat(0x7fff);
    let long = "x".repeat(0x8000);
    let rubbish = Bytes::from_static(b"rubbish");
    let request = join(&scene, &long, "c", rubbish.clone());
    let answer = ask(&mut scene, 0, GroupRequest::Join(request));
    assert_eq!(answer, GroupResponse::Failed(ErrorCode::InvalidGroupId));
    let request = join(&scene, "g", &long, rubbish.clone());
    let answer = ask(&mut scene, 1, GroupRequest::Join(request));
    assert_eq!(answer, GroupResponse::Failed(ErrorCode::InvalidRequest));

    // A client's id as long as can be becomes an id that a record still holds.
    let request = join(&scene, &longest, &longest, rubbish);
    let GroupResponse::Join(answer) = ask(&mut scene, 2, GroupRequest::Join(request)) else {
        panic!("a join is answered");
    };
    assert_eq!(answer.error, ErrorCode::MemberIdRequired);
    assert_eq!(answer.member_id.len(), 0x7fff);
}

#[test]
fn ids_given_to_nobody_are_limited() {
    let mut scene = Scene::new(GroupConfig::default());
    for token in 0..=PENDING_MEMBERS_MAX as u64 {
        let request = join(&scene, "g", "c", subscription("t"));
        let GroupResponse::Join(answer) = ask(&mut scene, token, GroupRequest::Join(request))
        else {
            panic!("a join is answered");
        };
        let expected = if token < PENDING_MEMBERS_MAX as u64 {
            ErrorCode::MemberIdRequired
        } else {
            ErrorCode::GroupMaxSizeReached
        };
        assert_eq!(answer.error, expected, "{token}");
    }
}

#[test]
fn a_megabyte_of_metadata_reaches_the_leader() {
    let mut scene =
        Scene::new(GroupConfig { initial_rebalance_delay_ms: 0, ..GroupConfig::default() });
    let metadata = Bytes::from(vec![7; 1 << 20]);
    let mut request = join(&scene, "g", "c", metadata.clone());
    request.requires_member_id = false;
    let mut out = Vec::new();
    scene.shard.handle(Token(0), GroupRequest::Join(request), scene.now, &mut out);
    scene.shard.on_time(scene.now, &mut out);
    let Some(Effect::Reply { response: GroupResponse::Join(answer), .. }) = out.pop() else {
        panic!("the join phase is over: {out:?}");
    };
    assert_eq!(answer.members[0].metadata, metadata);
}
