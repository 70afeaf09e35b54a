//! What a broker takes without a load: a file each. They follow each other in one [`Life`], since
//! a broker of a thousand partitions is dear to make.

use bytes::Bytes;
use vltava_benches::fixtures;
use vltava_protocol::record::compression::Codec;

use super::loads::Cx;
use super::metric::Sample;
use super::target::{Kind, Target};
use crate::error::BenchError;

mod cold_start;
mod creation;
mod idle;
mod recovery;

/// A broker that starts on an empty directory, gets partitions, is idle, crashes and recovers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    /// Topics of one partition, created one after another; their time is a figure.
    pub(crate) topics: u32,
    /// Topics of a thousand partitions each.
    pub(crate) wide_topics: u32,
    /// Whether it crashes in the end.
    pub(crate) recovers: bool,
}

impl Life {
    /// Lives once.
    pub(crate) fn run(&self, cx: &Cx<'_>, kind: Kind) -> Result<Vec<Sample>, BenchError> {
        let (mut target, first) = cold_start::measure(cx, kind)?;
        let mut samples = vec![first];
        if self.topics > 0 {
            samples.push(creation::measure(&target, self.topics)?);
        }
        for number in 0..self.wide_topics {
            target.client()?.create_ready_topic(&format!("wide-{number}"), WIDE_PARTITIONS)?;
        }
        samples.extend(idle::measure(cx, &target)?);
        if self.recovers {
            samples.push(recovery::measure(cx, &mut target)?);
        }
        Ok(samples)
    }
}

/// Partitions of a wide topic.
const WIDE_PARTITIONS: i32 = 1000;
/// The topic of the first record.
const FIRST_TOPIC: &str = "first";

fn one_record() -> Bytes {
    fixtures::batch(256, Codec::None).bytes
}

/// Tries to produce until the broker takes it.
fn first_acknowledged(target: &Target) -> Result<(), BenchError> {
    let batch = one_record();
    let mut client = crate::client::until_served(|| target.client())?;
    crate::client::until_served(|| client.produce(FIRST_TOPIC, &batch))
}
