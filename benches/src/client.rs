//! The least client that a benchmark needs around its load: one blocking connection.
//!
//! It asks for no versions: Apache Kafka 4.3 and we serve the ones it speaks.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use vltava_benches::fixtures::{self, PRODUCE_VERSION};
use vltava_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use vltava_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use vltava_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, BrokerId, CreateTopicsRequest,
    CreateTopicsResponse, Decodable, DeleteTopicsRequest, DeleteTopicsResponse, Encodable,
    HeaderVersion, ListOffsetsRequest, ListOffsetsResponse, ProduceResponse, StrBytes, TopicName,
};

use crate::error::{BenchError, io_error};

const API_VERSIONS_VERSION: i16 = 0;
const CREATE_TOPICS_VERSION: i16 = 7;
const DELETE_TOPICS_VERSION: i16 = 5;
const LIST_OFFSETS_VERSION: i16 = 7;
/// `ListOffsetsRequest.LATEST_TIMESTAMP`.
const LATEST: i64 = -1;
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_mins(2);
/// Longest answer that is expected: offsets of ten thousand partitions.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How often a broker is asked whether it is ready by now.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    socket: TcpStream,
    correlation_id: i32,
}

impl Client {
    /// Connects.
    pub(crate) fn connect(address: SocketAddr) -> Result<Self, BenchError> {
        let socket = TcpStream::connect(address).map_err(io_error("cannot connect"))?;
        socket.set_nodelay(true).map_err(io_error("cannot set TCP_NODELAY"))?;
        socket.set_read_timeout(Some(ANSWER_WITHIN)).map_err(io_error("cannot set a timeout"))?;
        Ok(Self { socket, correlation_id: 0 })
    }

    /// Creates a topic with one replica a partition.
    pub(crate) fn create_topic(&mut self, name: &str, partitions: i32) -> Result<(), BenchError> {
        self.create_topic_with(name, partitions, Vec::new())
    }

    fn create_topic_with(
        &mut self,
        name: &str,
        partitions: i32,
        configs: Vec<CreatableTopicConfig>,
    ) -> Result<(), BenchError> {
        let topic = CreatableTopic::default()
            .with_configs(configs)
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(1);
        let request =
            CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(60_000);
        let response: CreateTopicsResponse =
            self.call(ApiKey::CreateTopics, CREATE_TOPICS_VERSION, &request, "CreateTopics")?;
        let code = response.topics.first().map(|topic| topic.error_code);
        check("CreateTopics", code)
    }

    /// Creates a topic and waits until each of its partitions answers.
    pub(crate) fn create_ready_topic(
        &mut self,
        name: &str,
        partitions: i32,
    ) -> Result<(), BenchError> {
        self.create_topic(name, partitions)?;
        until_served(|| self.end_offsets(name, partitions).map(drop))
    }

