//! What a topology is, as text for people and as JSON for programs.

use std::fmt;

use serde::Serialize;

use crate::plan::Node;
use crate::process::NodeId;

/// Version of the JSON's shape.
const SHAPE: u32 = 1;

/// A topology's nodes: `to_string` draws them as a tree, [`Explanation::to_json`] lists them.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub struct Explanation {
    version: u32,
    topology: String,
    nodes: Vec<ExplainedNode>,
}

/// One node of an [`Explanation`].
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
struct ExplainedNode {
    name: String,
    operator: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    /// The name of the node before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_format: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_format: Option<&'static str>,
    file: &'static str,
    line: u32,
    #[serde(skip)]
    depth: usize,
}

impl Explanation {
    pub(crate) fn new(topology: &str, nodes: &[Node]) -> Self {
        let mut explained = Vec::with_capacity(nodes.len());
        let roots = (0..nodes.len()).filter(|&at| nodes[at].input.is_none());
        roots.for_each(|root| visit(nodes, NodeId(root), 0, &mut explained));
        Self { version: SHAPE, topology: topology.to_owned(), nodes: explained }
    }

    /// `{"version", "topology", "nodes": [{"name", "operator", "topic", "input", "key_format",
    /// "value_format", "file", "line"}]}`, each node after the one that it follows.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("its keys are texts")
    }
}

fn visit(nodes: &[Node], id: NodeId, depth: usize, explained: &mut Vec<ExplainedNode>) {
    let node = &nodes[id.0];
    explained.push(ExplainedNode {
        name: node.name.clone(),
        operator: node.operator,
        topic: node.topic.clone(),
        input: node.input.map(|input| nodes[input.0].name.clone()),
        key_format: node.formats.map(|(key, _)| key),
        value_format: node.formats.map(|(_, value)| value),
        file: node.site.file(),
        line: node.site.line(),
        depth,
    });
    let followers = (0..nodes.len()).filter(|&at| nodes[at].input == Some(id));
    followers.for_each(|at| visit(nodes, NodeId(at), depth + 1, explained));
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "topology {}", self.topology)?;
        for node in &self.nodes {
            let indent = "  ".repeat(node.depth + 1);
            write!(f, "{indent}{} ({}", node.name, node.operator)?;
            if let Some(topic) = &node.topic {
                write!(f, " {topic}")?;
            }
            write!(f, ")")?;
            if let (Some(key), Some(value)) = (node.key_format, node.value_format) {
                write!(f, " -> {key}, {value}")?;
            }
            writeln!(f, "  [{}:{}]", node.file, node.line)?;
        }
        Ok(())
    }
}
