//! Criterion on one of our clocks.

use std::time::Duration;

use criterion::Criterion;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use vltava_benches::runs::Clock;

/// Measures by a clock; printed like any time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct By(pub(crate) Clock);

/// Criterion on this clock.
pub(crate) fn by(clock: Clock) -> Criterion<By> {
    Criterion::default().with_measurement(By(clock))
}

impl Measurement for By {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        self.0.read()
    }

    fn end(&self, started: Duration) -> Duration {
        self.0.since(started)
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}
