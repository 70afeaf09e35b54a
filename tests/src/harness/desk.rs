//! A desk to run Kafka's tools at: one virtual machine, the broker's address, names to substitute.
//!
//! Commands are written as a person types them, with `{topic}` and `{group}` for this row's own
//! names; what the tools print gets the placeholders back, and its columns one space between them.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use tempfile::TempDir;

use super::toolchain::{self, Java, Toolchain};
use super::{Broker, Tested, paths, process, requests};

/// How long one tool may run.
const TOOL_DEADLINE: Duration = Duration::from_mins(2);
/// How often an answer that should change is asked for.
const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// A tool that must print nothing.
pub const NOTHING: [&str; 0] = [];

/// How a tool ended and what it said, with placeholders.
#[derive(Debug)]
pub struct Said {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// One virtual machine that runs a row's tools, one after another.
pub struct Desk {
    java: Java,
    process: Child,
    requests: ChildStdin,
    answers: Receiver<Tested<(i32, String, String)>>,
    bootstrap: String,
    /// What `{topic}` stands for.
    pub topic: String,
    /// What `{group}` stands for.
    pub group: String,
    scratch: TempDir,
}

impl Desk {
    /// Starts a virtual machine and makes up names.
    pub fn open(broker: &Broker, name: &str) -> Toolchain<Desk> {
        let java = match toolchain::java()? {
            Ok(java) => java,
            Err(missing) => return Ok(Err(missing)),
        };
        let scratch = paths::fresh("tools")?;
        let stderr = std::fs::File::create(scratch.path().join("stderr"))?;
        let mut command = java.command("ToolHost");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let mut process = command.spawn()?;
        let requests = process.stdin.take().ok_or("standard input is piped")?;
        let mut stdout = process.stdout.take().ok_or("standard output is piped")?;
        let (sender, answers) = sync_channel(1);
        // Ends with the virtual machine's standard output.
        std::thread::spawn(move || {
            loop {
                let answer = read_answer(&mut stdout);
                let last = answer.is_err();
                if sender.send(answer).is_err() || last {
                    return;
                }
            }
        });
        let topic = requests::unique(name);
        let (bootstrap, group) = (broker.bootstrap().to_owned(), format!("group-of-{topic}"));
        Ok(Ok(Desk { java, process, requests, answers, bootstrap, topic, group, scratch }))
    }

    /// Runs `TOOL ARGUMENTS` against the broker, to its end, whatever it says.
    pub fn run(&mut self, command: &str) -> Tested<Said> {
        self.run_with(command, "")
    }

    /// As [`Desk::run`], with something on its standard input.
    pub fn run_with(&mut self, command: &str, input: &str) -> Tested<Said> {
        self.start(command, input)?;
        let answer = self.answers.recv_timeout(TOOL_DEADLINE);
        let answer = answer.unwrap_or_else(|late| Err(Failed::from(late.to_string())));
        let (code, out, err) = answer.map_err(|failed| {
            let stderr = std::fs::read_to_string(self.scratch.path().join("stderr"));
            let (message, stderr) = (failed.message().unwrap_or("?"), stderr.unwrap_or_default());
            Failed::from(format!("no answer from {command}: {message}\n{stderr}"))
        })?;
        Ok(Said { code, out: self.with_placeholders(&out), err: self.with_placeholders(&err) })
    }

    /// Starts a tool that is not waited for: nothing else can run at this desk.
    pub fn start(&mut self, command: &str, input: &str) -> Tested {
        let (main, arguments) = self.parse(command)?;
        let mut request = vec![main.to_owned(), input.to_owned()];
        request.extend(arguments);
        let mut bytes = (request.len() as u32).to_be_bytes().to_vec();
        for word in &request {
            bytes.extend((word.len() as u32).to_be_bytes());
            bytes.extend(word.as_bytes());
        }
        self.requests.write_all(&bytes)?;
        Ok(self.requests.flush()?)
    }

    /// As [`Desk::run`], in a virtual machine of its own. The tool must succeed.
    pub fn run_alone(&self, command: &str) -> Tested<Said> {
        let (main, arguments) = self.parse(command)?;
        let mut java = self.java.command(main);
        let output = process::succeed(java.args(arguments), b"", TOOL_DEADLINE)?;
        let (out, err) = (&output.stdout, &output.stderr);
        Ok(Said { code: 0, out: self.with_placeholders(out), err: self.with_placeholders(err) })
    }

    /// The class and the arguments of a command.
    fn parse(&self, command: &str) -> Tested<(&'static str, Vec<String>)> {
        let command = command.replace("{topic}", &self.topic).replace("{group}", &self.group);
        let mut words = command.split_whitespace().map(str::to_owned);
        let (main, places_server) = tool(&words.next().ok_or("a command has a tool")?)?;
        let mut arguments: Vec<String> = words.collect();
        let at = usize::from(places_server == Server::AfterTheVerb);
        arguments.splice(at..at, ["--bootstrap-server".to_owned(), self.bootstrap.clone()]);
        Ok((main, arguments))
    }

