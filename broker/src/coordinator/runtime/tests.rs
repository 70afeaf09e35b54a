//! Shards on the partitions of a whole node, over restarts.

use std::collections::BTreeMap;
use std::path::Path;

use vltava_protocol::ids::NodeId;

use super::*;
use crate::config::BrokerConfig;
use crate::config::broker::Flags;
use crate::config::settings::Settings;
use crate::controller::decide::{NewTopic, TopicRef};
use crate::coordinator::shard::toy::{Ask, Toy};
use crate::coordinator::snapshot::SNAPSHOT_RECORDS;
use crate::node::{Node, RunningNode};

const TOPIC: &str = "__toys";

#[test]
fn keys_lie_where_kafka_looks_for_them() {
    for (key, partitions, expected) in [
        ("", 50, Some(0)),
        ("a", 50, Some(97 % 50)),
        ("my-group", 50, Some(12)),
        // The hash is i32::MIN.
        ("polygenelubricants", 50, Some(0)),
        ("a", 0, None),
    ] {
        let expected = expected.map(PartitionIndex);
        assert_eq!(partition_for(key, partitions), expected, "{key} of {partitions}");
    }
}

struct Toys {
    running: RunningNode,
    runtime: Arc<Runtime<Toy>>,
}

impl Toys {
    async fn start(dir: &Path) -> Self {
        let flags = Flags {
            node_id: NodeId(1),
            data_dir: dir.to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            advertise: None,
            admin: None,
        };
        let config = BrokerConfig::new(flags, Settings::default()).unwrap();
        let running = Node::start(config).await.unwrap();
        let node = running.node();
        let clock = SteadyClock::new(&node.clock);
        let partitions = node.partitions.clone();
        let toy = |_| Toy::default();
        let runtime = Arc::new(Runtime::new(TOPIC, partitions, clock, Figures::default(), toy));
        let following = Arc::downgrade(&runtime);
        node.controller.observe(move |_, image| {
            if let Some(runtime) = following.upgrade() {
                runtime.follow(image);
            }
        });
        Self { running, runtime }
    }

    async fn create(&self) {
        let topic = NewTopic {
            name: TOPIC.into(),
            partitions: 2,
            replication_factor: 1,
            configs: vec![("cleanup.policy".into(), Some("compact".into()))],
            ..NewTopic::default()
        };
        let created = self.running.node().controller.create_topics(vec![topic], false).await;
        assert!(created.iter().all(Result::is_ok), "{created:?}");
    }

    /// Waits until the post leads, as a client does that is told that it loads.
    async fn post(&self, key: &str) -> Arc<Post<Toy>> {
        let post = self.runtime.post_of(key).unwrap();
        while !post.is_leading() {
            tokio::task::yield_now().await;
        }
        post
    }

    async fn ask(&self, key: &'static str, ask: Ask) -> Result<Option<String>, ErrorCode> {
        match self.post(key).await.ask(ask)? {
            Asked::Answered(answer) => answer,
            Asked::Parked(parked) => parked.await?,
        }
    }

    async fn stop(self) {
        self.runtime.shutdown().await;
        self.running.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_there_after_a_restart_and_gone_with_its_topic() {
    let dir = tempfile::tempdir().unwrap();
    let toys = Toys::start(dir.path()).await;
    assert_eq!(toys.runtime.post_of("a").unwrap_err(), ErrorCode::NotCoordinator);
    toys.create().await;
    let mut puts = Vec::new();
    for n in 0..50 {
        // Decided in order, before any of them is committed.
        let key = if n % 2 == 0 { "a" } else { "b" };
        puts.push(toys.post(key).await.ask(Ask::Put(key, n.to_string())).unwrap());
    }
    for (n, put) in puts.into_iter().enumerate() {
        let Asked::Parked(parked) = put else { panic!("{n} was not committed yet") };
        assert_eq!(parked.await.unwrap(), Ok(Some(n.to_string())));
    }
    toys.stop().await;

    let toys = Toys::start(dir.path()).await;
    assert_eq!(toys.ask("a", Ask::Get("a")).await, Ok(Some("48".into())));
    assert_eq!(toys.ask("b", Ask::Get("b")).await, Ok(Some("49".into())));

    let Ok(Asked::Parked(parked)) = toys.post("a").await.ask(Ask::Wait(None)) else { panic!() };
    let name = vec![TopicRef::Name(TOPIC.into())];
    let deleted = toys.running.node().controller.delete_topics(name).await;
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    let (Err(code) | Ok(Err(code))) = parked.await else { panic!("its topic is gone") };
    assert_eq!(code, ErrorCode::NotCoordinator);
    assert_eq!(toys.runtime.post_of("a").unwrap_err(), ErrorCode::NotCoordinator);
    toys.create().await;
    assert_eq!(toys.ask("a", Ask::Get("a")).await, Ok(None));
    toys.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_end_on_time_or_are_forgotten_with_who_waited() {
    let dir = tempfile::tempdir().unwrap();
    let toys = Toys::start(dir.path()).await;
    toys.create().await;
    let post = toys.post("a").await;
    let later = Timestamp(SteadyClock::new(&toys.running.node().clock).now().0 + 3_600_000);
    let long = post.ask(Ask::Wait(Some(later))).ok();
    // An earlier deadline than the one the keeper sleeps to.
    let soon = Timestamp(later.0 - 3_600_000 + 20);
    let Ok(Asked::Parked(short)) = post.ask(Ask::Wait(Some(soon))) else { panic!() };
    assert_eq!(short.await.unwrap(), Ok(None));
    assert_eq!(post.look(|toy| toy.waiting.len()).unwrap(), 1);
    drop(long);
    assert_eq!(post.look(|toy| (toy.waiting.len(), toy.cancelled.len())).unwrap(), (0, 1));
    toys.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loading_begins_with_the_snapshot() {
    const KEYS: [&str; 3] = ["a", "c", "e"];
    let dir = tempfile::tempdir().unwrap();
    let toys = Toys::start(dir.path()).await;
    toys.create().await;
    let post = toys.post("a").await;
    let mut last = None;
    for n in 0..SNAPSHOT_RECORDS + 5 {
        let key = KEYS[usize::try_from(n).unwrap() % KEYS.len()];
        last = Some(post.ask(Ask::Put(key, n.to_string())).unwrap());
        if n + 1 == SNAPSHOT_RECORDS || n % 1000 == 0 {
            let Some(Asked::Parked(parked)) = last.take() else { panic!() };
            parked.await.unwrap().unwrap();
        }
        if n + 1 == SNAPSHOT_RECORDS {
            let housekeeping = post.clone();
            tokio::task::spawn_blocking(move || housekeeping.housekeep()).await.unwrap();
        }
    }
    let Some(Asked::Parked(parked)) = last else { panic!() };
    parked.await.unwrap().unwrap();
    let expected: BTreeMap<_, _> = post.look(|toy| toy.committed.clone()).unwrap();
    let view = post.partition().view();
    let snapshots = post.snapshots().newest(view.high_watermark).unwrap();
    assert_eq!((snapshots.offset.0, snapshots.entries.len()), (SNAPSHOT_RECORDS, KEYS.len()));
    drop(post);
    toys.stop().await;

    let toys = Toys::start(dir.path()).await;
    let post = toys.post("a").await;
    assert_eq!(post.look(|toy| toy.committed.clone()).unwrap(), expected);
    drop(post);
    toys.stop().await;
}
