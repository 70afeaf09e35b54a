//! The broker's own configuration: the table of its keys, and the values of one run.
//!
//! Only keys that mean something here are in the table; Kafka's defaults, types and bounds are
//! kept. What belongs to the process rather than to Kafka (addresses, directory, node id) comes
//! from flags of `vltava serve` and is listed under Kafka's names, read-only, for the tools that
//! look for them.

use std::net::SocketAddr;
use std::path::PathBuf;

use vltava_protocol::ids::NodeId;
use vltava_protocol::record::batch::TimestampType;
use vltava_storage::log::Durability;

use super::key::{Bound, ConfigError, Synonym, Unit, key, unset};
use super::layers::{Given, Layers};
use super::settings::Settings;
use super::value::{CleanupPolicy, CompressionType, ConnectionsPerIp};

/// `HOST:PORT` as clients are told to connect.
pub type HostPort = (String, u16);

/// What `vltava serve` is given by flags.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flags {
    /// This node's id, 0 or more.
    pub node_id: NodeId,
    /// Where all data of the node lives.
    pub data_dir: PathBuf,
    /// The address for Kafka clients; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The address that clients are told, if it is not the one they reach us at.
    pub advertise: Option<HostPort>,
    /// The address of the admin HTTP listener; none switches it off.
    pub admin: Option<SocketAddr>,
}

const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];
const POLICIES: &[&str] = &["compact", "delete"];
const TIMESTAMPS: &[&str] = &["CreateTime", "LogAppendTime"];
const DURABILITIES: &[&str] = &["fsync", "page-cache"];
const PROTOCOLS: &[&str] = &["classic", "consumer", "share", "streams"];
const MIGRATIONS: &[&str] = &["disabled", "downgrade", "upgrade", "bidirectional"];

const ROLL: &[Synonym] = &[Synonym { name: "log.roll.hours", unit: Unit::Hours }];
const JITTER: &[Synonym] = &[Synonym { name: "log.roll.jitter.hours", unit: Unit::Hours }];
const FLUSH: &[Synonym] = &[Synonym { name: "log.flush.scheduler.interval.ms", unit: Unit::Same }];
const RETENTION: &[Synonym] = &[
    Synonym { name: "log.retention.minutes", unit: Unit::Minutes },
    Synonym { name: "log.retention.hours", unit: Unit::Hours },
];

