//! Groups over the wire: every version of every API, parked requests, and what ends them.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;
use vltava::coordinator::group::GroupShard;
use vltava::coordinator::report::GroupReport;
use vltava_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use vltava_protocol::messages::leave_group_request::MemberIdentity;
use vltava_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use vltava_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use vltava_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use vltava_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use vltava_protocol::messages::{
    ApiKey, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, FindCoordinatorRequest, FindCoordinatorResponse, HeartbeatRequest,
    HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    ListGroupsRequest, ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse, StrBytes,
    SyncGroupRequest, SyncGroupResponse,
};
use vltava_protocol::record::{BatchFields, Codec};

use crate::node::TestNode;
use crate::produce::append;
use crate::wire::{Wire, batch_at, name};

const FAST: &str = "group.initial.rebalance.delay.ms=0";

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Asks until the group has a coordinator and that is loaded, as clients do.
async fn find(wire: &mut Wire, group: &str) {
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
    let found: FindCoordinatorResponse = wire.call(ApiKey::FindCoordinator, 4, &request).await;
    assert_eq!(found.coordinators[0].error_code, 0, "{found:?}");
    loop {
        let request = OffsetFetchRequest::default().with_group_id(text(group).into());
        let fetched: OffsetFetchResponse = wire.call(ApiKey::OffsetFetch, 7, &request).await;
        if fetched.error_code != 14 {
            assert_eq!(fetched.error_code, 0);
            return;
        }
    }
}

fn join(group: &str, member: &str) -> JoinGroupRequest {
    let range = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff"));
    JoinGroupRequest::default()
        .with_group_id(text(group).into())
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![range])
}

/// Joins with the id that it is given, and syncs as the leader of a group of one.
async fn lead(wire: &mut Wire, group: &str) -> (StrBytes, i32) {
    let refused: JoinGroupResponse = wire.call(ApiKey::JoinGroup, 5, &join(group, "")).await;
    assert_eq!(refused.error_code, 79, "{refused:?}");
    let request = join(group, &refused.member_id);
    let joined: JoinGroupResponse = wire.call(ApiKey::JoinGroup, 5, &request).await;
    assert_eq!((joined.error_code, &joined.leader), (0, &joined.member_id));
    let request = sync(group, &joined.member_id, joined.generation_id);
    let synced: SyncGroupResponse = wire.call(ApiKey::SyncGroup, 3, &request).await;
    assert_eq!((synced.error_code, &*synced.assignment), (0, &b"all"[..]));
    (joined.member_id, joined.generation_id)
}

fn sync(group: &str, member: &str, generation: i32) -> SyncGroupRequest {
    let all = SyncGroupRequestAssignment::default()
        .with_member_id(text(member))
        .with_assignment(Bytes::from_static(b"all"));
    SyncGroupRequest::default()
        .with_group_id(text(group).into())
        .with_member_id(text(member))
        .with_generation_id(generation)
        .with_assignments(vec![all])
}

fn commit(group: &str, topic: &str, partition: i32, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("note")));
    let topic =
        OffsetCommitRequestTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(text(group).into())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

fn fetch_one(group: &str, topic: &str) -> OffsetFetchRequest {
    let topic =
        OffsetFetchRequestTopic::default().with_name(name(topic)).with_partition_indexes(vec![0]);
    OffsetFetchRequest::default().with_group_id(text(group).into()).with_topics(Some(vec![topic]))
}

async fn committed(wire: &mut Wire, group: &str, topic: &str) -> i64 {
    let request = fetch_one(group, topic);
    let fetched: OffsetFetchResponse = wire.call(ApiKey::OffsetFetch, 5, &request).await;
    assert_eq!(fetched.error_code, 0);
    fetched.topics[0].partitions[0].committed_offset
}

#[tokio::test]
async fn coordinators_are_found_in_every_version() {
    let node = TestNode::start().await;
    let mut wire = node.connect().await;
    for version in 0..=6 {
        for (key_type, expected) in [(0, 0), (1, 35)] {
            if version == 0 && key_type != 0 {
                continue;
            }
            let key = text("group");
            let request = FindCoordinatorRequest::default();
            let request = if version < 4 {
                request.with_key(key.clone())
            } else {
                request.with_coordinator_keys(vec![key.clone()])
            };
            let request = if version > 0 { request.with_key_type(key_type) } else { request };
            let found: FindCoordinatorResponse =
                wire.call(ApiKey::FindCoordinator, version, &request).await;
            let (code, port) = if version < 4 {
                (found.error_code, found.port)
            } else {
                assert_eq!(found.coordinators[0].key, key);
                (found.coordinators[0].error_code, found.coordinators[0].port)
            };
            assert_eq!((code, port > 0), (expected, expected == 0), "v{version}");
        }
    }
}

