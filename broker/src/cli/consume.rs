//! `vltava consume`: records of a topic, one line each.

use std::collections::BTreeMap;
use std::io::Write;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::time::Instant;
use vltava_protocol::ids::{Offset, PartitionIndex};

use super::{ClientArgs, CommandError, output};
use crate::client::{Client, ClusterTopic, ConsumedRecord, StartOffset};

/// The longest wait of one Fetch, and half the time its answer may take at most.
const FETCH_WAIT_MAX: Duration = Duration::from_millis(500);
/// `ListOffsets` of the first record there is.
const EARLIEST: i64 = -2;
/// `ListOffsets` of the end.
const LATEST: i64 = -1;

/// `vltava consume`.
#[derive(Debug, Args)]
#[command(after_help = "Formats: %k key, %v value, %o offset, %p partition, %t timestamp in ms,
%h headers, %% a percent sign; \\n and \\t as usual. A format without \\n gets one at its end.

Examples:
  vltava consume rivers --from-beginning
  vltava consume rivers --partition 0 --offset 17 --max-messages 3 --format '%p:%o %k %v'
  vltava consume rivers --from-beginning --timeout 1000 --format json")]
pub struct ConsumeArgs {
    /// The topic.
    topic: String,
    /// Begin at the first record there is; without it, at the end.
    #[arg(long, conflicts_with = "offset")]
    from_beginning: bool,
    /// Only this partition.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Begin here: a number, earliest or latest.
    #[arg(long, value_name = "N|earliest|latest", default_value = "latest")]
    offset: StartOffset,
    /// Stop after so many records.
    #[arg(long, value_name = "N")]
    max_messages: Option<u64>,
    /// How a record is printed: a format, or json.
    #[arg(long, value_name = "FORMAT", default_value = "%v")]
    format: Format,
    /// Stop when no record has come for so long.
    #[arg(long, value_name = "MS")]
    timeout: Option<u64>,
    #[command(flatten)]
    client: ClientArgs,
}

impl FromStr for StartOffset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            number => match number.parse() {
                Ok(offset) if offset >= 0 => Ok(Self::At(Offset(offset))),
                _ => Err("not a number, earliest or latest".to_owned()),
            },
        }
    }
}

/// How records are printed.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Format {
    Json,
    Parts(Vec<Part>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Text(String),
    Key,
    Value,
    Offset,
    Partition,
    Timestamp,
    Headers,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(format: &str) -> Result<Self, String> {
        if format == "json" {
            return Ok(Self::Json);
        }
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            let part = match (c, c == '%' || c == '\\') {
                (c, false) => {
                    plain.push(c);
                    continue;
                }
                (escape, true) => match (escape, chars.next()) {
                    ('%', Some('k')) => Part::Key,
                    ('%', Some('v')) => Part::Value,
                    ('%', Some('o')) => Part::Offset,
                    ('%', Some('p')) => Part::Partition,
                    ('%', Some('t')) => Part::Timestamp,
                    ('%', Some('h')) => Part::Headers,
                    (escape, Some(c)) => {
                        plain.push(literal(escape, c)?);
                        continue;
                    }
                    (escape, None) => return Err(format!("{escape} at the end")),
                },
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(part);
        }
        if !plain.ends_with('\n') {
            plain.push('\n');
        }
        parts.push(Part::Text(plain));
        Ok(Self::Parts(parts))
    }
}

fn literal(escape: char, c: char) -> Result<char, String> {
    match (escape, c) {
        ('%', '%') => Ok('%'),
        ('\\', 'n') => Ok('\n'),
        ('\\', 't') => Ok('\t'),
        ('\\', '\\') => Ok('\\'),
        _ => Err(format!("unknown {escape}{c}")),
    }
}

/// Runs the command.
pub async fn run(args: ConsumeArgs) -> Result<(), CommandError> {
    let interrupted = tokio::signal::ctrl_c();
    tokio::select! {
        done = consume(args) => done,
        _ = interrupted => Ok(()),
    }
}

async fn consume(args: ConsumeArgs) -> Result<(), CommandError> {
    let mut client = args.client.connect().await?;
    let mut topic = client.topic(&args.topic, false).await?;
    let mut positions = start(&mut client, &topic, &args).await?;
    let format = if args.client.json { &Format::Json } else { &args.format };
    let quiet_max = args.timeout.map(Duration::from_millis);
    let mut left = args.max_messages.unwrap_or(u64::MAX);
    let mut heard = Instant::now();
    while left > 0 {
        let quiet_left = quiet_max.map(|quiet| quiet.saturating_sub(heard.elapsed()));
        let wait = fetch_wait(client.timeout(), quiet_left);
        let mut consumed = client.fetch(&topic, &mut positions, wait).await?;
        if consumed.moved {
            topic = client.topic(&args.topic, false).await?;
        }
        if !consumed.records.is_empty() {
            heard = Instant::now();
            consumed.records.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left -= consumed.records.len() as u64;
            print(&consumed.records, format).map_err(CommandError::output)?;
        } else if quiet_max.is_some_and(|quiet| heard.elapsed() >= quiet) {
            break;
        }
    }
    Ok(())
}

