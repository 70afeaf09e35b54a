//! The version table: which APIs exist, which versions of them have which header, and the type in
//! which the broker's handlers say what they serve.
//!
//! What *we* serve is the handlers' to say, each with its own `const API: Api`; what is here is the
//! protocol's own: a request's header cannot be read without knowing whether its version is
//! flexible (KIP-482).

use std::ops::RangeInclusive;

pub use kafka_protocol::messages::ApiKey;

/// One API as a handler serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    /// Which API.
    pub key: ApiKey,
    /// Oldest version answered.
    pub min: i16,
    /// Newest version answered.
    pub max: i16,
    /// Oldest version told to clients: below `min` where a client wants to see a version in range
    /// that it never sends (Produce 0, KAFKA-18659).
    pub advertised_min: i16,
}

impl Api {
    /// An API served, and advertised, in these versions.
    pub const fn new(key: ApiKey, versions: RangeInclusive<i16>) -> Self {
        let (min, max) = (*versions.start(), *versions.end());
        assert!(0 <= min && min <= max, "an API has a version");
        Self { key, min, max, advertised_min: min }
    }

    /// The same API, advertised from an older version than it is served.
    #[must_use]
    pub const fn advertised_from(self, advertised_min: i16) -> Self {
        assert!(0 <= advertised_min && advertised_min <= self.min);
        Self { advertised_min, ..self }
    }

    /// Whether a request of this version is answered.
    pub const fn serves(&self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }
}

/// What the protocol says of one API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownApi {
    /// The wire key.
    pub key: i16,
    /// Kafka's name, such as `OffsetCommit`.
    pub name: &'static str,
    /// Oldest version of Kafka 4.3.
    pub min: i16,
    /// Newest version of Kafka 4.3, also where it calls that unstable.
    pub max: i16,
    flexible_from: i16,
}

impl KnownApi {
    /// The API of a wire key.
    pub fn find(key: i16) -> Option<&'static Self> {
        let at = KNOWN.binary_search_by_key(&key, |api| api.key).ok()?;
        Some(&KNOWN[at])
    }

    /// 2 where the version is flexible, else 1. Versions not yet invented are flexible.
    pub fn request_header_version(&self, version: i16) -> i16 {
        if version >= self.flexible_from { 2 } else { 1 }
    }

    /// 1 where the version is flexible, else 0; of `ApiVersions` always 0, since its reader cannot
    /// know yet what the broker speaks (KIP-511).
    pub fn response_header_version(&self, version: i16) -> i16 {
        let is_api_versions = self.key == ApiKey::ApiVersions as i16;
        i16::from(version >= self.flexible_from && !is_api_versions)
    }
}

const NEVER: i16 = i16::MAX;

