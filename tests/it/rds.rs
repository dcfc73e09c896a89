//! Tokens of RDS in place of passwords: the same as botocore's, made anew for each session, sent to nobody who has not
//! shown who he is, and never told. The server is PostgreSQL with TLS; what RDS asks of IAM, the test does: it takes the
//! newest token for the login's password.

use std::{
    path::{Path, PathBuf},
    process::Command as Program,
    sync::{Arc, Mutex},
};

use masq::{
    aws::RdsTokens,
    db::{
        ConnectError, Connector,
        conninfo::Conninfo,
        passwords::{Asked, Passwords},
    },
    local::postgres::{Options, PrivatePostgres},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::{Keys, TIMEOUTS, finish, masq, python_prints, session};

const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const SESSION: &str = "a/session+token==";

fn environment(name: &str) -> Option<String> {
    let value = match name {
        "AWS_ACCESS_KEY_ID" => ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY" => SECRET_KEY,
        "AWS_SESSION_TOKEN" => SESSION,
        "AWS_REGION" => "us-east-1",
        // A stand-in of other services has no say in this.
        "AWS_ENDPOINT_URL" => "http://sqs.eu-north-1.localhost.localstack.cloud:4566",
        _ => return None,
    };
    Some(value.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_the_one_that_botocore_makes() {
    let cases = [
        ("masq.abc123.eu-west-1.rds.amazonaws.com", 5432, "masq", "eu-west-1"),
        ("db.example.com", 6432, "a user+with/odd@signs \u{e9}", "us-east-1"),
    ];
    for (host, port, user, region) in cases {
        let token = RdsTokens::new(host, &environment).unwrap().token(host, port, user).await.unwrap();
        let given = json!({"token": *token, "host": host, "port": port, "user": user, "region": region,
            "access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "session": SESSION});
        python_prints("clients/rds_token.py", &[], given.to_string()).await;
    }
}

/// A PostgreSQL that wants TLS and the password as it is, with a certificate for localhost, of an authority of its own.
struct Server {
    directory: TempDir,
    postgres: PrivatePostgres,
}

impl Server {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
        openssl(directory.path(), &format!("req -x509 {key} -keyout ca.key -out ca.crt -subj /CN=ca"));
        let leaf = "-addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:localhost";
        let by = "-CA ca.crt -CAkey ca.key -subj /CN=server";
        openssl(directory.path(), &format!("req -x509 {key} {leaf} {by} -keyout server.key -out server.crt"));
        let mut options = Options { directory: at("cluster"), port: Some(0), ..Options::default() };
        options.bin = std::env::var_os("MASQ_TEST_POSTGRES").map(PathBuf::from);
        options.path = std::env::var("PATH").ok();
        options.tls = Some((at("server.crt"), at("server.key")));
        drop(PrivatePostgres::start(&options).await.unwrap());
        let rules = "local all all trust\nhostssl all all 127.0.0.1/32 password\n";
        std::fs::write(at("cluster/data/pg_hba.conf"), rules).unwrap();
        let postgres = PrivatePostgres::start(&options).await.unwrap();
        session(&postgres.conninfo()).await.batch_execute("CREATE ROLE masq LOGIN").await.unwrap();
        Self { directory, postgres }
    }

    /// How the login reaches it, by the name that its certificate has.
    fn url(&self, parameters: &str) -> String {
        let url = self.postgres.tcp_conninfo().unwrap();
        let port = url.rsplit(':').next().unwrap().split('/').next().unwrap().to_owned();
        let ca = self.directory.path().join("ca.crt");
        format!(
            "postgres://masq@localhost:{port}/postgres?hostaddr=127.0.0.1&sslrootcert={}&{parameters}",
            ca.display()
        )
    }
}

fn openssl(directory: &Path, arguments: &str) {
    let made = Program::new("openssl").args(arguments.split(' ')).current_dir(directory).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// RDS's part: the newest token is the password.
struct Iam {
    tokens: RdsTokens,
    owner: String,
    made: Mutex<Vec<String>>,
}

impl Passwords for Iam {
    fn password<'a>(&'a self, host: &'a str, port: u16, user: &'a str) -> Asked<'a> {
        Box::pin(async move {
            let token = self.tokens.token(host, port, user).await.unwrap();
            assert!(token.starts_with(&format!("{host}:{port}/?Action=connect&DBUser=masq&")), "{}", *token);
            let owner = session(&self.owner).await;
            owner.batch_execute(&format!("ALTER ROLE {user} PASSWORD '{}'", *token)).await.unwrap();
            self.made.lock().unwrap().push(token.to_string());
            Ok(token)
        })
    }
}

fn connector(url: &str) -> Connector {
    Connector::new(Conninfo::parse(url, None, &|_| None).unwrap(), TIMEOUTS).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_session_comes_with_a_token_of_its_own() {
    let server = Server::start().await;
    let tokens = RdsTokens::new("localhost", &environment).unwrap();
    let iam = Arc::new(Iam { tokens, owner: server.postgres.conninfo(), made: Mutex::default() });
    let made = || iam.made.lock().unwrap().len();
    let with = |url: &str| {
        let iam = iam.clone();
        connector(url).with_passwords(|_| Ok(iam))
    };
    let connector = with(&server.url("sslmode=verify-full")).unwrap();
    for number in 1..=2 {
        let session = connector.connect().await.unwrap();
        let who =
            session.texts("asking", "SELECT current_user, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await;
        assert_eq!(who.unwrap(), [["masq", "t"].map(|text| Some(text.to_owned()))]);
        assert_eq!(made(), number);
    }

    // A password that is given is used, and no token made.
    session(&server.postgres.conninfo()).await.batch_execute("ALTER ROLE masq PASSWORD 'given'").await.unwrap();
    let given = server.url("sslmode=verify-full").replace("masq@", "masq:given@");
    with(&given).unwrap().connect().await.unwrap();
    assert_eq!(made(), 2);

    // Whoever cannot show who he is gets none.
    for weaker in ["sslmode=require", "sslmode=verify-ca", "sslmode=disable", ""] {
        let error = with(&server.url(weaker)).err().unwrap();
        assert!(matches!(error, ConnectError::Misconfigured(_)), "{weaker}: {error}");
        assert!(error.to_string().contains("add sslmode=verify-full"), "{error}");
    }
    assert!(with(&server.postgres.conninfo()).is_err(), "a socket has no TLS");
    let elsewhere = server.url("sslmode=verify-full").replace("@localhost", "@elsewhere.example");
    let error = with(&elsewhere).unwrap().connect().await.err().unwrap();
    assert!(error.to_string().contains("elsewhere.example"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn masq_takes_tokens_for_both_databases_and_never_tells_them() {
    let (server, keys) = (Server::start().await, Keys::create());
    let here = keys.directory.path();
    let url = server.url("sslmode=verify-full");
    let file = |database: &str, slots: &str| {
        format!(
            "[database]\nauth = \"rds-iam\"\nurl = \"{database}\"\n[vault]\nslots_auth = \"rds-iam\"\nslots_url = \"{slots}\"\n"
        )
    };
    let run = async |file: String| {
        std::fs::write(here.join("masq.toml"), file).unwrap();
        let mut command = masq(here, &["migrate"]);
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"] {
            command.env(name, environment(name).unwrap());
        }
        command.env("MASQ_LOG", "trace");
        finish(Command::from(command)).await
    };
    // Nobody has told this server about the token, so that it refuses it: it was sent.
    session(&server.postgres.conninfo()).await.batch_execute("ALTER ROLE masq PASSWORD 'other'").await.unwrap();
    let (exit, stdout, stderr) = run(file(&url, &url)).await;
    assert_ne!(exit, 0);
    assert!(stderr.contains("28P01") && stderr.contains("GRANT rds_iam to this login"), "{stderr}");
    for told in [&stdout, &stderr] {
        assert!(!told.contains("X-Amz") && !told.contains(SECRET_KEY) && !told.contains(SESSION), "{told}");
    }
    let weaker = url.replace("verify-full", "require");
    for file in [file(&weaker, &url), file(&url, &weaker)] {
        let (exit, _, stderr) = run(file).await;
        assert_eq!(exit, 78, "{stderr}");
        assert!(stderr.contains("add sslmode=verify-full"), "{stderr}");
    }
}
