//! Members of a consumer group as processes of their own, and what they say they own and read.
//!
//! A member prints `assigned` with the partitions that it owns whenever that changes and `record`
//! with all of a record's content, before it commits; the end of its standard input makes it
//! leave. All members of a [`Stage`] are watched together.
#![allow(clippy::disallowed_methods, reason = "members are processes that write to real files")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use parking_lot::{Condvar, Mutex};
use tempfile::TempDir;
use vltava_tests::harness::{Tested, paths, process};

/// How long the members of a group may take for anything that is waited for.
const DEADLINE: Duration = Duration::from_mins(1);
/// How often a member that should end is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// One record as a member printed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// Timestamp, key, value and headers, with tabs between them.
    pub(crate) content: String,
}

/// What one member said so far.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// What it owns; none before its first assignment.
    pub(crate) owned: Option<BTreeSet<i32>>,
    /// All that it read, in order.
    pub(crate) reads: Vec<Read>,
    /// A line that it should not have said, or that it ended.
    problem: Option<String>,
}

#[derive(Default)]
struct Accounts {
    all: Mutex<Vec<Account>>,
    changed: Condvar,
}

/// The members of one group, dead ones included: a member is known by its number.
pub(crate) struct Stage {
    accounts: Arc<Accounts>,
    processes: Vec<Child>,
    scratch: TempDir,
}

impl Stage {
    pub(crate) fn new() -> Tested<Stage> {
        let accounts = Arc::default();
        Ok(Stage { accounts, processes: Vec::new(), scratch: paths::fresh("members")? })
    }

    /// Starts a member and gives its number.
    pub(crate) fn start(&mut self, mut command: Command) -> Tested<usize> {
        let number = self.processes.len();
        let stderr = std::fs::File::create(self.stderr_path(number))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or("standard output is piped")?;
        self.processes.push(child);
        self.accounts.all.lock().push(Account::default());
        let accounts = Arc::clone(&self.accounts);
        // Ends with the member's standard output.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let mut all = accounts.all.lock();
                if let Err(problem) = all[number].note(&line) {
                    all[number].problem = Some(problem.message().unwrap_or(&line).to_owned());
                }
                accounts.changed.notify_all();
            }
            let mut all = accounts.all.lock();
            all[number].owned = None;
            accounts.changed.notify_all();
        });
        Ok(number)
    }

    /// SIGKILL: the broker learns of it by the member's silence.
    pub(crate) fn kill(&mut self, member: usize) -> Tested {
        self.processes[member].kill()?;
        self.processes[member].wait()?;
        Ok(())
    }

    /// Ends the member's standard input and waits until it left in good order.
    pub(crate) fn leave(&mut self, member: usize) -> Tested {
        drop(self.processes[member].stdin.take());
        let end = Instant::now() + DEADLINE;
        loop {
            match self.processes[member].try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.failed(&format!("{member} ended with {status}"))),
                None if Instant::now() >= end => {
                    return Err(self.failed(&format!("{member} does not leave")));
                }
                None => std::thread::sleep(POLL_INTERVAL),
            }
        }
    }

    /// Waits until the accounts of all members satisfy `reached`.
    pub(crate) fn wait(&self, what: &str, reached: impl Fn(&[Account]) -> bool) -> Tested {
        let end = Instant::now() + DEADLINE;
        let mut all = self.accounts.all.lock();
        while !reached(&all) {
            if all.iter().any(|account| account.problem.is_some()) {
                drop(all);
                return Err(self.failed(what));
            }
            if self.accounts.changed.wait_until(&mut all, end).timed_out() {
                drop(all);
                return Err(self.failed(&format!("{what}: not within {DEADLINE:?}")));
            }
        }
        Ok(())
    }

    /// Looks at all accounts.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&[Account]) -> T) -> T {
        look(&self.accounts.all.lock())
    }

    /// A failure with all that is known of the members.
    pub(crate) fn failed(&self, what: &str) -> Failed {
        let mut message = what.to_owned();
        for (number, account) in self.accounts.all.lock().iter().enumerate() {
            let (owned, reads) = (&account.owned, account.reads.len());
            let stderr = std::fs::read_to_string(self.stderr_path(number)).unwrap_or_default();
            let problem = account.problem.as_deref().unwrap_or("none");
            let head = format!("owns {owned:?}, read {reads}, problem: {problem}");
            message = format!("{message}\n--- member {number} {head}\n{stderr}");
        }
        Failed::from(message)
    }

    fn stderr_path(&self, number: usize) -> std::path::PathBuf {
        self.scratch.path().join(format!("{number}.stderr"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // Fails for those that have ended, as they should have.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Account {
    /// Takes down one line of a member.
    fn note(&mut self, line: &str) -> Tested {
        let (word, rest) = line.split_once('\t').unwrap_or((line, ""));
        match word {
            "assigned" => {
                let numbers = rest.split(',').filter(|number| !number.is_empty());
                self.owned = Some(numbers.map(str::parse).collect::<Result<_, _>>()?);
            }
            "record" => {
                let mut fields = rest.splitn(3, '\t');
                let mut field = || fields.next().ok_or_else(|| format!("a short line: {line}"));
                let (partition, offset) = (field()?.parse()?, field()?.parse()?);
                self.reads.push(Read { partition, offset, content: field()?.to_owned() });
            }
            _ => return Err(Failed::from(format!("a line of neither kind: {line}"))),
        }
        Ok(())
    }
}

/// A member's command: the library's program with the arguments of its scene.
pub(crate) fn command(program: &Command, arguments: &[&str]) -> Command {
    let mut command = super::library::again(program);
    command.args(arguments);
    process::without_our_variables(&mut command);
    command
}
