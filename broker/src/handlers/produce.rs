//! `Produce` (key 0), versions 3-13; advertised from 0, since librdkafka wants to see 0 in range
//! (KAFKA-18659), though a request below 3 is refused by closing.
//!
//! ```text
//! for each partition, in order:  find → validate → room → append      order fixed: next request
//! then, acks=all only:           wait for all commits, or the timeout                 response
//! ```
//!
//! One batch a partition. Validation walks every record outside any lock; a compressed batch that is
//! large, or turns out to be, on the blocking pool, with no more at once than there are cores. With
//! acks 0 there is no response; an error closes the connection, the only way to tell. Topics are
//! named by id from version 13. Newer clients learn from a `NOT_LEADER_OR_FOLLOWER` who leads
//! (version 10, KIP-951). Transactional batches are `INVALID_TXN_STATE`, since no transaction can be
//! open.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use tracing::debug;
use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{PartitionIndex, Timestamp, TopicId};
use vltava_protocol::messages::ProduceRequest;
use vltava_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use vltava_protocol::record::validate::{Rejected, Scratch, Validated, ValidationRules, validate};
use vltava_protocol::record::{BatchHeader, Codec};

use super::{computing, leader, unshared};
use crate::connection::{CloseCause, Reply, Stage};
use crate::context::RequestContext;
use crate::controller::state::is_internal_topic;
use crate::partition::{Acks, Appended, Partition};

mod respond;

/// Key and versions.
pub const API: Api = Api::new(ApiKey::Produce, 3..=13).advertised_from(0);

/// Compressed batches above this are validated on the blocking pool: a worker is not to be held
/// for the time of inflating them, and a hop costs tens of microseconds.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// So are those that inflate to more than this, which their length does not tell: a small one may
/// hold a hundred megabytes of zeros. About a millisecond of the slowest codec.
const INLINE_INFLATED_BYTES_MAX: usize = 512 << 10;
/// The highest level of zstd, its default, that compresses a small batch in well under a
/// millisecond.
const INLINE_ZSTD_LEVEL_MAX: i32 = 3;
/// The client id that may write to internal topics (`AdminUtils.ADMIN_CLIENT_ID`).
const ADMIN_CLIENT_ID: &str = "__admin_client";
/// First version that names topics by id.
const TOPIC_IDS_FROM: i16 = 13;

/// One partition of the request, and what became of it.
struct Entry {
    index: i32,
    /// Absent when it is not on this node.
    partition: Option<Arc<Partition>>,
    outcome: Result<Appended, Refusal>,
}

/// Why nothing was appended, or is not known to be committed.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    code: ErrorCode,
    message: Option<Cow<'static, str>>,
    record_errors: Vec<(i32, Option<Cow<'static, str>>)>,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: None, record_errors: Vec::new() }
    }
}

impl From<Rejected> for Refusal {
    fn from(rejected: Rejected) -> Self {
        let Rejected { code, message, record_errors } = rejected;
        Self { code, message: Some(message), record_errors }
    }
}

/// Appends; returns when the order of the batches is fixed.
pub async fn start(cx: RequestContext, request: ProduceRequest) -> Stage {
    let wait = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let deadline = cx.begun + wait;
    let acks = Acks::try_from(request.acks);
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let mut entries = Vec::with_capacity(topic.partition_data.len());
        for data in &topic.partition_data {
            let index = data.index;
            let (partition, outcome) = match acks {
                Ok(acks) => place(&cx, &topic, data, acks, deadline).await,
                Err(_) => (None, Err(ErrorCode::InvalidRequiredAcks.into())),
            };
            entries.push(Entry { index, partition, outcome });
        }
        topics.push((topic.name, topic.topic_id, entries));
    }
    match acks {
        Ok(Acks::None) => Stage::Done(unacknowledged(&cx, &topics)),
        Ok(Acks::All) => {
            // The batches are appended: nothing of the frame is needed while the commit is awaited.
            for (name, _, _) in &mut topics {
                *name = unshared(name).into();
            }
            Stage::Ordered(Box::pin(async move {
                for (_, _, entries) in &mut topics {
                    for entry in entries {
                        settle(entry, deadline).await;
                    }
                }
                respond::reply(&cx, topics)
            }))
        }
        Ok(Acks::Leader) | Err(_) => Stage::Done(respond::reply(&cx, topics)),
    }
}

type Topics = Vec<(vltava_protocol::messages::TopicName, uuid::Uuid, Vec<Entry>)>;

/// The one way to tell a client that wants no answer: close.
fn unacknowledged(cx: &RequestContext, topics: &Topics) -> Reply {
    for (name, _, entries) in topics {
        for entry in entries {
            if let Err(refusal) = &entry.outcome {
                cx.count(refusal.code);
                let (index, code) = (entry.index, refusal.code.name());
                let cause = format!("{}-{index}: {code}", &**name);
                return Reply::Close(CloseCause::Unacknowledged(cause));
            }
        }
    }
    cx.silence()
}

