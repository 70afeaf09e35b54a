//! Groups: ids as long as can be, metadata of a megabyte, commits over the size of a batch, counts
//! that lie, members that vanish while they wait.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::join_group_response::JoinGroupResponse;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{
    DeleteGroupsRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest,
    LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;
use libtest_mimic::Failed;
use vltava_tests::harness::raw::with_header;
use vltava_tests::harness::{Broker, RawClient, Tested, requests};

use crate::Row;

pub(crate) const ROWS: &[Row] = &[
    ("the_longest_group_id_is_a_group", the_longest_group_id_is_a_group),
    ("an_assignment_over_the_size_of_a_batch_is_refused", too_large_an_assignment),
    ("a_commit_over_the_size_of_a_batch_is_refused", too_large_a_commit),
    ("counts_that_lie_close_the_connection", counts_that_lie),
    ("members_that_vanish_keep_nobody_waiting", members_that_vanish),
];

/// A coordinator that is being created or loaded answers soon.
const DEADLINE: Duration = Duration::from_secs(30);
const REBALANCE_IN_PROGRESS: i16 = 27;
const UNKNOWN_SERVER_ERROR: i16 = -1;
/// `JoinGroup` version 3 is the last that lets a member without an id in at once.
const JOIN: i16 = 3;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group_id(group: &str) -> GroupId {
    GroupId(text(group))
}

/// A connection, once the coordinator of `group` is there.
fn connect(broker: &Broker, group: &str) -> Tested<RawClient> {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let find = FindCoordinatorRequest::default().with_key(text(group));
    let fetch = OffsetFetchRequest::default().with_group_id(group_id(group)).with_topics(None);
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        if client.call(1, &find)?.error_code == 0 && client.call(5, &fetch)?.error_code == 0 {
            return Ok(client);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(Failed::from("no coordinator"))
}

/// A `ConsumerProtocolSubscription` of version 0 with `bytes` of the client's own.
fn subscription(bytes: usize) -> Bytes {
    let mut metadata = BytesMut::new();
    metadata.put_slice(b"\0\0\0\0\0\x01\0\x01t");
    metadata.put_i32(bytes as i32);
    metadata.put_bytes(7, bytes);
    metadata.freeze()
}

fn join_request(group: &str, metadata: Bytes) -> JoinGroupRequest {
    let range = JoinGroupRequestProtocol::default()
        .with_name(StrBytes::from_static_str("range"))
        .with_metadata(metadata);
    JoinGroupRequest::default()
        .with_group_id(group_id(group))
        .with_session_timeout_ms(6_000)
        .with_rebalance_timeout_ms(6_000)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![range])
}

fn sync(client: &mut RawClient, group: &str, joined: &JoinGroupResponse) -> Tested<i16> {
    let sync = SyncGroupRequest::default()
        .with_group_id(group_id(group))
        .with_member_id(joined.member_id.clone())
        .with_generation_id(joined.generation_id);
    Ok(client.call(3, &sync)?.error_code)
}

fn leave(client: &mut RawClient, group: &str, joined: &JoinGroupResponse) -> Tested {
    let member = MemberIdentity::default().with_member_id(joined.member_id.clone());
    let request =
        LeaveGroupRequest::default().with_group_id(group_id(group)).with_members(vec![member]);
    let response = client.call(3, &request)?;
    assert_eq!((response.error_code, response.members[0].error_code), (0, 0));
    Ok(())
}

/// Commits offsets, each with `metadata`; gives the codes.
fn commit(
    client: &mut RawClient,
    group: &str,
    topic: &str,
    metadata: &[String],
) -> Tested<Vec<i16>> {
    let partition = |metadata: &String| {
        OffsetCommitRequestPartition::default()
            .with_committed_offset(5)
            .with_committed_leader_epoch(-1)
            .with_committed_metadata(Some(text(metadata)))
    };
    let topic = OffsetCommitRequestTopic::default()
        .with_name(requests::topic_name(topic))
        .with_partitions(metadata.iter().map(partition).collect());
    let request = OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    let response = client.call(7, &request)?;
    Ok(response.topics[0].partitions.iter().map(|partition| partition.error_code).collect())
}

fn committed(client: &mut RawClient, group: &str, topic: &str) -> Tested<i64> {
    let topic = OffsetFetchRequestTopic::default()
        .with_name(requests::topic_name(topic))
        .with_partition_indexes(vec![0]);
    let request =
        OffsetFetchRequest::default().with_group_id(group_id(group)).with_topics(Some(vec![topic]));
    Ok(client.call(5, &request)?.topics[0].partitions[0].committed_offset)
}

