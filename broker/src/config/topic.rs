//! A topic's configuration: the table of its keys, and the values in force.
//!
//! Names, types, defaults and bounds are Kafka 4.3's (`TopicConfig`, `LogConfig`), plus
//! `durability`, which is ours. What was set for a topic is kept as text in its metadata; the
//! values in force are computed once per change into a [`TopicConfig`] and handed down as plain
//! fields.

use vltava_protocol::record::batch::TimestampType;
use vltava_protocol::record::compression::Codec;
use vltava_protocol::record::validate::ValidationRules;
use vltava_storage::log::{Durability, LogConfig};

use super::key::{Bound, ConfigError, ConfigKey, Synonym, Unit, key, unset};
use super::layers::{Layers, Overrides};
use super::settings::Settings;
use super::value::{CleanupPolicy, CompressionType};

const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];

/// The most bytes that one batch may inflate to while its records are walked. Kafka has no such
/// limit; a bomb of a megabyte would otherwise cost a gigabyte.
pub const INFLATED_BYTES_MAX: usize = 128 << 20;

const fn same(name: &'static str) -> Synonym {
    Synonym { name, unit: Unit::Same }
}

const RETENTION: &[Synonym] = &[
    same("log.retention.ms"),
    Synonym { name: "log.retention.minutes", unit: Unit::Minutes },
    Synonym { name: "log.retention.hours", unit: Unit::Hours },
];
const ROLL: &[Synonym] =
    &[same("log.roll.ms"), Synonym { name: "log.roll.hours", unit: Unit::Hours }];
const JITTER: &[Synonym] =
    &[same("log.roll.jitter.ms"), Synonym { name: "log.roll.jitter.hours", unit: Unit::Hours }];
const FLUSH: &[Synonym] = &[same("log.flush.interval.ms"), same("log.flush.scheduler.interval.ms")];

