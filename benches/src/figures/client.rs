//! The least client that can create a topic and produce to it: one blocking connection.
//!
//! It asks for no versions and no metadata: it measures a broker that it has just started.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Buf, Bytes};
use vltava_benches::fixtures::{self, PRODUCE_VERSION};
use vltava_protocol::messages::create_topics_request::CreatableTopic;
use vltava_protocol::messages::{
    ApiKey, CreateTopicsRequest, CreateTopicsResponse, Decodable, HeaderVersion, ProduceResponse,
    StrBytes, TopicName,
};

use super::{FigureError, io_error};

const CREATE_TOPICS_VERSION: i16 = 7;
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);
/// Longest answer that is expected.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    socket: TcpStream,
    correlation_id: i32,
}

impl Client {
    /// Connects.
    pub(super) fn connect(address: SocketAddr) -> Result<Self, FigureError> {
        let socket = TcpStream::connect(address).map_err(io_error("cannot connect"))?;
        socket.set_nodelay(true).map_err(io_error("cannot set TCP_NODELAY"))?;
        socket.set_read_timeout(Some(ANSWER_WITHIN)).map_err(io_error("cannot set a timeout"))?;
        Ok(Self { socket, correlation_id: 0 })
    }

    /// Creates a topic with one replica a partition.
    pub(super) fn create_topic(&mut self, name: &str, partitions: i32) -> Result<(), FigureError> {
        let topic = CreatableTopic::default()
            .with_name(TopicName(StrBytes::from_string(name.to_owned())))
            .with_num_partitions(partitions)
            .with_replication_factor(1);
        let request =
            CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(60_000);
        let correlation_id = self.next_correlation_id();
        let version = CREATE_TOPICS_VERSION;
        let frame =
            fixtures::request_frame(ApiKey::CreateTopics, version, correlation_id, &request);
        let response: CreateTopicsResponse = self.call(&frame, version, "CreateTopics")?;
        let code = response.topics.first().map(|topic| topic.error_code);
        check("CreateTopics", code)
    }

    /// Produces one batch with `acks=all` to a topic's first partition.
    pub(super) fn produce(&mut self, topic: &str, batch: &Bytes) -> Result<(), FigureError> {
        let correlation_id = self.next_correlation_id();
        let frame = fixtures::produce_frame(topic, batch, correlation_id);
        let response: ProduceResponse = self.call(&frame, PRODUCE_VERSION, "Produce")?;
        let topic = response.responses.first();
        let partition = topic.and_then(|topic| topic.partition_responses.first());
        check("Produce", partition.map(|partition| partition.error_code))
    }

    fn next_correlation_id(&mut self) -> i32 {
        self.correlation_id += 1;
        self.correlation_id
    }

    fn call<R: Decodable + HeaderVersion>(
        &mut self,
        frame: &[u8],
        version: i16,
        what: &'static str,
    ) -> Result<R, FigureError> {
        self.socket.write_all(frame).map_err(io_error(format!("cannot send {what}")))?;
        let mut length = [0; 4];
        let broken = |error| io_error(format!("no answer to {what}"))(error);
        self.socket.read_exact(&mut length).map_err(broken)?;
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > ANSWER_BYTES_MAX {
            return Err(FigureError::Malformed(what));
        }
        let mut answer = vec![0; length];
        self.socket.read_exact(&mut answer).map_err(broken)?;
        let mut answer = Bytes::from(answer);
        // Correlation id, then an empty set of tagged fields where the header has them.
        let head_bytes = if R::header_version(version) >= 1 { 5 } else { 4 };
        let is_ours = answer.first_chunk() == Some(&self.correlation_id.to_be_bytes());
        if !is_ours || answer.len() < head_bytes {
            return Err(FigureError::Malformed(what));
        }
        answer.advance(head_bytes);
        R::decode(&mut answer, version).map_err(|_| FigureError::Malformed(what))
    }
}

fn check(what: &'static str, code: Option<i16>) -> Result<(), FigureError> {
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(FigureError::Refused { what, code }),
        None => Err(FigureError::Malformed(what)),
    }
}
