//! AWS JSON 1.0 over HTTP: which operation a request names, and how an answer looks. Every call passes through
//! [`answer`], one request to one answer.

use std::io;

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use futures_util::stream;
use serde::Serialize;

use super::{Service, call::Call, fault::Fault, messages, queues, script::Trouble};
use crate::queue::memory::random_id;

/// The largest body of a request. A batch is 1 MiB; a client that escapes every character outside ASCII makes up to
/// three times that of it, one that escapes all makes six. More would only let a stray upload fill the memory.
const BODY_LIMIT: usize = 8 * 1024 * 1024;
/// Bytes of most answers at most: ten messages of a few hundred bytes.
const USUAL_ANSWER: usize = 12 * 1024;
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/x-amz-json-1.0");

/// Answers one request.
pub(super) async fn answer(State(service): State<Service>, request: Request) -> Response {
    let requested_at = service.history.now();
    let (head, body) = request.into_parts();
    let action = text(&head.headers, "x-amz-target").strip_prefix("AmazonSQS.").unwrap_or_default();
    service.requests.count(action);
    let call = Call { service: &service, action, by: signer(&head.headers), requested_at };
    let answered = match to_bytes(body, BODY_LIMIT).await {
        Ok(body) => perform(&call, text(&head.headers, "host"), &body).await,
        Err(_cut_or_too_large) => Err(Fault::BodyUnreadable { limit: BODY_LIMIT }),
    };
    if call.has(Trouble::LoseAnswer) {
        return respond(StatusCode::OK, broken(), None);
    }
    match answered {
        Ok(body) => respond(StatusCode::OK, body.into(), None),
        Err(fault) => {
            let (body, query_error) = fault.answer();
            respond(fault.status(), body.into(), HeaderValue::try_from(query_error).ok())
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The access key id in `AWS4-HMAC-SHA256 Credential=ID/DATE/…`, which nothing here verifies.
fn signer(headers: &HeaderMap) -> &str {
    let credential = text(headers, "authorization").split_once("Credential=");
    credential.and_then(|(_, scope)| scope.split('/').next()).unwrap_or_default()
}

/// Does what `X-Amz-Target` names and serialises what comes of it.
async fn perform(call: &Call<'_>, host: &str, body: &Bytes) -> Result<Vec<u8>, Fault> {
    call.begin().await?;
    let service = call.service;
    match call.action {
        "" => Err(Fault::UnsupportedOperation(
            "only AWS JSON 1.0 is spoken here: POST with X-Amz-Target: AmazonSQS.…".into(),
        )),
        "ReceiveMessage" => reply(&messages::receive(call, parse(body)?).await?),
        "DeleteMessageBatch" => reply(&messages::delete_batch(call, &parse(body)?)?),
        "DeleteMessage" => reply(&messages::delete(call, &parse(body)?)?),
        "ChangeMessageVisibilityBatch" => reply(&messages::change_visibility_batch(call, &parse(body)?)?),
        "ChangeMessageVisibility" => reply(&messages::change_visibility(call, &parse(body)?)?),
        "SendMessageBatch" => reply(&messages::send_batch(call, &parse(body)?)?),
        "SendMessage" => reply(&messages::send(call, &parse(body)?)?),
        "CreateQueue" => reply(&queues::create(service, host, &parse(body)?)?),
        "GetQueueUrl" => reply(&queues::url(service, host, &parse(body)?)?),
        "ListQueues" => reply(&queues::list(service, host, &parse(body)?)?),
        "DeleteQueue" => reply(&queues::delete(service, &parse(body)?)?),
        "PurgeQueue" => reply(&queues::purge(service, &parse(body)?)?),
        "GetQueueAttributes" => reply(&queues::get_attributes(service, &parse(body)?)?),
        "SetQueueAttributes" => reply(&queues::set_attributes(service, &parse(body)?)?),
        other => Err(Fault::UnsupportedOperation(format!("the operation {other} is not supported here"))),
    }
}

fn parse<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, Fault> {
    Ok(serde_json::from_slice(body)?)
}

fn reply(answer: &impl Serialize) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::with_capacity(USUAL_ANSWER);
    serde_json::to_writer(&mut body, answer)?;
    Ok(body)
}

/// A body that cannot be sent: the connection is closed before anything of the answer is.
fn broken() -> Body {
    Body::from_stream(stream::once(async { Err::<Bytes, _>(io::Error::other("the script has the answer lost")) }))
}

fn respond(status: StatusCode, body: Body, query_error: Option<HeaderValue>) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    headers.extend(HeaderValue::try_from(random_id().to_string()).map(|id| (REQUEST_ID, id)));
    headers.extend(query_error.map(|error| (QUERY_ERROR, error)));
    response
}

const REQUEST_ID: header::HeaderName = header::HeaderName::from_static("x-amzn-requestid");
const QUERY_ERROR: header::HeaderName = header::HeaderName::from_static("x-amzn-query-error");
