//! What one table compares: its rows, and whose figures are divided by whose.

use super::rows::{ROWS, Row, STREAM_ROWS};
use super::target::Kind;

/// One comparison.
#[derive(Debug)]
pub(crate) struct Suite {
    /// The heading of the page.
    pub(crate) title: &'static str,
    /// How it is asked for.
    pub(crate) command: &'static str,
    /// The names of the results: of all rows, of the short form, of a part.
    pub(crate) files: [&'static str; 3],
    /// The rows.
    pub(crate) rows: &'static [Row],
    /// Whose figures all others are divided by.
    pub(crate) base: Kind,
    /// Who is judged.
    pub(crate) ours: Kind,
    /// Who stands beside them.
    pub(crate) other: Kind,
}

/// Brokers under the same loads.
pub(crate) const BROKERS: Suite = Suite {
    title: "Vltava beside Apache Kafka",
    command: "compare",
    files: ["compare", "quick", "part"],
    rows: ROWS,
    base: Kind::Kafka,
    ours: Kind::PageCache,
    other: Kind::Fsync,
};

/// Pipelines that do the same jobs.
pub(crate) const STREAMS: Suite = Suite {
    title: "Vltava's pipelines beside Kafka Streams",
    command: "compare --streams",
    files: ["streams", "streams-quick", "streams-part"],
    rows: STREAM_ROWS,
    base: Kind::StreamsOnKafka,
    ours: Kind::Pipeline,
    other: Kind::StreamsOnVltava,
};

impl Suite {
    /// What runs, in the order of the table's columns.
    pub(crate) fn kinds(&self) -> [Kind; 3] {
        [self.base, self.ours, self.other]
    }

    /// The name of the results.
    pub(crate) fn file(&self, is_whole: bool, is_quick: bool) -> &'static str {
        let [all, quick, part] = self.files;
        match (is_whole, is_quick) {
            (false, _) => part,
            (true, true) => quick,
            (true, false) => all,
        }
    }
}
