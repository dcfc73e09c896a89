//! Against real clusters: refusals, notices, the catalogue, remedies.

mod tls;

use std::time::Duration;

use tempfile::TempDir;

use super::{
    ConnectError, Connector, Session, Timeouts,
    catalog::{self, Kind, Persistence},
    conninfo::Conninfo,
    sqlstate::{Remedy, Target, describe, remedy},
};
use crate::{
    config::{ColumnType, TableName},
    local::postgres::{Options, PrivatePostgres},
};

const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(10),
    lock: Duration::from_millis(300),
    statement: Duration::from_secs(10),
    idle_in_transaction: Duration::from_secs(10),
};

async fn connect(text: &str) -> Result<Session, ConnectError> {
    connect_with(text, &[]).await
}

async fn connect_with(text: &str, variables: &[(&str, &str)]) -> Result<Session, ConnectError> {
    let lookup = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Connector::new(Conninfo::parse(text, Some("me"), &lookup).unwrap(), TIMEOUTS)?.connect().await
}

async fn cluster(settings: &[(&str, &str)]) -> (TempDir, PrivatePostgres) {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = Options { directory: directory.path().to_owned(), port: Some(0), settings, ..Options::default() };
    let cluster = PrivatePostgres::start(&options).await.unwrap();
    (directory, cluster)
}

#[tokio::test]
async fn a_refusal_names_its_remedy() {
    let (directory, cluster) = cluster(&[]).await;
    let socket = cluster.conninfo();
    let tcp = cluster.tcp_conninfo().unwrap();
    let password = tcp.split(['@', ':']).nth(2).unwrap().to_owned();
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    type Kind = fn(&ConnectError) -> bool;
    let denied: Kind = |error| matches!(error, ConnectError::Denied(_));
    let misconfigured: Kind = |error| matches!(error, ConnectError::Misconfigured(_));
    let unavailable: Kind = |error| matches!(error, ConnectError::Unavailable(_));
    let cases = [
        (tcp.replace(&password, "hunter2"), denied, "28P01): check the password"),
        (tcp.replace(&format!(":{password}"), ""), denied, "there is none: put one"),
        (socket.replace("//postgres@", "//nobody@"), denied, "create the role"),
        (
            socket.trim_end_matches("postgres").to_owned() + "absent",
            misconfigured,
            "create it, or name another with dbname=",
        ),
        (format!("{tcp}?sslmode=require"), misconfigured, "turn ssl on there, or use sslmode=prefer"),
        (format!("{tcp}?options=-c%20nonsense%3D1"), misconfigured, "nonsense"),
        (format!("host=127.0.0.1 port={unused}"), unavailable, "is PostgreSQL running there"),
        (format!("host={}", directory.path().join("data").display()), unavailable, "no server has its socket there"),
        ("host=no-such-host.invalid".into(), unavailable, "check the host's name"),
        (
            format!("{tcp}?options=-c%20default_transaction_read_only%3Don&target_session_attrs=read-write"),
            unavailable,
            "target_session_attrs asks",
        ),
    ];
    for (conninfo, kind, part) in cases {
        let error = connect(&conninfo).await.err().unwrap_or_else(|| panic!("{part}: connected"));
        let text = error.to_string();
        assert!(kind(&error) && text.contains(part), "{part}: {error:?}");
        assert!(!text.contains("hunter2") && !text.contains(&password), "{text}");
    }

    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let slow = connect(&format!("host=127.0.0.1 port={port} connect_timeout=1")).await.err().unwrap();
    assert!(unavailable(&slow) && slow.to_string().contains("no answer within 1s"), "{slow}");

    // The second of two hosts answers.
    let both = tcp.replace("@127.0.0.1:", &format!("@127.0.0.1:{unused},127.0.0.1:"));
    assert!(connect(&both).await.is_ok());
}