config_table! {
    /// The values in force for one topic, each under its own name.
    pub struct TopicConfig, table TOPIC_KEYS;

    plain {}

    /// What happens to old segments: delete, compact, both, or nothing when empty.
    cleanup_policy: CleanupPolicy = key("cleanup.policy", "delete")
        .bound(Bound::Each(&["compact", "delete"]))
        .synonyms(&[same("log.cleanup.policy")]);
    /// The level of gzip when compression.type is gzip; -1 is the codec's own default.
    compression_gzip_level: i32 = key("compression.gzip.level", "-1")
        .bound(Bound::GzipLevel)
        .synonyms(&[same("compression.gzip.level")]);
    /// The level of lz4 when compression.type is lz4.
    compression_lz4_level: i32 = key("compression.lz4.level", "9")
        .between(1, 17)
        .synonyms(&[same("compression.lz4.level")]);
    /// How batches are stored: as the producer compressed them, or always with one codec.
    compression_type: CompressionType = key("compression.type", "producer")
        .bound(Bound::OneOf(CODECS))
        .synonyms(&[same("compression.type")]);
    /// The level of zstd when compression.type is zstd.
    compression_zstd_level: i32 = key("compression.zstd.level", "3")
        .between(-131_072, 22)
        .synonyms(&[same("compression.zstd.level")]);
    /// How long the cleaner keeps the marker of a deleted key.
    delete_retention_ms: i64 = key("delete.retention.ms", "86400000")
        .at_least(0)
        .synonyms(&[same("log.cleaner.delete.retention.ms")]);
    /// When a write counts as done: fsync, when a majority has it on disk; page-cache, when a
    /// majority has it in memory. Not a key of Kafka's.
    durability: Durability = key("durability", "fsync")
        .bound(Bound::OneOf(&["fsync", "page-cache"]))
        .synonyms(&[same("log.durability")]);
    /// How long the file of a deleted segment stays.
    /// Accepted for compatibility; has no effect yet.
    file_delete_delay_ms: i64 = key("file.delete.delay.ms", "60000")
        .at_least(0)
        .synonyms(&[same("log.segment.delete.delay.ms")]);
    /// Accepted for compatibility; durability decides when a log is synced.
    flush_messages: i64 = key("flush.messages", "9223372036854775807")
        .at_least(1)
        .synonyms(&[same("log.flush.interval.messages")]);
    /// Accepted for compatibility; durability decides when a log is synced.
    flush_ms: i64 = key("flush.ms", "9223372036854775807").at_least(0).synonyms(FLUSH);
    /// Replicas whose following is throttled: partition:broker pairs, or * for all.
    follower_replication_throttled_replicas: Vec<String> =
        key("follower.replication.throttled.replicas", "").bound(Bound::ThrottledReplicas);
    /// The index of a segment gets an entry at the first batch after this many bytes.
    index_interval_bytes: i32 = key("index.interval.bytes", "4096")
        .at_least(0)
        .synonyms(&[same("log.index.interval.bytes")]);
    /// The size at which a segment is closed, without the lower bound of segment.bytes. For tests.
    internal_segment_bytes: Option<i32> = unset("internal.segment.bytes").at_least(1).internal();
    /// Replicas whose leading is throttled: partition:broker pairs, or * for all.
    leader_replication_throttled_replicas: Vec<String> =
        key("leader.replication.throttled.replicas", "").bound(Bound::ThrottledReplicas);
    /// Accepted for compatibility; there is no tiered storage.
    local_retention_bytes: i64 = key("local.retention.bytes", "-2")
        .at_least(-2)
        .synonyms(&[same("log.local.retention.bytes")]);
    /// Accepted for compatibility; there is no tiered storage.
    local_retention_ms: i64 = key("local.retention.ms", "-2")
        .at_least(-2)
        .synonyms(&[same("log.local.retention.ms")]);
    /// A record is compacted at the latest after this time.
    max_compaction_lag_ms: i64 = key("max.compaction.lag.ms", "9223372036854775807")
        .at_least(1)
        .synonyms(&[same("log.cleaner.max.compaction.lag.ms")]);
    /// The most bytes of a batch, compressed.
    max_message_bytes: i32 = key("max.message.bytes", "1048588")
        .at_least(0)
        .synonyms(&[same("message.max.bytes")]);
    /// How far a record's timestamp may be ahead of the broker's clock.
    message_timestamp_after_max_ms: i64 = key("message.timestamp.after.max.ms", "3600000")
        .at_least(0)
        .synonyms(&[same("log.message.timestamp.after.max.ms")]);
    /// How far a record's timestamp may be behind the broker's clock.
    message_timestamp_before_max_ms: i64 =
        key("message.timestamp.before.max.ms", "9223372036854775807")
            .at_least(0)
            .synonyms(&[same("log.message.timestamp.before.max.ms")]);
    /// Whether records carry the time at which they were created or appended.
    message_timestamp_type: TimestampType = key("message.timestamp.type", "CreateTime")
        .bound(Bound::OneOf(&["CreateTime", "LogAppendTime"]))
        .synonyms(&[same("log.message.timestamp.type")]);
    /// The share of a log that must be dirty before it is compacted.
    min_cleanable_dirty_ratio: f64 = key("min.cleanable.dirty.ratio", "0.5")
        .bound(Bound::Fraction)
        .synonyms(&[same("log.cleaner.min.cleanable.ratio")]);
    /// A record is not compacted before this time has passed.
    min_compaction_lag_ms: i64 = key("min.compaction.lag.ms", "0")
        .at_least(0)
        .synonyms(&[same("log.cleaner.min.compaction.lag.ms")]);
    /// The replicas that must have a batch before acks=all is answered.
    min_insync_replicas: i32 = key("min.insync.replicas", "1")
        .at_least(1)
        .synonyms(&[same("min.insync.replicas")]);
    /// Accepted for compatibility; segments grow as they are written.
    preallocate: bool = key("preallocate", "false").synonyms(&[same("log.preallocate")]);
    /// Accepted for compatibility; there is no tiered storage.
    remote_log_copy_disable: bool = key("remote.log.copy.disable", "false");
    /// Accepted for compatibility; there is no tiered storage.
    remote_log_delete_on_disable: bool = key("remote.log.delete.on.disable", "false");
    /// Only false is accepted: there is no tiered storage.
    remote_storage_enable: bool = key("remote.storage.enable", "false");
    /// The size of a partition from which its oldest segments are deleted; -1 is no limit.
    retention_bytes: i64 = key("retention.bytes", "-1").synonyms(&[same("log.retention.bytes")]);
    /// The age of a record from which its segment is deleted; -1 is no limit.
    retention_ms: i64 = key("retention.ms", "604800000").at_least(-1).synonyms(RETENTION);
    /// The size at which a segment is closed.
    segment_bytes: i32 = key("segment.bytes", "1073741824")
        .at_least(1 << 20)
        .synonyms(&[same("log.segment.bytes")]);
    /// The most bytes of the index of one segment.
    /// Accepted for compatibility; has no effect yet.
    segment_index_bytes: i32 = key("segment.index.bytes", "10485760")
        .at_least(4)
        .synonyms(&[same("log.index.size.max.bytes")]);
    /// The most that is taken off segment.ms at random.
    /// Accepted for compatibility; has no effect yet.
    segment_jitter_ms: i64 = key("segment.jitter.ms", "0").at_least(0).synonyms(JITTER);
    /// The age of its first record at which a segment is closed.
    segment_ms: i64 = key("segment.ms", "604800000").at_least(1).synonyms(ROLL);
    /// Whether a replica that lacks acknowledged records may become leader; here only an operator
    /// forces that.
    unclean_leader_election_enable: bool = key("unclean.leader.election.enable", "false")
        .synonyms(&[same("unclean.leader.election.enable")]);
}

