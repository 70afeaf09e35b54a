//! Parts a stream in two.

use super::Function;
use crate::chain::{Chain, Fan, Junction, Root};
use crate::format::Format;
use crate::process::{Cx, Fault, Meter, Meters, NodeId, Process};
use crate::record::Record;
use crate::stream::Stream;

/// The two streams of [`Stream::branch`]: those that the predicate likes, and the rest.
pub(super) type Branch<K, V> = (Stream<Root<K, V>>, Stream<Root<K, V>>);

impl<C: Chain> Stream<C> {
    /// Parts the stream: the records for which `predicate` is true, and the others. To part it in
    /// more, branch the rest again: each record goes to the first branch that likes it.
    #[track_caller]
    pub fn branch<F>(self, predicate: F) -> Branch<C::Key, C::Value>
    where
        F: for<'a> FnMut(Record<'a, C::Key, C::Value>) -> bool + Function,
    {
        let (yes, no) = (Junction::default(), Junction::default());
        let (to_yes, to_no) = (yes.clone(), no.clone());
        let node = self.part("branch", move |chain, node| {
            Box::new(move |outputs| {
                let process = BranchProcess {
                    node,
                    predicate: predicate.clone(),
                    yes: Fan(to_yes.start(outputs)),
                    no: Fan(to_no.start(outputs)),
                    meter: Meter::default(),
                };
                chain.close(process, outputs)
            })
        });
        (node.stream(yes), node.stream(no))
    }
}

struct BranchProcess<K, V, F> {
    node: NodeId,
    predicate: F,
    yes: Fan<K, V>,
    no: Fan<K, V>,
    meter: Meter,
}

impl<K, V, F> Process<K, V> for BranchProcess<K, V, F>
where
    K: Format,
    V: Format,
    F: for<'a> FnMut(Record<'a, K, V>) -> bool + Send,
{
    fn process(&mut self, record: Record<'_, K, V>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.meter.count(&record.raw());
        let branch = if (self.predicate)(record) { &mut self.yes } else { &mut self.no };
        branch.process(record, cx)
    }

    fn report(&mut self, meters: &mut Meters) {
        meters[self.node.0].add(std::mem::take(&mut self.meter));
        self.yes.report(meters);
        self.no.report(meters);
    }
}