config_table! {
    /// The values of one run: flags, and each key of the table under its own name.
    pub struct BrokerConfig, table BROKER_KEYS;

    plain {
        /// What the flags gave.
        flags: Flags,
        /// The keys that were set by file, environment or `--set`, and the ones that flags stand
        /// for.
        settings: Settings,
    }

    /// The address and port that clients are told to connect to. Set by --advertise.
    advertised_listeners: Option<Vec<String>> = unset("advertised.listeners").flag("--advertise");
    /// Whether asking for a topic that does not exist creates it.
    auto_create_topics_enable: bool = key("auto.create.topics.enable", "true");
    /// The id of this node. Set by --node-id.
    broker_id: i32 = key("broker.id", "1").flag("--node-id");
    /// The failure domain of this node; replicas of a partition are spread over the racks.
    broker_rack: Option<String> = unset("broker.rack");
    /// The level of gzip when compression.type is gzip; -1 is the codec's own default.
    compression_gzip_level: i32 =
        key("compression.gzip.level", "-1").bound(Bound::GzipLevel).cluster_wide();
    /// The level of lz4 when compression.type is lz4.
    compression_lz4_level: i32 = key("compression.lz4.level", "9").between(1, 17).cluster_wide();
    /// How batches are stored: as the producer compressed them, or always with one codec.
    compression_type: CompressionType =
        key("compression.type", "producer").bound(Bound::OneOf(CODECS)).cluster_wide();
    /// The level of zstd when compression.type is zstd.
    compression_zstd_level: i32 =
        key("compression.zstd.level", "3").between(-131_072, 22).cluster_wide();
    /// A connection that sends nothing for this long is closed.
    connections_max_idle_ms: i64 = key("connections.max.idle.ms", "600000");
    /// Replicas of a partition when the creation of its topic does not say.
    default_replication_factor: i32 = key("default.replication.factor", "1").at_least(1);
    /// Whether clients may delete topics.
    delete_topic_enable: bool = key("delete.topic.enable", "true");
    /// The most bytes that a Fetch response holds, whatever the client asks for.
    fetch_max_bytes: i32 = key("fetch.max.bytes", "57671680").at_least(1024);
    /// The shortest time between two assignments of a consumer group.
    group_consumer_assignment_interval_ms: i32 =
        key("group.consumer.assignment.interval.ms", "1000").at_least(0).cluster_wide();
    /// The assignors offered to consumer groups; the first is the default.
    group_consumer_assignors: Vec<String> = key("group.consumer.assignors", "uniform,range");
    /// How often members of a consumer group are told to send heartbeats.
    group_consumer_heartbeat_interval_ms: i32 =
        key("group.consumer.heartbeat.interval.ms", "5000").at_least(1);
    /// The longest heartbeat interval that a consumer group may ask for.
    group_consumer_max_heartbeat_interval_ms: i32 =
        key("group.consumer.max.heartbeat.interval.ms", "15000").at_least(1);
    /// The longest session timeout that a consumer group may ask for.
    group_consumer_max_session_timeout_ms: i32 =
        key("group.consumer.max.session.timeout.ms", "60000").at_least(1);
    /// The most members of a consumer group.
    group_consumer_max_size: i32 = key("group.consumer.max.size", "2147483647").at_least(1);
    /// Which way a group may change between the classic and the consumer protocol while it has
    /// members.
    group_consumer_migration_policy: String =
        key("group.consumer.migration.policy", "bidirectional").bound(Bound::OneOf(MIGRATIONS));
    /// The shortest heartbeat interval that a consumer group may ask for.
    group_consumer_min_heartbeat_interval_ms: i32 =
        key("group.consumer.min.heartbeat.interval.ms", "5000").at_least(1);
    /// The shortest session timeout that a consumer group may ask for.
    group_consumer_min_session_timeout_ms: i32 =
        key("group.consumer.min.session.timeout.ms", "45000").at_least(1);
    /// How often subscriptions by pattern are matched against the topics again.
    group_consumer_regex_refresh_interval_ms: i32 =
        key("group.consumer.regex.refresh.interval.ms", "600000").at_least(10_000).internal();
    /// A member of a consumer group that is silent for this long is removed.
    group_consumer_session_timeout_ms: i32 =
        key("group.consumer.session.timeout.ms", "45000").at_least(1);
    /// The group protocols that are served.
    group_coordinator_rebalance_protocols: Vec<String> =
        key("group.coordinator.rebalance.protocols", "classic,consumer,streams")
            .bound(Bound::Each(PROTOCOLS));
    /// How long a new classic group waits for more members before its first rebalance.
    group_initial_rebalance_delay_ms: i32 = key("group.initial.rebalance.delay.ms", "3000");
    /// The longest session timeout that a member of a classic group may ask for.
    group_max_session_timeout_ms: i32 = key("group.max.session.timeout.ms", "1800000");
    /// The most members of a classic group.
    group_max_size: i32 = key("group.max.size", "2147483647").at_least(1);
    /// The most groups that `/metrics` shows each by itself; the rest is summed up. Not a key of
    /// Kafka's.
    group_metrics_max: i32 = key("group.metrics.max", "100").at_least(0);
    /// The shortest session timeout that a member of a classic group may ask for.
    group_min_session_timeout_ms: i32 = key("group.min.session.timeout.ms", "6000");
    /// The address that the broker listens on. Set by --listen.
    listeners: Vec<String> = key("listeners", "PLAINTEXT://127.0.0.1:9092").flag("--listen");
    /// How long the cleaner keeps the marker of a deleted key.
    log_cleaner_delete_retention_ms: i64 =
        key("log.cleaner.delete.retention.ms", "86400000").at_least(0).cluster_wide();
    /// A record is compacted at the latest after this time.
    log_cleaner_max_compaction_lag_ms: i64 =
        key("log.cleaner.max.compaction.lag.ms", "9223372036854775807").at_least(1).cluster_wide();
    /// The share of a log that must be dirty before it is compacted.
    log_cleaner_min_cleanable_ratio: f64 =
        key("log.cleaner.min.cleanable.ratio", "0.5").bound(Bound::Fraction).cluster_wide();
    /// A record is not compacted before this time has passed.
    log_cleaner_min_compaction_lag_ms: i64 =
        key("log.cleaner.min.compaction.lag.ms", "0").at_least(0).cluster_wide();
    /// What happens to old segments: delete, compact, both, or nothing when empty.
    log_cleanup_policy: CleanupPolicy =
        key("log.cleanup.policy", "delete").bound(Bound::Each(POLICIES)).cluster_wide();
    /// The directory of all data. Set by --data-dir.
    log_dirs: Option<Vec<String>> = unset("log.dirs").flag("--data-dir");
    /// When a write counts as done: fsync, when a majority has it on disk; page-cache, when a
    /// majority has it in memory. Not a key of Kafka's.
    log_durability: Durability =
        key("log.durability", "fsync").bound(Bound::OneOf(DURABILITIES)).cluster_wide();
    /// Accepted for compatibility; log.durability decides when a log is synced.
    log_flush_interval_messages: i64 =
        key("log.flush.interval.messages", "9223372036854775807").at_least(1).cluster_wide();
    /// Accepted for compatibility; log.durability decides when a log is synced.
    log_flush_interval_ms: Option<i64> =
        unset("log.flush.interval.ms").at_least(0).synonyms(FLUSH).cluster_wide();
    /// Accepted for compatibility; log.durability decides when a log is synced.
    log_flush_scheduler_interval_ms: i64 =
        key("log.flush.scheduler.interval.ms", "9223372036854775807").at_least(0);
    /// The index of a segment gets an entry at the first batch after this many bytes.
    log_index_interval_bytes: i32 =
        key("log.index.interval.bytes", "4096").at_least(0).cluster_wide();
    /// The most bytes of the index of one segment.
    log_index_size_max_bytes: i32 =
        key("log.index.size.max.bytes", "10485760").at_least(4).cluster_wide();
    /// Accepted for compatibility; there is no tiered storage.
    log_local_retention_bytes: i64 =
        key("log.local.retention.bytes", "-2").at_least(-2).cluster_wide();
    /// Accepted for compatibility; there is no tiered storage.
    log_local_retention_ms: i64 = key("log.local.retention.ms", "-2").at_least(-2).cluster_wide();
    /// How far a record's timestamp may be ahead of the broker's clock.
    log_message_timestamp_after_max_ms: i64 =
        key("log.message.timestamp.after.max.ms", "3600000").at_least(0).cluster_wide();
    /// How far a record's timestamp may be behind the broker's clock.
    log_message_timestamp_before_max_ms: i64 =
        key("log.message.timestamp.before.max.ms", "9223372036854775807")
            .at_least(0)
            .cluster_wide();
    /// Whether records carry the time at which they were created or appended.
    log_message_timestamp_type: TimestampType =
        key("log.message.timestamp.type", "CreateTime")
            .bound(Bound::OneOf(TIMESTAMPS))
            .cluster_wide();
    /// Accepted for compatibility; segments grow as they are written.
    log_preallocate: bool = key("log.preallocate", "false").cluster_wide();
    /// The size of a partition from which its oldest segments are deleted; -1 is no limit.
    log_retention_bytes: i64 = key("log.retention.bytes", "-1").at_least(-1).cluster_wide();
    /// How often partitions are looked at for segments to delete.
    log_retention_check_interval_ms: i64 =
        key("log.retention.check.interval.ms", "300000").at_least(1);
    /// The age of a record from which its segment is deleted, in hours.
    log_retention_hours: i32 = key("log.retention.hours", "168").at_least(-1);
    /// The age of a record from which its segment is deleted, in minutes.
    log_retention_minutes: Option<i32> = unset("log.retention.minutes").at_least(-1);
    /// The age of a record from which its segment is deleted; -1 is no limit.
    log_retention_ms: Option<i64> =
        unset("log.retention.ms").at_least(-1).synonyms(RETENTION).cluster_wide();
    /// The age of its first record at which a segment is closed, in hours.
    log_roll_hours: i32 = key("log.roll.hours", "168").at_least(1);
    /// The most that is taken off log.roll.hours at random, in hours.
    log_roll_jitter_hours: i32 = key("log.roll.jitter.hours", "0").at_least(0);
    /// The most that is taken off log.roll.ms at random.
    log_roll_jitter_ms: Option<i64> =
        unset("log.roll.jitter.ms").at_least(0).synonyms(JITTER).cluster_wide();
    /// The age of its first record at which a segment is closed.
    log_roll_ms: Option<i64> = unset("log.roll.ms").at_least(1).synonyms(ROLL).cluster_wide();
    /// The size at which a segment is closed.
    log_segment_bytes: i32 =
        key("log.segment.bytes", "1073741824").at_least(1 << 20).cluster_wide();
    /// How long the file of a deleted segment stays.
    log_segment_delete_delay_ms: i64 =
        key("log.segment.delete.delay.ms", "60000").at_least(0).cluster_wide();
    /// The most connections at a time. More wait, unaccepted, until others end.
    max_connections: i32 = key("max.connections", "2147483647").at_least(0).cluster_wide();
    /// The most connections at a time from one address. More are closed at once.
    max_connections_per_ip: i32 = key("max.connections.per.ip", "2147483647").at_least(0).cluster_wide();
    /// Other limits of `max.connections.per.ip` for some addresses, as `127.0.0.1:200,[::1]:200`.
    /// Names are not resolved.
    max_connections_per_ip_overrides: ConnectionsPerIp =
        key("max.connections.per.ip.overrides", "").bound(Bound::ConnectionsPerIp).cluster_wide();
    /// The most Fetch sessions that are kept.
    max_incremental_fetch_session_cache_slots: i32 =
        key("max.incremental.fetch.session.cache.slots", "1000").at_least(0);
    /// The most partitions that one response of DescribeTopicPartitions lists.
    max_request_partition_size_limit: i32 =
        key("max.request.partition.size.limit", "2000").at_least(1);
    /// The most bytes of a batch, compressed.
    message_max_bytes: i32 = key("message.max.bytes", "1048588").at_least(0).cluster_wide();
    /// The replicas that must have a batch before acks=all is answered.
    min_insync_replicas: i32 = key("min.insync.replicas", "1").at_least(1).cluster_wide();
    /// The id of this node. Set by --node-id.
    node_id: i32 = unset("node.id").flag("--node-id");
    /// Partitions of a topic when its creation does not say.
    num_partitions: i32 = key("num.partitions", "1").at_least(1);
    /// The most bytes of the metadata of a committed offset.
    offset_metadata_max_bytes: i32 = key("offset.metadata.max.bytes", "4096");
    /// How long the commit of offsets waits for its replicas.
    offsets_commit_timeout_ms: i32 = key("offsets.commit.timeout.ms", "5000").at_least(1);
    /// How often expired offsets are looked for.
    offsets_retention_check_interval_ms: i64 =
        key("offsets.retention.check.interval.ms", "600000").at_least(1);
    /// How long the offsets of an empty group are kept.
    offsets_retention_minutes: i32 = key("offsets.retention.minutes", "10080").at_least(1);
    /// Partitions of `__consumer_offsets` when it is created.
    offsets_topic_num_partitions: i32 = key("offsets.topic.num.partitions", "50").at_least(1);
    /// Replicas of `__consumer_offsets` when it is created, or one a node if there are fewer nodes.
    offsets_topic_replication_factor: i16 =
        key("offsets.topic.replication.factor", "3").at_least(1);
    /// The segment size of `__consumer_offsets`.
    offsets_topic_segment_bytes: i32 =
        key("offsets.topic.segment.bytes", "104857600").at_least(1);
    /// The sequence of a producer that has written nothing for this long is forgotten.
    producer_id_expiration_ms: i32 =
        key("producer.id.expiration.ms", "86400000").at_least(1).cluster_wide();
    /// The most bytes of requests that are being received or wait to be handled, all connections
    /// together; each may hold 64 KiB and one more than all of it besides. -1 is 256 MiB.
    queued_max_request_bytes: i64 = key("queued.max.request.bytes", "-1");
    /// Connections that wait to be accepted.
    /// Accepted for compatibility; has no effect yet.
    socket_listen_backlog_size: i32 = key("socket.listen.backlog.size", "50").at_least(1);
    /// The most bytes of a request.
    socket_request_max_bytes: i32 = key("socket.request.max.bytes", "104857600").at_least(1);
    /// How long a client may take to send one request, from its first byte on; then its connection
    /// is closed. The time that the broker does not read it does not count. -1 is no limit. Not a
    /// key of Kafka's.
    socket_request_receive_timeout_ms: i64 =
        key("socket.request.receive.timeout.ms", "60000").at_least(-1);
    /// The percent of its time that each stream thread may use a core: what pipelines leave to the
    /// broker even where nobody else wants it. Not a key of Kafka's.
    streams_cpu_percent: i32 = key("streams.cpu.percent", "100").between(1, 100);
    /// Niceness of the stream threads: the higher, the more do pipelines leave to the threads that
    /// serve clients. Not a key of Kafka's.
    streams_niceness: i32 = key("streams.niceness", "5").between(0, 19);
    /// The most bytes of the log that a task of a pipeline holds at a time, however far it is
    /// behind, but one batch in any case. It reads as many at once, so this is the length of its
    /// turns, too. Not a key of Kafka's.
    streams_task_pinned_bytes: i32 = key("streams.task.pinned.bytes", "1048576").at_least(1);
    /// Bytes that a task of a pipeline may have appended without their being committed; beyond, it
    /// does not read on. Not a key of Kafka's.
    streams_task_uncommitted_bytes: i32 =
        key("streams.task.uncommitted.bytes", "8388608").at_least(1);
    /// Threads that run pipelines; as many as there are cores where it is not set. Not a key of
    /// Kafka's.
    streams_threads: Option<i32> = unset("streams.threads").between(1, 1024);
    /// How often transactions that ran out of time are looked for.
    transaction_abort_timed_out_transaction_cleanup_interval_ms: i32 =
        key("transaction.abort.timed.out.transaction.cleanup.interval.ms", "10000").at_least(1);
    /// The longest timeout that a transaction may ask for.
    transaction_max_timeout_ms: i32 = key("transaction.max.timeout.ms", "900000").at_least(1);
    /// The replicas that must have a change of a transaction's state.
    transaction_state_log_min_isr: i32 = key("transaction.state.log.min.isr", "2").at_least(1);
    /// Partitions of `__transaction_state` when it is created.
    transaction_state_log_num_partitions: i32 =
        key("transaction.state.log.num.partitions", "50").at_least(1);
    /// Replicas of `__transaction_state` when it is created, or one a node if there are fewer
    /// nodes.
    transaction_state_log_replication_factor: i16 =
        key("transaction.state.log.replication.factor", "3").at_least(1);
    /// The segment size of `__transaction_state`.
    transaction_state_log_segment_bytes: i32 =
        key("transaction.state.log.segment.bytes", "104857600").at_least(1);
    /// A transactional id that is not used for this long is forgotten.
    transactional_id_expiration_ms: i32 =
        key("transactional.id.expiration.ms", "604800000").at_least(1);
    /// Whether a replica that lacks acknowledged records may become leader; here only an operator
    /// forces that.
    unclean_leader_election_enable: bool =
        key("unclean.leader.election.enable", "false").cluster_wide();
}

