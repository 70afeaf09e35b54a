//! What the last `cargo bench` measured, the machine's limits and ours in one table.
//!
//! Criterion's own mean is of no use on a shared machine: a neighbor takes the processor away in the
//! middle of a sample, and not even processor time tells. The *best* sample is what the code costs
//! when it is left alone; the median beside it says how often that was.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use clap::Args;
use serde::Deserialize;

/// Deepest directory below criterion's that holds a result.
const DEPTH_MAX: usize = 4;

/// Which results.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Criterion's directory; by default the one of the build directory of this program.
    #[arg(long)]
    criterion: Option<PathBuf>,
}

/// `benchmark.json`, as far as it is used.
#[derive(Debug, Deserialize)]
struct Benchmark {
    full_id: String,
    throughput: Option<Throughput>,
}

#[derive(Debug, Deserialize)]
enum Throughput {
    Bytes(u64),
    ElementsAndBytes { elements: u64, bytes: u64 },
}

/// `sample.json`, as far as it is used: iterations and nanoseconds of each sample.
#[derive(Debug, Deserialize)]
struct Samples {
    iters: Vec<f64>,
    times: Vec<f64>,
}

#[derive(Debug, PartialEq)]
struct Row {
    name: String,
    best_ns: f64,
    median_ns: f64,
    elements: Option<u64>,
    bytes: Option<u64>,
}

/// Prints the table.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let dir = match &options.criterion {
        Some(dir) => dir.clone(),
        // The executable lies in the directory of its profile.
        None => env::current_exe()?.with_file_name("..").join("criterion"),
    };
    let mut rows = Vec::new();
    collect(&dir, DEPTH_MAX, &mut rows)?;
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    println!("{}", table(&rows));
    Ok(())
}

fn collect(dir: &Path, depth: usize, rows: &mut Vec<Row>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        if path.ends_with("new") {
            rows.extend(read(&path));
        } else if depth > 0 {
            collect(&path, depth - 1, rows)?;
        }
    }
    Ok(())
}

/// A result; `None` where another version of criterion left something else.
fn read(dir: &Path) -> Option<Row> {
    let benchmark = fs::read(dir.join("benchmark.json")).ok()?;
    let samples = fs::read(dir.join("sample.json")).ok()?;
    row(serde_json::from_slice(&benchmark).ok()?, &serde_json::from_slice(&samples).ok()?)
}

fn row(benchmark: Benchmark, samples: &Samples) -> Option<Row> {
    let mut each: Vec<f64> =
        samples.iters.iter().zip(&samples.times).map(|(iters, time)| time / iters).collect();
    each.sort_by(f64::total_cmp);
    let (elements, bytes) = match benchmark.throughput {
        Some(Throughput::Bytes(bytes)) => (None, Some(bytes)),
        Some(Throughput::ElementsAndBytes { elements, bytes }) => (Some(elements), Some(bytes)),
        None => (None, None),
    };
    let (best_ns, median_ns) = (*each.first()?, each[each.len() / 2]);
    Some(Row { name: benchmark.full_id, best_ns, median_ns, elements, bytes })
}

fn table(rows: &[Row]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["step", "best", "median", "per element", "GB/s"]);
    for row in rows {
        let per_element = row.elements.map(|elements| time(row.best_ns / elements as f64));
        let rate = row.bytes.map(|bytes| format!("{:.2}", bytes as f64 / row.best_ns));
        table.add_row([
            row.name.clone(),
            time(row.best_ns),
            time(row.median_ns),
            per_element.unwrap_or_default(),
            rate.unwrap_or_default(),
        ]);
    }
    table
}

fn time(ns: f64) -> String {
    match ns {
        ..1e3 => format!("{ns:.1} ns"),
        ..1e6 => format!("{:.2} us", ns / 1e3),
        _ => format!("{:.2} ms", ns / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_the_best_and_the_median_sample() {
        let benchmark =
            r#"{"full_id":"a/b","throughput":{"ElementsAndBytes":{"elements":4,"bytes":800}}}"#;
        let samples = Samples { iters: vec![1.0, 2.0, 3.0], times: vec![900.0, 800.0, 9000.0] };
        let row = row(serde_json::from_str(benchmark).unwrap(), &samples).unwrap();
        assert_eq!((row.best_ns, row.median_ns, row.elements), (400.0, 900.0, Some(4)));
        let printed = table(&[row]).to_string();
        assert!(printed.contains("100.0 ns") && printed.contains("2.00"), "{printed}");
    }

    #[test]
    fn a_result_without_samples_is_no_row() {
        let benchmark = Benchmark { full_id: "a".to_owned(), throughput: None };
        assert_eq!(row(benchmark, &Samples { iters: vec![], times: vec![] }), None);
    }
}
