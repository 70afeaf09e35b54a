//! Pipelines inside a running broker, fed and read by a client.

#![allow(clippy::unwrap_used)] // the configured exception knows only `#[test]` functions

use std::collections::BTreeMap;
use std::time::Duration;

use vltava::client::http::{get, post};
use vltava::client::{Client, ClientError, ClusterTopic, EARLIEST, Outgoing};
use vltava::{Broker, Config};
use vltava_protocol::ids::{Offset, PartitionIndex};
use vltava_protocol::record::Codec;
use vltava_streams::{Pipeline, PipelineStatus, RunError, Topology, raw, utf8};

/// As in the binary: the decoders reserve what a request claims to hold.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Generous: a test fails by this, never passes by it.
const PATIENCE: Duration = Duration::from_mins(1);

fn shouting() -> Topology {
    let t = Topology::new("shouting");
    t.stream("in", (raw(), utf8()))
        .map_values(utf8(), |r, out| {
            out.text(&r.value.to_uppercase());
        })
        .to("out");
    t
}

async fn connect(broker: &Broker) -> Client {
    Client::connect(&broker.bootstrap(), PATIENCE).await.unwrap()
}

async fn send(broker: &Broker, client: &mut Client, values: &[&str], codec: Codec) {
    send_to(broker, client, PartitionIndex(0), values, codec).await;
}

async fn send_to(
    broker: &Broker,
    client: &mut Client,
    partition: PartitionIndex,
    values: &[&str],
    codec: Codec,
) {
    let topic = client.topic("in", true).await.unwrap();
    let record = |value: &&str| Outgoing {
        partition,
        key: None,
        value: Some((*value).to_owned().into()),
        headers: Vec::new(),
        // Older records would fall to retention.
        timestamp: broker.node().clock.now(),
    };
    let records: Vec<_> = values.iter().map(record).collect();
    client.produce(&topic, &records, codec, -1, 5).await.unwrap();
}

/// The topic `out`, and where it begins.
async fn find_output(
    client: &mut Client,
) -> Result<(ClusterTopic, BTreeMap<PartitionIndex, Offset>), ClientError> {
    let topic = client.topic("out", true).await?;
    let positions = client.list_offsets(&topic, &[PartitionIndex(0)], EARLIEST).await?;
    Ok((topic, positions))
}