fn the_longest_group_id_is_a_group(broker: &Broker) -> Tested {
    let mut group = requests::unique("longest");
    group.extend(std::iter::repeat_n('x', 0x7fff - group.len()));
    let mut client = connect(broker, &group)?;
    let topic = requests::create_topic(&mut client, "longest", 1, &[])?;
    let joined = client.call(JOIN, &join_request(&group, subscription(10)))?;
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    assert_eq!(sync(&mut client, &group, &joined)?, 0);
    leave(&mut client, &group, &joined)?;
    assert_eq!(commit(&mut client, &group, &topic, &["x".repeat(4096)])?, [0]);
    assert_eq!(committed(&mut client, &group, &topic)?, 5);
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group_id(&group)]);
    assert_eq!(client.call(1, &delete)?.results[0].error_code, 0);
    assert_eq!(committed(&mut client, &group, &topic)?, -1);
    Ok(())
}

fn too_large_an_assignment(broker: &Broker) -> Tested {
    let group = requests::unique("megabyte");
    let mut client = connect(broker, &group)?;
    // The member's metadata goes into the group's record, and no batch holds it.
    let joined = client.call(JOIN, &join_request(&group, subscription(1 << 20)))?;
    assert_eq!((joined.error_code, joined.members.len()), (0, 1));
    assert_eq!(sync(&mut client, &group, &joined)?, UNKNOWN_SERVER_ERROR);
    let heartbeat = HeartbeatRequest::default()
        .with_group_id(group_id(&group))
        .with_member_id(joined.member_id.clone())
        .with_generation_id(joined.generation_id);
    assert_eq!(client.call(3, &heartbeat)?.error_code, REBALANCE_IN_PROGRESS);
    // With less to say, it gets its assignment.
    let again = join_request(&group, subscription(10)).with_member_id(joined.member_id);
    let joined = client.call(JOIN, &again)?;
    assert_eq!((joined.error_code, joined.generation_id), (0, 2));
    assert_eq!(sync(&mut client, &group, &joined)?, 0);
    leave(&mut client, &group, &joined)
}

fn too_large_a_commit(broker: &Broker) -> Tested {
    let group = requests::unique("commit");
    let mut client = connect(broker, &group)?;
    let topic = requests::create_topic(&mut client, "commit", 1, &[])?;
    let large = vec!["x".repeat(4096); 300];
    let codes = commit(&mut client, &group, &topic, &large)?;
    assert_eq!(codes, vec![UNKNOWN_SERVER_ERROR; large.len()]);
    assert_eq!(committed(&mut client, &group, &topic)?, -1);
    assert_eq!(commit(&mut client, &group, &topic, &large[..100])?, vec![0; 100]);
    assert_eq!(committed(&mut client, &group, &topic)?, 5);
    Ok(())
}

fn counts_that_lie(broker: &Broker) -> Tested {
    for count in [i32::MAX, 1 << 24, -2] {
        let mut client = RawClient::connect(broker.bootstrap())?;
        let mut body = BytesMut::new();
        // Group, timeouts, no member id, protocol type, and then so many protocols.
        body.put_slice(b"\0\x01g");
        body.put_i32(10_000);
        body.put_i32(10_000);
        body.put_slice(b"\0\0\0\x08consumer");
        body.put_i32(count);
        client.send_frame(&with_header::<JoinGroupRequest>(JOIN, 1, &body)?)?;
        client.expect_closed()?;
    }
    Ok(())
}

fn members_that_vanish(broker: &Broker) -> Tested {
    let group = requests::unique("vanish");
    let mut client = connect(broker, &group)?;
    for _ in 0..20 {
        let mut gone = connect(broker, &group)?;
        gone.send(JOIN, &join_request(&group, subscription(10)))?;
    }
    // They count as members until their time to ask for an assignment is over, and then no more.
    let first = client.call(JOIN, &join_request(&group, subscription(10)))?;
    assert_eq!(first.error_code, 0);
    assert_eq!(sync(&mut client, &group, &first)?, REBALANCE_IN_PROGRESS);
    let again = join_request(&group, subscription(10)).with_member_id(first.member_id);
    let joined = client.call(JOIN, &again)?;
    assert_eq!((joined.error_code, joined.members.len()), (0, 1));
    assert_eq!(sync(&mut client, &group, &joined)?, 0);
    leave(&mut client, &group, &joined)
}
