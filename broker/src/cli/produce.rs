//! `vltava produce`: lines of standard input become records.
//!
//! A thread reads lines into a bounded channel; what has arrived by then is sent as one batch a
//! partition, and acknowledged before the next. So a pipe is sent in large batches, and a person's
//! line at once.

use std::io::BufRead;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::sync::mpsc;
use vltava_protocol::ids::PartitionIndex;
use vltava_protocol::record::compression::Codec;

use super::topic::pair;
use super::{ClientArgs, CommandError, output};
use crate::client::{ClientError, ClusterTopic, Outgoing, partition_of_key};
use crate::clock::Clock;

/// The most lines of one round.
const ROUND_LINES_MAX: usize = 10_000;
/// The most bytes of one round: all of it may go to one partition, whose batch must stay below the
/// broker's limit of a megabyte, with room for what frames the records.
const ROUND_BYTES_MAX: usize = 900 << 10;
/// How often a batch is sent that a broker refuses because it does not lead the partition.
const ATTEMPTS: u32 = 50;

/// `vltava produce`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  echo 'hello' | vltava produce rivers
  vltava produce rivers --key-separator : --header source=sensor < measurements.txt
  vltava produce rivers --partition 0 --compression zstd --acks all < big.txt")]
pub struct ProduceArgs {
    /// The topic. It is created if it is missing and the broker allows that.
    topic: String,
    /// Text between key and value of a line; without it, lines have no key.
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// A header for every record. May be repeated.
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = pair)]
    headers: Vec<(String, String)>,
    /// The partition of all records; without it, by key as Java does, or round by round.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// How batches are compressed.
    #[arg(long, value_enum, default_value_t = Compression::None)]
    compression: Compression,
    /// When a batch counts as written: by nobody's word, the leader's, or a majority's.
    #[arg(long, value_enum, default_value_t = AcksArg::All)]
    acks: AcksArg,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum AcksArg {
    #[value(name = "0")]
    Zero,
    #[value(name = "1")]
    One,
    #[value(name = "all", alias = "-1")]
    All,
}

/// Runs the command.
pub async fn run(args: ProduceArgs) -> Result<(), CommandError> {
    let mut client = args.client.connect().await?;
    let topic = client.topic(&args.topic, true).await;
    let mut topic = match topic {
        Err(ClientError::Refused { .. }) => awaited_topic(&mut client, &args.topic).await?,
        topic => topic?,
    };
    if topic.partitions.iter().any(|partition| partition.leader.is_none()) {
        topic = awaited_topic(&mut client, &args.topic).await?;
    }
    let separator = args.key_separator.as_deref().map(str::as_bytes);
    let clock = Clock::system();
    let mut lines = read_lines();
    let (mut records, mut round) = (0, 0);
    while let Some(batch) = next_round(&mut lines).await? {
        let to_record = |line: Vec<u8>| {
            let (key, value) = split(line, separator);
            let partition = choose(&topic, args.partition, key.as_deref(), round);
            Outgoing { partition, key, value, headers: headers(&args), timestamp: clock.now() }
        };
        let batch: Vec<Outgoing> = batch.into_iter().map(to_record).collect();
        let (codec, acks) = (codec(args.compression), acks(args.acks));
        let sent = client.produce(&topic, &batch, codec, acks, ATTEMPTS).await?;
        records += sent.iter().map(|sent| sent.records).sum::<usize>();
        round += 1;
    }
    if args.client.json {
        return output::json(&json!({ "topic": args.topic, "records": records }));
    }
    output::line(&format!("{records} records written to {}", args.topic))
}

/// A topic that was just created may have no leaders yet: look again for as long as a request may
/// take.
async fn awaited_topic(
    client: &mut crate::client::Client,
    name: &str,
) -> Result<ClusterTopic, CommandError> {
    let patience = client.timeout();
    let ask = async {
        loop {
            match client.topic(name, true).await {
                Ok(topic) if topic.partitions.iter().all(|p| p.leader.is_some()) => {
                    return Ok(topic);
                }
                Err(error @ ClientError::Refused { .. }) if !may_come(&error) => {
                    return Err(error);
                }
                Ok(_) | Err(ClientError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    match tokio::time::timeout(patience, ask).await {
        Ok(topic) => Ok(topic?),
        Err(_) => {
            Err(ClientError::Missing(format!("topic {name} has partitions without leader")).into())
        }
    }
}

/// Whether a topic that is refused now may be there in a moment.
fn may_come(error: &ClientError) -> bool {
    let ClientError::Refused { code, .. } = error else { return false };
    vltava_protocol::ErrorCode::from_code(*code)
        .is_some_and(vltava_protocol::ErrorCode::is_retriable)
}

/// Reads standard input on a thread of its own. The channel is bounded, so that a file larger than
/// memory is read as fast as it is sent.
fn read_lines() -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(ROUND_LINES_MAX);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            match input.read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => {
                    while line.last().is_some_and(|&byte| byte == b'\n' || byte == b'\r') {
                        line.pop();
                    }
                    if sender.blocking_send(Ok(line)).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    let _ = sender.blocking_send(Err(error));
                    return;
                }
            }
        }
    });
    receiver
}

