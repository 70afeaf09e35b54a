//! What a bare loop answers: nothing but that, after a write to a file, or out of a map of it.

use std::array;
use std::fs::File;
use std::io::{ErrorKind, IoSlice};
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use tempfile::TempDir;
use vltava_benches::fixtures::{self, Batch, PRODUCE_VERSION};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{self, Offset, PartitionIndex};
use vltava_protocol::messages::fetch::{FetchPartitionResponse, FetchTopicResponse};
use vltava_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use vltava_protocol::messages::{
    ApiKey, FetchResponse, ProduceResponse, ResponseFrame, encode_response,
};
use vltava_protocol::record::batch::{BATCH_PREFIX_BYTES, BatchHeader};
use vltava_storage::disk::Disk;
use vltava_storage::disk::mapped::MappedDisk;

use super::Service;
use crate::client::topic_name;
use crate::compare::contents::FETCH_VERSION;
use crate::error::{BenchError, foreign, io_error};

/// Bytes of batches in one answer: what a consumer asks of a partition by default.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Parts of a response: its head, a run of batches, and what stands behind them.
const RESPONSE_PARTS: usize = 3;
/// Frame length and correlation id, with which every response begins.
const START_BYTES: usize = 8;
/// Where a request's correlation id stands: behind length, key and version.
const REQUEST_ID: Range<usize> = 8..12;
/// Where a response's stands.
const RESPONSE_ID: Range<usize> = 4..8;
/// Behind the batch of a Produce request: the tags of partition, topic and request.
const PRODUCE_TAIL_BYTES: usize = 3;
/// The only file.
const FILE: &str = "batches";

/// A response: prepared, but for the correlation id.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    start: [u8; START_BYTES],
    /// What is behind it; the last may be empty.
    rest: [Bytes; RESPONSE_PARTS],
}

impl Answer {
    fn new(frame: &ResponseFrame) -> Self {
        let parts = frame.parts();
        assert!(parts.len() <= RESPONSE_PARTS, "one partition has one run");
        let part = |at: usize| parts.get(at).cloned().unwrap_or_default();
        let head = part(0);
        let start = *head.first_chunk().expect("a frame begins with length and correlation id");
        let rest = array::from_fn(|at| if at == 0 { head.slice(START_BYTES..) } else { part(at) });
        Self { start, rest }
    }

    /// The same answer to a request.
    fn to(&self, frame: &[u8]) -> Result<Self, BenchError> {
        let mut answer = self.clone();
        let id = frame.get(REQUEST_ID).ok_or(BenchError::Malformed("a bare loop"))?;
        answer.start[RESPONSE_ID].copy_from_slice(id);
        Ok(answer)
    }

    /// What is to be written, one behind the other.
    pub(super) fn parts(&self) -> [&[u8]; 1 + RESPONSE_PARTS] {
        let [head, run, tail] = &self.rest;
        [&self.start, head, run, tail]
    }

    /// Bytes of all parts.
    pub(super) fn bytes(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }
}

/// Acknowledges Produce requests and does nothing.
#[derive(Debug)]
pub(crate) struct Echo {
    answer: Answer,
}

impl Echo {
    /// For requests to the first partition of `topic`.
    pub(crate) fn new(topic: &str) -> Result<Self, BenchError> {
        let partition = PartitionProduceResponse::default().with_base_offset(0);
        let topic = TopicProduceResponse::default()
            .with_name(topic_name(topic))
            .with_partition_responses(vec![partition]);
        let response = ProduceResponse::default().with_responses(vec![topic]);
        let frame = encode_response(0, ApiKey::Produce, PRODUCE_VERSION, &response);
        Ok(Self { answer: Answer::new(&frame.map_err(foreign("encoding"))?) })
    }
}

impl Service for Echo {
    fn answer(&mut self, _turn: usize, frame: &[u8]) -> Result<Answer, BenchError> {
        self.answer.to(frame)
    }
}

/// Writes the batch of each Produce request behind the one before and gives it its offsets, as a
/// log does, then acknowledges it.
#[derive(Debug)]
pub(crate) struct Sink {
    dir: TempDir,
    file: File,
    echo: Echo,
    /// Where the batch lies in each frame.
    batch: Range<usize>,
    next_offset: i64,
    /// Where each batch ends in the file.
    ends: Vec<u64>,
}