#[tokio::test]
async fn offsets_are_committed_and_fetched_in_every_version() {
    let node = TestNode::start().await;
    let id = node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    find(&mut wire, "g").await;
    for version in 2..=9 {
        let offset = i64::from(version) * 10;
        let request = commit("g", "t", 0, offset);
        let done: OffsetCommitResponse = wire.call(ApiKey::OffsetCommit, version, &request).await;
        assert_eq!(done.topics[0].partitions[0].error_code, 0, "v{version}");
        assert_eq!(committed(&mut wire, "g", "t").await, offset);
    }
    for version in 1..=7 {
        let request = fetch_one("g", "t");
        let fetched: OffsetFetchResponse = wire.call(ApiKey::OffsetFetch, version, &request).await;
        let found = &fetched.topics[0].partitions[0];
        assert_eq!((found.committed_offset, found.error_code), (90, 0), "v{version}");
        assert_eq!(found.metadata.as_deref(), Some("note"));
        if version >= 2 {
            let all =
                OffsetFetchRequest::default().with_group_id(text("g").into()).with_topics(None);
            let fetched: OffsetFetchResponse = wire.call(ApiKey::OffsetFetch, version, &all).await;
            assert_eq!(fetched.topics[0].partitions[0].committed_offset, 90);
        }
    }
    for version in 8..=9 {
        let topic = OffsetFetchRequestTopics::default()
            .with_name(name("t"))
            .with_partition_indexes(vec![0, 7]);
        let group = |group: &str| {
            OffsetFetchRequestGroup::default()
                .with_group_id(text(group).into())
                .with_topics(Some(vec![topic.clone()]))
        };
        let request =
            OffsetFetchRequest::default().with_groups(vec![group("g"), group("stranger")]);
        let fetched: OffsetFetchResponse = wire.call(ApiKey::OffsetFetch, version, &request).await;
        let offsets: Vec<Vec<i64>> = fetched
            .groups
            .iter()
            .map(|g| g.topics[0].partitions.iter().map(|p| p.committed_offset).collect())
            .collect();
        assert_eq!(offsets, [[90, -1], [-1, -1]], "v{version}");
    }
    commits_by_id(&mut wire, id.0).await;
}

/// Version 10, which the wire crate does not write: topics by id.
async fn commits_by_id(wire: &mut Wire, id: Uuid) {
    let body = |id: Uuid, offset: u8| {
        let mut body = b"\x02g\xff\xff\xff\xff\x01\0\x02".to_vec();
        body.extend_from_slice(id.as_bytes());
        body.extend_from_slice(b"\x02\0\0\0\0\0\0\0\0\0\0\0");
        body.push(offset);
        body.extend_from_slice(b"\xff\xff\xff\xff\x01\0\0\0");
        body
    };
    for (id, code) in [(id, 0), (Uuid::from_u128(1), 100)] {
        let frame = wire.frame_of(ApiKey::OffsetCommit, 10, 2, &body(id, 99));
        wire.raw(&frame).await;
        let done: OffsetCommitResponse = wire.receive(10).await;
        assert_eq!(done.topics[0].topic_id, id);
        assert_eq!(done.topics[0].partitions[0].error_code, code);
    }
    for (id, expected) in [(id, (99, 0)), (Uuid::from_u128(1), (-1, 100))] {
        let mut body = b"\x02\x02g\0\xff\xff\xff\xff\x02".to_vec();
        body.extend_from_slice(id.as_bytes());
        body.extend_from_slice(b"\x02\0\0\0\0\0\0\0\0");
        let frame = wire.frame_of(ApiKey::OffsetFetch, 10, 2, &body);
        wire.raw(&frame).await;
        let fetched: OffsetFetchResponse = wire.receive(10).await;
        let found = &fetched.groups[0].topics[0];
        assert_eq!(found.topic_id, id);
        let partition = &found.partitions[0];
        assert_eq!((partition.committed_offset, partition.error_code), expected);
    }
}

