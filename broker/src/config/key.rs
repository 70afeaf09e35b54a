//! One row of a configuration table, and the check of a value against it.

use super::value::{ConfigType, ConfigValue, ConnectionsPerIp, words};

/// Why a value or a set of values was refused, in Kafka's words (`ConfigException`). The message is
/// one line and names the key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// No table has this key.
    #[error("Unknown {scope} config name: {name}")]
    Unknown {
        /// `topic`, `group` or `broker`.
        scope: &'static str,
        /// The name as it was given.
        name: String,
    },
    /// A key is given without a value where it needs one.
    #[error("Null value not supported for {scope} configs: {names}")]
    Null {
        /// `topic` or `group`.
        scope: &'static str,
        /// The keys, separated by commas.
        names: String,
    },
    /// The value is not of the key's type, or outside its bound.
    #[error("Invalid value {value} for configuration {name}: {rule}")]
    Value {
        /// The key.
        name: &'static str,
        /// The text as it was given.
        value: String,
        /// What a value must be.
        rule: String,
    },
    /// The key exists, but cannot be set this way.
    #[error("configuration {name} cannot be set here: {reason}")]
    NotSettable {
        /// The key.
        name: &'static str,
        /// Who sets it.
        reason: &'static str,
    },
    /// A broker's keys that only a restart changes.
    #[error("Cannot update these configs dynamically: [{0}]")]
    ReadOnly(String),
    /// Two values that are each right contradict each other.
    #[error("conflict {scope} config setting {name} ({value}) > {other} ({other_value})")]
    Conflict {
        /// `topic` or `broker`.
        scope: &'static str,
        /// One key.
        name: &'static str,
        /// Its value.
        value: String,
        /// The other key.
        other: &'static str,
        /// The other value.
        other_value: String,
    },
    /// A feature that a value asks for does not exist here.
    #[error("{reason}")]
    Unsupported {
        /// The key.
        name: &'static str,
        /// What is missing.
        reason: &'static str,
    },
}

/// Which values of the right type are allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// All of them.
    Any,
    /// Numbers from here on.
    AtLeast(i64),
    /// Numbers between these two, both included.
    Between(i64, i64),
    /// 1 to 9, or -1 for the codec's default.
    GzipLevel,
    /// A fraction from 0 to 1.
    Fraction,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A list of these words.
    Each(&'static [&'static str]),
    /// A list of `partition:broker` pairs, or `*`.
    ThrottledReplicas,
    /// A list of `address:count` pairs.
    ConnectionsPerIp,
}

/// When a changed value of a broker's key takes effect
/// (`DynamicBrokerConfig`: read-only, per-broker, cluster-wide).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Update {
    /// After a restart only.
    ReadOnly,
    /// At once, for one broker.
    PerBroker,
    /// At once, for one broker or all.
    ClusterWide,
}

/// How the value of a synonym is turned into the unit of the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// It is the same unit.
    Same,
    /// Minutes, the key has milliseconds.
    Minutes,
    /// Hours, the key has milliseconds.
    Hours,
}

impl Unit {
    /// Converts a normalized text. Negative values mean "no limit" in every unit.
    pub fn convert(self, text: &str) -> String {
        let millis = match self {
            Self::Same => return text.to_owned(),
            Self::Minutes => 60_000,
            Self::Hours => 3_600_000,
        };
        match text.parse::<i64>() {
            Ok(count) if count >= 0 => count.saturating_mul(millis).to_string(),
            _ => text.to_owned(),
        }
    }
}

/// A broker's key that gives a key its value when nothing nearer does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Synonym {
    /// The broker's key.
    pub name: &'static str,
    /// Its unit.
    pub unit: Unit,
}

