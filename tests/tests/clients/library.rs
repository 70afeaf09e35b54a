//! The clients under test by name: how each is started, and the scenes that it must play.
//!
//! Every program takes the same arguments, whatever its language: `exchange BOOTSTRAP`,
//! `member BOOTSTRAP GROUP TOPIC default|range old|new`, `describe BOOTSTRAP GROUP TOPIC` and
//! `delete BOOTSTRAP GROUP TOPIC`. It says `ok NAME` for every run or call that held and ends with
//! a status other than 0 at the first that did not; a member says what it owns and reads.

use std::process::Command;
use std::time::Duration;

use vltava_tests::harness::toolchain::{self, Toolchain};
use vltava_tests::harness::{Tested, paths, process};

/// How long one scene of a program may take.
const SCENE_DEADLINE: Duration = Duration::from_mins(3);
/// Makes this test's own executable play the Rust client.
pub(crate) const AS_RUST_CLIENT: &str = "VLTAVA_TEST_AS_RUST_CLIENT";

/// One client library.
#[derive(Clone, Copy)]
pub(crate) struct Library {
    /// The name of its rows.
    pub(crate) name: &'static str,
    /// How many runs its exchange makes.
    pub(crate) runs: usize,
    /// How many administrative calls its `describe` and its `delete` check.
    pub(crate) calls: (usize, usize),
    /// Whether it can be told to speak old versions of the protocol.
    pub(crate) old_versions: bool,
    /// Its program, without the arguments of a scene.
    pub(crate) command: fn() -> Toolchain<Command>,
}

pub(crate) const LIBRARIES: [Library; 8] = [
    Library {
        name: "rust_rdkafka",
        runs: 10,
        calls: (3, 2),
        old_versions: true,
        command: || {
            let mut command = Command::new(std::env::current_exe()?);
            command.env(AS_RUST_CLIENT, "1");
            Ok(Ok(command))
        },
    },
    Library {
        name: "python_confluent_kafka",
        runs: 11,
        calls: (4, 2),
        old_versions: true,
        command: || python("confluent.py"),
    },
    Library {
        name: "python_kafka_python",
        runs: 9,
        calls: (4, 2),
        old_versions: true,
        command: || python("kafka_python.py"),
    },
    Library {
        name: "python_aiokafka",
        runs: 8,
        calls: (4, 1),
        old_versions: false,
        command: || python("aiokafka_client.py"),
    },
    Library {
        name: "java_kafka_clients",
        runs: 8,
        calls: (4, 2),
        old_versions: false,
        command: || Ok(toolchain::java()?.map(|java| java.command("Client"))),
    },
    Library {
        name: "go_franz_go",
        runs: 10,
        calls: (4, 2),
        old_versions: true,
        command: || go("franz"),
    },
    Library {
        name: "go_sarama",
        runs: 10,
        calls: (4, 2),
        old_versions: true,
        command: || go("sarama"),
    },
    Library {
        name: "node_kafkajs",
        runs: 8,
        calls: (4, 2),
        old_versions: false,
        command: || {
            Ok(toolchain::node()?.map(|directory| {
                let mut command = Command::new("node");
                command.arg(directory.join("kafkajs.js"));
                command
            }))
        },
    },
];

impl Library {
    /// The library of this name.
    pub(crate) fn named(name: &str) -> Tested<Library> {
        let found = LIBRARIES.iter().find(|library| library.name == name);
        Ok(*found.ok_or_else(|| format!("no library {name}"))?)
    }
}

fn python(program: &str) -> Toolchain<Command> {
    Ok(toolchain::python()?.map(|interpreter| {
        let mut command = Command::new(interpreter);
        command.arg("-B").arg(paths::tests_crate().join("clients/python").join(program));
        command
    }))
}

fn go(library: &str) -> Toolchain<Command> {
    Ok(toolchain::go()?.map(|program| {
        let mut command = Command::new(program);
        command.arg(library);
        command
    }))
}

/// A copy of a command, for another process of the same program.
pub(crate) fn again(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            copy.env(name, value);
        }
    }
    copy
}

/// Plays one scene to its end; it must say "ok" `expected` times.
pub(crate) fn play(command: &Command, arguments: &[&str], expected: usize) -> Tested {
    let mut command = again(command);
    command.args(arguments);
    let output = process::succeed(&mut command, b"", SCENE_DEADLINE)?;
    let said = output.stdout.lines().filter(|line| line.starts_with("ok ")).count();
    assert_eq!(said, expected, "{arguments:?} passed over some of its runs:\n{}", output.stdout);
    Ok(())
}
