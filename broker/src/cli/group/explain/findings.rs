//! What follows from a report: who is behind, who is waited for, who disturbs.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::when;
use crate::coordinator::report::{GroupReport, RebalanceReport};

/// How one member does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct MemberLag {
    /// Its id.
    pub member_id: String,
    /// How many partitions it reads.
    pub partitions: usize,
    /// Records that it has left to read.
    pub lag_records: i64,
    /// The age of the oldest of them; none if nobody knows.
    pub lag_ms: Option<i64>,
    /// In how many of the rebalances it was the last to come.
    pub waited_for: usize,
    /// How many of the rebalances it caused.
    pub disturbed: usize,
}

/// What a person wants to know first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Findings {
    /// All members, the one that is most behind first.
    pub members: Vec<MemberLag>,
    /// The member that is most behind, if one is.
    pub slowest: Option<String>,
    /// Who caused more of the rebalances than any other.
    pub disturber: Option<String>,
    /// Partitions that somebody reads or has committed for, and nobody reads now.
    pub unread: usize,
}

impl Findings {
    pub(super) fn of(report: &GroupReport) -> Self {
        let mut members: Vec<MemberLag> = report
            .members
            .iter()
            .map(|member| {
                let id = &member.member_id;
                let own =
                    || report.offsets.iter().filter(|offset| offset.member_id.as_ref() == Some(id));
                let is_its = |named: Option<&String>| named == Some(id);
                MemberLag {
                    member_id: id.clone(),
                    partitions: member.assignment.iter().map(|one| one.partitions.len()).sum(),
                    lag_records: own().filter_map(|offset| offset.lag_records).sum(),
                    lag_ms: own().filter_map(|offset| offset.lag_ms).max(),
                    waited_for: count(report, |one| is_its(one.slowest_member.as_ref())),
                    disturbed: count(report, |one| one.member_id == *id),
                }
            })
            .collect();
        members.sort_by_key(|member| {
            (std::cmp::Reverse((member.lag_ms, member.lag_records)), member.member_id.clone())
        });
        let slowest = members.first().filter(|member| member.lag_records > 0);
        let unread = report.offsets.iter().filter(|offset| offset.member_id.is_none()).count();
        Self {
            slowest: slowest.map(|member| member.member_id.clone()),
            disturber: disturber(&report.rebalances),
            members,
            unread,
        }
    }

    /// The same for a person, one finding a line.
    pub(super) fn sentences(&self, report: &GroupReport) -> Vec<String> {
        let mut sentences = Vec::new();
        if report.lag_records > 0 {
            let time = if report.lag_ms > 0 {
                format!(", the oldest of them {} old", when::show_ms(report.lag_ms))
            } else {
                String::new()
            };
            sentences.push(format!("{} records are left to read{time}", report.lag_records));
        } else if report.offsets.is_empty() {
            sentences.push("nothing has been committed yet".to_owned());
        } else {
            sentences.push("everything has been read".to_owned());
        }
        if let (Some(slowest), Some(first)) = (&self.slowest, self.members.first()) {
            let share = first.lag_records * 100 / report.lag_records.max(1);
            sentences.push(format!("{slowest} is slowest: {share} % of the lag is its"));
        }
        if report.members.is_empty() && report.lag_records > 0 {
            sentences.push("nobody is there to read".to_owned());
        } else if self.unread > 0 && !report.members.is_empty() {
            sentences.push(format!("partitions that belong to no member: {}", self.unread));
        }
        if report.rebalances.last().is_some_and(|last| last.generation.is_none()) {
            let waiting = "a rebalance is under way: until every member has joined again, or its \
                           session has ended, the others wait";
            sentences.push(waiting.to_owned());
        }
        if let Some(disturber) = &self.disturber {
            let caused = count(report, |one| one.member_id == *disturber);
            let all = report.rebalances.len();
            sentences.push(format!("{disturber} caused {caused} of the last {all} rebalances"));
        }
        sentences
    }
}

fn count(report: &GroupReport, is_it: impl Fn(&RebalanceReport) -> bool) -> usize {
    report.rebalances.iter().filter(|rebalance| is_it(rebalance)).count()
}

/// The member that caused more rebalances than any other, and more than one.
fn disturber(rebalances: &[RebalanceReport]) -> Option<String> {
    let mut caused: BTreeMap<&str, usize> = BTreeMap::new();
    for rebalance in rebalances.iter().filter(|rebalance| !rebalance.member_id.is_empty()) {
        *caused.entry(&rebalance.member_id).or_default() += 1;
    }
    let most = caused.values().copied().max().filter(|most| *most > 1)?;
    let mut ones = caused.iter().filter(|(_, caused)| **caused == most);
    let (first, _) = ones.next()?;
    ones.next().is_none().then(|| (*first).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::report::{MemberReport, OffsetReport, TopicReport};

    fn member(id: &str, partitions: &[i32]) -> MemberReport {
        let topic = TopicReport { topic: "t".to_owned(), partitions: partitions.to_vec() };
        MemberReport {
            member_id: id.to_owned(),
            assignment: vec![topic],
            ..MemberReport::default()
        }
    }

    fn offset(member: Option<&str>, lag_records: i64, lag_ms: Option<i64>) -> OffsetReport {
        OffsetReport {
            member_id: member.map(str::to_owned),
            lag_records: Some(lag_records),
            lag_ms,
            ..OffsetReport::default()
        }
    }

    fn rebalance(by: &str, waited_for: &str) -> RebalanceReport {
        RebalanceReport {
            member_id: by.to_owned(),
            slowest_member: Some(waited_for.to_owned()),
            ..RebalanceReport::default()
        }
    }

    #[test]
    fn the_slow_and_the_restless_are_named() {
        let report = GroupReport {
            members: vec![member("a", &[0, 1]), member("b", &[2])],
            offsets: vec![
                offset(Some("a"), 10, Some(50)),
                offset(Some("a"), 0, Some(0)),
                offset(Some("b"), 30, Some(9_000)),
                offset(None, 60, None),
            ],
            rebalances: vec![rebalance("gone", "b"), rebalance("a", "b"), rebalance("a", "a")],
            lag_records: 100,
            lag_ms: 9_000,
            ..GroupReport::default()
        };
        let findings = Findings::of(&report);
        let shown: Vec<_> = findings
            .members
            .iter()
            .map(|one| (one.member_id.as_str(), one.partitions, one.waited_for, one.disturbed))
            .collect();
        assert_eq!(shown, [("b", 1, 2, 0), ("a", 2, 1, 2)]);
        let expected = [
            "100 records are left to read, the oldest of them 9.0s old",
            "b is slowest: 30 % of the lag is its",
            "partitions that belong to no member: 1",
            "a rebalance is under way: until every member has joined again, or its session has \
             ended, the others wait",
            "a caused 2 of the last 3 rebalances",
        ];
        assert_eq!(findings.sentences(&report), expected);
    }

    #[test]
    fn a_quiet_group_has_nothing_to_say() {
        let report = GroupReport {
            members: vec![member("a", &[0])],
            offsets: vec![offset(Some("a"), 0, Some(0))],
            rebalances: vec![RebalanceReport { generation: Some(1), ..rebalance("a", "a") }],
            ..GroupReport::default()
        };
        let findings = Findings::of(&report);
        assert_eq!((findings.slowest.as_ref(), findings.disturber.as_ref()), (None, None));
        assert_eq!(findings.sentences(&report), ["everything has been read"]);
    }
}
