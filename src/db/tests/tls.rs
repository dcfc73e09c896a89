//! Certificates: what is verified, of the server and of the client.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use super::{connect, connect_with};
use crate::{
    db::{ConnectError, Session},
    local::postgres::{Options, PrivatePostgres},
};

async fn encrypted(session: &Session) -> bool {
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    session.query_one(sql, &[]).await.unwrap().get(0)
}

/// Certificates made for one test.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn shown(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn openssl(&self, arguments: &str) {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(self.0.path()).args(arguments.split(' ')).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(openssl.status().unwrap().success(), "openssl {arguments}");
    }

    /// `name.crt` and `name.key`, signed by itself: the recipe of PostgreSQL's manual, which makes it a CA.
    fn self_signed(&self, name: &str, extra: &str) {
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
        self.openssl(&format!("req -x509 {key} -keyout {name}.key -out {name}.crt -subj /CN={name}{extra}"));
    }

    /// `name.crt` and `name.key`, signed by `ca`.
    fn signed(&self, name: &str, extra: &str) {
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -CA ca.crt -CAkey ca.key";
        let leaf = "-addext basicConstraints=critical,CA:FALSE";
        self.openssl(&format!("req -x509 {key} {leaf} -keyout {name}.key -out {name}.crt -subj /CN={name}{extra}"));
    }
}

#[tokio::test]
async fn sslmode_verifies_what_libpq_verifies() {
    let made = Certificates::new();
    made.self_signed("ca", "");
    made.self_signed("other", "");
    made.signed("server", " -addext subjectAltName=DNS:localhost");
    made.signed("certified", "");
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".postgresql")).unwrap();
    std::fs::copy(made.path("ca.crt"), home.path().join(".postgresql/root.crt")).unwrap();

    let directory = tempfile::tempdir().unwrap();
    let mut options = Options { directory: directory.path().to_owned(), port: Some(0), ..Options::default() };
    options.tls = Some((made.path("server.crt"), made.path("server.key")));
    drop(PrivatePostgres::start(&options).await.unwrap());
    let rules = "local all all trust\n\
                 hostssl all certified 127.0.0.1/32 cert\n\
                 hostnossl all plain 127.0.0.1/32 trust\n\
                 host all postgres 127.0.0.1/32 scram-sha-256\n";
    std::fs::write(directory.path().join("data/pg_hba.conf"), rules).unwrap();
    std::fs::copy(made.path("ca.crt"), directory.path().join("data/ca.crt")).unwrap();
    options.settings = vec![("ssl_ca_file".into(), "ca.crt".into())];
    let cluster = PrivatePostgres::start(&options).await.unwrap();
    let roles = "CREATE ROLE certified LOGIN; CREATE ROLE plain LOGIN";
    connect(&cluster.conninfo()).await.unwrap().batch_execute(roles).await.unwrap();

    // The server's certificate is for localhost; by its address it is another's.
    let by_address = cluster.tcp_conninfo().unwrap();
    let by_name = by_address.replace("@127.0.0.1", "@localhost") + "?hostaddr=127.0.0.1&";
    let by_address = by_address + "?";
    let (ca, other) = (made.shown("ca.crt"), made.shown("other.crt"));
    let cases: [(&str, &str, Result<bool, &str>); 16] = [
        (&by_address, "sslmode=disable", Ok(false)),
        (&by_address, "sslmode=allow", Ok(true)),
        (&by_address, "", Ok(true)),
        (&by_address, "sslmode=prefer&sslrootcert=OTHER", Ok(true)),
        (&by_address, "sslmode=require", Ok(true)),
        (&by_address, "sslmode=require&channel_binding=require", Ok(true)),
        (&by_address, "sslmode=require&sslrootcert=CA", Ok(true)),
        (&by_address, "sslmode=require&sslrootcert=OTHER", Err("put the CA's certificate there")),
        (&by_address, "sslmode=verify-ca&sslrootcert=CA", Ok(true)),
        (&by_address, "sslmode=verify-ca&sslrootcert=OTHER", Err("put the CA's certificate there")),
        (&by_address, "sslmode=verify-ca", Err("name the CA's file in sslrootcert")),
        (&by_name, "sslmode=verify-full&sslrootcert=CA", Ok(true)),
        (&by_name, "sslmode=verify-full&sslrootcert=OTHER", Err("put the CA's certificate there")),
        (&by_name, "sslmode=verify-full&sslrootcert=/none.crt", Err("cannot read sslrootcert /none.crt")),
        (&by_address, "sslmode=verify-full&sslrootcert=CA", Err("is for")),
        (&by_name, "sslrootcert=system", Err("put the CA's certificate there")),
    ];
    for (base, parameters, expected) in cases {
        let parameters = parameters.replace("CA", &ca).replace("OTHER", &other);
        match (connect(&format!("{base}{parameters}")).await, expected) {
            (Ok(session), Ok(tls)) => assert_eq!(encrypted(&session).await, tls, "{parameters}"),
            (Err(error @ (ConnectError::Misconfigured(_) | ConnectError::Tls(_))), Err(part)) => {
                assert!(error.to_string().contains(part), "{parameters}: {error}");
            }
            (outcome, _) => panic!("{parameters}: {:?}", outcome.err()),
        }
    }

    let at_home = [("HOME", home.path().to_str().unwrap())];
    let verified = connect_with(&format!("{by_name}sslmode=verify-full"), &at_home).await;
    assert!(encrypted(&verified.unwrap()).await, "~/.postgresql/root.crt");
    let not_tls = connect(&format!("host=127.0.0.1 port={} user=plain dbname=postgres", port(&by_name))).await;
    assert!(!encrypted(&not_tls.unwrap()).await, "prefer falls back to plain text");

    client_certificates(&made, &by_name).await;
    self_signed_server(&made, &directory, &cluster, &by_name).await;
}

