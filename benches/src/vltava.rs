//! Our own broker: the real binary, built in release if it is not there.

use std::env;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::dialog::Dialog;
use crate::error::{BenchError, io_error};
use crate::process::Process;

/// How long a broker may take until it is ready.
const READY_WITHIN: Duration = Duration::from_mins(1);

/// A running broker of ours. Dropping it kills it, as `kill -9` does.
#[derive(Debug)]
pub(crate) struct Broker {
    process: Process,
    address: SocketAddr,
    dialog: Dialog,
}

impl Broker {
    /// Starts `binary` on a free port with its data under `dir` and `settings` as `key=value`, and
    /// waits for its ready line.
    pub(crate) fn start(binary: &Path, dir: &Path, settings: &[&str]) -> Result<Self, BenchError> {
        let mut command = Command::new(binary);
        command.arg("serve").arg("--data-dir").arg(dir.join("data"));
        command.args(["--listen", "127.0.0.1:0", "--admin", "off"]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        Self::launch(&mut command)
    }

    /// Starts this program once more, as a broker that runs pipelines (see [`crate::embed`]).
    pub(crate) fn start_embedded(dir: &Path) -> Result<Self, BenchError> {
        let own = env::current_exe().map_err(io_error("cannot find this program"))?;
        let mut command = Command::new(own);
        Self::launch(command.arg("embed").arg("--data-dir").arg(dir.join("data")))
    }

    fn launch(command: &mut Command) -> Result<Self, BenchError> {
        let mut process = Process::start_to_talk(command)?;
        let dialog = Dialog::with(&mut process).expect("both ends are there");
        let Some(address) = dialog.next(READY_WITHIN).as_deref().and_then(address_of) else {
            return Err(BenchError::NotReady { said: process.last_words() });
        };
        Ok(Self { process, address, dialog })
    }

    /// Where it serves Kafka's protocol.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it as a crash of the process does.
    pub(crate) fn kill(&mut self) -> Result<(), BenchError> {
        self.process.kill()
    }

    /// The process, and how to talk to it.
    pub(crate) fn into_parts(self) -> (Process, Dialog) {
        (self.process, self.dialog)
    }
}

impl Deref for Broker {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

/// The broker's binary beside this program, built if it is not there.
pub(crate) fn find_or_build() -> Result<PathBuf, BenchError> {
    let own = env::current_exe().map_err(io_error("cannot find this program"))?;
    let path = own.with_file_name("vltava");
    if !path.exists() {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        cargo.args(["build", "--release", "--package", "vltava", "--bin", "vltava"]);
        cargo.arg("--manifest-path").arg(manifest);
        // Where this program lies tells the target directory, whatever the environment says.
        if let Some(target) = own.parent().and_then(Path::parent) {
            cargo.arg("--target-dir").arg(target);
        }
        let status = cargo.status().map_err(io_error("cannot run cargo"))?;
        if !status.success() {
            return Err(BenchError::Build);
        }
    }
    Ok(path)
}

/// A directory beside this program: temporary directories may lie in memory.
pub(crate) fn scratch() -> Result<TempDir, BenchError> {
    let own = env::current_exe().map_err(io_error("cannot find this program"))?;
    let dir = own.parent().unwrap_or(Path::new("."));
    TempDir::with_prefix_in("figures-", dir).map_err(io_error("cannot make a scratch directory"))
}

fn address_of(line: &str) -> Option<SocketAddr> {
    let fields = line.strip_prefix("vltava ready:")?;
    fields.split_ascii_whitespace().find_map(|field| field.strip_prefix("kafka="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_tells_the_address() {
        let line = "vltava ready: kafka=127.0.0.1:9092 admin=off data=/x node=1 (12ms)";
        assert_eq!(address_of(line), Some("127.0.0.1:9092".parse().unwrap()));
        assert_eq!(address_of("vltava: cannot listen"), None);
    }
}
