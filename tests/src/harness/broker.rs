//! The broker as a child process: started on a free port, known by its ready line, stopped by its
//! process id.
//!
//! A dropped [`Broker`] kills its process and removes its data directory; when the thread is
//! panicking, the end of its standard error is printed first.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{Tested, paths, process};

/// How long a broker may take from its start to its ready line.
pub const READY_DEADLINE: Duration = Duration::from_mins(1);
/// How long a broker may take to stop after SIGTERM.
pub const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How many bytes of standard error a failure prints.
const STDERR_TAIL_BYTES: usize = 16 * 1024;
/// Ports for brokers that must come back on the same one: below Linux's ephemeral range, so that
/// no client's outgoing connection takes the port while the broker is down.
const STABLE_PORTS: std::ops::Range<u16> = 16_384..32_000;
/// Points all tests at a broker that is already running, instead of starting one.
pub const EXTERNAL: &str = "VLTAVA_TEST_BOOTSTRAP";

/// How to start a broker.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    binary: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    data_dir: Option<PathBuf>,
    listen: String,
}

impl BrokerOptions {
    /// The binary under test with its defaults: a free port, a fresh data directory.
    pub fn new(binary: &str) -> Self {
        BrokerOptions {
            binary: binary.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            data_dir: None,
            listen: "127.0.0.1:0".into(),
        }
    }

    /// Adds `--set key=value`.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.arguments.extend(["--set".into(), format!("{key}={value}")]);
        self
    }

    /// Adds an argument as it is.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets an environment variable of the broker.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Uses a directory of the caller's, which outlives the broker.
    #[must_use]
    pub fn data_dir(mut self, path: &Path) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// Picks a port that the broker keeps over restarts.
    ///
    /// Errors: none is free in the range for such ports.
    pub fn stable_port(mut self) -> Tested<Self> {
        let first = uuid::Uuid::new_v4().as_u64_pair().0 as usize;
        for step in 0..STABLE_PORTS.len() {
            let port = STABLE_PORTS.start + ((first % STABLE_PORTS.len() + step) as u16);
            let port =
                if port < STABLE_PORTS.end { port } else { port - STABLE_PORTS.len() as u16 };
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                self.listen = format!("127.0.0.1:{port}");
                return Ok(self);
            }
        }
        Err(Failed::from(format!("no free port in {STABLE_PORTS:?}")))
    }
}

/// A running broker, or one that the environment points at.
#[derive(Debug)]
pub struct Broker {
    options: BrokerOptions,
    process: Option<Child>,
    scratch: TempDir,
    data_dir: PathBuf,
    bootstrap: String,
    admin: String,
}

impl Broker {
    /// Starts a broker and waits until clients can connect.
    ///
    /// Errors: it exits or stays silent; the failure carries its standard error.
    pub fn start(options: BrokerOptions) -> Tested<Broker> {
        let scratch = paths::fresh("broker")?;
        let data_dir = options.data_dir.clone().unwrap_or_else(|| scratch.path().join("data"));
        let (bootstrap, admin) = (String::new(), String::new());
        let mut broker = Broker { options, process: None, scratch, data_dir, bootstrap, admin };
        match std::env::var(EXTERNAL) {
            Ok(bootstrap) => broker.bootstrap = bootstrap,
            Err(_) => broker.spawn()?,
        }
        Ok(broker)
    }

    /// Whether this is someone else's broker, which cannot be stopped or looked into.
    pub fn is_external(&self) -> bool {
        std::env::var(EXTERNAL).is_ok()
    }

    /// `host:port` for Kafka clients.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// `host:port` of the admin listener, or `off`.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Its process id; none for a broker of someone else's or a stopped one.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Changes an environment variable for the next start.
    pub fn next_environment(&mut self, name: &str, value: &str) {
        self.options = self.options.clone().environment(name, value);
    }

