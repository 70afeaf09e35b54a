//! Narrows a record's value to a part of it, without a copy.

use std::marker::PhantomData;

use super::Function;
use crate::chain::{Chain, Running};
use crate::format::{Borrowed, Format};
use crate::outputs::Outputs;
use crate::process::{Cx, Fault, Meter, Meters, NodeId, Process};
use crate::record::Record;
use crate::stream::Stream;

impl<C: Chain> Stream<C> {
    /// Takes a part of the record as its value: a view that borrows from it. The key stays.
    #[track_caller]
    pub fn project<V, F>(self, _: V, part: F) -> Stream<Project<C, V, F>>
    where
        V: Borrowed,
        F: for<'a> FnMut(Record<'a, C::Key, C::Value>) -> V::View<'a> + Function,
    {
        self.then("project", |up, node| Project { up, node, to: PhantomData, part })
    }
}

/// See [`Stream::project`].
#[derive(Clone, Debug)]
pub struct Project<C, V, F> {
    up: C,
    node: NodeId,
    to: PhantomData<V>,
    part: F,
}

impl<C, V, F> Chain for Project<C, V, F>
where
    C: Chain,
    V: Borrowed,
    F: for<'a> FnMut(Record<'a, C::Key, C::Value>) -> V::View<'a> + Function,
{
    type KeyIn = C::KeyIn;
    type ValueIn = C::ValueIn;
    type Key = C::Key;
    type Value = V;

    fn close<N>(&self, next: N, outputs: &mut Outputs) -> Running<C::KeyIn, C::ValueIn>
    where
        N: Process<C::Key, V> + 'static,
    {
        let (node, part, to) = (self.node, self.part.clone(), self.to);
        let meter = Meter::default();
        self.up.close(ProjectProcess { node, to, part, next, meter }, outputs)
    }
}

struct ProjectProcess<V, F, N> {
    node: NodeId,
    to: PhantomData<V>,
    part: F,
    next: N,
    meter: Meter,
}

impl<K, V, V2, F, N> Process<K, V> for ProjectProcess<V2, F, N>
where
    K: Format,
    V: Format,
    V2: Borrowed,
    F: for<'a> FnMut(Record<'a, K, V>) -> V2::View<'a> + Send,
    N: Process<K, V2>,
{
    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.meter.count(&record.raw());
        let view = (self.part)(record);
        self.next.process(record.with_value(view, V2::bytes(view)), cx)
    }

    fn report(&mut self, meters: &mut Meters) {
        meters[self.node.0].add(std::mem::take(&mut self.meter));
        self.next.report(meters);
    }
}