/// The first `count` values of `out`, as they come.
async fn receive(client: &mut Client, count: usize) -> Vec<String> {
    let read = async {
        let mut values = Vec::new();
        let (topic, mut positions) = loop {
            match find_output(client).await {
                Ok(found) => break found,
                // The pipeline is creating it right now.
                Err(error) => assert!(error.is_passing(), "{error}"),
            }
        };
        while values.len() < count {
            let wait = Duration::from_millis(500);
            let consumed = client.fetch(&topic, &mut positions, wait).await.unwrap();
            let texts = consumed.records.iter().map(|r| r.value.clone().unwrap());
            values.extend(texts.map(|text| String::from_utf8(text).unwrap()));
        }
        values
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the outputs come")
}

fn run(topology: Topology, broker: &Broker) -> Result<Pipeline, RunError> {
    tokio::task::block_in_place(|| topology.run_in(broker))
}

fn end(pipeline: Pipeline) {
    tokio::task::block_in_place(|| drop(pipeline));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_send_comes_out_of_the_pipeline() {
    let broker = Broker::ephemeral().unwrap();
    let mut client = connect(&broker).await;
    send(&broker, &mut client, &["ahoj"], Codec::None).await;
    let pipeline = run(shouting(), &broker).unwrap();
    send(&broker, &mut client, &["svete", "vltavo"], Codec::Zstd).await;
    assert_eq!(receive(&mut client, 3).await, ["AHOJ", "SVETE", "VLTAVO"]);
    assert_eq!(pipeline.status().state, "running");
    // Another one of the name would commit the same positions.
    assert!(matches!(run(shouting(), &broker), Err(RunError::NotNow(_))));
    end(pipeline);
    assert!(broker.node().pipelines.all().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_goes_on_where_it_committed() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for round in 0..3 {
        let broker = Broker::start(Config::new().data_dir(dir.path())).unwrap();
        let mut client = connect(&broker).await;
        let value = format!("round {round}");
        send(&broker, &mut client, &[&value], Codec::Lz4).await;
        expected.push(value.to_uppercase());
        let pipeline = run(shouting(), &broker).unwrap();
        assert_eq!(receive(&mut client, expected.len()).await, expected);
        end(pipeline);
        let committed = client.committed("shouting", None).await.unwrap();
        let positions: Vec<_> = committed.values().map(|of| of.offset).collect();
        assert_eq!(positions, [Offset(round + 1)], "Kafka's tools see how far it is");
        tokio::task::block_in_place(|| drop(broker));
    }
}

/// Waits until the pipeline is as it should be.
async fn until(pipeline: &Pipeline, what: &str, is_so: impl Fn(&PipelineStatus) -> bool) {
    let waited = async {
        while !is_so(&pipeline.status()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waited).await;
    assert!(waited.is_ok(), "{what}: {:?}", pipeline.status());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_pipeline_follows_its_topic() {
    let broker = Broker::ephemeral().unwrap();
    let mut client = connect(&broker).await;
    send(&broker, &mut client, &["a"], Codec::None).await;
    let pipeline = run(shouting(), &broker).unwrap();
    assert_eq!(receive(&mut client, 1).await, ["A"]);

    client.create_partitions("in", 3, false).await.unwrap();
    send_to(&broker, &mut client, PartitionIndex(2), &["b"], Codec::None).await;
    assert_eq!(receive(&mut client, 2).await, ["A", "B"]);
    until(&pipeline, "a task for each partition", |status| status.tasks.len() == 3).await;

    client.delete_topics(&["in".to_owned()]).await.unwrap().remove(0).unwrap();
    send(&broker, &mut client, &["of another topic"], Codec::None).await;
    until(&pipeline, "tasks that say why they stand still", |status| {
        let stops: Vec<_> = status.tasks.iter().filter_map(|task| task.stopped.as_ref()).collect();
        stops.len() == 3 && stops.iter().all(|stop| stop.contains("topic in was deleted"))
    })
    .await;
    end(pipeline);
    // The topic of the same name that came later is read from its start.
    let pipeline = run(shouting(), &broker).unwrap();
    assert_eq!(receive(&mut client, 3).await, ["A", "B", "OF ANOTHER TOPIC"]);
    until(&pipeline, "a pipeline that runs", |status| status.state == "running").await;
    end(pipeline);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_pipeline_follows_the_topic_that_it_writes() {
    let broker = Broker::ephemeral().unwrap();
    let mut client = connect(&broker).await;
    send(&broker, &mut client, &["a"], Codec::None).await;
    let pipeline = run(shouting(), &broker).unwrap();
    assert_eq!(receive(&mut client, 1).await, ["A"]);
    until(&pipeline, "a safe position", |status| status.tasks[0].safe == 1).await;
    client.delete_topics(&["out".to_owned()]).await.unwrap().remove(0).unwrap();
    send(&broker, &mut client, &["b"], Codec::None).await;
    until(&pipeline, "a topic that is created anew", |status| status.tasks[0].safe == 2).await;
    assert_eq!(receive(&mut client, 1).await, ["B"]);
    end(pipeline);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_and_pause_pipelines() {
    let admin = ([127, 0, 0, 1], 0).into();
    let broker = Broker::start(Config::new().admin(admin)).unwrap();
    let admin = broker.admin_addr().unwrap().to_string();
    let mut client = connect(&broker).await;
    send(&broker, &mut client, &["a"], Codec::None).await;
    let pipeline = run(shouting(), &broker).unwrap();
    receive(&mut client, 1).await;

    let status = async |answer: vltava::client::http::HttpAnswer| -> PipelineStatus {
        assert_eq!(answer.status, 200);
        serde_json::from_slice(&answer.body).unwrap()
    };
    let answer = post(&admin, "/pipelines/shouting/pause", PATIENCE).await.unwrap();
    assert_eq!(status(answer).await.state, "paused");
    send(&broker, &mut client, &["b"], Codec::None).await;
    let answer = get(&admin, "/pipelines/shouting", PATIENCE).await.unwrap();
    assert_eq!(status(answer).await.tasks[0].lag, 1);
    let metrics = get(&admin, "/metrics", PATIENCE).await.unwrap();
    let metrics = String::from_utf8(metrics.body).unwrap();
    for line in [
        r#"vltava_pipeline_lag_records{pipeline="shouting"} 1"#,
        r#"vltava_pipeline_node_records_total{pipeline="shouting",node="stream-0"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let answer = post(&admin, "/pipelines/shouting/resume", PATIENCE).await.unwrap();
    assert_eq!(status(answer).await.state, "running");
    assert_eq!(receive(&mut client, 2).await, ["A", "B"]);
    let answer = get(&admin, "/pipelines/none", PATIENCE).await.unwrap();
    assert_eq!(answer.status, 404);
    end(pipeline);
}
