//! A topology: what is read, what happens to it, where it goes. Made once, checked when it is
//! built, and run by as many tasks as its topics have partitions.

use std::collections::BTreeSet;
use std::panic::Location;
use std::sync::Arc;

use parking_lot::Mutex;
use vltava_protocol::ids::{Offset, TopicName};

use crate::chain::{Junction, Root, Running};
use crate::explain::Explanation;
use crate::format::Format;
use crate::outputs::Outputs;
use crate::plan::{BuildError, Drawn, Node, Plan};
use crate::process::{Entry, InputBatch, Meter, Meters, NodeId, OnFault, Policy, Run};
use crate::record::Source;
use crate::stream::{Stream, new_node};
use crate::task::StreamTask;

/// A topology that is being made.
///
/// ```
/// use vltava_streams::{Topology, utf8};
///
/// let shouts = Topology::new("shouts");
/// shouts
///     .stream("words", (utf8(), utf8()))
///     .filter(|word| !word.value.is_empty())
///     .map_values(utf8(), |word, out| {
///         out.text(&word.value.to_uppercase());
///     })
///     .to("shouts");
/// let program = shouts.build()?;
/// assert_eq!(program.name(), "shouts");
/// # Ok::<(), vltava_streams::BuildError>(())
/// ```
#[derive(Debug)]
pub struct Topology {
    plan: Arc<Mutex<Plan>>,
    on_fault: OnFault,
}

/// A topology that was built: it can run.
pub struct Program {
    name: String,
    nodes: Vec<Node>,
    sources: Vec<(NodeId, SourceFactory)>,
    on_fault: OnFault,
}

/// Makes the chains that begin at a source, for one task.
pub(crate) type SourceFactory = Box<dyn Fn(&mut Outputs) -> Vec<Box<dyn Stage>> + Send + Sync>;

/// A chain behind a source, its formats forgotten: one virtual call a batch.
pub(crate) trait Stage: Send {
    /// Takes the records of a batch from `run.from` on.
    fn run(&mut self, batch: &InputBatch<'_>, run: &mut Run<'_>);

    /// The source's node.
    fn node(&self) -> NodeId;

    /// Hands over the counts since the last time.
    fn report(&mut self, meters: &mut Meters);
}

struct SourceStage<K, V> {
    entry: Entry<K, V>,
    chain: Running<K, V>,
    /// Of the source; the first of its chains counts.
    meter: Option<Meter>,
}

impl<K: Format, V: Format> Stage for SourceStage<K, V> {
    fn run(&mut self, batch: &InputBatch<'_>, run: &mut Run<'_>) {
        self.chain.process_batch(self.entry, batch, run);
        if let Some(meter) = &mut self.meter {
            meter.add(std::mem::take(&mut run.taken));
        }
    }

    fn node(&self) -> NodeId {
        self.entry.node
    }

    fn report(&mut self, meters: &mut Meters) {
        if let Some(meter) = &mut self.meter {
            meters[self.entry.node.0].add(std::mem::take(meter));
        }
        self.chain.report(meters);
    }
}

impl Topology {
    /// An empty topology. Its name is the consumer group under which its positions are kept.
    #[track_caller]
    pub fn new(name: &str) -> Self {
        let plan = Plan {
            name: name.to_owned(),
            site: Location::caller(),
            nodes: Vec::new(),
            sources: Vec::new(),
            unknown_formats: Vec::new(),
        };
        Self { plan: Arc::new(Mutex::new(plan)), on_fault: OnFault::default() }
    }

    /// Says what becomes of records that fail: whose bytes are not of the format that an operator
    /// reads, or that make the user's code panic.
    #[must_use]
    pub fn on_fault(mut self, on_fault: OnFault) -> Self {
        self.on_fault = on_fault;
        self
    }

    /// Reads a topic, its keys and values in these formats. Each partition is read by a task of its
    /// own, in order.
    #[track_caller]
    pub fn stream<K: Format, V: Format>(
        &self,
        topic: &str,
        (key, value): (K, V),
    ) -> Stream<Root<K, V>> {
        let formats = Some((K::NAME, V::NAME));
        let node = new_node("stream", Some(topic), formats, Location::caller());
        let node = Drawn::draw(&self.plan, node);
        node.check_formats(key, value);
        let junction = Junction::default();
        let (from, id) = (junction.clone(), node.id);
        let factory: SourceFactory = Box::new(move |outputs| {
            let entry = Entry { node: id, key, value };
            let chains = from.start(outputs).into_iter().enumerate();
            let stage = |(at, chain)| {
                let meter = (at == 0).then(Meter::default);
                Box::new(SourceStage { entry, chain, meter }) as Box<dyn Stage>
            };
            chains.map(stage).collect()
        });
        self.plan.lock().sources.push((id, factory));
        node.stream(junction)
    }

    /// What the topology is, for people and for programs.
    pub fn explain(&self) -> Explanation {
        let plan = self.plan.lock();
        Explanation::new(&plan.name, &plan.nodes)
    }

    /// Checks the topology and makes it one that can run. Streams that were taken from it and not
    /// brought to an end are an error.
    pub fn build(self) -> Result<Program, BuildError> {
        let mut plan = self.plan.lock();
        if let OnFault::DeadLetter(topic) = &self.on_fault {
            let (topic, site) = (topic.clone(), plan.site);
            let node = new_node("dead_letters", Some(&topic), None, site);
            plan.nodes.push(Node { name: "dead-letters".to_owned(), ..node });
        }
        plan.check()?;
        Ok(Program {
            name: plan.name.clone(),
            nodes: std::mem::take(&mut plan.nodes),
            sources: std::mem::take(&mut plan.sources),
            on_fault: self.on_fault.clone(),
        })
    }
}

impl Program {
    /// The topology's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its nodes; a [`NodeId`] is a place in this list.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The topics that it reads.
    pub fn topics(&self) -> BTreeSet<TopicName> {
        let topics = self.sources.iter().map(|(node, _)| self.topic(*node));
        topics.map(TopicName::new).collect()
    }

    /// The first node that reads `topic`.
    pub fn reader_of(&self, topic: &TopicName) -> Option<&Node> {
        let mut nodes = self.sources.iter().map(|(node, _)| &self.nodes[node.0]);
        nodes.find(|node| node.topic.as_deref() == Some(topic.as_str()))
    }

    /// What the topology is, for people and for programs.
    pub fn explain(&self) -> Explanation {
        Explanation::new(&self.name, &self.nodes)
    }

    /// A task that reads `source` from `position` on.
    pub fn task(&self, source: Source, position: Offset) -> StreamTask {
        let names = self.nodes.iter().map(|node| node.name.clone()).collect();
        let mut outputs = Outputs::new(names);
        let policy = match &self.on_fault {
            OnFault::Stop => Policy::Stop,
            OnFault::Skip => Policy::Skip,
            OnFault::DeadLetter(topic) => {
                let output = outputs.topic(topic);
                Policy::DeadLetter(output.expect("the build has checked the name"))
            }
        };
        let mut stages = Vec::new();
        for (node, factory) in &self.sources {
            if self.topic(*node) == source.topic.as_str() {
                stages.append(&mut factory(&mut outputs));
            }
        }
        StreamTask::new(source, position, stages, outputs, policy, self.nodes.len())
    }

    fn topic(&self, source: NodeId) -> &str {
        self.nodes[source.0].topic.as_deref().expect("a source has a topic")
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program")
            .field("name", &self.name)
            .field("nodes", &self.nodes)
            .field("on_fault", &self.on_fault)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("name", &self.name)
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
}
