//! A log in memory behind the port: commits at once, or refuses, or loses what it took.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use vltava_protocol::ErrorCode;
use vltava_protocol::ids::{
    LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicId, TopicName, TopicPartition,
};
use vltava_protocol::record::batch::{BATCH_HEADER_BYTES, BatchHeader};
use vltava_protocol::record::builder::{BatchBuilder, BatchFields};
use vltava_protocol::record::compression::Codec;
use vltava_protocol::record::record::Records;
use vltava_streams::log_access::{
    AppendError, LogAccess, PartitionAccess, Role, Ticket, View, Watch,
};

#[derive(Default)]
pub(crate) struct MemoryLog {
    topics: Mutex<BTreeMap<String, Topic>>,
    /// Topics that were ever created.
    created: AtomicU64,
    committed: Mutex<BTreeMap<(String, TopicPartition), Offset>>,
    /// No topic is created because somebody asks for it.
    is_closed: AtomicBool,
}

/// A topic's identity, and its partitions.
type Topic = (TopicId, Vec<Arc<Partition>>);

struct Partition {
    topic: TopicId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    batches: Vec<Bytes>,
    end: i64,
    refusal: Option<ErrorCode>,
    /// Its topic was deleted.
    is_gone: bool,
    losses: Vec<ErrorCode>,
    /// Commits wait, and who waits for them.
    held: Option<Vec<Waker>>,
    /// The most bytes that were read at once.
    read_bytes_max: usize,
    wakers: Vec<Waker>,
}

struct Known<T>(Option<Result<T, ErrorCode>>);

impl<T: Send> Ticket<T> for Known<T> {
    fn poll(&mut self, _: &Waker) -> Poll<Result<T, ErrorCode>> {
        Poll::Ready(self.0.take().expect("asked once"))
    }
}

/// A commit that waits while those of its partition are held.
struct Commit(Arc<Partition>);

impl Ticket for Commit {
    fn poll(&mut self, waker: &Waker) -> Poll<Result<(), ErrorCode>> {
        match &mut self.0.state.lock().held {
            Some(waiting) => {
                waiting.push(waker.clone());
                Poll::Pending
            }
            None => Poll::Ready(Ok(())),
        }
    }
}

impl MemoryLog {
    pub(crate) fn new(topics: &[(&str, i32)]) -> Arc<Self> {
        let log = Self::default();
        for (topic, partitions) in topics {
            log.create(topic, *partitions);
        }
        Arc::new(log)
    }

    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    fn create(&self, topic: &str, partitions: i32) {
        let mut topics = self.topics.lock();
        let created = || {
            let number = self.created.fetch_add(1, Ordering::Relaxed) + 1;
            (format!("{number:A>21}A").parse().unwrap(), Vec::new())
        };
        let (topic, all) = topics.entry(topic.to_owned()).or_insert_with(created);
        while all.len() < partitions as usize {
            all.push(Arc::new(Partition { topic: *topic, state: Mutex::default() }));
        }
    }

    /// Gives a topic so many partitions.
    pub(crate) fn grow(&self, topic: &str, partitions: i32) {
        self.create(topic, partitions);
    }

    /// Loses all but the first `count` batches, of one record each.
    pub(crate) fn forget(&self, topic: &str, count: usize) {
        let partition = self.partition(topic, 0).unwrap();
        let mut state = partition.state.lock();
        state.batches.truncate(count);
        state.end = count as i64;
    }

    pub(crate) fn delete(&self, topic: &str) {
        let removed = self.topics.lock().remove(topic);
        for partition in removed.map(|(_, partitions)| partitions).unwrap_or_default() {
            partition.state.lock().is_gone = true;
        }
        self.committed.lock().retain(|(_, tp), _| tp.topic.as_str() != topic);
    }

    fn partition(&self, topic: &str, partition: i32) -> Option<Arc<Partition>> {
        self.topics.lock().get(topic)?.1.get(partition as usize).cloned()
    }

    pub(crate) fn append(&self, topic: &str, partition: i32, value: &str) {
        let mut builder = BatchBuilder::new(Codec::None, None);
        builder.append(self.now(), None, Some(value.as_bytes()), &[]);
        let batch = builder.build(&BatchFields::default()).unwrap();
        self.partition(topic, partition).unwrap().place(&batch);
    }

    pub(crate) fn values(&self, topic: &str) -> Vec<String> {
        let count = self.topics.lock().get(topic).map_or(0, |(_, partitions)| partitions.len());
        (0..count as i32).flat_map(|partition| self.values_in(topic, partition)).collect()
    }

    pub(crate) fn values_in(&self, topic: &str, partition: i32) -> Vec<String> {
        let partition = self.partition(topic, partition).unwrap();
        let mut values = Vec::new();
        for batch in &partition.state.lock().batches {
            let header = BatchHeader::parse(batch).unwrap();
            for record in Records::new(&batch[BATCH_HEADER_BYTES..], header.record_count) {
                let value = record.unwrap().value.unwrap();
                values.push(String::from_utf8(value.to_vec()).unwrap());
            }
        }
        values
    }

    pub(crate) fn committed(&self, application: &str, topic: &str, partition: i32) -> Option<i64> {
        let tp = TopicPartition::new(TopicName::new(topic), PartitionIndex(partition));
        self.committed.lock().get(&(application.to_owned(), tp)).map(|offset| offset.0)
    }

