//! Lines to and from a program that was started here and is told what to do.

use std::io::{BufRead, BufReader, Write};
use std::process::ChildStdin;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{BenchError, io_error};
use crate::process::Process;

/// A program's standard input and output.
#[derive(Debug)]
pub(crate) struct Dialog {
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Dialog {
    /// With a process that [`Process::start_to_talk`] started; once.
    pub(crate) fn with(process: &mut Process) -> Option<Self> {
        let (input, output) = (process.stdin()?, process.stdout()?);
        let (sender, lines) = mpsc::channel();
        // Ends with the program's output, so with the program. What nobody takes is kept.
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Some(Self { input, lines })
    }

    /// Says `line` and waits until the program says `answer`; its other lines are passed over.
    pub(crate) fn ask(
        &mut self,
        line: &str,
        answer: &str,
        within: Duration,
    ) -> Result<(), BenchError> {
        let what = || format!("the program that is to answer {answer:?}");
        writeln!(self.input, "{line}").map_err(io_error(what()))?;
        let end = Instant::now() + within;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(said) if said == answer => return Ok(()),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Err(BenchError::TooLong("an answer")),
                Err(RecvTimeoutError::Disconnected) => {
                    let said = "it ended".to_owned();
                    return Err(BenchError::Foreign { what: what(), said });
                }
            }
        }
    }

    /// The next line, if it comes in time.
    pub(crate) fn next(&self, within: Duration) -> Option<String> {
        self.lines.recv_timeout(within).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_program_answers_or_has_ended() {
        let mut process = Process::start_to_talk(&mut Command::new("cat")).unwrap();
        let mut dialog = Dialog::with(&mut process).unwrap();
        assert!(Dialog::with(&mut process).is_none());
        let within = Duration::from_secs(10);
        dialog.ask("one\ntwo", "two", within).unwrap();
        process.kill().unwrap();
        assert!(dialog.ask("three", "three", within).is_err());
    }
}
