//! `vltava topic delete`.

use clap::Args;
use serde_json::json;

use super::TOPICS_PER_REQUEST;
use crate::cli::progress::Progress;
use crate::cli::{ClientArgs, CommandError, output, sift};

/// `vltava topic delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The topics' names.
    #[arg(required = true)]
    names: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn run(args: DeleteArgs) -> Result<(), CommandError> {
    let mut client = args.client.connect().await?;
    let mut progress = Progress::items(args.names.len() as u64, "topics");
    let mut results = Vec::new();
    for names in args.names.chunks(TOPICS_PER_REQUEST) {
        let deleted = client.delete_topics(names).await?;
        results.extend(names.iter().zip(deleted).map(|(name, deleted)| deleted.map(|()| name)));
        progress.add(names.len() as u64);
    }
    drop(progress);
    let (deleted, failed) = sift(results);
    if args.client.json {
        let deleted = deleted.iter().map(|name| json!({ "topic": name, "deleted": true }));
        output::json(&deleted.collect())?;
    } else {
        for name in deleted {
            output::line(&format!("topic {name} deleted"))?;
        }
    }
    failed
}
