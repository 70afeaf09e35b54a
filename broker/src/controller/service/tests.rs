//! The walk over group 0's log, and the controller of a whole node over restarts.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use vltava_protocol::ids::NodeId;

use super::*;
use crate::config::broker::Flags;
use crate::config::settings::Settings;
use crate::node::{Node, RunningNode};

/// Batches as a leader writes them, one behind the other.
fn log(records: &[MetadataRecord]) -> Bytes {
    let mut bytes = BytesMut::new();
    for (offset, record) in (0..).zip(records) {
        let mut batch = batch_of(record, Timestamp(7)).batch.to_vec();
        batch[..8].copy_from_slice(&i64::to_be_bytes(offset));
        bytes.extend_from_slice(&batch);
    }
    bytes.freeze()
}

#[test]
fn records_travel_through_batches_and_repeated_ones_are_passed_over() {
    let bytes = log(&[
        MetadataRecord::Cluster { id: "c".into() },
        MetadataRecord::ProducerIds { next: 1000 },
    ]);
    let mut image = MetadataImage::default();
    apply_batches(&mut image, &bytes).unwrap();
    assert_eq!((image.applied, image.next_producer_id), (Offset(2), 1000));
    let same = image.clone();
    apply_batches(&mut image, &bytes).unwrap();
    assert_eq!(image, same);
}

#[test]
fn a_log_that_cannot_be_followed_is_named_with_its_offset() {
    let twice = log(&[
        MetadataRecord::ProducerIds { next: 1000 },
        MetadataRecord::ProducerIds { next: 1000 },
    ]);
    let error = apply_batches(&mut MetadataImage::default(), &twice).unwrap_err();
    assert!(error.to_string().contains("at offset 1: producer ids"), "{error}");
    let torn = twice.slice(..twice.len() - 1);
    let error = apply_batches(&mut MetadataImage::default(), &torn).unwrap_err();
    assert!(error.to_string().contains("after offset 1"), "{error}");
}

#[test]
fn random_ids_can_stand_on_a_command_line() {
    for _ in 0..1000 {
        assert!(!random_id().to_string().starts_with('-'));
    }
}

async fn start(dir: &std::path::Path) -> (RunningNode, Arc<Controller>) {
    let flags = Flags {
        node_id: NodeId(1),
        data_dir: dir.to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        advertise: Some(("broker.example".into(), 9092)),
        admin: None,
    };
    let config = BrokerConfig::new(flags, Settings::default()).unwrap();
    let running = Node::start(config).await.unwrap();
    let controller = running.node().controller.clone();
    (running, controller)
}

fn topic(name: &str, partitions: i32) -> NewTopic {
    NewTopic { name: name.into(), partitions, replication_factor: 1, ..NewTopic::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (running, controller) = start(dir.path()).await;
    let created = controller.create_topics(vec![topic("a", 3), topic("b", 1)], false).await;
    assert!(created.iter().all(Result::is_ok), "{created:?}");
    assert_eq!(running.node().partitions.all().len(), 4 + 1, "group 0 is one too");
    let deleted = controller.delete_topics(vec![TopicRef::Name("b".into())]).await;
    assert!(deleted[0].is_ok());
    assert_eq!(controller.allocate_producer_ids().await, Ok(0..1000));
    let before = controller.image();
    running.shutdown().await;

    let (running, controller) = start(dir.path()).await;
    assert_eq!(controller.image(), before, "a node that has not moved adds nothing");
    assert!(running.node().partitions.get("a", vltava_protocol::ids::PartitionIndex(2)).is_some());
    assert_eq!(controller.allocate_producer_ids().await, Ok(1000..2000));
    let again = controller.create_topics(vec![topic("a", 1)], false).await;
    assert_eq!(again, [Err(ControlError::Exists("a".into()))]);
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_create_one_topic_one_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let (running, controller) = start(dir.path()).await;
    let mut creations = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let controller = controller.clone();
        creations.spawn(async move { controller.create_topics(vec![topic("a", 1)], false).await });
    }
    let results: Vec<_> = creations.join_all().await.into_iter().flatten().collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let automatic = controller.auto_create(&["a".to_owned(), "c".to_owned()]).await;
    assert_eq!(automatic, [Ok(()), Ok(())]);
    let checked = controller.create_topics(vec![topic("d", 1)], true).await;
    assert!(checked[0].is_ok());
    assert_eq!(controller.image().topic_count(), 2, "checking creates nothing");
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_leaves_nothing_half_done() {
    let dir = tempfile::tempdir().unwrap();
    let (running, controller) = start(dir.path()).await;
    for round in 0..50 {
        // Polled so many times and then dropped: at every await of the way, and between them.
        let topics = vec![topic(&format!("t{round}"), 1)];
        let mut creation = Box::pin(controller.create_topics(topics, false));
        for _ in 0..=round % 7 {
            if poll_once(&mut creation).await {
                break;
            }
        }
    }
    let last = controller.create_topics(vec![topic("last", 1)], false).await;
    assert!(last[0].is_ok(), "{last:?}");
    let image = controller.image();
    let view = controller.group_zero().view();
    assert_eq!(image.applied, view.log_end_offset, "everything appended is applied");
    for topic in image.topics() {
        let index = vltava_protocol::ids::PartitionIndex(0);
        assert!(running.node().partitions.get(&topic.name, index).is_some(), "{}", topic.name);
    }
    running.shutdown().await;
}

/// Polls once and lets others run; true if it is done.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> bool {
    let done = std::future::poll_fn(|cx| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_ready())
    })
    .await;
    tokio::task::yield_now().await;
    done
}
