//! What is measured, in which unit, and what Vltava promises of it beside Apache Kafka.

use serde::Serialize;

use super::target::Kind;

/// One kind of figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum Metric {
    /// Payload produced a second, as the client sees it.
    Produced,
    /// Processor time of the broker for a gibibyte of payload produced.
    ProducedCost,
    /// Payload consumed a second, all consumers together.
    Consumed,
    /// Processor time of the broker for a gibibyte of payload consumed.
    ConsumedCost,
    /// [`Metric::ProducedCost`] of a bare loop that writes the same batches to a file.
    BareIn,
    /// [`Metric::ProducedCost`] of the broker to that.
    ProducedOverBare,
    /// [`Metric::ConsumedCost`] of a bare loop that sends the same bytes out of a map.
    BareOut,
    /// [`Metric::ConsumedCost`] of the broker to that.
    ConsumedOverBare,
    /// Half of the acknowledgments at a fixed rate came within.
    AckP50,
    /// 99 of 100 did.
    AckP99,
    /// 999 of 1,000 did.
    AckP999,
    /// All did.
    AckMax,
    /// From the moment a record was due to its arrival at a waiting consumer, 99 of 100.
    ReceivedP99,
    /// 999 of 1,000.
    ReceivedP999,
    /// 999 of 1,000 acknowledgments of a thread that does nothing but answer.
    BareP999,
    /// A write and a sync of one request's bytes at the same rate, 99 of 100.
    FlushRoundP99,
    /// [`Metric::AckP99`] to that.
    AckRounds,
    /// Processor time of the broker for a thousand records at a fixed rate.
    RecordsCost,
    /// From the start of the process to the first acknowledged record.
    ColdStart,
    /// A topic of many, created one after another.
    Creation,
    /// Processor time while nothing happens.
    Idle,
    /// From a start after `kill -9` to the first acknowledged record.
    Recovery,
    /// Records that a pipeline took in a second.
    Streamed,
    /// Processor time of broker and pipeline for a million records that it took in.
    StreamedCost,
    /// The broker's part of that.
    StreamedBrokerCost,
    /// The pipeline's part of that.
    StreamedPipelineCost,
    /// From the acknowledgment of a record to the receipt of what was made of it, half of them.
    ReadableP50,
    /// 99 of 100.
    ReadableP99,
    /// 999 of 1,000.
    ReadableP999,
    /// The most of their own memory that broker and pipeline had resident at a time.
    OwnMemoryTogether,
    /// The most that they had resident at a time, pages of mapped files included.
    PeakMemoryTogether,
    /// The broker's own memory that is resident, after the load.
    OwnMemory,
    /// The most that ever was resident, pages of mapped files included.
    PeakMemory,
}

/// What a ratio to Apache Kafka, or a figure, must be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) enum Bar {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

impl Bar {
    /// Whether `value` is as promised.
    pub(crate) fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bar) => value >= bar,
            Self::AtMost(bar) => value <= bar,
        }
    }
}

impl Bar {
    /// The number.
    pub(crate) fn value(self) -> f64 {
        match self {
            Self::AtLeast(bar) | Self::AtMost(bar) => bar,
        }
    }
}

impl std::fmt::Display for Bar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(bar) => write!(f, "≥ {bar}"),
            Self::AtMost(bar) => write!(f, "≤ {bar}"),
        }
    }
}

