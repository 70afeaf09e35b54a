//! What Vltava's admin listener tells of a group: `GET /groups/<name>`.

use std::collections::BTreeSet;
use std::time::Duration;

use super::foreign;
use crate::cli::CommandError;
use crate::client::group::GroupDescription;
use crate::client::http::{get, percent_encoded};
use crate::client::{Client, ClientError};
use crate::coordinator::report::{ErrorReport, GroupReport};

/// The port of the admin listener where nobody chose another.
const DEFAULT_PORT: u16 = 9644;

/// Where the admin listener of the broker is, if nobody chose another place.
pub(super) fn default_address(client: &Client) -> Option<String> {
    let (host, _) = client.bootstrap().rsplit_once(':')?;
    Some(format!("{host}:{DEFAULT_PORT}"))
}

/// The report on a group that the cluster has described as `group`. A listener that knows it with
/// other members belongs to another cluster.
pub(super) async fn report(
    address: &str,
    limit: Duration,
    group: &GroupDescription,
) -> Result<GroupReport, CommandError> {
    let path = format!("/groups/{}", percent_encoded(&group.group));
    let answer = get(address, &path, limit).await?;
    if answer.status != 200 {
        let told: Option<ErrorReport> = serde_json::from_slice(&answer.body).ok();
        let reason = told.map_or_else(|| format!("status {}", answer.status), |told| told.error);
        return Err(ClientError::Missing(format!("{address}: {reason}")).into());
    }
    let report: GroupReport = serde_json::from_slice(&answer.body)
        .map_err(|error| foreign(address, &error.to_string()))?;
    let ids = |ids: &mut dyn Iterator<Item = &String>| ids.cloned().collect::<BTreeSet<_>>();
    let described = ids(&mut group.members.iter().map(|member| &member.member_id));
    let reported = ids(&mut report.members.iter().map(|member| &member.member_id));
    // A member may come or go between the two questions, but hardly all of them.
    if !described.is_empty() && !reported.is_empty() && described.is_disjoint(&reported) {
        return Err(foreign(address, "it knows the group with other members").into());
    }
    Ok(report)
}