#[tokio::test]
async fn a_commit_that_no_standby_confirmed_is_noticed() {
    let (_directory, cluster) = cluster(&[("synchronous_standby_names", "nobody")]).await;
    let session = connect(&cluster.conninfo()).await.unwrap();
    session.batch_execute("SET synchronous_commit = local; CREATE TABLE t (n int)").await.unwrap();
    session.batch_execute("DO $$ BEGIN RAISE NOTICE 'quiet'; RAISE WARNING 'loud'; END $$").await.unwrap();
    assert_eq!((session.take_warnings(), session.take_warnings()), (1, 0));

    let other = connect(&cluster.conninfo()).await.unwrap();
    let committing =
        session.batch_execute("BEGIN; INSERT INTO t VALUES (1); SET LOCAL synchronous_commit = on; COMMIT");
    let cancelling = async {
        let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        while other.query(cancel, &[]).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (committed, ()) = tokio::join!(committing, cancelling);
    committed.unwrap();
    assert_eq!(session.take_warnings(), 1);
}

#[tokio::test]
async fn a_session_is_set_up_and_ends() {
    let (_directory, cluster) = cluster(&[]).await;
    let watcher = connect(&cluster.conninfo()).await.unwrap();
    let session = connect(&format!("{}?application_name=loader", cluster.tcp_conninfo().unwrap())).await.unwrap();
    for (setting, expected) in [
        ("application_name", "loader"),
        ("lock_timeout", "300ms"),
        ("statement_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "10s"),
        ("client_min_messages", "warning"),
    ] {
        let value: String = session.query_one(&format!("SHOW {setting}"), &[]).await.unwrap().get(0);
        assert_eq!(value, expected, "{setting}");
    }
    let loaders = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'loader'";
    assert_eq!(watcher.query_one(loaders, &[]).await.unwrap().get::<_, i64>(0), 1);
    drop(session);
    let mut left = 1;
    for _ in 0..200 {
        left = watcher.query_one(loaders, &[]).await.unwrap().get::<_, i64>(0);
        if left == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(left, 0);
}

const TABLES: &str = r#"
    CREATE DOMAIN short AS varchar(5) NOT NULL;
    CREATE DOMAIN shorter AS short DEFAULT 'x';
    CREATE TYPE mood AS ENUM ('fine');
    CREATE SCHEMA "Odd ""one";
    CREATE TABLE "Odd ""one"."Ta ble" (
        user_id varchar(128) NOT NULL, any_length varchar, fixed char(3), note text, app_version integer,
        code shorter, feeling mood, tags text[], amount numeric(10,2), at timestamptz(3), born date DEFAULT now(),
        id bigint GENERATED ALWAYS AS IDENTITY, upper text GENERATED ALWAYS AS (upper(note)) STORED, gone int
    );
    ALTER TABLE "Odd ""one"."Ta ble" DROP COLUMN gone;
    CREATE UNLOGGED TABLE volatile (n int);
    CREATE TABLE parent (n int) PARTITION BY RANGE (n);
    CREATE UNLOGGED TABLE child PARTITION OF parent FOR VALUES FROM (0) TO (9);
    CREATE VIEW seen AS SELECT 1 AS one;
"#;

#[tokio::test]
async fn the_catalogue_tells_columns_as_they_are() {
    let (_directory, cluster) = cluster(&[]).await;
    let session = connect(&cluster.conninfo()).await.unwrap();
    session.batch_execute(TABLES).await.unwrap();
    let named = |schema: Option<&str>, name: &str| TableName { schema: schema.map(Into::into), name: name.into() };

    let table = catalog::table(&session, &named(Some("Odd \"one"), "Ta ble")).await.unwrap().unwrap();
    assert_eq!((table.kind, table.persistence), (Kind::Table, Persistence::Permanent));
    let expected = [
        ("user_id", Ok(ColumnType::Varchar(Some(128))), "not null"),
        ("any_length", Ok(ColumnType::Varchar(None)), ""),
        ("fixed", Ok(ColumnType::Char(3)), ""),
        ("note", Ok(ColumnType::Text), ""),
        ("app_version", Ok(ColumnType::Integer), ""),
        ("code", Ok(ColumnType::Varchar(Some(5))), "not null default"),
        ("feeling", Err("mood".into()), ""),
        ("tags", Err("text[]".into()), ""),
        ("amount", Ok(ColumnType::Numeric), ""),
        ("at", Ok(ColumnType::TimestampTz), ""),
        ("born", Ok(ColumnType::Date), "default"),
        ("id", Ok(ColumnType::BigInt), "not null default identity"),
        ("upper", Ok(ColumnType::Text), "default generated"),
    ];
    let found = table.columns.iter().map(|column| {
        let marks = [
            (column.not_null, "not null"),
            (column.has_default, "default"),
            (column.generated, "generated"),
            (column.identity_always, "identity"),
        ];
        let marks: Vec<&str> = marks.iter().filter(|(set, _)| *set).map(|(_, mark)| *mark).collect();
        assert!(column.may_insert);
        (column.name.as_str(), column.column_type.clone(), marks.join(" "))
    });
    for (found, (name, column_type, marks)) in found.zip(expected.clone()) {
        assert_eq!(found, (name, column_type, marks.to_owned()));
    }
    assert_eq!(table.columns.len(), expected.len());

    assert!(catalog::table(&session, &named(None, "Ta ble")).await.unwrap().is_none(), "not on the search path");
    for (name, kind, persistence) in [
        ("volatile", Kind::Table, Persistence::Unlogged),
        ("parent", Kind::Partitioned, Persistence::Unlogged),
        ("seen", Kind::View, Persistence::Permanent),
    ] {
        let table = catalog::table(&session, &named(None, name)).await.unwrap().unwrap();
        assert_eq!((table.schema.as_str(), table.kind, table.persistence), ("public", kind, persistence), "{name}");
    }

    session.batch_execute("SET synchronous_commit = off").await.unwrap();
    let durability = catalog::durability(&session).await.unwrap();
    assert!(durability.fsync && durability.full_page_writes && !durability.in_recovery);
    assert_eq!((durability.synchronous_commit.as_str(), durability.synchronous_standby_names.as_str()), ("off", ""));
    assert!(durability.server_version_num >= 100_000);
}

const CONSTRAINED: &str = "
    CREATE SCHEMA masq; CREATE TABLE masq.ledger (k int PRIMARY KEY);
    CREATE TABLE parents (id int PRIMARY KEY);
    CREATE TABLE logins (
        user_id text NOT NULL UNIQUE, age int CONSTRAINT adult CHECK (age > 17), version varchar(4),
        other int NOT NULL DEFAULT 0, parent int REFERENCES parents, shift int4range, EXCLUDE USING gist (shift WITH &&)
    );
    CREATE DOMAIN grown AS int NOT NULL CHECK (VALUE > 17);
    INSERT INTO logins VALUES ('secret', 20, '1', 0, NULL, '[1,9)'); INSERT INTO masq.ledger VALUES (1);
    CREATE TABLE dated (n int) PARTITION BY RANGE (n);";

#[tokio::test]
async fn every_answer_has_its_remedy_and_no_description_quotes_a_row() {
    let (_directory, cluster) = cluster(&[]).await;
    let session = connect(&cluster.conninfo()).await.unwrap();
    session.batch_execute(CONSTRAINED).await.unwrap();
    let blocker = connect(&cluster.conninfo()).await.unwrap();
    blocker.batch_execute("BEGIN; LOCK TABLE parents").await.unwrap();

    let columns = ["user_id", "age", "version", "parent"].map(String::from);
    let target = Target { schema: "public", table: "logins", partitioned: false, columns: &columns };
    let raise = |what: &str| format!("DO $$ BEGIN RAISE EXCEPTION 'secret' {what}; END $$");
    let cases = [
        ("INSERT INTO logins (user_id) VALUES (NULL)".to_owned(), Remedy::Isolate, "column \"user_id\""),
        ("INSERT INTO logins VALUES ('a', 20, '1', NULL)".into(), Remedy::Stop, "23502 (not_null_violation)"),
        ("INSERT INTO logins VALUES ('secret', 20)".into(), Remedy::Isolate, "constraint \"logins_user_id_key\""),
        ("INSERT INTO masq.ledger VALUES (1)".into(), Remedy::Wait, "23505 (unique_violation)"),
        ("INSERT INTO logins VALUES ('secret2', 7)".into(), Remedy::Isolate, "constraint \"adult\""),
        ("INSERT INTO logins VALUES ('a', 20, 'secret')".into(), Remedy::Isolate, "22001"),
        ("SELECT 'secret'::int".into(), Remedy::Isolate, "22P02 (invalid_text_representation)"),
        ("INSERT INTO dated VALUES (1)".into(), Remedy::Wait, "23514"),
        ("SELECT secret FROM logins".into(), Remedy::Stop, "42703 (undefined_column)"),
        ("SELECT 1 FROM absent".into(), Remedy::Stop, "42P01 (undefined_table)"),
        ("SELECT 1 FROM parents".into(), Remedy::Again, "(lock_not_available): somebody holds a lock"),
        ("SET LOCAL statement_timeout = 1; SELECT pg_sleep(1)".into(), Remedy::Halve, "57014 (query_canceled)"),
        ("SET TRANSACTION READ ONLY; CREATE TABLE x ()".into(), Remedy::Pause, "25006"),
        (raise(""), Remedy::Isolate, "P0001 (raise_exception)"),
        (raise("USING ERRCODE = '40P01', DETAIL = 'secret', HINT = 'secret'"), Remedy::Again, "deadlock_detected"),
        (raise("USING ERRCODE = '53100'"), Remedy::Pause, "(disk_full): the server's disk is full"),
        (raise("USING ERRCODE = '22P04'"), Remedy::Stop, "bad_copy_file_format"),
        (raise("USING ERRCODE = '28000'"), Remedy::Stop, "28000"),
        (raise("USING ERRCODE = '23503'"), Remedy::Isolate, "23503 (foreign_key_violation)"),
        (raise("USING ERRCODE = '23514'"), Remedy::Isolate, "23514 (check_violation)"),
        (raise("USING ERRCODE = '23505'"), Remedy::Isolate, "23505 (unique_violation)"),
        ("SELECT 7::grown".into(), Remedy::Isolate, "constraint \"grown_check\""),
        ("SELECT NULL::grown".into(), Remedy::Isolate, "23502 (not_null_violation)"),
        ("INSERT INTO logins (user_id, shift) VALUES ('a', '[5,6)')".into(), Remedy::Isolate, "logins_shift_excl"),
        (raise("USING ERRCODE = 'XX999'"), Remedy::Wait, "SQLSTATE XX999"),
    ];
    for (sql, expected, part) in cases {
        session.batch_execute("BEGIN").await.unwrap();
        let error = session.batch_execute(&sql).await.unwrap_err();
        let description = describe(&error);
        assert_eq!(remedy(&error, &target), expected, "{sql}: {description}");
        assert!(description.contains(part) && !description.contains("secret"), "{sql}: {description}");
        session.batch_execute("ROLLBACK").await.unwrap();
    }

    // The target's own partitions complain by their own names, and a missing one by the table's.
    let dated = Target { schema: "public", table: "dated", partitioned: true, columns: &columns };
    let missing = session.batch_execute("INSERT INTO dated VALUES (1)").await.unwrap_err();
    assert_eq!(remedy(&missing, &dated), Remedy::Stop);
    let partition = "CREATE TABLE one PARTITION OF dated (UNIQUE (n)) FOR VALUES FROM (0) TO (9)";
    session.batch_execute(&format!("{partition}; INSERT INTO dated VALUES (1)")).await.unwrap();
    let twice = session.batch_execute("INSERT INTO dated VALUES (1)").await.unwrap_err();
    assert_eq!(remedy(&twice, &dated), Remedy::Isolate);

    blocker
        .batch_execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        .await
        .unwrap();
    let gone = session.batch_execute("SELECT 1").await.unwrap_err();
    assert_eq!(remedy(&gone, &target), Remedy::Wait, "{}", describe(&gone));
}

#[test]
fn names_are_literal() {
    assert_eq!(catalog::quote_ident("Us\"er; DROP"), "\"Us\"\"er; DROP\"");
    let name = TableName { schema: Some("a".into()), name: "b".into() };
    assert_eq!(catalog::quote_table(&name), "\"a\".\"b\"");
}
