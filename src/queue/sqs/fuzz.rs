//! A door for what throws anything at the readers of SQS's answers: the fuzz target `answers` and a test. Builds that do
//! neither do not have it.

use std::time::SystemTime;

use hyper::{HeaderMap, StatusCode, header::HeaderValue};

use super::{query, read, refusal, wire};
use crate::aws::from_answer;

/// Reads an answer as each operation would, and as an error of this status and type.
///
/// # Panics
/// Where a reader breaks a promise: an error is told in one line that is not empty, and an entry that is not called done
/// is not done.
pub fn read_answer(status: u16, error_type: &str, body: &[u8]) {
    drop(wire::messages(body));
    drop(read::<wire::UrlAnswer>("GetQueueUrl", body));
    if let Ok(translated) = (query::QUERY.answer)(body) {
        assert!(read::<serde_json::Value>("ReceiveMessage", &translated).is_ok(), "what is translated is JSON");
        drop(wire::messages(&translated));
    }
    if let Ok(answer) = read::<wire::AttributesAnswer>("GetQueueAttributes", body) {
        drop(serde_json::from_str::<wire::RedrivePolicy>(&answer.attributes.redrive_policy));
    }
    if let Ok(answer) = read::<wire::BatchAnswer>("DeleteMessageBatch", body) {
        assert!(answer.done().iter().filter(|done| **done).count() <= answer.successful.len());
    }
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(error_type) {
        headers.insert("x-amzn-query-error", value.clone());
        headers.insert(hyper::header::DATE, value);
    }
    let Ok(status) = StatusCode::from_u16(status) else { return };
    let error = from_answer("sqs:DeleteMessage".to_owned(), status, &headers, body, SystemTime::UNIX_EPOCH);
    let told = refusal("DeleteMessageBatch", &error).to_string();
    assert!(!told.trim().is_empty() && !told.contains(char::is_control), "an error is one line");
}
