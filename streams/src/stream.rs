//! A stream of records in a topology that is being made: what the operators are called on.

use std::panic::Location;

use crate::chain::{Chain, Factory, Junction};
use crate::format::Format;
use crate::plan::{Drawn, Node, Site};
use crate::process::NodeId;

/// The records that leave an operator, with formats `C::Key` and `C::Value`. Every operator takes
/// the stream and gives a new one; a stream must end in a topic.
///
/// Closures are handed a [`Record`](crate::Record): `record.key`, `record.value`, its time, offset
/// and headers, all borrowed from the log.
#[must_use = "a stream that leads nowhere does not run"]
pub struct Stream<C: Chain> {
    pub(crate) chain: C,
    pub(crate) node: Drawn,
    pub(crate) junction: Junction<C::KeyIn, C::ValueIn>,
}

/// The end of a stream.
#[derive(Debug)]
pub struct End(Drawn);

impl End {
    /// Calls the last node so. Names are what metrics and [`explain`](crate::Topology::explain)
    /// show, and unique within a topology.
    #[allow(clippy::must_use_candidate, clippy::return_self_not_must_use)] // An end needs no further use.
    pub fn named(self, name: &str) -> Self {
        self.0.rename(name);
        self
    }
}

impl<C: Chain> Stream<C> {
    /// Calls the last operator so. Names are what metrics and
    /// [`explain`](crate::Topology::explain) show, and unique within a topology.
    pub fn named(self, name: &str) -> Self {
        self.node.rename(name);
        self
    }

    /// The stream behind one more operator.
    #[track_caller]
    pub(crate) fn then<D>(
        self,
        operator: &'static str,
        link: impl FnOnce(C, NodeId) -> D,
    ) -> Stream<D>
    where
        D: Chain<KeyIn = C::KeyIn, ValueIn = C::ValueIn>,
    {
        let formats = Some((D::Key::NAME, D::Value::NAME));
        let node = self.node.add(new_node(operator, None, formats, Location::caller()));
        let chain = link(self.chain, node.id);
        Stream { chain, node, junction: self.junction }
    }

    /// The stream behind an operator at which other streams begin.
    #[track_caller]
    pub(crate) fn part(
        self,
        operator: &'static str,
        factory: impl FnOnce(C, NodeId) -> Factory<C::KeyIn, C::ValueIn>,
    ) -> Drawn {
        let formats = Some((C::Key::NAME, C::Value::NAME));
        let node = self.node.add(new_node(operator, None, formats, Location::caller()));
        self.junction.add(factory(self.chain, node.id));
        node
    }

    /// The stream's last operator.
    #[track_caller]
    pub(crate) fn end(
        self,
        operator: &'static str,
        topic: Option<&str>,
        factory: impl FnOnce(C, NodeId) -> Factory<C::KeyIn, C::ValueIn>,
    ) -> End {
        let node = self.node.add(new_node(operator, topic, None, Location::caller()));
        self.junction.add(factory(self.chain, node.id));
        End(node)
    }
}

impl Drawn {
    /// A node behind this one that ends a side stream and does nothing of its own.
    #[track_caller]
    pub(crate) fn leaf(&self, operator: &'static str, topic: Option<&str>) -> End {
        End(self.add(new_node(operator, topic, None, Location::caller())))
    }
}

pub(crate) fn new_node(
    operator: &'static str,
    topic: Option<&str>,
    formats: Option<(&'static str, &'static str)>,
    site: Site,
) -> Node {
    let topic = topic.map(ToOwned::to_owned);
    Node { name: String::new(), operator, site, input: None, topic, formats }
}

impl<C: Chain> std::fmt::Debug for Stream<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("node", &self.node).finish_non_exhaustive()
    }
}
