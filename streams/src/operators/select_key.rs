//! Gives each record another key, without a copy.

use std::marker::PhantomData;

use super::Function;
use crate::chain::{Chain, Running};
use crate::format::{Borrowed, Format};
use crate::outputs::Outputs;
use crate::process::{Cx, Fault, Meter, Meters, NodeId, Process};
use crate::record::Record;
use crate::stream::Stream;

impl<C: Chain> Stream<C> {
    /// Takes a part of the record as its key: a view that borrows from it. The value stays.
    #[track_caller]
    pub fn select_key<K, F>(self, _: K, part: F) -> Stream<SelectKey<C, K, F>>
    where
        K: Borrowed,
        F: for<'a> FnMut(Record<'a, C::Key, C::Value>) -> K::View<'a> + Function,
    {
        self.then("select_key", |up, node| SelectKey { up, node, to: PhantomData, part })
    }
}

/// See [`Stream::select_key`].
#[derive(Clone, Debug)]
pub struct SelectKey<C, K, F> {
    up: C,
    node: NodeId,
    to: PhantomData<K>,
    part: F,
}

impl<C, K, F> Chain for SelectKey<C, K, F>
where
    C: Chain,
    K: Borrowed,
    F: for<'a> FnMut(Record<'a, C::Key, C::Value>) -> K::View<'a> + Function,
{
    type KeyIn = C::KeyIn;
    type ValueIn = C::ValueIn;
    type Key = K;
    type Value = C::Value;

    fn close<N>(&self, next: N, outputs: &mut Outputs) -> Running<C::KeyIn, C::ValueIn>
    where
        N: Process<K, C::Value> + 'static,
    {
        let (node, part, to) = (self.node, self.part.clone(), self.to);
        let meter = Meter::default();
        self.up.close(SelectKeyProcess { node, to, part, next, meter }, outputs)
    }
}

struct SelectKeyProcess<K, F, N> {
    node: NodeId,
    to: PhantomData<K>,
    part: F,
    next: N,
    meter: Meter,
}

impl<K, V, K2, F, N> Process<K, V> for SelectKeyProcess<K2, F, N>
where
    K: Format,
    V: Format,
    K2: Borrowed,
    F: for<'a> FnMut(Record<'a, K, V>) -> K2::View<'a> + Send,
    N: Process<K2, V>,
{
    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.meter.count(&record.raw());
        let view = (self.part)(record);
        self.next.process(record.with_key(view, K2::bytes(view)), cx)
    }

    fn report(&mut self, meters: &mut Meters) {
        meters[self.node.0].add(std::mem::take(&mut self.meter));
        self.next.report(meters);
    }
}
