//! The results for a person and for a program: one table, JSON, and a plot.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;

use super::plot;
use super::results::{Line, Ratio, Results};
use super::target::Kind;
use crate::error::{BenchError, foreign, io_error};

/// Writes `NAME.json`, `NAME.md` and `NAME.svg` into `dir`.
pub(crate) fn write(results: &Results, dir: &Path, name: &str) -> Result<(), BenchError> {
    fs::create_dir_all(dir).map_err(io_error("cannot make a directory for results"))?;
    let json = serde_json::to_string_pretty(results).map_err(foreign("writing JSON"))?;
    put(&dir.join(format!("{name}.json")), &(json + "\n"))?;
    put(&dir.join(format!("{name}.md")), &markdown(results, name))?;
    put(&dir.join(format!("{name}.svg")), &plot::svg(results)?)
}

#[allow(clippy::disallowed_methods, reason = "results are files for people")]
fn put(path: &Path, text: &str) -> Result<(), BenchError> {
    fs::write(path, text).map_err(io_error(format!("cannot write {}", path.display())))
}

/// The page.
fn markdown(results: &Results, name: &str) -> String {
    let command = results.suite.command;
    let short = if results.is_quick { " --quick" } else { "" };
    format!(
        "# {}\n\n{}\nWritten by `cargo run --release -p vltava-benches -- \
         {command}{short}`: {} repetitions; medians, and least and greatest ratio in brackets.\n\n\
         ![ratios]({name}.svg)\n\n{}\n{}",
        results.suite.title,
        results.machine.describe(),
        results.repetitions,
        table(results),
        failures(results)
    )
}

/// The table.
pub(crate) fn table(results: &Results) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    let kinds = results.suite.kinds();
    let [base, ours, other] = kinds.map(Kind::name);
    table.set_header(["row", "figure", base, ours, "ratio", "bar", other, "ratio"]);
    let mut last = "";
    for line in &results.lines {
        let row = if line.row == last { "" } else { line.row };
        last = line.row;
        let share = line.fsync_share.map(|share| format!("of page-cache {}", judged(share)));
        // A promise of a figure stands behind the column that it is of.
        let limit = |kind| {
            let limit = line.limit.filter(|limit| limit.kind == kind)?;
            verdict(limit.figure).map(|said| format!("figure {said}"))
        };
        let verdicts = [line.ratio.and_then(verdict), limit(results.suite.ours)];
        let beside = [line.other_ratio.map(ratio), share, limit(results.suite.other)];
        let [base, ours, other] = kinds.map(|kind| figure(line, kind));
        table.add_row([
            row.to_owned(),
            format!("{}, {}", line.metric.name(), line.unit),
            base,
            ours,
            line.ratio.map_or_else(String::new, ratio),
            joined(verdicts),
            other,
            joined(beside),
        ]);
    }
    table
}

/// Those that are there, in one cell.
fn joined<const N: usize>(parts: [Option<String>; N]) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// What failed, if anything.
pub(crate) fn failures(results: &Results) -> String {
    let mut text = String::new();
    for failure in &results.failures {
        let why = failure.why.split_whitespace().collect::<Vec<_>>().join(" ");
        let _ = writeln!(text, "- failed: {}, {}: {why}", failure.row, failure.kind.name());
    }
    text
}

fn figure(line: &Line, kind: Kind) -> String {
    line.spread(kind).map_or_else(String::new, |spread| number(spread.median))
}

fn ratio(ratio: Ratio) -> String {
    let spread = ratio.spread;
    format!("{} ({}-{})", number(spread.median), number(spread.min), number(spread.max))
}

fn verdict(ratio: Ratio) -> Option<String> {
    let word = if ratio.is_met? { "met" } else { "MISSED" };
    Some(format!("{} {word}", ratio.bar?))
}

fn judged(share: Ratio) -> String {
    format!("{}, {}", ratio(share), verdict(share).unwrap_or_default())
}

/// Three digits that count.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        ..0.1 => 3,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::machine::Machine;
    use crate::compare::metric::{Metric, Sample};
    use crate::compare::rows::ROWS;
    use crate::compare::suite::BROKERS;

    #[test]
    fn a_page_a_program_and_a_plot_say_the_same() {
        let mut results = Results::new(&BROKERS, Machine::look(), true, 1);
        results.add(&ROWS[0], Kind::Kafka, 0, &[Sample(Metric::ProducedCost, 2.0)]);
        results.add(&ROWS[0], Kind::PageCache, 0, &[Sample(Metric::ProducedCost, 0.5)]);
        results.add(&ROWS[0], Kind::Fsync, 0, &[Sample(Metric::AckRounds, 2.5)]);
        results.fail(&ROWS[0], Kind::Fsync, "the disk\nfailed".to_owned());
        results.finish(&[&ROWS[0]]);
        let dir = tempfile::tempdir().unwrap();
        write(&results, dir.path(), "compare").unwrap();
        let read = |suffix| fs::read_to_string(dir.path().join(format!("compare.{suffix}")));
        let page = read("md").unwrap();
        assert!(page.contains("0.25 (0.25-0.25)") && page.contains("≤ 0.35 met"), "{page}");
        assert!(page.contains("| 2.50         | figure ≤ 2 MISSED |"), "{page}");
        assert!(page.contains("Vltava fsync: the disk failed"), "{page}");
        let json: serde_json::Value = serde_json::from_str(&read("json").unwrap()).unwrap();
        assert_eq!(json["lines"][0]["ratio"]["spread"]["median"], 0.25);
        assert!(read("svg").unwrap().contains("java 1 KiB, defaults"));
    }

    #[test]
    fn numbers_have_three_digits_that_count() {
        assert_eq!([0.0123, 0.5, 12.34, 1234.5].map(number), ["0.012", "0.50", "12.3", "1234"]);
    }
}
