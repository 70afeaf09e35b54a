//! Writes another value for each record, or says why it cannot.

use std::borrow::Cow;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Function;
use crate::buffer::Buffer;
use crate::chain::{Chain, Running};
use crate::format::Format;
use crate::outputs::{OutputId, Outputs};
use crate::plan::Drawn;
use crate::process::{Cx, Fault, Meter, Meters, NodeId, Process};
use crate::record::Record;
use crate::stream::{End, Stream};

/// Why a record is refused: a fact about the record, no fault of the program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reject(Cow<'static, str>);

impl Reject {
    /// Refused for this reason, which goes into the record's headers.
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self(reason.into())
    }

    /// The reason.
    pub fn reason(&self) -> &str {
        &self.0
    }
}

/// The records that [`Stream::try_map`] refused.
#[derive(Debug)]
#[must_use = "say with `to` or `drop_all` what becomes of the rejects"]
pub struct Rejects {
    node: Drawn,
    target: Arc<Mutex<Option<String>>>,
}

impl Rejects {
    /// Writes each *input* record that led to a refused one to `topic`: key, value and headers as
    /// they came, and headers that say why, where, and which record it was.
    #[track_caller]
    pub fn to(self, topic: &str) -> End {
        *self.target.lock() = Some(topic.to_owned());
        self.node.leaf("rejects", Some(topic))
    }

    /// Lets them go. They are still counted.
    #[track_caller]
    pub fn drop_all(self) -> End {
        self.node.leaf("rejects", None)
    }
}

impl<C: Chain> Stream<C> {
    /// Writes each record's new value, of format `value`, or refuses the record. The key stays.
    #[track_caller]
    pub fn try_map<V, F>(self, value: V, write: F) -> (Stream<TryMap<C, V, F>>, Rejects)
    where
        V: Format,
        F: for<'a> FnMut(Record<'a, C::Key, C::Value>, &mut Buffer) -> Result<(), Reject>
            + Function,
    {
        let target = Arc::<Mutex<Option<String>>>::default();
        let to = target.clone();
        let stream = self.then("try_map", |up, node| TryMap { up, node, value, write, target: to });
        let node = stream.node.clone();
        (stream, Rejects { node, target })
    }
}

/// See [`Stream::try_map`].
#[derive(Clone, Debug)]
pub struct TryMap<C, V, F> {
    up: C,
    node: NodeId,
    value: V,
    write: F,
    target: Arc<Mutex<Option<String>>>,
}

impl<C, V, F> Chain for TryMap<C, V, F>
where
    C: Chain,
    V: Format,
    F: for<'a> FnMut(Record<'a, C::Key, C::Value>, &mut Buffer) -> Result<(), Reject> + Function,
{
    type KeyIn = C::KeyIn;
    type ValueIn = C::ValueIn;
    type Key = C::Key;
    type Value = V;

    fn close<N>(&self, next: N, outputs: &mut Outputs) -> Running<C::KeyIn, C::ValueIn>
    where
        N: Process<C::Key, V> + 'static,
    {
        let rejects = self
            .target
            .lock()
            .as_deref()
            .map(|name| outputs.topic(name).expect("the build has checked the name"));
        let process = TryMapProcess {
            node: self.node,
            format: self.value,
            write: self.write.clone(),
            rejects,
            next,
            value: Buffer::default(),
            meter: Meter::default(),
        };
        self.up.close(process, outputs)
    }
}

struct TryMapProcess<V, F, N> {
    node: NodeId,
    format: V,
    write: F,
    rejects: Option<OutputId>,
    next: N,
    value: Buffer,
    meter: Meter,
}

impl<K, V, V2, F, N> Process<K, V> for TryMapProcess<V2, F, N>
where
    K: Format,
    V: Format,
    V2: Format,
    F: for<'a> FnMut(Record<'a, K, V>, &mut Buffer) -> Result<(), Reject> + Send,
    N: Process<K, V2>,
{
    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.meter.count(&record.raw());
        self.value.clear();
        if let Err(reject) = (self.write)(record, &mut self.value) {
            self.meter.rejects += 1;
            if let Some(output) = self.rejects {
                cx.outputs.write_letter(output, &cx.origin, self.node, reject.reason());
            }
            return Ok(());
        }
        let bytes = self.value.get();
        let viewed = self.format.view(bytes);
        let view = viewed.map_err(|cause| Fault { node: self.node, cause: cause.into() })?;
        self.next.process(record.shorten().with_value(view, bytes), cx)
    }

    fn report(&mut self, meters: &mut Meters) {
        meters[self.node.0].add(std::mem::take(&mut self.meter));
        self.next.report(meters);
    }
}
