//! Where and with what it was measured.

use std::fs;
use std::process::Command;

use serde::Serialize;

use super::kafka;

/// The machine, the versions, the commit.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    memory_gib: f64,
    kernel: String,
    java: String,
    rustc: String,
    kafka: &'static str,
    librdkafka: String,
    vltava: &'static str,
    commit: String,
    date: String,
}

impl Machine {
    /// This one, now. What cannot be found out is told as such.
    pub(crate) fn look() -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kibibytes = field(&memory, "MemTotal").and_then(|text| {
            text.split_ascii_whitespace().next().and_then(|number| number.parse::<f64>().ok())
        });
        let directory = env!("CARGO_MANIFEST_DIR");
        let git = |arguments: &[&str]| first_line("git", &[&["-C", directory], arguments].concat());
        let is_clean = git(&["status", "--porcelain", "--untracked-files=no"]).is_empty();
        let commit = git(&["rev-parse", "--short=12", "HEAD"]);
        Self {
            processor: field(&cpu, "model name").unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: (kibibytes.unwrap_or(0.0) / 104_857.6).round() / 10.0,
            kernel: first_line("uname", &["-sr"]),
            java: first_line("java", &["--version"]),
            rustc: first_line("rustc", &["--version"]),
            kafka: kafka::VERSION,
            librdkafka: rdkafka::util::get_rdkafka_version().1,
            vltava: env!("CARGO_PKG_VERSION"),
            commit: if is_clean { commit } else { format!("{commit} with changes") },
            date: first_line("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        }
    }

    /// Two lines for a person.
    pub(crate) fn describe(&self) -> String {
        let Self { processor, cores, memory_gib, kernel, java, rustc, .. } = self;
        let Self { kafka, librdkafka, vltava, commit, date, .. } = self;
        format!(
            "{date}, {cores} cores of {processor}, {memory_gib} GiB, {kernel}.\n\
             Vltava {vltava} ({commit}, {rustc}), Apache Kafka {kafka} ({java}, 1 GiB heap), \
             librdkafka {librdkafka}.\n"
        )
    }
}

/// The value behind `name` in a file of `name: value` lines.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}
