//! `vltava group explain`: what disturbs a group, and who in it is slow.
//!
//! Vltava's admin listener knows the history of a group. Where nobody answers there, as with any
//! other broker, what the protocol tells is put into the same form, without a history.

mod admin;
mod findings;
mod protocol;

use std::time::Duration;

use clap::Args;
use serde_json::Value;
use vltava_protocol::ids::Timestamp;

use super::position::or_dash;
use crate::cli::{ClientArgs, CommandError, output, when};
use crate::client::ClientError;
use crate::coordinator::report::{GroupReport, MemberReport, RebalanceReport};
use findings::{Findings, MemberLag};

/// How long an admin listener is waited for that nobody has named.
const UNASKED_PATIENCE: Duration = Duration::from_secs(2);

/// `vltava group explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The group.
    group: String,
    /// Vltava's admin listener; without it, port 9644 of the broker is tried.
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn run(args: ExplainArgs) -> Result<(), CommandError> {
    let mut client = args.client.connect().await?;
    let group = client.describe_group(&args.group).await?;
    let told = match (&args.admin, admin::default_address(&client)) {
        (Some(address), _) => Some(admin::report(address, client.timeout(), &group).await?),
        // Nobody asked for that one in particular, so it may be missing.
        (None, Some(address)) => {
            let limit = client.timeout().min(UNASKED_PATIENCE);
            admin::report(&address, limit, &group).await.ok()
        }
        (None, None) => None,
    };
    let has_history = told.is_some();
    let report = match told {
        Some(report) => report,
        None => protocol::report(&mut client, &group).await?,
    };
    let findings = Findings::of(&report);
    if args.client.json {
        return output::json(&as_json(&report, &findings, has_history)?);
    }
    print(&report, &findings, has_history)
}

fn as_json(
    report: &GroupReport,
    findings: &Findings,
    has_history: bool,
) -> Result<Value, CommandError> {
    let unreadable = |error: serde_json::Error| CommandError::Argument(error.to_string());
    let mut object = serde_json::to_value(report).map_err(unreadable)?;
    object["findings"] = serde_json::to_value(findings).map_err(unreadable)?;
    object["source"] = Value::from(if has_history { "admin" } else { "protocol" });
    if !has_history {
        forget_unknown(&mut object);
    }
    Ok(object)
}

/// What the protocol does not tell is null and not a default.
fn forget_unknown(report: &mut Value) {
    report["rebalances"] = Value::Null;
    report["leader"] = Value::Null;
    report["coordinator"]["partition"] = Value::Null;
    let forget = |objects: &mut Value, fields: &[&str]| {
        for object in objects.as_array_mut().into_iter().flatten() {
            for field in fields {
                object[*field] = Value::Null;
            }
        }
    };
    forget(&mut report["members"], &["session_timeout_ms", "rebalance_timeout_ms"]);
    forget(&mut report["offsets"], &["committed_at_ms"]);
    forget(&mut report["findings"]["members"], &["waited_for", "disturbed"]);
    // A group of the newer kind tells its epoch, which is never 0 while it is there.
    if report["generation"] == 0 {
        report["generation"] = Value::Null;
    }
}

fn print(report: &GroupReport, findings: &Findings, history: bool) -> Result<(), CommandError> {
    let assignor = if report.protocol.is_empty() { "-" } else { &report.protocol };
    let generation =
        if history { format!("  generation {}", report.generation) } else { String::new() };
    output::line(&format!(
        "group {}  state {}{generation}  assignor {assignor}  members {}",
        report.group,
        report.state,
        report.members.len(),
    ))?;
    for sentence in findings.sentences(report) {
        output::line(&format!("- {sentence}"))?;
    }
    if !findings.members.is_empty() {
        print_members(report, findings, history)?;
    }
    if !report.rebalances.is_empty() {
        return print_rebalances(&report.rebalances);
    }
    if history {
        return output::line("no rebalance since the coordinator has started");
    }
    output::line("no history: no admin listener of Vltava's tells of this group (--admin)")
}

fn print_members(
    report: &GroupReport,
    findings: &Findings,
    has_history: bool,
) -> Result<(), CommandError> {
    let member = |id: &str| report.members.iter().find(|member| member.member_id == id);
    let row = |lag: &MemberLag| {
        let of_member = |field: fn(&MemberReport) -> &str| {
            member(&lag.member_id).map_or_else(|| "-".to_owned(), |one| field(one).to_owned())
        };
        vec![
            lag.member_id.clone(),
            of_member(|member| &member.client_id),
            of_member(|member| &member.client_host),
            lag.partitions.to_string(),
            lag.lag_records.to_string(),
            or_dash(lag.lag_ms.map(when::show_ms)),
            or_dash(has_history.then_some(lag.waited_for)),
            or_dash(has_history.then_some(lag.disturbed)),
        ]
    };
    let header =
        ["MEMBER", "CLIENT", "HOST", "PARTITIONS", "LAG", "BEHIND", "WAITED FOR", "CAUSED"];
    output::table(&header, findings.members.iter().map(row).collect())
}

fn print_rebalances(rebalances: &[RebalanceReport]) -> Result<(), CommandError> {
    let row = |rebalance: &RebalanceReport| {
        let reason = rebalance.reason.as_deref().filter(|reason| !reason.is_empty());
        vec![
            when::show(Timestamp(rebalance.at_ms)),
            rebalance.generation.map_or_else(|| "under way".to_owned(), |one| one.to_string()),
            rebalance.cause.clone(),
            rebalance.member_id.clone(),
            rebalance.client_host.clone(),
            or_dash(rebalance.took_ms.map(when::show_ms)),
            or_dash(rebalance.slowest_member.as_ref()),
            reason.unwrap_or("-").to_owned(),
        ]
    };
    let header =
        ["REBALANCE", "GENERATION", "CAUSE", "BY", "HOST", "TOOK", "WAITED FOR", "REASON GIVEN"];
    // The newest is what a person looks for.
    output::table(&header, rebalances.iter().rev().map(row).collect())
}

/// An admin listener that is no Vltava's, or whose cluster is another.
fn foreign(address: &str, reason: &str) -> ClientError {
    let (address, reason) = (address.to_owned(), reason.to_owned());
    ClientError::Malformed { address, api: "GET /groups", reason }
}