/// Finds the partition and appends to it.
async fn place(
    cx: &RequestContext,
    topic: &TopicProduceData,
    data: &PartitionProduceData,
    acks: Acks,
    deadline: Instant,
) -> (Option<Arc<Partition>>, Result<Appended, Refusal>) {
    let index = PartitionIndex(data.index);
    let found = if cx.api_version >= TOPIC_IDS_FROM {
        leader::by_id(&cx.node, TopicId(topic.topic_id), index)
    } else {
        leader::by_name(&cx.node, &topic.name, index)
    };
    match found {
        Ok(partition) => {
            let records = data.records.clone().unwrap_or_default();
            let outcome = append(cx, &partition, records, acks, deadline).await;
            (Some(partition), outcome)
        }
        Err(code) => (None, Err(code.into())),
    }
}

async fn append(
    cx: &RequestContext,
    partition: &Partition,
    records: Bytes,
    acks: Acks,
    deadline: Instant,
) -> Result<Appended, Refusal> {
    let is_admin = cx.client_id.as_deref() == Some(ADMIN_CLIENT_ID);
    if is_internal_topic(&partition.tp().topic) && !is_admin {
        return Err(ErrorCode::InvalidTopicException.into());
    }
    let rules = partition.config().validation_rules(cx.api_version);
    let now = cx.node.clock.now();
    let validated = validated(cx, records, now, rules).await?;
    if validated.header.attributes.is_transactional() {
        return Err(ErrorCode::InvalidTxnState.into());
    }
    let bytes = validated.batch.len();
    // Nothing is appended yet, so a client that gives up may send again.
    timeout_at(deadline, partition.room(bytes)).await.map_err(|_| ErrorCode::RequestTimedOut)?;
    let appended = partition.append(&validated, acks, now).map_err(|refused| {
        debug!(partition = %partition.tp(), code = refused.code().name(), "append refused");
        Refusal::from(refused.code())
    })?;
    partition.traffic().appended(bytes, validated.header.record_count);
    Ok(appended)
}

/// Validates on this worker what takes little time, all else on the blocking pool.
async fn validated(
    cx: &RequestContext,
    records: Bytes,
    now: Timestamp,
    rules: ValidationRules,
) -> Result<Validated, Rejected> {
    if !is_slow(&records, &rules)
        && let Some(judged) = checked_inline(&records, now, &rules)
    {
        return judged;
    }
    computing(&cx.shared, move || checked(&records, now, &rules)).await
}

/// Whether the length of a batch, or what the topic makes of it, alone tells that it takes long.
fn is_slow(records: &Bytes, rules: &ValidationRules) -> bool {
    // What has no readable header is refused at once.
    let Ok(header) = BatchHeader::parse(records) else { return false };
    let codec = header.attributes.codec();
    match rules.compression {
        Some((target, level)) if codec != Some(target) => {
            let is_slow_target = match target {
                Codec::Gzip => true,
                Codec::Zstd => level.is_some_and(|level| level > INLINE_ZSTD_LEVEL_MAX),
                Codec::None | Codec::Snappy | Codec::Lz4 => false,
            };
            is_slow_target || records.len() > INLINE_BYTES_MAX
        }
        _ => codec != Some(Codec::None) && records.len() > INLINE_BYTES_MAX,
    }
}

/// The judgment, unless the batch inflates to more than this worker may be held for.
fn checked_inline(
    records: &Bytes,
    now: Timestamp,
    rules: &ValidationRules,
) -> Option<Result<Validated, Rejected>> {
    let limit = rules.inflated_bytes_max.min(INLINE_INFLATED_BYTES_MAX);
    let judged = checked(records, now, &ValidationRules { inflated_bytes_max: limit, ..*rules });
    // One too long for its topic has the same code; to find that out again takes no time.
    let may_be_the_limit = limit < rules.inflated_bytes_max
        && matches!(&judged, Err(rejected) if rejected.code == ErrorCode::MessageTooLarge);
    (!may_be_the_limit).then_some(judged)
}

fn checked(
    records: &Bytes,
    now: Timestamp,
    rules: &ValidationRules,
) -> Result<Validated, Rejected> {
    thread_local! {
        /// Inflation memory of this worker; validation does not await.
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(|scratch| validate(records, now, rules, scratch))
}

/// Waits for the commit of an entry, no longer than the client would.
async fn settle(entry: &mut Entry, deadline: Instant) {
    let Ok(appended) = &mut entry.outcome else { return };
    let code = match timeout_at(deadline, &mut appended.ack).await {
        Ok(Ok(())) => return,
        Ok(Err(code)) => code,
        Err(_) => ErrorCode::RequestTimedOut,
    };
    entry.outcome = Err(code.into());
}

#[cfg(test)]
mod tests;
