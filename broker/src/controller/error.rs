//! Why the controller refuses, in the words and with the codes of Kafka's controller.
//!
//! The texts are part of the protocol: administration tools print them, and scripts look for them.

use vltava_protocol::ErrorCode;
use vltava_protocol::ids::{InvalidTopicName, NodeId, PartitionIndex, TopicId, TopicName};

use super::decide::PARTITIONS_PER_REQUEST_MAX;
use super::state::METADATA_TOPIC;
use crate::config::ConfigError;

/// Why the controller refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControlError {
    /// The name is not legal.
    #[error("{}", InvalidName(.0, .1))]
    Name(String, InvalidTopicName),
    /// The name would be the same as another's in metrics.
    #[error("Topic '{name}' collides with existing topic: {existing}")]
    Collides {
        /// The name.
        name: String,
        /// The other.
        existing: TopicName,
    },
    /// The name is taken.
    #[error("Topic '{0}' already exists.")]
    Exists(String),
    /// The name belongs to the cluster's own log.
    #[error("Creation of internal topic {METADATA_TOPIC} is prohibited.")]
    Reserved,
    /// The request names one topic more than once.
    #[error("Duplicate topic name.")]
    Duplicate(String),
    /// The request gives one topic's id more than once.
    #[error("Duplicate topic id.")]
    DuplicateId(TopicId),
    /// The request names a topic whose id it gives as well.
    #[error("The provided topic name maps to an ID that was already supplied.")]
    NameAndId(TopicId),
    /// Not a number of partitions.
    #[error("Number of partitions was set to an invalid non-positive value.")]
    Partitions(i32),
    /// More partitions than one request may create.
    #[error("Excessively large number of partitions per request.")]
    TooManyPartitions(usize),
    /// More partitions than one request may add. Kafka's controller gives up on its list of
    /// records and says no more (`BoundedList`).
    #[error("more than {PARTITIONS_PER_REQUEST_MAX} partitions in one request")]
    TooManyAdded,
    /// The topic has just as many partitions.
    #[error("Topic already has {0} partition(s).")]
    HasPartitions(usize),
    /// Partitions are never taken away.
    #[error(
        "The topic {name} currently has {has} partition(s); {wanted} would not be an increase."
    )]
    Fewer {
        /// The topic.
        name: String,
        /// How many it has.
        has: usize,
        /// How many were asked for.
        wanted: i32,
    },
    /// A manual assignment does not fit the number of new partitions.
    #[error(
        "Attempted to add {additional} additional partition(s), but only {given} assignment(s) \
         were specified."
    )]
    AssignmentCount {
        /// Partitions to be added.
        additional: usize,
        /// Assignments given.
        given: usize,
    },
    /// Not a replication factor.
    #[error("Replication factor must be larger than 0, or -1 to use the default value.")]
    ReplicationFactor(i32),
    /// There are not so many nodes.
    #[error(
        "Unable to replicate the partition {wanted} time(s): The target replication factor of \
         {wanted} cannot be reached because only {brokers} broker(s) are registered or some \
         brokers have all their log directories cordoned."
    )]
    TooFewBrokers {
        /// What was asked for.
        wanted: i32,
        /// The nodes there are.
        brokers: usize,
    },
    /// A manual assignment comes with a count.
    #[error("A manual partition assignment was specified, but {0} was not set to -1.")]
    AssignmentAndCount(&'static str),
    /// A manual assignment is wrong.
    #[error("{0}")]
    Assignment(#[from] AssignmentError),
    /// A topic's or group's configuration is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// A broker's configuration is wrong (KAFKA-13609: another code for the same mistake).
    #[error("{0}")]
    BrokerConfig(ConfigError),
    /// The operation does not go with the key's type.
    #[error("{0}")]
    ConfigOperation(String),
    /// The request contradicts itself or names what there cannot be.
    #[error("{0}")]
    Request(String),
    /// What is set would be larger than anybody needs.
    #[error("what is set for one resource must not exceed {0} bytes")]
    ConfigTooLarge(usize),
    /// More resources than one request may change.
    #[error("Unable to perform excessively large batch operation.")]
    TooManyResources,
    /// No topic of this name, whose configuration is to change.
    #[error("The topic '{0}' does not exist.")]
    NoTopicToConfigure(String),
    /// No topic of this name.
    #[error("This server does not host this topic-partition.")]
    UnknownName(String),
    /// No topic with this id.
    #[error("This server does not host this topic ID.")]
    UnknownId(TopicId),
    /// The broker does not delete topics.
    #[error("Topic deletion is disabled.")]
    DeletionDisabled,
    /// All producer ids were handed out.
    #[error("there are no producer ids left")]
    NoProducerIds,
    /// The log of group 0 did not take the records, or this node does not lead it.
    #[error("the metadata log refused the change: {0}")]
    Log(ErrorCode),
    /// The client did not give the change enough time.
    #[error("the change was not made within the request's timeout")]
    TimedOut,
    /// The node can no longer follow the metadata log.
    #[error("this node cannot follow the metadata log: {0}")]
    Follow(String),
}

/// What is wrong with a manual assignment.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AssignmentError {
    /// A partition is assigned more than once.
    #[error("Found multiple manual partition assignments for partition {0}")]
    Twice(PartitionIndex),
    /// The partitions are not 0, 1, 2, ...
    #[error("partitions should be a consecutive 0-based integer sequence")]
    Gap,
    /// A partition has no replica.
    #[error("The manual partition assignment includes an empty replica list.")]
    Empty,
    /// A node is named twice for a partition.
    #[error("The manual partition assignment includes the broker {0} more than once.")]
    Repeated(NodeId),
    /// A node is named that does not exist.
    #[error(
        "The manual partition assignment includes broker {0}, but no such broker is registered."
    )]
    NoBroker(NodeId),
    /// Partitions have different numbers of replicas.
    #[error(
        "The manual partition assignment includes a partition with {got} replica(s), but this is \
         not consistent with previous partitions, which have {expected} replica(s)."
    )]
    Uneven {
        /// Its replicas.
        got: usize,
        /// Those of the partitions before it.
        expected: usize,
    },
}

