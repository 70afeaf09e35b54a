//! Stories: scripts over the simulated cluster that a reader understands without knowing Rust.
//!
//! A story is a text file. A line is a command and, behind `->`, what it answers; an answer of
//! several lines goes on below. `#` begins a comment, `;` separates two commands of one line. Nodes
//! count from 1 and live under one partition. Clocks stand still unless a command lets them run, so
//! that nothing comes between two lines. The simulator's checks hold at every step, and at the end
//! all faults end, the cluster must come to rest, and nothing acknowledged may be missing.
//!
//! The cluster: `cluster 3 [spare=1] [durability=page-cache] [segment=BYTES] [seed=N]` has three
//! nodes with a replica and one without; node 1 leads.
//!
//! Clients:
//! - `produce N records=K [size=BYTES] [batches=B] [acks=1] [nowait]`: one writes to node N
//! - `read N from=K`: one reads from node N
//! - `retain offset=K [nowait]`: one asks that the log starts at K
//!
//! Leadership and membership:
//! - `elect N`, `transfer N [nowait]`: N leads, by votes or handed over
//! - `campaign N`: N becomes a candidate; nobody has voted yet
//! - `add N`, `remove N`: where the partition is to live
//! - `durability fsync`, `durability page-cache`: what the topic promises from the next tick on
//!
//! Faults:
//! - `partition-off N`, `cut A B`, `cut A>B`, `join A B`, `join A>B`, `heal`: links, both ways or one
//! - `crash N`, `power-cut N`, `power-cut all`, `restart N`, `restart all`: brokers and machines
//! - `wipe N`, `damage N [segment=K] [position=P]`: an empty disk; a durable bit flips
//! - `fail-disk N eio after=K`, `fail-disk N enospc after=K`, `fill-disk N spare=BYTES`,
//!   `heal-disk N`: disks that fail from the K-th operation on, or are full
//! - `power-cut-anywhere N`: the story is told again for each disk operation of N from here on, with
//!   a power cut there; N must not crash otherwise
//! - `disk-error-anywhere N`: the story is told again for each disk operation of N from here on, in
//!   its recoveries too, with an I/O error there, with a short write of a full disk, and with a disk
//!   that is full for a while; answers what failed, what clients were told and what followed
//! - `stall-disk N`, `resume-disk N`: nothing becomes durable on N for the time between
//!
//! Time:
//! - `stabilize [quiet]`, `tick K`: clocks run until the cluster is at rest, or for K ticks
//! - `wait`, `until KIND A>B … [ticking]`: messages go their way: for a moment, until one is sent
//!
//! Questions:
//! - `show`, `log N`, `losses`: every node; every entry as `index/epoch:what`; what is gone
//! - `expect KEY=VALUE … [node=N]`: what a blessing cannot rewrite
//!
//! **Invariant:** one text, one history. Called by `tests/stories.rs`; `VLTAVA_BLESS=1` writes what
//! was answered into the files.

use std::path::Path;

mod line;
mod stage;
mod struck;
mod view;

use self::line::{Line, parse, render};
use self::stage::Stage;
use self::struck::{Fate, Report};

/// Set to rewrite the answers.
pub const BLESS: &str = "VLTAVA_BLESS";
/// Disk operations at which fate strikes in a story, at most.
const OPS_MAX: u64 = 1000;

/// Plays the story in a file and compares, or rewrites it under [`BLESS`].
pub fn check(path: &Path, is_blessed: bool) -> Result<(), String> {
    let text = read(path)?;
    let played = play(&text)?;
    if played == text {
        return Ok(());
    }
    if is_blessed {
        return write(path, &played);
    }
    Err(format!("answers differ (< the file, > the cluster):\n{}", diff(&text, &played)))
}

#[allow(clippy::disallowed_methods, reason = "a test reads its own script")]
fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

#[allow(clippy::disallowed_methods, reason = "blessing rewrites a script")]
fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| error.to_string())
}

/// Plays a story; answers its text as it should be, or what did not hold.
pub fn play(text: &str) -> Result<String, String> {
    let mut lines = parse(text)?;
    let mut commands = lines.iter().flat_map(|line| &line.commands);
    if let Some(fates) = commands.find_map(|command| Fate::all_of(&command.name)) {
        return play_often(&mut lines, fates);
    }
    let mut stage = Stage::default();
    perform(&mut lines, &mut stage)?;
    Ok(render(&lines))
}

