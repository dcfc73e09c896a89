//! One run: messages onto a queue of their own, some worker processes, and a look at whether every message is one row.

use std::{
    fmt,
    time::{Duration, Instant},
};

use masq::{
    db::Session,
    local::logins::{Logins, Share},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::sleep,
};

use crate::{
    place::{Place, told},
    process::{cpu, cpu_of_family, peak},
};

/// How often processes are looked at. What one does after the last look is not counted: it is idle by then.
const GLANCE: Duration = Duration::from_millis(20);

/// `masq send` makes the logins of this seed.
const SEED: u64 = 1;

#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) messages: u64,
    pub(crate) processes: usize,
    pub(crate) vault: bool,
    /// Milliseconds by which the queue's answers are late.
    pub(crate) round_trip: u32,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} messages, {} processes", self.messages, self.processes)
    }
}

/// What a run took. Processor times and memory: `None` where they are not known.
pub(crate) struct Figures {
    run: Run,
    seconds: f64,
    clients: Option<f64>,
    server: Option<f64>,
    peak: Option<f64>,
    wal: f64,
    /// Of the table, of the ledger, and of all else in the schemas masq and masq_slots.
    sizes: [f64; 3],
}

impl Figures {
    pub(crate) const HEAD: &str = "\
| messages | processes | seconds | messages/s | masq CPU, µs a message | PostgreSQL CPU, µs a message | masq, peak MiB a process | WAL, bytes a row | table, ledger, rest: bytes a row |
|---:|---:|---:|---:|---:|---:|---:|---:|---:|";
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run: Run { messages, processes, .. }, seconds, clients, server, peak, wal, sizes } = self;
        let count = *messages as f64;
        let known = |figure: Option<f64>| figure.map_or("-".to_owned(), |figure| format!("{figure:.1}"));
        let [table, ledger, rest] = sizes.map(|size| size / count);
        let each = |cpu: Option<f64>| known(cpu.map(|seconds| seconds * 1e6 / count));
        write!(
            f,
            "| {messages} | {processes} | {seconds:.2} | {:.0} | {} | {} | {} | {:.0} | {table:.0}, {ledger:.0}, {rest:.0} |",
            count / seconds,
            each(*clients),
            each(*server),
            known(*peak),
            wal / count
        )
    }
}

impl Run {
    pub(crate) async fn measure(self, place: &Place) -> Result<Figures, String> {
        let database = format!("series_{}_{}", self.messages, self.processes);
        let home = place.session("postgres").await?;
        home.batch_execute(&format!("DROP DATABASE IF EXISTS {database}")).await.map_err(told)?;
        home.batch_execute(&format!("CREATE DATABASE {database}")).await.map_err(told)?;
        let (queue, url) = self.queue(place).await?;
        finish(place.masq(&["send", "--generate", &self.messages.to_string(), "--queue-url", &url])).await?;
        let (keys, file) = (shown(place, "keys"), shown(place, if self.vault { "on.toml" } else { "off.toml" }));
        let database_url = place.url(&database);
        let with =
            |rest: &[&str]| place.masq(&[&["--config", &file], rest, &["--database-url", &database_url]].concat());
        finish(with(&["migrate"])).await?;

        let session = place.session(&database).await?;
        session.batch_execute("CHECKPOINT").await.map_err(told)?;
        let (wal, server) = (wal(&session).await?, cpu_of_family(place.server.id()));
        let commands = (0..self.processes).map(|_| with(&["run", "--drain", "--queue-url", &url, "--keys", &keys]));
        let worked = Worked::watch(commands.collect(), &session).await?;
        let figures = Figures {
            run: self,
            seconds: worked.seconds,
            clients: worked.cpu,
            server: cpu_of_family(place.server.id()).zip(server).map(|(after, before)| after - before),
            peak: worked.peak,
            wal: worked.wal - wal,
            sizes: sizes(&session).await?,
        };
        self.verify(&session).await?;
        session.close().await;
        drop(queue);
        home.batch_execute(&format!("DROP DATABASE {database}")).await.map_err(told)?;
        Ok(figures)
    }

