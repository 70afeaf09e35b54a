//! Runs a foreign program to its end, with a deadline, and keeps what it said.

use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

use super::{Tested, paths};

/// How often a running child is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What a finished program said.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output, lossy UTF-8.
    pub stdout: String,
    /// All of its standard error, lossy UTF-8.
    pub stderr: String,
}

/// Runs `command` with `input` on its standard input until it ends.
///
/// Errors: it cannot be started, or is still running after `deadline` (it is then killed).
pub fn run(command: &mut Command, input: &[u8], deadline: Duration) -> Tested<Output> {
    let scratch = paths::fresh("process")?;
    let (stdout, stderr) = (scratch.path().join("stdout"), scratch.path().join("stderr"));
    let stdin = scratch.path().join("stdin");
    std::fs::write(&stdin, input)?;
    let name = command.get_program().display().to_string();
    let mut child = command
        .stdin(std::fs::File::open(&stdin)?)
        .stdout(std::fs::File::create(&stdout)?)
        .stderr(std::fs::File::create(&stderr)?)
        .spawn()
        .map_err(|error| Failed::from(format!("cannot start {name}: {error}")))?;
    let end = Instant::now() + deadline;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(POLL_INTERVAL);
    };
    let (stdout, stderr) = (read_lossy(&stdout)?, read_lossy(&stderr)?);
    match status {
        Some(status) => Ok(Output { status, stdout, stderr }),
        None => Err(Failed::from(format!(
            "{name} still ran after {deadline:?}\nstdout: {stdout}\nstderr: {stderr}"
        ))),
    }
}

/// As [`run`], and the program must have ended with exit code 0.
pub fn succeed(command: &mut Command, input: &[u8], deadline: Duration) -> Tested<Output> {
    let output = run(command, input, deadline)?;
    if output.status.success() {
        return Ok(output);
    }
    Err(Failed::from(format!(
        "{} ended with {}\nstdout: {}\nstderr: {}",
        command.get_program().display(),
        output.status,
        output.stdout,
        output.stderr
    )))
}

/// Takes the variables that steer these tests from a child's environment: a broker reads its
/// settings from variables of the same prefix.
pub fn without_our_variables(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("VLTAVA_") {
            command.env_remove(name);
        }
    }
    command
}

/// Whether a program of this name starts at all.
pub fn exists(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

fn read_lossy(path: &std::path::Path) -> Tested<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
