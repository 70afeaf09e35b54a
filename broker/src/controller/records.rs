//! The records of group 0's log.
//!
//! Each is the value of an ordinary Kafka record: one JSON object, `{"v":1,"record":{...}}`, so
//! that `vltava log dump` shows what the cluster knows and no second format has to be trusted. A
//! record of another version, of an unknown kind or with an unknown field stops the node that reads
//! it: to skip it would be to follow another cluster than the rest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vltava_protocol::ids::TopicId;

use crate::config::resource::ResourceKind;

/// The version that this build writes, and the only one it reads.
pub const RECORD_VERSION: u16 = 1;

/// One change of the cluster's metadata.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum MetadataRecord {
    /// The first record of all: the cluster's identity.
    Cluster {
        /// Random, and the same for ever.
        id: String,
    },
    /// A node introduces itself, or has moved.
    Broker {
        /// The node's id.
        node: i32,
        /// Where clients reach it.
        host: String,
        /// And at which port.
        port: u16,
        /// Its failure domain.
        rack: Option<String>,
    },
    /// A topic is created.
    Topic {
        /// Its name.
        name: String,
        /// Its identity, base64url.
        #[serde(with = "topic_id")]
        id: TopicId,
        /// For each partition, the target set of replicas: (replica id, node), the preferred leader
        /// first.
        partitions: Vec<Vec<(u64, i32)>>,
        /// What was set for it.
        config: BTreeMap<String, String>,
    },
    /// A topic gets more partitions, behind those that it has.
    Partitions {
        /// The topic.
        #[serde(with = "topic_id")]
        id: TopicId,
        /// For each new partition, its replicas as in `Topic`.
        added: Vec<Vec<(u64, i32)>>,
    },
    /// What is set for a topic, all of it.
    TopicConfig {
        /// The topic.
        #[serde(with = "topic_id")]
        id: TopicId,
        /// The new set.
        config: BTreeMap<String, String>,
    },
    /// A topic is deleted with all its data.
    TopicDeleted {
        /// The topic.
        #[serde(with = "topic_id")]
        id: TopicId,
    },
    /// What is set at run time for one broker or, without a node, for all: all of it.
    BrokerConfig {
        /// The broker.
        node: Option<i32>,
        /// The new set.
        config: BTreeMap<String, String>,
    },
    /// What is set for a resource that is neither topic nor broker: all of it; nothing removes it.
    ResourceConfig {
        /// Its kind.
        kind: ResourceKind,
        /// Its name.
        name: String,
        /// The new set.
        config: BTreeMap<String, String>,
    },
    /// All producer ids below `next` were handed out.
    ProducerIds {
        /// The first id that is free.
        next: i64,
    },
}

/// Why a record cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// It is not the JSON that this build writes.
    #[error("unreadable metadata record: {0}")]
    Json(String),
    /// Another build wrote it.
    #[error("metadata record of version {0}; this build reads version {RECORD_VERSION}")]
    Version(u16),
}

#[derive(Deserialize)]
struct VersionOnly {
    v: u16,
}

#[derive(Serialize)]
struct EnvelopeOut<'a> {
    v: u16,
    record: &'a MetadataRecord,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeIn {
    #[serde(rename = "v")]
    _version: u16,
    record: MetadataRecord,
}

impl MetadataRecord {
    /// The value of the Kafka record.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&EnvelopeOut { v: RECORD_VERSION, record: self })
            .expect("strings, numbers and lists are JSON")
    }

    /// Reads the value of a Kafka record.
    pub fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let json = |error: serde_json::Error| RecordError::Json(error.to_string());
        // The version comes first: of another one, nothing else may be taken for granted.
        let VersionOnly { v } = serde_json::from_slice(value).map_err(json)?;
        if v != RECORD_VERSION {
            return Err(RecordError::Version(v));
        }
        let envelope: EnvelopeIn = serde_json::from_slice(value).map_err(json)?;
        Ok(envelope.record)
    }
}

/// Topic ids as Kafka shows them.
mod topic_id {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use vltava_protocol::ids::TopicId;

    pub(super) fn serialize<S: Serializer>(id: &TopicId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<TopicId, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> MetadataRecord {
        MetadataRecord::Topic {
            name: "rivers".into(),
            id: "ASNFZ4mrze_-3LqYdlQyEA".parse().unwrap(),
            partitions: vec![vec![(1000, 1), (1001, 2)], vec![(1002, 2)]],
            config: [("retention.ms".to_owned(), "5".to_owned())].into(),
        }
    }

    #[test]
    fn the_text_on_disk_is_fixed() {
        let text = [
            r#"{"v":1,"record":{"Topic":{"name":"rivers","id":"ASNFZ4mrze_-3LqYdlQyEA","#,
            r#""partitions":[[[1000,1],[1001,2]],[[1002,2]]],"config":{"retention.ms":"5"}}}}"#,
        ]
        .concat();
        assert_eq!(String::from_utf8(topic().encode()).unwrap(), text);
        assert_eq!(MetadataRecord::decode(text.as_bytes()), Ok(topic()));
    }

    #[test]
    fn every_kind_survives_the_trip() {
        let id = TopicId::ZERO;
        let config: BTreeMap<_, _> = [("a".to_owned(), "b".to_owned())].into();
        for record in [
            MetadataRecord::Cluster { id: "c".into() },
            MetadataRecord::Broker { node: 1, host: "h".into(), port: 9092, rack: None },
            topic(),
            MetadataRecord::Partitions { id, added: vec![vec![(1003, 1)]] },
            MetadataRecord::TopicConfig { id, config: config.clone() },
            MetadataRecord::TopicDeleted { id },
            MetadataRecord::BrokerConfig { node: None, config: config.clone() },
            MetadataRecord::ResourceConfig { kind: ResourceKind::Group, name: "g".into(), config },
            MetadataRecord::ProducerIds { next: 1000 },
        ] {
            assert_eq!(MetadataRecord::decode(&record.encode()), Ok(record));
        }
    }

    #[test]
    fn what_this_build_does_not_know_is_an_error() {
        for (text, expected) in [
            ("", "unreadable"),
            ("{}", "unreadable"),
            (r#"{"v":2,"anything":true}"#, "version 2"),
            (r#"{"v":1,"record":{"Ghost":{}}}"#, "Ghost"),
            (r#"{"v":1,"record":{"ProducerIds":{"next":1,"more":2}}}"#, "more"),
            (r#"{"v":1,"record":{"ProducerIds":{}}}"#, "next"),
            (r#"{"v":1,"record":{"TopicDeleted":{"id":"short"}}}"#, "22"),
        ] {
            let error = MetadataRecord::decode(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
