//! `vltava group delete` and `vltava group delete-offsets`.

use clap::Args;
use serde_json::json;

use super::scope::{Scope, resolve};
use crate::cli::progress::Progress;
use crate::cli::{ClientArgs, CommandError, output, sift};
use crate::client::ClientError;

/// `vltava group delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The groups.
    #[arg(required = true)]
    groups: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

/// `vltava group delete-offsets`.
#[derive(Debug, Args)]
pub struct DeleteOffsetsArgs {
    /// The group. It may have members, but none that reads these topics.
    group: String,
    /// A topic, or some of its partitions: rivers, rivers:0,2. May be repeated.
    #[arg(long = "topic", value_name = "TOPIC[:N,N]", required = true)]
    scopes: Vec<Scope>,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn groups(args: DeleteArgs) -> Result<(), CommandError> {
    let mut client = args.client.connect().await?;
    let mut progress = Progress::items(args.groups.len() as u64, "groups");
    let mut results = Vec::new();
    for group in args.groups {
        results.push(client.delete_group(&group).await.map(|()| group));
        progress.add(1);
    }
    drop(progress);
    let (deleted, failed) = sift(results);
    if args.client.json {
        let deleted = deleted.iter().map(|group| json!({ "group": group, "deleted": true }));
        output::json(&deleted.collect())?;
    } else {
        for group in deleted {
            output::line(&format!("group {group} deleted"))?;
        }
    }
    failed
}

pub(super) async fn offsets(args: DeleteOffsetsArgs) -> Result<(), CommandError> {
    let mut client = args.client.connect().await?;
    let partitions = resolve(&mut client, &args.scopes).await?;
    let answers = client.delete_offsets(&args.group, &partitions).await?;
    let group = &args.group;
    let result = |(topic, partition, code)| match code {
        0 => Ok((topic, partition)),
        code => {
            let what = format!("offset of group {group} for {topic}-{partition}");
            Err(ClientError::Refused { what, code, message: None })
        }
    };
    let (deleted, failed) = sift(answers.into_iter().map(result));
    if args.client.json {
        let deleted = deleted.iter().map(|(topic, partition)| {
            json!({
                "group": group, "topic": topic, "partition": partition.0, "deleted": true,
            })
        });
        output::json(&deleted.collect())?;
    } else {
        for (topic, partition) in deleted {
            output::line(&format!("offset of group {group} for {topic}-{partition} deleted"))?;
        }
    }
    failed
}
