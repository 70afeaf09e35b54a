//! Reading records: offsets by request, then Fetch, partition leader by partition leader.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use vltava_protocol::ErrorCode;
use vltava_protocol::ids::{NodeId, Offset, PartitionIndex, Timestamp};
use vltava_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use vltava_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use vltava_protocol::record::batch::{BATCH_HEADER_BYTES, BatchHeader, split_batches};
use vltava_protocol::record::compression::{Codec, decompress};
use vltava_protocol::record::record::Records;

use super::connection::Versions;
use super::producer::by_leader;
use super::{Client, ClientError, ClusterTopic, text};

/// How long to wait before asking again who leads a partition.
pub(super) const RETRY_BACKOFF: Duration = Duration::from_millis(100);
/// The most bytes that one batch may inflate to.
const INFLATED_BYTES_MAX: usize = 512 << 20;
/// The most bytes that one Fetch asks for.
const FETCH_BYTES_MAX: i32 = 16 << 20;
/// `ListOffsets` of the first record there is.
pub const EARLIEST: i64 = -2;
/// `ListOffsets` of the end.
pub const LATEST: i64 = -1;
/// Fetch by name: ids come with version 13.
const FETCH: Versions = Versions::of(4, 12);

/// Where reading a partition begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartOffset {
    /// At the first record there is.
    Earliest,
    /// After the last record there is.
    Latest,
    /// At this offset.
    At(Offset),
}

/// One record that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumedRecord {
    /// The partition.
    pub partition: PartitionIndex,
    /// The offset.
    pub offset: Offset,
    /// The timestamp.
    pub timestamp: Timestamp,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// The records of one Fetch, and where each partition goes on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Consumed {
    /// The records, in order within a partition.
    pub records: Vec<ConsumedRecord>,
    /// Whether a partition's leader has moved: look at the cluster again.
    pub moved: bool,
    /// Partitions that do not have their position (any more).
    pub out_of_range: Vec<PartitionIndex>,
}

impl Client {
    /// Finds the first offset whose record is as late as `timestamp`; or [`EARLIEST`], [`LATEST`].
    /// Where there is no such record the answer is -1.
    pub async fn list_offsets(
        &mut self,
        topic: &ClusterTopic,
        partitions: &[PartitionIndex],
        timestamp: i64,
    ) -> Result<BTreeMap<PartitionIndex, Offset>, ClientError> {
        let mut offsets = BTreeMap::new();
        for (leader, partitions) in by_leader(topic, partitions.iter().copied())? {
            let ask = |partition: &PartitionIndex| {
                ListOffsetsPartition::default()
                    .with_partition_index(partition.0)
                    .with_timestamp(timestamp)
            };
            let build = |_| {
                let asked = ListOffsetsTopic::default()
                    .with_name(text(&topic.name).into())
                    .with_partitions(partitions.iter().map(ask).collect());
                ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![asked])
            };
            let response = self.ask_node(leader, Versions::of(1, 7), build).await?;
            for answer in response.topics.iter().flat_map(|topic| &topic.partitions) {
                let partition = PartitionIndex(answer.partition_index);
                let what = || format!("offsets of {}-{partition}", topic.name);
                ClientError::check(what, answer.error_code, None)?;
                offsets.insert(partition, Offset(answer.offset));
            }
        }
        Ok(offsets)
    }

    /// Where these partitions begin.
    pub async fn start_offsets(
        &mut self,
        topic: &ClusterTopic,
        partitions: &[PartitionIndex],
        start: StartOffset,
    ) -> Result<BTreeMap<PartitionIndex, Offset>, ClientError> {
        let timestamp = match start {
            StartOffset::At(offset) => {
                return Ok(partitions.iter().map(|&partition| (partition, offset)).collect());
            }
            StartOffset::Earliest => EARLIEST,
            StartOffset::Latest => LATEST,
        };
        self.list_offsets(topic, partitions, timestamp).await
    }

    /// Reads once from each leader. `positions` is where each partition goes on, and is moved
    /// behind what was read; the answer comes when there is something, or after `wait`.
    pub async fn fetch(
        &mut self,
        topic: &ClusterTopic,
        positions: &mut BTreeMap<PartitionIndex, Offset>,
        wait: Duration,
    ) -> Result<Consumed, ClientError> {
        let mut consumed = Consumed::default();
        let leaders = by_leader(topic, positions.keys().copied())?;
        // With many leaders asked in turn, a quiet one must not hold up the rest.
        let wait = wait / u32::try_from(leaders.len()).unwrap_or(u32::MAX).max(1);
        for (leader, partitions) in leaders {
            self.fetch_from(leader, topic, &partitions, positions, wait, &mut consumed).await?;
        }
        Ok(consumed)
    }

    /// The timestamp of the first record from `offset` on; none if there is none, or the log does
    /// not have that offset.
    pub async fn timestamp_at(
        &mut self,
        topic: &ClusterTopic,
        partition: PartitionIndex,
        offset: Offset,
    ) -> Result<Option<Timestamp>, ClientError> {
        let Some((leader, _)) = by_leader(topic, [partition].into_iter())?.pop_first() else {
            return Ok(None);
        };
        // However little is asked for, the first batch comes whole.
        let wanted = [(partition, offset)].into_iter();
        let build = |_| fetch_request(&topic.name, wanted, Duration::ZERO, 1);
        let response = self.ask_node(leader, FETCH, build).await?;
        ClientError::check(|| format!("fetch from {}", topic.name), response.error_code, None)?;
        let (mut position, mut records) = (offset, Vec::new());
        let mut answers = response.responses.iter().flat_map(|topic| &topic.partitions);
        if let Some(bytes) = answers.next().and_then(|answer| answer.records.as_ref()) {
            read(partition, bytes, &mut position, &mut records).map_err(|reason| {
                ClientError::Records { topic: topic.name.clone(), partition, reason }
            })?;
        }
        Ok(records.first().map(|record| record.timestamp))
    }

    async fn fetch_from(
        &mut self,
        leader: NodeId,
        topic: &ClusterTopic,
        partitions: &[PartitionIndex],
        positions: &mut BTreeMap<PartitionIndex, Offset>,
        wait: Duration,
        consumed: &mut Consumed,
    ) -> Result<(), ClientError> {
        let wanted = partitions.iter().map(|partition| (*partition, positions[partition]));
        let build = |_| fetch_request(&topic.name, wanted, wait, FETCH_BYTES_MAX);
        let response = self.ask_node(leader, FETCH, build).await?;
        ClientError::check(|| format!("fetch from {}", topic.name), response.error_code, None)?;
        for answer in response.responses.iter().flat_map(|topic| &topic.partitions) {
            let partition = PartitionIndex(answer.partition_index);
            let code = ErrorCode::from_code(answer.error_code);
            if matches!(code, Some(ErrorCode::NotLeaderOrFollower | ErrorCode::LeaderNotAvailable))
            {
                consumed.moved = true;
                continue;
            }
            if code == Some(ErrorCode::OffsetOutOfRange) {
                consumed.out_of_range.push(partition);
                continue;
            }
            let what = || format!("fetch from {}-{partition}", topic.name);
            ClientError::check(what, answer.error_code, None)?;
            let (Some(position), Some(records)) = (positions.get_mut(&partition), &answer.records)
            else {
                continue;
            };
            read(partition, records, position, &mut consumed.records).map_err(|reason| {
                ClientError::Records { topic: topic.name.clone(), partition, reason }
            })?;
        }
        Ok(())
    }
}

