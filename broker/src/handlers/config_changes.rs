//! What the two requests that change configurations share: the checks before the controller is
//! asked (`ConfigAdminManager.preprocess`), and the way there and back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use vltava_protocol::ErrorCode;

use super::control::to_its_end;
use crate::config::resource::ResourceKind;
use crate::context::RequestContext;
use crate::controller::configs::{ConfigChange, ConfigOperation, ConfigTarget};
use crate::controller::error::ControlError;
use crate::logging::loggers;

/// The kind of a resource that is a topic (`ConfigResource.Type`).
pub const TOPIC: i8 = 2;
/// The kind of a resource that is a broker.
pub const BROKER: i8 = 4;
/// The kind of a resource that is the loggers of a broker (KIP-412).
pub const LOGGERS: i8 = 8;
/// The kind of a resource that is a subscription to client metrics (KIP-714).
pub const CLIENT_METRICS: i8 = 16;
/// The kind of a resource that is a group (KIP-848).
pub const GROUP: i8 = 32;

/// The most resources of one request (`QuorumController.MAX_RECORDS_PER_USER_OP`).
pub const RESOURCES_PER_REQUEST_MAX: usize = 10_000;

/// What became of one resource's change.
pub type Verdict = Result<(), ControlError>;

/// Who takes the change of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The controller.
    Controller(ConfigTarget),
    /// This process's log lines.
    Loggers,
}

/// One resource of a request.
#[derive(Debug)]
pub struct Asked {
    /// Kind and name, as they were given.
    pub resource: (i8, String),
    /// Who takes it, or why nobody does.
    pub target: Result<Target, ControlError>,
    /// Whether what is not named is forgotten.
    pub replaces: bool,
    /// What is done to each key; `None` where a value is missing.
    pub operations: Vec<(String, Option<Result<ConfigOperation, ControlError>>)>,
}

/// Who takes a change of this resource; loggers are the caller's to tell.
pub fn resource_target(cx: &RequestContext, kind: i8, name: &str) -> Result<Target, ControlError> {
    let target = match kind {
        TOPIC => ConfigTarget::Topic(name.to_owned()),
        BROKER if name.is_empty() => ConfigTarget::Broker(None),
        BROKER => {
            let own = cx.node.node_id;
            match name.parse::<i32>() {
                Ok(id) if id == own.0 => ConfigTarget::Broker(Some(own)),
                Ok(_) => {
                    let refused =
                        format!("Unexpected broker id, expected {own}, but received {name}");
                    return Err(ControlError::Request(refused));
                }
                Err(_) => return Err(not_a_number(name)),
            }
        }
        CLIENT_METRICS => ConfigTarget::Resource(ResourceKind::ClientMetrics, name.to_owned()),
        GROUP => ConfigTarget::Resource(ResourceKind::Group, name.to_owned()),
        other => return Err(ControlError::Request(format!("Unknown resource type {other}"))),
    };
    Ok(Target::Controller(target))
}

fn not_a_number(name: &str) -> ControlError {
    ControlError::Request(format!("Node id must be an integer, but it is: {name}"))
}

