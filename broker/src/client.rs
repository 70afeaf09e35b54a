//! A small Kafka client, for the command line.
//!
//! One connection a broker, opened when it is first needed; on each, requests go one after another.
//! Versions are negotiated per connection: the highest that the broker serves and the caller
//! understands. Every step has the same timeout. Nothing is retried here but what a broker refuses
//! because its leadership, or a group's coordinator, moved, and never a request that may have been
//! carried out. [`admin`] changes the cluster; [`group`] is groups, from outside and as a member.

pub mod admin;
mod connection;
mod consumer;
pub mod group;
pub mod http;
mod producer;

use std::collections::BTreeMap;
use std::time::Duration;

use vltava_protocol::ErrorCode;
use vltava_protocol::ids::{NodeId, PartitionIndex, TopicId, TopicName};
use vltava_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use vltava_protocol::messages::{Request, StrBytes};

use connection::Connection;
pub use connection::Versions;
pub use consumer::{Consumed, ConsumedRecord, EARLIEST, LATEST, StartOffset};
pub use producer::{Outgoing, Sent};
pub use vltava_protocol::record::partitioner::{murmur2, partition_of_key};

/// Why a request to a broker failed. One line.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at that address.
    #[error("cannot connect to {address}: {error}")]
    Connect {
        /// The address.
        address: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// The connection broke in the middle.
    #[error("connection to {address} broke: {error}")]
    Broken {
        /// The address.
        address: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// No answer in time.
    #[error("{address} did not answer within {timeout_ms} ms")]
    Timeout {
        /// The address.
        address: String,
        /// How long it was waited for.
        timeout_ms: u128,
    },
    /// The answer is not what the protocol says.
    #[error("{address} sent a malformed response to {api}: {reason}")]
    Malformed {
        /// The address.
        address: String,
        /// The API.
        api: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The broker does not serve this API in a version that is understood here.
    #[error("{address} does not serve {api} in a version that this client understands")]
    Unsupported {
        /// The address.
        address: String,
        /// The API.
        api: &'static str,
    },
    /// The broker refused.
    #[error("{what}: {}{}", code_name(*.code), message_suffix(.message.as_deref()))]
    Refused {
        /// What was asked for.
        what: String,
        /// The error code.
        code: i16,
        /// What the broker says to it.
        message: Option<String>,
    },
    /// Something that a request needs is not in the cluster.
    #[error("{0}")]
    Missing(String),
    /// Records of a response cannot be read.
    #[error("unreadable records in {topic}-{partition}: {reason}")]
    Records {
        /// The topic.
        topic: String,
        /// The partition.
        partition: PartitionIndex,
        /// What is wrong.
        reason: String,
    },
}

impl ClientError {
    /// A refusal, if `code` is one.
    fn check(
        what: impl FnOnce() -> String,
        code: i16,
        message: Option<&StrBytes>,
    ) -> Result<(), Self> {
        if code == 0 {
            return Ok(());
        }
        let message = message.filter(|message| !message.is_empty()).map(ToString::to_string);
        Err(Self::Refused { what: what(), code, message })
    }

    /// Whether it may be over in a moment: a connection that broke, a cluster that is rearranging.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Broken { .. } | Self::Timeout { .. } => true,
            Self::Refused { code, .. } => {
                ErrorCode::from_code(*code).is_some_and(ErrorCode::is_retriable)
            }
            _ => false,
        }
    }
}

/// The name of an error code, or its number if it is none of Kafka's.
pub fn code_name(code: i16) -> String {
    ErrorCode::from_code(code).map_or_else(|| format!("error {code}"), |code| code.name().into())
}

fn message_suffix(message: Option<&str>) -> String {
    message.map_or_else(String::new, |message| format!(": {message}"))
}

/// A broker as the cluster describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterNode {
    /// Its id.
    pub id: NodeId,
    /// Its address.
    pub host: String,
    /// And port.
    pub port: u16,
    /// Its failure domain.
    pub rack: Option<String>,
}

/// A topic as the cluster describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterTopic {
    /// Its name.
    pub name: String,
    /// Its id, or zero where the broker has none.
    pub id: TopicId,
    /// Whether it belongs to the broker.
    pub internal: bool,
    /// Why it cannot be described; 0 if it is.
    pub error: i16,
    /// Its partitions, by index.
    pub partitions: Vec<ClusterPartition>,
}

/// A partition as the cluster describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterPartition {
    /// Its index.
    pub index: PartitionIndex,
    /// Its leader, if there is one.
    pub leader: Option<NodeId>,
    /// The epoch of that leader.
    pub leader_epoch: i32,
    /// All nodes that hold it.
    pub replicas: Vec<NodeId>,
    /// The ones in sync.
    pub isr: Vec<NodeId>,
}

/// The cluster as one broker describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterView {
    /// Its id.
    pub cluster_id: Option<String>,
    /// The controller.
    pub controller: Option<NodeId>,
    /// The brokers.
    pub nodes: Vec<ClusterNode>,
    /// The topics asked for.
    pub topics: Vec<ClusterTopic>,
}

/// A client of one cluster.
#[derive(Debug)]
pub struct Client {
    bootstrap: String,
    timeout: Duration,
    first: Connection,
    nodes: BTreeMap<NodeId, Connection>,
    addresses: BTreeMap<NodeId, (String, u16)>,
}

