//! The Fetch response, versions 4-18, written by hand so that records are never copied.
//!
//! A partition's records are *runs*: slices of segments, between which internal batches or segment
//! ends lie. On the wire they are one field, so its length is the runs' sum, and the runs themselves
//! become parts of the [`ResponseFrame`], wherever their bytes are ([`ResponsePart`]):
//!
//! ```text
//! part 0  frame length | header | … partition 0 … | records length
//! part 1  run 0 of partition 0 (a view of a segment)
//! part 2  run 1 of partition 0
//! part 3  tagged fields of partition 0 | partition 1 … | records length
//! …
//! ```
//! All parts but the runs are slices of one buffer. A field that a version does not have is left
//! out without complaint: the caller fills in what it knows.

use bytes::{BufMut, Bytes, BytesMut};

use super::{ApiKey, EncodeError, ResponseFrame, ResponsePart, put_response_head};
use crate::error_code::ErrorCode;
use crate::frame::FRAME_LENGTH_BYTES;
use crate::ids::{LeaderEpoch, NodeId, Offset, PartitionIndex, ProducerId, TopicId, TopicName};
use crate::record::varint::{put_unsigned, unsigned_bytes};

/// Shorter runs in memory are copied: an entry of a vectored write costs more than so small a copy.
pub const SPLICE_BYTES_MIN: usize = 1024;

const VERSION_MIN: i16 = 4;
const VERSION_MAX: i16 = 18;
const FLEXIBLE_FROM: i16 = 12;

/// Response to a Fetch request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchResponse<P = Bytes> {
    /// How long the client is throttled.
    pub throttle_time_ms: i32,
    /// An error of the whole request or of its session; since v7.
    pub error_code: ErrorCode,
    /// The fetch session, or 0; since v7 (KIP-227).
    pub session_id: i32,
    /// In the order of the request.
    pub topics: Vec<FetchTopicResponse<P>>,
    /// Addresses of the leaders that partitions point to; since v16 (KIP-951).
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// One topic of a Fetch response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchTopicResponse<P = Bytes> {
    /// Written up to v12.
    pub topic: TopicName,
    /// Written from v13 on (KIP-516).
    pub topic_id: TopicId,
    /// In the order of the request.
    pub partitions: Vec<FetchPartitionResponse<P>>,
}

/// One partition of a Fetch response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchPartitionResponse<P = Bytes> {
    /// Which partition of the topic.
    pub partition: PartitionIndex,
    /// Why there are no records.
    pub error_code: ErrorCode,
    /// What a `read_uncommitted` consumer may read up to.
    pub high_watermark: Offset,
    /// What a `read_committed` consumer may read up to, or `NONE`.
    pub last_stable_offset: Offset,
    /// Where the log starts, or `NONE`; since v5.
    pub log_start_offset: Offset,
    /// Where the fetcher's log parts from this one: the largest epoch not above the fetcher's, and
    /// its end; since v12 (KIP-595).
    pub diverging_epoch: Option<(LeaderEpoch, Offset)>,
    /// Who leads instead, and since when; since v12 (KIP-951).
    pub current_leader: Option<(NodeId, LeaderEpoch)>,
    /// What a `read_committed` consumer skips; `None` for a `read_uncommitted` one.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// A nearer replica to read from; since v11 (KIP-392).
    pub preferred_read_replica: Option<NodeId>,
    /// Whole batches, in runs to be written one behind the other; none of them need be non-empty.
    pub records: Vec<P>,
}

/// A transaction whose records are to be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose records.
    pub producer_id: ProducerId,
    /// From which offset on, until the producer's abort marker.
    pub first_offset: Offset,
}

/// Where a broker is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEndpoint {
    /// Which broker.
    pub node_id: NodeId,
    /// Advertised host.
    pub host: String,
    /// Advertised port.
    pub port: i32,
    /// The broker's rack, if it has one.
    pub rack: Option<String>,
}

impl<P> Default for FetchResponse<P> {
    fn default() -> Self {
        Self {
            throttle_time_ms: 0,
            error_code: ErrorCode::None,
            session_id: 0,
            topics: Vec::new(),
            node_endpoints: Vec::new(),
        }
    }
}

impl<P: ResponsePart> FetchPartitionResponse<P> {
    /// A partition without records, as answered with an error.
    pub fn empty(partition: PartitionIndex, error_code: ErrorCode) -> Self {
        Self {
            partition,
            error_code,
            high_watermark: Offset::NONE,
            last_stable_offset: Offset::NONE,
            log_start_offset: Offset::NONE,
            diverging_epoch: None,
            current_leader: None,
            aborted_transactions: None,
            preferred_read_replica: None,
            records: Vec::new(),
        }
    }

    /// Bytes of all runs.
    pub fn records_bytes(&self) -> usize {
        self.records.iter().map(P::bytes).sum()
    }
}

