use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    time::{Duration, Instant},
};

use super::{Options, PostgresError, PrivatePostgres};
use crate::db::{Connector, Session, Timeouts, conninfo::Conninfo};

async fn session(conninfo: &str) -> Session {
    let second = Duration::from_secs(10);
    let timeouts = Timeouts { connect: second, lock: second, statement: second, idle_in_transaction: second };
    let conninfo = Conninfo::parse(conninfo, None, &|_| None).unwrap();
    Connector::new(conninfo, timeouts).unwrap().connect().await.unwrap()
}

fn options(directory: &tempfile::TempDir) -> Options {
    Options { directory: directory.path().to_owned(), port: Some(0), ..Options::default() }
}

async fn ended(cluster: &mut PrivatePostgres) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !cluster.has_ended() {
        assert!(Instant::now() < deadline, "the server still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn answers_on_socket_and_port_and_keeps_what_was_committed_across_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = PrivatePostgres::start(&options(&directory)).await.unwrap();
    let over_socket = session(&cluster.conninfo()).await;
    over_socket.batch_execute("CREATE TABLE kept AS SELECT 7 AS n").await.unwrap();
    let over_tcp = session(&cluster.tcp_conninfo().unwrap()).await;
    let n: i32 = over_tcp.query_one("SELECT n FROM kept", &[]).await.unwrap().get(0);
    assert_eq!(n, 7);
    let fsync: String = over_tcp.query_one("SHOW fsync", &[]).await.unwrap().get(0);
    assert_eq!(fsync, "on");
    assert_eq!(fs::metadata(directory.path()).unwrap().permissions().mode() & 0o777, 0o700);
    let postmaster = fs::metadata(directory.path().join("data/postmaster.pid")).unwrap();
    assert_ne!(postmaster.uid(), 0, "PostgreSQL runs as root");

    drop(cluster);
    assert!(over_tcp.query_one("SELECT 1", &[]).await.is_err());
    let again = Options { settings: vec![("work_mem".into(), "8MB".into())], port: None, ..options(&directory) };
    let cluster = PrivatePostgres::start(&again).await.unwrap();
    assert!(cluster.tcp_conninfo().is_none());
    let session = session(&cluster.conninfo()).await;
    let n: i32 = session.query_one("SELECT n FROM kept", &[]).await.unwrap().get(0);
    let work_mem: String = session.query_one("SHOW work_mem", &[]).await.unwrap().get(0);
    assert_eq!((n, work_mem.as_str()), (7, "8MB"));
    session.close().await;
    cluster.stop().await;
    assert!(!directory.path().join("data/postmaster.pid").exists(), "not stopped in good order");
}

#[tokio::test]
async fn ends_with_the_process_that_owns_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = PrivatePostgres::start(&options(&directory)).await.unwrap();
    // What the system does when a process is killed: it closes the pipe without a word.
    drop(cluster.watchdog.leash.take());
    ended(&mut cluster).await;
}

#[tokio::test]
async fn a_long_directory_puts_the_socket_elsewhere() {
    let directory = tempfile::Builder::new().prefix(&"long".repeat(25)).tempdir().unwrap();
    let cluster = PrivatePostgres::start(&options(&directory)).await.unwrap();
    assert!(session(&cluster.conninfo()).await.query_one("SELECT 1", &[]).await.is_ok());
    cluster.stop().await;
}

#[tokio::test]
async fn says_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = Options { bin: Some("/nowhere".into()), ..options(&directory) };
    assert!(matches!(PrivatePostgres::start(&elsewhere).await, Err(PostgresError::NotThere(_))));

    let wrong = Options { settings: vec![("no_such_setting".into(), "1".into())], port: None, ..options(&directory) };
    let Err(error) = PrivatePostgres::start(&wrong).await else { panic!("started") };
    assert!(error.to_string().contains("no_such_setting"), "{error}");

    let occupied = tempfile::tempdir().unwrap();
    fs::write(occupied.path().join("thesis.txt"), "").unwrap();
    assert!(matches!(PrivatePostgres::start(&options(&occupied)).await, Err(PostgresError::Occupied(_))));

    fs::set_permissions(occupied.path(), fs::Permissions::from_mode(0o700)).unwrap();
    if rustix::process::geteuid().is_root() {
        let inside = Options { directory: occupied.path().join("inside"), ..Options::default() };
        let error = PrivatePostgres::start(&inside).await.err().unwrap();
        assert!(matches!(error, PostgresError::OutOfReach { .. }), "{error}");
    }
}
