//! What `masq run` says when it cannot start: the cause, the remedy and the exit code. Nothing is taken off the queue.

use std::{net::Ipv4Addr, os::unix::fs::PermissionsExt, path::Path, process::Command as StdCommand, time::Duration};

use axum::{Router, http::StatusCode, response::IntoResponse};
use masq::{
    local::{
        postgres::{Options, PrivatePostgres},
        sqs::SqsServer,
    },
    queue::memory::{MemoryQueue, MemoryQueues, Settings},
};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::support::{Database, Keys, finish, login, service, until};

/// A queue with one login on it, keys, and a database.
struct Place {
    server: SqsServer,
    queues: MemoryQueues,
    queue: MemoryQueue,
    keys: Keys,
    database: Database,
}

impl Place {
    async fn new() -> Self {
        let queues = MemoryQueues::new();
        let queue = queues.create("login-queue", Settings::default()).unwrap();
        queue.send(login("u1", "199.172.111.135").into_bytes());
        let server = SqsServer::start((Ipv4Addr::LOCALHOST, 0).into(), queues.clone()).await.unwrap();
        Self { server, queues, queue, keys: Keys::create(), database: Database::create().await }
    }

    /// Runs masq, with these arguments beside and over the right ones: exit code and stderr.
    async fn run(&self, more: &[(&str, &str)]) -> (i32, String) {
        let (url, keys) = (self.server.queue_url("login-queue"), self.keys.path().display().to_string());
        let mut pairs = vec![
            ("--queue-url", url.as_str()),
            ("--database-url", &self.database.url),
            ("--keys", &keys),
            ("--start-timeout", "1"),
            ("--log-format", "text"),
        ];
        for &(name, value) in more {
            pairs.retain(|(there, _)| *there != name);
            pairs.push((name, value));
        }
        let arguments: Vec<&str> =
            ["run", "--drain"].into_iter().chain(pairs.iter().flat_map(|&(n, v)| [n, v])).collect();
        let (exit, stdout, stderr) = finish(service(&arguments)).await;
        assert_eq!(stdout, "");
        (exit, stderr)
    }

    /// What `masq check` says of this database and these keys.
    async fn check(&self, database: &str, keys: &Path) -> (i32, String) {
        let (queue, keys) = (self.server.queue_url("login-queue"), keys.display().to_string());
        let arguments = ["check", "--queue-url", &queue, "--database-url", database, "--keys", &keys];
        let (exit, stdout, _) = finish(service(&arguments)).await;
        (exit, stdout)
    }