/// One row of a table.
#[derive(Clone, Copy, Debug)]
pub struct ConfigKey {
    /// Kafka's name.
    pub name: &'static str,
    /// The type.
    pub kind: ConfigType,
    /// The default's text; a key without one has no value until it is set.
    pub default: Option<&'static str>,
    /// Which values are allowed.
    pub bound: Bound,
    /// When a change takes effect (of topics: always at once).
    pub update: Update,
    /// Left out of DescribeConfigs.
    pub internal: bool,
    /// Given by this flag of `vltava serve` instead of a key.
    pub flag: Option<&'static str>,
    /// Where the value comes from when it is not set, nearest first. Of a topic's key these are
    /// broker's keys; of a broker's key, its siblings in other units.
    pub synonyms: &'static [Synonym],
    /// What it means, in a sentence or two.
    pub doc: &'static str,
}

/// Starts a row: a key with a default. The rest is added by the methods of [`ConfigKey`].
pub const fn key(name: &'static str, default: &'static str) -> ConfigKey {
    ConfigKey {
        name,
        kind: ConfigType::String,
        default: Some(default),
        bound: Bound::Any,
        update: Update::ReadOnly,
        internal: false,
        flag: None,
        synonyms: &[],
        doc: "",
    }
}

/// Starts a row: a key that has no value until it is set.
pub const fn unset(name: &'static str) -> ConfigKey {
    ConfigKey { default: None, ..key(name, "") }
}

impl ConfigKey {
    /// Numbers from `min` on.
    #[must_use]
    pub const fn at_least(self, min: i64) -> Self {
        Self { bound: Bound::AtLeast(min), ..self }
    }

    /// Numbers from `min` to `max`.
    #[must_use]
    pub const fn between(self, min: i64, max: i64) -> Self {
        Self { bound: Bound::Between(min, max), ..self }
    }

    /// Any other bound.
    #[must_use]
    pub const fn bound(self, bound: Bound) -> Self {
        Self { bound, ..self }
    }

    /// Changeable at run time, for all brokers or one.
    #[must_use]
    pub const fn cluster_wide(self) -> Self {
        Self { update: Update::ClusterWide, ..self }
    }

    /// Not shown by DescribeConfigs.
    #[must_use]
    pub const fn internal(self) -> Self {
        Self { internal: true, ..self }
    }

    /// Set by a flag of `vltava serve`.
    #[must_use]
    pub const fn flag(self, flag: &'static str) -> Self {
        Self { flag: Some(flag), ..self }
    }

    /// Falls back to these.
    #[must_use]
    pub const fn synonyms(self, synonyms: &'static [Synonym]) -> Self {
        Self { synonyms, ..self }
    }

    /// Ends a row: its type and documentation. Called by the table's macro.
    #[must_use]
    pub const fn typed(self, kind: ConfigType, doc: &'static str) -> Self {
        Self { kind, doc, ..self }
    }

    /// The environment variable that sets a broker's key: `num.partitions` is
    /// `VLTAVA_NUM_PARTITIONS`.
    pub fn environment(&self) -> String {
        format!("VLTAVA_{}", self.name.replace('.', "_").to_uppercase())
    }

    /// The documentation as plain text.
    pub fn text(&self) -> String {
        self.doc.trim().replace('`', "")
    }

