//! Apache Kafka's own performance tools. They tell their rates themselves, without the start of
//! the virtual machine; the group of the consumer takes part in what the broker spends.

use super::exchange::{Run, same};
use crate::error::BenchError;

const MEGA: f64 = 1_048_576.0 / 1e6;

/// `kafka-producer-perf-test`; MB/s.
pub(super) fn produce(run: &Run<'_>) -> Result<f64, BenchError> {
    let exchange = run.exchange;
    let mut arguments: Vec<String> = [
        "--bootstrap-server",
        &run.target.bootstrap(),
        "--topic",
        run.topic,
        "--num-records",
        &run.records.to_string(),
        "--record-size",
        &exchange.record_bytes.to_string(),
        "--throughput",
        "-1",
        "--command-property",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.extend(exchange.settings().iter().map(|(key, value)| format!("{key}={value}")));
    let said = run.cx.tools.kafka.tool("org.apache.kafka.tools.ProducerPerformance", &arguments)?;
    let rate = rate_of(&said, run.records).ok_or(unreadable("kafka-producer-perf-test", &said))?;
    Ok(rate * exchange.record_bytes as f64 / 1e6)
}

/// `kafka-consumer-perf-test`; MB/s after the group was joined.
pub(super) fn consume(run: &Run<'_>) -> Result<f64, BenchError> {
    let arguments = [
        "--bootstrap-server",
        &run.target.bootstrap(),
        "--topic",
        run.topic,
        "--num-records",
        &run.records.to_string(),
        "--timeout",
        "120000",
    ]
    .map(str::to_owned);
    let said = run.cx.tools.kafka.tool("org.apache.kafka.tools.ConsumerPerformance", &arguments)?;
    let column = |name| column_of(&said, name).ok_or(unreadable("kafka-consumer-perf-test", &said));
    same(run.records, column("data.consumed.in.nMsg")? as u64)?;
    Ok(column("fetch.MB.sec")? * MEGA)
}

fn unreadable(what: &str, said: &str) -> BenchError {
    BenchError::Foreign { what: what.to_owned(), said: said.to_owned() }
}

/// Records a second in the line that ends the tool's output.
fn rate_of(said: &str, records: u64) -> Option<f64> {
    let start = format!("{records} records sent, ");
    let line = said.lines().rev().find_map(|line| line.trim().strip_prefix(start.as_str()))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The value under a heading of the table that the tool prints.
fn column_of(said: &str, name: &str) -> Option<f64> {
    let mut lines = said.lines().skip_while(|line| !line.starts_with("start.time"));
    let at = lines.next()?.split(',').position(|heading| heading.trim() == name)?;
    lines.next()?.split(',').nth(at)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_producer_tells_its_rate() {
        let said = "499 records sent, 99.8 records/sec (0.10 MB/sec), 1.0 ms avg latency\n\
                    1000 records sent, 141000.5 records/sec (137.70 MB/sec), 3.2 ms avg latency\n";
        assert_eq!(rate_of(said, 1000), Some(141_000.5));
        assert_eq!(rate_of(said, 7), None);
    }

    #[test]
    fn the_consumer_tells_its_columns() {
        let said = "start.time, end.time, data.consumed.in.MB, MB.sec\n2026, 2027, 95.3, 190.7\n";
        assert_eq!(column_of(said, "MB.sec"), Some(190.7));
        assert_eq!(column_of(said, "nMsg.sec"), None);
    }
}
