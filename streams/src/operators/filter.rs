//! Keeps the records that a predicate likes.

use super::Function;
use crate::chain::{Chain, Running};
use crate::format::Format;
use crate::outputs::Outputs;
use crate::process::{Cx, Fault, Meter, Meters, NodeId, Process};
use crate::record::Record;
use crate::stream::Stream;

impl<C: Chain> Stream<C> {
    /// Keeps the records for which `predicate` is true. A null value is a record like any other.
    #[track_caller]
    pub fn filter<F>(self, predicate: F) -> Stream<Filter<C, F>>
    where
        F: for<'a> FnMut(Record<'a, C::Key, C::Value>) -> bool + Function,
    {
        self.then("filter", |up, node| Filter { up, node, predicate })
    }
}

/// See [`Stream::filter`].
#[derive(Clone, Debug)]
pub struct Filter<C, F> {
    up: C,
    node: NodeId,
    predicate: F,
}

impl<C, F> Chain for Filter<C, F>
where
    C: Chain,
    F: for<'a> FnMut(Record<'a, C::Key, C::Value>) -> bool + Function,
{
    type KeyIn = C::KeyIn;
    type ValueIn = C::ValueIn;
    type Key = C::Key;
    type Value = C::Value;

    fn close<N>(&self, next: N, outputs: &mut Outputs) -> Running<C::KeyIn, C::ValueIn>
    where
        N: Process<C::Key, C::Value> + 'static,
    {
        let (node, predicate) = (self.node, self.predicate.clone());
        self.up.close(FilterProcess { node, predicate, next, meter: Meter::default() }, outputs)
    }
}

struct FilterProcess<F, N> {
    node: NodeId,
    predicate: F,
    next: N,
    meter: Meter,
}

impl<K, V, F, N> Process<K, V> for FilterProcess<F, N>
where
    K: Format,
    V: Format,
    F: for<'a> FnMut(Record<'a, K, V>) -> bool + Send,
    N: Process<K, V>,
{
    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.meter.count(&record.raw());
        if (self.predicate)(record) { self.next.process(record, cx) } else { Ok(()) }
    }

    fn report(&mut self, meters: &mut Meters) {
        meters[self.node.0].add(std::mem::take(&mut self.meter));
        self.next.report(meters);
    }
}
