//! Guards: what a message costs where nothing but a count is needed to tell, so that a slow machine changes no figure.
//! Each bound says what is beyond it, and what it would be if all went as well as it can.
//!
//! The real program takes half of a backlog off the local queue into a PostgreSQL of the test's own, in which nobody else
//! writes. What is counted in memory and in the processor: `tests/allocations.rs`, `benches/instructions.rs`.

use std::net::Ipv4Addr;

use masq::{
    db::Session,
    local::sqs::{History, Script, SqsServer},
    queue::memory::{MemoryQueue, MemoryQueues, Settings},
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use crate::{
    support::{Database, Keys, config_of, finish, login, service, until},
    tidy::assert_none,
};

/// Messages of the backlog, of which half are to be settled. Fewer would give what happens once, at the start and at the
/// stop, too much weight; more would only take longer.
const BACKLOG: u64 = 40_000;

/// Messages before anything is counted: partitions are made, catalogues read.
const WARM: u64 = 100;

/// What a message may cost.
struct Bounds {
    /// Requests to SQS. Full answers of ten and deletes of ten are 0.2, and nothing can be less; beyond 0.205 some are not
    /// full, and SQS bills each.
    requests: f64,
    /// Transactions that give outcomes, for a thousand messages. Full batches of 2,000 are 0.5, and each worker's last one
    /// is cut short by the stop; beyond 1 a commit's flush is shared by fewer than a thousand rows, which is where it
    /// begins to count.
    transactions: f64,
    /// All commits of the database, for a thousand messages. Some 45 belong to the start and the watch over the
    /// connection, whose number the clock decides; beyond 6 something commits a second time for each few messages.
    commits: f64,
    /// Bytes of WAL a row, with its key in the ledger. A row without a key was 198 in prototypes, and the key is
    /// the rest. Keys that are claimed one by one made it 399, and an index that grows at random makes it thousands.
    wal: f64,
}

/// Without the vault: 304 to 308 bytes of WAL were counted.
const PLAIN: Bounds = Bounds { requests: 0.205, transactions: 1.0, commits: 6.0, wal: 330.0 };

/// With two values sealed for each row, which is the most there can be: every person and every address is new. 1,630 to
/// 1,640 bytes were counted: two entries and a slot, whose keys fall all over their indexes. Keys claimed one by one: 1,724.
const SEALED: Bounds = Bounds { wal: 1_690.0, ..PLAIN };

/// The login pipeline without the vault.
const VAULT_OFF: &str = include_str!("../../src/cli/bench/vault-off.toml");

/// A queue whose requests are counted.
struct Counted {
    server: SqsServer,
    queue: MemoryQueue,
}

impl Counted {
    async fn start() -> Self {
        // A rule that delays every request by nothing counts them all.
        let script = Script::parse(r#"{"action":"*","fault":"hang","seconds":0}"#, 1).unwrap();
        let queues = MemoryQueues::new();
        let queue = queues.create("login-queue", Settings::default()).unwrap();
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let server = SqsServer::start_with(listen, queues, script, History::default()).await.unwrap();
        Self { server, queue }
    }

    fn requests(&self) -> u64 {
        self.server.troubles()["hang"]
    }

    /// Sends logins of which each is another person's, from another address.
    fn send(&self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let [.., a, b, c] = number.to_be_bytes();
            self.queue.send(login(&format!("user-{number}"), &format!("11.{a}.{b}.{c}")).into_bytes());
        }
    }

    fn left(&self) -> u64 {
        let left = self.queue.count();
        left.visible + left.in_flight + left.delayed
    }
}

/// What PostgreSQL has counted so far.
#[derive(Clone, Copy)]
struct Meter {
    wal: f64,
    commits: f64,
}

impl Meter {
    async fn read(session: &Session) -> Self {
        let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8, xact_commit::float8 \
                   FROM pg_stat_database WHERE datname = current_database()";
        let row = session.query_one(sql, &[]).await.unwrap();
        Self { wal: row.get(0), commits: row.get(1) }
    }
}

/// What a message cost, on average.
struct Bill {
    requests: f64,
    transactions: f64,
    commits: f64,
    wal: f64,
}

impl Bill {
    fn assert_within(&self, bounds: &Bounds) {
        let figures = [
            ("requests a message", self.requests, bounds.requests),
            ("transactions a thousand messages", self.transactions, bounds.transactions),
            ("commits a thousand messages", self.commits, bounds.commits),
            ("bytes of WAL a row", self.wal, bounds.wal),
        ];
        let beyond = figures.iter().filter(|(_, figure, bound)| figure > bound);
        assert_none(beyond.map(|(what, figure, bound)| format!("{figure:.4} {what}, more than {bound}")));
    }
}

/// A worker's way from a queue to a database, in which nothing else happens.
struct Way {
    keys: Keys,
    database: Database,
    counted: Counted,
}

impl Way {
    async fn new(file: &str) -> Self {
        let (keys, database, counted) = (Keys::create(), Database::alone().await, Counted::start().await);
        std::fs::write(keys.directory.path().join("masq.toml"), file).unwrap();
        database.prepare(&config_of(file)).await;
        // Its writes would be counted, too.
        database.execute("ALTER SYSTEM SET autovacuum = off").await;
        database.execute("SELECT pg_reload_conf()").await;
        Self { keys, database, counted }
    }

    fn run(&self, more: &[&str]) -> Command {
        let (keys, file) = (self.keys.path(), self.keys.directory.path().join("masq.toml"));
        let (queue, database) = (self.counted.server.queue_url("login-queue"), self.database.login("worker"));
        let named = ["--config", file.to_str().unwrap(), "run", "--queue-url", &queue, "--database-url", &database];
        service(&[&named[..], &["--keys", keys.to_str().unwrap()], more].concat())
    }

    /// What the first messages need is made with others, which are not counted.
    async fn warm(&self) {
        self.counted.send(0..WARM);
        let (exit, _, stderr) = finish(self.run(&["--drain"])).await;
        assert_eq!(exit, 0, "{stderr}");
    }

    /// Settles half of a backlog, so that to the end there is one, and answers how many messages that were. What is in
    /// hand at the stop is settled, so all that was received was deleted.
    async fn settle_half(&self) -> u64 {
        let child = self.run(&[]).spawn().unwrap();
        until("half of it is settled", async || self.counted.left() <= BACKLOG / 2).await;
        let id = i32::try_from(child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), Signal::TERM).unwrap();
        let output = child.wait_with_output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let settled = BACKLOG - self.counted.left();
        assert!(settled < BACKLOG, "there was no backlog at the end");
        settled
    }

    /// Every one of these messages is a row and has its key; the number of transactions that said so.
    async fn transactions(&self, settled: u64) -> u64 {
        let count = "SELECT (SELECT count(*) FROM user_logins), (SELECT count(*) FROM masq.ledger)";
        assert_eq!(self.database.query(count).await, [format!("{0}\t{0}", settled + WARM)]);
        let transactions = self.database.query("SELECT count(DISTINCT xmin::text) FROM masq.ledger").await;
        transactions[0].parse().unwrap()
    }
}

async fn bill(file: &str) -> Bill {
    let way = Way::new(file).await;
    way.warm().await;
    way.counted.send(WARM..WARM + BACKLOG);
    let session = way.database.session().await;
    // One in the middle would have pages written whole.
    session.batch_execute("CHECKPOINT").await.unwrap();
    let (requests, before) = (way.counted.requests(), Meter::read(&session).await);
    let settled = way.settle_half().await;
    let (requests, after) = (way.counted.requests() - requests, Meter::read(&session).await);
    let (transactions, messages) = (way.transactions(settled).await as f64, settled as f64);
    way.counted.server.stop().await;
    Bill {
        requests: requests as f64 / messages,
        transactions: transactions / messages * 1000.0,
        commits: (after.commits - before.commits) / messages * 1000.0,
        wal: (after.wal - before.wal) / messages,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_takes_a_fifth_of_a_request_few_commits_and_little_wal() {
    bill(VAULT_OFF).await.assert_within(&PLAIN);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_which_two_values_are_sealed_takes_more_wal_and_no_more_requests_and_commits() {
    bill("").await.assert_within(&SEALED);
}
