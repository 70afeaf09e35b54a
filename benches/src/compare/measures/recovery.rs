//! `kill -9`, then a start on what is left: time to the first acknowledged record.

use super::first_acknowledged;
use crate::compare::loads::Cx;
use crate::compare::metric::{Metric, Sample};
use crate::compare::target::Target;
use crate::error::BenchError;

pub(super) fn measure(cx: &Cx<'_>, target: &mut Target) -> Result<Sample, BenchError> {
    let started = target.crash_and_restart(cx.tools)?;
    first_acknowledged(target)?;
    Ok(Sample(Metric::Recovery, started.elapsed().as_secs_f64() * 1000.0))
}
