//! A pipeline at work on a broker: ours inside of it, or Kafka Streams beside it. What it costs is
//! told apart from what the broker costs: by its process, or by its threads.

use std::time::Duration;

use vltava_benches::jobs::Job;

use super::Cx;
use crate::compare::kafka_streams::with_last_words;
use crate::compare::target::{Kind, Target};
use crate::dialog::Dialog;
use crate::error::{BenchError, foreign};
use crate::process::Process;

/// The names of our stream threads begin so.
const STREAM_THREADS: &str = "streams-";
/// How long a virtual machine may take until it has joined its group.
const STARTED_WITHIN: Duration = Duration::from_mins(1);

/// What is started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start<'a> {
    /// What it does.
    pub(crate) job: Job,
    /// The topic that it reads.
    pub(crate) source: &'a str,
    /// The topic that it writes; its name is the application's too.
    pub(crate) sink: &'a str,
    /// Kafka Streams' settings that are not its defaults, as `key=value`.
    pub(crate) settings: &'a [&'a str],
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Application<'a> {
    target: &'a Target,
    /// Where it is not inside the broker: killed when this is dropped; it ends with its input too.
    beside: Option<(Process, Dialog)>,
}

/// Processor time, or memory, of a broker and of the pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Parts {
    /// The broker's.
    pub(crate) broker: f64,
    /// The pipeline's.
    pub(crate) pipeline: f64,
}

impl Parts {
    /// What came on top of `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { broker: self.broker - before.broker, pipeline: self.pipeline - before.pipeline }
    }

    /// Both together.
    pub(crate) fn together(self) -> f64 {
        self.broker + self.pipeline
    }
}

impl<'a> Application<'a> {
    /// Starts it and waits until it has its partitions.
    pub(crate) fn start(
        cx: &Cx<'_>,
        target: &'a Target,
        start: Start<'_>,
    ) -> Result<Self, BenchError> {
        let Start { job, source, sink, settings } = start;
        let line = format!("start {sink} {} {source} {sink}", job.name());
        if target.kind() == Kind::Pipeline {
            target.ask(&line, "started")?;
            return Ok(Self { target, beside: None });
        }
        let tool = cx.tools.kafka_streams.as_ref();
        let tool = tool.ok_or_else(|| foreign("Kafka Streams")("it was not brought"))?;
        let state = target.dir().join("streams");
        let (mut process, mut dialog) = tool.start(&target.bootstrap(), &state, settings)?;
        match dialog.ask(&line, "started", STARTED_WITHIN) {
            Ok(()) => Ok(Self { target, beside: Some((process, dialog)) }),
            Err(error) => Err(with_last_words(&error, &mut process)),
        }
    }

    /// Seconds of processor time so far.
    pub(crate) fn processor_time(&self) -> Result<Parts, BenchError> {
        let broker = self.target.process();
        let whole = broker.processor_time()?.as_secs_f64();
        let Some((process, _)) = &self.beside else {
            let pipeline = broker.threads_time(STREAM_THREADS)?.as_secs_f64();
            return Ok(Parts { broker: whole - pipeline, pipeline });
        };
        Ok(Parts { broker: whole, pipeline: process.processor_time()?.as_secs_f64() })
    }

    /// Bytes of memory that both have resident now, together: their own, and all.
    pub(crate) fn memory(&self) -> Result<[f64; 2], BenchError> {
        let beside = self.beside.as_ref().map(|(process, _)| process);
        let mut memory = [0.0; 2];
        for process in [Some(self.target.process()), beside].into_iter().flatten() {
            memory[0] += process.own_bytes()?;
            memory[1] += process.resident_bytes()?;
        }
        Ok(memory)
    }

    /// Ends it.
    pub(crate) fn stop(self) -> Result<(), BenchError> {
        match self.beside {
            Some((mut process, _)) => process.kill(),
            None => self.target.ask("stop", "stopped"),
        }
    }

    /// The end of what it logged, for an error that it may have caused.
    pub(crate) fn explain(&mut self, error: BenchError) -> BenchError {
        match &mut self.beside {
            Some((process, _)) => with_last_words(&error, process),
            None => error,
        }
    }
}
