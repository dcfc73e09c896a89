//! Reaching PostgreSQL: a [`Connector`] makes [`Session`]s.
//!
//! What is done in a session is not here, but in `sink/` and `vault/`. There is no pool: each worker keeps its session.
//! A pooler in transaction mode may stand between: statements go unnamed or end with their transaction, a session's
//! limits are asked for when it begins and never SET, and whatever must keep them says so in its own transaction.

pub mod account;
pub mod catalog;
pub mod conninfo;
pub mod counts;
pub mod examine;
mod explain;
pub mod known_keys;
pub mod migrations;
pub mod passwords;
pub mod roles;
pub mod slots;
pub mod sqlstate;
pub mod targets;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    future::poll_fn,
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use thiserror::Error;
use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, Error, SimpleQueryMessage, Socket, config,
    error::Severity,
    tls::{MakeTlsConnect, TlsStream},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::vault::refusal::Refusal;
use conninfo::{ChannelBinding, Conninfo, Endpoint, Host, SslMode};
pub use explain::ConnectError;
use passwords::Passwords;
pub use tls::TlsError;

/// A server that vanished is noticed within 30 + 3 × 10 s of silence. Shorter would give up a server that a failing
/// network hides for a moment; longer would keep a batch's lease busy with a connection that is gone.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 3;
/// The same for data that nobody acknowledges (RFC 5482), where keepalives are silent.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long [`Session::close`] waits for the goodbye to be sent; a server that takes longer finds out by itself.
const GOODBYE: Duration = Duration::from_secs(2);

/// How long things may take. The last three are settings of the session, kept by the server.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// One attempt at one endpoint, all of it; `connect_timeout` in the connection string wins.
    pub connect: Duration,
    /// `lock_timeout`
    pub lock: Duration,
    /// `statement_timeout`
    pub statement: Duration,
    /// `idle_in_transaction_session_timeout`
    pub idle_in_transaction: Duration,
}

impl Timeouts {
    /// The session's settings. Warnings must come through: one of them says that a COMMIT is not replicated.
    fn settings(&self) -> [(&'static str, String); 4] {
        let millis = |duration: Duration| duration.as_millis().to_string();
        [
            ("client_min_messages", "warning".to_owned()),
            ("lock_timeout", millis(self.lock)),
            ("statement_timeout", millis(self.statement)),
            ("idle_in_transaction_session_timeout", millis(self.idle_in_transaction)),
        ]
    }

    /// Begins a transaction that keeps them, in whichever session it comes to be.
    fn begin(&self) -> String {
        // A default of the server's or the login's may be another level, which answers a key that is there with 40001.
        let begin = "BEGIN ISOLATION LEVEL READ COMMITTED".to_owned();
        self.settings().iter().fold(begin, |sql, (name, value)| format!("{sql}; SET LOCAL {name} = {value}"))
    }

    /// Asks for them when a session begins: libpq's `options`.
    fn options(&self) -> String {
        self.settings().map(|(name, value)| format!("-c {name}={value}")).join(" ")
    }
}

type Dialled = (Client, Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>);

/// Makes sessions with one database.
pub struct Connector {
    conninfo: Conninfo,
    timeouts: Timeouts,
    tls: MakeRustlsConnect,
    passwords: Option<Arc<dyn Passwords>>,
}

impl Connector {
    /// Prepares the way; connects to nothing yet.
    ///
    /// # Errors
    /// If a certificate or key that TLS needs cannot be used.
    pub fn new(conninfo: Conninfo, timeouts: Timeouts) -> Result<Self, ConnectError> {
        let tls = tls::connector(&conninfo.tls)?;
        Ok(Self { conninfo, timeouts, tls, passwords: None })
    }

    /// What it connects to; its `Display` is fit for logs.
    pub fn conninfo(&self) -> &Conninfo {
        &self.conninfo
    }

    /// The limits of its sessions.
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// How long opening a session may take at most, at all endpoints together.
    pub fn limit(&self) -> Duration {
        self.attempt_limit() * u32::try_from(self.conninfo.endpoints.len()).unwrap_or(u32::MAX)
    }

    fn attempt_limit(&self) -> Duration {
        self.conninfo.connect_timeout.unwrap_or(self.timeouts.connect)
    }