    pub(crate) fn refuse(&self, topic: &str, code: Option<ErrorCode>) {
        self.partition(topic, 0).unwrap().state.lock().refusal = code;
    }

    /// Lets commits to a topic's first partition wait until they are released.
    pub(crate) fn hold_commits(&self, topic: &str) {
        self.partition(topic, 0).unwrap().state.lock().held = Some(Vec::new());
    }

    pub(crate) fn release_commits(&self, topic: &str) {
        let held = self.partition(topic, 0).unwrap().state.lock().held.take();
        held.into_iter().flatten().for_each(Waker::wake);
    }

    /// The most bytes that were read at once from a topic's first partition.
    pub(crate) fn read_bytes_max(&self, topic: &str) -> usize {
        self.partition(topic, 0).unwrap().state.lock().read_bytes_max
    }

    pub(crate) fn fail_next_commits(&self, topic: &str, count: usize, code: ErrorCode) {
        self.partition(topic, 0).unwrap().state.lock().losses = vec![code; count];
    }
}

impl LogAccess for MemoryLog {
    fn now(&self) -> Timestamp {
        Timestamp(1_000_000)
    }

    fn partitions(&self, topic: &TopicName) -> Option<i32> {
        self.topics.lock().get(topic.as_str()).map(|(_, partitions)| partitions.len() as i32)
    }

    fn topic_id(&self, topic: &TopicName) -> Option<TopicId> {
        self.topics.lock().get(topic.as_str()).map(|(id, _)| *id)
    }

    fn create_topic(&self, topic: &TopicName) -> Box<dyn Ticket> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Box::new(Known(Some(Err(ErrorCode::UnknownTopicOrPartition))));
        }
        self.create(topic.as_str(), 1);
        Box::new(Known(Some(Ok(()))))
    }

    fn open(&self, tp: &TopicPartition) -> Option<Arc<dyn PartitionAccess>> {
        Some(Arc::new(Replica(self.partition(tp.topic.as_str(), tp.partition.0)?)))
    }

    fn committed(
        &self,
        application: &str,
        partitions: &[TopicPartition],
    ) -> Box<dyn Ticket<Vec<Option<Offset>>>> {
        let committed = self.committed.lock();
        let of =
            |tp: &TopicPartition| committed.get(&(application.to_owned(), tp.clone())).copied();
        Box::new(Known(Some(Ok(partitions.iter().map(of).collect()))))
    }

    fn commit(&self, application: &str, positions: &[(TopicPartition, Offset)]) -> Box<dyn Ticket> {
        let mut committed = self.committed.lock();
        for (tp, offset) in positions {
            committed.insert((application.to_owned(), tp.clone()), *offset);
        }
        Box::new(Known(Some(Ok(()))))
    }
}

impl Partition {
    fn place(&self, batch: &Bytes) {
        let wakers = {
            let mut state = self.state.lock();
            let mut header = BatchHeader::parse(batch).unwrap();
            header.base_offset = Offset(state.end);
            state.end = header.end_offset().0;
            let mut placed = batch.to_vec();
            header.write(&mut placed);
            state.batches.push(placed.into());
            state.wakers.clone()
        };
        wakers.iter().for_each(Waker::wake_by_ref);
    }
}

/// A partition, as a task sees it.
struct Replica(Arc<Partition>);

impl PartitionAccess for Replica {
    fn topic_id(&self) -> TopicId {
        self.0.topic
    }

    fn view(&self) -> View {
        let state = self.0.state.lock();
        View {
            log_start_offset: Offset(0),
            high_watermark: Offset(state.end),
            leader_epoch: LeaderEpoch(1),
            role: if state.is_gone { Role::Offline } else { Role::Leader },
        }
    }

    fn read(&self, from: Offset, bytes_max: usize) -> Result<Vec<Bytes>, ErrorCode> {
        let mut state = self.0.state.lock();
        let is_wanted = |batch: &&Bytes| BatchHeader::parse(batch).unwrap().end_offset() > from;
        let (mut batches, mut bytes) = (Vec::new(), 0);
        for batch in state.batches.iter().filter(is_wanted) {
            if bytes > 0 && bytes + batch.len() > bytes_max {
                break;
            }
            bytes += batch.len();
            batches.push(batch.clone());
        }
        state.read_bytes_max = state.read_bytes_max.max(bytes);
        Ok(batches)
    }

    fn timestamp_at(&self, _: Offset) -> Option<Timestamp> {
        None
    }

    fn append(&self, batch: &Bytes) -> Result<Box<dyn Ticket>, AppendError> {
        let (refusal, loss) = {
            let mut state = self.0.state.lock();
            if state.is_gone {
                return Err(AppendError::Later);
            }
            (state.refusal, state.losses.pop())
        };
        if let Some(code) = refusal {
            return Err(AppendError::Refused(code));
        }
        if let Some(code) = loss {
            return Ok(Box::new(Known(Some(Err(code)))));
        }
        self.0.place(batch);
        Ok(Box::new(Commit(self.0.clone())))
    }

    fn watch(&self, waker: Waker) -> Watch {
        self.0.state.lock().wakers.push(waker);
        Box::new(())
    }
}
