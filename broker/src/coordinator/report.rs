//! What the admin listener tells of one group: `GET /groups/<name>`, as JSON.
//!
//! `vltava group explain` reads it, and so may anybody: fields are only added. Times are
//! milliseconds, points in time since the Unix epoch. The name in the path is percent-encoded.
//!
//! Answers: 200 with a [`GroupReport`]; 404 where the coordinator knows no such group, 503 where
//! this node does not (or not yet) coordinate it, both with an [`ErrorReport`].
//!
//! ```json
//! {
//!   "group": "billing", "state": "Stable", "protocol_type": "consumer", "protocol": "range",
//!   "generation": 7, "leader": "app-1-5f0c…", "coordinator": { "node": 1, "partition": 12 },
//!   "members": [{
//!     "member_id": "app-1-5f0c…", "instance_id": null, "client_id": "app-1",
//!     "client_host": "/127.0.0.1", "session_timeout_ms": 45000, "rebalance_timeout_ms": 300000,
//!     "assignment": [{ "topic": "orders", "partitions": [0, 1] }]
//!   }],
//!   "rebalances": [{
//!     "at_ms": 1764000000000, "generation": 7, "cause": "member joined", "reason": null,
//!     "member_id": "app-2-9a…", "client_id": "app-2", "client_host": "/127.0.0.1",
//!     "took_ms": 3012, "slowest_member": "app-1-5f0c…"
//!   }],
//!   "offsets": [{
//!     "topic": "orders", "partition": 0, "offset": 90, "leader_epoch": 2, "metadata": "",
//!     "committed_at_ms": 1764000001000, "end_offset": 100, "lag_records": 10, "lag_ms": 1500,
//!     "member_id": "app-1-5f0c…"
//!   }],
//!   "lag_records": 10, "lag_ms": 1500
//! }
//! ```

use serde::{Deserialize, Serialize};

/// Why there is no report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// For a person, one line.
    pub error: String,
    /// Kafka's name of the error, such as `GROUP_ID_NOT_FOUND` or `NOT_COORDINATOR`.
    pub code: String,
}

/// One group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupReport {
    /// Its name.
    pub group: String,
    /// Kafka's name of its state: `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Stable`,
    /// `Dead`.
    pub state: String,
    /// What its members speak, `consumer` of consumers; empty of a group that only commits.
    pub protocol_type: String,
    /// The assignor that its members agreed on; empty while there is none.
    pub protocol: String,
    /// Counts its rebalances.
    pub generation: i32,
    /// The member that assigns; none while there is none.
    pub leader: Option<String>,
    /// Who coordinates it.
    pub coordinator: CoordinatorReport,
    /// Its members, by id.
    pub members: Vec<MemberReport>,
    /// Its last rebalances since the coordinator was elected, the oldest first. Kept in memory
    /// only.
    pub rebalances: Vec<RebalanceReport>,
    /// What it has committed, by topic and partition.
    pub offsets: Vec<OffsetReport>,
    /// Sum of the lags that are known.
    pub lag_records: i64,
    /// The greatest lag in time that is known.
    pub lag_ms: i64,
}

/// Where a group is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CoordinatorReport {
    /// The node that answers.
    pub node: i32,
    /// The partition of `__consumer_offsets`.
    pub partition: i32,
}

/// One member of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemberReport {
    /// The id that the coordinator gave it.
    pub member_id: String,
    /// `group.instance.id` of a static member (KIP-345).
    pub instance_id: Option<String>,
    /// What it calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// It is removed when silent for this long.
    pub session_timeout_ms: i32,
    /// How long a rebalance waits for it.
    pub rebalance_timeout_ms: i32,
    /// What it was given, as far as its assignment is the consumer protocol's.
    pub assignment: Vec<TopicReport>,
}

/// Partitions of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopicReport {
    /// The topic.
    pub topic: String,
    /// Its partitions, in order.
    pub partitions: Vec<i32>,
}

/// One rebalance that is over, or under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RebalanceReport {
    /// When it began.
    pub at_ms: i64,
    /// The generation that it led to; none while it is under way.
    pub generation: Option<i32>,
    /// Why it began: `member joined`, `member left`, `session expired`, `metadata changed`,
    /// `leader rejoined`, `static member replaced`, …
    pub cause: String,
    /// What the member itself gave as a reason (KIP-800).
    pub reason: Option<String>,
    /// The member that caused it.
    pub member_id: String,
    /// What that calls itself.
    pub client_id: String,
    /// Where that is.
    pub client_host: String,
    /// From its beginning to the assignment; none while it is under way.
    pub took_ms: Option<i64>,
    /// The member that was waited for the longest.
    pub slowest_member: Option<String>,
}

/// One committed offset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OffsetReport {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset that the group reads.
    pub offset: i64,
    /// The epoch of the last record read, -1 where the client did not say.
    pub leader_epoch: i32,
    /// What the client put beside it.
    pub metadata: String,
    /// When it was committed.
    pub committed_at_ms: i64,
    /// The high watermark; none where the partition is not here or is gone.
    pub end_offset: Option<i64>,
    /// Records between the two.
    pub lag_records: Option<i64>,
    /// The age of the record at the committed offset, 0 at the end of the log.
    pub lag_ms: Option<i64>,
    /// The member that the partition is assigned to.
    pub member_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A newer reader understands an older broker, and the other way round.
    #[test]
    fn fields_may_be_absent_and_unknown() {
        let text = r#"{"group":"g","rebalances":[{"cause":"member left","invented":1}]}"#;
        let report: GroupReport = serde_json::from_str(text).unwrap();
        assert_eq!((report.group.as_str(), report.generation), ("g", 0));
        assert_eq!(report.rebalances[0].cause, "member left");
        let again = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(report, again);
    }
}
