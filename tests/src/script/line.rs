//! The lines of a story: commands, their words and options, and the answers behind them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::str::FromStr;

/// Where answers begin, if the command is shorter.
const ANSWER_COLUMN: usize = 31;
const ARROW: &str = "->";

/// A line and what it answers.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: usize,
    /// Without the answer; comments and empty lines as they are.
    pub(super) text: String,
    pub(super) commands: Vec<Command>,
    pub(super) answers: Vec<String>,
}

/// `name word word key=value`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Command {
    pub(super) name: String,
    pub(super) words: Vec<String>,
    pub(super) options: BTreeMap<String, String>,
}

impl Command {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split_whitespace();
        let name = parts.next()?.to_owned();
        let mut command = Self { name, words: Vec::new(), options: BTreeMap::new() };
        for part in parts {
            match part.split_once('=') {
                Some((key, value)) => {
                    command.options.insert(key.to_owned(), value.to_owned());
                }
                None => command.words.push(part.to_owned()),
            }
        }
        Some(command)
    }

    /// The value of an option that may be left out.
    pub(super) fn option<T: FromStr>(&self, key: &str, default: T) -> Result<T, String> {
        match self.options.get(key) {
            None => Ok(default),
            Some(value) => value.parse().map_err(|_| format!("{key}={value} is no such value")),
        }
    }

    /// The value of an option that is needed.
    pub(super) fn need<T: FromStr>(&self, key: &str) -> Result<T, String> {
        let value = self.options.get(key).ok_or_else(|| format!("{key}= is missing"))?;
        value.parse().map_err(|_| format!("{key}={value} is no such value"))
    }

    /// A word by its place.
    pub(super) fn word(&self, at: usize) -> Result<&str, String> {
        self.words.get(at).map(String::as_str).ok_or_else(|| "a word is missing".to_owned())
    }

    /// Whether a word is there.
    pub(super) fn has(&self, word: &str) -> bool {
        self.words.iter().any(|known| known == word)
    }
}

/// A text as lines; answers of their own lines belong to the command above.
pub(super) fn parse(text: &str) -> Result<Vec<Line>, String> {
    let mut lines: Vec<Line> = Vec::new();
    for (at, raw) in text.lines().enumerate() {
        if let Some(answer) = raw.trim_start().strip_prefix(ARROW) {
            let above = lines.last_mut().filter(|line| !line.commands.is_empty());
            let above = above.ok_or_else(|| format!("line {}: an answer to nothing", at + 1))?;
            above.answers.push(answer.trim().to_owned());
            continue;
        }
        let number = at + 1;
        if raw.trim_start().starts_with('#') || raw.trim().is_empty() {
            let text = raw.trim_end().to_owned();
            lines.push(Line { number, text, commands: Vec::new(), answers: Vec::new() });
            continue;
        }
        let (text, answer) = match raw.split_once(ARROW) {
            Some((text, answer)) => (text, Some(answer.trim().to_owned())),
            None => (raw, None),
        };
        let text = text.trim_end().to_owned();
        let commands = text.split(';').filter_map(Command::parse).collect();
        lines.push(Line { number, text, commands, answers: answer.into_iter().collect() });
    }
    Ok(lines)
}

/// The lines as a text: one answer stands behind its command, several stand below.
pub(super) fn render(lines: &[Line]) -> String {
    let mut text = String::new();
    for Line { text: command, answers, .. } in lines {
        let result = match &answers[..] {
            [answer] => writeln!(text, "{command:<ANSWER_COLUMN$} {ARROW} {answer}"),
            several => writeln!(text, "{command}").and_then(|()| {
                several.iter().try_for_each(|answer| writeln!(text, "  {ARROW} {answer}"))
            }),
        };
        result.expect("a string takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_as_they_were() {
        let text = "# a story\n\nproduce 1 records=10 nowait     -> pending\n\
                    heal; stabilize\n  -> one\n  -> two\ncrash 1\n";
        let lines = parse(text).expect("it is a story");
        assert_eq!(render(&lines), text);
        assert_eq!(lines[3].commands.len(), 2);
        assert_eq!(lines[3].answers, ["one", "two"]);
        let produce = &lines[2].commands[0];
        assert_eq!(produce.need::<u64>("records"), Ok(10));
        assert!(produce.has("nowait") && produce.need::<u64>("size").is_err());
        assert!(parse("-> alone\n").is_err());
    }
}
