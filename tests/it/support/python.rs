//! Programs in Python that the tests ask: reference.py and others of ours, and moto.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::OnceCell,
};

/// The Python of the virtual environment with tests/requirements.txt in it.
pub fn python() -> PathBuf {
    let ours = || Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let python = std::env::var_os("MASQ_TEST_PYTHON").map_or_else(ours, PathBuf::from);
    assert!(python.exists(), "{} is missing; ./dev test installs it", python.display());
    python
}

/// What a program of ours or of others prints, given this on stdin.
pub async fn python_prints(script: &str, arguments: &[&str], stdin: String) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(script);
    let mut child = Command::new(python())
        .arg(path)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // Beside each other: it may print before it has read everything.
    let writing = async move { pipe.write_all(stdin.as_bytes()).await.unwrap() };
    let ((), output) = tokio::join!(writing, child.wait_with_output());
    let output = output.unwrap();
    assert!(output.status.success(), "{script} failed");
    String::from_utf8(output.stdout).unwrap()
}

/// moto's server, an SQS and a KMS that nobody here wrote.
pub struct Moto {
    /// Its endpoint.
    pub url: String,
    _program: Child,
}

impl Moto {
    /// One of a test's own, which may set it as it likes. It ends with its handle.
    pub async fn start() -> Self {
        /// It imports much before it listens.
        const PATIENCE: Duration = Duration::from_secs(120);
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port();
        let mut program = Command::new("sh")
            .args(["-c", r#""$0" -H 127.0.0.1 -p "$1" >/dev/null 2>&1 & cat; kill "$!""#])
            .arg(python().with_file_name("moto_server"))
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let listening = async {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
                assert!(program.try_wait().unwrap().is_none(), "moto_server ended before it listened");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, listening).await.expect("moto_server does not listen");
        Self { url: format!("http://127.0.0.1:{port}"), _program: program }
    }
}

/// The endpoint of the moto that all tests share; queues of different regions do not see each other.
pub async fn moto() -> &'static str {
    static MOTO: OnceCell<Moto> = OnceCell::const_new();
    &MOTO.get_or_init(Moto::start).await.url
}