/// How long a Fetch may wait: less than its answer may take, lest a quiet topic look like a dead
/// broker, and no longer than the command itself waits for a record.
fn fetch_wait(request_timeout: Duration, quiet_left: Option<Duration>) -> Duration {
    let most = FETCH_WAIT_MAX.min(request_timeout / 2);
    quiet_left.map_or(most, |quiet| quiet.min(most))
}

/// Where each partition begins.
async fn start(
    client: &mut Client,
    topic: &ClusterTopic,
    args: &ConsumeArgs,
) -> Result<BTreeMap<PartitionIndex, Offset>, CommandError> {
    let all = topic.partitions.iter().map(|partition| partition.index);
    let partitions: Vec<PartitionIndex> = match args.partition {
        None => all.collect(),
        Some(index) => vec![PartitionIndex(index)],
    };
    let offset = if args.from_beginning { StartOffset::Earliest } else { args.offset };
    let timestamp = match offset {
        StartOffset::At(offset) => {
            return Ok(partitions.into_iter().map(|partition| (partition, offset)).collect());
        }
        StartOffset::Earliest => EARLIEST,
        StartOffset::Latest => LATEST,
    };
    Ok(client.list_offsets(topic, &partitions, timestamp).await?)
}

fn print(records: &[ConsumedRecord], format: &Format) -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for record in records {
        match format {
            Format::Json => writeln!(out, "{}", as_json(record))?,
            Format::Parts(parts) => {
                for part in parts {
                    write_part(&mut out, part, record)?;
                }
            }
        }
    }
    out.flush()
}

fn write_part(out: &mut impl Write, part: &Part, record: &ConsumedRecord) -> std::io::Result<()> {
    match part {
        Part::Text(text) => out.write_all(text.as_bytes()),
        Part::Key => out.write_all(record.key.as_deref().unwrap_or_default()),
        Part::Value => out.write_all(record.value.as_deref().unwrap_or_default()),
        Part::Offset => write!(out, "{}", record.offset),
        Part::Partition => write!(out, "{}", record.partition),
        Part::Timestamp => write!(out, "{}", record.timestamp),
        Part::Headers => {
            for (place, (key, value)) in record.headers.iter().enumerate() {
                if place > 0 {
                    out.write_all(b",")?;
                }
                out.write_all(key)?;
                out.write_all(b"=")?;
                out.write_all(value.as_deref().unwrap_or_default())?;
            }
            Ok(())
        }
    }
}

fn as_json(record: &ConsumedRecord) -> Value {
    let header = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| {
        json!([output::bytes(Some(key)), output::bytes(value.as_deref())])
    };
    json!({
        "partition": record.partition.0,
        "offset": record.offset.0,
        "timestamp": record.timestamp.0,
        "key": output::bytes(record.key.as_deref()),
        "value": output::bytes(record.value.as_deref()),
        "headers": record.headers.iter().map(header).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use vltava_protocol::ids::Timestamp;

    use super::*;

    fn record() -> ConsumedRecord {
        ConsumedRecord {
            partition: PartitionIndex(2),
            offset: Offset(17),
            timestamp: Timestamp(99),
            key: Some(b"k".to_vec()),
            value: None,
            headers: vec![(b"a".to_vec(), Some(b"1".to_vec())), (b"b".to_vec(), None)],
        }
    }

    #[test]
    fn formats_print_what_they_name() {
        let check = |format: &str, expected: Result<&str, &str>| {
            let printed = format.parse::<Format>().map(|format| {
                let Format::Parts(parts) = format else { panic!("{format:?}") };
                let mut out = Vec::new();
                for part in &parts {
                    write_part(&mut out, part, &record()).unwrap();
                }
                String::from_utf8(out).unwrap()
            });
            assert_eq!(printed.as_deref().map_err(String::as_str), expected, "{format}");
        };
        check("%p:%o %t %k=%v [%h]", Ok("2:17 99 k= [a=1,b=]\n"));
        check("100%% %k\\t\\n", Ok("100% k\t\n"));
        check("", Ok("\n"));
        check("%x", Err("unknown %x"));
        check("%", Err("% at the end"));
        check("\\q", Err("unknown \\q"));
        assert_eq!("json".parse(), Ok(Format::Json));
    }

    #[test]
    fn a_fetch_waits_less_than_its_answer_may_take() {
        for (timeout, quiet, expected) in [
            (30_000, None, 500),
            (30_000, Some(200), 200),
            (30_000, Some(5_000), 500),
            (500, None, 250),
            (100, Some(70), 50),
        ] {
            let wait = fetch_wait(Duration::from_millis(timeout), quiet.map(Duration::from_millis));
            assert_eq!(wait.as_millis(), expected, "{timeout} {quiet:?}");
        }
    }

    #[test]
    fn json_keeps_absent_values_apart_from_empty_ones() {
        let json = as_json(&record());
        assert_eq!(json["value"], Value::Null);
        assert_eq!(json["headers"], json!([["a", "1"], ["b", null]]));
    }
}