impl<P: ResponsePart> FetchResponse<P> {
    /// Writes the response with its header and frame length. Runs of at least
    /// [`SPLICE_BYTES_MIN`] become parts of the frame as they are.
    pub fn encode(
        &self,
        correlation_id: i32,
        version: i16,
    ) -> Result<ResponseFrame<P>, EncodeError> {
        let failed = |reason: String| EncodeError { api_key: ApiKey::Fetch, version, reason };
        if !(VERSION_MIN..=VERSION_MAX).contains(&version) {
            return Err(failed("unknown version".to_owned()));
        }
        let mut writer = Writer {
            head: BytesMut::with_capacity(self.head_bytes_about()),
            spliced: Vec::new(),
            version,
            flexible: version >= FLEXIBLE_FROM,
        };
        put_response_head(&mut writer.head, correlation_id, i16::from(writer.flexible));
        self.write(&mut writer);
        writer.finish().map_err(|bytes| failed(format!("{bytes} bytes are too many")))
    }

    fn head_bytes_about(&self) -> usize {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        let partitions: usize = partitions
            .map(|partition| {
                let copied = partition.records.iter().filter_map(copied_run);
                let aborted = partition.aborted_transactions.as_ref().map_or(0, Vec::len);
                64 + 17 * aborted + copied.map(Bytes::len).sum::<usize>()
            })
            .sum();
        64 + partitions + self.topics.iter().map(|topic| 32 + topic.topic.len()).sum::<usize>()
    }

    fn write(&self, out: &mut Writer<P>) {
        out.head.put_i32(self.throttle_time_ms);
        if out.version >= 7 {
            out.head.put_i16(self.error_code.code());
            out.head.put_i32(self.session_id);
        }
        out.put_length(self.topics.len());
        for topic in &self.topics {
            topic.write(out);
        }
        if !out.flexible {
            return;
        }
        if out.version < 16 || self.node_endpoints.is_empty() {
            return out.put_tag_count(0);
        }
        let mut endpoints = out.fresh();
        endpoints.put_length(self.node_endpoints.len());
        for endpoint in &self.node_endpoints {
            endpoint.write(&mut endpoints);
        }
        out.put_tag_count(1);
        out.put_tag(0, &endpoints.head);
    }
}

impl<P: ResponsePart> FetchTopicResponse<P> {
    fn write(&self, out: &mut Writer<P>) {
        if out.version >= 13 {
            out.head.put_slice(self.topic_id.0.as_bytes());
        } else {
            out.put_string(&self.topic);
        }
        out.put_length(self.partitions.len());
        for partition in &self.partitions {
            partition.write(out);
        }
        out.put_tag_count(0);
    }
}

impl<P: ResponsePart> FetchPartitionResponse<P> {
    fn write(&self, out: &mut Writer<P>) {
        out.head.put_i32(self.partition.0);
        out.head.put_i16(self.error_code.code());
        out.head.put_i64(self.high_watermark.0);
        out.head.put_i64(self.last_stable_offset.0);
        if out.version >= 5 {
            out.head.put_i64(self.log_start_offset.0);
        }
        match &self.aborted_transactions {
            None => out.put_null(),
            Some(aborted) => {
                out.put_length(aborted.len());
                for transaction in aborted {
                    out.head.put_i64(transaction.producer_id.0);
                    out.head.put_i64(transaction.first_offset.0);
                    out.put_tag_count(0);
                }
            }
        }
        if out.version >= 11 {
            out.head.put_i32(self.preferred_read_replica.map_or(-1, |node| node.0));
        }
        out.put_length(self.records_bytes());
        for run in &self.records {
            out.put_run(run);
        }
        if out.flexible {
            self.write_tags(out);
        }
    }

    fn write_tags(&self, out: &mut Writer<P>) {
        let tags = [self.diverging_epoch.is_some(), self.current_leader.is_some()];
        out.put_tag_count(tags.into_iter().filter(|&is_set| is_set).count());
        if let Some((epoch, end_offset)) = self.diverging_epoch {
            let mut field = out.fresh();
            field.head.put_i32(epoch.0);
            field.head.put_i64(end_offset.0);
            field.put_tag_count(0);
            out.put_tag(0, &field.head);
        }
        if let Some((leader, epoch)) = self.current_leader {
            let mut field = out.fresh();
            field.head.put_i32(leader.0);
            field.head.put_i32(epoch.0);
            field.put_tag_count(0);
            out.put_tag(1, &field.head);
        }
    }
}

impl NodeEndpoint {
    fn write<P: ResponsePart>(&self, out: &mut Writer<P>) {
        out.head.put_i32(self.node_id.0);
        out.put_string(&self.host);
        out.head.put_i32(self.port);
        match &self.rack {
            Some(rack) => out.put_string(rack),
            None => out.put_null(),
        }
        out.put_tag_count(0);
    }
}

