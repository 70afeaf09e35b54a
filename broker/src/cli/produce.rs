//! `vltava produce`: lines of standard input, or of a file, become records.
//!
//! What has arrived at a time is sent as one batch a partition, and acknowledged before the next.
//! So a pipe is sent in large batches, and a person's line at once.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::sync::mpsc;
use vltava_protocol::ids::PartitionIndex;
use vltava_protocol::record::compression::Codec;

use super::progress::Progress;
use super::topic::pair;
use super::{ClientArgs, CommandError, output};
use crate::client::{ClientError, ClusterTopic, Outgoing, partition_of_key};
use crate::clock::Clock;

/// The most lines of one round.
const ROUND_LINES_MAX: usize = 10_000;
/// The most bytes of one round, but for its last line: all of it may go to one partition, whose
/// batch must stay below the broker's limit of a megabyte.
const ROUND_BYTES_MAX: usize = 512 << 10;
/// Bytes of a record beside key, value and headers: its length, deltas, and their lengths.
const RECORD_FRAME_BYTES: usize = 20;
/// Bytes of a header beside key and value: two lengths.
const HEADER_FRAME_BYTES: usize = 10;
/// How many rounds are read before they are sent.
const ROUNDS_AHEAD_MAX: usize = 4;
/// How often a batch is sent that a broker refuses because it does not lead the partition.
const ATTEMPTS: u32 = 50;

/// `vltava produce`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  echo 'hello' | vltava produce rivers
  vltava produce rivers --key-separator : --header source=sensor < measurements.txt
  vltava produce rivers --partition 0 --compression zstd --acks all --file big.txt")]
pub struct ProduceArgs {
    /// The topic. It is created if it is missing and the broker allows that.
    topic: String,
    /// Read this file, not standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
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
    let input = Input::of(args.file.as_deref())?;
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
    let mut progress = input.bytes.map_or_else(Progress::none, Progress::bytes);
    let mut rounds = read_rounds(input.source, framing_bytes(&args.headers));
    let (mut records, mut round) = (0, 0);
    while let Some(lines) = rounds.recv().await {
        let lines = lines.map_err(|error| CommandError::Io { what: input.name.clone(), error })?;
        let bytes = lines.iter().map(|line| line.len() as u64 + 1).sum();
        let to_record = |line: Vec<u8>| {
            let (key, value) = split(line, separator);
            let partition = choose(&topic, args.partition, key.as_deref(), round);
            Outgoing { partition, key, value, headers: headers(&args), timestamp: clock.now() }
        };
        let batch: Vec<Outgoing> = lines.into_iter().map(to_record).collect();
        let (codec, acks) = (codec(args.compression), acks(args.acks));
        let sent = client.produce(&topic, &batch, codec, acks, ATTEMPTS).await?;
        records += sent.iter().map(|sent| sent.records).sum::<usize>();
        round += 1;
        progress.add(bytes);
    }
    drop(progress);
    if args.client.json {
        return output::json(&json!({ "topic": args.topic, "records": records }));
    }
    output::line(&format!("{records} records written to {}", args.topic))
}

/// Where lines come from.
struct Input {
    name: String,
    source: Box<dyn Read + Send>,
    /// How much there is, if that is known.
    bytes: Option<u64>,
}

impl Input {
    #[allow(clippy::disallowed_methods, reason = "a file of the user's, not of the broker's")]
    fn of(path: Option<&Path>) -> Result<Self, CommandError> {
        let (name, file) = match path {
            Some(path) => (path.display().to_string(), File::open(path)),
            // A redirected file has a length too.
            None => (
                "standard input".to_owned(),
                std::io::stdin().as_fd().try_clone_to_owned().map(File::from),
            ),
        };
        let file = file.map_err(|error| CommandError::Io { what: name.clone(), error })?;
        let regular = file.metadata().ok().filter(std::fs::Metadata::is_file);
        Ok(Self { name, source: Box::new(file), bytes: regular.map(|file| file.len()) })
    }
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

/// Reads on a thread of its own. A round is what one read of the pipe gave, so that
/// a person's line does not wait for a second one. The channel is bounded, so that a file larger
/// than memory is read as fast as it is sent.
fn read_rounds(
    source: Box<dyn Read + Send>,
    framing: usize,
) -> mpsc::Receiver<std::io::Result<Vec<Vec<u8>>>> {
    let (sender, receiver) = mpsc::channel(ROUNDS_AHEAD_MAX);
    std::thread::spawn(move || {
        let mut input = BufReader::with_capacity(ROUND_BYTES_MAX, source);
        loop {
            let round = next_round(&mut input, framing);
            let is_failed = round.is_err();
            let is_end = matches!(&round, Ok(lines) if lines.is_empty());
            if is_end || sender.blocking_send(round).is_err() || is_failed {
                return;
            }
        }
    });
    receiver
}

/// Bytes that each record has beside its line.
fn framing_bytes(headers: &[(String, String)]) -> usize {
    let header = |(key, value): &(String, String)| HEADER_FRAME_BYTES + key.len() + value.len();
    RECORD_FRAME_BYTES + headers.iter().map(header).sum::<usize>()
}

/// Waits for a line and takes all that have arrived with it; empty at the end of input. Each counts
/// `framing` bytes beside its own.
fn next_round<R: Read>(input: &mut BufReader<R>, framing: usize) -> std::io::Result<Vec<Vec<u8>>> {
    let (mut round, mut bytes) = (Vec::new(), 0);
    while round.len() < ROUND_LINES_MAX && bytes < ROUND_BYTES_MAX {
        if !round.is_empty() && !input.buffer().contains(&b'\n') {
            break;
        }
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        bytes += line.len() + framing;
        while line.last().is_some_and(|&byte| byte == b'\n' || byte == b'\r') {
            line.pop();
        }
        round.push(line);
    }
    Ok(round)
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

    #[test]
    fn headers_count_toward_a_round() {
        let header = [("k".to_owned(), "x".repeat(ROUND_BYTES_MAX / 2))];
        let mut input = BufReader::new(&b"a\nb\nc\n"[..]);
        assert_eq!(next_round(&mut input, framing_bytes(&header)).unwrap().len(), 2);
        assert_eq!(next_round(&mut input, framing_bytes(&header)).unwrap().len(), 1);
    }

    #[test]
    fn a_round_takes_what_has_arrived() {
        let mut input = BufReader::with_capacity(8, &b"a\r\nbb\n\ncc\ndddd"[..]);
        let mut rounds = Vec::new();
        loop {
            let round = next_round(&mut input, framing_bytes(&[])).unwrap();
            if round.is_empty() {
                break;
            }
            rounds
                .push(round.into_iter().map(|l| String::from_utf8(l).unwrap()).collect::<Vec<_>>());
        }
        assert_eq!(rounds, [vec!["a", "bb", ""], vec!["cc"], vec!["dddd"]]);
    }
}
