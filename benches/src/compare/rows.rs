//! What is compared: a table of data.

use vltava_benches::fixtures::Values;
use vltava_benches::jobs::Job;

use super::loads::Cx;
use super::loads::exchange::{Exchange, Library};
use super::loads::fleet::Fleet;
use super::loads::open_loop::{OpenLoop, Through};
use super::loads::reads::Reads;
use super::loads::streaming::Streaming;
use super::measures::Life;
use super::metric::{Bar, Metric, Sample};
use super::target::{Kind, Target};
use crate::error::BenchError;

/// A load on a broker that all loads share.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// Client libraries, as fast as they can.
    Exchange(Exchange),
    /// Consumers far behind.
    Reads(Reads),
    /// Latency at a fixed rate.
    OpenLoop(OpenLoop),
    /// Many producers of little each.
    Fleet(Fleet),
    /// A pipeline, as fast as it can.
    Streaming(Streaming),
}

impl Load {
    /// Runs it once.
    pub(crate) fn run(&self, cx: &Cx<'_>, target: &Target) -> Result<Vec<Sample>, BenchError> {
        match self {
            Self::Exchange(exchange) => exchange.run(cx, target),
            Self::Reads(reads) => reads.run(cx, target),
            Self::OpenLoop(open_loop) => open_loop.run(cx, target),
            Self::Fleet(fleet) => fleet.run(cx, target),
            Self::Streaming(streaming) => streaming.run(cx, target),
        }
    }
}

/// What runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// A load on a shared broker.
    Load(Load),
    /// The life of a broker of its own.
    Life(Life),
    /// Nothing: what the shared brokers are like after all loads.
    After,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// What it is called; `--only` takes a part of it.
    pub(crate) name: &'static str,
    /// What runs.
    pub(crate) work: Work,
    /// On what.
    pub(crate) kinds: &'static [Kind],
    /// Whether it is part of `--quick`.
    pub(crate) is_quick: bool,
    /// What is promised here that is not promised elsewhere.
    pub(crate) bar: Option<(Metric, Bar)>,
}

impl Row {
    const fn new(name: &'static str, load: Load) -> Self {
        Self::of(name, Work::Load(load))
    }

    const fn of(name: &'static str, work: Work) -> Self {
        Self { name, work, kinds: Kind::ALL, is_quick: false, bar: None }
    }

    const fn exchange(name: &'static str, exchange: Exchange) -> Self {
        Self::new(name, Load::Exchange(exchange))
    }

    const fn streaming(name: &'static str, streaming: Streaming) -> Self {
        let bar = Some((Metric::StreamedCost, Bar::AtMost(0.1)));
        Self { bar, kinds: Kind::STREAMS, ..Self::new(name, Load::Streaming(streaming)) }
    }

    const fn through(name: &'static str, open_loop: OpenLoop) -> Self {
        Self { kinds: Kind::STREAMS, ..Self::new(name, Load::OpenLoop(open_loop)) }
    }

    const fn quick(self) -> Self {
        Self { is_quick: true, ..self }
    }

    const fn alike(self) -> Self {
        Self { kinds: Kind::ALIKE, ..self }
    }

    /// What is promised of this metric here.
    pub(crate) fn bar(&self, metric: Metric) -> Option<Bar> {
        let own = self.bar.filter(|(of, _)| *of == metric).map(|(_, bar)| bar);
        own.or_else(|| metric.bar())
    }
}

const JAVA: Exchange = Exchange::DEFAULT;
const SMALL: Exchange = Exchange { record_bytes: 100, ..JAVA };
const LIBRDKAFKA: Exchange =
    Exchange { library: Library::Librdkafka, is_idempotent: false, ..Exchange::DEFAULT };

const CATCH_UP: Reads = Reads { consumers: 1, is_cold: false };
const RATE: OpenLoop = OpenLoop {
    record_bytes: 1024,
    rate: 1000,
    acks: -1,
    partitions: 4,
    request_records: 1,
    through: None,
};
const MARKED: OpenLoop = OpenLoop {
    record_bytes: 100,
    rate: 10_000,
    request_records: 10,
    through: Some(Through { job: Job::Mark, settings: &[] }),
    ..RATE
};
const FILTERED: Streaming =
    Streaming { job: Job::FilterMark, values: Values::Noise(100), share: 1 };

