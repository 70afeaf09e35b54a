//! A bar for work that takes a while, on standard error, for a person at a terminal.
//!
//! Nothing is drawn where standard error is no terminal, and nothing for work that is done in a
//! moment. When the work ends the bar is wiped: what stays is the result.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Work that is done sooner shows no bar.
const PATIENCE: Duration = Duration::from_millis(300);

/// How far a piece of work is.
#[derive(Debug)]
pub struct Progress {
    kind: Option<Kind>,
    total: u64,
    done: u64,
    begun: Instant,
    bar: Option<ProgressBar>,
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Bytes,
    Items(&'static str),
}

impl Kind {
    fn template(self) -> String {
        match self {
            Self::Bytes => "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left".to_owned(),
            Self::Items(what) => format!("{{bar:30}} {{pos}}/{{len}} {what} {{eta}} left"),
        }
    }
}

impl Progress {
    /// Of work that nobody counts.
    pub fn none() -> Self {
        Self::new(None, 0)
    }

    /// Of so many bytes.
    pub fn bytes(total: u64) -> Self {
        Self::new(Some(Kind::Bytes), total)
    }

    /// Of so many things, named in the plural.
    pub fn items(total: u64, what: &'static str) -> Self {
        Self::new(Some(Kind::Items(what)), total)
    }

    fn new(kind: Option<Kind>, total: u64) -> Self {
        let kind = kind.filter(|_| std::io::stderr().is_terminal());
        Self { kind, total, done: 0, begun: Instant::now(), bar: None }
    }

    /// So much more is done.
    pub fn add(&mut self, more: u64) {
        self.at(self.done + more);
    }

    /// So much is done altogether.
    pub fn at(&mut self, done: u64) {
        self.done = done;
        let Some(kind) = self.kind else { return };
        if self.bar.is_none() && self.begun.elapsed() >= PATIENCE {
            let style = ProgressStyle::with_template(&kind.template());
            let bar = ProgressBar::new(self.total).with_elapsed(self.begun.elapsed());
            self.bar = Some(bar.with_style(style.expect("the templates are constants")));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_sound() {
        for kind in [Kind::Bytes, Kind::Items("topics")] {
            ProgressStyle::with_template(&kind.template()).unwrap();
        }
    }
}
