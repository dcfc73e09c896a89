//! Passwords that do not stay the same: one is asked for whenever a session is opened, where the connection names none.
//!
//! The database does not know who makes them; `cli/` brings that along.

use std::{future::Future, pin::Pin, sync::Arc};

use zeroize::Zeroizing;

use super::{
    ConnectError, Connector,
    conninfo::{Endpoint, Host, SslMode},
    explain,
};

/// What answers a password, later.
pub type Asked<'a> = Pin<Box<dyn Future<Output = Result<Zeroizing<String>, ConnectError>> + Send + 'a>>;

/// Makes a password for each session.
pub trait Passwords: Send + Sync {
    /// One for this user on this host and port.
    fn password<'a>(&'a self, host: &'a str, port: u16, user: &'a str) -> Asked<'a>;
}

impl Connector {
    /// The same, with a new password for each session with an endpoint that has none, from what is made for the first
    /// such host. Such a password goes to the server as it is, so only a server that has shown who it is gets one.
    ///
    /// # Errors
    /// [`ConnectError::Misconfigured`] where the connection is not one with `sslmode=verify-full`; and if none is made.
    pub fn with_passwords(
        mut self,
        make: impl FnOnce(&str) -> Result<Arc<dyn Passwords>, ConnectError>,
    ) -> Result<Self, ConnectError> {
        let Some(first) = self.conninfo.endpoints.iter().find(|endpoint| endpoint.password.is_none()) else {
            return Ok(self);
        };
        self.passwords = match &first.host {
            Host::Tcp(host) if self.conninfo.tls.mode == SslMode::VerifyFull => Some(make(host)?),
            _ => {
                return Err(ConnectError::Misconfigured(format!(
                    "{}: auth = \"rds-iam\" sends a token that opens the database for 15 minutes, so the server must show \
                     who it is: add sslmode=verify-full, and sslrootcert with the file of Amazon's RDS certificates \
                     (global-bundle.pem)",
                    self.conninfo
                )));
            }
        };
        Ok(self)
    }

    /// The password for one attempt at this endpoint.
    pub(super) async fn password(&self, endpoint: &Endpoint) -> Result<Option<Zeroizing<String>>, ConnectError> {
        match (&self.passwords, &endpoint.password, &endpoint.host) {
            (Some(passwords), None, Host::Tcp(host)) => {
                passwords.password(host, endpoint.port, &self.conninfo.user).await.map(Some)
            }
            (_, known, _) => Ok(known.clone()),
        }
    }

    /// Why there is no session; a password that was made has a remedy of its own.
    pub(super) fn explain(&self, error: &tokio_postgres::Error, endpoint: &Endpoint) -> ConnectError {
        match explain::explain(error, endpoint, &self.conninfo) {
            ConnectError::Denied(text) if self.passwords.is_some() && endpoint.password.is_none() => {
                ConnectError::Denied(format!(
                    "{text}; it was a token of RDS: GRANT rds_iam to this login, and allow rds-db:connect to these AWS \
                     credentials"
                ))
            }
            other => other,
        }
    }
}