    /// A new session with the first endpoint that gives one.
    ///
    /// # Errors
    /// What the last endpoint said that was tried; a host is tried only while those before it are merely away.
    pub async fn connect(&self) -> Result<Session, ConnectError> {
        let limit = self.attempt_limit();
        let mut complaints = Vec::new();
        for endpoint in &self.conninfo.endpoints {
            let attempt = timeout(limit, Box::pin(self.attempt(endpoint))).await;
            match attempt.unwrap_or_else(|_| Err(explain::too_slow(endpoint, &self.conninfo, limit))) {
                Err(ConnectError::Unavailable(complaint)) => complaints.push(complaint),
                settled => return settled,
            }
        }
        Err(ConnectError::Unavailable(complaints.join("; ")))
    }

    async fn attempt(&self, endpoint: &Endpoint) -> Result<Session, ConnectError> {
        let password = self.password(endpoint).await?;
        let password = password.as_ref().map(|password| password.as_str());
        let connected = match self.dial(endpoint, password, Some(self.timeouts.options())).await {
            Err(error) if is_refused_by_pooler(&error) => self.dial(endpoint, password, None).await,
            other => other,
        };
        let (client, connection) = connected.map_err(|error| self.explain(&error, endpoint))?;
        Ok(Session::drive(client, connection, self.timeouts.begin()))
    }

    /// Connects with these options besides the connection string's own.
    async fn dial(
        &self,
        endpoint: &Endpoint,
        password: Option<&str>,
        options: Option<String>,
    ) -> Result<Dialled, Error> {
        let mode = self.ssl_mode(endpoint);
        let own = self.conninfo.options.clone();
        let options: Vec<String> = own.into_iter().chain(options).collect();
        let config = |mode| {
            let mut config = self.config(endpoint, mode);
            if let Some(password) = password {
                config.password(password);
            }
            if !options.is_empty() {
                config.options(options.join(" "));
            }
            config
        };
        match config(mode).connect(self.tls.clone()).await {
            Err(error) if mode == config::SslMode::Prefer && explain::is_about_tls(&error) => {
                let plain = config(config::SslMode::Disable).connect(self.tls.clone()).await;
                // Of two refusals the first is the one that says why.
                plain.map_err(|_| error)
            }
            other => other,
        }
    }

    /// A socket on this machine needs no TLS and PostgreSQL offers none there.
    fn ssl_mode(&self, endpoint: &Endpoint) -> config::SslMode {
        match (&endpoint.host, self.conninfo.tls.mode) {
            (Host::Unix(_), _) | (_, SslMode::Disable) => config::SslMode::Disable,
            (_, SslMode::Allow | SslMode::Prefer) => config::SslMode::Prefer,
            (_, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => config::SslMode::Require,
        }
    }

    fn config(&self, endpoint: &Endpoint, mode: config::SslMode) -> Config {
        let conninfo = &self.conninfo;
        let keepalives = &conninfo.keepalives;
        let mut config = Config::new();
        config
            .user(&conninfo.user)
            .dbname(&conninfo.database)
            .application_name(&conninfo.application_name)
            .port(endpoint.port)
            .ssl_mode(mode)
            .keepalives(!keepalives.off)
            .keepalives_idle(keepalives.idle.unwrap_or(KEEPALIVE_IDLE))
            .keepalives_interval(keepalives.interval.unwrap_or(KEEPALIVE_INTERVAL))
            .keepalives_retries(keepalives.count.unwrap_or(KEEPALIVE_COUNT))
            .tcp_user_timeout(keepalives.user_timeout.unwrap_or(TCP_USER_TIMEOUT))
            .channel_binding(match conninfo.channel_binding {
                ChannelBinding::Disable => config::ChannelBinding::Disable,
                ChannelBinding::Prefer => config::ChannelBinding::Prefer,
                ChannelBinding::Require => config::ChannelBinding::Require,
            });
        match &endpoint.host {
            Host::Tcp(host) => config.host(host),
            Host::Unix(directory) => config.host_path(directory),
        };
        if let Some(address) = endpoint.address {
            config.hostaddr(address);
        }
        if conninfo.read_write {
            config.target_session_attrs(config::TargetSessionAttrs::ReadWrite);
        }
        config
    }
}

/// What PgBouncer (08P01) and Amazon's RDS Proxy (0A000) say of options, which theirs is not to hand on: its sessions
/// belong to others, too. Then the limits hold in the transactions that say them, and nowhere else.
fn is_refused_by_pooler(error: &Error) -> bool {
    error.code().is_some_and(|code| ["08P01", "0A000"].contains(&code.code()))
}

/// A session with PostgreSQL: a `tokio_postgres` client and the task that moves its bytes.
///
/// Dropped, it is cut off at once and the server rolls back what was open; [`Session::close`] says goodbye first.
pub struct Session {
    client: Client,
    driver: Driver,
    warnings: Arc<AtomicUsize>,
    begin: String,
}

impl Session {
    fn drive<T>(client: Client, mut connection: Connection<Socket, T>, begin: String) -> Self
    where
        T: TlsStream + Unpin + Send + 'static,
    {
        let warnings = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&warnings);
        let driver = tokio::spawn(async move {
            // Notices are counted and never shown: their text may quote rows. The loop ends with the connection, whose
            // error the client's pending call gets too.
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notice(notice) = message
                    && notice.code().code() == "01000"
                    && notice.parsed_severity() == Some(Severity::Warning)
                {
                    counted.fetch_add(1, Ordering::Release);
                }
            }
        });
        Self { client, driver: Driver(driver), warnings, begin }
    }

