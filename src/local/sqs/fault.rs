//! What goes wrong, by the names that Amazon SQS has for it. Every code exists twice: as a shape in the JSON body and,
//! for clients that grew up with the older query protocol, in the header `x-amzn-query-error` (AWS JSON protocol with
//! the `awsQueryCompatible` trait). The texts are this server's own and carry nothing from a message.

use axum::http::StatusCode;
use thiserror::Error;

use crate::queue::memory::{CreateError, ReceiptError};

/// Why a request, or one entry of a batch, was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum Fault {
    #[error("the specified queue does not exist")]
    QueueDoesNotExist,
    #[error("a queue of this name exists with other attributes")]
    QueueNameExists,
    #[error("the receipt handle is not one of this queue's")]
    ReceiptHandleIsInvalid,
    #[error("unknown attribute {0}")]
    InvalidAttributeName(String),
    #[error("invalid value for the attribute {attribute}: {reason}")]
    InvalidAttributeValue { attribute: &'static str, reason: String },
    #[error("the value of the parameter {parameter} is invalid: {reason}")]
    InvalidParameterValue { parameter: &'static str, reason: String },
    #[error("the request must contain the parameter {0}")]
    MissingParameter(&'static str),
    #[error("the message contains characters outside #x9, #xA, #xD, #x20-#xD7FF, #xE000-#xFFFD, #x10000-#x10FFFF")]
    InvalidMessageContents,
    #[error("the request has no entries")]
    EmptyBatchRequest,
    #[error("a request has at most 10 entries; this one has {0}")]
    TooManyEntriesInBatchRequest(usize),
    #[error("the id {0} is repeated")]
    BatchEntryIdsNotDistinct(String),
    #[error("an entry's id is 1 to 80 letters, digits, hyphens and underscores")]
    InvalidBatchEntryId,
    #[error("the messages of a request have at most {limit} bytes together; these have {size}")]
    BatchRequestTooLong { limit: usize, size: usize },
    #[error("too many messages are in flight; delete some")]
    OverLimit,
    #[error("{0}")]
    UnsupportedOperation(String),
    #[error("the script has the request throttled")]
    RequestThrottled,
    #[error("the script has the service unavailable")]
    ServiceUnavailable,
    #[error("the script has the request denied")]
    AccessDenied,
    #[error("the script has the security token expired")]
    ExpiredToken,
    #[error("the script has the entry fail")]
    InternalError,
    #[error("the request's body is not what the operation takes (line {line}, column {column})")]
    Serialization { line: usize, column: usize },
    #[error("the request's body was cut off or is larger than {limit} bytes")]
    BodyUnreadable { limit: usize },
}

impl Fault {
    /// The shape: the name in the service's model.
    fn shape(&self) -> &'static str {
        match self {
            Self::QueueDoesNotExist => "com.amazonaws.sqs#QueueDoesNotExist",
            Self::QueueNameExists => "com.amazonaws.sqs#QueueNameExists",
            Self::ReceiptHandleIsInvalid => "com.amazonaws.sqs#ReceiptHandleIsInvalid",
            Self::InvalidAttributeName(_) => "com.amazonaws.sqs#InvalidAttributeName",
            Self::InvalidAttributeValue { .. } => "com.amazonaws.sqs#InvalidAttributeValue",
            Self::InvalidParameterValue { .. } => "com.amazon.coral.service#InvalidParameterValueException",
            Self::MissingParameter(_) => "com.amazon.coral.service#MissingRequiredParameterException",
            Self::InvalidMessageContents => "com.amazonaws.sqs#InvalidMessageContents",
            Self::EmptyBatchRequest => "com.amazonaws.sqs#EmptyBatchRequest",
            Self::TooManyEntriesInBatchRequest(_) => "com.amazonaws.sqs#TooManyEntriesInBatchRequest",
            Self::BatchEntryIdsNotDistinct(_) => "com.amazonaws.sqs#BatchEntryIdsNotDistinct",
            Self::InvalidBatchEntryId => "com.amazonaws.sqs#InvalidBatchEntryId",
            Self::BatchRequestTooLong { .. } => "com.amazonaws.sqs#BatchRequestTooLong",
            Self::OverLimit => "com.amazonaws.sqs#OverLimit",
            Self::UnsupportedOperation(_) => "com.amazonaws.sqs#UnsupportedOperation",
            Self::RequestThrottled => "com.amazonaws.sqs#RequestThrottled",
            Self::ServiceUnavailable => "com.amazon.coral.service#ServiceUnavailableException",
            Self::AccessDenied => "com.amazon.coral.service#AccessDeniedException",
            Self::ExpiredToken => "com.amazon.coral.service#ExpiredTokenException",
            Self::InternalError => "com.amazon.coral.service#InternalFailure",
            Self::Serialization { .. } | Self::BodyUnreadable { .. } => {
                "com.amazon.coral.service#SerializationException"
            }
        }
    }

    /// The code of the query protocol, which is also the code of a batch entry.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::QueueDoesNotExist => "AWS.SimpleQueueService.NonExistentQueue",
            Self::QueueNameExists => "QueueAlreadyExists",
            Self::ReceiptHandleIsInvalid => "ReceiptHandleIsInvalid",
            Self::InvalidAttributeName(_) => "InvalidAttributeName",
            Self::InvalidAttributeValue { .. } => "InvalidAttributeValue",
            Self::InvalidParameterValue { .. } => "InvalidParameterValue",
            Self::MissingParameter(_) => "MissingParameter",
            Self::InvalidMessageContents => "InvalidMessageContents",
            Self::EmptyBatchRequest => "AWS.SimpleQueueService.EmptyBatchRequest",
            Self::TooManyEntriesInBatchRequest(_) => "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
            Self::BatchEntryIdsNotDistinct(_) => "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
            Self::InvalidBatchEntryId => "AWS.SimpleQueueService.InvalidBatchEntryId",
            Self::BatchRequestTooLong { .. } => "AWS.SimpleQueueService.BatchRequestTooLong",
            Self::OverLimit => "OverLimit",
            Self::UnsupportedOperation(_) => "AWS.SimpleQueueService.UnsupportedOperation",
            Self::RequestThrottled => "RequestThrottled",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::AccessDenied => "AccessDenied",
            Self::ExpiredToken => "ExpiredToken",
            Self::InternalError => "InternalError",
            Self::Serialization { .. } | Self::BodyUnreadable { .. } => "SerializationException",
        }
    }

    /// Whether the sender could have done better.
    pub(super) fn is_senders(&self) -> bool {
        !matches!(self, Self::ServiceUnavailable | Self::InternalError)
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::AccessDenied | Self::ExpiredToken => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The body of the answer and its `x-amzn-query-error`.
    pub(super) fn answer(&self) -> (String, String) {
        let body = serde_json::json!({ "__type": self.shape(), "message": self.to_string() });
        (body.to_string(), format!("{};{}", self.code(), if self.is_senders() { "Sender" } else { "Receiver" }))
    }
}

impl From<ReceiptError> for Fault {
    fn from(error: ReceiptError) -> Self {
        match error {
            ReceiptError::Invalid => Self::ReceiptHandleIsInvalid,
            ReceiptError::Gone => Self::InvalidParameterValue { parameter: "ReceiptHandle", reason: error.to_string() },
            ReceiptError::TooLong => {
                Self::InvalidParameterValue { parameter: "VisibilityTimeout", reason: error.to_string() }
            }
        }
    }
}

impl From<CreateError> for Fault {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Exists => Self::QueueNameExists,
            CreateError::Name => Self::InvalidParameterValue { parameter: "QueueName", reason: error.to_string() },
        }
    }
}

impl From<serde_json::Error> for Fault {
    /// Keeps the place only: serde's own text quotes the value.
    fn from(error: serde_json::Error) -> Self {
        Self::Serialization { line: error.line(), column: error.column() }
    }
}
