//! Many tests against one broker: it starts once, every row gets it, a failure shows its log.

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Completion, Failed, Trial};

use super::{Broker, BrokerOptions, Tested};

/// What a row does with the broker; it may find its toolchain missing.
pub type Play = Box<dyn FnOnce(&Broker) -> Tested<Completion> + Send>;

/// The rows of one test file, by name.
#[derive(Default)]
pub struct Rows(Vec<(String, Play)>);

impl Rows {
    /// Adds a row.
    pub fn add<F>(&mut self, name: impl Into<String>, play: F)
    where
        F: FnOnce(&Broker) -> Tested<Completion> + Send + 'static,
    {
        self.0.push((name.into(), Box::new(play)));
    }

    /// Runs them on one broker, `threads` at a time. The command line may choose among them.
    pub fn run(self, options: BrokerOptions, threads: usize) -> ExitCode {
        let broker = match Broker::start(options) {
            Ok(broker) => Arc::new(broker),
            Err(failed) => {
                let message = failed.message().unwrap_or("no message").to_owned();
                let trial = Trial::test("broker_starts", move || Err(Failed::from(message)));
                return super::run(vec![trial], 1);
            }
        };
        let trials = self.0.into_iter().map(|(name, play)| {
            let broker = Arc::clone(&broker);
            Trial::ignorable_test(name, move || {
                play(&broker).map_err(|failed| {
                    let message = failed.message().unwrap_or("no message");
                    Failed::from(format!("{message}\n--- broker\n{}", broker.stderr_tail()))
                })
            })
        });
        super::run(trials.collect(), threads)
    }
}