impl ControlError {
    /// The error on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Name(..) | Self::Collides { .. } => ErrorCode::InvalidTopicException,
            Self::Exists(_) => ErrorCode::TopicAlreadyExists,
            Self::Reserved
            | Self::Duplicate(_)
            | Self::DuplicateId(_)
            | Self::NameAndId(_)
            | Self::AssignmentAndCount(_)
            | Self::BrokerConfig(_)
            | Self::Request(_) => ErrorCode::InvalidRequest,
            Self::Partitions(_) | Self::HasPartitions(_) | Self::Fewer { .. } => {
                ErrorCode::InvalidPartitions
            }
            Self::TooManyPartitions(_) | Self::TooManyResources => ErrorCode::PolicyViolation,
            Self::ReplicationFactor(_) | Self::TooFewBrokers { .. } => {
                ErrorCode::InvalidReplicationFactor
            }
            Self::Assignment(_) | Self::AssignmentCount { .. } => {
                ErrorCode::InvalidReplicaAssignment
            }
            Self::Config(_) | Self::ConfigOperation(_) | Self::ConfigTooLarge(_) => {
                ErrorCode::InvalidConfig
            }
            Self::UnknownName(_) | Self::NoTopicToConfigure(_) => {
                ErrorCode::UnknownTopicOrPartition
            }
            Self::UnknownId(_) => ErrorCode::UnknownTopicId,
            Self::DeletionDisabled => ErrorCode::TopicDeletionDisabled,
            Self::NoProducerIds | Self::Follow(_) | Self::TooManyAdded => {
                ErrorCode::UnknownServerError
            }
            Self::TimedOut => ErrorCode::RequestTimedOut,
            Self::Log(code) => *code,
        }
    }

    /// The text on the wire; Kafka says nothing of a timeout or of its own faults.
    pub fn message(&self) -> Option<String> {
        match self {
            Self::TimedOut | Self::TooManyAdded => None,
            told => Some(told.to_string()),
        }
    }

    /// An illegal topic name.
    pub fn name(name: &str, error: InvalidTopicName) -> Self {
        Self::Name(name.to_owned(), error)
    }
}

/// Says what is wrong with a topic's name (`Topic.validate`).
#[derive(Debug)]
pub struct InvalidName<'a>(pub &'a str, pub &'a InvalidTopicName);

impl std::fmt::Display for InvalidName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(name, error) = self;
        f.write_str("Topic name is invalid: ")?;
        match error {
            InvalidTopicName::Empty => f.write_str("the empty string is not allowed"),
            InvalidTopicName::Dots => write!(f, "'{name}' is not allowed"),
            InvalidTopicName::TooLong(_) => {
                let most = vltava_protocol::ids::TOPIC_NAME_BYTES_MAX;
                write!(f, "the length of '{name}' is longer than the max allowed length {most}")
            }
            InvalidTopicName::Character(_) => write!(
                f,
                "'{name}' contains one or more characters other than ASCII alphanumerics, '.', \
                 '_' and '-'"
            ),
        }
    }
}