    /// Checks a value and brings it into the form in which it is stored and shown.
    pub fn normalize(&self, value: &str) -> Result<String, ConfigError> {
        let text = value.trim();
        let refuse = |value: &str, rule: String| ConfigError::Value {
            name: self.name,
            value: shown(value),
            rule,
        };
        let not_a_number = || refuse(text, format!("Not a number of type {}", self.kind.name()));
        let normal = match self.kind {
            ConfigType::Boolean => match text.to_ascii_lowercase().as_str() {
                "true" => "true".to_owned(),
                "false" => "false".to_owned(),
                _ => {
                    let rule = "Expected value to be either true or false";
                    return Err(refuse(text, rule.to_owned()));
                }
            },
            ConfigType::Short => text.parse::<i16>().map_err(|_| not_a_number())?.to_string(),
            ConfigType::Int => text.parse::<i32>().map_err(|_| not_a_number())?.to_string(),
            ConfigType::Long => text.parse::<i64>().map_err(|_| not_a_number())?.to_string(),
            ConfigType::Double => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => format!("{number:?}"),
                _ => return Err(not_a_number()),
            },
            ConfigType::String => text.to_owned(),
            ConfigType::List => {
                // A word that is given again says nothing more.
                let mut seen = Vec::new();
                for word in words(text) {
                    if !seen.contains(&word) {
                        seen.push(word);
                    }
                }
                seen.join(",")
            }
        };
        match self.broken_rule(&normal) {
            None => Ok(normal),
            Some((value, rule)) => Err(refuse(&value, rule)),
        }
    }

    /// What of a value of the right type breaks the bound, and the rule that it breaks.
    fn broken_rule(&self, normal: &str) -> Option<(String, String)> {
        let number = normal.parse::<i64>().ok();
        let whole = |rule: String| (normal.to_owned(), rule);
        let below = |min: i64| format!("Value must be at least {min}");
        let above = |max: i64| format!("Value must be no more than {max}");
        let one_of = |allowed: &[&str]| format!("String must be one of: {}", allowed.join(", "));
        match self.bound {
            Bound::Any => None,
            Bound::AtLeast(min) => number.filter(|&n| n < min).map(|_| whole(below(min))),
            Bound::Between(min, max) => match number? {
                low if low < min => Some(whole(below(min))),
                high if high > max => Some(whole(above(max))),
                _ => None,
            },
            Bound::GzipLevel => {
                let outside = number.is_some_and(|level| level != -1 && !(1..=9).contains(&level));
                let rule = "Value must be between 1 and 9 or equal to -1";
                outside.then(|| whole(rule.to_owned()))
            }
            Bound::Fraction => match normal.parse::<f64>().ok()? {
                low if low < 0.0 => Some(whole(below(0))),
                high if high > 1.0 => Some(whole(above(1))),
                _ => None,
            },
            Bound::OneOf(allowed) => (!allowed.contains(&normal)).then(|| whole(one_of(allowed))),
            Bound::Each(allowed) => {
                let wrong = words(normal).find(|word| !allowed.contains(word))?;
                Some((wrong.to_owned(), one_of(allowed)))
            }
            Bound::ThrottledReplicas => (!throttled_replicas(normal)).then(|| {
                let rule = format!(
                    "{} must be the literal '*' or a list of replicas in the following format: \
                     [partitionId]:[brokerId],[partitionId]:[brokerId],...",
                    self.name
                );
                (format!("[{}]", normal.replace(',', ", ")), rule)
            }),
            Bound::ConnectionsPerIp => {
                let rule = "value must be a list of address:count, address:count, ...";
                let is_right = ConnectionsPerIp::read(Some(normal)).is_some();
                (!is_right).then(|| whole(rule.to_owned()))
            }
        }
    }

    /// What the type and bound allow, for help and documentation.
    pub fn allowed(&self) -> String {
        match self.bound {
            Bound::Any | Bound::ThrottledReplicas | Bound::ConnectionsPerIp => {
                self.kind.name().to_lowercase()
            }
            Bound::AtLeast(min) => format!("{} >= {min}", self.kind.name().to_lowercase()),
            Bound::Between(min, max) => format!("{min}..{max}"),
            Bound::GzipLevel => "1..9 or -1".to_owned(),
            Bound::Fraction => "0..1".to_owned(),
            Bound::OneOf(words) => words.join("|"),
            Bound::Each(words) => format!("list of {}", words.join(", ")),
        }
    }
}

/// The most characters of a refused value that a message repeats.
const SHOWN_CHARS_MAX: usize = 200;

/// A refused value as a message shows it: on one line, and not longer than anyone would read.
fn shown(value: &str) -> String {
    value.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect()
}

