//! Set-up of the log lines: level, human or JSON, always to standard error.
//!
//! Called once by the command line before anything else logs; [`loggers`] changes the levels later.
//! Standard output stays free for what a command prints.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, reload};

pub mod loggers;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for people, colored on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level is neither one of `off error warn info debug trace` nor a filter such as
    /// `info,vltava::connection=debug`.
    #[error("bad log level {given:?}: {cause}")]
    BadLevel {
        /// What was given.
        given: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Something else has set up logging in this process.
    #[error("logging is already set up")]
    AlreadySet(#[from] TryInitError),
}

/// Sends log lines of `level` and above to standard error.
pub fn init(level: &str, format: LogFormat) -> Result<(), LoggingError> {
    let (filter, handle) = reload::Layer::new(parse(level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            let color = std::io::stderr().is_terminal();
            registry.with(lines.with_ansi(color).with_target(false)).try_init()?;
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init()?,
    }
    loggers::install(level, handle);
    Ok(())
}

fn parse(level: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::try_new(level).map_err(|cause| LoggingError::BadLevel {
        given: level.to_owned(),
        cause: cause.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_accepted_and_nonsense_is_named() {
        for good in ["info", "off", "warn,vltava::connection=debug"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        let error = parse("info=what=now").unwrap_err();
        assert!(error.to_string().contains("info=what=now"), "{error}");
    }
}
