//! `Fetch` (key 1), versions 4-18: whole batches, as map slices, in one vectored write.
//!
//! ```text
//! session → read every partition, in order, within the budget
//!         → enough, an error, or no wait wanted?  answer
//!         → else wait for any of them to move, up to max_wait_ms; read again; …
//! ```
//!
//! The order is fixed when the session is opened: the next request may begin while this one waits,
//! but for the next of a session on the same connection, which begins when this one is answered, as
//! all requests do in Kafka: else its epoch would be ahead of the one that this answer belongs to.
//! Consumers read up to the high watermark, or the last stable offset. No record is parsed. Slices
//! that are neither recent nor cached are brought into memory on the blocking pool before a socket
//! touches them. Only the leader serves; replication is not done by this API, so a request that
//! claims to come from a replica is refused as Kafka refuses one that lacks the right. Topics are
//! named by id from version 13; sessions ([`crate::fetch_sessions`]) exist from version 7. An error
//! of one partition answers at once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};
use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicName};
use vltava_protocol::messages::FetchRequest;
use vltava_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};

use self::read::{Budget, Isolation, PartitionRead};
use super::{blocking, computing, decode, leader};
use crate::connection::{Reply, Stage};
use crate::context::RequestContext;
use crate::fetch_sessions::{
    EPOCH_INITIAL, FetchContext, PartitionFetch, PartitionKey, SESSION_NONE, TopicKey,
};
use crate::partition::{Partition, Waiter};

mod read;
mod respond;

/// Key and versions.
pub const API: Api = Api::new(ApiKey::Fetch, 4..=18);

/// Requests longer than this, some thousand partitions, are begun on the blocking pool.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// First version with sessions; before, every request is without one.
const SESSIONS_FROM: i16 = 7;
/// First version that names topics by id.
const TOPIC_IDS_FROM: i16 = 13;
/// First version whose replica id is a tagged field of its own.
const REPLICA_STATE_FROM: i16 = 15;

/// Opens the session and reads; returns when the order is fixed.
pub async fn start(cx: RequestContext, body: Bytes) -> Stage {
    match begin(cx, body).await {
        Err(reply) => Stage::Done(reply),
        Ok(Begun { fetch, reads, is_enough }) => Stage::Ordered(Box::pin(async move {
            let reads = if is_enough { reads } else { fetch.wait().await };
            let reads = warmed(reads).await;
            fetch.answer(reads)
        })),
    }
}

/// A request that is not answered at once.
struct Begun {
    fetch: Fetch,
    reads: Vec<PartitionRead>,
    is_enough: bool,
}

/// Decodes the request and looks at its partitions; the reply if that is enough for one.
async fn begin(cx: RequestContext, body: Bytes) -> Result<Begun, Reply> {
    if body.len() <= INLINE_BYTES_MAX {
        let request = decode(&cx, body)?;
        let turn = turn_of(&cx, &request).await;
        return look(cx, &request, turn);
    }
    let shared = Arc::clone(&cx.shared);
    let decoding = move || decode(&cx, body).map(|request: FetchRequest| (cx, request));
    let (cx, request) = computing(&shared, decoding).await?;
    let turn = turn_of(&cx, &request).await;
    computing(&shared, move || look(cx, &request, turn)).await
}

/// The turn of a request of a session, once those before it on its connection are answered.
async fn turn_of(cx: &RequestContext, request: &FetchRequest) -> Option<OwnedSemaphorePermit> {
    let has_session = cx.api_version >= SESSIONS_FROM
        && request.session_id != SESSION_NONE
        && request.session_epoch > EPOCH_INITIAL;
    if !has_session {
        return None;
    }
    let turn = Arc::clone(&cx.session_turn);
    Some(turn.acquire_owned().await.expect("it is never closed"))
}

fn look(
    cx: RequestContext,
    request: &FetchRequest,
    turn: Option<OwnedSemaphorePermit>,
) -> Result<Begun, Reply> {
    let fetch = Fetch::open(cx, request, turn)?;
    let reads = fetch.read();
    let is_enough = fetch.is_enough(&reads);
    if is_enough && reads.iter().all(PartitionRead::is_at_hand) {
        return Err(fetch.answer(reads));
    }
    Ok(Begun { fetch, reads, is_enough })
}

/// One request under way.
struct Fetch {
    cx: RequestContext,
    context: FetchContext,
    /// The partitions of the context, in order, or why they are not here.
    targets: Vec<Result<Arc<Partition>, ErrorCode>>,
    isolation: Isolation,
    max_bytes: usize,
    min_bytes: usize,
    deadline: Option<Instant>,
    /// Held by a request of a session until it is answered.
    _turn: Option<OwnedSemaphorePermit>,
}