impl Sink {
    /// A sink of requests that carry `batch` for the first partition of `topic`. Its file lies in
    /// a directory of its own below `dir`, which is removed with it.
    pub(crate) fn new(dir: &Path, topic: &str, batch: &Batch) -> Result<Self, BenchError> {
        let failed = || io_error("cannot make a file for a bare loop");
        let dir = TempDir::with_prefix_in("bare-", dir).map_err(failed())?;
        let path = dir.path().join(FILE);
        let file = File::options().write(true).create_new(true).open(path).map_err(failed())?;
        let frame = fixtures::produce_frame(topic, &batch.bytes, 0);
        let end = frame.len() - PRODUCE_TAIL_BYTES;
        let batch = end - batch.bytes.len()..end;
        Ok(Self { dir, file, echo: Echo::new(topic)?, batch, next_offset: 0, ends: Vec::new() })
    }

    /// What answers Fetch requests with what was written.
    pub(crate) fn into_source(self, topic: &str) -> Result<Source, BenchError> {
        let end = self.ends.last().copied().unwrap_or(0);
        let map = || MappedDisk::open(self.dir.path())?.open(Path::new(FILE), end)?.slice(0..end);
        let batches = map().map_err(io_error("cannot map the file of a bare loop"))?;
        let answer = |run: Range<u64>| {
            fetched(topic, self.next_offset, batches.slice(run.start as usize..run.end as usize))
        };
        let answers = runs(&self.ends, ANSWER_BYTES_MAX).into_iter().map(answer);
        Ok(Source { answers: answers.collect::<Result<_, _>>()?, _dir: self.dir })
    }
}

impl Service for Sink {
    fn answer(&mut self, _turn: usize, frame: &[u8]) -> Result<Answer, BenchError> {
        let is_whole = frame.len() == self.batch.end + PRODUCE_TAIL_BYTES;
        let batch = frame.get(self.batch.clone()).filter(|_| is_whole);
        let batch = batch.ok_or(BenchError::Malformed("a bare loop"))?;
        let header = BatchHeader::parse(batch).map_err(foreign("reading a batch"))?;
        let prefix = prefix(batch, self.next_offset);
        let parts = [IoSlice::new(&prefix), IoSlice::new(&batch[BATCH_PREFIX_BYTES..])];
        let position = self.ends.last().copied().unwrap_or(0);
        let written = rustix::io::pwritev(&self.file, &parts, position);
        let written = written.map_err(|error| io_error("cannot write")(error.into()))?;
        if written != batch.len() {
            return Err(io_error("cannot write a whole batch")(ErrorKind::WriteZero.into()));
        }
        self.next_offset += i64::from(header.last_offset_delta) + 1;
        self.ends.push(position + written as u64);
        self.echo.answer.to(frame)
    }
}

/// Answers the requests of each connection with one run of batches after the other.
#[derive(Debug)]
pub(crate) struct Source {
    answers: Vec<Answer>,
    /// Where the mapped file lies.
    _dir: TempDir,
}

impl Service for Source {
    fn answer(&mut self, turn: usize, frame: &[u8]) -> Result<Answer, BenchError> {
        let answer = self.answers.get(turn).ok_or(BenchError::Malformed("a bare loop"))?;
        answer.to(frame)
    }
}

/// All that a leader writes anew: a base offset, and what was there.
fn prefix(batch: &[u8], base_offset: i64) -> [u8; BATCH_PREFIX_BYTES] {
    let mut prefix = *batch.first_chunk().expect("a parsed batch has a prefix");
    prefix[..size_of::<i64>()].copy_from_slice(&base_offset.to_be_bytes());
    prefix
}

/// Cuts batches that end at `ends` into runs of whole ones, each as long as it can be within
/// `bytes_max`, but never empty.
fn runs(ends: &[u64], bytes_max: u64) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    let mut start = 0;
    for &end in ends {
        match runs.last_mut() {
            Some(run) if end - run.start <= bytes_max => run.end = end,
            _ => runs.push(start..end),
        }
        start = end;
    }
    runs
}