fn fetch_request(
    topic: &str,
    positions: impl Iterator<Item = (PartitionIndex, Offset)>,
    wait: Duration,
    bytes_max: i32,
) -> FetchRequest {
    let ask = |(partition, offset): (PartitionIndex, Offset)| {
        FetchPartition::default()
            .with_partition(partition.0)
            .with_fetch_offset(offset.0)
            .with_partition_max_bytes(bytes_max)
    };
    let asked = FetchTopic::default()
        .with_topic(text(topic).into())
        .with_partitions(positions.map(ask).collect());
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
        .with_min_bytes(1)
        .with_max_bytes(bytes_max)
        .with_session_epoch(-1)
        .with_topics(vec![asked])
}

/// Takes the records from `position` on out of a Fetch's bytes. Its last batch may be cut off.
fn read(
    partition: PartitionIndex,
    bytes: &Bytes,
    position: &mut Offset,
    records: &mut Vec<ConsumedRecord>,
) -> Result<(), String> {
    for batch in split_batches(bytes) {
        let Ok((header, batch)) = batch else { return Ok(()) };
        if !header.attributes.is_control() {
            read_batch(partition, &header, &batch, *position, records)?;
        }
        // Compaction may have taken the last records of a batch: its end counts, not theirs.
        *position = (*position).max(header.end_offset());
    }
    Ok(())
}

fn read_batch(
    partition: PartitionIndex,
    header: &BatchHeader,
    batch: &Bytes,
    position: Offset,
    records: &mut Vec<ConsumedRecord>,
) -> Result<(), String> {
    let payload = &batch[BATCH_HEADER_BYTES..];
    let codec = header.attributes.codec().ok_or("unknown compression codec")?;
    let mut inflated = Vec::new();
    let payload = if codec == Codec::None {
        payload
    } else {
        decompress(codec, payload, INFLATED_BYTES_MAX, &mut inflated)
            .map_err(|error| error.to_string())?;
        inflated.as_slice()
    };
    for record in Records::new(payload, header.record_count) {
        let record = record.map_err(|error| error.to_string())?;
        let offset = header.base_offset + i64::from(record.offset_delta);
        if offset < position {
            continue;
        }
        records.push(ConsumedRecord {
            partition,
            offset,
            timestamp: header.timestamp_of(record.timestamp_delta),
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record
                .headers
                .iter()
                .map(|header| (header.key.to_vec(), header.value.map(<[u8]>::to_vec)))
                .collect(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vltava_protocol::record::builder::{BatchBuilder, BatchFields};

    use super::*;

    #[test]
    fn reading_starts_in_the_middle_of_a_batch_and_ends_at_a_torn_one() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let mut builder = BatchBuilder::new(codec, None);
            for value in ["a", "b", "c"] {
                builder.append(Timestamp(7), None, Some(value.as_bytes()), &[]);
            }
            let fields = BatchFields { base_offset: Offset(10), ..BatchFields::default() };
            let batch = builder.build(&fields).unwrap();
            let mut bytes = batch.to_vec();
            bytes.extend_from_slice(&batch[..batch.len() - 1]);
            let (mut position, mut records) = (Offset(11), Vec::new());
            read(PartitionIndex(0), &bytes.into(), &mut position, &mut records).unwrap();
            let values: Vec<_> =
                records.iter().map(|r| (r.offset.0, r.value.as_deref().unwrap())).collect();
            assert_eq!(values, [(11, &b"b"[..]), (12, &b"c"[..])]);
            assert_eq!(position, Offset(13));
        }
    }
}
