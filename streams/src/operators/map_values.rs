//! Writes another value for each record.

use super::Function;
use crate::buffer::Buffer;
use crate::chain::{Chain, Running};
use crate::format::Format;
use crate::outputs::Outputs;
use crate::process::{Cx, Fault, Meter, Meters, NodeId, Process};
use crate::record::Record;
use crate::stream::Stream;

impl<C: Chain> Stream<C> {
    /// Writes each record's new value, of format `value`; the key stays. A closure that writes
    /// nothing makes a null.
    #[track_caller]
    pub fn map_values<V, F>(self, value: V, write: F) -> Stream<MapValues<C, V, F>>
    where
        V: Format,
        F: for<'a> FnMut(Record<'a, C::Key, C::Value>, &mut Buffer) + Function,
    {
        self.then("map_values", |up, node| MapValues { up, node, value, write })
    }
}

/// See [`Stream::map_values`].
#[derive(Clone, Debug)]
pub struct MapValues<C, V, F> {
    up: C,
    node: NodeId,
    value: V,
    write: F,
}

impl<C, V, F> Chain for MapValues<C, V, F>
where
    C: Chain,
    V: Format,
    F: for<'a> FnMut(Record<'a, C::Key, C::Value>, &mut Buffer) + Function,
{
    type KeyIn = C::KeyIn;
    type ValueIn = C::ValueIn;
    type Key = C::Key;
    type Value = V;

    fn close<N>(&self, next: N, outputs: &mut Outputs) -> Running<C::KeyIn, C::ValueIn>
    where
        N: Process<C::Key, V> + 'static,
    {
        let process = MapValuesProcess {
            node: self.node,
            format: self.value,
            write: self.write.clone(),
            next,
            value: Buffer::default(),
            meter: Meter::default(),
        };
        self.up.close(process, outputs)
    }
}

struct MapValuesProcess<V, F, N> {
    node: NodeId,
    format: V,
    write: F,
    next: N,
    value: Buffer,
    meter: Meter,
}

impl<K, V, V2, F, N> Process<K, V> for MapValuesProcess<V2, F, N>
where
    K: Format,
    V: Format,
    V2: Format,
    F: for<'a> FnMut(Record<'a, K, V>, &mut Buffer) + Send,
    N: Process<K, V2>,
{
    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.meter.count(&record.raw());
        self.value.clear();
        (self.write)(record, &mut self.value);
        let bytes = self.value.get();
        let viewed = self.format.view(bytes);
        let view =
            viewed.map_err(|malformed| Fault { node: self.node, cause: malformed.into() })?;
        self.next.process(record.shorten().with_value(view, bytes), cx)
    }

    fn report(&mut self, meters: &mut Meters) {
        meters[self.node.0].add(std::mem::take(&mut self.meter));
        self.next.report(meters);
    }
}