/// The answer to a Fetch of the first partition of `topic`.
fn fetched(topic: &str, end_offset: i64, run: Bytes) -> Result<Answer, BenchError> {
    let partition = FetchPartitionResponse {
        high_watermark: Offset(end_offset),
        last_stable_offset: Offset(end_offset),
        log_start_offset: Offset::ZERO,
        records: vec![run],
        ..FetchPartitionResponse::empty(PartitionIndex(0), ErrorCode::None)
    };
    let topic = FetchTopicResponse {
        topic: ids::TopicName::new(topic),
        topic_id: ids::TopicId::default(),
        partitions: vec![partition],
    };
    let response = FetchResponse { topics: vec![topic], ..FetchResponse::default() };
    let frame = response.encode(0, FETCH_VERSION).map_err(foreign("encoding"))?;
    Ok(Answer::new(&frame))
}

#[cfg(test)]
mod tests {
    use super::super::beside;
    use super::*;
    use std::time::Duration;

    use crate::compare::contents::read_back;
    use crate::compare::pump::Pump;
    use vltava_protocol::record::compression::Codec;

    #[test]
    fn runs_are_of_whole_batches() {
        for (ends, bytes_max, expected) in [
            (&[][..], 10, &[][..]),
            (&[4, 8, 12], 10, &[0..8, 8..12]),
            (&[5, 10, 15, 20], 10, &[0..10, 10..20]),
            (&[4, 24, 28], 10, &[0..4, 4..24, 24..28]),
        ] {
            assert_eq!(runs(ends, bytes_max), expected, "{ends:?}");
        }
    }

    #[test]
    fn a_batch_gets_its_base_offset_and_keeps_the_rest() {
        let batch = fixtures::batch(1 << 10, Codec::None).bytes;
        let prefix = prefix(&batch, 0x0102_0304_0506_0708);
        assert_eq!(prefix[..8], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(prefix[8..], batch[8..BATCH_PREFIX_BYTES]);
    }

    #[test]
    fn an_answer_carries_the_correlation_id_of_its_request() {
        let batch = fixtures::batch(1 << 10, Codec::None);
        let frame = fixtures::produce_frame("topic", &batch.bytes, 0x0a0b_0c0d);
        let answer = Echo::new("topic").unwrap().answer(0, &frame).unwrap();
        let bytes = answer.parts().concat();
        assert_eq!(bytes.len(), answer.bytes());
        assert_eq!(bytes[..4], (bytes.len() as i32 - 4).to_be_bytes());
        assert_eq!(bytes[RESPONSE_ID], [0x0a, 0x0b, 0x0c, 0x0d]);
        assert!(Echo::new("topic").unwrap().answer(0, &frame[..11]).is_err());
    }

    #[test]
    fn what_is_produced_to_the_bare_loop_is_read_back_by_many() {
        let (dir, batch) = (tempfile::tempdir().unwrap(), fixtures::batch(64 << 10, Codec::None));
        let mut sink = Sink::new(dir.path(), "topic", &batch).unwrap();
        let pump = Pump {
            topic: "topic",
            partitions: 1,
            acks: -1,
            connections: 1,
            window: 5,
            requests: 100,
            batches: &[batch],
        };
        let (produced, spent) = beside(&mut sink, 1, |address| pump.run(address)).unwrap();
        assert!(spent.processor > Duration::ZERO);
        let mut source = sink.into_source("topic").unwrap();
        let read = |address| read_back(address, ("topic", 1), 3, produced);
        beside(&mut source, 3, read).unwrap();
        drop(source);
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn the_reason_of_a_failure_is_the_loops() {
        let (dir, batch) = (tempfile::tempdir().unwrap(), fixtures::batch(1 << 10, Codec::None));
        let mut sink = Sink::new(dir.path(), "another topic", &batch).unwrap();
        let batches = &[batch];
        let pump = Pump {
            topic: "topic",
            partitions: 1,
            acks: -1,
            connections: 1,
            window: 1,
            requests: 1,
            batches,
        };
        let failed = beside(&mut sink, 1, |address| pump.run(address)).unwrap_err();
        assert!(matches!(failed, BenchError::Malformed("a bare loop")), "{failed}");
    }
}
