use std::time::Instant;

use super::*;
use crate::client::{Client, Outgoing};
use crate::controller::decide::NewTopic;
use vltava_protocol::ids::{Offset, PartitionIndex, Timestamp};
use vltava_protocol::record::Codec;

/// Longer than anything here takes on a machine at work.
const LIMIT: Duration = Duration::from_mins(1);

/// Sends one record to a topic that is created on the way; its offset.
async fn send(broker: &Broker, topic: &str) -> Option<Offset> {
    let mut client = Client::connect(&broker.bootstrap(), LIMIT).await.unwrap();
    let topic = client.topic(topic, true).await.unwrap();
    let record = Outgoing {
        partition: PartitionIndex(0),
        key: None,
        value: Some("x".into()),
        headers: Vec::new(),
        timestamp: Timestamp(7),
    };
    client.produce(&topic, &[record], Codec::None, -1, 1).await.unwrap()[0].base_offset
}

/// The port refuses and the directory is gone.
fn assert_gone(addr: SocketAddr, data_dir: &Path) {
    assert!(std::net::TcpStream::connect(addr).is_err(), "{addr} still listens");
    assert!(!data_dir.parent().unwrap().exists(), "{} is left", data_dir.display());
}

/// The names of this process's threads, as the kernel shortens them.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).collect()
}

#[test]
fn outside_a_runtime() {
    let broker = Broker::ephemeral().unwrap();
    let (addr, data_dir) = (broker.kafka_addr(), broker.data_dir().to_owned());
    assert!(data_dir.is_dir());
    let created = broker.runtime().block_on(async {
        let topic = NewTopic { name: "t".into(), partitions: 3, ..NewTopic::default() };
        let topic = NewTopic { replication_factor: 1, ..topic };
        broker.node().controller.create_topics(vec![topic], false).await.remove(0).is_ok()
    });
    assert!(created);
    assert!(broker.node().partitions.get("t", PartitionIndex(2)).is_some());
    drop(broker);
    assert_gone(addr, &data_dir);
}

#[tokio::test]
async fn inside_a_runtime_of_one_thread() {
    let broker = Broker::start_async(Config::new()).await.unwrap();
    assert_eq!(send(&broker, "t").await, Some(Offset(0)));
    let other = Broker::ephemeral().unwrap();
    assert_eq!(send(&other, "t").await, Some(Offset(0)), "each has topics of its own");
    assert_eq!(send(&broker, "t").await, Some(Offset(1)));
    let (addr, data_dir) = (broker.kafka_addr(), broker.data_dir().to_owned());
    drop(broker);
    assert_gone(addr, &data_dir);
    assert_eq!(send(&other, "t").await, Some(Offset(1)), "one goes, the other stays");
    let (addr, data_dir) = (other.kafka_addr(), other.data_dir().to_owned());
    other.shutdown();
    assert_gone(addr, &data_dir);
}

#[test]
fn on_panic() {
    let panicked = std::thread::spawn(|| {
        let broker = Broker::ephemeral().unwrap();
        std::panic::panic_any((broker.kafka_addr(), broker.data_dir().to_owned()));
    });
    let payload = panicked.join().unwrap_err();
    let (addr, data_dir) = payload.downcast_ref::<(SocketAddr, PathBuf)>().unwrap();
    assert_gone(*addr, data_dir);
}

#[tokio::test]
async fn a_client_that_waits_does_not_hold_it_up() {
    let broker = Broker::ephemeral().unwrap();
    send(&broker, "t").await;
    let bootstrap = broker.bootstrap();
    let mut client = Client::connect(&bootstrap, LIMIT).await.unwrap();
    let topic = client.topic("t", false).await.unwrap();
    let mut positions = [(PartitionIndex(0), Offset(1))].into();
    let waiting = tokio::spawn(async move { client.fetch(&topic, &mut positions, LIMIT).await });
    tokio::task::yield_now().await;
    let began = Instant::now();
    drop(broker);
    assert!(began.elapsed() < LIMIT / 2, "the fetch would have waited longer");
    // Answered with nothing, or cut off, or never connected to the leader: but at its end.
    drop(waiting.await.unwrap());
}

#[tokio::test]
async fn a_directory_of_the_callers_stays_and_is_read_again() {
    let scratch = tempfile::tempdir().unwrap();
    let config = Config::new().data_dir(scratch.path().join("d")).set("num.partitions", "2");
    for offset in 0..2 {
        let broker = Broker::start_async(config.clone()).await.unwrap();
        assert_eq!(send(&broker, "t").await, Some(Offset(offset)));
        assert!(broker.node().partitions.get("t", PartitionIndex(1)).is_some());
        assert_eq!(broker.node().config.num_partitions, 2);
        let error = Broker::start_async(config.clone()).await.unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
        broker.shutdown();
    }
}

#[test]
fn what_cannot_start_says_why() {
    let check = |config: Config, expected: &str| {
        let error = Broker::start(config).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} lacks {expected}");
    };
    check(Config::new().set("num.partition", "1"), "num.partition");
    check(Config::new().set("num.partitions", "none"), "num.partitions");
    check(Config::new().set("group.min.session.timeout.ms", "2000000"), "session.timeout");
    check(Config::new().listen("0.0.0.0:0".parse().unwrap()), "--advertise");
    let broker = Broker::start(Config::new().admin("127.0.0.1:0".parse().unwrap())).unwrap();
    assert_ne!(broker.admin_addr().unwrap().port(), 0);
    check(Config::new().listen(broker.kafka_addr()), "cannot listen");
}

#[test]
fn a_start_that_is_given_up_ends_by_itself() {
    let scratch = tempfile::tempdir().unwrap();
    let config = Config::new().data_dir(scratch.path());
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let starting = Broker::start_async(config.clone());
        tokio::select! {
            biased;
            _ = starting => panic!("a broker is not there at once"),
            () = tokio::task::yield_now() => {}
        }
    });
    // Its lock is free again once it has ended; until then the directory is in use.
    let began = Instant::now();
    while let Err(error) = Broker::start(config.clone()) {
        assert!(matches!(error, BrokerError::Start(StartError::Lock(_))), "{error}");
        assert!(began.elapsed() < LIMIT, "the abandoned broker never ends");
    }
}

#[test]
fn its_threads_are_joined() {
    // Other tests run brokers too, so the count alone says nothing: this one is the only one with
    // that many workers.
    const WORKERS: usize = 50;
    let workers = || threads().iter().filter(|name| name.starts_with("vltava-worker")).count();
    let broker = Broker::start(Config::new().workers(WORKERS)).unwrap();
    assert!(workers() >= WORKERS);
    drop(broker);
    assert!(workers() < WORKERS);
}
