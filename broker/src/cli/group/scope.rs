//! Which partitions a command is about: `TOPIC`, or `TOPIC:PARTITION,PARTITION`.

use std::str::FromStr;

use vltava_protocol::ids::PartitionIndex;

use crate::cli::CommandError;
use crate::client::group::protocol::Partitions;
use crate::client::{Client, ClientError};

/// Partitions of one topic, or all of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Scope {
    topic: String,
    partitions: Option<Vec<PartitionIndex>>,
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((topic, list)) = text.split_once(':') else {
            return Ok(Self { topic: text.to_owned(), partitions: None });
        };
        let index = |text: &str| match text.parse() {
            Ok(index) if index >= 0 => Ok(PartitionIndex(index)),
            _ => Err(format!("{text:?} is not the number of a partition")),
        };
        let partitions = list.split(',').map(index).collect::<Result<_, _>>()?;
        Ok(Self { topic: topic.to_owned(), partitions: Some(partitions) })
    }
}

/// The partitions that all the scopes name. One that is not there is an error.
pub(super) async fn resolve(
    client: &mut Client,
    scopes: &[Scope],
) -> Result<Partitions, CommandError> {
    let mut resolved = Partitions::new();
    for scope in scopes {
        let topic = client.topic(&scope.topic, false).await?;
        let all: Vec<PartitionIndex> = topic.partitions.iter().map(|one| one.index).collect();
        let wanted = scope.partitions.as_ref().unwrap_or(&all);
        if let Some(missing) = wanted.iter().find(|index| !all.contains(index)) {
            let missing = format!("{}-{missing} does not exist", scope.topic);
            return Err(ClientError::Missing(missing).into());
        }
        let partitions = resolved.entry(scope.topic.clone()).or_default();
        partitions.extend(wanted);
        partitions.sort_unstable();
        partitions.dedup();
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read() {
        let check = |text: &str, expected: Option<(&str, Option<&[i32]>)>| {
            let scope = text.parse::<Scope>().ok();
            let expected = expected.map(|(topic, partitions)| Scope {
                topic: topic.to_owned(),
                partitions: partitions
                    .map(|indexes| indexes.iter().map(|&index| PartitionIndex(index)).collect()),
            });
            assert_eq!(scope, expected, "{text}");
        };
        check("t", Some(("t", None)));
        check("t:0", Some(("t", Some(&[0]))));
        check("t:2,0", Some(("t", Some(&[2, 0]))));
        check("t:", None);
        check("t:a", None);
        check("t:-1", None);
    }
}
