//! `masq migrate --roles`: by whom it can be run, what it says to those by whom it cannot, and that it can be run again, by
//! many at once, and from its own print.

use std::path::Path;

use futures_util::future::join_all;
use masq::{
    local::{
        postgres::{Options, PrivatePostgres},
        scratch::Scratch,
    },
    setup, start,
};

use crate::{
    scene::Scene,
    support::{Database, config, connector, finish, in_database, masq, service},
};

/// A cluster without any role of masq's. It ends with its handle.
struct Bare {
    server: PrivatePostgres,
    _scratch: Scratch,
}

impl Bare {
    async fn start() -> Self {
        let scratch = Scratch::new("masq-test-").unwrap();
        let options = Options {
            directory: scratch.path().join("cluster"),
            bin: std::env::var_os("MASQ_TEST_POSTGRES").map(Into::into),
            path: std::env::var("PATH").ok(),
            ..Options::default()
        };
        Self { server: PrivatePostgres::start(&options).await.unwrap(), _scratch: scratch }
    }

    fn database(&self, name: &str) -> Database {
        Database::of(&in_database(&self.server.conninfo(), name))
    }
}

/// `masq migrate --roles` at this address: exit code and stderr.
async fn migrate(url: &str) -> (i32, String) {
    let (exit, _, stderr) =
        finish(service(&["migrate", "--roles", "--database-url", url, "--log-format", "text"])).await;
    (exit, stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_of_one_cluster_make_the_roles_at_the_same_time() {
    let bare = Bare::start().await;
    let names: Vec<String> = (0..6).map(|number| format!("db_{number}")).collect();
    for name in &names {
        bare.database("postgres").execute(&format!("CREATE DATABASE {name}")).await;
    }
    let set_up = async |name: &String| {
        let mut session = bare.database(name).session().await;
        let findings = setup::database(&mut session, &config(), true).await;
        findings.unwrap_or_else(|error| panic!("{error}")).len()
    };
    assert_eq!(join_all(names.iter().map(set_up)).await, [0; 6]);
    let roles = "SELECT count(*), bool_or(rolcanlogin) FROM pg_roles WHERE rolname LIKE 'masq\\_%'";
    assert_eq!(bare.database("postgres").query(roles).await, ["7\tf"]);
    for name in &names {
        let owner = "SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'masq'";
        assert_eq!(bare.database(name).query(owner).await, ["masq_owner"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_may_create_roles_and_owns_the_database_needs_no_superuser() {
    let bare = Bare::start().await;
    let postgres = bare.database("postgres");
    postgres.execute("CREATE ROLE admin LOGIN CREATEROLE").await;
    postgres.execute("CREATE DATABASE theirs OWNER admin").await;
    let database = bare.database("theirs");
    // On PostgreSQL 15 and newer, who owns the database owns this schema too.
    database.execute("ALTER SCHEMA public OWNER TO admin").await;
    let admin = database.login("admin");
    for _ in ["first", "again"] {
        let (exit, stderr) = migrate(&admin).await;
        assert!(exit == 0 && stderr.contains("GRANT masq_writer TO"), "{stderr}");
    }
    let session = connector(&admin).connect().await.unwrap();
    session.batch_execute("CREATE ROLE loader LOGIN; GRANT masq_writer TO loader").await.unwrap();
    let scene = Scene::on(database, config());
    let running = scene.run_as(&scene.database.login("loader")).await;
    scene.send("user");
    scene.until_empty().await;
    running.stop().await;
    assert_eq!(scene.counted(), (1, 0, 0, 0));

    // Somebody else's table: the statement is theirs to run.
    scene
        .database
        .execute(
            "CREATE ROLE bob LOGIN; REVOKE ALL ON user_logins FROM masq_analyst; ALTER TABLE user_logins OWNER TO bob",
        )
        .await;
    let (exit, stderr) = migrate(&admin).await;
    let said = "GRANT SELECT ON public.user_logins TO masq_analyst";
    assert!(exit == 77 && stderr.contains(&format!("as bob: {said}")), "{stderr}");
    let bob = connector(&scene.database.login("bob")).connect().await.unwrap();
    bob.batch_execute(said).await.unwrap();
    let (exit, stderr) = migrate(&admin).await;
    assert_eq!(exit, 0, "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_may_not_is_told_what_to_have_done_and_nothing_has_changed() {
    let bare = Bare::start().await;
    let postgres = bare.database("postgres");
    postgres.execute("CREATE ROLE plain LOGIN; CREATE ROLE other LOGIN").await;
    postgres.execute("CREATE DATABASE theirs OWNER plain").await;
    let database = bare.database("theirs");
    database.execute("ALTER SCHEMA public OWNER TO plain").await;
    let (url, owner) = (database.login("plain"), "SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'masq'");
    let (exit, stderr) = migrate(&url).await;
    assert!(exit == 77 && stderr.contains("this login may not create roles"), "{stderr}");
    let creating = stderr.split("have one run: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    assert!(
        creating.starts_with("CREATE ROLE masq_owner; ") && creating.ends_with("GRANT masq_owner TO plain"),
        "{creating}"
    );
    assert_eq!(database.query(owner).await, ["plain"]);

    // What it says is enough, and enough for a database of somebody else's too.
    database.execute(creating).await;
    let (exit, stderr) = migrate(&url).await;
    assert_eq!(exit, 0, "{stderr}");
    assert_eq!(database.query(owner).await, ["masq_owner"]);
    postgres.execute("CREATE DATABASE others OWNER other").await;
    let database = bare.database("others");
    database.execute("ALTER SCHEMA public OWNER TO other").await;
    let (exit, stderr) = migrate(&database.login("other")).await;
    assert!(exit == 77 && stderr.contains("GRANT masq_owner TO other"), "{stderr}");
    postgres.execute("GRANT masq_owner TO other; ALTER ROLE other NOINHERIT").await;
    if database.version().await < 16 {
        let (exit, stderr) = migrate(&database.login("other")).await;
        assert!(exit == 77 && stderr.contains("ALTER ROLE other INHERIT"), "{stderr}");
        postgres.execute("ALTER ROLE other INHERIT").await;
    }
    let (exit, stderr) = migrate(&database.login("other")).await;
    assert_eq!(exit, 0, "{stderr}");
}

#[tokio::test]
async fn every_migration_gives_the_roles_their_rights_again() {
    let database = Database::loadable(&config()).await;
    database
        .execute(
            "REVOKE INSERT ON masq.ledger FROM masq_writer; GRANT SELECT ON masq.entries TO masq_writer; \
             GRANT ALL ON masq.audit TO PUBLIC; REVOKE INSERT ON user_logins FROM masq_writer; \
             CREATE FUNCTION masq.new() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TABLE masq.news (n int)",
        )
        .await;
    let mut session = database.session().await;
    setup::database(&mut session, &config(), false).await.unwrap_or_else(|error| panic!("{error}"));
    let rights = "SELECT has_table_privilege('masq_writer', 'masq.ledger', 'INSERT'), \
        has_column_privilege('masq_writer', 'user_logins', 'user_id', 'INSERT'), \
        has_table_privilege('masq_writer', 'masq.entries', 'SELECT'), has_table_privilege('analyst', 'masq.audit', 'SELECT'), \
        has_function_privilege('analyst', 'masq.new()', 'EXECUTE'), \
        (SELECT relowner::regrole FROM pg_class WHERE oid = 'masq.news'::regclass)";
    assert_eq!(database.query(rights).await, ["t\tt\tf\tf\tf\tmasq_owner"]);
}

#[tokio::test]
async fn what_is_printed_makes_an_empty_database_ready() {
    let database = Database::create().await;
    let output = masq(Path::new("/"), &["migrate", "--roles", "--print"]).output().unwrap();
    assert!(output.status.success());
    database.execute(&String::from_utf8(output.stdout).unwrap()).await;
    let mut session = database.session().await;
    let mut findings = setup::database(&mut session, &config(), true).await.unwrap_or_else(|error| panic!("{error}"));
    start::refuse_problems(&mut findings).unwrap_or_else(|error| panic!("{error}"));
    let scene = Scene::on(database, config());
    scene.send("user");
    let running = scene.run_as(&scene.database.login("worker")).await;
    scene.until_empty().await;
    running.stop().await;
    assert_eq!(scene.counted(), (1, 0, 0, 0));
}

/// A serial column's default is evaluated with the rights of whoever inserts.
#[tokio::test]
async fn a_table_that_numbers_its_rows_by_a_sequence_of_its_own_takes_them() {
    let database = Database::ready().await;
    let table = "CREATE SCHEMA far; CREATE TABLE far.logins (n bigserial, user_id text)";
    database.execute(table).await;
    let config = crate::support::config_of(
        "[table]\nschema = \"far\"\nname = \"logins\"\n[columns]\nuser_id = { from = \"user_id\", type = \"text\" }\n",
    );
    let scene = Scene::on(database, config);
    scene.send("user");
    scene.settle().await;
    assert_eq!(scene.database.query("SELECT n, user_id FROM far.logins").await, ["1\tuser"]);
    let analyst = connector(&scene.database.login("analyst")).connect().await.unwrap();
    analyst.batch_execute("SELECT * FROM far.logins").await.unwrap();
}