impl TopicConfig {
    /// The values in force for a topic with these overrides.
    pub fn effective(topic: &Overrides, layers: &Layers<'_>) -> Self {
        Self::read(|key| layers.topic_value(key, topic))
    }

    /// The configuration of group 0's log: always synced, never deleted or compacted.
    pub fn of_metadata() -> Self {
        let overrides = [("cleanup.policy", ""), ("durability", "fsync"), ("retention.ms", "-1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        Self::effective(&overrides, &Layers::of_start(&Settings::default()))
    }

    /// Checks what a client sets for a topic and brings it into the form in which it is stored
    /// (`LogConfig.validate`). Names are looked at before values.
    pub fn normalize<'a>(
        entries: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
        layers: &Layers<'_>,
    ) -> Result<Overrides, ConfigError> {
        let (set, null): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|(_, value)| value.is_some());
        if !null.is_empty() {
            let names: Vec<&str> = null.into_iter().map(|(name, _)| name).collect();
            return Err(ConfigError::Null { scope: "topic", names: names.join(",") });
        }
        let find = |(name, value): (&'a str, Option<&'a str>)| {
            let key = topic_key(name).ok_or_else(|| ConfigError::Unknown {
                scope: "topic",
                name: name.escape_debug().to_string(),
            })?;
            Ok((key, value.unwrap_or_default()))
        };
        let known = set.into_iter().map(find).collect::<Result<Vec<_>, _>>()?;
        let normal = |(key, value): (&'static ConfigKey, &str)| {
            Ok((key.name.to_owned(), key.normalize(value)?))
        };
        let overrides = known.into_iter().map(normal).collect::<Result<Overrides, _>>()?;
        Self::effective(&overrides, layers).check()?;
        Ok(overrides)
    }

    /// The relations between keys that `LogConfig.validate` checks.
    fn check(&self) -> Result<(), ConfigError> {
        if self.min_compaction_lag_ms > self.max_compaction_lag_ms {
            return Err(ConfigError::Conflict {
                scope: "topic",
                name: "min.compaction.lag.ms",
                value: self.min_compaction_lag_ms.to_string(),
                other: "max.compaction.lag.ms",
                other_value: self.max_compaction_lag_ms.to_string(),
            });
        }
        if self.remote_storage_enable {
            return Err(ConfigError::Unsupported {
                name: "remote.storage.enable",
                reason: "Tiered Storage functionality is disabled in the broker. Topic cannot be \
                         configured with remote log storage.",
            });
        }
        Ok(())
    }

