//! Tokens of RDS in place of passwords: what joins `aws/`, which makes them, and `db/`, which asks for them.

use std::sync::Arc;

use super::environment::lookup;
use crate::{
    aws::{AwsError, RdsTokens},
    db::{
        ConnectError, Connector,
        passwords::{Asked, Passwords},
    },
};

struct Tokens(RdsTokens);

impl Passwords for Tokens {
    fn password<'a>(&'a self, host: &'a str, port: u16, user: &'a str) -> Asked<'a> {
        Box::pin(async move { self.0.token(host, port, user).await.map_err(|error| refused(&error)) })
    }
}

fn refused(error: &AwsError) -> ConnectError {
    let text = format!("no token for the database (auth = \"rds-iam\"): {error}");
    match error {
        AwsError::Configuration(_) => ConnectError::Misconfigured(text),
        AwsError::Credentials { passing: false, .. } => ConnectError::Denied(text),
        _ => ConnectError::Unavailable(text),
    }
}

/// The same way, with a token for each session where no password is given.
///
/// # Errors
/// TLS does not verify the server, or the environment names a CA bundle that is none.
pub(super) fn with_tokens(connector: Connector) -> Result<Connector, ConnectError> {
    connector.with_passwords(|host| match RdsTokens::new(host, &lookup) {
        Ok(tokens) => Ok(Arc::new(Tokens(tokens))),
        Err(error) => Err(refused(&error)),
    })
}