    /// Runs masq and expects it to refuse, with these words, without having touched the message.
    async fn refuses(&self, more: &[(&str, &str)], exit: i32, words: &[&str]) {
        let (found, stderr) = self.run(more).await;
        assert_eq!(found, exit, "{stderr}");
        for word in words {
            assert!(stderr.contains(word), "{word:?} is not in\n{stderr}");
        }
        assert_eq!((self.queue.count().visible, self.queue.count().in_flight), (1, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_does_not_exist_is_waited_for() {
    let place = Place::new().await;
    let url = place.server.queue_url("not-yet");
    place.refuses(&[("--queue-url", &url)], 69, &["does not exist"]).await;

    let more = [("--queue-url", url.as_str()), ("--start-timeout", "30")];
    // By then it waits, or finds the queue at once: both are fine.
    let created = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        place.queues.create("not-yet", Settings::default()).unwrap();
    };
    let ((exit, stderr), ()) = tokio::join!(place.run(&more), created);
    assert_eq!(exit, 0, "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_aws_credentials() {
    let refuse = || async {
        let body = r#"{"__type":"com.amazon.coral.service#UnrecognizedClientException","message":"The security token included in the request is invalid."}"#;
        (StatusCode::BAD_REQUEST, body).into_response()
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(refuse)).await });
    let place = Place::new().await;
    place.refuses(&[("--endpoint-url", &endpoint)], 77, &["UnrecognizedClientException", "check the access key"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_that_refuse_us() {
    let place = Place::new().await;
    let url = &place.database.tcp_url;
    let (before, after) = url.split_once("postgres:").unwrap();
    let (_, host) = after.split_once('@').unwrap();
    let wrong_password = format!("{before}postgres:wrong@{host}");
    place.refuses(&[("--database-url", &wrong_password)], 77, &["28P01", "PGPASSWORD"]).await;
    let no_database = url.rsplit_once('/').unwrap().0.to_owned() + "/nowhere";
    place.refuses(&[("--database-url", &no_database)], 78, &["3D000", "nowhere"]).await;
    let no_server = format!("{before}postgres:x@127.0.0.1:1/test");
    place.refuses(&[("--database-url", &no_server)], 69, &["127.0.0.1:1"]).await;
    let no_tls = format!("{url}?sslmode=require");
    place.refuses(&[("--database-url", &no_tls)], 78, &["TLS", "sslmode"]).await;
    let typo = format!("{url}?sslmod=require");
    place.refuses(&[("--database-url", &typo)], 78, &["sslmod", "did you mean"]).await;
}

/// A certificate that nobody vouches for, made by the openssl command.
fn self_signed(directory: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let (certificate, key) = (directory.join("server.crt"), directory.join("server.key"));
    let made = StdCommand::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (certificate, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_full_against_a_self_signed_server() {
    let place = Place::new().await;
    let directory = TempDir::new_in("/tmp").unwrap();
    let (certificate, key) = self_signed(directory.path());
    let options = Options {
        directory: directory.path().join("cluster"),
        path: std::env::var("PATH").ok(),
        port: Some(0),
        tls: Some((certificate.clone(), key)),
        ..Options::default()
    };
    let server = PrivatePostgres::start(&options).await.unwrap();
    let url = server.tcp_conninfo().unwrap();
    let verify_full = format!("{url}?sslmode=verify-full");
    place.refuses(&[("--database-url", &verify_full)], 78, &["sslrootcert"]).await;
    let system = format!("{verify_full}&sslrootcert=system");
    place.refuses(&[("--database-url", &system)], 78, &["certificate", "sslrootcert"]).await;

    let trusted = format!("{verify_full}&sslrootcert={}", certificate.display());
    let (exit, stderr) = place.run(&[("--database-url", &trusted)]).await;
    assert_eq!(exit, 0, "{stderr}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_do_not_fit() {
    let place = Place::new().await;
    let table = "CREATE TABLE user_logins(user_id varchar(128), device_type varchar(32), masked_ip varchar(40), \
                 masked_device_id varchar(256), locale varchar(32), create_date date, tenant int NOT NULL)";
    place.database.execute(table).await;
    let words = [
        "has no column \"app_version\"",
        "ALTER TABLE public.user_logins ADD COLUMN \"app_version\" varchar(32)",
        "\"masked_ip\" has type varchar(40), too short for a token",
        "\"tenant\" that is NOT NULL without a default",
    ];
    place.refuses(&[], 78, &words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_says_what_it_did_and_what_does_not_fit() {
    let place = Place::new().await;
    let migrate = async |url: &str| {
        let (exit, _, stderr) = finish(service(&["migrate", "--database-url", url, "--log-format", "text"])).await;
        (exit, stderr)
    };
    let (exit, stderr) = migrate(&place.database.url).await;
    assert!(exit == 0 && stderr.contains("created the schema masq"), "{stderr}");
    let (exit, stderr) = migrate(&place.database.url).await;
    assert_eq!((exit, stderr.as_str()), (0, "The schema masq and the target table are up to date.\n"));

    place.database.execute("ALTER TABLE user_logins DROP locale").await;
    let (exit, stderr) = migrate(&place.database.url).await;
    assert!(exit == 78 && stderr.contains("has no column \"locale\""), "{stderr}");
    assert!(!stderr.contains("up to date"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_without_permissions_gets_77_from_every_command() {
    let place = Place::new().await;
    let role = format!("reader_{}", uuid::Uuid::new_v4().simple());
    place.database.execute(&format!("CREATE ROLE {role} LOGIN; REVOKE CREATE ON SCHEMA public FROM public")).await;
    let url = place.database.url.replace("postgres@", &format!("{role}@"));

    // What is missing must be made by another login, so it is no permission that this one lacks.
    let (exit, stdout) = place.check(&url, &place.keys.path()).await;
    assert!(exit == 78 && stdout.contains("`masq migrate`") && !stdout.contains("ready\n"), "{stdout}");
    place.refuses(&[("--database-url", &url)], 78, &["`masq migrate`"]).await;
    let (exit, _, stderr) = finish(service(&["migrate", "--database-url", &url])).await;
    assert!(exit == 77 && stderr.contains("42501") && stderr.contains("may create schemas and tables"), "{stderr}");

    let (exit, _, stderr) = finish(service(&["migrate", "--database-url", &place.database.url])).await;
    assert_eq!(exit, 0, "{stderr}");
    let (exit, stdout) = place.check(&url, &place.keys.path()).await;
    assert!(exit == 77 && stdout.contains("GRANT"), "{stdout}");
    place.refuses(&[("--database-url", &url)], 77, &["GRANT"]).await;
    let (exit, _, stderr) = finish(service(&["dead", "list", "--database-url", &url])).await;
    assert!(exit == 77 && stderr.contains("masq_operator"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_every_key_file_that_cannot_be_used() {
    let place = Place::new().await;
    let keys = place.keys.path();
    std::fs::remove_file(keys.join("token.key")).unwrap();
    std::fs::set_permissions(keys.join("subject.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::remove_file(keys.join("recovery.pub")).unwrap();
    let (exit, stdout) = place.check(&place.database.url, &keys).await;
    assert_eq!(exit, 78, "{stdout}");
    for file in ["token.key", "subject.key has mode 0644", "recovery.pub"] {
        assert!(stdout.contains(file), "{file} is not in\n{stdout}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn configurations_and_keys_that_are_wrong() {
    let place = Place::new().await;
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("masq.toml");
    std::fs::write(&file, "[queue]\nvisibilty = \"30s\"\n[ledger]\nretention = 15\n").unwrap();
    let path = file.display().to_string();
    let words = ["masq.toml:2", "did you mean \"visibility\"", "masq.toml:4"];
    place.refuses(&[("--config", &path)], 78, &words).await;

    std::fs::write(&file, "[ledger]\nretention = \"2d\"\n").unwrap();
    place.refuses(&[("--config", &path)], 78, &["the ledger forgets after 2 days", "retention = \"5d\""]).await;

    place.refuses(&[("--keys", "/nowhere")], 78, &["/nowhere/token.key", "masq keys new"]).await;

    // Another run with the right keys claims the database; then other keys are refused.
    let (exit, stderr) = place.run(&[]).await;
    assert_eq!(exit, 0, "{stderr}");
    place.queue.send(login("u2", "10.0.0.1").into_bytes());
    let other = Keys::create();
    let path = other.path().display().to_string();
    place.refuses(&[("--keys", &path)], 78, &["token.key is not the key with which this database was written"]).await;

    // The same key under another id would make other tokens too.
    let file = place.keys.path().join("token.key");
    let text = std::fs::read_to_string(&file).unwrap().replace("kid=1", "kid=2");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    place.refuses(&[], 78, &["token.key is not the key with which this database was written"]).await;
    assert_eq!(place.database.query("SELECT count(*) FROM user_logins").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_after_the_start_is_no_reason_to_end() {
    let place = Place::new().await;
    let directory = TempDir::new_in("/tmp").unwrap();
    let options =
        Options { directory: directory.path().join("cluster"), path: std::env::var("PATH").ok(), ..Options::default() };
    let server = PrivatePostgres::start(&options).await.unwrap();
    let (url, keys) = (place.server.queue_url("login-queue"), place.keys.path().display().to_string());
    let arguments = ["run", "--queue-url", &url, "--database-url", &server.conninfo(), "--keys", &keys];
    let mut child = service(&arguments).spawn().unwrap();
    until("the first login is loaded", async || place.queue.count().is_empty()).await;

    let conninfo = server.conninfo();
    server.stop().await;
    place.queue.send(login("u2", "10.0.0.1").into_bytes());
    until("it holds the message", async || place.queue.count().in_flight == 1).await;
    let server = PrivatePostgres::start(&options).await.unwrap();
    assert_eq!(server.conninfo(), conninfo);
    until("the second login is loaded too", async || place.queue.count().is_empty()).await;
    assert!(child.try_wait().unwrap().is_none(), "it ended");
    child.kill().await.unwrap();
    server.stop().await;
}
