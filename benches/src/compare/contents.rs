//! What is in a topic: how it is read back, and that it is what was produced.
//!
//! A producer of ours counts the records it was acknowledged and adds up the checksums of their
//! batches, which a broker must not change; a reader checks each checksum and does the same. Equal
//! counts and sums, and offsets without a gap, are the proof that nothing was lost, doubled or
//! damaged.
//!
//! What a pipeline writes is batched as it likes. There the sum is of a hash of each record's key
//! and value, so that neither batches nor the order of records count.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::FetchResponse;
use vltava_benches::fixtures;
use vltava_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use vltava_protocol::messages::{ApiKey, BrokerId, FetchRequest};
use vltava_protocol::record::batch::{BATCH_HEADER_BYTES, BatchHeader, split_batches, verify_crc};
use vltava_protocol::record::record::{Record, Records};

use super::wire::{Wire, wait};
use crate::client::{check, decode, topic_name};
use crate::error::BenchError;

/// The version of a reader's requests: the last that names topics by name.
pub(crate) const FETCH_VERSION: i16 = 12;
/// A consumer's defaults: `fetch.max.bytes`, `max.partition.fetch.bytes`, `fetch.max.wait.ms`.
const FETCH_BYTES_MAX: i32 = 50 << 20;
const PARTITION_BYTES_MAX: i32 = 1 << 20;
const FETCH_WAIT_MS: i32 = 500;
/// A reader that gets nothing new for so long gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where the checksum of a batch stands.
const CRC_AT: usize = 17;

/// Records, and the sum of their batches' checksums or of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// How many records.
    pub(crate) records: u64,
    /// The sum of the checksums.
    pub(crate) digest: u64,
}

impl Contents {
    /// Adds one batch, `times` times.
    pub(crate) fn add(&mut self, batch: &[u8], records: u64, times: u64) {
        let crc = batch[CRC_AT..].first_chunk().map_or(0, |crc| u32::from_be_bytes(*crc));
        self.records += records * times;
        self.digest = self.digest.wrapping_add(u64::from(crc).wrapping_mul(times));
    }

    /// Adds one record.
    pub(crate) fn add_record(&mut self, key: &[u8], value: &[u8]) {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        value.hash(&mut hasher);
        self.records += 1;
        self.digest = self.digest.wrapping_add(hasher.finish());
    }

    /// The same, `times` times.
    pub(crate) fn times(self, times: u64) -> Self {
        let (records, digest) = (self.records * times, self.digest.wrapping_mul(times));
        Self { records, digest }
    }

    /// Adds what is in another.
    pub(crate) fn add_all(&mut self, other: Self) {
        self.records += other.records;
        self.digest = self.digest.wrapping_add(other.digest);
    }

    /// An error unless `self`, which was consumed, is what was produced.
    pub(crate) fn must_equal(self, produced: Self) -> Result<(), BenchError> {
        if self == produced {
            return Ok(());
        }
        let [produced, consumed] = [produced, self].map(|it| format!("{it:?}"));
        Err(BenchError::Mismatch { produced, consumed })
    }
}

/// Reads all partitions of a topic from their beginning, one request at a time.
#[derive(Debug)]
pub(crate) struct Reader {
    topic: String,
    /// The next offset of each partition.
    next: Vec<i64>,
    correlation_id: i32,
    contents: Contents,
}

impl Reader {
    /// A reader at the beginning of a topic.
    pub(crate) fn new(topic: &str, partitions: i32) -> Self {
        let next = vec![0; partitions.unsigned_abs() as usize];
        Self { topic: topic.to_owned(), next, correlation_id: 0, contents: Contents::default() }
    }

    /// What was read so far.
    pub(crate) fn contents(&self) -> Contents {
        self.contents
    }

    /// The next request. It begins with another partition each time: what fits no more into an
    /// answer must come first in a later one.
    pub(crate) fn request(&mut self) -> Bytes {
        self.correlation_id += 1;
        let count = self.next.len();
        let first = self.correlation_id.unsigned_abs() as usize % count;
        let partition = |at: usize| {
            FetchPartition::default()
                .with_partition(at as i32)
                .with_current_leader_epoch(-1)
                .with_fetch_offset(self.next[at])
                .with_partition_max_bytes(PARTITION_BYTES_MAX)
        };
        let partitions = (first..first + count).map(|at| partition(at % count)).collect();
        let topic =
            FetchTopic::default().with_topic(topic_name(&self.topic)).with_partitions(partitions);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(FETCH_WAIT_MS)
            .with_min_bytes(1)
            .with_max_bytes(FETCH_BYTES_MAX)
            .with_session_id(0)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        fixtures::request_frame(ApiKey::Fetch, FETCH_VERSION, self.correlation_id, &request)
    }

