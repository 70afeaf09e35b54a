//! `DeleteTopics` (key 20), versions 1-6: by name, from version 6 on by id too.
//!
//! Each topic is decided for itself; the answer comes when the records are committed and the local
//! replicas are gone. A request's timeout ends the wait, not the deletion; without time nothing is
//! begun. A topic that the request names more than once has one answer
//! (`ControllerApis.deleteTopics`).

use std::collections::HashSet;
use std::sync::Arc;

use vltava_protocol::ErrorCode;
use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::ids::TopicId;
use vltava_protocol::messages::delete_topics_response::DeletableTopicResult;
use vltava_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, StrBytes};

use super::control::{message, within};
use crate::context::RequestContext;
use crate::controller::decide::{ControlError, TopicRef};

/// Key and versions.
pub const API: Api = Api::new(ApiKey::DeleteTopics, 1..=6);

/// Deletes topics.
pub async fn handle(cx: &RequestContext, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let asked = asked(&request);
    let named: Vec<TopicRef> = asked.iter().filter_map(|topic| topic.clone().ok()).collect();
    let count = named.len();
    let controller = Arc::clone(&cx.node.controller);
    let deletion = async move { controller.delete_topics(named).await };
    let late = || vec![Err(ControlError::TimedOut); count];
    let mut results = within(request.timeout_ms, deletion).await.unwrap_or_else(late).into_iter();
    let mut answers: Vec<DeletableTopicResult> = Vec::with_capacity(asked.len());
    let mut told = HashSet::new();
    for topic in asked {
        let answer = match topic {
            Ok(topic) => {
                let result = results.next().expect("a result for each topic");
                // The answer to the topic's name stands for its id as well.
                let is_told = matches!(&topic, TopicRef::Id(_))
                    && matches!(result, Err(ControlError::NameAndId(_)));
                if is_told || !told.insert(topic.clone()) {
                    continue;
                }
                answer(&topic, result.map(|(name, id)| (name.to_string(), id)), cx.api_version)
            }
            Err(refused) => refused,
        };
        if let Some(code) = ErrorCode::from_code(answer.error_code) {
            cx.count(code);
        }
        answers.push(answer);
    }
    DeleteTopicsResponse::default().with_responses(answers)
}

/// The topics of a request, or the answer to one that is not named by just one of name and id.
fn asked(request: &DeleteTopicsRequest) -> Vec<Result<TopicRef, DeletableTopicResult>> {
    let refuse = |answer: DeletableTopicResult, message| {
        Err(answer
            .with_error_code(ErrorCode::InvalidRequest.code())
            .with_error_message(Some(StrBytes::from_static_str(message))))
    };
    let names = request.topic_names.iter().map(|name| Ok(TopicRef::Name(name.to_string())));
    let topics = request.topics.iter().map(|topic| {
        let answer = DeletableTopicResult::default()
            .with_name(topic.name.clone())
            .with_topic_id(topic.topic_id);
        match (&topic.name, TopicId(topic.topic_id)) {
            (Some(name), TopicId::ZERO) => Ok(TopicRef::Name(name.to_string())),
            (None, TopicId::ZERO) => refuse(answer, "Neither topic name nor id were specified."),
            (None, id) => Ok(TopicRef::Id(id)),
            (Some(_), _) => refuse(answer, "You may not specify both topic name and topic id."),
        }
    });
    names.chain(topics).collect()
}

fn answer(
    topic: &TopicRef,
    result: Result<(String, TopicId), ControlError>,
    version: i16,
) -> DeletableTopicResult {
    let named = |name: String| Some(StrBytes::from_string(name).into());
    match result {
        Ok((name, id)) => {
            DeletableTopicResult::default().with_name(named(name)).with_topic_id(id.0)
        }
        Err(error) => {
            let code = match error.code() {
                // Clients below version 3 do not know the code.
                ErrorCode::TopicDeletionDisabled if version < 3 => ErrorCode::InvalidRequest,
                code => code,
            };
            let answer = DeletableTopicResult::default()
                .with_error_code(code.code())
                .with_error_message(message(&error));
            match topic {
                TopicRef::Name(name) => {
                    let id =
                        if let ControlError::NameAndId(id) = error { id } else { TopicId::ZERO };
                    answer.with_name(named(name.clone())).with_topic_id(id.0)
                }
                TopicRef::Id(id) => answer.with_name(None).with_topic_id(id.0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use vltava_protocol::messages::delete_topics_request::DeleteTopicState;
    use vltava_protocol::messages::encode_response;

    use super::*;

    #[test]
    fn a_topic_is_named_one_way() {
        let id = uuid::Uuid::from_u128(7);
        let name = || Some(StrBytes::from_static_str("t").into());
        let state = DeleteTopicState::default;
        let request = DeleteTopicsRequest::default().with_topics(vec![
            state().with_name(name()),
            state().with_name(None).with_topic_id(id),
            state().with_name(None),
            state().with_name(name()).with_topic_id(id),
        ]);
        let asked = asked(&request);
        assert_eq!(asked[0], Ok(TopicRef::Name("t".into())));
        assert_eq!(asked[1], Ok(TopicRef::Id(TopicId(id))));
        for refused in &asked[2..] {
            assert_eq!(refused.as_ref().unwrap_err().error_code, 42);
        }
        let old = DeleteTopicsRequest::default()
            .with_topic_names(vec![StrBytes::from_static_str("t").into()]);
        assert_eq!(super::asked(&old), [Ok(TopicRef::Name("t".into()))]);
    }

    #[test]
    fn every_version_can_be_answered() {
        let by_name = TopicRef::Name("t".into());
        let id = TopicId(uuid::Uuid::from_u128(7));
        for version in 1..=6 {
            let disabled = answer(&by_name, Err(ControlError::DeletionDisabled), version);
            assert_eq!(disabled.error_code, if version < 3 { 42 } else { 73 });
            let mut answers = vec![disabled, answer(&by_name, Ok(("t".into(), id)), version)];
            if version >= 6 {
                let unknown = Err(ControlError::UnknownId(id));
                answers.push(answer(&TopicRef::Id(id), unknown, version));
            }
            let response = DeleteTopicsResponse::default().with_responses(answers);
            encode_response(1, ApiKey::DeleteTopics, version, &response).unwrap();
        }
    }
}