impl Fetch {
    /// The request with its session, or the reply of one that is refused as a whole.
    fn open(
        cx: RequestContext,
        request: &FetchRequest,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Self, Reply> {
        if is_from_replica(request, cx.api_version) {
            return Err(respond::refuse_partitions(
                &cx,
                request,
                ErrorCode::TopicAuthorizationFailed,
            ));
        }
        let by_id = cx.api_version >= TOPIC_IDS_FROM;
        let session = if cx.api_version >= SESSIONS_FROM {
            (request.session_id, request.session_epoch)
        } else {
            (0, -1)
        };
        let named = request.topics.iter().flat_map(|topic| wants(topic, by_id)).collect();
        let forgotten: Vec<_> =
            request.forgotten_topics_data.iter().flat_map(|topic| keys(topic, by_id)).collect();
        let now = cx.node.clock.now();
        let sessions = &cx.shared.fetch_sessions;
        let context = sessions
            .open(now, session, by_id, named, &forgotten)
            .map_err(|code| respond::refuse(&cx, code))?;
        let targets = context.partitions().iter().map(|fetch| find(&cx, &fetch.key)).collect();
        let size = |bytes: i32| usize::try_from(bytes).unwrap_or(0);
        let max_bytes = size(request.max_bytes.min(cx.node.config.fetch_max_bytes));
        let wait = u64::try_from(request.max_wait_ms).unwrap_or(0);
        Ok(Self {
            context,
            targets,
            isolation: Isolation::from_wire(request.isolation_level),
            max_bytes,
            min_bytes: size(request.min_bytes).min(max_bytes),
            deadline: (wait > 0).then(|| cx.begun + Duration::from_millis(wait)),
            _turn: turn,
            cx,
        })
    }

    /// Reads all partitions within the budget of a response.
    fn read(&self) -> Vec<PartitionRead> {
        let mut budget = Budget::new(self.max_bytes);
        let pairs = self.context.partitions().iter().zip(&self.targets);
        pairs
            .map(|(fetch, target)| match target {
                Ok(partition) => read::read(partition, fetch, self.isolation, &mut budget),
                Err(code) => PartitionRead::failed(*code),
            })
            .collect()
    }

    /// Whether to answer now (`ReplicaManager.fetchMessages`).
    fn is_enough(&self, reads: &[PartitionRead]) -> bool {
        if self.deadline.is_none() || reads.is_empty() || reads.iter().any(PartitionRead::is_told) {
            return true;
        }
        let bytes: usize = reads.iter().map(|read| read.bytes).sum();
        if bytes >= self.min_bytes {
            return true;
        }
        // What is there counts, also where only whole batches fit the response.
        bytes > 0 && self.available(reads) >= self.min_bytes
    }

    fn available(&self, reads: &[PartitionRead]) -> usize {
        let pairs = self.context.partitions().iter().zip(&self.targets).zip(reads);
        pairs
            .map(|((fetch, target), read)| match target {
                // Also where the budget gave nothing: the client gets it with the next request.
                Ok(partition) if !read.is_told() => {
                    read::available(partition, fetch, self.isolation)
                }
                _ => 0,
            })
            .sum()
    }

    /// Waits until there is enough, or until the client's time, or the server, ends.
    async fn wait(&self) -> Vec<PartitionRead> {
        let waiter = Waiter::new();
        for partition in self.targets.iter().flatten() {
            partition.watch(&waiter);
        }
        let Some(deadline) = self.deadline else { return self.read() };
        let mut expired = std::pin::pin!(sleep_until(deadline));
        let mut ending = std::pin::pin!(self.cx.shutdown.requested());
        loop {
            // The waiter was registered before this look, so a move after it is not lost.
            let reads = self.read();
            if self.is_enough(&reads) {
                return reads;
            }
            tokio::select! {
                () = waiter.notified() => {}
                () = &mut expired => return self.read(),
                () = &mut ending => return reads,
            }
        }
    }

    fn answer(self, reads: Vec<PartitionRead>) -> Reply {
        // The turn goes with `self`, behind the answer.
        let Self { cx, context, targets, isolation, _turn, .. } = self;
        respond::reply(&cx, context, &targets, isolation, reads)
    }
}

/// Brings what is not at hand into memory, where blocking is allowed.
async fn warmed(mut reads: Vec<PartitionRead>) -> Vec<PartitionRead> {
    if reads.iter().all(PartitionRead::is_at_hand) {
        return reads;
    }
    blocking(move || {
        reads.iter_mut().for_each(PartitionRead::warm);
        reads
    })
    .await
}

fn is_from_replica(request: &FetchRequest, version: i16) -> bool {
    let replica = if version >= REPLICA_STATE_FROM {
        request.replica_state.replica_id
    } else {
        request.replica_id
    };
    replica.0 >= 0
}

fn find(cx: &RequestContext, key: &PartitionKey) -> Result<Arc<Partition>, ErrorCode> {
    match &key.topic {
        TopicKey::Name(name) => leader::by_name(&cx.node, name, key.partition),
        TopicKey::Id(id) => leader::by_id(&cx.node, *id, key.partition),
    }
}

fn topic_key(name: &vltava_protocol::messages::TopicName, id: uuid::Uuid, by_id: bool) -> TopicKey {
    if by_id { TopicKey::Id(TopicId(id)) } else { TopicKey::Name(TopicName::new(name)) }
}

fn wants(topic: &FetchTopic, by_id: bool) -> impl Iterator<Item = PartitionFetch> {
    let key = topic_key(&topic.topic, topic.topic_id, by_id);
    topic.partitions.iter().map(move |partition: &FetchPartition| PartitionFetch {
        key: PartitionKey { topic: key.clone(), partition: PartitionIndex(partition.partition) },
        fetch_offset: Offset(partition.fetch_offset),
        current_leader_epoch: LeaderEpoch(partition.current_leader_epoch),
        last_fetched_epoch: LeaderEpoch(partition.last_fetched_epoch),
        max_bytes: partition.partition_max_bytes,
    })
}

fn keys(topic: &ForgottenTopic, by_id: bool) -> impl Iterator<Item = PartitionKey> {
    let key = topic_key(&topic.topic, topic.topic_id, by_id);
    topic.partitions.iter().map(move |partition| PartitionKey {
        topic: key.clone(),
        partition: PartitionIndex(*partition),
    })
}
