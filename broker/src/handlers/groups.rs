//! What the handlers of groups share: asking the coordinator, and its words in those of the wire.

use std::net::IpAddr;
use std::time::Duration;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::ids::{TopicId, TopicName};
use vltava_protocol::messages::{Encodable, HeaderVersion, StrBytes};
use vltava_storage::log::Durability;

use crate::connection::{Reply, Stage};
use crate::context::RequestContext;
use crate::controller::MetadataImage;
use crate::coordinator::group::ids::Text;
use crate::coordinator::group::request::{ByTopic, Client};
use crate::coordinator::group::{GroupRequest, GroupResponse};
use crate::coordinator::runtime::Asked;

/// For what waits for other members: the coordinator has timeouts of its own.
pub(super) const ENDLESS: Duration = Duration::MAX;

/// Asks and returns when the request is decided; whoever it waits for, the connection's next
/// request that overlaps may begin. The request is forgotten when its client ends the connection,
/// and refused when the server ends, or after `patience`.
pub(super) fn park<R: Encodable + HeaderVersion>(
    cx: RequestContext,
    request: GroupRequest,
    patience: Duration,
    respond: impl FnOnce(&RequestContext, GroupResponse) -> R + Send + 'static,
) -> Stage {
    let answer = |cx: &RequestContext, response| cx.reply(&respond(cx, response));
    let parked = match cx.node.groups.ask(request) {
        Ok(Asked::Parked(parked)) => parked,
        Ok(Asked::Answered(response)) => return Stage::Done(answer(&cx, response)),
        Err(code) => return Stage::Done(answer(&cx, GroupResponse::Failed(code))),
    };
    Stage::Ordered(Box::pin(async move {
        let response = tokio::select! {
            biased;
            response = parked => response.unwrap_or_else(GroupResponse::Failed),
            () = cx.client.ended() => return cx.silence(),
            () = cx.shutdown.requested() => GroupResponse::Failed(ErrorCode::NotCoordinator),
            () = tokio::time::sleep(patience) => {
                GroupResponse::Failed(ErrorCode::CoordinatorNotAvailable)
            }
        };
        answer(&cx, response)
    }))
}

/// The coordinator's answer to one that does not wait for other members.
pub(super) async fn answer(cx: &RequestContext, request: GroupRequest) -> GroupResponse {
    cx.node.groups.answer(request).await
}

/// Waits for room in the disk's queue before something is appended.
pub(super) async fn room(cx: &RequestContext, bytes: usize) {
    // The cluster's own topics are always synced.
    cx.node.partitions.storage().room.available(bytes, Durability::Fsync).await;
}

/// The error of an answer that is none to what was asked.
pub(super) fn failure(response: &GroupResponse) -> ErrorCode {
    match response {
        GroupResponse::Failed(code) => *code,
        // A shard answers in kind.
        _ => ErrorCode::UnknownServerError,
    }
}

/// Who asks, as it is kept in the group.
pub(super) fn client(cx: &RequestContext) -> Client {
    Client { id: Text::from(cx.client_id.as_deref().unwrap_or("")), host: host(cx.peer.ip()) }
}

/// As Java writes an address that was not looked up: `/127.0.0.1`, `/0:0:0:0:0:0:0:1`.
fn host(ip: IpAddr) -> Text {
    let text = match ip.to_canonical() {
        IpAddr::V4(ip) => format!("/{ip}"),
        IpAddr::V6(ip) => {
            let groups = ip.segments().map(|segment| format!("{segment:x}"));
            format!("/{}", groups.join(":"))
        }
    };
    Text::from(text)
}

/// A copy, for a response.
pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A copy that keeps no frame alive.
pub(super) fn copied<T: for<'a> From<&'a str>>(text: Option<&StrBytes>) -> Option<T> {
    text.map(|text| T::from(text.as_str()))
}

/// A reply to a request that is refused before a shard is asked.
pub(super) fn refuse<R: Encodable + HeaderVersion>(cx: &RequestContext, response: &R) -> Reply {
    cx.reply(response)
}

/// A topic as a request names it: by id, or by name.
pub(super) fn topic_of(
    image: &MetadataImage,
    by_id: bool,
    name: &str,
    id: uuid::Uuid,
) -> Result<(TopicName, TopicId), ErrorCode> {
    let (topic, code) = if by_id {
        (image.topic_by_id(TopicId(id)), ErrorCode::UnknownTopicId)
    } else {
        (image.topic(name), ErrorCode::UnknownTopicOrPartition)
    };
    topic.map(|topic| (topic.name.clone(), topic.id)).ok_or(code)
}

/// The outcome of each partition of a request, by its place in the request: what is known before
/// the shard is asked, and what the shard then says of the others.
#[derive(Debug)]
pub(super) struct Outcomes {
    /// Of each topic, of each partition: decided, or the next of the shard's.
    topics: Vec<Vec<Option<ErrorCode>>>,
}

impl Outcomes {
    pub(super) fn new() -> Self {
        Self { topics: Vec::new() }
    }

    pub(super) fn push(&mut self, partitions: Vec<Option<ErrorCode>>) {
        self.topics.push(partitions);
    }

    /// All outcomes in the request's order. The shard's are in the order in which it was asked.
    pub(super) fn settle(self, answered: Vec<ByTopic<ErrorCode>>) -> Vec<Vec<ErrorCode>> {
        let mut answers = answered.into_iter().flat_map(|topic| topic.partitions);
        let mut settle = |decided: Option<ErrorCode>| {
            decided.unwrap_or_else(|| {
                answers.next().map_or(ErrorCode::UnknownServerError, |(_, code)| code)
            })
        };
        let topics = self.topics.into_iter();
        topics.map(|partitions| partitions.into_iter().map(&mut settle).collect()).collect()
    }

    /// One error for all that the shard was to answer.
    pub(super) fn fail(self, code: ErrorCode) -> Vec<Vec<ErrorCode>> {
        let fail = |partitions: Vec<Option<ErrorCode>>| {
            partitions.into_iter().map(|decided| decided.unwrap_or(code)).collect()
        };
        self.topics.into_iter().map(fail).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_written_as_java_writes_them() {
        for (ip, expected) in [
            ("127.0.0.1", "/127.0.0.1"),
            ("::ffff:10.0.0.7", "/10.0.0.7"),
            ("::1", "/0:0:0:0:0:0:0:1"),
            ("fe80::a:bc", "/fe80:0:0:0:0:0:a:bc"),
        ] {
            assert_eq!(&*host(ip.parse().unwrap()), expected);
        }
    }
}