    /// The size at which a segment is closed: `internal.segment.bytes` if it is set.
    pub fn segment_size(&self) -> i32 {
        self.internal_segment_bytes.unwrap_or(self.segment_bytes)
    }

    /// Whether old segments are deleted by time and size.
    pub fn is_deleting(&self) -> bool {
        self.cleanup_policy.delete
    }

    /// How batches are recompressed; `None` keeps what the producer sent.
    pub fn recompression(&self) -> Option<(Codec, Option<i32>)> {
        let CompressionType::Fixed(codec) = self.compression_type else { return None };
        let level = match codec {
            Codec::Gzip if self.compression_gzip_level != -1 => Some(self.compression_gzip_level),
            Codec::Lz4 => Some(self.compression_lz4_level),
            Codec::Zstd => Some(self.compression_zstd_level),
            _ => None,
        };
        Some((codec, level))
    }

    /// The rules that batches of a Produce request of this version must pass.
    pub fn validation_rules(&self, produce_version: i16) -> ValidationRules {
        ValidationRules {
            max_message_bytes: self.max_message_bytes,
            segment_bytes: self.segment_size(),
            compression: self.recompression(),
            timestamp_type: self.message_timestamp_type,
            timestamp_before_max_ms: self.message_timestamp_before_max_ms,
            timestamp_after_max_ms: self.message_timestamp_after_max_ms,
            compacted: self.cleanup_policy.compact,
            produce_version,
            inflated_bytes_max: INFLATED_BYTES_MAX,
        }
    }

    /// What the partition's log needs to know.
    pub fn log_config(&self, producer_expiration_ms: i64) -> LogConfig {
        LogConfig {
            segment_bytes: u64::from(self.segment_size().unsigned_abs()),
            segment_ms: self.segment_ms,
            index_interval_bytes: self.index_interval_bytes.unsigned_abs(),
            durability: self.durability,
            producer_expiration_ms,
        }
    }
}