/// Makes the changes, each resource for itself, and tells what became of them in their order.
pub async fn carry_out(
    cx: &RequestContext,
    asked: Vec<Asked>,
    validate_only: bool,
) -> Vec<Verdict> {
    if asked.len() > RESOURCES_PER_REQUEST_MAX {
        cx.count(ErrorCode::PolicyViolation);
        return asked.iter().map(|_| Err(ControlError::TooManyResources)).collect();
    }
    let mut named: HashMap<(i8, String), usize> = HashMap::new();
    for one in &asked {
        *named.entry(one.resource.clone()).or_default() += 1;
    }
    let mut verdicts: Vec<Option<Verdict>> = Vec::with_capacity(asked.len());
    let mut changes = Vec::new();
    for one in asked {
        let is_repeated = named[&one.resource] > 1;
        let (kind, name) = one.resource.clone();
        match checked(one, is_repeated) {
            Ok((Target::Controller(target), replaces, operations)) => {
                changes.push(ConfigChange { target, replaces, operations });
                verdicts.push(None);
            }
            Ok((Target::Loggers, _, operations)) => {
                debug_assert_eq!(kind, LOGGERS);
                verdicts.push(Some(change_loggers(cx, &name, &operations, validate_only)));
            }
            Err(error) => verdicts.push(Some(Err(error))),
        }
    }
    let mut decided = by_controller(cx, changes, validate_only).await.into_iter();
    let verdict = |verdict: Option<Verdict>| {
        let verdict = verdict.or_else(|| decided.next()).expect("a verdict for each change");
        if let Err(error) = &verdict {
            cx.count(error.code());
        }
        verdict
    };
    verdicts.into_iter().map(verdict).collect()
}

async fn by_controller(
    cx: &RequestContext,
    changes: Vec<ConfigChange>,
    validate_only: bool,
) -> Vec<Verdict> {
    if changes.is_empty() {
        return Vec::new();
    }
    let (controller, count) = (Arc::clone(&cx.node.controller), changes.len());
    let change = async move { controller.alter_configs(changes, validate_only).await };
    let ended = || vec![Err(ControlError::Log(ErrorCode::NotController)); count];
    to_its_end(change).await.unwrap_or_else(ended)
}

type Checked = (Target, bool, Vec<(String, ConfigOperation)>);

/// The checks that come before any key is looked at.
fn checked(one: Asked, is_repeated: bool) -> Result<Checked, ControlError> {
    let refuse = |text: &str| Err(ControlError::Request(text.to_owned()));
    if is_repeated {
        return refuse("Each resource must appear at most once.");
    }
    let mut keys = HashSet::new();
    if !one.operations.iter().all(|(name, _)| keys.insert(name)) {
        return refuse("Error due to duplicate config keys");
    }
    let without_value = one.operations.iter().filter(|(_, operation)| operation.is_none());
    let without_value: Vec<&str> = without_value.map(|(name, _)| name.as_str()).collect();
    if !without_value.is_empty() {
        return refuse(&format!("Null value not supported for : {}", without_value.join(", ")));
    }
    let target = one.target?;
    let operations = one.operations.into_iter().map(|(name, operation)| {
        Ok((name, operation.expect("those without a value were refused")?))
    });
    Ok((target, one.replaces, operations.collect::<Result<_, ControlError>>()?))
}

/// Changes the levels of this process's loggers (`RuntimeLoggerManager`).
fn change_loggers(
    cx: &RequestContext,
    name: &str,
    operations: &[(String, ConfigOperation)],
    validate_only: bool,
) -> Verdict {
    let own = cx.node.node_id;
    match name.parse::<i32>() {
        Ok(id) if id == own.0 => {}
        Ok(_) => {
            let refused = format!("Unexpected node id. Expected {own}, but received {name}");
            return Err(ControlError::Request(refused));
        }
        Err(_) => return Err(not_a_number(name)),
    }
    let mut changes = Vec::new();
    for (logger, operation) in operations {
        let refused = |operation: &str| {
            let text =
                format!("{operation} operation is not allowed for the BROKER_LOGGER resource");
            Err(ControlError::Request(text))
        };
        match operation {
            ConfigOperation::Set(level) => changes.push((logger.clone(), Some(level.clone()))),
            ConfigOperation::Delete => changes.push((logger.clone(), None)),
            ConfigOperation::Append(_) => return refused("APPEND"),
            ConfigOperation::Subtract(_) => return refused("SUBTRACT"),
        }
    }
    loggers::alter(&changes, validate_only).map_err(|error| match error {
        loggers::LoggerError::Root | loggers::LoggerError::NotOurs => {
            ControlError::Request(error.to_string())
        }
        wrong => ControlError::ConfigOperation(wrong.to_string()),
    })
}