    /// Begins a transaction under the limits on time.
    ///
    /// # Errors
    /// If the server does not answer, or the session is in a transaction that has failed.
    pub async fn begin(&self) -> Result<(), Error> {
        self.client.batch_execute(&self.begin).await
    }

    /// Begins a transaction as [`Session::begin`] does, with a statement in the same message.
    ///
    /// # Errors
    /// As there; and if the statement fails.
    pub async fn begin_with(&self, statement: &str) -> Result<(), Error> {
        self.client.batch_execute(&format!("{}; {statement}", self.begin)).await
    }

    /// Does this in a transaction of its own under the limits on time. After an error nothing of it is done.
    ///
    /// # Errors
    /// The first that occurs.
    pub async fn within<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.begin().await?;
        let done = work.await;
        let end = self.client.batch_execute(if done.is_ok() { "COMMIT" } else { "ROLLBACK" }).await;
        let done = done?;
        end.map(|()| done)
    }

    /// How many warnings of SQLSTATE 01000 came since this was last asked. A statement's warnings are counted before
    /// its answer arrives, so after COMMIT this tells whether a synchronous standby was not waited for (PostgreSQL's
    /// `SyncRepWaitForLSN`: "canceling wait for synchronous replication").
    pub fn take_warnings(&self) -> usize {
        self.warnings.swap(0, Ordering::Acquire)
    }

    /// What a query answers, every value as PostgreSQL's text; `doing` says in an error what it was for.
    ///
    /// # Errors
    /// If it fails.
    pub async fn texts(&self, doing: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, DbError> {
        let messages = self.client.simple_query(sql).await.map_err(|error| DbError::new(doing, &error))?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// Ends the session in good order.
    pub async fn close(self) {
        let Self { client, mut driver, .. } = self;
        // Without its client the driver says goodbye to the server and ends.
        drop(client);
        let _gone_either_way = timeout(GOODBYE, &mut driver.0).await;
    }
}

/// The task that moves a session's bytes; it ends with its handle.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// A statement failed outside of the pipeline's own transactions, such as a look into the catalogue. Quotes no row.
#[derive(Debug, Error)]
pub enum DbError {
    /// A new session, later, may do better.
    #[error("{0}")]
    Unavailable(String),
    /// This login lacks a permission.
    #[error("{0}")]
    Denied(String),
    /// It fails until somebody changes something.
    #[error("{0}")]
    Misconfigured(String),
    /// The vault refuses, and says what helps.
    #[error(transparent)]
    Refused(Refusal),
}

impl DbError {
    /// Says what was being done, such as `reading the catalogue`, and how it failed.
    pub fn new(doing: &str, error: &tokio_postgres::Error) -> Self {
        if let Some(refusal) = Refusal::of(error) {
            return Self::Refused(refusal);
        }
        let text = format!("{doing} fails: {}", sqlstate::describe(error));
        // Syntax and rights, data, features, authorization, names: none of these mends itself.
        let lasting = ["42", "22", "0A", "28", "3D", "3F"];
        match error.code() {
            Some(code) if code.code() == "42501" => Self::Denied(text),
            Some(code) if lasting.iter().any(|class| code.code().starts_with(class)) => Self::Misconfigured(text),
            _ => Self::Unavailable(text),
        }
    }
}

impl From<ConnectError> for DbError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Unavailable(what) => Self::Unavailable(what),
            ConnectError::Denied(what) => Self::Denied(what),
            lasting => Self::Misconfigured(lasting.to_string()),
        }
    }
}