#[tokio::test]
async fn what_does_not_exist_is_told_apart() {
    let node = TestNode::start().await;
    node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    find(&mut wire, "g").await;
    let mut request = commit("g", "t", 0, 5);
    request.topics.extend(commit("g", "t", 1, 5).topics);
    request.topics.extend(commit("g", "none", 0, 5).topics);
    let done: OffsetCommitResponse = wire.call(ApiKey::OffsetCommit, 8, &request).await;
    let codes: Vec<i16> = done.topics.iter().map(|t| t.partitions[0].error_code).collect();
    assert_eq!(codes, [0, 3, 3]);
    assert_eq!(committed(&mut wire, "g", "t").await, 5);

    let partition = |index| OffsetDeleteRequestPartition::default().with_partition_index(index);
    let topic = |topic: &str| {
        OffsetDeleteRequestTopic::default()
            .with_name(name(topic))
            .with_partitions(vec![partition(0), partition(1)])
    };
    let request = OffsetDeleteRequest::default()
        .with_group_id(text("g").into())
        .with_topics(vec![topic("none"), topic("t")]);
    let deleted: OffsetDeleteResponse = wire.call(ApiKey::OffsetDelete, 0, &request).await;
    let codes: Vec<Vec<i16>> = deleted
        .topics
        .iter()
        .map(|topic| topic.partitions.iter().map(|p| p.error_code).collect())
        .collect();
    assert_eq!((deleted.error_code, codes), (0, vec![vec![3, 3], vec![0, 3]]));
    assert_eq!(committed(&mut wire, "g", "t").await, -1);
    let request = request.with_group_id(text("stranger").into());
    let deleted: OffsetDeleteResponse = wire.call(ApiKey::OffsetDelete, 0, &request).await;
    assert_eq!((deleted.error_code, deleted.topics.len()), (69, 0));
}

#[tokio::test]
async fn a_member_joins_lives_and_leaves() {
    let node = TestNode::with(&[FAST]).await;
    node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    find(&mut wire, "g").await;
    let (member, generation) = lead(&mut wire, "g").await;
    for version in 0..=4 {
        let request = HeartbeatRequest::default()
            .with_group_id(text("g").into())
            .with_member_id(member.clone())
            .with_generation_id(generation);
        let alive: HeartbeatResponse = wire.call(ApiKey::Heartbeat, version, &request).await;
        assert_eq!(alive.error_code, 0);
    }
    for version in 0..=6 {
        let request =
            DescribeGroupsRequest::default().with_groups(vec![text("g").into(), text("h").into()]);
        let request = request.with_include_authorized_operations(version >= 3);
        let described: DescribeGroupsResponse =
            wire.call(ApiKey::DescribeGroups, version, &request).await;
        let [group, none] = &described.groups[..] else { panic!("{described:?}") };
        assert_eq!((&*group.group_state, group.error_code), ("Stable", 0));
        assert_eq!((&*group.protocol_data, group.members.len()), ("range", 1));
        assert_eq!(&*group.members[0].client_host, "/127.0.0.1");
        assert_eq!(&*group.members[0].member_assignment, b"all");
        assert_eq!(group.authorized_operations > 0, version >= 3);
        assert_eq!(&*none.group_state, "Dead");
        assert_eq!(none.error_code, if version >= 6 { 69 } else { 0 });
    }
    for version in 0..=5 {
        let request = ListGroupsRequest::default();
        let request =
            if version >= 4 { request.with_states_filter(vec![text("stable")]) } else { request };
        let listed: ListGroupsResponse = wire.call(ApiKey::ListGroups, version, &request).await;
        assert_eq!((listed.error_code, listed.groups.len()), (0, 1));
        assert_eq!(&**listed.groups[0].group_id, "g");
    }
    for version in 0..=2 {
        let groups = vec![text("g").into(), text("stranger").into(), text("g").into()];
        let request = DeleteGroupsRequest::default().with_groups_names(groups);
        let deleted: DeleteGroupsResponse =
            wire.call(ApiKey::DeleteGroups, version, &request).await;
        let codes: Vec<i16> = deleted.results.iter().map(|result| result.error_code).collect();
        assert_eq!(codes, [68, 69]);
    }
    leave(&mut wire, member).await;
    let request = DeleteGroupsRequest::default().with_groups_names(vec![text("g").into()]);
    let deleted: DeleteGroupsResponse = wire.call(ApiKey::DeleteGroups, 2, &request).await;
    assert_eq!(deleted.results[0].error_code, 0);
}

