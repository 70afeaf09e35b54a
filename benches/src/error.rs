//! Why something could not be measured.

use std::io;

/// Why nothing, or one thing, could be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// The broker could not be built.
    #[error("cargo could not build the broker")]
    Build,
    /// The broker did not say that it is ready.
    #[error("the broker is not ready, it said: {said}")]
    NotReady {
        /// Its last words.
        said: String,
    },
    /// The broker answered with an error.
    #[error("{what} was refused with error code {code}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Kafka's error code.
        code: i16,
    },
    /// The broker's answer is not what the protocol says.
    #[error("malformed answer to {0}")]
    Malformed(&'static str),
    /// A foreign program or library failed.
    #[error("{what} failed: {said}")]
    Foreign {
        /// Which.
        what: String,
        /// Its last words.
        said: String,
    },
    /// What was consumed is not what was produced: no figure of this run counts.
    #[error("{consumed} was consumed where {produced} was produced")]
    Mismatch {
        /// What went in.
        produced: String,
        /// What came out.
        consumed: String,
    },
    /// It was over before anything could be measured.
    #[error("{0} took too short a time to be measured")]
    TooShort(&'static str),
    /// It took too long.
    #[error("{0} took too long")]
    TooLong(&'static str),
}

/// Adds what was tried to an error of the operating system.
pub(crate) fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> BenchError {
    let what = what.into();
    move |source| BenchError::Io { what, source }
}

/// The same for a foreign library's error.
pub(crate) fn foreign<E: std::fmt::Display>(
    what: impl Into<String>,
) -> impl FnOnce(E) -> BenchError {
    let what = what.into();
    move |error| BenchError::Foreign { what, said: error.to_string() }
}
