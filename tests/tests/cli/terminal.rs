//! What a person at a terminal sees: examples in every help, completion, bars on long work; and that
//! nobody else sees the bars.

use std::process::Command;

use vltava_tests::harness::{Broker, BrokerOptions, Tested, paths, process, requests};

use crate::commands::on;
use crate::{BINARY, COMMAND_DEADLINE, Row, vltava};

/// They need no broker, or ours.
pub(crate) const OF_THE_BROKER: &[Row] = &[
    ("every_help_has_examples", every_help_has_examples),
    ("completion_scripts_name_the_commands", completion_scripts_name_the_commands),
    ("a_bar_is_drawn_at_a_terminal_only", a_bar_is_drawn_at_a_terminal_only),
];

/// The names of the commands in a help, but for `help` itself; none if there are none below.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.is_empty());
    // A line that is indented further goes on with the description above it.
    let names = listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help").map(str::to_owned).collect()
}

fn help(path: &[&str]) -> Tested<String> {
    let output = vltava(&[path, &["--help"]].concat(), "")?;
    assert!(output.status.success(), "{path:?}: {}", output.stderr);
    Ok(output.stdout)
}

fn every_help_has_examples() -> Tested {
    let mut seen = 0;
    for name in &commands(&help(&[])?) {
        let below = commands(&help(&[name])?);
        let mut paths: Vec<Vec<&str>> = below.iter().map(|sub| vec![name.as_str(), sub]).collect();
        if paths.is_empty() {
            paths.push(vec![name]);
        }
        for path in paths {
            let text = help(&path)?;
            let example = format!("vltava {}", path.join(" "));
            let examples = text.split("Example").nth(1).unwrap_or_default();
            // An example may be of a pipe, or of a shell's own syntax.
            assert!(examples.contains(&example), "no example in the help of {path:?}");
            seen += 1;
        }
    }
    assert!(seen >= 18, "only {seen} commands found");
    Ok(())
}

fn completion_scripts_name_the_commands() -> Tested {
    for shell in ["bash", "zsh", "fish"] {
        let output = vltava(&["completion", shell], "")?;
        assert!(output.status.success(), "{shell}: {}", output.stderr);
        for word in ["reset-offsets", "commit-interval", "completion"] {
            assert!(output.stdout.contains(word), "{word} is not in the script for {shell}");
        }
    }
    assert_eq!(vltava(&["completion", "dos"], "")?.status.code(), Some(2));
    if !process::exists("bash") {
        return Ok(());
    }
    let script = "source <(\"$0\" completion bash); COMP_WORDS=(vltava group re); COMP_CWORD=2; \
                  _vltava vltava re group; echo \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    let completed = process::succeed(bash.args(["-c", script, BINARY]), b"", COMMAND_DEADLINE)?;
    assert_eq!(completed.stdout.trim(), "reset-offsets", "{}", completed.stderr);
    Ok(())
}

fn a_bar_is_drawn_at_a_terminal_only() -> Tested {
    let broker = Broker::start(BrokerOptions::new(BINARY))?;
    let name = requests::unique("long");
    on(&broker, &["topic", "create", &name, "--partitions", "1"], "")?;
    let scratch = paths::fresh("long")?;
    let path = scratch.path().join("lines.txt");
    // As fast as this machine may be, so many rounds of requests are no matter of an instant.
    let lines: Vec<String> = (0..1_500_000).map(|number: u32| number.to_string()).collect();
    #[allow(clippy::disallowed_methods, reason = "a file of the user's")]
    std::fs::write(&path, lines.join("\n"))?;
    let path = path.to_str().ok_or("paths are UTF-8 here")?;
    let produce = ["produce", &name, "--file", path, "--bootstrap", broker.bootstrap()];
    let piped = vltava(&produce, "")?;
    assert_eq!((piped.status.code(), piped.stderr.as_str()), (Some(0), ""));
    assert!(piped.stdout.contains("1500000 records"), "{}", piped.stdout);
    // `script` of util-linux runs a command at a terminal of its own.
    if !process::exists("script") {
        return Ok(());
    }
    let command = [&[BINARY], &produce[..]].concat().join(" ");
    let mut script = Command::new("script");
    let script = script.env("TERM", "xterm").args(["-qec", &command, "/dev/null"]);
    let shown = process::run(script, b"", COMMAND_DEADLINE)?;
    // What it said last follows the last picture of the bar.
    let last = shown.stdout.rsplit('\r').find(|line| !line.trim().is_empty());
    assert_eq!(shown.status.code(), Some(0), "{last:?}");
    assert!(shown.stdout.contains("MiB/s"), "no bar: {}", shown.stdout);
    assert!(shown.stdout.trim_end().ends_with(&format!("1500000 records written to {name}")));
    Ok(())
}
