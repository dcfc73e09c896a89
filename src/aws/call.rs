//! One call: attempts, and what helps between two of them.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::{
    AwsClient, AwsError, Inner, Operation,
    credentials::Snapshot,
    error,
    http::Answer,
    protocol::{Hint, Wire},
    sign,
};
use crate::queue::room::{Room, Share};

/// An answer, and the room that it takes.
type Whole = (Bytes, Option<Share>);

/// What is asked for.
struct Call<'a> {
    operation: Operation,
    body: Bytes,
    room: Option<&'a Room>,
}

/// What came of one attempt, and what it says of the protocol where that is open.
struct Failure {
    error: AwsError,
    hint: Hint,
}

impl From<AwsError> for Failure {
    fn from(error: AwsError) -> Self {
        Self { error, hint: Hint::Nothing }
    }
}

impl AwsClient {
    /// Sends one request and answers the body of the service's answer.
    ///
    /// # Errors
    /// Any [`AwsError`] but `Configuration`, named by what helps.
    pub async fn call(&self, operation: Operation, body: Bytes) -> Result<Bytes, AwsError> {
        Ok(self.call_within(operation, body, None).await?.0)
    }

    /// The same, for an answer that may be large: its bytes are taken from `room` before they are read, which may mean
    /// waiting. That is not counted towards the operation's time-out.
    ///
    /// # Errors
    /// As [`AwsClient::call`].
    pub async fn call_within(&self, operation: Operation, body: Bytes, room: Option<&Room>) -> Result<Whole, AwsError> {
        let (call, mut tried) = (Call { operation, body, room }, Remedies::default());
        loop {
            let (credentials, wire) = (self.inner.credentials.get().await?, self.inner.spoken.wire());
            let failure = match self.attempt(&call, wire, &credentials).await {
                Ok(answer) => {
                    self.inner.spoken.settle(wire);
                    return Ok(answer);
                }
                Err(failure) if wire == Wire::Json && self.may_speak_query() => {
                    match Box::pin(self.in_the_other(&call, &credentials, failure)).await {
                        Ok(answer) => return Ok(answer),
                        Err(error) => error,
                    }
                }
                Err(failure) => failure.error,
            };
            tracing::debug!(action = operation.action, error = %failure, "a request failed");
            if !self.remedy(&failure, operation, &credentials, &mut tried) {
                return Err(failure);
            }
        }
    }

    fn may_speak_query(&self) -> bool {
        self.finds_out() || self.speaks_query()
    }

    /// After a failure in JSON with an endpoint of which nothing was known when it was called: the same in the query
    /// protocol, if that may help. Only what is understood there is taken for an answer.
    async fn in_the_other(&self, call: &Call<'_>, by: &Snapshot, failure: Failure) -> Result<Whole, AwsError> {
        let spoken = &self.inner.spoken;
        if let Hint::Speaks(wire) = failure.hint {
            spoken.settle(wire);
        }
        // Another call may have found it out meanwhile: then nothing was done of this one.
        if !self.speaks_query() && !failure.hint.allows_query(call.operation.repeatable) {
            return Err(failure.error);
        }
        match self.attempt(call, Wire::Query, by).await {
            Ok(answer) => {
                spoken.settle(Wire::Query);
                Ok(answer)
            }
            Err(Failure { error, hint: Hint::Speaks(wire) }) => {
                spoken.settle(wire);
                Err(error)
            }
            Err(_not_understood_either) => Err(failure.error),
        }
    }

    async fn attempt(&self, call: &Call<'_>, wire: Wire, by: &Snapshot) -> Result<Whole, Failure> {
        let Call { operation, body, room } = call;
        let Inner { service, http, region, endpoint, clock_offset, .. } = &*self.inner;
        let offset = clock_offset.load(Ordering::Relaxed);
        let signed_at = shifted(SystemTime::now(), offset);
        let query = service.query.filter(|_| wire == Wire::Query);
        let request = {
            let translated = query.map(|query| query.request(operation.action, body, endpoint)).transpose()?;
            let (endpoint, body) = translated.as_ref().map_or((endpoint, body), |(uri, form)| (uri, form));
            let what = sign::Request { service, action: operation.action, region, endpoint, wire };
            what.sign(body.clone(), by, signed_at)?
        };
        let answer = http.send(request, endpoint, operation.timeout, *room).await?;
        let Answer { status, headers, body, share } = answer;
        if status.is_success() {
            return match query {
                Some(query) => Ok((query.read(service.name, &body)?, share)),
                None => Ok((body, share)),
            };
        }
        let told = error::told(&headers, &body);
        let hint = Hint::of(wire, status, &told);
        let error = match error::of_told(operation.permission(service), status, &headers, told, signed_at) {
            AwsError::ClockSkew { seconds } => AwsError::ClockSkew { seconds: seconds + offset },
            other => other,
        };
        Err(Failure { error, hint })
    }

    /// Removes the cause of a failure where it is ours; says whether another attempt is worth it.
    fn remedy(&self, failure: &AwsError, operation: Operation, used: &Arc<Snapshot>, tried: &mut Remedies) -> bool {
        match failure {
            AwsError::Network { closed: true, .. } if operation.repeatable => {
                !std::mem::replace(&mut tried.connect, true)
            }
            AwsError::Denied { stale_credentials: true, .. } => {
                self.inner.credentials.forget(used);
                !std::mem::replace(&mut tried.renew, true)
            }
            AwsError::ClockSkew { seconds } => {
                tracing::warn!(seconds, "this machine's clock differs from the service's; signing with the service's");
                self.inner.clock_offset.store(*seconds, Ordering::Relaxed);
                !std::mem::replace(&mut tried.clock, true)
            }
            _ => false,
        }
    }
}

/// A moment, moved by so many seconds.
fn shifted(moment: SystemTime, seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    let moved = if seconds < 0 { moment.checked_sub(by) } else { moment.checked_add(by) };
    moved.unwrap_or(moment)
}

/// What one call has already been repeated for.
#[derive(Default)]
struct Remedies {
    connect: bool,
    renew: bool,
    clock: bool,
}
