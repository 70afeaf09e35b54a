//! Writes another key and value for each record.

use super::Function;
use crate::buffer::Buffer;
use crate::chain::{Chain, Running};
use crate::format::Format;
use crate::outputs::Outputs;
use crate::process::{Cx, Fault, Meter, Meters, NodeId, Process};
use crate::record::Record;
use crate::stream::Stream;

impl<C: Chain> Stream<C> {
    /// Writes each record's new key and value. What the closure does not write is a null.
    #[track_caller]
    pub fn map<K, V, F>(self, formats: (K, V), write: F) -> Stream<Map<C, K, V, F>>
    where
        K: Format,
        V: Format,
        F: for<'a> FnMut(Record<'a, C::Key, C::Value>, &mut Buffer, &mut Buffer) + Function,
    {
        self.then("map", |up, node| Map { up, node, formats, write })
    }
}

/// See [`Stream::map`].
#[derive(Clone, Debug)]
pub struct Map<C, K, V, F> {
    up: C,
    node: NodeId,
    formats: (K, V),
    write: F,
}

impl<C, K, V, F> Chain for Map<C, K, V, F>
where
    C: Chain,
    K: Format,
    V: Format,
    F: for<'a> FnMut(Record<'a, C::Key, C::Value>, &mut Buffer, &mut Buffer) + Function,
{
    type KeyIn = C::KeyIn;
    type ValueIn = C::ValueIn;
    type Key = K;
    type Value = V;

    fn close<N>(&self, next: N, outputs: &mut Outputs) -> Running<C::KeyIn, C::ValueIn>
    where
        N: Process<K, V> + 'static,
    {
        let process = MapProcess {
            node: self.node,
            formats: self.formats,
            write: self.write.clone(),
            next,
            key: Buffer::default(),
            value: Buffer::default(),
            meter: Meter::default(),
        };
        self.up.close(process, outputs)
    }
}

struct MapProcess<K, V, F, N> {
    node: NodeId,
    formats: (K, V),
    write: F,
    next: N,
    key: Buffer,
    value: Buffer,
    meter: Meter,
}

impl<K, V, K2, V2, F, N> Process<K, V> for MapProcess<K2, V2, F, N>
where
    K: Format,
    V: Format,
    K2: Format,
    V2: Format,
    F: for<'a> FnMut(Record<'a, K, V>, &mut Buffer, &mut Buffer) + Send,
    N: Process<K2, V2>,
{
    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.meter.count(&record.raw());
        self.key.clear();
        self.value.clear();
        (self.write)(record, &mut self.key, &mut self.value);
        let raw = record.raw().with(self.key.get(), self.value.get());
        let viewed = Record::new(self.formats.0, self.formats.1, raw);
        let written = viewed.map_err(|cause| Fault { node: self.node, cause: cause.into() })?;
        self.next.process(written, cx)
    }

    fn report(&mut self, meters: &mut Meters) {
        meters[self.node.0].add(std::mem::take(&mut self.meter));
        self.next.report(meters);
    }
}
