//! The broker behind the stream runtime's port: pipelines read the local replicas and append to the
//! local leaders without a socket, through the same door as a client's batches.
//!
//! Nothing here waits on a stream thread but a cold read. What takes time runs on the node's own
//! runtime and tells the task's waker.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use vltava_protocol::ErrorCode;
use vltava_protocol::ids::{LeaderEpoch, Offset, Timestamp, TopicId, TopicName, TopicPartition};
use vltava_protocol::record::batch::BatchHeader;
use vltava_protocol::record::validate::{Scratch, validate};
use vltava_storage::log::ReadError;
use vltava_streams::log_access::{
    AppendError, LogAccess, PartitionAccess, Role, Ticket, View, Watch,
};

use crate::clock::Clock;
use crate::controller::state::{OFFSETS_TOPIC, is_internal_topic};
use crate::coordinator::group::ids::Text;
use crate::coordinator::group::request::{
    ByTopic, OffsetCommitRequest, OffsetFetchRequest, OffsetToCommit,
};
use crate::coordinator::group::{GroupRequest, GroupResponse};
use crate::node::Node;
use crate::partition::{AckFuture, Acks, Partition, Waiter};

/// The newest Produce version: a task's batches are held to what newest clients are.
const PRODUCE_VERSION: i16 = 13;

/// The logs of a node, for the stream runtime. It does not keep the node: whoever outlives it gets
/// errors.
#[derive(Clone, Debug)]
pub struct NodeLogs {
    node: Weak<Node>,
    clock: Arc<Clock>,
    tasks: Handle,
}

impl NodeLogs {
    /// The logs of `node`, whose own work runs on `tasks`.
    pub fn new(node: &Arc<Node>, tasks: Handle) -> Self {
        Self { node: Arc::downgrade(node), clock: node.clock.clone(), tasks }
    }

    /// Runs `work` on the node's runtime.
    fn spawn<T, F>(&self, work: impl FnOnce(Arc<Node>) -> F) -> Box<dyn Ticket<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ErrorCode>> + Send + 'static,
    {
        match self.node.upgrade() {
            Some(node) => Box::new(Task(self.tasks.spawn(work(node)))),
            None => Box::new(Known(Some(Err(ErrorCode::BrokerNotAvailable)))),
        }
    }
}

/// What a task of the node's runtime will have found.
struct Task<T>(JoinHandle<Result<T, ErrorCode>>);

impl<T: Send> Ticket<T> for Task<T> {
    fn poll(&mut self, waker: &Waker) -> Poll<Result<T, ErrorCode>> {
        let polled = Pin::new(&mut self.0).poll(&mut Context::from_waker(waker));
        polled.map(|ended| ended.unwrap_or(Err(ErrorCode::BrokerNotAvailable)))
    }
}

/// What is known already.
struct Known<T>(Option<Result<T, ErrorCode>>);

impl<T: Send> Ticket<T> for Known<T> {
    fn poll(&mut self, _: &Waker) -> Poll<Result<T, ErrorCode>> {
        Poll::Ready(self.0.take().unwrap_or(Err(ErrorCode::BrokerNotAvailable)))
    }
}

/// A batch's commit.
struct Commit(AckFuture);

impl Ticket for Commit {
    fn poll(&mut self, waker: &Waker) -> Poll<Result<(), ErrorCode>> {
        Pin::new(&mut self.0).poll(&mut Context::from_waker(waker))
    }
}

impl LogAccess for NodeLogs {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn partitions(&self, topic: &TopicName) -> Option<i32> {
        let image = self.node.upgrade()?.controller.image();
        Some(image.topic(topic.as_str())?.partitions.len() as i32)
    }

    fn topic_id(&self, topic: &TopicName) -> Option<TopicId> {
        Some(self.node.upgrade()?.controller.image().topic(topic.as_str())?.id)
    }

    fn create_topic(&self, topic: &TopicName) -> Box<dyn Ticket> {
        let name = topic.to_string();
        self.spawn(|node| async move {
            if !node.controller.broker_config().auto_create_topics_enable {
                return Err(ErrorCode::UnknownTopicOrPartition);
            }
            let created = node.controller.auto_create(&[name]).await;
            created.into_iter().try_for_each(|one| one.map_err(|error| error.code()))
        })
    }

    fn open(&self, tp: &TopicPartition) -> Option<Arc<dyn PartitionAccess>> {
        let partition = self.node.upgrade()?.partitions.get(tp.topic.as_str(), tp.partition)?;
        Some(Arc::new(Replica { partition, clock: self.clock.clone() }))
    }

    fn committed(
        &self,
        application: &str,
        partitions: &[TopicPartition],
    ) -> Box<dyn Ticket<Vec<Option<Offset>>>> {
        let topics = partitions.iter().map(|tp| of_topic(tp, ())).collect();
        let request = GroupRequest::OffsetFetch(OffsetFetchRequest {
            group_id: application.into(),
            topics: Some(topics),
            require_stable: true,
        });
        self.spawn(|node| async move {
            ensure_offsets_topic(&node).await?;
            match node.groups.answer(request).await {
                GroupResponse::OffsetFetch(topics) => {
                    let fetched = topics.into_iter().flat_map(|topic| topic.partitions);
                    let offset = |offset: Offset| (offset >= Offset::ZERO).then_some(offset);
                    Ok(fetched.map(|(_, fetched)| offset(fetched.offset)).collect())
                }
                other => Err(failure(&other)),
            }
        })
    }