/// Waits for a line and takes all that have arrived; none at the end of input.
async fn next_round(
    lines: &mut mpsc::Receiver<std::io::Result<Vec<u8>>>,
) -> Result<Option<Vec<Vec<u8>>>, CommandError> {
    let failed = |error| CommandError::Io { what: "standard input".to_owned(), error };
    let Some(first) = lines.recv().await else { return Ok(None) };
    let mut round = vec![first.map_err(failed)?];
    let mut bytes = round[0].len();
    while round.len() < ROUND_LINES_MAX && bytes < ROUND_BYTES_MAX / 2 {
        let Ok(line) = lines.try_recv() else { break };
        let line = line.map_err(failed)?;
        bytes += line.len();
        round.push(line);
    }
    Ok(Some(round))
}

/// Key and value of a line. A line without the separator is all value.
fn split(line: Vec<u8>, separator: Option<&[u8]>) -> (Option<Bytes>, Option<Bytes>) {
    let line = Bytes::from(line);
    let place = separator.filter(|separator| !separator.is_empty()).and_then(|separator| {
        let place = line.windows(separator.len()).position(|window| window == separator)?;
        Some((place, place + separator.len()))
    });
    match place {
        Some((end, start)) => (Some(line.slice(..end)), Some(line.slice(start..))),
        None => (None, Some(line)),
    }
}

/// The partition of a record: the one that was asked for, else its key's, else this round's.
fn choose(
    topic: &ClusterTopic,
    asked: Option<i32>,
    key: Option<&[u8]>,
    round: usize,
) -> PartitionIndex {
    let partitions = topic.partitions.len().max(1);
    match (asked, key) {
        (Some(partition), _) => PartitionIndex(partition),
        (None, Some(key)) => partition_of_key(key, partitions as i32),
        (None, None) => PartitionIndex((round % partitions) as i32),
    }
}

fn headers(args: &ProduceArgs) -> Vec<(String, Bytes)> {
    let bytes = |value: &String| Bytes::copy_from_slice(value.as_bytes());
    args.headers.iter().map(|(key, value)| (key.clone(), bytes(value))).collect()
}

fn codec(compression: Compression) -> Codec {
    match compression {
        Compression::None => Codec::None,
        Compression::Gzip => Codec::Gzip,
        Compression::Snappy => Codec::Snappy,
        Compression::Lz4 => Codec::Lz4,
        Compression::Zstd => Codec::Zstd,
    }
}

fn acks(acks: AcksArg) -> i16 {
    match acks {
        AcksArg::Zero => 0,
        AcksArg::One => 1,
        AcksArg::All => -1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_split_at_the_first_separator() {
        let check = |line: &str, separator: Option<&str>, expected: (Option<&str>, &str)| {
            let (key, value) = split(line.as_bytes().to_vec(), separator.map(str::as_bytes));
            assert_eq!(key.as_deref(), expected.0.map(str::as_bytes), "{line}");
            assert_eq!(value.as_deref(), Some(expected.1.as_bytes()), "{line}");
        };
        check("k:v:w", Some(":"), (Some("k"), "v:w"));
        check("k=>v", Some("=>"), (Some("k"), "v"));
        check(":v", Some(":"), (Some(""), "v"));
        check("plain", Some(":"), (None, "plain"));
        check("k:v", None, (None, "k:v"));
        check("k:v", Some(""), (None, "k:v"));
    }

    #[tokio::test]
    async fn a_round_takes_what_has_arrived() {
        let (sender, mut lines) = mpsc::channel(10);
        for line in ["a", "b"] {
            sender.send(Ok(line.as_bytes().to_vec())).await.unwrap();
        }
        assert_eq!(next_round(&mut lines).await.unwrap().unwrap().len(), 2);
        drop(sender);
        assert!(next_round(&mut lines).await.unwrap().is_none());
    }
}
