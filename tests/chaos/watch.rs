//! What is looked at every second while a campaign runs: what the workers take of the machine, and what they count.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde_json::json;
use tokio::time::sleep;

use crate::{nemesis::Nemesis, records::Records, workers::sample};

/// Notes every second what the workers take of the machine and what they count.
pub(crate) async fn watch(nemesis: Arc<Nemesis>, records: Arc<Records>, directory: PathBuf) {
    loop {
        sleep(Duration::from_secs(1)).await;
        for worker in &nemesis.workers {
            let pid = worker.pid.load(Ordering::Relaxed);
            if pid == 0 {
                continue;
            }
            let (peak_kib, files) = sample(pid);
            let name = &worker.plan.name;
            records.write("samples", json!({ "worker": name, "pid": pid, "peak_kib": peak_kib, "files": files }));
            if let Some(metrics) = scrape(worker.plan.metrics).await {
                drop(fs::write(directory.join(format!("metrics/{name}.{pid}.txt")), metrics));
            }
        }
    }
}

/// What a worker counts, if it answers.
async fn scrape(address: SocketAddr) -> Option<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let asking = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    };
    tokio::time::timeout(Duration::from_millis(500), asking).await.ok()?
}
