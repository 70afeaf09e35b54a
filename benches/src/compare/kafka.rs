//! Apache Kafka from its published artifacts: one KRaft node with its production defaults, and its
//! own performance tools.
//!
//! Maven brings the artifacts once, under the build directory; nothing is installed. The server's
//! settings are those of the `server.properties` that Kafka ships, which say little more than that
//! one node can hold every internal topic.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::client::Client;
use crate::error::{BenchError, foreign, io_error};
use crate::process::Process;

/// The version in `peers/*/pom.xml`.
pub(crate) const VERSION: &str = "4.3.1";
/// The heap of `kafka-server-start.sh`.
const HEAP: [&str; 2] = ["-Xms1g", "-Xmx1g"];
/// The other options of `kafka-run-class.sh`.
pub(super) const JVM: [&str; 6] = [
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
];
/// Any cluster id will do.
const CLUSTER_ID: &str = "dGhlLXJpdmVyLXJ1bnM2Nw";
const READY_WITHIN: Duration = Duration::from_mins(2);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(2);

/// The artifacts, and what runs them.
#[derive(Debug)]
pub(crate) struct Kafka {
    class_path: String,
    logging: PathBuf,
}

impl Kafka {
    /// Brings the artifacts, unless they are there.
    pub(crate) fn fetch() -> Result<Self, BenchError> {
        let (class_path, _) = artifacts("kafka")?;
        let logging = project("kafka").join("log4j2.properties");
        Ok(Self { class_path, logging })
    }

    /// A command that runs the class `main`, which needs `options` of the virtual machine.
    fn java(&self, options: &[&str], main: &str) -> Command {
        let mut command = Command::new("java");
        command.args(options).arg("-cp").arg(&self.class_path);
        command.arg(format!("-Dlog4j2.configurationFile={}", self.logging.display()));
        command.arg(main);
        command
    }

    /// Runs one of Kafka's tools as its scripts do; gives its standard output.
    pub(crate) fn tool(&self, main: &str, arguments: &[String]) -> Result<String, BenchError> {
        let options: Vec<&str> = ["-Xmx512m"].iter().chain(&JVM).copied().collect();
        succeed(self.java(&options, main).args(arguments))
    }

    /// Writes the settings and formats the data directory, as `kafka-storage.sh format` does.
    pub(crate) fn format(&self, dir: &Path) -> Result<(), BenchError> {
        let (broker, controller) = (free_port()?, free_port()?);
        let mut settings = String::new();
        for (key, value) in SETTINGS {
            let _ = writeln!(settings, "{key}={value}");
        }
        let listeners =
            format!("PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}");
        let _ = write!(
            settings,
            "listeners={listeners}\nadvertised.listeners=PLAINTEXT://127.0.0.1:{broker}\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\nlog.dirs={}\n",
            dir.join("data").display()
        );
        put(&dir.join("server.properties"), &settings)?;
        put(&dir.join("port"), &broker.to_string())?;
        let mut format = self.java(&["-Xmx128m"], "kafka.tools.StorageTool");
        format.args(["format", "-t", CLUSTER_ID, "-c"]).arg(dir.join("server.properties"));
        succeed(&mut format).map(drop)
    }

    /// Starts a node on a formatted directory and waits until it answers.
    pub(crate) fn start(&self, dir: &Path) -> Result<(Process, SocketAddr), BenchError> {
        let port = fs::read_to_string(dir.join("port")).map_err(io_error("cannot read a port"))?;
        let port = port.parse().map_err(foreign("reading a port"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let options: Vec<&str> = HEAP.iter().chain(&JVM).copied().collect();
        let mut command = self.java(&options, "kafka.Kafka");
        let mut process = Process::start(command.arg(dir.join("server.properties")))?;
        let end = Instant::now() + READY_WITHIN;
        while Client::connect(address).is_err() {
            if !process.is_running() || Instant::now() > end {
                return Err(BenchError::NotReady { said: process.last_words() });
            }
            thread::sleep(ASK_AGAIN_AFTER);
        }
        Ok((process, address))
    }
}

fn project(peer: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(peer)
}

/// The class path of the artifacts that `peers/PEER/pom.xml` lists, which are brought unless they
/// are there; and the directory where such things lie.
pub(super) fn artifacts(peer: &str) -> Result<(String, PathBuf), BenchError> {
    let own = env::current_exe().map_err(io_error("cannot find this program"))?;
    let found = own.ancestors().find(|path| path.join("CACHEDIR.TAG").is_file());
    let root = found.unwrap_or(Path::new("target")).join("bench-tools");
    fs::create_dir_all(&root).map_err(io_error("cannot make a directory for artifacts"))?;
    let list = root.join(format!("{peer}-{VERSION}.class-path"));
    if !list.exists() {
        let partial = list.with_extension("partial");
        let mut maven = Command::new("mvn");
        maven.args(["--quiet", "--batch-mode", "--file"]).arg(project(peer).join("pom.xml"));
        maven.arg(format!("-Doutput.directory={}", root.join(peer).display()));
        maven.arg("dependency:build-classpath");
        maven.arg(format!("-Dmdep.outputFile={}", partial.display()));
        succeed(&mut maven)?;
        fs::rename(&partial, &list).map_err(io_error("cannot keep the class path"))?;
    }
    let class_path = fs::read_to_string(&list).map_err(io_error("cannot read a class path"))?;
    Ok((class_path.trim().to_owned(), root))
}

/// What Kafka's own `config/server.properties` says, without addresses and paths; and no delay
/// before a consumer group begins, which measures nothing.
const SETTINGS: [(&str, &str); 17] = [
    ("process.roles", "broker,controller"),
    ("node.id", "1"),
    ("inter.broker.listener.name", "PLAINTEXT"),
    ("controller.listener.names", "CONTROLLER"),
    ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT"),
    ("num.network.threads", "3"),
    ("num.io.threads", "8"),
    ("socket.send.buffer.bytes", "102400"),
    ("socket.receive.buffer.bytes", "102400"),
    ("num.recovery.threads.per.data.dir", "2"),
    ("offsets.topic.replication.factor", "1"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("log.segment.bytes", "1073741824"),
    ("group.initial.rebalance.delay.ms", "0"),
];

#[allow(clippy::disallowed_methods, reason = "a foreign program's settings")]
fn put(path: &Path, text: &str) -> Result<(), BenchError> {
    fs::write(path, text).map_err(io_error("cannot write a setting"))
}

fn free_port() -> Result<u16, BenchError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(io_error("no free port"))?;
    Ok(listener.local_addr().map_err(io_error("no address"))?.port())
}

/// Runs a program that must end with success; gives its standard output.
pub(crate) fn succeed(command: &mut Command) -> Result<String, BenchError> {
    let what = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().map_err(io_error(what.clone()))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let said = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
    Err(BenchError::Foreign { what, said })
}
