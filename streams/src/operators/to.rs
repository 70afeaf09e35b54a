//! Writes records to a topic: the end of a stream.

use super::Function;
use crate::chain::Chain;
use crate::format::Format;
use crate::outputs::OutputId;
use crate::process::{Cx, Fault, FaultCause, Meter, Meters, NodeId, Process};
use crate::record::Record;
use crate::stream::{End, Stream};

impl<C: Chain> Stream<C> {
    /// Writes each record to `topic`, at the partition of its key; with its own time and headers.
    /// The topic is created where it does not exist.
    #[track_caller]
    pub fn to(self, topic: &str) -> End {
        let name = topic.to_owned();
        self.end("to", Some(topic), move |chain, node| {
            Box::new(move |outputs| {
                let output = outputs.topic(&name).expect("the build has checked the name");
                chain.close(ToProcess { node, output, meter: Meter::default() }, outputs)
            })
        })
    }

    /// Writes each record to the topic that `name` writes for it. A topic is created where it does
    /// not exist; a name that no topic can have is the record's fault.
    #[track_caller]
    pub fn to_each<F>(self, name: F) -> crate::stream::End
    where
        F: for<'a> FnMut(Record<'a, C::Key, C::Value>, &mut String) + Function,
    {
        self.end("to_each", None, move |chain, node| {
            Box::new(move |outputs| {
                let (name, topic, meter) = (name.clone(), String::new(), Meter::default());
                chain.close(ToEachProcess { node, name, topic, meter }, outputs)
            })
        })
    }
}

struct ToProcess {
    node: NodeId,
    output: OutputId,
    meter: Meter,
}

impl<K: Format, V: Format> Process<K, V> for ToProcess {
    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let raw = record.raw();
        self.meter.count(&raw);
        cx.outputs.write(self.output, raw.timestamp, raw.key, raw.value, raw.headers);
        Ok(())
    }

    fn report(&mut self, meters: &mut Meters) {
        meters[self.node.0].add(std::mem::take(&mut self.meter));
    }
}

struct ToEachProcess<F> {
    node: NodeId,
    name: F,
    /// Of the present record; kept for its memory.
    topic: String,
    meter: Meter,
}

impl<K, V, F> Process<K, V> for ToEachProcess<F>
where
    K: Format,
    V: Format,
    F: for<'a> FnMut(Record<'a, K, V>, &mut String) + Send,
{
    fn process(&mut self, record: Record<'_, K, V>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let raw = record.raw();
        self.meter.count(&raw);
        self.topic.clear();
        (self.name)(record, &mut self.topic);
        let Some(output) = cx.outputs.topic(&self.topic) else {
            let is_full = cx.outputs.is_full();
            let cause = if is_full { FaultCause::TopicCount } else { FaultCause::TopicName };
            return Err(Fault { node: self.node, cause });
        };
        cx.outputs.write(output, raw.timestamp, raw.key, raw.value, raw.headers);
        Ok(())
    }

    fn report(&mut self, meters: &mut Meters) {
        meters[self.node.0].add(std::mem::take(&mut self.meter));
    }
}
