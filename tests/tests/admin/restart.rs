//! What was decided survives the broker: a clean stop and a crash.

use vltava_tests::harness::{Broker, RawBatch, RawClient, Tested, now_ms, requests};

use crate::Row;
use crate::ask::{self, BROKER, GROUP, TOPIC, create_partitions, grow};

pub(crate) const ROWS: &[Row] = &[
    ("a_stop_loses_nothing", |broker| survives(broker, false)),
    ("a_crash_loses_nothing", |broker| survives(broker, true)),
];

fn survives(shared: &Broker, crash: bool) -> Tested {
    if shared.is_external() {
        return Ok(()); // Not ours to stop.
    }
    let mut broker = Broker::start(crate::options().stable_port()?)?;
    let mut client = RawClient::connect(broker.bootstrap())?;
    let topic = requests::create_topic(&mut client, "survives", 1, &[("retention.ms", "-1")])?;
    for _ in 0..3 {
        requests::produce(&mut client, &topic, RawBatch::of(5, now_ms()).encode())?;
    }
    let response = client.call(3, &create_partitions(vec![grow(&topic, 4, None)]))?;
    assert_eq!(response.results[0].error_code, 0);
    ask::set(&mut client, TOPIC, &topic, "max.message.bytes", "10000")?;
    ask::set(&mut client, BROKER, "", "log.segment.bytes", "3000000")?;
    ask::set(&mut client, BROKER, "1", "producer.id.expiration.ms", "70000000")?;
    ask::set(&mut client, GROUP, "g", "consumer.session.timeout.ms", "50000")?;
    let deletion = delete_to(&topic, 7);
    assert_eq!(client.call(2, &deletion)?.topics[0].partitions[0].low_watermark, 7);

    if crash {
        broker.kill9()?;
    } else {
        assert!(broker.terminate()?.success());
    }
    broker.restart()?;
    let mut client = RawClient::connect(broker.bootstrap())?;
    requests::await_leaders(&mut client, &topic, 4)?;
    let metadata = client.call(9, &requests::metadata_request(&[&topic]))?;
    assert_eq!(metadata.topics[0].partitions.len(), 4);
    assert_eq!(requests::list_offsets(&mut client, 7, &topic, -2)?.offset, 7);
    assert_eq!(requests::list_offsets(&mut client, 7, &topic, -1)?.offset, 15);
    for (kind, name, key, value) in [
        (TOPIC, &*topic, "max.message.bytes", "10000"),
        (TOPIC, &*topic, "retention.ms", "-1"),
        (TOPIC, &*topic, "segment.bytes", "3000000"),
        (BROKER, "1", "producer.id.expiration.ms", "70000000"),
        (GROUP, "g", "consumer.session.timeout.ms", "50000"),
    ] {
        assert_eq!(ask::value(&mut client, kind, name, key)?.as_deref(), Some(value), "{key}");
    }
    let large = RawBatch::of_size(20_000, now_ms()).encode();
    assert_eq!(requests::produce(&mut client, &topic, large)?.error_code, 10);
    let small = RawBatch::of(1, now_ms()).encode();
    let request = requests::produce_request(&topic, 3, -1, small);
    let produced = client.call(requests::PRODUCE_VERSION, &request)?;
    assert_eq!(produced.responses[0].partition_responses[0].error_code, 0);
    Ok(())
}

fn delete_to(topic: &str, offset: i64) -> kafka_protocol::messages::DeleteRecordsRequest {
    use kafka_protocol::messages::delete_records_request::{
        DeleteRecordsPartition, DeleteRecordsTopic,
    };
    let partition = DeleteRecordsPartition::default().with_offset(offset);
    let topic = DeleteRecordsTopic::default()
        .with_name(requests::topic_name(topic))
        .with_partitions(vec![partition]);
    kafka_protocol::messages::DeleteRecordsRequest::default()
        .with_timeout_ms(requests::TIMEOUT_MS)
        .with_topics(vec![topic])
}