const fn known(row: (i16, &'static str, i16, i16, i16)) -> KnownApi {
    let (key, name, min, max, flexible_from) = row;
    KnownApi { key, name, min, max, flexible_from }
}

/// Key, name, oldest and newest version, first flexible version; of Kafka 4.3.1.
const ROWS: &[(i16, &str, i16, i16, i16)] = &[
    (0, "Produce", 3, 13, 9),
    (1, "Fetch", 4, 18, 12),
    (2, "ListOffsets", 1, 11, 6),
    (3, "Metadata", 0, 13, 9),
    (8, "OffsetCommit", 2, 10, 8),
    (9, "OffsetFetch", 1, 10, 6),
    (10, "FindCoordinator", 0, 6, 3),
    (11, "JoinGroup", 0, 9, 6),
    (12, "Heartbeat", 0, 4, 4),
    (13, "LeaveGroup", 0, 5, 4),
    (14, "SyncGroup", 0, 5, 4),
    (15, "DescribeGroups", 0, 6, 5),
    (16, "ListGroups", 0, 5, 3),
    (17, "SaslHandshake", 0, 1, NEVER),
    (18, "ApiVersions", 0, 4, 3),
    (19, "CreateTopics", 2, 7, 5),
    (20, "DeleteTopics", 1, 6, 4),
    (21, "DeleteRecords", 0, 2, 2),
    (22, "InitProducerId", 0, 6, 2),
    (23, "OffsetForLeaderEpoch", 2, 4, 4),
    (24, "AddPartitionsToTxn", 0, 5, 3),
    (25, "AddOffsetsToTxn", 0, 4, 3),
    (26, "EndTxn", 0, 5, 3),
    (27, "WriteTxnMarkers", 1, 2, 1),
    (28, "TxnOffsetCommit", 0, 5, 3),
    (29, "DescribeAcls", 1, 3, 2),
    (30, "CreateAcls", 1, 3, 2),
    (31, "DeleteAcls", 1, 3, 2),
    (32, "DescribeConfigs", 1, 4, 4),
    (33, "AlterConfigs", 0, 2, 2),
    (34, "AlterReplicaLogDirs", 1, 2, 2),
    (35, "DescribeLogDirs", 1, 5, 2),
    (36, "SaslAuthenticate", 0, 2, 2),
    (37, "CreatePartitions", 0, 3, 2),
    (38, "CreateDelegationToken", 1, 3, 2),
    (39, "RenewDelegationToken", 1, 2, 2),
    (40, "ExpireDelegationToken", 1, 2, 2),
    (41, "DescribeDelegationToken", 1, 3, 2),
    (42, "DeleteGroups", 0, 2, 2),
    (43, "ElectLeaders", 0, 2, 2),
    (44, "IncrementalAlterConfigs", 0, 1, 1),
    (45, "AlterPartitionReassignments", 0, 1, 0),
    (46, "ListPartitionReassignments", 0, 0, 0),
    (47, "OffsetDelete", 0, 0, NEVER),
    (48, "DescribeClientQuotas", 0, 1, 1),
    (49, "AlterClientQuotas", 0, 1, 1),
    (50, "DescribeUserScramCredentials", 0, 0, 0),
    (51, "AlterUserScramCredentials", 0, 0, 0),
    (52, "Vote", 0, 2, 0),
    (53, "BeginQuorumEpoch", 0, 1, 1),
    (54, "EndQuorumEpoch", 0, 1, 1),
    (55, "DescribeQuorum", 0, 2, 0),
    (56, "AlterPartition", 2, 3, 2),
    (57, "UpdateFeatures", 0, 2, 0),
    (58, "Envelope", 0, 0, 0),
    (59, "FetchSnapshot", 0, 1, 0),
    (60, "DescribeCluster", 0, 2, 0),
    (61, "DescribeProducers", 0, 0, 0),
    (62, "BrokerRegistration", 0, 4, 0),
    (63, "BrokerHeartbeat", 0, 2, 0),
    (64, "UnregisterBroker", 0, 0, 0),
    (65, "DescribeTransactions", 0, 0, 0),
    (66, "ListTransactions", 0, 2, 0),
    (67, "AllocateProducerIds", 0, 0, 0),
    (68, "ConsumerGroupHeartbeat", 0, 1, 0),
    (69, "ConsumerGroupDescribe", 0, 1, 0),
    (70, "ControllerRegistration", 0, 0, 0),
    (71, "GetTelemetrySubscriptions", 0, 0, 0),
    (72, "PushTelemetry", 0, 0, 0),
    (73, "AssignReplicasToDirs", 0, 0, 0),
    (74, "ListConfigResources", 0, 1, 0),
    (75, "DescribeTopicPartitions", 0, 0, 0),
    (76, "ShareGroupHeartbeat", 1, 1, 1),
    (77, "ShareGroupDescribe", 1, 1, 1),
    (78, "ShareFetch", 1, 2, 1),
    (79, "ShareAcknowledge", 1, 2, 1),
    (80, "AddRaftVoter", 0, 1, 0),
    (81, "RemoveRaftVoter", 0, 0, 0),
    (82, "UpdateRaftVoter", 0, 0, 0),
    (83, "InitializeShareGroupState", 0, 0, 0),
    (84, "ReadShareGroupState", 0, 0, 0),
    (85, "WriteShareGroupState", 0, 1, 0),
    (86, "DeleteShareGroupState", 0, 0, 0),
    (87, "ReadShareGroupStateSummary", 0, 1, 0),
    (88, "StreamsGroupHeartbeat", 0, 0, 0),
    (89, "StreamsGroupDescribe", 0, 0, 0),
    (90, "DescribeShareGroupOffsets", 0, 1, 0),
    (91, "AlterShareGroupOffsets", 0, 0, 0),
    (92, "DeleteShareGroupOffsets", 0, 0, 0),
];

static KNOWN: [KnownApi; ROWS.len()] = {
    let mut table = [known(ROWS[0]); ROWS.len()];
    let mut at = 1;
    while at < ROWS.len() {
        assert!(ROWS[at - 1].0 < ROWS[at].0, "sorted by key");
        table[at] = known(ROWS[at]);
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_versions_agree_with_the_wire_crate() {
        let mut compared = 0;
        for key in 0..=200 {
            let Ok(theirs) = ApiKey::try_from(key) else { continue };
            let ours = KnownApi::find(key).unwrap();
            assert_eq!(ours.name, format!("{theirs:?}"));
            for version in theirs.valid_versions().min..=theirs.valid_versions().max {
                let headers =
                    (ours.request_header_version(version), ours.response_header_version(version));
                let expected = (
                    theirs.request_header_version(version),
                    theirs.response_header_version(version),
                );
                assert_eq!(headers, expected, "{theirs:?} v{version}");
                assert!((ours.min..=ours.max).contains(&version), "{theirs:?} v{version}");
                compared += 1;
            }
        }
        assert!(compared > 200, "{compared}");
    }

    #[test]
    fn finds_what_is_there() {
        assert_eq!(KnownApi::find(88).unwrap().name, "StreamsGroupHeartbeat");
        assert_eq!(KnownApi::find(4), None);
        assert_eq!(KnownApi::find(-1), None);
        let api_versions = KnownApi::find(18).unwrap();
        assert_eq!(api_versions.request_header_version(99), 2);
        assert_eq!(api_versions.response_header_version(99), 0);
    }

    #[test]
    fn an_api_serves_its_range() {
        const PRODUCE: Api = Api::new(ApiKey::Produce, 3..=13).advertised_from(0);
        assert!(PRODUCE.serves(3) && PRODUCE.serves(13));
        assert!(!PRODUCE.serves(2) && !PRODUCE.serves(14));
        assert_eq!((PRODUCE.advertised_min, PRODUCE.min), (0, 3));
    }
}
