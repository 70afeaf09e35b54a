//! The broker's keys that somebody set, gathered from their sources.
//!
//! Later sources win: a file (TOML or Java properties), then the environment
//! (`VLTAVA_NUM_PARTITIONS`), then `--set key=value`. Everything arrives as an argument; the caller
//! reads files and the environment.

use std::collections::BTreeMap;

use super::broker::{BROKER_KEYS, Flags, broker_key};
use super::key::{ConfigError, ConfigKey};

/// The prefix of an environment variable that sets a key.
pub const ENVIRONMENT_PREFIX: &str = "VLTAVA_";

/// Why the settings of a source were refused. One line that names the source.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// One of its keys or values is wrong.
    #[error("{origin}: {error}")]
    Key {
        /// Where it was given.
        origin: String,
        /// What is wrong.
        error: ConfigError,
    },
    /// The source cannot be parsed.
    #[error("{origin}: {reason}")]
    Syntax {
        /// Where it was given.
        origin: String,
        /// What the parser says, on one line.
        reason: String,
    },
}

/// The text of a configuration file.
#[derive(Clone, Copy, Debug)]
pub struct SettingsFile<'a> {
    /// Its path, as messages name it. A name that ends in `.toml` is TOML, any other is a
    /// properties file.
    pub path: &'a str,
    /// Its content.
    pub text: &'a str,
}

/// The keys that are set, each with its normalized value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    values: BTreeMap<&'static str, String>,
}

/// What [`Settings::collect`] found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Collected {
    /// The settings.
    pub settings: Settings,
    /// Environment variables with our prefix that name no key. They are no error, since container
    /// platforms inject variables that start with a service's name; the caller warns.
    pub ignored: Vec<String>,
}

impl Settings {
    /// Gathers and checks the settings of all sources.
    pub fn collect(
        file: Option<SettingsFile<'_>>,
        environment: impl IntoIterator<Item = (String, String)>,
        sets: &[String],
    ) -> Result<Collected, SettingsError> {
        let mut collected = Collected::default();
        let settings = &mut collected.settings;
        if let Some(file) = file {
            for (name, value) in entries(file)? {
                settings.set(&name, &value, file.path)?;
            }
        }
        for (variable, value) in environment {
            if !variable.starts_with(ENVIRONMENT_PREFIX) {
                continue;
            }
            match BROKER_KEYS.iter().find(|key| key.environment() == variable) {
                Some(key) => settings.set(key.name, &value, &variable)?,
                None => collected.ignored.push(variable),
            }
        }
        for set in sets {
            let origin = format!("--set {}", set.escape_debug());
            let Some((name, value)) = set.split_once('=') else {
                let reason = "not of the form key=value".to_owned();
                return Err(SettingsError::Syntax { origin, reason });
            };
            settings.set(name.trim(), value, "--set")?;
        }
        Ok(collected)
    }

    fn set(&mut self, name: &str, value: &str, origin: &str) -> Result<(), SettingsError> {
        let refuse = |error| SettingsError::Key { origin: origin.to_owned(), error };
        let key: &'static ConfigKey = broker_key(name).ok_or_else(|| {
            refuse(ConfigError::Unknown { scope: "broker", name: name.escape_debug().to_string() })
        })?;
        if let Some(reason) = key.flag {
            return Err(refuse(ConfigError::NotSettable { name: key.name, reason }));
        }
        let value = key.normalize(value).map_err(refuse)?;
        self.values.insert(key.name, value);
        Ok(())
    }

    /// The value of a key, if it was set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Lists what flags say under Kafka's names for it.
    pub(super) fn stand_in(&mut self, flags: &Flags) {
        let id = flags.node_id.0.to_string();
        self.values.insert("node.id", id.clone());
        self.values.insert("broker.id", id);
        self.values.insert("log.dirs", flags.data_dir.display().to_string());
        self.values.insert("listeners", format!("PLAINTEXT://{}", flags.listen));
        if let Some((host, port)) = &flags.advertise {
            self.values.insert("advertised.listeners", format!("PLAINTEXT://{host}:{port}"));
        }
    }
}

