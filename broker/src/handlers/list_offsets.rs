//! `ListOffsets` (key 2), versions 1-11: offsets by time.
//!
//! Special times: −1 the end a consumer may read to (high watermark, or last stable offset), −2 and
//! −4 the log start, −3 the record with the greatest timestamp (version 7), −5 and −6 places in
//! tiered storage, of which there is none: offset −1 (versions 9 and 11). Any other negative time,
//! or a special one of a later version, is `UNSUPPORTED_VERSION`. A partition named twice is
//! `INVALID_REQUEST`. A leader that has not committed an entry of its own epoch does not answer for
//! the high watermark: it waits a moment for that commit, which after the creation of a topic is
//! one round of the disk away, then `OFFSET_NOT_AVAILABLE`, before version 5
//! `LEADER_NOT_AVAILABLE`.
//!
//! Searches by time may read cold segments and inflate a batch: they run on the blocking pool.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::warn;
use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{LeaderEpoch, Offset, PartitionIndex, Timestamp};
use vltava_protocol::messages::list_offsets_request::ListOffsetsPartition;
use vltava_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use vltava_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use vltava_protocol::record::BatchHeader;
use vltava_storage::log::ReadError;
use vltava_storage::read_view::ReadView;

use super::{blocking, computing, leader};
use crate::context::RequestContext;
use crate::partition::{Leadership, Partition, Waiter};

/// Key and versions. The body of 11 is that of 10.
pub const API: Api = Api::new(ApiKey::ListOffsets, 1..=11);

const READ_COMMITTED: i8 = 1;
/// How long a new leader waits for the first commit of its epoch before it says that it cannot
/// answer; clients ask again after about as long.
const CONFIRM_MS_MAX: u64 = 500;

/// What a partition is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Latest,
    Earliest,
    MaxTimestamp,
    /// A place in tiered storage.
    Tiered,
    At(Timestamp),
}

/// An offset found: with its timestamp, or −1, and its epoch.
type Found = (Offset, Timestamp, LeaderEpoch);

const NOTHING: Found = (Offset::NONE, Timestamp::NONE, LeaderEpoch::NONE);

/// A question whose partition was found.
struct Question {
    partition: Arc<Partition>,
    wanted: Wanted,
    believed: LeaderEpoch,
}

/// A question that this leader may answer, and what it answers from.
struct Search {
    view: ReadView,
    wanted: Wanted,
    /// Results from here on are hidden.
    limit: Offset,
    leadership: Leadership,
}

/// Answers for each partition.
pub async fn handle(cx: &RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut times_named: HashMap<(&str, i32), usize> = HashMap::new();
    for topic in &request.topics {
        for asked in &topic.partitions {
            *times_named.entry((&topic.name, asked.partition_index)).or_default() += 1;
        }
    }
    let read_committed = request.isolation_level == READ_COMMITTED;
    let mut questions = Vec::new();
    for topic in &request.topics {
        for asked in &topic.partitions {
            let name: &str = &topic.name;
            questions.push(if times_named[&(name, asked.partition_index)] > 1 {
                Err(ErrorCode::InvalidRequest)
            } else {
                find(cx, &topic.name, asked)
            });
        }
    }
    wait_for_confirmation(&questions).await;
    let searches = questions
        .into_iter()
        .map(|question| question.and_then(|question| question.prepare(read_committed)));
    let answers = run(cx, searches.collect()).await;
    let mut answers = answers.into_iter();
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let answer = answers.next().expect("an answer for each partition");
            respond(cx, asked, answer)
        });
        ListOffsetsTopicResponse::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name.clone())
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

fn respond(
    cx: &RequestContext,
    asked: &ListOffsetsPartition,
    answer: Result<Found, ErrorCode>,
) -> ListOffsetsPartitionResponse {
    let code = match answer {
        Err(ErrorCode::OffsetNotAvailable) if cx.api_version < 5 => ErrorCode::LeaderNotAvailable,
        Err(code) => code,
        Ok(_) => ErrorCode::None,
    };
    cx.count(code);
    let (offset, timestamp, epoch) = answer.unwrap_or(NOTHING);
    let response = ListOffsetsPartitionResponse::default()
        .with_partition_index(asked.partition_index)
        .with_error_code(code.code())
        .with_timestamp(timestamp.0)
        .with_offset(offset.0);
    if cx.api_version >= 4 { response.with_leader_epoch(epoch.0) } else { response }
}

/// What a time means in a version.
fn wanted(timestamp: i64, version: i16) -> Result<Wanted, ErrorCode> {
    let (wanted, from) = match timestamp {
        -1 => (Wanted::Latest, 1),
        -2 => (Wanted::Earliest, 1),
        -3 => (Wanted::MaxTimestamp, 7),
        // Without tiered storage the local log is the log.
        -4 => (Wanted::Earliest, 8),
        -5 => (Wanted::Tiered, 9),
        -6 => (Wanted::Tiered, 11),
        0.. => (Wanted::At(Timestamp(timestamp)), 1),
        _ => return Err(ErrorCode::UnsupportedVersion),
    };
    if version >= from { Ok(wanted) } else { Err(ErrorCode::UnsupportedVersion) }
}