    fn commit(&self, application: &str, positions: &[(TopicPartition, Offset)]) -> Box<dyn Ticket> {
        let topics = positions.iter().map(|(tp, offset)| {
            let (leader_epoch, metadata) = (LeaderEpoch::NONE, Text::from(""));
            of_topic(tp, OffsetToCommit { offset: *offset, leader_epoch, metadata })
        });
        // As a client outside of any group: no member, no generation.
        let request = GroupRequest::OffsetCommit(OffsetCommitRequest {
            group_id: application.into(),
            member_id: "".into(),
            instance_id: None,
            generation: -1,
            retention_ms: None,
            knows_group_id_not_found: true,
            topics: topics.collect(),
        });
        self.spawn(|node| async move {
            ensure_offsets_topic(&node).await?;
            match node.groups.answer(request).await {
                GroupResponse::OffsetCommit(topics) => {
                    let codes = topics.into_iter().flat_map(|topic| topic.partitions);
                    let refused = codes.map(|(_, code)| code).find(|code| *code != ErrorCode::None);
                    refused.map_or(Ok(()), Err)
                }
                other => Err(failure(&other)),
            }
        })
    }
}

fn of_topic<T>(tp: &TopicPartition, what: T) -> ByTopic<T> {
    let partitions = vec![(tp.partition, what)];
    ByTopic { name: tp.topic.clone(), topic_id: TopicId::ZERO, partitions }
}

fn failure(response: &GroupResponse) -> ErrorCode {
    match response {
        GroupResponse::Failed(code) => *code,
        _ => ErrorCode::UnknownServerError,
    }
}

/// Creates the topic of the groups where this is the first that is asked of one.
async fn ensure_offsets_topic(node: &Node) -> Result<(), ErrorCode> {
    if node.controller.image().topic(OFFSETS_TOPIC).is_some() {
        return Ok(());
    }
    let created = node.controller.auto_create(&[OFFSETS_TOPIC.to_owned()]).await;
    created.into_iter().try_for_each(|one| one.map_err(|error| error.code()))
}

/// A local replica, for the stream runtime.
struct Replica {
    partition: Arc<Partition>,
    clock: Arc<Clock>,
}

impl PartitionAccess for Replica {
    fn topic_id(&self) -> TopicId {
        self.partition.topic_id()
    }

    fn view(&self) -> View {
        let (view, leadership) = (self.partition.view(), self.partition.leadership());
        View {
            log_start_offset: view.log_start_offset,
            high_watermark: view.high_watermark,
            leader_epoch: leadership.epoch,
            role: match leadership {
                _ if leadership.is_offline => Role::Offline,
                _ if leadership.is_leader && leadership.confirmed => Role::Leader,
                _ => Role::Follower,
            },
        }
    }

    fn read(&self, from: Offset, bytes_max: usize) -> Result<Vec<Bytes>, ErrorCode> {
        let view = self.partition.view();
        let slices = view.read(from, view.high_watermark, bytes_max, true);
        let slices = slices.map_err(|error| read_code(&error))?;
        let mut batches = Vec::with_capacity(slices.len());
        for slice in slices {
            if !slice.is_recent() {
                slice.prefault().map_err(|_| ErrorCode::KafkaStorageError)?;
            }
            batches.push(slice.bytes().map_err(|_| ErrorCode::KafkaStorageError)?);
        }
        Ok(batches)
    }

    fn timestamp_at(&self, offset: Offset) -> Option<Timestamp> {
        let batches = self.read(offset, 1).ok()?;
        Some(BatchHeader::parse(batches.first()?).ok()?.base_timestamp)
    }

    fn append(&self, batch: &Bytes) -> Result<Box<dyn Ticket>, AppendError> {
        thread_local! {
            /// Inflation memory of this thread, where a topic wants another codec.
            static SCRATCH: RefCell<Scratch> = RefCell::default();
        }
        let partition = &self.partition;
        if is_internal_topic(partition.tp().topic.as_str()) {
            return Err(AppendError::Refused(ErrorCode::InvalidTopicException));
        }
        let rules = partition.config().validation_rules(PRODUCE_VERSION);
        let now = self.clock.now();
        let validated = SCRATCH
            .with_borrow_mut(|scratch| validate(batch, now, &rules, scratch))
            .map_err(|rejected| AppendError::Refused(rejected.code))?;
        let bytes = validated.batch.len();
        if !partition.has_room(bytes) {
            return Err(AppendError::Later);
        }
        match partition.append(&validated, Acks::All, now) {
            Ok(appended) => {
                partition.traffic().appended(bytes, validated.header.record_count);
                Ok(Box::new(Commit(appended.ack)))
            }
            // A disk may have room again, and a leader come back.
            Err(_) => Err(AppendError::Later),
        }
    }

    fn watch(&self, waker: Waker) -> Watch {
        let waiter = Waiter::calling(waker);
        self.partition.watch(&waiter);
        Box::new(waiter)
    }
}

fn read_code(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        _ => ErrorCode::KafkaStorageError,
    }
}
