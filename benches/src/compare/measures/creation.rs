//! Topics of one partition created one after another, each request answered before the next.

use std::time::Instant;

use crate::compare::metric::{Metric, Sample};
use crate::compare::target::Target;
use crate::error::BenchError;

pub(super) fn measure(target: &Target, topics: u32) -> Result<Sample, BenchError> {
    let mut client = target.client()?;
    let started = Instant::now();
    for number in 0..topics {
        client.create_topic(&format!("one-of-many-{number:05}"), 1)?;
    }
    Ok(Sample(Metric::Creation, started.elapsed().as_secs_f64() * 1000.0 / f64::from(topics)))
}
