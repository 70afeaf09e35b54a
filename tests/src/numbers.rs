//! A pipeline whose every output can be computed from its input: what a process that is killed
//! under load is held to.
//!
//! It reads what the producers of [`harness::load`](crate::harness::load) make. Every tenth record
//! of a maker is refused with a reason; of the others each makes one to three parts, and the number
//! says to which of three topics they go. A part names the record that it was made of, and its key
//! is of one maker and one input partition, so its order is known.

use std::fmt;

use vltava_streams::{Reject, Topology, raw, utf8};

use crate::harness::load;

/// The topology's name, and the topic that it reads.
pub const NUMBERS: &str = "numbers";
/// Where refused records go.
pub const REFUSED: &str = "numbers.refused";
/// Why they are refused.
pub const REASON: &str = "ends with a seven";
/// The topics of the parts.
pub const PARTS: [&str; 3] = ["numbers.0", "numbers.1", "numbers.2"];

/// One part of a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Part {
    /// Who made the record.
    pub maker: u32,
    /// The input partition.
    pub partition: i32,
    /// Which of its maker's records it is.
    pub number: u64,
    /// Which of the record's parts this is.
    pub part: u64,
}

impl Part {
    /// All parts of a record, in order; none where it is refused.
    pub fn of(maker: u32, partition: i32, number: u64) -> impl Iterator<Item = Self> {
        let count = if is_refused(number) { 0 } else { 1 + number % 3 };
        (0..count).map(move |part| Self { maker, partition, number, part })
    }

    /// The part that a value names.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(value).ok()?.split(' ');
        let part = Self {
            maker: words.next()?.parse().ok()?,
            partition: words.next()?.parse().ok()?,
            number: words.next()?.parse().ok()?,
            part: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(part)
    }

    /// The key of its output record.
    pub fn key(&self) -> String {
        format!("{}/{}", self.maker, self.partition)
    }

    /// Which of [`PARTS`] it goes to.
    pub fn topic(&self) -> usize {
        (self.number / 10 % 3) as usize
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { maker, partition, number, part } = self;
        write!(f, "{maker} {partition} {number} {part}")
    }
}

/// Whether the pipeline refuses a maker's record of this number.
pub fn is_refused(number: u64) -> bool {
    number % 10 == 7
}

/// The topology: source, `try_map` with rejects, `flat_map`, topics chosen by the record.
pub fn topology() -> Topology {
    let t = Topology::new(NUMBERS);
    let (good, refused) = t.stream(NUMBERS, (raw(), utf8())).try_map(utf8(), |r, out| {
        let made = load::parse(r.value.as_bytes());
        let (maker, number) = made.ok_or_else(|| Reject::new("not of a maker"))?;
        if is_refused(number) {
            return Err(Reject::new(REASON));
        }
        out.text(&format!("{maker} {number}"));
        Ok(())
    });
    refused.to(REFUSED);
    good.flat_map((utf8(), utf8()), |r, out| {
        let (maker, number) = load::parse(r.value.as_bytes()).expect("the node before wrote it");
        for part in Part::of(maker, r.source().partition.0, number) {
            out.emit(Some(part.key().as_bytes()), Some(part.to_string().as_bytes()));
        }
    })
    .to_each(|r, topic| {
        let part = Part::parse(r.value.as_bytes()).expect("the node before wrote it");
        topic.push_str(PARTS[part.topic()]);
    });
    t
}

#[cfg(test)]
mod tests {
    use vltava_streams::testing::{TestDriver, TestRecord};

    use super::*;

    #[test]
    fn the_topology_makes_the_parts_that_are_expected() {
        let mut driver = TestDriver::new(topology().build().unwrap()).partitions(NUMBERS, 2);
        let mut expected = vec![Vec::new(); PARTS.len()];
        for number in 0..40 {
            let partition = vltava_protocol::ids::PartitionIndex((number % 2) as i32);
            let record = TestRecord::new("3", format!("3 {number} xxx")).to_partition(partition);
            driver.send(NUMBERS, record);
            for part in Part::of(3, partition.0, number) {
                expected[part.topic()].push(part);
            }
        }
        for (topic, expected) in PARTS.iter().zip(expected) {
            let read = driver.read(topic);
            let parts = read.iter().map(|record| Part::parse(record.value.as_ref()?));
            assert_eq!(parts.collect::<Option<Vec<_>>>(), Some(expected));
        }
        assert_eq!(driver.read(REFUSED).len(), 4);
    }
}