fn port(url: &str) -> &str {
    let (_, after) = url.rsplit_once("localhost:").unwrap();
    after.split_once('/').unwrap().0
}

async fn client_certificates(made: &Certificates, by_name: &str) {
    let base = format!("host=127.0.0.1 port={} dbname=postgres user=certified sslmode=require", port(by_name));
    let (certificate, key) = (made.shown("certified.crt"), made.shown("certified.key"));
    let session = connect(&format!("{base} sslcert={certificate} sslkey={key}")).await.unwrap();
    assert!(encrypted(&session).await);
    let without = connect(&base).await.err().unwrap();
    assert!(matches!(without, ConnectError::Denied(_)), "{without}");

    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let readable = connect(&format!("{base} sslcert={certificate} sslkey={key}")).await.err().unwrap();
    assert!(readable.to_string().contains("chmod 0600"), "{readable}");
}

/// A certificate that is its own CA is trusted where it is itself the root.
async fn self_signed_server(made: &Certificates, directory: &TempDir, cluster: &PrivatePostgres, by_name: &str) {
    made.self_signed("lonely", " -addext subjectAltName=DNS:localhost");
    for ending in ["crt", "key"] {
        let content = std::fs::read(made.path(&format!("lonely.{ending}"))).unwrap();
        std::fs::write(directory.path().join(format!("server.{ending}")), content).unwrap();
    }
    let session = connect(&cluster.conninfo()).await.unwrap();
    session.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let trusted = format!("{by_name}sslmode=verify-full&sslrootcert={}", made.shown("lonely.crt"));
    // The reload is done when the postmaster gets round to it.
    let mut outcome = connect(&trusted).await;
    for _ in 0..200 {
        if outcome.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        outcome = connect(&trusted).await;
    }
    assert!(encrypted(&outcome.unwrap()).await);
    let untrusted = connect(&format!("{by_name}sslmode=verify-full&sslrootcert={}", made.shown("ca.crt"))).await;
    let text = untrusted.err().unwrap().to_string();
    assert!(text.contains("put that very certificate into sslrootcert"), "{text}");
}