/// The row of a topic's key.
pub fn topic_key(name: &str) -> Option<&'static ConfigKey> {
    let at = TOPIC_KEYS.binary_search_by(|key| key.name.cmp(name)).ok()?;
    Some(&TOPIC_KEYS[at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::broker::broker_key;

    fn overrides(pairs: &[(&str, &str)]) -> Overrides {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn settings(sets: &[&str]) -> Settings {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        Settings::collect(None, [], &sets).unwrap().settings
    }

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_the_broker_s() {
        let nothing = Settings::default();
        let layers = Layers::of_start(&nothing);
        for pair in TOPIC_KEYS.windows(2) {
            assert!(pair[0].name < pair[1].name, "{} before {}", pair[0].name, pair[1].name);
        }
        for key in TOPIC_KEYS {
            assert!(key.doc.len() > 20 && key.doc.ends_with('.'), "{}", key.name);
            for synonym in key.synonyms {
                let behind = broker_key(synonym.name).expect(synonym.name);
                assert!(key.kind == behind.kind || synonym.unit != Unit::Same, "{}", key.name);
            }
            let effective = layers.topic_value(key, &Overrides::new());
            assert_eq!(effective.as_deref(), key.default, "{}", key.name);
        }
    }

    #[test]
    fn all_topic_keys_of_kafka_are_known() {
        let kafka = "cleanup.policy compression.gzip.level compression.lz4.level compression.type \
            compression.zstd.level delete.retention.ms file.delete.delay.ms flush.messages \
            flush.ms follower.replication.throttled.replicas index.interval.bytes \
            internal.segment.bytes leader.replication.throttled.replicas \
            local.retention.bytes local.retention.ms max.compaction.lag.ms max.message.bytes \
            message.timestamp.after.max.ms message.timestamp.before.max.ms \
            message.timestamp.type min.cleanable.dirty.ratio min.compaction.lag.ms \
            min.insync.replicas preallocate remote.log.copy.disable \
            remote.log.delete.on.disable remote.storage.enable retention.bytes retention.ms \
            segment.bytes segment.index.bytes segment.jitter.ms segment.ms \
            unclean.leader.election.enable";
        for name in kafka.split_whitespace() {
            assert!(topic_key(name).is_some(), "{name}");
        }
    }

    #[test]
    fn the_nearest_layer_wins() {
        let hours = settings(&["log.retention.hours=2"]);
        let cluster = overrides(&[("log.retention.ms", "5000")]);
        let topic = overrides(&[("retention.ms", "7")]);
        let mut layers = Layers::of_start(&hours);
        let none = Overrides::new();
        assert_eq!(TopicConfig::effective(&none, &layers).retention_ms, 7_200_000);
        layers.cluster = Some(&cluster);
        assert_eq!(TopicConfig::effective(&none, &layers).retention_ms, 5000);
        assert_eq!(TopicConfig::effective(&topic, &layers).retention_ms, 7);

        let given = layers.of_topic(topic_key("retention.ms").unwrap(), &topic);
        let shown: Vec<_> =
            given.iter().map(|g| (g.name, g.value.as_str(), g.source.name())).collect();
        assert_eq!(
            shown,
            [
                ("retention.ms", "7", "topic"),
                ("log.retention.ms", "5000", "cluster"),
                ("log.retention.hours", "2", "static"),
                ("log.retention.hours", "168", "default"),
            ]
        );
    }

    #[test]
    fn a_client_s_entries_are_checked() {
        fn check(entries: &[(&str, Option<&str>)], expected: Result<&[(&str, &str)], &str>) {
            let nothing = Settings::default();
            let got = TopicConfig::normalize(entries.iter().copied(), &Layers::of_start(&nothing));
            match (got, expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, overrides(expected)),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{error} lacks {expected}");
                }
                (got, _) => panic!("{entries:?} gave {got:?}"),
            }
        }
        check(&[("retention.ms", Some(" 5 "))], Ok(&[("retention.ms", "5")]));
        check(&[("segment.bytes", Some("1048576"))], Ok(&[("segment.bytes", "1048576")]));
        check(&[("segment.bytes", Some("1048575"))], Err("at least 1048576"));
        check(&[("internal.segment.bytes", Some("300"))], Ok(&[("internal.segment.bytes", "300")]));
        check(&[("message.format.version", Some("3.0"))], Err("message.format.version"));
        check(&[("no.such.key", Some("1"))], Err("Unknown topic config name: no.such.key"));
        check(
            &[("retention.ms", None)],
            Err("Null value not supported for topic configs: retention.ms"),
        );
        check(&[("remote.storage.enable", Some("true"))], Err("Tiered Storage"));
        check(
            &[("min.compaction.lag.ms", Some("9")), ("max.compaction.lag.ms", Some("8"))],
            Err("min.compaction.lag.ms (9) > max.compaction.lag.ms (8)"),
        );
        check(&[("durability", Some("never"))], Err("fsync, page-cache"));
    }

    #[test]
    fn values_reach_the_log_and_the_validator() {
        let nothing = Settings::default();
        let topic = overrides(&[
            ("internal.segment.bytes", "4096"),
            ("compression.type", "zstd"),
            ("cleanup.policy", "compact"),
            ("durability", "page-cache"),
        ]);
        let config = TopicConfig::effective(&topic, &Layers::of_start(&nothing));
        let rules = config.validation_rules(9);
        assert_eq!((rules.segment_bytes, rules.compacted, rules.produce_version), (4096, true, 9));
        assert_eq!(rules.compression, Some((Codec::Zstd, Some(3))));
        let log = config.log_config(1000);
        assert_eq!((log.segment_bytes, log.durability), (4096, Durability::PageCache));
        assert_eq!(TopicConfig::of_metadata().cleanup_policy, CleanupPolicy::default());
    }
}
