//! Makes any number of records of each.

use super::Function;
use crate::buffer::Emitter;
use crate::chain::{Chain, Running};
use crate::format::Format;
use crate::outputs::Outputs;
use crate::process::{Cx, Fault, Meter, Meters, NodeId, Process};
use crate::record::Record;
use crate::stream::Stream;

impl<C: Chain> Stream<C> {
    /// Makes any number of records of each, none included. They come out in the order in which they
    /// were emitted, with the time and headers of the record that they are made of.
    #[track_caller]
    pub fn flat_map<K, V, F>(self, formats: (K, V), write: F) -> Stream<FlatMap<C, K, V, F>>
    where
        K: Format,
        V: Format,
        F: for<'a> FnMut(Record<'a, C::Key, C::Value>, &mut Emitter) + Function,
    {
        self.then("flat_map", |up, node| FlatMap { up, node, formats, write })
    }
}

/// See [`Stream::flat_map`].
#[derive(Clone, Debug)]
pub struct FlatMap<C, K, V, F> {
    up: C,
    node: NodeId,
    formats: (K, V),
    write: F,
}

impl<C, K, V, F> Chain for FlatMap<C, K, V, F>
where
    C: Chain,
    K: Format,
    V: Format,
    F: for<'a> FnMut(Record<'a, C::Key, C::Value>, &mut Emitter) + Function,
{
    type KeyIn = C::KeyIn;
    type ValueIn = C::ValueIn;
    type Key = K;
    type Value = V;

    fn close<N>(&self, next: N, outputs: &mut Outputs) -> Running<C::KeyIn, C::ValueIn>
    where
        N: Process<K, V> + 'static,
    {
        let process = FlatMapProcess {
            node: self.node,
            formats: self.formats,
            write: self.write.clone(),
            next,
            emitter: Emitter::default(),
            meter: Meter::default(),
        };
        self.up.close(process, outputs)
    }
}

struct FlatMapProcess<K, V, F, N> {
    node: NodeId,
    formats: (K, V),
    write: F,
    next: N,
    emitter: Emitter,
    meter: Meter,
}

impl<K, V, K2, V2, F, N> Process<K, V> for FlatMapProcess<K2, V2, F, N>
where
    K: Format,
    V: Format,
    K2: Format,
    V2: Format,
    F: for<'a> FnMut(Record<'a, K, V>, &mut Emitter) + Send,
    N: Process<K2, V2>,
{
    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.meter.count(&record.raw());
        self.emitter.clear();
        (self.write)(record, &mut self.emitter);
        for (key, value) in self.emitter.records() {
            let raw = record.raw().with(key, value);
            let viewed = Record::new(self.formats.0, self.formats.1, raw);
            let written = viewed.map_err(|cause| Fault { node: self.node, cause: cause.into() })?;
            self.next.process(written, cx)?;
        }
        Ok(())
    }

    fn report(&mut self, meters: &mut Meters) {
        meters[self.node.0].add(std::mem::take(&mut self.meter));
        self.next.report(meters);
    }
}