/// Tells the story once for each fate at each disk operation, and once more without any.
fn play_often(lines: &mut [Line], fates: &[Fate]) -> Result<String, String> {
    let mut report = Report::default();
    let mut told = lines.to_vec();
    for fate in fates {
        for op in 0.. {
            if op == OPS_MAX {
                return Err(format!("the story has more than {OPS_MAX} disk operations"));
            }
            let mut stage = Stage::with_fate(*fate, op);
            told = lines.to_vec();
            perform(&mut told, &mut stage)
                .map_err(|error| format!("with {fate} at operation {op}: {error}"))?;
            if !stage.was_struck() {
                break;
            }
            report.add(&stage);
        }
    }
    let is_it = |line: &&mut Line| {
        line.commands.iter().any(|command| Fate::all_of(&command.name).is_some())
    };
    if let Some(line) = told.iter_mut().find(is_it) {
        line.answers = report.answers();
    }
    Ok(render(&told))
}

fn perform(lines: &mut [Line], stage: &mut Stage) -> Result<(), String> {
    for line in lines.iter_mut() {
        line.answers.clear();
        for command in &line.commands {
            let answers = stage.perform(command);
            let answers = answers.map_err(|error| {
                format!("line {}: {}: {error}\n{}", line.number, line.text, stage.describe())
            })?;
            line.answers.extend(answers);
        }
    }
    stage.finish().map_err(|error| format!("at the end: {error}\n{}", stage.describe()))
}

/// Both texts line by line, equal lines once.
fn diff(left: &str, right: &str) -> String {
    let (left, right): (Vec<_>, Vec<_>) = (left.lines().collect(), right.lines().collect());
    let mut lines: Vec<(char, &str)> = Vec::new();
    let (mut at, mut other) = (0, 0);
    while at < left.len() || other < right.len() {
        // How far each text is ahead of the other: up to the nearest line that both have.
        let in_left = right.get(other).and_then(|line| left[at..].iter().position(|l| l == line));
        let in_right = left.get(at).and_then(|line| right[other..].iter().position(|r| r == line));
        let (skip, other_skip) = match (in_left, in_right) {
            (Some(0), _) => {
                lines.push((' ', left[at]));
                (at, other) = (at + 1, other + 1);
                continue;
            }
            (Some(skip), None) => (skip, 0),
            (None, Some(skip)) => (0, skip),
            _ => ((left.len() - at).min(1), (right.len() - other).min(1)),
        };
        lines.extend(left[at..at + skip].iter().map(|line| ('<', *line)));
        lines.extend(right[other..other + other_skip].iter().map(|line| ('>', *line)));
        (at, other) = (at + skip, other + other_skip);
    }
    let lines: Vec<_> = lines.into_iter().map(|(mark, line)| format!("{mark} {line}\n")).collect();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_is_played_the_same_way_twice() {
        let text = "cluster 3\nproduce 1 records=10\npartition-off 1; elect 2\n";
        let played = play(text).expect("it holds");
        assert!(played.contains("-> base_offset=0 high_watermark=10"), "{played}");
        assert!(played.contains("-> leader=2"), "{played}");
        assert_eq!(play(&played).expect("it holds"), played);
    }

    #[test]
    fn a_wrong_expectation_and_an_unknown_command_fail() {
        let error = play("cluster 3\nexpect high_watermark=7\n").expect_err("it is 0");
        assert!(error.contains("line 2") && error.contains("high_watermark=0"), "{error}");
        assert!(play("cluster 3\ndance 1\n").expect_err("no such command").contains("dance"));
        assert!(play("elect 1\n").expect_err("no cluster").contains("cluster"));
        assert!(play("cluster 3\nelect 4\n").expect_err("no such node").contains("node"));
    }

    #[test]
    fn the_diff_shows_the_whole_file() {
        assert_eq!(diff("a\nb\nc\n", "a\nx\nc\n"), "  a\n< b\n> x\n  c\n");
        assert_eq!(diff("a\nc\n", "a\nb\nc\n"), "  a\n> b\n  c\n");
        assert_eq!(diff("a\nb\nc\n", "a\nc\n"), "  a\n< b\n  c\n");
    }
}
