//! `vltava consume`: records of a topic, one line each.
//!
//! By itself it reads the partitions that it is told to, and leaves no trace. With `--group` it is
//! a member of a group, see `group`.

mod format;
mod group;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;
use vltava_protocol::ErrorCode;
use vltava_protocol::ids::{Offset, PartitionIndex};

use super::progress::Progress;
use super::{ClientArgs, CommandError};
use crate::client::{Client, ClientError, ClusterTopic, ConsumedRecord, StartOffset};
use format::Format;

/// The longest wait of one Fetch, and half the time its answer may take at most.
const FETCH_WAIT_MAX: Duration = Duration::from_millis(500);

/// `vltava consume`.
#[derive(Debug, Args)]
#[command(after_help = "Formats: %k key, %v value, %o offset, %p partition, %t timestamp in ms,
%h headers, %% a percent sign; \\n and \\t as usual. A format without \\n gets one at its end.

A member of a group begins where the group has committed, else where --from-beginning or --offset
says. It commits what it has printed, and leaves when it is interrupted.

Examples:
  vltava consume rivers --from-beginning
  vltava consume rivers --partition 0 --offset 17 --max-messages 3 --format '%p:%o %k %v'
  vltava consume rivers --from-beginning --timeout 1000 --format json
  vltava consume rivers --group maps --from-beginning      run it twice: they share the partitions")]
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
    #[arg(long, visible_alias = "max", value_name = "N")]
    max_messages: Option<u64>,
    /// How a record is printed: a format, or json.
    #[arg(long, value_name = "FORMAT", default_value = "%v")]
    format: Format,
    /// Stop when no record has come for so long.
    #[arg(long, value_name = "MS")]
    timeout: Option<u64>,
    #[command(flatten)]
    group: group::GroupArgs,
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

impl ConsumeArgs {
    fn start(&self) -> StartOffset {
        if self.from_beginning { StartOffset::Earliest } else { self.offset }
    }
}

/// Runs the command.
pub async fn run(args: ConsumeArgs) -> Result<(), CommandError> {
    if args.group.is_given() {
        return group::consume(args).await;
    }
    tokio::select! {
        done = consume(args) => done,
        () = interrupted() => Ok(()),
    }
}

/// Waits for Ctrl-C.
async fn interrupted() {
    // Where no handler can be set the signal ends the process by itself.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn consume(args: ConsumeArgs) -> Result<(), CommandError> {
    let mut client = args.client.connect().await?;
    let mut topic = client.topic(&args.topic, false).await?;
    let mut positions = start(&mut client, &topic, &args).await?;
    let mut printer = Printer::new(&args);
    while let Some(wait) = printer.next_wait(client.timeout()) {
        let consumed = client.fetch(&topic, &mut positions, wait).await?;
        if let Some(partition) = consumed.out_of_range.first() {
            return Err(out_of_range(&topic, *partition, positions[partition]).into());
        }
        if consumed.moved {
            topic = client.topic(&args.topic, false).await?;
        }
        printer.print(consumed.records)?;
    }
    Ok(())
}

fn out_of_range(topic: &ClusterTopic, partition: PartitionIndex, offset: Offset) -> ClientError {
    ClientError::Refused {
        what: format!("fetch from {}-{partition} at offset {offset}", topic.name),
        code: ErrorCode::OffsetOutOfRange.code(),
        message: None,
    }
}

/// Prints records until there have been enough, or none for too long.
struct Printer {
    format: Format,
    left: u64,
    quiet_max: Option<Duration>,
    heard: Instant,
    progress: Progress,
}

impl Printer {
    fn new(args: &ConsumeArgs) -> Self {
        // Where the records themselves scroll by, a bar would only be in their way.
        let is_counted = !std::io::stdout().is_terminal();
        let total = args.max_messages.filter(|_| is_counted);
        Self {
            format: if args.client.json { Format::Json } else { args.format.clone() },
            left: args.max_messages.unwrap_or(u64::MAX),
            quiet_max: args.timeout.map(Duration::from_millis),
            heard: Instant::now(),
            progress: total.map_or_else(Progress::none, |total| Progress::items(total, "records")),
        }
    }

    /// How long the next Fetch may wait; none when it is time to stop. A Fetch waits less than its
    /// answer may take, lest a quiet topic look like a dead broker.
    fn next_wait(&self, request_timeout: Duration) -> Option<Duration> {
        let quiet = self.heard.elapsed();
        if self.left == 0 || self.quiet_max.is_some_and(|most| quiet >= most) {
            return None;
        }
        let quiet_left = self.quiet_max.map(|most| most.saturating_sub(quiet));
        Some(fetch_wait(request_timeout, quiet_left))
    }

    /// Begins to count anew how long it has been quiet.
    fn listen(&mut self) {
        self.heard = Instant::now();
    }

    /// Prints records, and gives back those that are too many.
    fn print(
        &mut self,
        mut records: Vec<ConsumedRecord>,
    ) -> Result<Vec<ConsumedRecord>, CommandError> {
        if records.is_empty() {
            return Ok(records);
        }
        self.listen();
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(records.len());
        let rest = records.split_off(wanted);
        self.left -= wanted as u64;
        format::print(&records, &self.format).map_err(CommandError::output)?;
        self.progress.add(wanted as u64);
        Ok(rest)
    }
}

/// The wait of a Fetch, where the command itself stops to wait after `quiet_left`.
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
    Ok(client.start_offsets(topic, &partitions, args.start()).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