    /// Takes an answer; shows each new batch to `each`.
    pub(crate) fn take(
        &mut self,
        answer: Bytes,
        mut each: impl FnMut(&BatchHeader, &Bytes),
    ) -> Result<(), BenchError> {
        let response: FetchResponse = decode(answer, self.correlation_id, FETCH_VERSION, "Fetch")?;
        check("Fetch", Some(response.error_code))?;
        for data in response.responses.into_iter().flat_map(|topic| topic.partitions) {
            check("Fetch", Some(data.error_code))?;
            let index = usize::try_from(data.partition_index).ok();
            let next = index.and_then(|index| self.next.get_mut(index));
            let next = next.ok_or(BenchError::Malformed("Fetch"))?;
            for batch in split_batches(&data.records.unwrap_or_default()) {
                // The last batch may be cut off by the limit of the answer.
                let Ok((header, batch)) = batch else { break };
                if header.base_offset.0 != *next || !verify_crc(&batch) {
                    let produced = format!("a batch at offset {next}");
                    let consumed = format!("a damaged one, or offset {}", header.base_offset.0);
                    return Err(BenchError::Mismatch { produced, consumed });
                }
                *next = header.end_offset().0;
                self.contents.add(&batch, u64::from(header.record_count.unsigned_abs()), 1);
                each(&header, &batch);
            }
        }
        Ok(())
    }
}

/// The records of an uncompressed batch.
pub(crate) fn records_of<'a>(
    header: &BatchHeader,
    batch: &'a Bytes,
) -> impl Iterator<Item = Record<'a>> {
    Records::new(&batch[BATCH_HEADER_BYTES..], header.record_count).map_while(Result::ok)
}

/// Reads a topic with several consumers at once, each of them all of it, until each has as many
/// records as `produced`; what they read must be that.
pub(crate) fn read_back(
    address: SocketAddr,
    place: (&str, i32),
    consumers: usize,
    produced: Contents,
) -> Result<(), BenchError> {
    let readers = read(address, place, consumers, produced.records, |_, _| {})?;
    readers.iter().try_for_each(|reader| reader.contents().must_equal(produced))
}

/// Reads a topic that a pipeline has written. Its records must be `expected`, in whatever order.
pub(crate) fn read_records(
    address: SocketAddr,
    place: (&str, i32),
    expected: Contents,
) -> Result<(), BenchError> {
    let mut contents = Contents::default();
    read(address, place, 1, expected.records, |header, batch| {
        for record in records_of(header, batch) {
            let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
            contents.add_record(key, value);
        }
    })?;
    contents.must_equal(expected)
}

/// Reads a topic with several consumers at once, until each has so many records, or none comes any
/// more.
fn read(
    address: SocketAddr,
    (topic, partitions): (&str, i32),
    consumers: usize,
    records: u64,
    mut each: impl FnMut(&BatchHeader, &Bytes),
) -> Result<Vec<Reader>, BenchError> {
    let mut readers: Vec<Reader> = (0..consumers).map(|_| Reader::new(topic, partitions)).collect();
    let mut wires = Vec::with_capacity(consumers);
    for reader in &mut readers {
        let mut wire = Wire::connect(address)?;
        wire.send(&reader.request())?;
        wires.push(wire);
    }
    let mut reading = consumers;
    let mut quiet_since = Instant::now();
    while reading > 0 && quiet_since.elapsed() < PATIENCE {
        wait(&mut wires, PATIENCE)?;
        for (reader, wire) in readers.iter_mut().zip(&mut wires) {
            let Some(answer) = wire.next()? else { continue };
            let before = reader.contents().records;
            reader.take(answer, &mut each)?;
            if reader.contents().records > before {
                quiet_since = Instant::now();
            }
            if reader.contents().records >= records {
                reading -= 1;
            } else {
                wire.send(&reader.request())?;
            }
        }
    }
    Ok(readers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_records_does_not_count_but_everything_else_does() {
        let of = |records: &[(&str, &str)]| {
            let mut contents = Contents::default();
            for (key, value) in records {
                contents.add_record(key.as_bytes(), value.as_bytes());
            }
            contents
        };
        let two = of(&[("a", "1"), ("b", "2")]);
        assert_eq!(two, of(&[("b", "2"), ("a", "1")]));
        for other in
            [&[("a", "2"), ("b", "1")], &[("a", "1"), ("a", "1")], &[("a1", ""), ("b", "2")]]
        {
            assert!(of(other).must_equal(two).is_err());
        }
        let mut twice = two;
        twice.add_all(two);
        assert_eq!(twice, two.times(2));
    }
}
