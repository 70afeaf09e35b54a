//! The plan of a topology: its nodes, where in the user's source each was made, and what is wrong
//! with them.

use std::collections::HashMap;
use std::panic::Location;
use std::sync::Arc;

use parking_lot::Mutex;
use vltava_protocol::ids::{InvalidTopicName, TopicName};

use crate::chain::{Junction, Root};
use crate::format::{Format, UnknownFormat};
use crate::process::NodeId;
use crate::stream::Stream;
use crate::topology::SourceFactory;

/// Where in the user's source a node was made.
pub type Site = &'static Location<'static>;

/// One operator of a topology.
#[derive(Clone, Debug)]
pub struct Node {
    /// Unique in the topology; the user's, or made of the operator and a number.
    pub name: String,
    /// The operator's name, such as `filter`.
    pub operator: &'static str,
    /// Where it was made.
    pub site: Site,
    /// The node before it; none of a source.
    pub input: Option<NodeId>,
    /// The topic that it reads or writes, where that is known.
    pub topic: Option<String>,
    /// The names of the formats of keys and values that leave it, where any do.
    pub formats: Option<(&'static str, &'static str)>,
}

/// Why a topology cannot run: each names the node, and the place in the source.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BuildError {
    /// Two nodes have one name.
    #[error("two nodes are called {name:?}: one made at {first}, one at {second}")]
    Duplicate {
        /// The name.
        name: String,
        /// Where the first was made.
        first: Site,
        /// Where the other was made.
        second: Site,
    },
    /// Nothing is read.
    #[error("topology {topology:?}, made at {site}, has no source: call `stream`")]
    NoSource {
        /// The topology's name.
        topology: String,
        /// Where it was made.
        site: Site,
    },
    /// What a node makes goes nowhere, so it would never run.
    #[error("node {node:?}, made at {site}, leads nowhere: end the stream with `to`")]
    LeadsNowhere {
        /// The node.
        node: String,
        /// Where it was made.
        site: Site,
    },
    /// No topic can have this name.
    #[error("node {node:?}, made at {site}, names an impossible topic: {error}")]
    Topic {
        /// The node.
        node: String,
        /// Where it was made.
        site: Site,
        /// What is wrong with the name.
        error: InvalidTopicName,
    },
    /// No format has this name.
    #[error("node {node:?}, made at {site}: {error}")]
    Format {
        /// The node.
        node: String,
        /// Where it was made.
        site: Site,
        /// Which.
        error: UnknownFormat,
    },
}

/// Everything that was said of a topology so far.
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) site: Site,
    pub(crate) nodes: Vec<Node>,
    pub(crate) sources: Vec<(NodeId, SourceFactory)>,
    pub(crate) unknown_formats: Vec<(NodeId, UnknownFormat)>,
}

impl Plan {
    /// What is wrong with it, if anything.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        if self.sources.is_empty() {
            return Err(BuildError::NoSource { topology: self.name.clone(), site: self.site });
        }
        if let Some((id, error)) = self.unknown_formats.first().copied() {
            let Node { name, site, .. } = &self.nodes[id.0];
            return Err(BuildError::Format { node: name.clone(), site, error });
        }
        let mut names = HashMap::new();
        for node in &self.nodes {
            if let Some(first) = names.insert(&node.name, node.site) {
                let (name, second) = (node.name.clone(), node.site);
                return Err(BuildError::Duplicate { name, first, second });
            }
        }
        for (at, Node { name, site, topic, .. }) in self.nodes.iter().enumerate() {
            if let Some(Err(error)) = topic.as_deref().map(TopicName::validate) {
                return Err(BuildError::Topic { node: name.clone(), site, error });
            }
            let is_followed = self.nodes.iter().any(|node| node.input == Some(NodeId(at)));
            if self.nodes[at].formats.is_some() && !is_followed {
                return Err(BuildError::LeadsNowhere { node: name.clone(), site });
            }
        }
        Ok(())
    }
}

/// A node of a plan that is still being made.
#[derive(Clone)]
pub(crate) struct Drawn {
    pub(crate) plan: Arc<Mutex<Plan>>,
    pub(crate) id: NodeId,
}

impl Drawn {
    /// Adds a node behind this one.
    pub(crate) fn add(&self, node: Node) -> Self {
        Self::draw(&self.plan, Node { input: Some(self.id), ..node })
    }

    /// Adds a node.
    pub(crate) fn draw(plan: &Arc<Mutex<Plan>>, mut node: Node) -> Self {
        let mut drawn = plan.lock();
        let id = NodeId(drawn.nodes.len());
        if node.name.is_empty() {
            node.name = format!("{}-{}", node.operator, id.0);
        }
        drawn.nodes.push(node);
        Self { plan: plan.clone(), id }
    }

    /// Gives the node a name.
    pub(crate) fn rename(&self, name: &str) {
        name.clone_into(&mut self.plan.lock().nodes[self.id.0].name);
    }

    /// Notes that the node reads or writes in formats that do not exist.
    pub(crate) fn check_formats<K: Format, V: Format>(&self, key: K, value: V) {
        for error in [key.check(), value.check()].into_iter().filter_map(Result::err) {
            self.plan.lock().unknown_formats.push((self.id, error));
        }
    }

    /// A stream that begins at this node.
    pub(crate) fn stream<K: Format, V: Format>(
        &self,
        junction: Junction<K, V>,
    ) -> Stream<Root<K, V>> {
        Stream { chain: Root::default(), node: self.clone(), junction }
    }
}

impl std::fmt::Debug for Drawn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Drawn").field(&self.id).finish()
    }
}