impl BrokerConfig {
    /// The values of a run. The settings have been checked one by one; here they are checked
    /// against each other.
    pub fn new(flags: Flags, mut settings: Settings) -> Result<Self, ConfigError> {
        settings.stand_in(&flags);
        let lookup_from = settings.clone();
        let config = Self::read(flags, settings, |key| {
            lookup_from.get(key.name).or(key.default).map(str::to_owned)
        });
        config.check()?;
        Ok(config)
    }

    /// The values in force once what was set at run time is laid over those of the start.
    pub fn effective(&self, layers: &Layers<'_>) -> Result<Self, ConfigError> {
        let config = Self::read(self.flags.clone(), self.settings.clone(), |key| {
            let own = |given: &Given| given.name == key.name;
            layers.of_broker(key).into_iter().find(own).map(|given| given.value)
        });
        config.check()?;
        Ok(config)
    }

    /// The relations between keys that Kafka's `KafkaConfig.validateValues` checks.
    fn check(&self) -> Result<(), ConfigError> {
        let ordered = [
            (
                "log.cleaner.min.compaction.lag.ms",
                self.log_cleaner_min_compaction_lag_ms,
                "log.cleaner.max.compaction.lag.ms",
                self.log_cleaner_max_compaction_lag_ms,
            ),
            (
                "group.min.session.timeout.ms",
                self.group_min_session_timeout_ms.into(),
                "group.max.session.timeout.ms",
                self.group_max_session_timeout_ms.into(),
            ),
            (
                "group.consumer.min.session.timeout.ms",
                self.group_consumer_min_session_timeout_ms.into(),
                "group.consumer.session.timeout.ms",
                self.group_consumer_session_timeout_ms.into(),
            ),
            (
                "group.consumer.session.timeout.ms",
                self.group_consumer_session_timeout_ms.into(),
                "group.consumer.max.session.timeout.ms",
                self.group_consumer_max_session_timeout_ms.into(),
            ),
            (
                "group.consumer.min.heartbeat.interval.ms",
                self.group_consumer_min_heartbeat_interval_ms.into(),
                "group.consumer.heartbeat.interval.ms",
                self.group_consumer_heartbeat_interval_ms.into(),
            ),
            (
                "group.consumer.heartbeat.interval.ms",
                self.group_consumer_heartbeat_interval_ms.into(),
                "group.consumer.max.heartbeat.interval.ms",
                self.group_consumer_max_heartbeat_interval_ms.into(),
            ),
        ];
        match ordered.into_iter().find(|&(_, low, _, high): &(_, i64, _, i64)| low > high) {
            None => Ok(()),
            Some((name, value, other, other_value)) => Err(ConfigError::Conflict {
                scope: "broker",
                name,
                value: value.to_string(),
                other,
                other_value: other_value.to_string(),
            }),
        }
    }
}

