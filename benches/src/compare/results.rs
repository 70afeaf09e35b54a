//! What the runs gave: samples by row, metric and broker, and the ratios between them.
//!
//! A ratio is formed within one repetition, between runs that followed each other, so that what
//! changes on the machine from minute to minute cancels; the median of these ratios counts, and
//! the least and the greatest stand beside it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::machine::Machine;
use super::metric::{Bar, Metric, Sample};
use super::rows::Row;
use super::suite::Suite;
use super::target::Kind;

/// `fsync` keeps at least this share of what `page-cache` takes in, in the row of the defaults.
const FSYNC_SHARE: Bar = Bar::AtLeast(0.7);
/// The row in which it is promised.
const FSYNC_ROW: &str = "java 1 KiB, defaults";

/// The middle of several figures, and how far they spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The median.
    pub(crate) median: f64,
    /// The least.
    pub(crate) min: f64,
    /// The greatest.
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one figure.
    fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let middle = figures.len() / 2;
        let upper = *figures.get(middle)?;
        let median =
            if figures.len() % 2 == 1 { upper } else { f64::midpoint(figures[middle - 1], upper) };
        Some(Self { median, min: figures[0], max: figures[figures.len() - 1] })
    }
}

/// A ratio, or a figure, and what was promised of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Ratio {
    /// The figure.
    pub(crate) spread: Spread,
    /// The promise, if there is one.
    pub(crate) bar: Option<Bar>,
    /// Whether the median keeps it.
    pub(crate) is_met: Option<bool>,
}

/// Our figure itself, and what was promised of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Limit {
    /// Whose.
    pub(crate) kind: Kind,
    /// The figure.
    #[serde(flatten)]
    pub(crate) figure: Ratio,
}

/// One metric of one row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    /// The row.
    pub(crate) row: &'static str,
    /// What was measured.
    pub(crate) metric: Metric,
    /// In which unit.
    pub(crate) unit: &'static str,
    /// Every sample, by broker, in the order of the repetitions; a failed run leaves a gap.
    pub(crate) samples: BTreeMap<Kind, Vec<Option<f64>>>,
    /// Ours to Kafka's.
    pub(crate) ratio: Option<Ratio>,
    /// The other's to Kafka's.
    pub(crate) other_ratio: Option<Ratio>,
    /// Our figure itself, where something is promised of it.
    pub(crate) limit: Option<Limit>,
    /// `fsync` to `page-cache`, where something is promised of it.
    pub(crate) fsync_share: Option<Ratio>,
}

/// A run that gave nothing.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failure {
    /// In which row.
    pub(crate) row: &'static str,
    /// On which broker.
    pub(crate) kind: Kind,
    /// Why.
    pub(crate) why: String,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    /// Of which comparison.
    #[serde(skip)]
    pub(crate) suite: &'static Suite,
    /// Where.
    pub(crate) machine: Machine,
    /// Whether it was the short form.
    pub(crate) is_quick: bool,
    /// How often everything was repeated.
    pub(crate) repetitions: usize,
    /// The table.
    pub(crate) lines: Vec<Line>,
    /// What went wrong.
    pub(crate) failures: Vec<Failure>,
}

impl Results {
    /// Nothing yet.
    pub(crate) fn new(
        suite: &'static Suite,
        machine: Machine,
        is_quick: bool,
        repetitions: usize,
    ) -> Self {
        let (lines, failures) = (Vec::new(), Vec::new());
        Self { suite, machine, is_quick, repetitions, lines, failures }
    }

    /// Takes the samples of one run.
    pub(crate) fn add(&mut self, row: &Row, kind: Kind, repetition: usize, samples: &[Sample]) {
        for Sample(metric, value) in samples {
            let line = self.line(row, *metric);
            let of_kind = line.samples.entry(kind).or_default();
            of_kind.resize(repetition, None);
            of_kind.push(Some(*value));
        }
    }

    /// Remembers a run that failed.
    pub(crate) fn fail(&mut self, row: &Row, kind: Kind, why: String) {
        self.failures.push(Failure { row: row.name, kind, why });
    }

    fn line(&mut self, row: &Row, metric: Metric) -> &mut Line {
        let found =
            self.lines.iter().position(|line| line.row == row.name && line.metric == metric);
        let at = found.unwrap_or_else(|| {
            self.lines.push(Line {
                row: row.name,
                metric,
                unit: metric.unit(),
                samples: BTreeMap::new(),
                ratio: None,
                other_ratio: None,
                limit: None,
                fsync_share: None,
            });
            self.lines.len() - 1
        });
        &mut self.lines[at]
    }

