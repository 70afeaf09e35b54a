//! Processor time and memory of a broker that nobody uses.

use std::thread;
use std::time::Duration;

use crate::compare::loads::Cx;
use crate::compare::metric::{Metric, Sample};
use crate::compare::target::Target;
use crate::error::BenchError;

const MEBIBYTE: f64 = 1_048_576.0;
/// How long a broker is left alone first.
const SETTLE: Duration = Duration::from_secs(3);

pub(super) fn measure(cx: &Cx<'_>, target: &Target) -> Result<[Sample; 3], BenchError> {
    thread::sleep(SETTLE);
    let watched = Duration::from_secs(cx.scale.idle_seconds);
    let ((), spent) = target.spent(|| {
        thread::sleep(watched);
        Ok(())
    })?;
    let share = 100.0 * spent.processor.as_secs_f64() / spent.wall.as_secs_f64();
    Ok([
        Sample(Metric::Idle, share),
        Sample(Metric::OwnMemory, target.process().own_bytes()? / MEBIBYTE),
        Sample(Metric::PeakMemory, target.process().peak_resident_bytes()? / MEBIBYTE),
    ])
}
