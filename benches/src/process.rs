//! A broker's process: read through `/proc` and its processor clock, and killed.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use nix::sys::time::TimeValLike;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::error::{BenchError, foreign, io_error};

/// Bytes of a failed broker's log that are shown.
const LAST_WORDS_BYTES: u64 = 2000;

/// A process started here. Dropping it kills it, as `kill -9` does.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: File,
}

impl Process {
    /// Starts `command`; what it logs goes to a file without a name: a full pipe would stop it.
    /// Its standard output is a pipe, see [`Process::stdout`].
    pub(crate) fn start(command: &mut Command) -> Result<Self, BenchError> {
        Self::spawn(command.stdin(Stdio::null()))
    }

    /// The same, and its standard input is a pipe too, see [`Process::stdin`].
    pub(crate) fn start_to_talk(command: &mut Command) -> Result<Self, BenchError> {
        Self::spawn(command.stdin(Stdio::piped()))
    }

    fn spawn(command: &mut Command) -> Result<Self, BenchError> {
        let log = tempfile::tempfile().map_err(io_error("cannot make a log file"))?;
        let errors = log.try_clone().map_err(io_error("cannot share a log file"))?;
        let name = command.get_program().display().to_string();
        command.stdout(Stdio::piped()).stderr(errors);
        let child = command.spawn().map_err(io_error(format!("cannot start {name}")))?;
        Ok(Self { child, log })
    }

    /// Its standard output, once.
    pub(crate) fn stdout(&mut self) -> Option<impl Read + Send + use<>> {
        self.child.stdout.take()
    }

    /// Its standard input, once, if it has one.
    pub(crate) fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of its log.
    pub(crate) fn last_words(&mut self) -> String {
        let mut text = Vec::new();
        let length = self.log.seek(SeekFrom::End(0)).unwrap_or(0);
        let start = length.saturating_sub(LAST_WORDS_BYTES);
        let _ = self.log.seek(SeekFrom::Start(start));
        let _ = self.log.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) -> Result<(), BenchError> {
        self.child.kill().map_err(io_error("cannot kill the broker"))?;
        self.child.wait().map_err(io_error("cannot wait for the broker"))?;
        Ok(())
    }

    /// Bytes of its memory that are resident, those of mapped files included.
    pub(crate) fn resident_bytes(&self) -> Result<f64, BenchError> {
        self.status("VmRSS:")
    }

    /// The most that were ever resident, those of mapped files included.
    pub(crate) fn peak_resident_bytes(&self) -> Result<f64, BenchError> {
        self.status("VmHWM:")
    }

    /// Bytes of its own memory that are resident: pages of mapped files, which the system may take
    /// back at any time, do not count.
    pub(crate) fn own_bytes(&self) -> Result<f64, BenchError> {
        self.status("RssAnon:")
    }

    /// Bytes that it caused to be read from disks so far.
    pub(crate) fn disk_read_bytes(&self) -> Result<f64, BenchError> {
        let text = self.proc("io")?;
        number(&text, "read_bytes:").ok_or(BenchError::Malformed("io"))
    }

    /// Processor time so far of all its threads, ended ones included, to the nanosecond:
    /// `/proc/PID/stat` counts in hundredths of a second, which is a tenth of what a run takes.
    pub(crate) fn processor_time(&self) -> Result<Duration, BenchError> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let time = clock_getcpuclockid(pid).and_then(clock_gettime);
        let time = time.map_err(foreign("reading the broker's processor time"))?;
        Ok(Duration::from_nanos(time.num_nanoseconds().unsigned_abs()))
    }

    /// Processor time so far of those of its running threads whose name begins with `prefix`.
    pub(crate) fn threads_time(&self, prefix: &str) -> Result<Duration, BenchError> {
        let dir = format!("/proc/{}/task", self.child.id());
        let mut nanoseconds = 0;
        for thread in fs::read_dir(&dir).map_err(io_error(&dir))? {
            let thread = thread.map_err(io_error(&dir))?.path();
            let read = |name| fs::read_to_string(thread.join(name)).unwrap_or_default();
            // A thread may end meanwhile.
            if read("comm").starts_with(prefix) {
                let stat = read("schedstat");
                nanoseconds += number(&stat, "").ok_or(BenchError::Malformed("schedstat"))? as u64;
            }
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    fn status(&self, field: &str) -> Result<f64, BenchError> {
        let kibibytes = number(&self.proc("status")?, field);
        Ok(kibibytes.ok_or(BenchError::Malformed("status"))? * 1024.0)
    }

    fn proc(&self, name: &str) -> Result<String, BenchError> {
        let path = format!("/proc/{}/{name}", self.child.id());
        fs::read_to_string(&path).map_err(io_error(path))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number behind `field` in a file of `/proc`.
fn number(text: &str, field: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_status() {
        assert_eq!(number("Name:\tx\nVmRSS:\t   1234 kB\nThreads: 2", "VmRSS:"), Some(1234.0));
        assert_eq!(number("Name:\tx", "VmRSS:"), None);
    }

    #[test]
    fn a_process_is_measured_and_ends_with_its_handle() {
        let mut process = Process::start(Command::new("sleep").arg("60")).unwrap();
        assert!(process.is_running());
        assert!(process.processor_time().unwrap() < Duration::from_secs(1));
        // It may still be starting, so two readings of its memory do not compare.
        assert!(process.resident_bytes().unwrap() > 0.0);
        process.own_bytes().unwrap();
        assert!(process.threads_time("sleep").unwrap() < Duration::from_secs(1));
        assert_eq!(process.threads_time("streams-").unwrap(), Duration::ZERO);
        process.kill().unwrap();
        assert!(!process.is_running());
    }
}