/// The bytes of a run that is copied.
fn copied_run<P: ResponsePart>(run: &P) -> Option<&Bytes> {
    run.in_memory().filter(|bytes| bytes.len() < SPLICE_BYTES_MIN)
}

/// Everything but the runs, and where the runs belong.
struct Writer<P> {
    head: BytesMut,
    /// Length of `head` where a run stands, in ascending order.
    spliced: Vec<(usize, P)>,
    version: i16,
    flexible: bool,
}

impl<P: ResponsePart> Writer<P> {
    /// For a tagged field, whose length stands before it.
    fn fresh(&self) -> Self {
        Self { head: BytesMut::new(), spliced: Vec::new(), ..*self }
    }

    /// Length of an array or of bytes.
    fn put_length(&mut self, length: usize) {
        if self.flexible {
            // A longer one than this holds makes the frame too long, which `finish` refuses.
            put_unsigned(&mut self.head, u32::try_from(length + 1).unwrap_or(u32::MAX));
        } else {
            self.head.put_i32(i32::try_from(length).unwrap_or(i32::MAX));
        }
    }

    /// Absence of an array or, of flexible versions only, of a string.
    fn put_null(&mut self) {
        if self.flexible {
            self.head.put_u8(0);
        } else {
            self.head.put_i32(-1);
        }
    }

    fn put_string(&mut self, text: &str) {
        // Names of topics, hosts and racks are far below 32 KiB: they came in such strings.
        debug_assert!(i16::try_from(text.len()).is_ok());
        if self.flexible {
            put_unsigned(&mut self.head, text.len() as u32 + 1);
        } else {
            self.head.put_i16(text.len() as i16);
        }
        self.head.put_slice(text.as_bytes());
    }

    fn put_tag_count(&mut self, count: usize) {
        if self.flexible {
            put_unsigned(&mut self.head, count as u32);
        }
    }

    fn put_tag(&mut self, tag: u32, field: &[u8]) {
        let length = field.len() as u32;
        self.head.reserve(unsigned_bytes(tag) + unsigned_bytes(length) + field.len());
        put_unsigned(&mut self.head, tag);
        put_unsigned(&mut self.head, length);
        self.head.put_slice(field);
    }

    fn put_run(&mut self, run: &P) {
        match copied_run(run) {
            Some(bytes) => self.head.put_slice(bytes),
            None => self.spliced.push((self.head.len(), run.clone())),
        }
    }

