//! Sending records: one batch per partition and request, acknowledged before the next.

use std::collections::BTreeMap;

use bytes::Bytes;
use vltava_protocol::ErrorCode;
use vltava_protocol::ids::{NodeId, Offset, PartitionIndex, Timestamp};
use vltava_protocol::messages::ProduceRequest;
use vltava_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use vltava_protocol::record::builder::{BatchBuilder, BatchFields};
use vltava_protocol::record::compression::Codec;
use vltava_protocol::record::record::Header;

use super::connection::Versions;
use super::{Client, ClientError, ClusterPartition, ClusterTopic, text};

/// Produce by name: ids come with version 13.
const PRODUCE: Versions = Versions::of(3, 12);

/// A record to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// Where it goes.
    pub partition: PartitionIndex,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers, in order.
    pub headers: Vec<(String, Bytes)>,
    /// When it was made.
    pub timestamp: Timestamp,
}

/// Where a batch went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    /// The partition.
    pub partition: PartitionIndex,
    /// How many records.
    pub records: usize,
    /// The offset of the first; none when the broker was not asked to answer.
    pub base_offset: Option<Offset>,
}

impl Client {
    /// Sends records to a topic, one batch a partition, and waits for the acknowledgments. A broker
    /// that does not lead a partition any more did nothing with its batch: that one is sent again
    /// after a new look at the cluster, `attempts` times.
    pub async fn produce(
        &mut self,
        topic: &ClusterTopic,
        records: &[Outgoing],
        codec: Codec,
        acks: i16,
        attempts: u32,
    ) -> Result<Vec<Sent>, ClientError> {
        let mut batches = batches(topic, records, codec)?;
        let mut topic = topic.clone();
        let mut sent = Vec::new();
        for attempt in 1.. {
            let mut moved = None;
            for (leader, partitions) in by_leader(&topic, batches.keys().copied())? {
                let wanted: BTreeMap<_, _> =
                    partitions.iter().map(|index| (*index, batches[index].1.clone())).collect();
                let answers = self.produce_to(leader, &topic.name, wanted, acks).await?;
                for (partition, answer) in answers {
                    match answer {
                        Ok(base_offset) => {
                            let (records, _) = batches.remove(&partition).expect("it was sent");
                            sent.push(Sent { partition, records, base_offset });
                        }
                        Err(error) => moved = Some(error),
                    }
                }
            }
            match moved {
                None => break,
                Some(error) if attempt >= attempts => return Err(error),
                Some(_) => {
                    tokio::time::sleep(super::consumer::RETRY_BACKOFF).await;
                    topic = self.topic(&topic.name, false).await?;
                }
            }
        }
        sent.sort_by_key(|sent| sent.partition);
        Ok(sent)
    }

    /// Sends the batches of one leader. The inner error of a partition is one that may be retried.
    #[allow(clippy::type_complexity, reason = "one answer a partition, read by one caller")]
    async fn produce_to(
        &mut self,
        leader: NodeId,
        topic: &str,
        batches: BTreeMap<PartitionIndex, Bytes>,
        acks: i16,
    ) -> Result<Vec<(PartitionIndex, Result<Option<Offset>, ClientError>)>, ClientError> {
        let partitions: Vec<PartitionIndex> = batches.keys().copied().collect();
        let timeout = self.timeout();
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        let build = |_| {
            let data = |(index, batch): (PartitionIndex, Bytes)| {
                PartitionProduceData::default().with_index(index.0).with_records(Some(batch))
            };
            let data = TopicProduceData::default()
                .with_name(text(topic).into())
                .with_partition_data(batches.into_iter().map(data).collect());
            ProduceRequest::default()
                .with_acks(acks)
                .with_timeout_ms(timeout_ms)
                .with_topic_data(vec![data])
        };
        if acks == 0 {
            self.node(leader).await?.tell(PRODUCE, timeout, build).await?;
            return Ok(partitions.into_iter().map(|partition| (partition, Ok(None))).collect());
        }
        let response = match self.ask_node(leader, PRODUCE, build).await {
            Ok(response) => response,
            Err(error) => {
                self.forget(leader);
                return Err(error);
            }
        };
        let mut answers = Vec::new();
        for answer in response.responses.iter().flat_map(|topic| &topic.partition_responses) {
            let partition = PartitionIndex(answer.index);
            let result = ClientError::check(
                || format!("produce to {topic}-{partition}"),
                answer.error_code,
                answer.error_message.as_ref(),
            );
            match result {
                Ok(()) => answers.push((partition, Ok(Some(Offset(answer.base_offset))))),
                Err(error) if leadership_moved(answer.error_code) => {
                    answers.push((partition, Err(error)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(answers)
    }
}

/// Whether a broker refused a batch untouched because it is not the leader.
fn leadership_moved(code: i16) -> bool {
    matches!(
        ErrorCode::from_code(code),
        Some(
            ErrorCode::NotLeaderOrFollower
                | ErrorCode::LeaderNotAvailable
                | ErrorCode::UnknownTopicOrPartition
                | ErrorCode::FencedLeaderEpoch
        )
    )
}

/// Builds one batch a partition, in the order of the records.
fn batches(
    topic: &ClusterTopic,
    records: &[Outgoing],
    codec: Codec,
) -> Result<BTreeMap<PartitionIndex, (usize, Bytes)>, ClientError> {
    let mut builders: BTreeMap<PartitionIndex, (usize, BatchBuilder)> = BTreeMap::new();
    for record in records {
        let (count, builder) =
            builders.entry(record.partition).or_insert_with(|| (0, BatchBuilder::new(codec, None)));
        let headers: Vec<Header<'_>> = record
            .headers
            .iter()
            .map(|(key, value)| Header { key: key.as_bytes(), value: Some(value) })
            .collect();
        builder.append(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
        *count += 1;
    }
    let build = |(partition, (count, mut builder)): (PartitionIndex, (usize, BatchBuilder))| {
        let batch = builder.build(&BatchFields::default()).map_err(|error| {
            let (topic, reason) = (topic.name.clone(), error.to_string());
            ClientError::Records { topic, partition, reason }
        })?;
        Ok((partition, (count, batch)))
    };
    builders.into_iter().map(build).collect()
}

/// Groups partitions by the node that leads them.
pub(super) fn by_leader(
    topic: &ClusterTopic,
    partitions: impl Iterator<Item = PartitionIndex>,
) -> Result<BTreeMap<NodeId, Vec<PartitionIndex>>, ClientError> {
    let mut leaders: BTreeMap<NodeId, Vec<PartitionIndex>> = BTreeMap::new();
    for index in partitions {
        let place = || format!("{}-{index}", topic.name);
        let missing = || ClientError::Missing(format!("{} does not exist", place()));
        let is_it = |partition: &&ClusterPartition| partition.index == index;
        let partition = topic.partitions.iter().find(is_it).ok_or_else(missing)?;
        // It will have one again: this is no other error than a broker's that says so.
        let leader = partition.leader.ok_or_else(|| ClientError::Refused {
            what: place(),
            code: ErrorCode::LeaderNotAvailable.code(),
            message: None,
        })?;
        leaders.entry(leader).or_default().push(index);
    }
    Ok(leaders)
}