/// Leaves by every version; it works once.
async fn leave(wire: &mut Wire, member: StrBytes) {
    for version in 0..=5 {
        let request = LeaveGroupRequest::default().with_group_id(text("g").into());
        let request = if version < 3 {
            request.with_member_id(member.clone())
        } else {
            let member = MemberIdentity::default().with_member_id(member.clone());
            request.with_members(vec![member])
        };
        let left: LeaveGroupResponse = wire.call(ApiKey::LeaveGroup, version, &request).await;
        let code = if version < 3 { left.error_code } else { left.members[0].error_code };
        assert_eq!(code, if version == 0 { 0 } else { 25 }, "v{version}");
    }
}

#[tokio::test]
async fn every_version_joins_and_syncs() {
    let node = TestNode::with(&[FAST]).await;
    let mut wire = node.connect().await;
    find(&mut wire, "g").await;
    for version in 0..=9 {
        let group = format!("g{version}");
        let mut joined: JoinGroupResponse =
            wire.call(ApiKey::JoinGroup, version, &join(&group, "")).await;
        if version >= 4 {
            assert_eq!(joined.error_code, 79);
            let request = join(&group, &joined.member_id);
            joined = wire.call(ApiKey::JoinGroup, version, &request).await;
        }
        assert_eq!((joined.error_code, joined.generation_id), (0, 1), "v{version}");
        assert_eq!(joined.members.len(), 1);
        let version = version.min(5);
        let mut request = sync(&group, &joined.member_id, 1);
        if version == 5 {
            let missing: SyncGroupResponse = wire.call(ApiKey::SyncGroup, 5, &request).await;
            assert_eq!(missing.error_code, 23);
            request.protocol_type = Some(text("consumer"));
            request.protocol_name = Some(text("range"));
        }
        let synced: SyncGroupResponse = wire.call(ApiKey::SyncGroup, version, &request).await;
        assert_eq!((synced.error_code, &*synced.assignment), (0, &b"all"[..]));
    }
}

#[tokio::test]
async fn a_parked_join_waits_for_others_and_ends_with_its_connection() {
    let node = TestNode::with(&[FAST]).await;
    let (mut a, mut b) = (node.connect().await, node.connect().await);
    find(&mut a, "g").await;
    let (first, _) = lead(&mut a, "g").await;
    let refused: JoinGroupResponse = b.call(ApiKey::JoinGroup, 5, &join("g", "")).await;
    let second = refused.member_id;
    b.send(ApiKey::JoinGroup, 5, &join("g", &second)).await;
    // Whoever waits does not keep others from being served.
    let beat = HeartbeatRequest::default()
        .with_group_id(text("g").into())
        .with_member_id(first.clone())
        .with_generation_id(1);
    loop {
        let alive: HeartbeatResponse = a.call(ApiKey::Heartbeat, 3, &beat).await;
        if alive.error_code == 27 {
            break;
        }
        assert_eq!(alive.error_code, 0);
    }
    let groups = node.broker.node().groups.clone();
    let parked = || {
        let posts = groups.runtime().posts();
        let parked = posts.iter().filter_map(|post| post.look(GroupShard::parked).ok());
        parked.sum::<usize>()
    };
    assert_eq!(parked(), 1);
    drop(b);
    while parked() > 0 {
        tokio::task::yield_now().await;
    }
    // The member stays, as in Kafka, and comes back over another connection.
    let mut b = node.connect().await;
    b.send(ApiKey::JoinGroup, 5, &join("g", &second)).await;
    let joined: JoinGroupResponse = a.call(ApiKey::JoinGroup, 5, &join("g", &first)).await;
    assert_eq!((joined.error_code, joined.generation_id, joined.members.len()), (0, 2, 2));
    let joined: JoinGroupResponse = b.receive(5).await;
    assert_eq!((joined.error_code, joined.generation_id), (0, 2));

    // A parked one is answered when the broker stops.
    b.send(ApiKey::SyncGroup, 3, &sync("g", &second, 2)).await;
    while parked() == 0 {
        tokio::task::yield_now().await;
    }
    drop(groups);
    let broker = node.broker;
    let stopping = tokio::task::spawn_blocking(move || broker.shutdown());
    let synced: SyncGroupResponse = b.receive(3).await;
    stopping.await.unwrap();
    assert_eq!(synced.error_code, 16);
}