/// The row of a broker's key.
pub fn broker_key(name: &str) -> Option<&'static super::ConfigKey> {
    let at = BROKER_KEYS.binary_search_by(|key| key.name.cmp(name)).ok()?;
    Some(&BROKER_KEYS[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(sets: &[&str]) -> Result<BrokerConfig, String> {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        let settings = Settings::collect(None, [], &sets).map_err(|error| error.to_string())?;
        BrokerConfig::new(flags(), settings.settings).map_err(|error| error.to_string())
    }

    fn flags() -> Flags {
        Flags {
            node_id: NodeId(7),
            data_dir: "data".into(),
            listen: "127.0.0.1:0".parse().unwrap(),
            advertise: Some(("broker.example".into(), 19092)),
            admin: None,
        }
    }

    #[test]
    fn the_table_is_sorted_and_documented() {
        for pair in BROKER_KEYS.windows(2) {
            assert!(pair[0].name < pair[1].name, "{} before {}", pair[0].name, pair[1].name);
        }
        for key in BROKER_KEYS {
            assert!(key.doc.len() > 20 && key.doc.ends_with('.'), "{}: {:?}", key.name, key.doc);
            if let Some(default) = key.default {
                assert_eq!(key.normalize(default).as_deref(), Ok(default), "{}", key.name);
            }
            for synonym in key.synonyms {
                assert!(broker_key(synonym.name).is_some(), "{}", synonym.name);
            }
        }
    }

    #[test]
    fn defaults_and_settings_become_fields() {
        let config = config(&["num.partitions=4", "log.durability=page-cache"]).unwrap();
        assert_eq!(config.num_partitions, 4);
        assert_eq!(config.log_durability, Durability::PageCache);
        assert_eq!(config.message_max_bytes, 1_048_588);
        assert_eq!(config.log_retention_ms, None);
        assert_eq!(config.group_consumer_assignors, ["uniform", "range"]);
    }

    #[test]
    fn flags_show_under_kafka_s_names() {
        let config = config(&[]).unwrap();
        assert_eq!((config.node_id, config.broker_id), (7, 7));
        assert_eq!(config.listeners, ["PLAINTEXT://127.0.0.1:0"]);
        let advertised = config.advertised_listeners.unwrap();
        assert_eq!(advertised, ["PLAINTEXT://broker.example:19092"]);
    }

    #[test]
    fn what_is_set_at_run_time_lies_over_what_was_set_at_the_start() {
        let config = config(&["producer.id.expiration.ms=5"]).unwrap();
        let overrides = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
        let cluster = overrides("producer.id.expiration.ms", "6");
        let node = overrides("producer.id.expiration.ms", "7");
        let mut layers = Layers::of_start(&config.settings);
        assert_eq!(config.effective(&layers).unwrap(), config);
        layers.cluster = Some(&cluster);
        assert_eq!(config.effective(&layers).unwrap().producer_id_expiration_ms, 6);
        layers.broker = Some(&node);
        assert_eq!(config.effective(&layers).unwrap().producer_id_expiration_ms, 7);
        let lag = overrides("log.cleaner.max.compaction.lag.ms", "1");
        let longer = overrides("log.cleaner.min.compaction.lag.ms", "2");
        let layers = Layers { broker: Some(&longer), cluster: Some(&lag), ..layers };
        assert!(config.effective(&layers).is_err());
    }

    #[test]
    fn contradictions_are_refused() {
        let error = config(&["group.min.session.timeout.ms=2000000"]).unwrap_err();
        assert!(error.contains("group.max.session.timeout.ms (1800000)"), "{error}");
        let error = config(&["node.id=3"]).unwrap_err();
        assert!(error.contains("node.id") && error.contains("--node-id"), "{error}");
    }
}
