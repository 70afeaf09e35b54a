//! One broker process: started, read through `/proc`, and killed.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::{FigureError, io_error};

/// How long a broker may take until it is ready.
const READY_WITHIN: Duration = Duration::from_mins(1);
/// A clock tick of `/proc`: `USER_HZ` is 100 wherever Linux runs today.
const TICK_MS: u64 = 10;
/// Bytes of a failed broker's log that are shown.
const LAST_WORDS_BYTES: u64 = 2000;

/// A running broker. Dropping it kills it, as `kill -9` does.
#[derive(Debug)]
pub(super) struct Broker {
    child: Child,
    address: SocketAddr,
}

impl Broker {
    /// Starts `binary` on a free port with its data under `dir`, and waits for its ready line.
    pub(super) fn start(binary: &Path, dir: &Path) -> Result<Self, FigureError> {
        // Through a file: a full pipe would stop the broker.
        let mut log = tempfile::tempfile().map_err(io_error("cannot make a log file"))?;
        let errors = log.try_clone().map_err(io_error("cannot share a log file"))?;
        let mut child = Command::new(binary)
            .arg("serve")
            .arg("--data-dir")
            .arg(dir.join("data"))
            .args(["--listen", "127.0.0.1:0", "--admin", "off"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(io_error(format!("cannot start {}", binary.display())))?;
        let Some(address) = ready_line(&mut child).as_deref().and_then(address_of) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(FigureError::NotReady { said: last_words(&mut log) });
        };
        Ok(Self { child, address })
    }

    /// Where it serves Kafka's protocol.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it as a crash of the process does.
    pub(super) fn kill(&mut self) -> Result<(), FigureError> {
        self.child.kill().map_err(io_error("cannot kill the broker"))?;
        self.child.wait().map_err(io_error("cannot wait for the broker"))?;
        Ok(())
    }

    /// Bytes of its memory that are resident, those of mapped files included.
    pub(super) fn resident_bytes(&self) -> Result<f64, FigureError> {
        let status = self.proc("status")?;
        let kibibytes = resident_kibibytes(&status).ok_or(FigureError::Malformed("status"))?;
        Ok(kibibytes as f64 * 1024.0)
    }

    /// Processor time of its living threads so far: finer than clock ticks, but what ended threads
    /// took is missing. For a process that has just started.
    pub(super) fn processor_time_of_threads(&self) -> Result<Duration, FigureError> {
        let tasks = format!("/proc/{}/task", self.child.id());
        let entries = fs::read_dir(&tasks).map_err(io_error(tasks))?;
        let mut nanoseconds = 0;
        for entry in entries.flatten() {
            // A thread may end meanwhile.
            let text = fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
            let on_processor = text.split_ascii_whitespace().next();
            nanoseconds += on_processor.and_then(|text| text.parse().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Processor time of the whole process so far, ended threads included, in clock ticks.
    pub(super) fn processor_time(&self) -> Result<Duration, FigureError> {
        ticks(&self.proc("stat")?)
            .map(|ticks| Duration::from_millis(ticks * TICK_MS))
            .ok_or(FigureError::Malformed("stat"))
    }

    fn proc(&self, name: &str) -> Result<String, FigureError> {
        let path = format!("/proc/{}/{name}", self.child.id());
        fs::read_to_string(&path).map_err(io_error(path))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first line of the broker's output, if it comes in time. What follows is read and dropped.
fn ready_line(child: &mut Child) -> Option<String> {
    let output = child.stdout.take()?;
    let (sender, lines) = mpsc::channel();
    // Ends with the broker's output, so with the broker.
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    lines.recv_timeout(READY_WITHIN).ok()
}

fn address_of(line: &str) -> Option<SocketAddr> {
    let fields = line.strip_prefix("vltava ready:")?;
    fields.split_ascii_whitespace().find_map(|field| field.strip_prefix("kafka="))?.parse().ok()
}

fn last_words(log: &mut File) -> String {
    let mut text = Vec::new();
    let length = log.seek(std::io::SeekFrom::End(0)).unwrap_or(0);
    let start = length.saturating_sub(LAST_WORDS_BYTES);
    let _ = log.seek(std::io::SeekFrom::Start(start));
    let _ = log.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn resident_kibibytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// User and system time, fields 14 and 15; the second may hold anything between its parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
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

    #[test]
    fn memory_is_read_from_the_status() {
        assert_eq!(resident_kibibytes("Name:\tx\nVmRSS:\t   1234 kB\nThreads: 2"), Some(1234));
        assert_eq!(resident_kibibytes("Name:\tx"), None);
    }

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let stat = "7 (a) 1 (b) S 1 7 7 0 -1 4194560 10 0 1 0 23 4 0 0 20 0 6 0 99 1 2";
        assert_eq!(ticks(stat), Some(27));
        assert_eq!(ticks("7 (a) S 1"), None);
    }
}