#[tokio::test]
async fn pipelined_commits_are_answered_in_order_and_the_last_one_counts() {
    let node = TestNode::start().await;
    node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    find(&mut wire, "g").await;
    for offset in 0..200 {
        wire.send(ApiKey::OffsetCommit, 8, &commit("g", "t", 0, offset)).await;
    }
    for _ in 0..200 {
        let done: OffsetCommitResponse = wire.receive(8).await;
        assert_eq!(done.topics[0].partitions[0].error_code, 0);
    }
    assert_eq!(committed(&mut wire, "g", "t").await, 199);
}

#[tokio::test]
async fn offsets_go_with_their_topic_and_groups_with_theirs() {
    let node = TestNode::start().await;
    node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    find(&mut wire, "g").await;
    let done: OffsetCommitResponse =
        wire.call(ApiKey::OffsetCommit, 8, &commit("g", "t", 0, 5)).await;
    assert_eq!(done.topics[0].partitions[0].error_code, 0);
    node.delete("t").await;
    while committed(&mut wire, "g", "t").await != -1 {
        tokio::task::yield_now().await;
    }
    node.create("t", 1, &[]).await;
    let done: OffsetCommitResponse =
        wire.call(ApiKey::OffsetCommit, 8, &commit("g", "t", 0, 7)).await;
    assert_eq!(done.topics[0].partitions[0].error_code, 0);

    node.delete("__consumer_offsets").await;
    let done: OffsetCommitResponse =
        wire.call(ApiKey::OffsetCommit, 8, &commit("g", "t", 0, 8)).await;
    assert_eq!(done.topics[0].partitions[0].error_code, 16, "nobody coordinates it");
    find(&mut wire, "g").await;
    assert_eq!(committed(&mut wire, "g", "t").await, -1);
}

/// A page of the admin listener.
async fn page(node: &TestNode, path: &str) -> String {
    let mut socket = TcpStream::connect(node.broker.admin_addr().unwrap()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut page = String::new();
    socket.read_to_string(&mut page).await.unwrap();
    page.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test]
async fn the_admin_listener_tells_of_a_group_and_of_its_lag() {
    let node = TestNode::with(&[FAST, "group.metrics.max=1"]).await;
    node.create("t", 1, &[]).await;
    let mut wire = node.connect().await;
    find(&mut wire, "g").await;
    for (at, codec) in [(1_000, Codec::None), (5_000, Codec::Zstd)] {
        let batch = batch_at(at, &["a", "b", "c"], codec, &BatchFields::default());
        append(&mut wire, "t", batch).await;
    }
    let (member, generation) = lead(&mut wire, "g").await;
    // In the middle of a compressed batch.
    let request = commit("g", "t", 0, 4).with_member_id(member.clone());
    let request = request.with_generation_id_or_member_epoch(generation);
    let done: OffsetCommitResponse = wire.call(ApiKey::OffsetCommit, 8, &request).await;
    assert_eq!(done.topics[0].partitions[0].error_code, 0);
    let report: GroupReport = serde_json::from_str(&page(&node, "/groups/g").await).unwrap();
    assert_eq!((report.state.as_str(), report.generation), ("Stable", generation));
    assert_eq!(report.members[0].member_id, &*member);
    assert_eq!(report.rebalances.last().unwrap().cause, "member joined");
    let offset = &report.offsets[0];
    assert_eq!((offset.offset, offset.end_offset, offset.lag_records), (4, Some(6), Some(2)));
    let age = node.broker.node().clock.now().0 - 5_001;
    assert!((age - 60_000..=age).contains(&offset.lag_ms.unwrap()), "{offset:?}, not {age}");

    let done: OffsetCommitResponse =
        wire.call(ApiKey::OffsetCommit, 8, &commit("h", "t", 0, 6)).await;
    assert_eq!(done.topics[0].partitions[0].error_code, 0);
    let report: GroupReport = serde_json::from_str(&page(&node, "/groups/h").await).unwrap();
    assert_eq!((report.lag_records, report.lag_ms, report.state.as_str()), (0, 0, "Empty"));
    let metrics = page(&node, "/metrics").await;
    for line in [
        "vltava_groups{state=\"Stable\"} 1",
        "vltava_groups{state=\"Empty\"} 1",
        "vltava_group_offset_commits_total 2",
        "vltava_group_rebalances_total 1",
        "vltava_group_members{group=\"g\"} 1",
        "vltava_group_lag_records{group=\"g\"} 2",
        "vltava_group_lag_records{others=\"true\"} 0",
        "vltava_group_coordinator_load_duration_seconds_count 50",
    ] {
        assert!(metrics.contains(line), "{line} not in\n{metrics}");
    }
}
