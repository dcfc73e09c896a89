//! One PostgreSQL cluster, with a database for each test and a login for each role.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use masq::{
    config::Config,
    db::{Session, migrations, roles},
    local::{
        postgres::{Options, PrivatePostgres},
        scratch::Scratch,
    },
    setup, start,
};
use tokio::sync::OnceCell;

use crate::support::session;

/// The cluster that all tests of this binary share. It ends with the process, and so does its directory: see
/// `local/postgres/watchdog.rs` and `local/scratch.rs`.
struct Cluster {
    server: PrivatePostgres,
    _directory: Scratch,
}

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
static DATABASES: AtomicUsize = AtomicUsize::new(0);

impl Cluster {
    async fn start() -> Self {
        let directory = Scratch::new("masq-test-").unwrap();
        let options = Options {
            directory: directory.path().join("cluster"),
            bin: std::env::var_os("MASQ_TEST_POSTGRES").map(PathBuf::from),
            path: std::env::var("PATH").ok(),
            port: Some(0),
            settings: vec![("max_connections".into(), "300".into())],
            ..Options::default()
        };
        let server = PrivatePostgres::start(&options).await.expect("a private PostgreSQL starts");
        logins(&session(&server.conninfo()).await).await;
        Self { server, _directory: directory }
    }
}

async fn cluster() -> &'static Cluster {
    CLUSTER.get_or_init(Cluster::start).await
}

/// Logins of the cluster, each a member of one role and of nothing else.
const LOGINS: [(&str, &str); 6] = [
    ("worker", "masq_writer"),
    ("operator", "masq_operator"),
    ("analyst", "masq_analyst"),
    ("revealer", "masq_revealer"),
    ("eraser", "masq_eraser"),
    ("auditor", "masq_auditor"),
];

/// A database of a test's own.
pub struct Database {
    /// How its owner reaches it, over its socket.
    pub url: String,
    /// The owner's way over TCP, with a password.
    pub tcp_url: String,
    cluster: Option<Cluster>,
}

impl Database {
    /// A new, empty one.
    pub async fn create() -> Self {
        Self::create_on(&cluster().await.server, "template1").await
    }

    /// A new one with the schema masq and the roles, and no table yet: a copy, which is made faster than it is migrated.
    pub async fn ready() -> Self {
        static TEMPLATE: OnceCell<()> = OnceCell::const_new();
        const NAME: &str = "masq_template";
        const SCHEMAS: [&migrations::Schema; 2] = [&migrations::MASQ, &migrations::SLOTS];
        let server = &cluster().await.server;
        let template = async || {
            session(&server.conninfo()).await.batch_execute(&format!("CREATE DATABASE {NAME}")).await.unwrap();
            let session = session(&in_database(&server.conninfo(), NAME)).await;
            migrations::migrate(&session, &SCHEMAS).await.unwrap();
            assert_eq!(roles::apply(&session, &SCHEMAS).await.unwrap(), []);
            // Of a database that somebody is in there are no copies.
            session.close().await;
        };
        TEMPLATE.get_or_init(template).await;
        let database = Self::create_on(server, NAME).await;
        // A copy is not at home where it was made.
        let home = "UPDATE masq.home SET identity = masq.identity(); \
                    UPDATE masq_slots.home SET identity = masq_slots.identity()";
        database.execute(home).await;
        database
    }

    /// A new one to which workers with this configuration can write.
    pub async fn loadable(config: &Config) -> Self {
        let database = Self::ready().await;
        database.prepare(config).await;
        database
    }

    /// How one of the [`LOGINS`] reaches it, over its socket, where nobody asks for a password.
    pub fn login(&self, login: &str) -> String {
        let (before, after) = self.url.split_once("postgres@").expect("the superuser's address");
        format!("{before}{login}@{after}")
    }

    /// Does what `masq migrate --roles` does as the owner; afterwards the [`LOGINS`] are there.
    pub async fn prepare(&self, config: &Config) {
        let mut session = self.session().await;
        let mut findings = setup::database(&mut session, config, true).await.unwrap_or_else(|error| panic!("{error}"));
        start::refuse_problems(&mut findings).unwrap_or_else(|error| panic!("{error}"));
        logins(&session).await;
        session.close().await;
    }

    /// A new, empty one on a cluster of its own, for a test that changes the server's settings.
    pub async fn alone() -> Self {
        let cluster = Cluster::start().await;
        let database = Self::create_on(&cluster.server, "template1").await;
        Self { cluster: Some(cluster), ..database }
    }

    /// What the server of its own writes.
    pub fn log(&self) -> String {
        let cluster = self.cluster.as_ref().expect("a database on a cluster of its own");
        std::fs::read_to_string(cluster.server.log()).unwrap()
    }

    /// One that is there.
    pub fn of(url: &str) -> Self {
        Self { url: url.to_owned(), tcp_url: String::new(), cluster: None }
    }

    async fn create_on(server: &PrivatePostgres, template: &str) -> Self {
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let session = session(&server.conninfo()).await;
        session.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await.unwrap();
        let url = in_database(&server.conninfo(), &name);
        Self { url, tcp_url: in_database(&server.tcp_conninfo().unwrap(), &name), cluster: None }
    }

    /// PostgreSQL's major version, since some tests ask for what older ones do not have.
    pub async fn version(&self) -> u32 {
        self.query("SELECT current_setting('server_version_num')::int / 10000").await[0].parse().unwrap()
    }

    /// A session with it.
    pub async fn session(&self) -> Session {
        session(&self.url).await
    }

    /// What a query answers, each row as text with tabs between.
    pub async fn query(&self, sql: &str) -> Vec<String> {
        let session = self.session().await;
        let messages = session.simple_query(sql).await.unwrap();
        messages
            .iter()
            .filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => {
                    let value = |at| row.get(at).unwrap_or("NULL").to_owned();
                    Some((0..row.len()).map(value).collect::<Vec<_>>().join("\t"))
                }
                _ => None,
            })
            .collect()
    }

    /// Runs SQL for its effect.
    pub async fn execute(&self, sql: &str) {
        self.session().await.batch_execute(sql).await.unwrap();
    }
}

/// The address of another database of the same server.
pub fn in_database(url: &str, name: &str) -> String {
    format!("{}/{name}", url.strip_suffix("/postgres").unwrap())
}

/// The [`LOGINS`], unless the cluster has them already.
async fn logins(session: &Session) {
    session.batch_execute(roles::CREATE).await.unwrap();
    for (login, role) in LOGINS {
        let once = format!(
            "DO $$ BEGIN CREATE ROLE {login} LOGIN; GRANT {role} TO {login}; \
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        );
        session.batch_execute(&once).await.unwrap();
    }
}
