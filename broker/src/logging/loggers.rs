//! The levels of log lines, room by room, changed while the process runs (KIP-412).
//!
//! A logger is a part of the program whose lines are told apart: [`ROOMS`], and `root` for all that
//! has no level of its own. A level is kept by this process alone and gone when it ends, as in Kafka
//! (`RuntimeLoggerManager`, `LoggingController`). Where another program runs the broker inside
//! itself and has set up its own log lines, there is nothing here to be changed.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use parking_lot::Mutex;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// What all loggers fall back to.
pub const ROOT: &str = "root";

/// The loggers beside the root, sorted. Each stands for what begins with its name.
pub const ROOMS: &[&str] = &[
    "vltava",
    "vltava::admin",
    "vltava::connection",
    "vltava::controller",
    "vltava::coordinator",
    "vltava::handlers",
    "vltava::node",
    "vltava::partition",
    "vltava::partitions",
    "vltava::replica",
    "vltava::server",
    "vltava_storage",
];

/// Kafka's names of the levels, and ours. Nothing here is ever fatal alone: that level is silence.
const LEVELS: [(&str, &str); 6] = [
    ("DEBUG", "debug"),
    ("ERROR", "error"),
    ("FATAL", "off"),
    ("INFO", "info"),
    ("TRACE", "trace"),
    ("WARN", "warn"),
];

/// Why a level was not changed, in Kafka's words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoggerError {
    /// There is no such logger.
    #[error("Logger {0} does not exist!")]
    Unknown(String),
    /// There is no such level.
    #[error(
        "Cannot set the log level of {logger} to {level} as it is not a supported log level. \
         Valid log levels are DEBUG, ERROR, FATAL, INFO, TRACE, WARN"
    )]
    Level {
        /// Whose level.
        logger: String,
        /// What was given.
        level: String,
    },
    /// The root has nothing to fall back to.
    #[error("Removing the log level of the root logger is not allowed")]
    Root,
    /// Another program writes the log lines.
    #[error("the log lines belong to the program that runs this broker")]
    NotOurs,
}

/// The levels in force.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Levels {
    /// What was set, by logger; Kafka's names of the levels.
    set: BTreeMap<String, &'static str>,
    /// The parts of the start's filter that are more than a level of a logger.
    rest: Vec<String>,
}

struct Loggers {
    levels: Mutex<Levels>,
    filter: reload::Handle<EnvFilter, Registry>,
}

static LOGGERS: OnceLock<Loggers> = OnceLock::new();

/// Makes the levels of this process's log lines changeable; called once, when they are set up.
pub(super) fn install(given: &str, filter: reload::Handle<EnvFilter, Registry>) {
    let levels = Mutex::new(Levels::of(given));
    // Whoever came second did not set up any lines.
    let _ = LOGGERS.set(Loggers { levels, filter });
}

/// All loggers with the level in force, the root first.
pub fn describe() -> Vec<(&'static str, &'static str)> {
    let Some(loggers) = LOGGERS.get() else { return Vec::new() };
    let levels = loggers.levels.lock();
    let names = std::iter::once(ROOT).chain(ROOMS.iter().copied());
    names.map(|name| (name, levels.of_logger(name))).collect()
}

/// Sets levels, or for `None` forgets them: all or, if one of them is wrong, none.
pub fn alter(changes: &[(String, Option<String>)], validate_only: bool) -> Result<(), LoggerError> {
    let mut wanted = Levels::default();
    let current = LOGGERS.get().map(|loggers| (loggers, loggers.levels.lock()));
    if let Some((_, levels)) = &current {
        wanted.clone_from(levels);
    }
    for (logger, level) in changes {
        wanted.change(logger, level.as_deref())?;
    }
    let Some((loggers, mut levels)) = current else { return Err(LoggerError::NotOurs) };
    if validate_only || *levels == wanted {
        return Ok(());
    }
    let filter = EnvFilter::new(wanted.filter());
    // The handle outlives its layer only where the process ends.
    if loggers.filter.reload(filter).is_err() {
        return Err(LoggerError::NotOurs);
    }
    *levels = wanted;
    tracing::info!(filter = levels.filter(), "log levels changed");
    Ok(())
}