impl Client {
    /// Connects to the first of the comma-separated `HOST:PORT`s that answers.
    pub async fn connect(bootstrap: &str, timeout: Duration) -> Result<Self, ClientError> {
        let mut last = ClientError::Missing("no bootstrap server was given".to_owned());
        for address in bootstrap.split(',').map(str::trim).filter(|address| !address.is_empty()) {
            match Connection::open(address, timeout).await {
                Ok(first) => {
                    return Ok(Self {
                        bootstrap: address.to_owned(),
                        timeout,
                        first,
                        nodes: BTreeMap::new(),
                        addresses: BTreeMap::new(),
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The address that answered.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// How long each step may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends a request to the broker that answered first. `build` gets the version.
    pub async fn ask<R: Request>(
        &mut self,
        versions: Versions,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, ClientError> {
        self.first.call(versions, self.timeout, build).await
    }

    /// Sends a request to one broker, which an answer has named before.
    pub async fn ask_node<R: Request>(
        &mut self,
        node: NodeId,
        versions: Versions,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, ClientError> {
        let timeout = self.timeout;
        let connection = self.node(node).await?;
        connection.call(versions, timeout, build).await
    }

    async fn node(&mut self, node: NodeId) -> Result<&mut Connection, ClientError> {
        if !self.nodes.contains_key(&node) {
            let (host, port) = self.addresses.get(&node).ok_or_else(|| {
                ClientError::Missing(format!("node {node} is not part of the cluster"))
            })?;
            let connection = Connection::open(&format!("{host}:{port}"), self.timeout).await?;
            self.nodes.insert(node, connection);
        }
        Ok(self.nodes.get_mut(&node).expect("it was just inserted"))
    }

    /// A connection of its own to the coordinator of a group.
    async fn coordinator_connection(&mut self, group: &str) -> Result<Connection, ClientError> {
        let node = self.find_coordinator(group).await?;
        let (host, port) = &self.addresses[&node];
        Connection::open(&format!("{host}:{port}"), self.timeout).await
    }

    /// Notes where a node is. A connection to where it was before is given up.
    fn learn_address(&mut self, node: NodeId, address: (String, u16)) {
        if self.addresses.get(&node) != Some(&address) {
            self.nodes.remove(&node);
            self.addresses.insert(node, address);
        }
    }

    /// Forgets a connection that failed; the next request opens a new one.
    fn forget(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    /// Describes the cluster with all topics, or with some, which are created if they are missing
    /// and `create` allows it.
    pub async fn cluster(
        &mut self,
        topics: Option<&[&str]>,
        create: bool,
    ) -> Result<ClusterView, ClientError> {
        let named = topics.map(|topics| {
            let topic =
                |name: &&str| MetadataRequestTopic::default().with_name(Some(text(name).into()));
            topics.iter().map(topic).collect()
        });
        let response = self
            .ask(Versions::of(1, 12), |version| {
                let request = MetadataRequest::default().with_topics(named);
                // Below version 4 there is no such field, and brokers may always create.
                request.with_allow_auto_topic_creation(create || version < 4)
            })
            .await?;
        let nodes: Vec<ClusterNode> = response
            .brokers
            .iter()
            .map(|broker| ClusterNode {
                id: NodeId(broker.node_id.0),
                host: broker.host.to_string(),
                port: u16::try_from(broker.port).unwrap_or(0),
                rack: broker.rack.as_ref().map(ToString::to_string),
            })
            .collect();
        for node in &nodes {
            self.learn_address(node.id, (node.host.clone(), node.port));
        }
        Ok(ClusterView {
            cluster_id: response.cluster_id.as_ref().map(ToString::to_string),
            controller: Some(NodeId(response.controller_id.0)).filter(|node| node.0 >= 0),
            nodes,
            topics: response.topics.iter().map(cluster_topic).collect(),
        })
    }

    /// Describes one topic; an error of the topic's is an error of the call.
    pub async fn topic(&mut self, name: &str, create: bool) -> Result<ClusterTopic, ClientError> {
        let topics = self.cluster(Some(&[name]), create).await?.topics;
        let topic = topics.into_iter().find(|topic| topic.name == name);
        let topic = topic.ok_or_else(|| ClientError::Missing(format!("no topic {name}")))?;
        ClientError::check(|| format!("topic {name}"), topic.error, None)?;
        Ok(topic)
    }
}

fn cluster_topic(
    topic: &vltava_protocol::messages::metadata_response::MetadataResponseTopic,
) -> ClusterTopic {
    let nodes = |ids: &[vltava_protocol::messages::BrokerId]| {
        ids.iter().map(|id| NodeId(id.0)).collect::<Vec<_>>()
    };
    let mut partitions: Vec<ClusterPartition> = topic
        .partitions
        .iter()
        .map(|partition| ClusterPartition {
            index: PartitionIndex(partition.partition_index),
            leader: Some(NodeId(partition.leader_id.0)).filter(|node| node.0 >= 0),
            leader_epoch: partition.leader_epoch,
            replicas: nodes(&partition.replica_nodes),
            isr: nodes(&partition.isr_nodes),
        })
        .collect();
    partitions.sort_by_key(|partition| partition.index);
    ClusterTopic {
        name: topic.name.as_ref().map_or_else(String::new, |name| name.to_string()),
        id: TopicId(topic.topic_id),
        internal: topic.is_internal,
        error: topic.error_code,
        partitions,
    }
}

/// A string for a request.
pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A topic's name for a request.
pub fn topic_name(name: &TopicName) -> vltava_protocol::messages::TopicName {
    text(name).into()
}
