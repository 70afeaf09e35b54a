//! Groups and topics of hostile sizes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, OffsetCommitRequest,
};
use kafka_protocol::protocol::StrBytes;
use vltava_tests::harness::{Broker, RawClient, Tested, requests};

use crate::Row;

pub(crate) const ROWS: &[Row] = &[
    ("group_id_of_30_kb", group_id_of_30_kb),
    ("member_metadata_of_1_mb", member_metadata_of_1_mb),
    ("joins_that_nobody_waits_for", joins_that_nobody_waits_for),
    ("a_hundred_thousand_partitions_in_one_topic", a_hundred_thousand_partitions_in_one_topic),
    ("twenty_thousand_topics_in_one_request", twenty_thousand_topics_in_one_request),
];

const JOIN_VERSION: i16 = 5;
/// What a broker answers while its coordinator is on the way.
const NOT_YET: [i16; 3] = [14, 15, 16];
const PATIENCE: Duration = Duration::from_mins(1);

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Repeats a request until its group's coordinator is there.
fn coordinated<T>(mut ask: impl FnMut() -> Tested<T>, code: impl Fn(&T) -> i16) -> Tested<T> {
    let began = Instant::now();
    loop {
        let answer = ask()?;
        if !NOT_YET.contains(&code(&answer)) {
            return Ok(answer);
        }
        assert!(began.elapsed() < PATIENCE, "no coordinator");
        std::thread::yield_now();
    }
}

fn find_coordinator(client: &mut RawClient, group: &str) -> Tested {
    let request = FindCoordinatorRequest::default().with_key(text(group));
    let found = coordinated(|| client.call(3, &request), |answer| answer.error_code)?;
    assert_eq!(found.error_code, 0);
    Ok(())
}

fn join_request(group: &str, member: &StrBytes, metadata: Bytes) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(StrBytes::from_static_str("range"))
        .with_metadata(metadata);
    JoinGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_member_id(member.clone())
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol])
}

/// Joins as a new member does: once for an id, once with it.
fn join(client: &mut RawClient, group: &str, metadata: &Bytes) -> Tested<JoinGroupResponse> {
    find_coordinator(client, group)?;
    let first = join_request(group, &StrBytes::default(), metadata.clone());
    let answer = coordinated(|| client.call(JOIN_VERSION, &first), |answer| answer.error_code)?;
    assert_eq!(answer.error_code, 79, "a member id is required");
    client.call(JOIN_VERSION, &join_request(group, &answer.member_id, metadata.clone()))
}

fn leave(client: &mut RawClient, group: &str, member: &StrBytes) -> Tested {
    let member = MemberIdentity::default().with_member_id(member.clone());
    let request =
        LeaveGroupRequest::default().with_group_id(GroupId(text(group))).with_members(vec![member]);
    assert_eq!(client.call(3, &request)?.error_code, 0);
    Ok(())
}

/// A group id may be as long as a string of the protocol, here less than that.
fn group_id_of_30_kb(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let group = requests::unique(&"g".repeat(30_000));
    let joined = join(&mut client, &group, &Bytes::from_static(b"m"))?;
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    let heartbeat = HeartbeatRequest::default()
        .with_group_id(GroupId(text(&group)))
        .with_generation_id(1)
        .with_member_id(joined.member_id.clone());
    let beat = client.call(3, &heartbeat)?.error_code;
    assert!([0, 27].contains(&beat), "{beat}");
    leave(&mut client, &group, &joined.member_id)?;
    // And offsets of a group without members.
    let topic = requests::create_topic(&mut client, "long-group", 1, &[])?;
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(7);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(requests::topic_name(&topic))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(&group)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    let committed = client.call(7, &request)?;
    assert_eq!(committed.topics[0].partitions[0].error_code, 0);
    Ok(())
}

/// Many members, each with a subscription of 1 MB: answered, and their memory is theirs as long as
/// they are.
fn member_metadata_of_1_mb(broker: &Broker) -> Tested {
    let metadata = Bytes::from(vec![7; 1_000_000]);
    let group = requests::unique("large-members");
    let bootstrap = broker.bootstrap();
    let member = || -> Tested<(RawClient, JoinGroupResponse)> {
        let mut client = RawClient::connect(bootstrap)?;
        let joined = join(&mut client, &group, &metadata)?;
        Ok((client, joined))
    };
    let members = std::thread::scope(|scope| {
        let joining: Vec<_> = (0..10).map(|_| scope.spawn(member)).collect();
        let joined = joining.into_iter().map(|member| member.join().map_err(|_| "it panicked")?);
        joined.collect::<Tested<Vec<_>>>()
    })?;
    for (mut client, joined) in members {
        // In one generation or, where the machine was slow, in one after another.
        assert!([0, 27].contains(&joined.error_code), "{}", joined.error_code);
        leave(&mut client, &group, &joined.member_id)?;
    }
    if let Some(resident) = broker.resident_bytes()? {
        assert!(resident <= crate::RESIDENT_BYTES_MAX, "members cost {resident} bytes");
    }
    Ok(())
}

/// Members that join and vanish before they are answered.
fn joins_that_nobody_waits_for(broker: &Broker) -> Tested {
    let group = requests::unique("vanishing");
    for _ in 0..200 {
        let mut client = RawClient::connect(broker.bootstrap())?;
        client.send(JOIN_VERSION, &join_request(&group, &StrBytes::default(), Bytes::new()))?;
        let id = StrBytes::from_static_str("nobody");
        client.send(JOIN_VERSION, &join_request(&group, &id, Bytes::from(vec![1; 10_000])))?;
    }
    // The group is as good as new for one who stays.
    let mut client = RawClient::connect(broker.bootstrap())?;
    let joined = join(&mut client, &group, &Bytes::from_static(b"m"))?;
    assert_eq!(joined.error_code, 0);
    leave(&mut client, &group, &joined.member_id)
}

/// More than a controller decides on at once (`ReplicationControlManager`).
fn a_hundred_thousand_partitions_in_one_topic(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let name = requests::unique("hundred-thousand");
    let request = requests::create_topic_request(&name, 100_000, &[]);
    let response = client.call(5, &request)?;
    assert_eq!(response.topics[0].error_code, 44, "a policy violation");
    Ok(())
}

fn twenty_thousand_topics_in_one_request(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let name = requests::unique("many");
    let mut request = requests::create_topic_request(&name, 1, &[]);
    let one = request.topics[0].clone();
    request.topics.extend(
        (1..20_000).map(|at| one.clone().with_name(requests::topic_name(&format!("{name}-{at}")))),
    );
    let response = client.call(5, &request)?;
    assert_eq!(response.topics.len(), 20_000);
    assert!(response.topics.iter().all(|topic| topic.error_code == 44));
    Ok(())
}