    /// A queue of its own, and its URL.
    async fn queue(self, place: &Place) -> Result<(Child, String), String> {
        let faults = shown(place, "faults.jsonl");
        let seconds = f64::from(self.round_trip) / 1000.0;
        std::fs::write(&faults, format!(r#"{{"action":"*","fault":"hang","seconds":{seconds}}}"#)).map_err(told)?;
        let late = if self.round_trip > 0 { &["--faults", &faults][..] } else { &[] };
        let mut child = place.masq(&[&["queue", "--listen", "127.0.0.1:0"], late].concat()).spawn().map_err(told)?;
        let stdout = child.stdout.take().ok_or("the queue has no stdout")?;
        let url = BufReader::new(stdout).lines().next_line().await.map_err(told)?;
        url.map(|url| (child, url)).ok_or("the queue does not start".to_owned())
    }

    /// Every message is one row, and of whom they are is what was sent. A row that is there twice for one that is lost
    /// would keep the number and change the sum.
    async fn verify(self, session: &Session) -> Result<(), String> {
        const FOUND: &str = "SELECT count(*), (SELECT count(*) FROM masq.ledger WHERE outcome = 1), \
             (SELECT count(*) FROM masq.ledger), sum(('x' || left(user_id, 8))::bit(32)::bigint)::text FROM user_logins";
        let row = session.query_one(FOUND, &[]).await.map_err(told)?;
        let found: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
        let messages = i64::try_from(self.messages).map_err(told)?;
        let sent = Logins::new(SEED, Share::NONE).zip(0..self.messages);
        let sum: u64 = sent.filter_map(|(login, _)| first_digits(&login.body)).sum();
        if found == [messages; 3] && row.get::<_, Option<&str>>(3) == Some(sum.to_string().as_str()) {
            return Ok(());
        }
        Err(format!("rows, ledger's rows, ledger's keys: {found:?}; or other people than were sent"))
    }
}

/// The first eight digits of a login's user_id, as a number.
fn first_digits(body: &str) -> Option<u64> {
    let (_, rest) = body.split_once("\"user_id\": \"")?;
    u64::from_str_radix(rest.get(..8)?, 16).ok()
}

/// What worker processes did until the queue was empty.
struct Worked {
    /// From their start to the last commit.
    seconds: f64,
    cpu: Option<f64>,
    peak: Option<f64>,
    /// PostgreSQL's position after the last commit.
    wal: f64,
}

impl Worked {
    async fn watch(commands: Vec<Command>, session: &Session) -> Result<Self, String> {
        let start = Instant::now();
        let spawned: Result<Vec<Child>, _> = commands.into_iter().map(|mut command| command.spawn()).collect();
        let mut children = spawned.map_err(told)?;
        let ids: Vec<u32> = children.iter().filter_map(Child::id).collect();
        let (mut cpus, mut peaks) = (vec![None; ids.len()], vec![None; ids.len()]);
        let (mut position, mut seconds) = (wal(session).await?, 0.0);
        while children.iter_mut().any(|child| matches!(child.try_wait(), Ok(None))) {
            for (at, id) in ids.iter().enumerate() {
                cpus[at] = cpu(*id).or(cpus[at]);
                peaks[at] = peak(*id).or(peaks[at]);
            }
            let now = wal(session).await?;
            if now > position {
                (position, seconds) = (now, start.elapsed().as_secs_f64());
            }
            sleep(GLANCE).await;
        }
        for child in children {
            succeeded(child.wait_with_output().await)?;
        }
        let peak = peaks.into_iter().collect::<Option<Vec<f64>>>().map(|peaks| peaks.into_iter().fold(0.0, f64::max));
        Ok(Self { seconds, cpu: cpus.into_iter().sum(), peak, wal: position })
    }
}

async fn wal(session: &Session) -> Result<f64, String> {
    let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8";
    session.query_one(sql, &[]).await.map(|row| row.get(0)).map_err(told)
}

/// Bytes on disk, indexes included.
async fn sizes(session: &Session) -> Result<[f64; 3], String> {
    const SIZES: &str = "SELECT \
         sum(size) FILTER (WHERE name = 'user_logins'), \
         sum(size) FILTER (WHERE name ~ '^ledger'), \
         sum(size) FILTER (WHERE name !~ '^(user_logins$|ledger)') \
         FROM (SELECT relname::text AS name, pg_total_relation_size(oid)::float8 AS size FROM pg_class \
               WHERE relkind = 'r' AND relnamespace::regnamespace::text IN ('public', 'masq', 'masq_slots')) AS tables";
    let row = session.query_one(SIZES, &[]).await.map_err(told)?;
    Ok([row.get(0), row.get(1), row.get(2)])
}

fn shown(place: &Place, name: &str) -> String {
    place.path(name).display().to_string()
}

async fn finish(mut command: Command) -> Result<(), String> {
    succeeded(command.output().await)
}

fn succeeded(output: std::io::Result<std::process::Output>) -> Result<(), String> {
    let output = output.map_err(told)?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
