//! Lets somebody look at each record that passes.

use super::Function;
use crate::chain::{Chain, Running};
use crate::format::Format;
use crate::outputs::Outputs;
use crate::process::{Cx, Fault, Meter, Meters, NodeId, Process};
use crate::record::Record;
use crate::stream::Stream;

impl<C: Chain> Stream<C> {
    /// Calls `look` with each record and passes it on. After a restart a record may be seen again.
    #[track_caller]
    pub fn peek<F>(self, look: F) -> Stream<Peek<C, F>>
    where
        F: for<'a> FnMut(Record<'a, C::Key, C::Value>) + Function,
    {
        self.then("peek", |up, node| Peek { up, node, look })
    }
}

/// See [`Stream::peek`].
#[derive(Clone, Debug)]
pub struct Peek<C, F> {
    up: C,
    node: NodeId,
    look: F,
}

impl<C, F> Chain for Peek<C, F>
where
    C: Chain,
    F: for<'a> FnMut(Record<'a, C::Key, C::Value>) + Function,
{
    type KeyIn = C::KeyIn;
    type ValueIn = C::ValueIn;
    type Key = C::Key;
    type Value = C::Value;

    fn close<N>(&self, next: N, outputs: &mut Outputs) -> Running<C::KeyIn, C::ValueIn>
    where
        N: Process<C::Key, C::Value> + 'static,
    {
        let (node, look) = (self.node, self.look.clone());
        self.up.close(PeekProcess { node, look, next, meter: Meter::default() }, outputs)
    }
}

struct PeekProcess<F, N> {
    node: NodeId,
    look: F,
    next: N,
    meter: Meter,
}

impl<K, V, F, N> Process<K, V> for PeekProcess<F, N>
where
    K: Format,
    V: Format,
    F: for<'a> FnMut(Record<'a, K, V>) + Send,
    N: Process<K, V>,
{
    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.meter.count(&record.raw());
        (self.look)(record);
        self.next.process(record, cx)
    }

    fn report(&mut self, meters: &mut Meters) {
        meters[self.node.0].add(std::mem::take(&mut self.meter));
        self.next.report(meters);
    }
}
