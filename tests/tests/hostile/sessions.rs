//! Fetch sessions (KIP-227): what an incremental response leaves out, and every wrong step.

use kafka_protocol::messages::fetch_request::ForgottenTopic;
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use vltava_tests::harness::{
    Broker, BrokerOptions, RawBatch, RawClient, Tested, batch, now_ms, requests,
};

use crate::Row;

pub(crate) const ROWS: &[Row] = &[
    ("session_is_created_and_followed", session_is_created_and_followed),
    ("wrong_epoch_is_71", wrong_epoch_is_71),
    ("unknown_session_is_70", unknown_session_is_70),
    ("closed_session_is_unknown", closed_session_is_unknown),
    ("forgotten_partition_is_left_out", forgotten_partition_is_left_out),
    ("error_is_repeated_in_the_session", error_is_repeated_in_the_session),
    ("many_sessions_are_bounded", many_sessions_are_bounded),
];

/// A request of a session: the partitions it names are added or changed.
fn step(id: i32, epoch: i32, named: Option<(&str, i64)>) -> FetchRequest {
    let (topic, offset) = named.unwrap_or(("", 0));
    let mut request = requests::fetch_request(topic, offset);
    if named.is_none() {
        request.topics.clear();
    }
    request.with_session_id(id).with_session_epoch(epoch)
}

fn call(client: &mut RawClient, request: &FetchRequest) -> Tested<FetchResponse> {
    client.call(requests::FETCH_VERSION, request)
}

/// A topic of one partition with one batch of two records, and a session on it.
fn session(broker: &Broker, prefix: &str) -> Tested<(RawClient, String, i32)> {
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, prefix, 1, &[])?;
    requests::produce(&mut client, &topic, RawBatch::of(2, now_ms()).encode())?;
    let response = call(&mut client, &step(0, 0, Some((&topic, 0))))?;
    assert_eq!(response.error_code, 0);
    assert!(response.session_id > 0, "a session was refused");
    assert_eq!(response.responses[0].partitions.len(), 1, "the first response is a full one");
    Ok((client, topic, response.session_id))
}

fn session_is_created_and_followed(broker: &Broker) -> Tested {
    let (mut client, topic, id) = session(broker, "session")?;
    // The partition is known to the session; its new offset is a change.
    let response = call(&mut client, &step(id, 1, Some((&topic, 2))))?;
    assert_eq!((response.error_code, response.session_id), (0, id));
    assert!(response.responses.is_empty(), "nothing new, nothing said");
    let response = call(&mut client, &step(id, 2, None))?;
    assert!(response.responses.is_empty());

    requests::produce(&mut client, &topic, RawBatch::of(2, now_ms()).encode())?;
    let response = call(&mut client, &step(id, 3, None))?;
    let partition = &response.responses[0].partitions[0];
    assert_eq!((partition.error_code, partition.high_watermark), (0, 4));
    let batches = batch::split(&partition.records.clone().ok_or("no records")?)?;
    assert_eq!(batches[0].base_offset, 2);
    Ok(())
}

fn wrong_epoch_is_71(broker: &Broker) -> Tested {
    let (mut client, _, id) = session(broker, "wrong-epoch")?;
    for epoch in [2, 7, i32::MAX] {
        let response = call(&mut client, &step(id, epoch, None))?;
        assert_eq!(response.error_code, 71, "epoch {epoch}");
        assert!(response.responses.is_empty());
    }
    // The session itself is untouched.
    assert_eq!(call(&mut client, &step(id, 1, None))?.error_code, 0);
    assert_eq!(call(&mut client, &step(id, 1, None))?.error_code, 71, "an epoch is used once");
    Ok(())
}

fn unknown_session_is_70(broker: &Broker) -> Tested {
    let mut client = RawClient::connect(broker.bootstrap())?;
    for (id, epoch) in [(i32::MAX - 1, 1), (-5, 1), (0, 7)] {
        let response = call(&mut client, &step(id, epoch, None))?;
        assert!(
            [70, 71, -1].contains(&response.error_code),
            "{id} {epoch}: {}",
            response.error_code
        );
        assert!(response.responses.is_empty());
    }
    let response = call(&mut client, &step(123_456_789, 1, None))?;
    assert_eq!(response.error_code, 70);
    Ok(())
}

fn closed_session_is_unknown(broker: &Broker) -> Tested {
    let (mut client, topic, id) = session(broker, "closed")?;
    let response = call(&mut client, &step(id, -1, Some((&topic, 0))))?;
    assert_eq!((response.error_code, response.session_id), (0, 0));
    assert_eq!(response.responses[0].partitions.len(), 1, "a closing request is a full one");
    assert_eq!(call(&mut client, &step(id, 1, None))?.error_code, 70);
    Ok(())
}

fn forgotten_partition_is_left_out(broker: &Broker) -> Tested {
    let (mut client, topic, id) = session(broker, "forgotten")?;
    let forgotten =
        ForgottenTopic::default().with_topic(requests::topic_name(&topic)).with_partitions(vec![0]);
    let request = step(id, 1, None).with_forgotten_topics_data(vec![forgotten]);
    assert!(call(&mut client, &request)?.responses.is_empty());
    requests::produce(&mut client, &topic, RawBatch::of(2, now_ms()).encode())?;
    let response = call(&mut client, &step(id, 2, None))?;
    // A session that lost its last partition may be gone altogether.
    assert!([0, 70].contains(&response.error_code), "{}", response.error_code);
    assert!(response.responses.is_empty());
    Ok(())
}

/// An error is news until it is gone: a client that missed it is told again.
fn error_is_repeated_in_the_session(broker: &Broker) -> Tested {
    let (mut client, topic, id) = session(broker, "error")?;
    for (epoch, named) in [(1, Some((topic.as_str(), 99))), (2, None), (3, None)] {
        let response = call(&mut client, &step(id, epoch, named))?;
        assert_eq!(response.responses[0].partitions[0].error_code, 1, "epoch {epoch}");
    }
    Ok(())
}

/// More sessions than a broker keeps: it refuses (id 0) or evicts, and still answers. A broker of
/// its own, for the rows beside this one need sessions too.
fn many_sessions_are_bounded(_: &Broker) -> Tested {
    let broker = Broker::start(BrokerOptions::new(env!("CARGO_BIN_EXE_vltava-under-test")))?;
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "sessions", 1, &[])?;
    let mut refused = 0;
    for _ in 0..1_500 {
        let response = call(&mut client, &step(0, 0, Some((&topic, 0))))?;
        assert_eq!(response.error_code, 0);
        assert_eq!(response.responses.len(), 1);
        refused += u32::from(response.session_id == 0);
    }
    assert!(refused > 0, "1,500 sessions of one client and none was refused");
    Ok(())
}
