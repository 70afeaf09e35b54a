//! Figures of the groups that this node coordinates, gathered when somebody scrapes.
//!
//! Each of the first `group.metrics.max` groups, by name, has its members and its lag; all others
//! together have one line, without the lag in time, which takes a look at a log for each partition.
//! A shard's lock is held for one group at a time.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use vltava_protocol::ids::{Offset, TopicPartition};

use crate::clock::Clock;
use crate::coordinator::group::ids::GroupId;
use crate::coordinator::group::state::State;
use crate::coordinator::group::summary::Counters;
use crate::coordinator::groups::{GroupPost, Groups};
use crate::coordinator::lag::Lag;
use crate::node::Node;
use crate::partitions::Partitions;

/// Lets the node's metrics gather from its groups.
pub fn gather(node: &Node) {
    node.metrics.gather(GroupFigures {
        groups: Arc::clone(&node.groups),
        partitions: Arc::clone(&node.partitions),
        clock: Arc::clone(&node.clock),
        groups_max: usize::try_from(node.config.group_metrics_max).unwrap_or(0),
    });
}

#[derive(Debug)]
struct GroupFigures {
    groups: Arc<Groups>,
    partitions: Arc<Partitions>,
    clock: Arc<Clock>,
    groups_max: usize,
}

/// One group, or all others.
#[derive(Debug, Default)]
struct Line {
    /// None for all others.
    name: Option<String>,
    members: usize,
    lag_records: i64,
    lag_ms: Option<i64>,
}

impl Line {
    /// A group's own name, whatever it is, is not taken for the others.
    fn labels(&self) -> [(&'static str, &str); 1] {
        self.name.as_deref().map_or([("others", "true")], |name| [("group", name)])
    }
}

/// Everything of one scrape.
#[derive(Debug, Default)]
struct Page {
    states: [usize; State::LIVING.len()],
    counters: Counters,
    lines: Vec<Line>,
}

impl GroupFigures {
    fn page(&self) -> Page {
        let mut page = Page::default();
        let mut groups: Vec<(GroupId, usize, GroupPost)> = Vec::new();
        for post in self.groups.runtime().posts() {
            let known = post.look(|shard| {
                let groups = shard.groups().map(|group| (group.id.clone(), group.members().len()));
                (shard.counters(), shard.states(), groups.collect::<Vec<_>>())
            });
            // Led elsewhere, or loading.
            let Ok((counters, states, known)) = known else { continue };
            add(&mut page.counters, counters);
            page.states.iter_mut().zip(states).for_each(|(sum, count)| *sum += count);
            groups.extend(known.into_iter().map(|(id, members)| (id, members, Arc::clone(&post))));
        }
        groups.sort_unstable_by(|(a, ..), (b, ..)| a.cmp(b));
        let mut others = Line::default();
        for (at, (group_id, members, post)) in groups.iter().enumerate() {
            let is_shown = at < self.groups_max;
            let (lag_records, lag_ms) = self.lag(post, group_id, is_shown);
            if is_shown {
                let name = Some(group_id.to_string());
                page.lines.push(Line { name, members: *members, lag_records, lag_ms });
            } else {
                others.members += members;
                others.lag_records += lag_records;
            }
        }
        if groups.len() > self.groups_max {
            page.lines.push(others);
        }
        page
    }

    /// The sum of a group's lags in records, and the greatest in time.
    fn lag(&self, post: &GroupPost, group_id: &GroupId, with_time: bool) -> (i64, Option<i64>) {
        let offsets: Vec<(TopicPartition, Offset)> = post
            .look(|shard| {
                let offsets = shard.committed_offsets_of(group_id);
                offsets.map(|(key, committed)| (key.tp.clone(), committed.offset)).collect()
            })
            .unwrap_or_default();
        let now = self.clock.now();
        let (mut records, mut ms) = (0, None);
        for (tp, offset) in offsets {
            let Some(partition) = self.partitions.get(&tp.topic, tp.partition) else { continue };
            let view = partition.view();
            let lag = if with_time {
                Lag::of(&view, offset, now)
            } else {
                Lag::in_records(&view, offset)
            };
            records += lag.records;
            ms = ms.max(lag.ms);
        }
        (records, ms)
    }
}

fn add(sum: &mut Counters, counters: Counters) {
    sum.offset_commits += counters.offset_commits;
    sum.offset_deletions += counters.offset_deletions;
    sum.offsets_expired += counters.offsets_expired;
    sum.rebalances += counters.rebalances;
    sum.rebalances_completed += counters.rebalances_completed;
}

/// Name, help and value of a counter.
type Count = (&'static str, &'static str, fn(&Counters) -> u64);

const COUNTS: &[Count] = &[
    ("group_offset_commits", "Offsets committed", |c| c.offset_commits),
    ("group_offset_deletions", "Offsets deleted", |c| c.offset_deletions),
    ("group_offsets_expired", "Offsets expired", |c| c.offsets_expired),
    ("group_rebalances", "Rebalances begun", |c| c.rebalances),
    ("group_rebalances_completed", "Rebalances completed", |c| c.rebalances_completed),
];

impl Collector for GroupFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let page = self.page();
        let kind = MetricType::Gauge;
        let mut groups = encoder.encode_descriptor("groups", "Groups", None, kind)?;
        for (state, count) in State::LIVING.iter().zip(page.states) {
            let labels = [("state", state.name())];
            groups.encode_family(&labels)?.encode_gauge(&(count as u64))?;
        }
        for (name, help, value) in COUNTS {
            let mut counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            counter.encode_counter::<NoLabelSet, _, u64>(&value(&page.counters), None)?;
        }
        let mut members =
            encoder.encode_descriptor("group_members", "Members of a group", None, kind)?;
        for line in &page.lines {
            let labels = line.labels();
            members.encode_family(&labels)?.encode_gauge(&(line.members as u64))?;
        }
        let help = "Records between committed offsets and the ends of their partitions";
        let mut lag = encoder.encode_descriptor("group_lag_records", help, None, kind)?;
        for line in &page.lines {
            let labels = line.labels();
            lag.encode_family(&labels)?.encode_gauge(&line.lag_records)?;
        }
        let help = "Age of the oldest record at a committed offset, 0 at the end";
        let mut lag = encoder.encode_descriptor("group_lag_seconds", help, None, kind)?;
        for line in &page.lines {
            if let Some(ms) = line.lag_ms {
                let labels = line.labels();
                lag.encode_family(&labels)?.encode_gauge(&(ms as f64 / 1000.0))?;
            }
        }
        let help = "From the leadership of a partition to its coordinator's first answer";
        let histogram = &self.groups.figures().load_duration;
        let kind = histogram.metric_type();
        let name = "group_coordinator_load_duration_seconds";
        histogram.encode(encoder.encode_descriptor(name, help, None, kind)?)
    }
}