/// Everything, in the order of the table.
pub(crate) const ROWS: &[Row] = &[
    Row::exchange("java 1 KiB, defaults", JAVA).quick(),
    Row::exchange("java 1 KiB, acks=1", Exchange { acks: "1", is_idempotent: false, ..JAVA })
        .quick(),
    Row::exchange("java 1 KiB, not idempotent", Exchange { is_idempotent: false, ..JAVA }),
    Row::exchange("java 1 KiB, linger 0", Exchange { linger_ms: Some("0"), ..JAVA }),
    Row::exchange("java 1 KiB, lz4", Exchange { codec: "lz4", ..JAVA }),
    Row::exchange("java 1 KiB, zstd", Exchange { codec: "zstd", ..JAVA }),
    Row::exchange("java 1 KiB, 50 partitions", Exchange { partitions: 50, ..JAVA }),
    Row::exchange("java 1 KiB, 1,000 partitions", Exchange { partitions: 1000, ..JAVA }),
    Row::exchange("java 100 B, defaults", SMALL).quick(),
    Row::exchange("java 100 B, acks=1", Exchange { acks: "1", is_idempotent: false, ..SMALL }),
    Row::exchange("librdkafka 1 KiB, acks=all", LIBRDKAFKA).quick(),
    Row::exchange("librdkafka 1 KiB, acks=1", Exchange { acks: "1", ..LIBRDKAFKA }),
    Row::exchange("librdkafka 1 KiB, idempotent", Exchange { is_idempotent: true, ..LIBRDKAFKA }),
    Row::exchange(
        "librdkafka 100 B, 50 partitions",
        Exchange { record_bytes: 100, partitions: 50, ..LIBRDKAFKA },
    ),
    Row::exchange(
        "librdkafka 1 KiB, 1,000 partitions",
        Exchange { partitions: 1000, ..LIBRDKAFKA },
    ),
    Row::new("64 KiB batches, 1 consumer from the page cache", Load::Reads(CATCH_UP)).quick(),
    Row::new(
        "64 KiB batches, 10 consumers from the page cache",
        Load::Reads(Reads { consumers: 10, ..CATCH_UP }),
    )
    .quick(),
    Row::new(
        "64 KiB batches, 1 consumer from the disk",
        Load::Reads(Reads { is_cold: true, ..CATCH_UP }),
    )
    .alike(),
    Row {
        bar: Some((Metric::Produced, Bar::AtLeast(2.0))),
        ..Row::new(
            "100 producers of small batches with keys",
            Load::Fleet(Fleet {
                producers: 100,
                partitions: 50,
                batch_bytes: 1400,
                requests_per_mebibyte: 300,
            }),
        )
    }
    .quick(),
    Row::new("latency, 1,000 records/s of 1 KiB, acks=all", Load::OpenLoop(RATE)).quick(),
    Row::new(
        "latency, 1,000 records/s of 1 KiB, acks=1",
        Load::OpenLoop(OpenLoop { acks: 1, ..RATE }),
    ),
    Row::new(
        "latency, 4,000 records/s of 100 B, acks=all",
        Load::OpenLoop(OpenLoop { record_bytes: 100, rate: 4000, ..RATE }),
    ),
    Row::of(
        "a broker of 1 partition",
        Work::Life(Life { topics: 0, wide_topics: 0, recovers: false }),
    )
    .quick(),
    Row::of(
        "a broker of 1,000 topics",
        Work::Life(Life { topics: 1000, wide_topics: 0, recovers: true }),
    )
    .quick(),
    Row::of(
        "a broker of 10,000 partitions",
        Work::Life(Life { topics: 0, wide_topics: 10, recovers: true }),
    )
    .alike(),
];

/// Everything about pipelines, in the order of the table.
pub(crate) const STREAM_ROWS: &[Row] = &[
    Row::streaming("filter and map, 100 B", FILTERED).quick(),
    Row::streaming("filter and map, 1 KiB", Streaming { values: Values::Noise(1024), ..FILTERED })
        .quick(),
    Row::streaming(
        "JSON: filter, and one field",
        Streaming { job: Job::Pick, values: Values::Documents, share: 1 },
    )
    .quick(),
    Row::streaming(
        "split of a text into 8 words",
        Streaming { job: Job::Split, values: Values::Words, share: 8 },
    )
    .quick(),
    Row::through("latency, 10,000 records/s of 100 B", MARKED).quick(),
    Row::through(
        "latency, the same, Kafka Streams with linger.ms=0",
        OpenLoop {
            through: Some(Through { job: Job::Mark, settings: &["producer.linger.ms=0"] }),
            ..MARKED
        },
    )
    .quick(),
];

/// The row of what is measured after all loads.
pub(crate) const AFTER: Row = Row::of("after all loads", Work::After);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_names_of_their_own() {
        for rows in [ROWS, STREAM_ROWS] {
            let mut names: Vec<_> = rows.iter().map(|row| row.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), rows.len());
        }
        assert!(ROWS.iter().all(|row| row.kinds.starts_with(Kind::ALIKE)));
        assert!(STREAM_ROWS.iter().all(|row| row.kinds == Kind::STREAMS));
    }
}
