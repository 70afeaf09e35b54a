//! The loads: one file each. A load is data (see [`super::rows`]) that runs against a broker and
//! gives samples; what it consumed it compares with what it produced.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use vltava_benches::fixtures::Values;

use super::target::{Kind, Tools};

mod application;
pub(super) mod exchange;
pub(super) mod fleet;
mod java;
mod librdkafka;
pub(super) mod open_loop;
pub(super) mod reads;
mod rounds;
pub(super) mod streaming;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// Payload of one exchange.
    pub(crate) bytes: u64,
    /// Most records of one exchange: small records are many.
    pub(crate) records_max: u64,
    /// Length of a load at a fixed rate.
    pub(crate) seconds: u64,
    /// How long an idle broker is watched.
    pub(crate) idle_seconds: u64,
}

impl Scale {
    /// For about ten minutes in all.
    pub(crate) const QUICK: Self =
        Self { bytes: 192 << 20, records_max: 500_000, seconds: 5, idle_seconds: 5 };
    /// For about an hour in all.
    pub(crate) const FULL: Self =
        Self { bytes: 512 << 20, records_max: 2_000_000, seconds: 12, idle_seconds: 20 };

    /// Records of `record_bytes` in one exchange.
    pub(crate) fn records(&self, record_bytes: u64) -> u64 {
        (self.bytes / record_bytes).min(self.records_max)
    }
}

/// What every load needs.
#[derive(Debug)]
pub(crate) struct Cx<'a> {
    /// Brokers and foreign tools.
    pub(crate) tools: &'a Tools,
    /// How much of everything.
    pub(crate) scale: Scale,
    /// How many topics were named so far.
    topics: Cell<u32>,
    /// The inputs of pipelines that were filled.
    sources: RefCell<BTreeMap<(Kind, Values, usize), String>>,
}

impl<'a> Cx<'a> {
    /// A context.
    pub(crate) fn new(tools: &'a Tools, scale: Scale) -> Self {
        Self { tools, scale, topics: Cell::new(0), sources: RefCell::default() }
    }

    /// A topic name that was not used before.
    pub(crate) fn topic(&self) -> String {
        self.topics.set(self.topics.get() + 1);
        format!("compare-{:04}", self.topics.get())
    }

    /// The name of a topic with these values in so many batches on this broker; and whether it was
    /// not used before.
    pub(crate) fn source(&self, kind: Kind, values: Values, batches: usize) -> (String, bool) {
        let mut sources = self.sources.borrow_mut();
        let before = sources.len();
        let name = sources.entry((kind, values, batches)).or_insert_with(|| self.topic()).clone();
        (name, sources.len() > before)
    }
}