impl Metric {
    /// What it is called in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Produced => "produced",
            Self::ProducedCost => "broker CPU, in",
            Self::Consumed => "consumed",
            Self::ConsumedCost => "broker CPU, out",
            Self::BareIn => "bare loop CPU, in",
            Self::ProducedOverBare => "broker CPU, in, of a bare loop's",
            Self::BareOut => "bare writev CPU, out",
            Self::ConsumedOverBare => "broker CPU, out, of a bare writev's",
            Self::AckP50 => "ack p50",
            Self::AckP99 => "ack p99",
            Self::AckP999 => "ack p99.9",
            Self::AckMax => "ack max",
            Self::ReceivedP99 => "received p99",
            Self::ReceivedP999 => "received p99.9",
            Self::BareP999 => "bare echo p99.9",
            Self::FlushRoundP99 => "write and sync alone, p99",
            Self::AckRounds => "ack p99, in rounds",
            Self::RecordsCost => "broker CPU, in and out",
            Self::ColdStart => "start to first ack",
            Self::Creation => "a topic created",
            Self::Idle => "idle CPU",
            Self::Recovery => "kill -9 to first ack",
            Self::Streamed => "records taken in",
            Self::StreamedCost => "CPU, broker and pipeline",
            Self::StreamedBrokerCost => "CPU, broker",
            Self::StreamedPipelineCost => "CPU, pipeline",
            Self::ReadableP50 => "ack to output p50",
            Self::ReadableP99 => "ack to output p99",
            Self::ReadableP999 => "ack to output p99.9",
            Self::OwnMemoryTogether => "own memory, broker and pipeline",
            Self::PeakMemoryTogether => "peak RSS, broker and pipeline",
            Self::OwnMemory => "own memory",
            Self::PeakMemory => "peak RSS, maps included",
        }
    }

    /// Its unit.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Produced | Self::Consumed => "MB/s",
            Self::ProducedCost | Self::ConsumedCost | Self::BareIn | Self::BareOut => "s/GiB",
            Self::ProducedOverBare | Self::ConsumedOverBare | Self::AckRounds => "×",
            Self::Streamed => "1000/s",
            Self::StreamedCost | Self::StreamedBrokerCost | Self::StreamedPipelineCost => {
                "s/million"
            }
            Self::AckP50
            | Self::AckP99
            | Self::AckP999
            | Self::AckMax
            | Self::ReceivedP99
            | Self::ReceivedP999
            | Self::BareP999
            | Self::FlushRoundP99
            | Self::ReadableP50
            | Self::ReadableP99
            | Self::ReadableP999
            | Self::ColdStart
            | Self::Creation
            | Self::Recovery => "ms",
            Self::RecordsCost => "ms/1000",
            Self::Idle => "% of a core",
            Self::OwnMemory
            | Self::PeakMemory
            | Self::OwnMemoryTogether
            | Self::PeakMemoryTogether => "MiB",
        }
    }

    /// What we promise of the ratio to Apache Kafka, if anything.
    pub(crate) fn bar(self) -> Option<Bar> {
        match self {
            Self::Produced | Self::Consumed => Some(Bar::AtLeast(0.95)),
            Self::ProducedCost | Self::ConsumedCost => Some(Bar::AtMost(0.35)),
            Self::AckP99 | Self::ReceivedP99 => Some(Bar::AtMost(0.5)),
            Self::AckP999 | Self::ReceivedP999 => Some(Bar::AtMost(0.3)),
            Self::ColdStart => Some(Bar::AtMost(0.05)),
            Self::Recovery => Some(Bar::AtMost(0.2)),
            Self::OwnMemory => Some(Bar::AtMost(0.1)),
            Self::BareIn
            | Self::ProducedOverBare
            | Self::BareOut
            | Self::ConsumedOverBare
            | Self::AckP50
            | Self::AckMax
            | Self::BareP999
            | Self::FlushRoundP99
            | Self::AckRounds
            | Self::RecordsCost
            | Self::Creation
            | Self::Idle
            | Self::PeakMemory
            | Self::Streamed
            | Self::StreamedCost
            | Self::StreamedBrokerCost
            | Self::StreamedPipelineCost
            | Self::ReadableP50
            | Self::ReadableP99
            | Self::ReadableP999
            | Self::OwnMemoryTogether
            | Self::PeakMemoryTogether => None,
        }
    }

    /// What we promise of our own figure, whatever Apache Kafka's is, and of whose.
    pub(crate) fn limit(self) -> Option<(Kind, Bar)> {
        match self {
            Self::ReadableP99 => Some((Kind::Pipeline, Bar::AtMost(5.0))),
            Self::ConsumedOverBare => Some((Kind::PageCache, Bar::AtMost(1.3))),
            // An acknowledgment waits for the round under way, and for its own.
            Self::AckRounds => Some((Kind::Fsync, Bar::AtMost(2.0))),
            _ => None,
        }
    }
}

/// One figure of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample(pub(crate) Metric, pub(crate) f64);