    /// The frame, or its bytes where they are more than its length can say.
    fn finish(mut self) -> Result<ResponseFrame<P>, usize> {
        let runs: usize = self.spliced.iter().map(|(_, run)| run.bytes()).sum();
        let bytes = self.head.len() + runs - FRAME_LENGTH_BYTES;
        let length = i32::try_from(bytes).map_err(|_| bytes)?;
        self.head[..FRAME_LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        let head = self.head.freeze();
        let mut parts = Vec::with_capacity(2 * self.spliced.len() + 1);
        let mut written = 0;
        for (at, run) in self.spliced {
            if at > written {
                parts.push(head.slice(written..at).into());
                written = at;
            }
            parts.push(run);
        }
        if head.len() > written {
            parts.push(head.slice(written..).into());
        }
        Ok(ResponseFrame::new(parts))
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::fetch_response as theirs;
    use kafka_protocol::messages::{BrokerId, ProducerId as TheirProducerId};
    use uuid::Uuid;

    use super::super::{StrBytes, encode_response};
    use super::*;

    fn partition(index: i32, runs: &[usize]) -> FetchPartitionResponse {
        let records = runs.iter().map(|&bytes| Bytes::from(vec![index as u8; bytes])).collect();
        FetchPartitionResponse {
            high_watermark: Offset(100),
            last_stable_offset: Offset(90),
            log_start_offset: Offset(5),
            records,
            ..FetchPartitionResponse::empty(PartitionIndex(index), ErrorCode::None)
        }
    }

    fn response() -> FetchResponse {
        let aborted =
            |id| AbortedTransaction { producer_id: ProducerId(id), first_offset: Offset(7) };
        let moved = FetchPartitionResponse {
            current_leader: Some((NodeId(2), LeaderEpoch(9))),
            diverging_epoch: Some((LeaderEpoch(3), Offset(44))),
            ..FetchPartitionResponse::empty(PartitionIndex(4), ErrorCode::NotLeaderOrFollower)
        };
        let topic = |name: &str, id, partitions| FetchTopicResponse {
            topic: TopicName::new(name),
            topic_id: TopicId(Uuid::from_u128(id)),
            partitions,
        };
        let committed = FetchPartitionResponse {
            aborted_transactions: Some(vec![aborted(1), aborted(2)]),
            preferred_read_replica: Some(NodeId(3)),
            ..partition(2, &[10, 2000, 0, 20])
        };
        FetchResponse {
            throttle_time_ms: 12,
            error_code: ErrorCode::None,
            session_id: 77,
            topics: vec![
                topic("vltava", 1, vec![partition(0, &[]), partition(1, &[3000, 5000])]),
                topic("labe", 2, vec![committed, partition(3, &[1024]), moved]),
                topic("morava", 3, vec![]),
            ],
            node_endpoints: vec![
                NodeEndpoint { node_id: NodeId(2), host: "b".into(), port: 9, rack: None },
                NodeEndpoint {
                    node_id: NodeId(3),
                    host: "c".into(),
                    port: 8,
                    rack: Some("r".into()),
                },
            ],
        }
    }

    fn their_partition(ours: &FetchPartitionResponse, version: i16) -> theirs::PartitionData {
        let aborted = |transaction: &AbortedTransaction| {
            theirs::AbortedTransaction::default()
                .with_producer_id(TheirProducerId(transaction.producer_id.0))
                .with_first_offset(transaction.first_offset.0)
        };
        let aborted = ours.aborted_transactions.as_ref().map(|a| a.iter().map(aborted).collect());
        let mut data = theirs::PartitionData::default()
            .with_partition_index(ours.partition.0)
            .with_error_code(ours.error_code.code())
            .with_high_watermark(ours.high_watermark.0)
            .with_last_stable_offset(ours.last_stable_offset.0)
            .with_log_start_offset(ours.log_start_offset.0)
            .with_aborted_transactions(aborted)
            .with_records(Some(Bytes::from(ours.records.concat())));
        if version >= 11 {
            let replica = ours.preferred_read_replica.map_or(-1, |node| node.0);
            data = data.with_preferred_read_replica(BrokerId(replica));
        }
        if version >= FLEXIBLE_FROM {
            if let Some((epoch, end)) = ours.diverging_epoch {
                data.diverging_epoch.epoch = epoch.0;
                data.diverging_epoch.end_offset = end.0;
            }
            if let Some((leader, epoch)) = ours.current_leader {
                data.current_leader.leader_id = BrokerId(leader.0);
                data.current_leader.leader_epoch = epoch.0;
            }
        }
        data
    }

    fn their_response(ours: &FetchResponse, version: i16) -> theirs::FetchResponse {
        let topics = ours.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|p| their_partition(p, version)).collect();
            theirs::FetchableTopicResponse::default()
                .with_topic((&topic.topic).into())
                .with_topic_id(topic.topic_id.0)
                .with_partitions(partitions)
        });
        let mut response = theirs::FetchResponse::default()
            .with_throttle_time_ms(ours.throttle_time_ms)
            .with_error_code(ours.error_code.code())
            .with_responses(topics.collect());
        if version >= 7 {
            response.session_id = ours.session_id;
        }
        if version >= 16 {
            let endpoint = |node: &NodeEndpoint| {
                theirs::NodeEndpoint::default()
                    .with_node_id(BrokerId(node.node_id.0))
                    .with_host(StrBytes::from_string(node.host.clone()))
                    .with_port(node.port)
                    .with_rack(node.rack.clone().map(StrBytes::from_string))
            };
            response.node_endpoints = ours.node_endpoints.iter().map(endpoint).collect();
        }
        response
    }

    #[test]
    fn every_version_equals_the_wire_crates() {
        let empty = FetchResponse { session_id: 0, ..FetchResponse::default() };
        for version in VERSION_MIN..=VERSION_MAX {
            for ours in [response(), empty.clone()] {
                let theirs = their_response(&ours, version);
                let expected = encode_response(5, ApiKey::Fetch, version, &theirs).unwrap();
                let frame = ours.encode(5, version).unwrap();
                assert_eq!(frame.parts().concat(), expected.parts().concat(), "v{version}");
                assert_eq!(frame.bytes(), expected.bytes());
                assert!(frame.parts().iter().all(|part| !part.is_empty()));
            }
        }
    }

    #[test]
    fn long_runs_are_spliced_and_short_ones_copied() {
        let response = response();
        let frame = response.encode(5, 12).unwrap();
        let lengths: Vec<_> = frame.parts().iter().map(Bytes::len).collect();
        assert_eq!([lengths[1], lengths[2], lengths[4], lengths[6]], [3000, 5000, 2000, 1024]);
        let first = &response.topics[0].partitions[1].records[0];
        assert_eq!(frame.parts()[1].as_ptr(), first.as_ptr());
    }

    #[test]
    fn refuses_versions_it_does_not_know() {
        for version in [-1, 3, 19] {
            let error = <FetchResponse>::default().encode(1, version).unwrap_err();
            assert_eq!((error.api_key, error.version), (ApiKey::Fetch, version));
        }
    }
}
