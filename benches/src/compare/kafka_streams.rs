//! Kafka Streams from its published artifacts, and the small program that runs the jobs with it.
//!
//! Each run is a virtual machine of its own. Its settings are Kafka Streams' defaults: at least
//! once, one thread.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::kafka::{JVM, artifacts, succeed};
use crate::dialog::Dialog;
use crate::error::{BenchError, foreign, io_error};
use crate::process::Process;

/// The most memory of its heap: that of the broker.
const HEAP: &str = "-Xmx1g";
/// The program, and its only source.
const PROGRAM: &str = "Pipelines";

/// The program, compiled, and what it needs.
#[derive(Debug)]
pub(crate) struct KafkaStreams {
    class_path: String,
}

impl KafkaStreams {
    /// Brings the artifacts, unless they are there, and compiles the program.
    pub(crate) fn fetch() -> Result<Self, BenchError> {
        let (artifacts, root) = artifacts("kafka-streams")?;
        let classes: PathBuf = root.join("kafka-streams-classes");
        fs::create_dir_all(&classes).map_err(io_error("cannot make a directory for classes"))?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/kafka-streams");
        let mut compiler = Command::new("javac");
        compiler.arg("-cp").arg(&artifacts).arg("-d").arg(&classes);
        succeed(compiler.arg(source.join(PROGRAM).with_extension("java")))?;
        Ok(Self { class_path: format!("{}:{artifacts}", classes.display()) })
    }

    /// Starts the program, which waits to be told its job. `settings` are those that differ from
    /// the defaults, as `key=value`.
    pub(crate) fn start(
        &self,
        bootstrap: &str,
        state: &Path,
        settings: &[&str],
    ) -> Result<(Process, Dialog), BenchError> {
        let mut command = Command::new("java");
        command.arg(HEAP).args(JVM).arg("-cp").arg(&self.class_path).arg(PROGRAM);
        command.arg(bootstrap).arg(state).args(settings);
        let mut process = Process::start_to_talk(&mut command)?;
        let dialog = Dialog::with(&mut process).ok_or(BenchError::Malformed("a start"))?;
        Ok((process, dialog))
    }
}

/// Adds the program's last words to an error of talking to it.
pub(crate) fn with_last_words(error: &BenchError, process: &mut Process) -> BenchError {
    foreign("Kafka Streams")(format!("{error}; it said: {}", process.last_words()))
}
