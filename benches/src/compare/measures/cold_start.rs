//! From the start of the process on an empty directory to the first acknowledged record, its topic
//! created. Kafka's directory is formatted before, which is not counted.

use super::{FIRST_TOPIC, first_acknowledged};
use crate::client::until_served;
use crate::compare::loads::Cx;
use crate::compare::metric::{Metric, Sample};
use crate::compare::target::{Kind, Target};
use crate::error::BenchError;

pub(super) fn measure(cx: &Cx<'_>, kind: Kind) -> Result<(Target, Sample), BenchError> {
    let (target, started) = Target::start_timed(kind, cx.tools)?;
    // Not retried once it was sent: a topic that exists is an error.
    until_served(|| target.client())?.create_topic(FIRST_TOPIC, 1)?;
    first_acknowledged(&target)?;
    let milliseconds = started.elapsed().as_secs_f64() * 1000.0;
    Ok((target, Sample(Metric::ColdStart, milliseconds)))
}