/// Whether a list is `*` or pairs of non-negative numbers (`ThrottledReplicaListValidator`).
fn throttled_replicas(normal: &str) -> bool {
    let pair = |word: &str| {
        word.split_once(':').is_some_and(|(partition, broker)| {
            partition.parse::<u32>().is_ok() && broker.parse::<u32>().is_ok()
        })
    };
    normal == "*" || words(normal).all(pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: ConfigKey, kind: ConfigType, value: &str, expected: Result<&str, &str>) {
        let got = key.typed(kind, "").normalize(value);
        match (&got, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{value:?}"),
            (Err(error), Err(expected)) => {
                assert!(error.to_string().contains(expected), "{error} lacks {expected:?}");
                assert!(error.to_string().contains(key.name), "{error} does not name the key");
            }
            _ => panic!("{value:?}: got {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn values_are_normalized_or_refused() {
        use ConfigType::{Boolean, Double, Int, List, Long, Short, String};
        let k = key("a.key", "1");
        check(k, Boolean, " TRUE ", Ok("true"));
        check(k, Boolean, "yes", Err("either true or false"));
        check(k, Int, "+5", Ok("5"));
        check(k, Int, " 7 ", Ok("7"));
        check(k, Int, "2147483648", Err("type INT"));
        check(k, Int, "", Err("type INT"));
        check(k, Int, "1_000", Err("type INT"));
        check(k, Short, "40000", Err("type SHORT"));
        check(k, Long, "9223372036854775807", Ok("9223372036854775807"));
        check(k, Double, "0.50", Ok("0.5"));
        check(k, Double, "NaN", Err("type DOUBLE"));
        check(k, String, " word ", Ok("word"));
        check(k, List, " a , b,", Ok("a,b"));
    }

    #[test]
    fn bounds_are_kept() {
        use ConfigType::{Double, Int, List, String};
        let k = key("a.key", "1");
        check(k.at_least(1), Int, "0", Err("at least 1"));
        check(k.at_least(1), Int, "1", Ok("1"));
        check(k.between(-131_072, 22), Int, "23", Err("no more than 22"));
        check(k.bound(Bound::GzipLevel), Int, "0", Err("-1"));
        check(k.bound(Bound::GzipLevel), Int, "-1", Ok("-1"));
        check(k.bound(Bound::Fraction), Double, "1.01", Err("no more than 1"));
        check(k.bound(Bound::OneOf(&["a", "b"])), String, "c", Err("one of: a, b"));
        let policy = k.bound(Bound::Each(&["compact", "delete"]));
        check(policy, List, "compact, delete", Ok("compact,delete"));
        check(policy, List, "", Ok(""));
        check(policy, List, "delete,delete", Ok("delete"));
        check(policy, List, "dlete", Err("compact, delete"));
        let throttled = k.bound(Bound::ThrottledReplicas);
        check(throttled, List, "*", Ok("*"));
        check(throttled, List, "0:1, 1:2", Ok("0:1,1:2"));
        check(throttled, List, "0-1", Err("[partitionId]:[brokerId]"));
        let per_ip = k.bound(Bound::ConnectionsPerIp);
        check(per_ip, String, "127.0.0.1:2, [::1]:0", Ok("127.0.0.1:2, [::1]:0"));
        check(per_ip, String, "broker.example:2", Err("address:count"));
        check(per_ip, String, "127.0.0.1:-1", Err("address:count"));
    }

    #[test]
    fn a_refused_value_stays_on_one_line() {
        let error = key("a.key", "1").typed(ConfigType::Int, "").normalize("1\n2").unwrap_err();
        assert!(!error.to_string().contains('\n'));
    }

    #[test]
    fn units_convert() {
        assert_eq!(Unit::Hours.convert("168"), "604800000");
        assert_eq!(Unit::Minutes.convert("2"), "120000");
        assert_eq!(Unit::Hours.convert("-1"), "-1");
        assert_eq!(Unit::Same.convert("x"), "x");
    }
}