fn find(
    cx: &RequestContext,
    topic: &str,
    asked: &ListOffsetsPartition,
) -> Result<Question, ErrorCode> {
    let wanted = wanted(asked.timestamp, cx.api_version)?;
    let partition = leader::by_name(&cx.node, topic, PartitionIndex(asked.partition_index))?;
    let believed = if cx.api_version >= 4 { asked.current_leader_epoch } else { -1 };
    Ok(Question { partition, wanted, believed: LeaderEpoch(believed) })
}

/// Waits until no leader among the partitions is unconfirmed, for a bounded time.
async fn wait_for_confirmation(questions: &[Result<Question, ErrorCode>]) {
    let is_new = |question: &Question| {
        let leadership = question.partition.leadership();
        leadership.is_leader && !leadership.confirmed
    };
    if !questions.iter().flatten().any(is_new) {
        return;
    }
    let waiter = Waiter::new();
    for question in questions.iter().flatten() {
        question.partition.watch(&waiter);
    }
    let confirmed = async {
        while questions.iter().flatten().any(is_new) {
            waiter.notified().await;
        }
    };
    // Out of time: what is still unconfirmed says so.
    let _ = timeout(Duration::from_millis(CONFIRM_MS_MAX), confirmed).await;
}

impl Question {
    fn prepare(&self, read_committed: bool) -> Result<Search, ErrorCode> {
        let leadership = self.partition.leadership();
        leader::check(&leadership, self.believed)?;
        let view = self.partition.view();
        let limit = if read_committed { view.last_stable_offset } else { view.high_watermark };
        Ok(Search { view, wanted: self.wanted, limit, leadership })
    }
}

/// Answers at once where no disk is needed, else all together on the blocking pool.
async fn run(
    cx: &RequestContext,
    searches: Vec<Result<Search, ErrorCode>>,
) -> Vec<Result<Found, ErrorCode>> {
    let needs_disk = searches.iter().flatten().any(Search::needs_disk);
    let inflates = searches.iter().flatten().any(Search::inflates);
    let answer_all = move || {
        let answer = |search: Result<Search, ErrorCode>| search.and_then(|search| search.answer());
        searches.into_iter().map(answer).collect()
    };
    if inflates {
        computing(&cx.shared, answer_all).await
    } else if needs_disk {
        blocking(answer_all).await
    } else {
        answer_all()
    }
}

impl Search {
    fn needs_disk(&self) -> bool {
        !matches!(self.wanted, Wanted::Latest | Wanted::Tiered)
    }

    /// Whether a batch may have to be inflated for it.
    fn inflates(&self) -> bool {
        matches!(self.wanted, Wanted::MaxTimestamp | Wanted::At(_))
    }

    fn answer(&self) -> Result<Found, ErrorCode> {
        match self.wanted {
            Wanted::Latest if !self.leadership.confirmed => Err(ErrorCode::OffsetNotAvailable),
            Wanted::Latest => Ok((self.limit, Timestamp::NONE, self.leadership.epoch)),
            Wanted::Tiered => Ok(NOTHING),
            Wanted::Earliest => self.earliest().map_err(|error| failed(&error)),
            Wanted::MaxTimestamp => self.visible(self.view.max_timestamp()),
            Wanted::At(timestamp) => self.visible(self.view.offset_for_timestamp(timestamp)),
        }
    }

    /// The log start, with the epoch of the batch that lies there; of an empty log the leader's.
    fn earliest(&self) -> Result<Found, ReadError> {
        let start = self.view.log_start_offset;
        let first = self.view.read(start, self.view.high_watermark, 0, true)?;
        let epoch = match first.first() {
            Some(slice) => BatchHeader::parse(&slice.bytes()?)
                .map_or(LeaderEpoch::NONE, |header| header.leader_epoch),
            None => self.leadership.epoch,
        };
        Ok((start, Timestamp::NONE, epoch))
    }

    /// Hides what a consumer may not read yet. Whether there is anything behind is not known to a
    /// leader that is not confirmed.
    fn visible(&self, found: Result<Option<Found>, ReadError>) -> Result<Found, ErrorCode> {
        match found {
            Ok(Some(found)) if found.0 < self.limit => Ok(found),
            Ok(_) if !self.leadership.confirmed => Err(ErrorCode::OffsetNotAvailable),
            Ok(_) => Ok(NOTHING),
            Err(error) => Err(failed(&error)),
        }
    }
}

fn failed(error: &ReadError) -> ErrorCode {
    warn!(%error, "offsets cannot be listed");
    ErrorCode::KafkaStorageError
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_by_version() {
        let unsupported = Err(ErrorCode::UnsupportedVersion);
        for (timestamp, version, expected) in [
            (-1, 1, Ok(Wanted::Latest)),
            (-2, 1, Ok(Wanted::Earliest)),
            (-3, 6, unsupported),
            (-3, 7, Ok(Wanted::MaxTimestamp)),
            (-4, 7, unsupported),
            (-4, 8, Ok(Wanted::Earliest)),
            (-5, 8, unsupported),
            (-5, 9, Ok(Wanted::Tiered)),
            (-6, 10, unsupported),
            (-6, 11, Ok(Wanted::Tiered)),
            (-7, 11, unsupported),
            (i64::MIN, 11, unsupported),
            (0, 1, Ok(Wanted::At(Timestamp(0)))),
            (i64::MAX, 1, Ok(Wanted::At(Timestamp(i64::MAX)))),
        ] {
            assert_eq!(wanted(timestamp, version), expected, "{timestamp} v{version}");
        }
    }
}