    /// The same, of a topic whose records stay however old they are.
    pub(crate) fn create_lasting_topic(
        &mut self,
        name: &str,
        partitions: i32,
    ) -> Result<(), BenchError> {
        let retention = CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str("retention.ms"))
            .with_value(Some(StrBytes::from_static_str("-1")));
        self.create_topic_with(name, partitions, vec![retention])?;
        until_served(|| self.end_offsets(name, partitions).map(drop))
    }

    /// Deletes a topic.
    pub(crate) fn delete_topic(&mut self, name: &str) -> Result<(), BenchError> {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![topic_name(name)])
            .with_timeout_ms(60_000);
        let response: DeleteTopicsResponse =
            self.call(ApiKey::DeleteTopics, DELETE_TOPICS_VERSION, &request, "DeleteTopics")?;
        let code = response.responses.first().map(|topic| topic.error_code);
        check("DeleteTopics", code)
    }

    /// Produces one batch with `acks=all` to a topic's first partition.
    pub(crate) fn produce(&mut self, topic: &str, batch: &Bytes) -> Result<(), BenchError> {
        self.correlation_id += 1;
        let frame = fixtures::produce_frame(topic, batch, self.correlation_id);
        let response: ProduceResponse = self.exchange(&frame, PRODUCE_VERSION, "Produce")?;
        let topic = response.responses.first();
        let partition = topic.and_then(|topic| topic.partition_responses.first());
        check("Produce", partition.map(|partition| partition.error_code))
    }

    /// The end offsets of a topic's partitions, in order.
    pub(crate) fn end_offsets(
        &mut self,
        topic: &str,
        partitions: i32,
    ) -> Result<Vec<i64>, BenchError> {
        let partition = |index| {
            ListOffsetsPartition::default().with_partition_index(index).with_timestamp(LATEST)
        };
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions((0..partitions).map(partition).collect());
        let request =
            ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let response: ListOffsetsResponse =
            self.call(ApiKey::ListOffsets, LIST_OFFSETS_VERSION, &request, "ListOffsets")?;
        let mut ends = vec![-1; partitions.unsigned_abs() as usize];
        for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
            check("ListOffsets", Some(partition.error_code))?;
            let end = usize::try_from(partition.partition_index).ok();
            *end.and_then(|index| ends.get_mut(index))
                .ok_or(BenchError::Malformed("ListOffsets"))? = partition.offset;
        }
        Ok(ends)
    }

    /// Whether the broker says that it serves this API.
    pub(crate) fn serves(&mut self, api: ApiKey) -> Result<bool, BenchError> {
        let request = ApiVersionsRequest::default();
        let response: ApiVersionsResponse =
            self.call(ApiKey::ApiVersions, API_VERSIONS_VERSION, &request, "ApiVersions")?;
        Ok(response.api_keys.iter().any(|served| served.api_key == api as i16))
    }

    fn call<Q, R>(
        &mut self,
        api: ApiKey,
        version: i16,
        request: &Q,
        what: &'static str,
    ) -> Result<R, BenchError>
    where
        Q: Encodable + HeaderVersion,
        R: Decodable + HeaderVersion,
    {
        self.correlation_id += 1;
        let frame = fixtures::request_frame(api, version, self.correlation_id, request);
        self.exchange(&frame, version, what)
    }

    /// Sends a frame that carries the current correlation id, and reads its answer.
    fn exchange<R: Decodable + HeaderVersion>(
        &mut self,
        frame: &[u8],
        version: i16,
        what: &'static str,
    ) -> Result<R, BenchError> {
        self.socket.write_all(frame).map_err(io_error(format!("cannot send {what}")))?;
        let mut length = [0; 4];
        let broken = |error| io_error(format!("no answer to {what}"))(error);
        self.socket.read_exact(&mut length).map_err(broken)?;
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > ANSWER_BYTES_MAX {
            return Err(BenchError::Malformed(what));
        }
        let mut answer = vec![0; length];
        self.socket.read_exact(&mut answer).map_err(broken)?;
        decode(Bytes::from(answer), self.correlation_id, version, what)
    }
}

/// Reads a response, its length already taken off, that must answer `correlation_id`.
pub(crate) fn decode<R: Decodable + HeaderVersion>(
    mut answer: Bytes,
    correlation_id: i32,
    version: i16,
    what: &'static str,
) -> Result<R, BenchError> {
    // Correlation id, then an empty set of tagged fields where the header has them.
    let head_bytes = if R::header_version(version) >= 1 { 5 } else { 4 };
    let is_ours = answer.first_chunk() == Some(&correlation_id.to_be_bytes());
    if !is_ours || answer.len() < head_bytes {
        return Err(BenchError::Malformed(what));
    }
    answer.advance(head_bytes);
    R::decode(&mut answer, version).map_err(|_| BenchError::Malformed(what))
}

/// Tries until the broker serves it: a new topic's partitions, or all of a new broker, come into
/// service some time after they are created. Any other error ends the attempts.
pub(crate) fn until_served<T>(
    mut attempt: impl FnMut() -> Result<T, BenchError>,
) -> Result<T, BenchError> {
    /// `UNKNOWN_TOPIC_OR_PARTITION`, `LEADER_NOT_AVAILABLE`, `NOT_LEADER_OR_FOLLOWER`,
    /// `BROKER_NOT_AVAILABLE`, `OFFSET_NOT_AVAILABLE`.
    const NOT_YET: [i16; 5] = [3, 5, 6, 8, 78];
    let end = Instant::now() + ANSWER_WITHIN;
    loop {
        match attempt() {
            Err(BenchError::Refused { code, .. }) if NOT_YET.contains(&code) => {}
            Err(BenchError::Io { .. }) => {}
            done => return done,
        }
        if Instant::now() > end {
            return Err(BenchError::TooLong("coming into service"));
        }
        thread::sleep(ASK_AGAIN_AFTER);
    }
}

/// A name as the wire crate has it.
pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// Turns an error code, if there is one, into an error.
pub(crate) fn check(what: &'static str, code: Option<i16>) -> Result<(), BenchError> {
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(BenchError::Refused { what, code }),
        None => Err(BenchError::Malformed(what)),
    }
}