impl Levels {
    /// Reads the filter that the process was started with.
    fn of(given: &str) -> Self {
        let mut levels = Self::default();
        for part in given.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (logger, level) = part.split_once('=').unwrap_or((ROOT, part));
            match by_our_name(level) {
                Some(level) if !logger.contains(['[', '{']) => {
                    levels.set.insert(logger.to_owned(), level);
                }
                _ => levels.rest.push(part.to_owned()),
            }
        }
        levels
    }

    fn change(&mut self, logger: &str, level: Option<&str>) -> Result<(), LoggerError> {
        let is_known = logger == ROOT || ROOMS.contains(&logger) || self.set.contains_key(logger);
        if !is_known {
            return Err(LoggerError::Unknown(logger.to_owned()));
        }
        let Some(level) = level else {
            if logger == ROOT {
                return Err(LoggerError::Root);
            }
            self.set.remove(logger);
            return Ok(());
        };
        let known = LEVELS.iter().find(|(name, _)| *name == level);
        let &(level, _) = known.ok_or_else(|| LoggerError::Level {
            logger: logger.to_owned(),
            level: level.to_owned(),
        })?;
        self.set.insert(logger.to_owned(), level);
        Ok(())
    }

    /// The level in force for a logger: its own, or of the longest name that it begins with.
    fn of_logger(&self, logger: &str) -> &'static str {
        let covers = |name: &str| name != ROOT && logger.starts_with(name);
        let own = self.set.iter().filter(|(name, _)| covers(name));
        let nearest = own.max_by_key(|(name, _)| name.len()).map(|(_, level)| *level);
        nearest.or_else(|| self.set.get(ROOT).copied()).unwrap_or("ERROR")
    }

    /// The filter of `tracing` that these levels are.
    fn filter(&self) -> String {
        let part = |(logger, level): (&String, &&'static str)| {
            let level =
                LEVELS.iter().find(|(name, _)| name == level).map_or("off", |(_, ours)| ours);
            if logger == ROOT { level.to_owned() } else { format!("{logger}={level}") }
        };
        let set = self.set.iter().map(part);
        set.chain(self.rest.iter().cloned()).collect::<Vec<_>>().join(",")
    }
}

fn by_our_name(level: &str) -> Option<&'static str> {
    let known = LEVELS.iter().find(|(_, ours)| ours.eq_ignore_ascii_case(level));
    known.map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_inherited_and_changed() {
        let mut levels = Levels::of("info, vltava::replica=debug");
        assert_eq!(levels.of_logger(ROOT), "INFO");
        assert_eq!(levels.of_logger("vltava::replica"), "DEBUG");
        assert_eq!(levels.of_logger("vltava::node"), "INFO");
        levels.change("vltava", Some("TRACE")).unwrap();
        assert_eq!(levels.of_logger("vltava::node"), "TRACE");
        assert_eq!(levels.of_logger("vltava::replica"), "DEBUG");
        levels.change("vltava::replica", None).unwrap();
        assert_eq!(levels.of_logger("vltava::replica"), "TRACE");
        levels.change(ROOT, Some("FATAL")).unwrap();
        assert_eq!(levels.filter(), "off,vltava=trace");
        assert!(EnvFilter::try_new(levels.filter()).is_ok());
    }

    #[test]
    fn what_is_more_than_a_level_is_kept() {
        let levels = Levels::of("warn,[span{field=1}]=trace");
        assert_eq!(levels.rest, ["[span{field=1}]=trace"]);
        assert_eq!(levels.filter(), "warn,[span{field=1}]=trace");
    }

    #[test]
    fn nonsense_is_refused_in_kafka_s_words() {
        let mut levels = Levels::of("info");
        let same = levels.clone();
        for (logger, level, expected) in [
            ("no.such", Some("DEBUG"), "Logger no.such does not exist!"),
            ("root", Some("warn"), "Cannot set the log level of root to warn as"),
            ("root", None, "Removing the log level of the root logger is not allowed"),
        ] {
            let error = levels.change(logger, level).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        assert_eq!(levels, same);
    }

    #[test]
    fn without_lines_of_our_own_nothing_is_changed() {
        if LOGGERS.get().is_none() {
            let change = [(ROOT.to_owned(), Some("INFO".to_owned()))];
            assert_eq!(alter(&change, false), Err(LoggerError::NotOurs));
            assert_eq!(describe(), []);
        }
    }
}