    /// The tool must succeed and print exactly these lines.
    pub fn check<S: AsRef<str>>(&mut self, command: &str, expected: &[S]) -> Tested {
        let said = self.run(command)?;
        let expected: Vec<&str> = expected.iter().map(AsRef::as_ref).collect();
        assert_eq!(said.code, 0, "{command}: {said:#?}");
        assert_eq!(lines(&said.out), expected, "{command}: {}", said.err);
        Ok(())
    }

    /// As [`Desk::check`], for tools that print their lines in any order.
    pub fn check_in_any_order(&mut self, command: &str, expected: &[String]) -> Tested {
        let said = self.run(command)?;
        let mut printed = lines(&said.out);
        printed.sort();
        assert_eq!((said.code, printed.as_slice()), (0, expected), "{command}: {}", said.err);
        Ok(())
    }

    /// As [`Desk::check`], for tools that print the lines below their heading in any order.
    pub fn check_below_heading(&mut self, command: &str, expected: &[String]) -> Tested {
        let said = self.run(command)?;
        let mut printed = lines(&said.out);
        if let Some(below) = printed.get_mut(1..) {
            below.sort();
        }
        assert_eq!((said.code, printed.as_slice()), (0, expected), "{command}: {}", said.err);
        Ok(())
    }

    /// The tool must come to print exactly these lines: brokers may show a change late.
    pub fn await_lines(&mut self, command: &str, expected: &[&str]) -> Tested {
        let end = Instant::now() + TOOL_DEADLINE;
        while Instant::now() < end {
            let said = self.run(command)?;
            if said.code == 0 && lines(&said.out) == expected {
                return Ok(());
            }
            std::thread::sleep(ASK_INTERVAL);
        }
        self.check(command, expected)
    }

    /// The tool must fail and say `expected` somewhere.
    pub fn refuse(&mut self, command: &str, expected: &str) -> Tested {
        let said = self.run(command)?;
        assert_ne!(said.code, 0, "{command}: {said:#?}");
        let all = format!("{}{}", said.out, said.err);
        assert!(all.contains(expected), "{command}: {said:#?}");
        Ok(())
    }

    /// A file of this row's for a tool to read; `content` may hold placeholders.
    pub fn file(&self, name: &str, content: &str) -> Tested<String> {
        let path = self.scratch.path().join(name);
        std::fs::write(&path, content.replace("{topic}", &self.topic))?;
        Ok(path.display().to_string())
    }

    fn with_placeholders(&self, text: &str) -> String {
        text.replace(&self.group, "{group}")
            .replace(&self.topic, "{topic}")
            .replace(&self.bootstrap, "{bootstrap}")
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // Fails only for a process that has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The lines that hold anything, with one space between words.
pub fn lines(output: &str) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    output.lines().map(words).filter(|line| !line.is_empty()).collect()
}

/// Where a tool wants its `--bootstrap-server`.
#[derive(PartialEq, Eq)]
enum Server {
    First,
    AfterTheVerb,
}

/// The class behind the name of a script in Kafka's `bin`, without `kafka-` before it.
fn tool(name: &str) -> Tested<(&'static str, Server)> {
    Ok(match name {
        "topics" => ("org.apache.kafka.tools.TopicCommand", Server::First),
        "configs" => ("kafka.admin.ConfigCommand", Server::First),
        "groups" => ("org.apache.kafka.tools.GroupsCommand", Server::First),
        "consumer-groups" => {
            ("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", Server::First)
        }
        "console-producer" => ("org.apache.kafka.tools.ConsoleProducer", Server::First),
        "console-consumer" => ("org.apache.kafka.tools.consumer.ConsoleConsumer", Server::First),
        "get-offsets" => ("org.apache.kafka.tools.GetOffsetShell", Server::First),
        "delete-records" => ("org.apache.kafka.tools.DeleteRecordsCommand", Server::First),
        "log-dirs" => ("org.apache.kafka.tools.LogDirsCommand", Server::First),
        "producer-perf-test" => ("org.apache.kafka.tools.ProducerPerformance", Server::First),
        "consumer-perf-test" => ("org.apache.kafka.tools.ConsumerPerformance", Server::First),
        "verifiable-producer" => ("org.apache.kafka.tools.VerifiableProducer", Server::First),
        "verifiable-consumer" => ("org.apache.kafka.tools.VerifiableConsumer", Server::First),
        "broker-api-versions" => ("org.apache.kafka.tools.BrokerApiVersionsCommand", Server::First),
        "cluster" => ("org.apache.kafka.tools.ClusterTool", Server::AfterTheVerb),
        "metadata-quorum" => ("org.apache.kafka.tools.MetadataQuorumCommand", Server::First),
        _ => return Err(Failed::from(format!("no tool {name}"))),
    })
}

/// Reads the exit code, standard output and standard error of one tool.
fn read_answer(answers: &mut impl Read) -> Tested<(i32, String, String)> {
    let code = read_number(answers)?;
    let out = read_text(answers)?;
    Ok((code, out, read_text(answers)?))
}

fn read_number(answers: &mut impl Read) -> Tested<i32> {
    let mut bytes = [0; 4];
    answers.read_exact(&mut bytes)?;
    Ok(i32::from_be_bytes(bytes))
}

fn read_text(answers: &mut impl Read) -> Tested<String> {
    let mut bytes = vec![0; usize::try_from(read_number(answers)?)?];
    answers.read_exact(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
