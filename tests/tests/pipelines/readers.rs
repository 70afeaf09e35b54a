//! What a topic holds, as a line for each record, told by three: the test driver, librdkafka and
//! the Java client.
//!
//! A line is `TOPIC PARTITION OFFSET TIME KEY VALUE NAME=VALUE…`, bytes in hexadecimal behind an x,
//! what is absent as a minus; partition by partition, in the order of the offsets.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::metadata::MetadataPartition;
use rdkafka::{Offset, TopicPartitionList};
use vltava_streams::testing::TestRecord;
use vltava_tests::harness::toolchain::{self, Toolchain};
use vltava_tests::harness::{Tested, process};

/// How long a reader may take for everything.
const DEADLINE: Duration = Duration::from_mins(2);

/// The lines of what the test driver has read from a topic.
pub(crate) fn expected(topic: &str, records: &[TestRecord]) -> Tested<Vec<String>> {
    let mut partitions: BTreeMap<i32, Vec<&TestRecord>> = BTreeMap::new();
    for record in records {
        let partition = record.partition.ok_or("the driver says where a record is")?;
        partitions.entry(partition.0).or_default().push(record);
    }
    let mut lines = Vec::new();
    for (partition, records) in partitions {
        for (offset, record) in records.into_iter().enumerate() {
            let time = record.timestamp.ok_or("the driver says when a record is")?.0;
            let headers = record.headers.iter().map(|(name, value)| (&**name, value.as_deref()));
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            lines.push(line(topic, partition, offset as i64, time, key, value, headers));
        }
    }
    Ok(lines)
}

/// The lines that librdkafka reads.
pub(crate) fn librdkafka(bootstrap: &str, topics: &[String]) -> Tested<Vec<String>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "unused")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        // Requests of one connection wait for each other, and a Fetch waits this long.
        .set("fetch.wait.max.ms", "10")
        .create()?;
    let mut lines = Vec::new();
    for topic in topics {
        let metadata = consumer.fetch_metadata(Some(topic), DEADLINE)?;
        let mut partitions: Vec<i32> =
            metadata.topics()[0].partitions().iter().map(MetadataPartition::id).collect();
        partitions.sort_unstable();
        for partition in partitions {
            read(&consumer, topic, partition, &mut lines)?;
        }
    }
    Ok(lines)
}

fn read(consumer: &BaseConsumer, topic: &str, partition: i32, lines: &mut Vec<String>) -> Tested {
    let (start, end) = consumer.fetch_watermarks(topic, partition, DEADLINE)?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, Offset::Offset(start))?;
    consumer.assign(&assignment)?;
    let give_up = Instant::now() + DEADLINE;
    let mut next = start;
    while next < end {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            let message = message?;
            next = message.offset() + 1;
            lines.push(line_of(&message)?);
        } else if Instant::now() >= give_up {
            return Err(Failed::from(format!("{topic} [{partition}]: {next}, not {end}")));
        }
    }
    Ok(())
}

fn line_of(message: &BorrowedMessage<'_>) -> Tested<String> {
    let headers = message.headers();
    let headers = headers.iter().flat_map(|headers| headers.iter());
    Ok(line(
        message.topic(),
        message.partition(),
        message.offset(),
        message.timestamp().to_millis().ok_or("a record has a time")?,
        message.key(),
        message.payload(),
        headers.map(|header| (header.key, header.value)),
    ))
}

/// The lines that Apache Kafka's Java client reads.
pub(crate) fn java(bootstrap: &str, topics: &[String]) -> Toolchain<Vec<String>> {
    let java = match toolchain::java()? {
        Ok(java) => java,
        Err(missing) => return Ok(Err(missing)),
    };
    let mut command = java.command("Dump");
    let output = process::succeed(command.arg(bootstrap).args(topics), b"", DEADLINE)?;
    Ok(Ok(output.stdout.lines().map(str::to_owned).collect()))
}

fn line<'a>(
    topic: &str,
    partition: i32,
    offset: i64,
    time: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
) -> String {
    let (key, value) = (hexadecimal(key), hexadecimal(value));
    let record = format!("{topic} {partition} {offset} {time} {key} {value}");
    let headers = headers.map(|(name, value)| format!(" {name}={}", hexadecimal(value)));
    std::iter::once(record).chain(headers).collect()
}

fn hexadecimal(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else { return "-".to_owned() };
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    std::iter::once("x".to_owned()).chain(digits).collect()
}
