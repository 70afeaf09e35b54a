//! A broker with pipelines inside it, as a process of its own, so that its processor time and
//! memory can be told apart from those of the load.
//!
//! It says where it listens, as the binary does. Then it takes lines: `start APPLICATION JOB SOURCE
//! SINK` is answered with `started`, `stop` with `stopped`; it ends with its input. One pipeline at
//! a time.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use vltava::{Broker, Config};
use vltava_benches::jobs::Job;
use vltava_streams::Pipeline;

/// Which broker.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where its data lies.
    #[arg(long)]
    data_dir: PathBuf,
}

/// Serves until the input ends.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let config = Config::new().data_dir(&options.data_dir).set("log.durability", "page-cache");
    let broker = Broker::start(config)?;
    say(&format!("vltava ready: kafka={}", broker.bootstrap()))?;
    let mut running = None;
    for line in io::stdin().lines() {
        let line = line?;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["start", application, job, source, sink] => {
                running = Some(start(&broker, application, job, source, sink)?);
                say("started")?;
            }
            ["stop"] => {
                drop(running.take());
                say("stopped")?;
            }
            _ => return Err(format!("{line:?} is no command").into()),
        }
    }
    drop(running);
    broker.shutdown();
    Ok(())
}

fn start(
    broker: &Broker,
    application: &str,
    job: &str,
    source: &str,
    sink: &str,
) -> Result<Pipeline, Box<dyn Error>> {
    let job = Job::by_name(job).ok_or_else(|| format!("no job is called {job}"))?;
    Ok(job.topology(application, source, sink).run_in(broker)?)
}

fn say(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}