    /// Resident memory in bytes; none for a broker of someone else's.
    pub fn resident_bytes(&self) -> Tested<Option<u64>> {
        let Some(pid) = self.pid() else { return Ok(None) };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")).ok_or("no VmRSS line")?;
        Ok(Some(kib.trim().parse::<u64>()? * 1024))
    }

    /// SIGKILL, as a crash of the process. Nothing to do when it does not run.
    pub fn kill9(&mut self) -> Tested {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// SIGSTOP, and waits until every thread stands still: no system call of the broker is under
    /// way any more.
    ///
    /// Errors: it does not run, or a thread does not stop.
    pub fn freeze(&mut self) -> Tested {
        let process = self.process.as_ref().ok_or("no broker process to freeze")?;
        kill_process(Pid::from_child(process), Signal::STOP)?;
        let end = Instant::now() + STOP_DEADLINE;
        while !all_stopped(process.id())? {
            if Instant::now() >= end {
                return Err(Failed::from(format!("a thread ran {STOP_DEADLINE:?} past SIGSTOP")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// SIGTERM, then its exit status.
    ///
    /// Errors: it does not run, or ignores the signal for [`STOP_DEADLINE`].
    pub fn terminate(&mut self) -> Tested<ExitStatus> {
        let mut process = self.process.take().ok_or("no broker process to stop")?;
        let pid = Pid::from_child(&process);
        kill_process(pid, Signal::TERM)?;
        let end = Instant::now() + STOP_DEADLINE;
        loop {
            if let Some(status) = process.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                self.process = Some(process);
                let stderr = self.stderr_tail();
                return Err(Failed::from(format!("ran {STOP_DEADLINE:?} past SIGTERM\n{stderr}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts a stopped or killed broker again on the same data, and the same port if it was a
    /// stable one.
    pub fn restart(&mut self) -> Tested {
        self.kill9()?;
        self.spawn()
    }

    /// The end of what the broker wrote to standard error since its first start.
    pub fn stderr_tail(&self) -> String {
        let bytes = std::fs::read(self.stderr_path()).unwrap_or_default();
        let tail = &bytes[bytes.len().saturating_sub(STDERR_TAIL_BYTES)..];
        String::from_utf8_lossy(tail).into_owned()
    }

    fn stderr_path(&self) -> PathBuf {
        self.scratch.path().join("stderr")
    }

    fn spawn(&mut self) -> Tested {
        let stderr = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.scratch.path().join("stderr"))?;
        let mut command = Command::new(&self.options.binary);
        let mut child = process::without_our_variables(&mut command)
            .arg("serve")
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--listen", &self.options.listen, "--admin", "127.0.0.1:0"])
            .args(&self.options.arguments)
            .envs(self.options.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()?;
        let stdout = child.stdout.take().ok_or("standard output is piped")?;
        self.process = Some(child);
        let (sender, receiver) = mpsc::sync_channel(1);
        // The thread drains standard output until the broker ends, so that it never blocks on it.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.starts_with("vltava ready:") {
                    let _ = sender.try_send(line);
                }
            }
        });
        let Ok(line) = receiver.recv_timeout(READY_DEADLINE) else {
            let stderr = self.stderr_tail();
            return Err(Failed::from(format!("no ready line from the broker\n{stderr}")));
        };
        let field = |name: &str| {
            let found = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            found.map(str::to_owned).ok_or(format!("no {name}= in the ready line: {line}"))
        };
        (self.bootstrap, self.admin) = (field("kafka")?, field("admin")?);
        Ok(())
    }
}

/// Whether every thread of a process is in the kernel's state `T`, the word after its name in
/// parentheses.
fn all_stopped(pid: u32) -> Tested<bool> {
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = std::fs::read_to_string(task?.path().join("stat"))?;
        let after_name = stat.rsplit_once(") ").ok_or("a state after the thread's name")?.1;
        if !after_name.starts_with('T') {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() && !self.is_external() {
            eprintln!("--- standard error of the broker\n{}", self.stderr_tail());
        }
    }
}
