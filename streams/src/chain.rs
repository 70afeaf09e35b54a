//! A chain of operators before it runs: what a [`Stream`](crate::Stream) carries.
//!
//! Operators are added at the end, but a running operator must know what comes after it. So a chain
//! is *closed* from its end: each operator wraps what follows and hands the whole to the one before.
//! The result is one type, compiled as one loop. Each task closes the chain anew, with operators of
//! its own.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::format::Format;
use crate::outputs::Outputs;
use crate::process::{Cx, Fault, Meters, Process};
use crate::record::Record;

/// The operators of one chain, in order.
pub trait Chain: Clone + Send + Sync + 'static {
    /// Format of the keys that enter the chain.
    type KeyIn: Format;
    /// Format of the values that enter it.
    type ValueIn: Format;
    /// Format of the keys that leave it.
    type Key: Format;
    /// Format of the values that leave it.
    type Value: Format;

    /// The chain as a running operator, followed by `next`.
    fn close<N>(&self, next: N, outputs: &mut Outputs) -> Running<Self::KeyIn, Self::ValueIn>
    where
        N: Process<Self::Key, Self::Value> + 'static;
}

/// A closed chain.
pub(crate) type Running<K, V> = Box<dyn Process<K, V>>;

/// Makes a closed chain for a task, with the outputs of that task.
pub(crate) type Factory<K, V> = Box<dyn Fn(&mut Outputs) -> Running<K, V> + Send + Sync>;

/// The chain without operators, at whose beginning several others may stand.
#[derive(Debug)]
pub struct Root<K, V>(std::marker::PhantomData<fn() -> (K, V)>);

impl<K, V> Clone for Root<K, V> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<K, V> Default for Root<K, V> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<K: Format, V: Format> Chain for Root<K, V> {
    type KeyIn = K;
    type ValueIn = V;
    type Key = K;
    type Value = V;

    fn close<N: Process<K, V> + 'static>(&self, next: N, _: &mut Outputs) -> Running<K, V> {
        Box::new(next)
    }
}

/// A place where chains begin: behind a source, or where a stream parts.
pub(crate) struct Junction<K, V>(Arc<Mutex<Vec<Factory<K, V>>>>);

impl<K, V> Clone for Junction<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> Default for Junction<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Format, V: Format> Junction<K, V> {
    /// Adds a chain that begins here.
    pub(crate) fn add(&self, factory: Factory<K, V>) {
        self.0.lock().push(factory);
    }

    /// The chains that begin here, running.
    pub(crate) fn start(&self, outputs: &mut Outputs) -> Vec<Running<K, V>> {
        self.0.lock().iter().map(|factory| factory(outputs)).collect()
    }
}

/// Where a stream parts: each record goes to every branch, in the order in which they were made.
pub(crate) struct Fan<K, V>(pub(crate) Vec<Running<K, V>>);

impl<K: Format, V: Format> Process<K, V> for Fan<K, V> {
    fn process(&mut self, record: Record<'_, K, V>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.0.iter_mut().try_for_each(|branch| branch.process(record, cx))
    }

    fn report(&mut self, meters: &mut Meters) {
        for branch in &mut self.0 {
            branch.report(meters);
        }
    }
}