    /// Forms the ratios, once all runs are done.
    pub(crate) fn finish(&mut self, rows: &[&Row]) {
        let Suite { base, ours, other, .. } = *self.suite;
        for line in &mut self.lines {
            let row = rows.iter().find(|row| row.name == line.row);
            let bar = row.and_then(|row| row.bar(line.metric));
            line.ratio = line.ratio_of(ours, base, bar);
            line.other_ratio = line.ratio_of(other, base, None);
            line.limit = line.metric.limit().and_then(|(kind, bar)| line.figure_of(kind, bar));
            if line.row == FSYNC_ROW && line.metric == Metric::Produced {
                line.fsync_share = line.ratio_of(Kind::Fsync, Kind::PageCache, Some(FSYNC_SHARE));
            }
        }
    }
}

impl Line {
    /// The figures of one broker.
    pub(crate) fn spread(&self, kind: Kind) -> Option<Spread> {
        Spread::of(self.samples.get(&kind)?.iter().flatten().copied().collect())
    }

    fn figure_of(&self, kind: Kind, bar: Bar) -> Option<Limit> {
        let spread = self.spread(kind)?;
        let is_met = Some(bar.is_met(spread.median));
        Some(Limit { kind, figure: Ratio { spread, bar: Some(bar), is_met } })
    }

    fn ratio_of(&self, kind: Kind, to: Kind, bar: Option<Bar>) -> Option<Ratio> {
        let (ours, theirs) = (self.samples.get(&kind)?, self.samples.get(&to)?);
        let pairs = ours.iter().zip(theirs).filter_map(|(ours, theirs)| ours.zip(*theirs));
        let spread = Spread::of(pairs.map(|(ours, theirs)| ours / theirs).collect())?;
        let is_met = bar.map(|bar| bar.is_met(spread.median));
        Some(Ratio { spread, bar, is_met })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::rows::{ROWS, STREAM_ROWS};
    use crate::compare::suite::{BROKERS, STREAMS};

    #[test]
    fn ratios_are_formed_within_a_repetition() {
        let row = &ROWS[0];
        let mut results = Results::new(&BROKERS, Machine::look(), true, 3);
        for (at, (kafka, ours)) in [(100.0, 100.0), (10.0, 20.0), (50.0, 60.0)].iter().enumerate() {
            results.add(row, Kind::Kafka, at, &[Sample(Metric::Produced, *kafka)]);
            if at != 1 {
                results.add(row, Kind::Fsync, at, &[Sample(Metric::Produced, *kafka)]);
            }
            results.add(row, Kind::PageCache, at, &[Sample(Metric::Produced, *ours)]);
        }
        results.finish(&[row]);
        let line = &results.lines[0];
        let ratio = line.ratio.unwrap();
        assert_eq!(ratio.spread, Spread { median: 1.2, min: 1.0, max: 2.0 });
        assert_eq!(ratio.is_met, Some(true));
        assert_eq!(line.samples[&Kind::Fsync], [Some(100.0), None, Some(50.0)]);
        let share = line.fsync_share.unwrap();
        assert_eq!((share.spread.min, share.spread.max), (50.0 / 60.0, 1.0));
    }

    #[test]
    fn a_figure_can_be_judged_by_itself() {
        let row = &STREAM_ROWS[0];
        let mut results = Results::new(&STREAMS, Machine::look(), true, 1);
        results.add(row, Kind::StreamsOnKafka, 0, &[Sample(Metric::ReadableP99, 100.0)]);
        results.add(row, Kind::Pipeline, 0, &[Sample(Metric::ReadableP99, 7.5)]);
        results.finish(&[row]);
        let line = &results.lines[0];
        assert!(line.ratio.unwrap().is_met.is_none());
        let limit = line.limit.unwrap().figure;
        assert_eq!((limit.bar, limit.is_met), (Some(Bar::AtMost(5.0)), Some(false)));
    }

    #[test]
    fn a_figure_is_judged_where_it_is_promised() {
        let row = &ROWS[0];
        let mut results = Results::new(&BROKERS, Machine::look(), true, 1);
        for (kind, rounds) in [(Kind::PageCache, 9.0), (Kind::Fsync, 1.5)] {
            results.add(row, kind, 0, &[Sample(Metric::AckRounds, rounds)]);
        }
        results.finish(&[row]);
        let limit = results.lines[0].limit.unwrap();
        assert_eq!((limit.kind, limit.figure.is_met), (Kind::Fsync, Some(true)));
    }
}
