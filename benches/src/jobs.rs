//! What pipelines do in the benchmarks: as a topology, and once more as a plain function that says
//! what must come out.
//!
//! `peers/kafka-streams/Pipelines.java` has the same jobs under the same names for Kafka Streams.

use vltava_streams::{Json, JsonFormat, Raw, Record, Topology, bytes, json, raw};

/// What is put before a value.
const MARK: &[u8] = b"seen:";
/// The level from which on a document is kept: about half of them.
const LEVEL_CM_MIN: i64 = 450;

/// One job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Job {
    /// Puts something before each value.
    Mark,
    /// The same for the half of the records whose key is even.
    FilterMark,
    /// Checks a JSON document, keeps high levels, and lets one field stand for the document.
    Pick,
    /// A record for each word, with the key of the text.
    Split,
}

impl Job {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Mark, Self::FilterMark, Self::Pick, Self::Split];

    /// What it is called where it is asked for.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mark => "mark",
            Self::FilterMark => "filter-mark",
            Self::Pick => "pick",
            Self::Split => "split",
        }
    }

    /// The job of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|job| job.name() == name)
    }

    /// The job as a topology that reads one topic and writes another.
    pub fn topology(self, application: &str, source: &str, sink: &str) -> Topology {
        let topology = Topology::new(application);
        match self {
            Self::Mark => {
                let stream = topology.stream(source, (raw(), bytes()));
                stream
                    .map_values(bytes(), |record, out| {
                        out.bytes(MARK).bytes(record.value);
                    })
                    .to(sink);
            }
            Self::FilterMark => {
                let stream = topology.stream(source, (bytes(), bytes()));
                stream
                    .filter(|record| is_even(record.key))
                    .map_values(bytes(), |record, out| {
                        out.bytes(MARK).bytes(record.value);
                    })
                    .to(sink);
            }
            Self::Pick => {
                let stream = topology.stream(source, (raw(), json()));
                stream.filter(is_high).project(raw(), station).to(sink);
            }
            Self::Split => {
                let stream = topology.stream(source, (raw(), bytes()));
                stream
                    .flat_map((raw(), bytes()), |record, out| {
                        for word in words(record.value) {
                            out.emit(record.key, Some(word));
                        }
                    })
                    .to(sink);
            }
        }
        topology
    }

    /// What must come out of a record, key and value of each.
    ///
    /// # Panics
    /// When the record is not one that this job takes.
    pub fn outputs(self, key: &[u8], value: &[u8], mut each: impl FnMut(&[u8], &[u8])) {
        match self {
            Self::FilterMark if !is_even(key) => {}
            Self::Mark | Self::FilterMark => each(key, &[MARK, value].concat()),
            Self::Pick => {
                let document: serde_json::Value =
                    serde_json::from_slice(value).expect("the job takes JSON documents");
                if document["level_cm"].as_i64() >= Some(LEVEL_CM_MIN) {
                    let station = document["station"].as_str().expect("a document has a station");
                    each(key, station.as_bytes());
                }
            }
            Self::Split => words(value).for_each(|word| each(key, word)),
        }
    }
}

fn is_even(key: &[u8]) -> bool {
    key.last().is_some_and(|last| last.is_multiple_of(2))
}

fn is_high(record: Record<'_, Raw, JsonFormat>) -> bool {
    record.value.get("level_cm").and_then(Json::as_i64) >= Some(LEVEL_CM_MIN)
}

fn station(record: Record<'_, Raw, JsonFormat>) -> Option<&[u8]> {
    record.value.get("station").and_then(Json::str).map(str::as_bytes)
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b' ')
}

#[cfg(test)]
mod tests {
    use vltava_protocol::record::batch::{BATCH_HEADER_BYTES, BatchHeader};
    use vltava_protocol::record::compression::Codec;
    use vltava_protocol::record::record::Records;
    use vltava_streams::testing::{TestDriver, TestRecord};

    use super::*;
    use crate::fixtures::{Values, batch_of};

    #[test]
    fn a_topology_does_what_its_job_says() {
        for (job, values) in [
            (Job::Mark, Values::Noise(100)),
            (Job::FilterMark, Values::Noise(100)),
            (Job::Pick, Values::Documents),
            (Job::Split, Values::Words),
        ] {
            assert_eq!(Job::by_name(job.name()), Some(job));
            let batch = batch_of(values, 3, 8 << 10, Codec::None).bytes;
            let mut driver = TestDriver::new(job.topology("test", "in", "out").build().unwrap());
            let mut expected = Vec::new();
            let header = BatchHeader::parse(&batch).unwrap();
            for record in Records::new(&batch[BATCH_HEADER_BYTES..], header.record_count) {
                let record = record.unwrap();
                let (key, value) = (record.key.unwrap(), record.value.unwrap());
                job.outputs(key, value, |key, value| expected.push(TestRecord::new(key, value)));
                driver.send("in", TestRecord::new(key, value));
            }
            let out = driver.read("out");
            let out: Vec<_> = out
                .into_iter()
                .map(|record| TestRecord::new(record.key.unwrap(), record.value.unwrap()))
                .collect();
            assert!(!out.is_empty(), "{job:?}");
            assert_eq!(out, expected, "{job:?}");
        }
    }
}
