//! One call of SQS's: its request written, its answer read, and what an error means to whoever holds the queue.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ANSWER, wire};
use crate::{
    aws::{AwsClient, AwsError, Operation},
    queue::{Cause, QueueError},
};

pub(super) async fn find(client: &AwsClient, name: &str) -> Result<String, QueueError> {
    let operation = Operation { action: "GetQueueUrl", timeout: ANSWER, repeatable: true };
    let answer = call(client, operation, &wire::GetUrl { queue_name: name }).await?;
    Ok(read::<wire::UrlAnswer>(operation.action, &answer)?.queue_url)
}

pub(super) async fn call(
    client: &AwsClient,
    operation: Operation,
    request: &impl Serialize,
) -> Result<Bytes, QueueError> {
    let body = written(operation.action, request)?;
    client.call(operation, body).await.map_err(|error| refusal(operation.action, &error))
}

pub(super) fn written(action: &'static str, request: &impl Serialize) -> Result<Bytes, QueueError> {
    serde_json::to_vec(request).map(Bytes::from).map_err(|error| unreadable(action, "request", &error))
}

pub(super) fn read<'a, T: Deserialize<'a>>(action: &'static str, answer: &'a [u8]) -> Result<T, QueueError> {
    serde_json::from_slice(answer).map_err(|error| unreadable(action, "answer", &error))
}

/// Says where JSON is wrong and of what kind the mistake is: its own text may quote a message.
pub(super) fn unreadable(action: &'static str, what: &str, error: &serde_json::Error) -> QueueError {
    let (category, line, column) = (error.classify(), error.line(), error.column());
    let reason = format!("the {what} is not what SQS's JSON protocol says ({category:?} at {line}:{column})");
    QueueError::Unavailable { action, reason, cause: Cause::Fault }
}

pub(super) fn refusal(action: &'static str, error: &AwsError) -> QueueError {
    let reason = match error {
        AwsError::NotFound { code } => {
            format!("the queue does not exist ({code}): check its name, the account and the region")
        }
        other => other.to_string(),
    };
    let unavailable = |cause| QueueError::Unavailable { action, reason: reason.clone(), cause };
    match error {
        AwsError::Network { .. } | AwsError::Timeout { .. } | AwsError::Server { .. } | AwsError::Unreadable { .. } => {
            unavailable(Cause::Fault)
        }
        AwsError::Throttled { code } if code == "OverLimit" => unavailable(Cause::Crowded),
        AwsError::Throttled { .. } => unavailable(Cause::Throttled),
        AwsError::Credentials { passing: true, .. } => unavailable(Cause::Fault),
        AwsError::NotFound { .. } => unavailable(Cause::Missing),
        AwsError::Credentials { .. }
        | AwsError::Denied { .. }
        | AwsError::ClockSkew { .. }
        | AwsError::Rejected { .. }
        | AwsError::Configuration(_) => QueueError::Denied { action, reason },
    }
}