/// The keys and values of a file.
fn entries(file: SettingsFile<'_>) -> Result<Vec<(String, String)>, SettingsError> {
    let refuse = |reason: &str| SettingsError::Syntax {
        origin: file.path.to_owned(),
        reason: reason.trim().replace('\n', " "),
    };
    let is_toml = std::path::Path::new(file.path)
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("toml"));
    if !is_toml {
        let properties = java_properties::read(file.text.as_bytes())
            .map_err(|error| refuse(&error.to_string()))?;
        return Ok(properties.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect());
    }
    let table: toml::Table =
        file.text.parse().map_err(|error: toml::de::Error| refuse(&error.to_string()))?;
    let mut entries = Vec::new();
    flatten(&mut entries, "", table).map_err(|reason| refuse(&reason))?;
    Ok(entries)
}

/// Turns nested tables into dotted keys, so that `num.partitions = 4` and `[num]` mean the same.
fn flatten(
    entries: &mut Vec<(String, String)>,
    prefix: &str,
    table: toml::Table,
) -> Result<(), String> {
    for (name, value) in table {
        let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(table) => flatten(entries, &name, table)?,
            toml::Value::Array(items) => {
                let words = items.iter().map(|item| scalar(&name, item));
                let words = words.collect::<Result<Vec<_>, _>>()?.join(",");
                entries.push((name, words));
            }
            value => {
                let text = scalar(&name, &value)?;
                entries.push((name, text));
            }
        }
    }
    Ok(())
}

fn scalar(name: &str, value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        toml::Value::Boolean(flag) => Ok(flag.to_string()),
        other => Err(format!("{name}: a {} is no value of a key", other.type_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(
        file: Option<(&str, &str)>,
        environment: &[(&str, &str)],
        sets: &[&str],
    ) -> Result<Collected, String> {
        let file = file.map(|(path, text)| SettingsFile { path, text });
        let environment =
            environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        Settings::collect(file, environment, &sets).map_err(|error| error.to_string())
    }

    #[test]
    fn later_sources_win() {
        let file = Some(("v.properties", "num.partitions=2\nlog.retention.hours: 1\n"));
        let environment = [("VLTAVA_NUM_PARTITIONS", "3"), ("HOME", "/")];
        let both = collect(file, &environment, &[]).unwrap().settings;
        assert_eq!(both.get("num.partitions"), Some("3"));
        assert_eq!(both.get("log.retention.hours"), Some("1"));
        let all = collect(file, &environment, &["num.partitions= 4"]).unwrap().settings;
        assert_eq!(all.get("num.partitions"), Some("4"));
        assert_eq!(all.get("message.max.bytes"), None);
    }

    #[test]
    fn toml_nests_or_dots() {
        let text = "num.partitions = 2\n[log]\ncleanup.policy = [\"compact\", \"delete\"]\n";
        let settings = collect(Some(("v.toml", text)), &[], &[]).unwrap().settings;
        assert_eq!(settings.get("num.partitions"), Some("2"));
        assert_eq!(settings.get("log.cleanup.policy"), Some("compact,delete"));
    }

    #[test]
    fn each_error_names_its_source_and_key() {
        let cases: [(Result<Collected, String>, &[&str]); 8] = [
            (collect(None, &[], &["num.partition=1"]), &["--set", "num.partition"]),
            (collect(None, &[], &["num.partitions"]), &["--set num.partitions", "key=value"]),
            (collect(None, &[], &["num.partitions=x"]), &["--set", "num.partitions", "INT"]),
            (
                collect(Some(("v.toml", "a.b = 1")), &[], &[]),
                &["v.toml", "Unknown broker config name: a.b"],
            ),
            (collect(Some(("v.toml", "a = ")), &[], &[]), &["v.toml"]),
            (collect(Some(("v.toml", "num.partitions = 1979-05-27")), &[], &[]), &["datetime"]),
            (collect(Some(("v.conf", "num.partitions=0")), &[], &[]), &["v.conf", "at least 1"]),
            (collect(None, &[("VLTAVA_NUM_PARTITIONS", "")], &[]), &["VLTAVA_NUM_PARTITIONS"]),
        ];
        for (result, expected) in cases {
            let error = result.unwrap_err();
            assert!(!error.contains('\n'), "{error}");
            for part in expected {
                assert!(error.contains(part), "{error} lacks {part}");
            }
        }
    }

    #[test]
    fn foreign_variables_with_our_prefix_are_reported() {
        let collected = collect(None, &[("VLTAVA_PORT_9092_TCP", "tcp://10.0.0.1")], &[]).unwrap();
        assert_eq!(collected.ignored, ["VLTAVA_PORT_9092_TCP"]);
    }
}
