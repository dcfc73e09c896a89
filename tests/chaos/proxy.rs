//! A TCP proxy between the workers and PostgreSQL that reads along: it knows when a worker commits, and can cut the
//! connection before the COMMIT arrives or after it was done, stall without a word, delay, or close one direction.
//!
//! It has a port for each worker, so what it sees is known to be that worker's. It understands as much of the protocol
//! (PostgreSQL 15, "Frontend/Backend Protocol", "Message Formats") as it needs for that; TLS would hide all of it.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

use crate::faults::{Fault, Tally};

/// Where a worker's newest transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// None is open.
    Idle,
    /// It is open.
    Open,
    /// Its COMMIT is on its way to the server.
    Committing,
    /// Its COMMIT was answered: now the messages are deleted.
    Committed,
}

/// One worker's way to the database.
pub(crate) struct Lane {
    /// Where the worker connects to.
    pub(crate) address: SocketAddr,
    phase: watch::Sender<Phase>,
    state: Mutex<State>,
    tally: Arc<Tally>,
}

/// What a lane has seen and is to do.
#[derive(Default)]
struct State {
    /// One for each of the next COMMITs.
    blows: VecDeque<Fault>,
    /// Blows that were struck, until a later connection commits again: only then it is known that it was survived.
    struck: Vec<(u64, Fault)>,
    slow_until: Option<Instant>,
    connections: u64,
    open: usize,
    most_open: usize,
    commits: u64,
    slow_commits: u64,
    /// When the newest of them were answered.
    commit_times: VecDeque<Instant>,
    sqlstates: BTreeMap<String, u64>,
}

/// How long a stalled connection says nothing before it is cut: longer than the server lets a transaction idle.
pub(crate) const STALL: Duration = Duration::from_secs(6);

/// What every piece takes longer on a delayed connection.
const DELAY: Duration = Duration::from_millis(40);

/// Commits whose time is remembered: those of many seconds, in which their first is asked for.
const REMEMBERED: usize = 10_000;

/// A message of the protocol beyond this is not one.
const LARGEST: usize = 1 << 30;

/// Starts a lane to the server.
pub(crate) async fn start(server: SocketAddr, tally: Arc<Tally>) -> io::Result<(Arc<Lane>, JoinHandle<()>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let lane = Arc::new(Lane { address, phase: watch::Sender::new(Phase::Idle), state: Mutex::default(), tally });
    let accepting = Arc::clone(&lane);
    let task = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let lane = Arc::clone(&accepting);
            tokio::spawn(async move {
                let number = lane.opened();
                // Whatever ends a connection ends it for both sides: dropping the streams closes them.
                drop(Connection { lane: Arc::clone(&lane), number }.carry(client, server).await);
                lane.state().open -= 1;
            });
        }
    });
    Ok((lane, task))
}

impl Lane {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self) -> u64 {
        let mut state = self.state();
        state.connections += 1;
        state.open += 1;
        state.most_open = state.most_open.max(state.open);
        state.connections
    }

    /// Strikes one of the next COMMITs.
    pub(crate) fn strike(&self, blow: Fault) {
        self.state().blows.push_back(blow);
    }

    /// Blows that have not been struck yet.
    pub(crate) fn pending(&self) -> usize {
        self.state().blows.len()
    }

    /// Delays everything for so long.
    pub(crate) fn slow_down(&self, time: Duration) {
        self.state().slow_until = Some(Instant::now() + time);
    }

    /// How many COMMITs were answered with success.
    pub(crate) fn commits(&self) -> u64 {
        self.state().commits
    }

    /// How many of them while everything was delayed.
    pub(crate) fn slow_commits(&self) -> u64 {
        self.state().slow_commits
    }

    /// When the first COMMIT after `since` was answered.
    pub(crate) fn first_commit_since(&self, since: Instant) -> Option<Instant> {
        self.state().commit_times.iter().find(|at| **at >= since).copied()
    }

    /// The most connections that were open at the same time.
    pub(crate) fn most_open(&self) -> usize {
        self.state().most_open
    }

    /// How often the server answered with this SQLSTATE.
    pub(crate) fn sqlstate(&self, code: &str) -> u64 {
        self.state().sqlstates.get(code).copied().unwrap_or(0)
    }

    /// Every SQLSTATE that the server answered with, and how often.
    pub(crate) fn sqlstates(&self) -> BTreeMap<String, u64> {
        self.state().sqlstates.clone()
    }

    /// Waits until a transaction is there, at most so long. Whether it came to that.
    pub(crate) async fn reaches(&self, phase: Phase, patience: Duration) -> bool {
        let mut phases = self.phase.subscribe();
        phases.mark_unchanged();
        let reached = async {
            while phases.changed().await.is_ok() {
                if *phases.borrow_and_update() == phase {
                    return;
                }
            }
        };
        tokio::time::timeout(patience, reached).await.is_ok()
    }

    fn is_slow(&self) -> bool {
        self.state().slow_until.is_some_and(|until| Instant::now() < until)
    }

    /// A connection has committed: blows to connections before it are survived.
    fn committed(&self, connection: u64) {
        let mut state = self.state();
        let now = Instant::now();
        state.commits += 1;
        state.slow_commits += u64::from(state.slow_until.is_some_and(|until| now < until));
        state.commit_times.push_back(now);
        if state.commit_times.len() > REMEMBERED {
            state.commit_times.pop_front();
        }
        let survived: Vec<_> = state.struck.extract_if(.., |(struck, _)| *struck < connection).collect();
        drop(state);
        for (_, blow) in survived {
            self.tally.observed(blow);
        }
        self.phase.send_replace(Phase::Committed);
    }

    fn struck(&self, connection: u64, blow: Fault) {
        self.tally.fired(blow);
        self.state().struck.push((connection, blow));
    }
}

/// Why a connection is carried no further.
enum End {
    /// One side has closed it, or it failed.
    Closed,
    /// We have.
    Cut,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

struct Connection {
    lane: Arc<Lane>,
    number: u64,
}

/// What is to be done with the answer to a COMMIT that was let through.
type Awaited = Arc<Mutex<Option<Fault>>>;

impl Connection {
    async fn carry(self, client: TcpStream, server: SocketAddr) -> Result<(), End> {
        let server = TcpStream::connect(server).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let awaited = Awaited::default();
        let end = tokio::select! {
            end = self.carry_up(BufReader::new(from_client), to_server, &awaited) => end,
            end = self.carry_down(BufReader::new(from_server), to_client, &awaited) => end,
        };
        // The connection ended before its COMMIT was answered, for another reason.
        self.give_back(&awaited);
        end
    }

    /// A blow that was not struck waits for the next COMMIT.
    fn give_back(&self, awaited: &Awaited) {
        if let Some(blow) = awaited.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.lane.state().blows.push_front(blow);
        }
    }

    /// From the worker to the server.
    async fn carry_up(
        &self,
        mut from: BufReader<OwnedReadHalf>,
        mut to: OwnedWriteHalf,
        awaited: &Awaited,
    ) -> Result<(), End> {
        // The first message has no type.
        let start = read_sized(&mut from, Vec::new()).await?;
        to.write_all(&start).await?;
        loop {
            let message = read_typed(&mut from).await?;
            self.linger().await;
            if is_commit(&message) {
                self.lane.phase.send_replace(Phase::Committing);
                let blow = self.lane.state().blows.pop_front();
                match blow {
                    Some(Fault::CutBeforeCommit) => {
                        self.lane.struck(self.number, Fault::CutBeforeCommit);
                        return Err(End::Cut);
                    }
                    Some(Fault::StallBeforeCommit) => {
                        self.lane.struck(self.number, Fault::StallBeforeCommit);
                        sleep(STALL).await;
                        return Err(End::Cut);
                    }
                    after => *awaited.lock().unwrap_or_else(PoisonError::into_inner) = after,
                }
            }
            to.write_all(&message).await?;
        }
    }

    /// From the server to the worker.
    async fn carry_down(
        &self,
        mut from: BufReader<OwnedReadHalf>,
        mut to: OwnedWriteHalf,
        awaited: &Awaited,
    ) -> Result<(), End> {
        loop {
            let message = read_typed(&mut from).await?;
            self.linger().await;
            match message[0] {
                b'C' if message[5..].starts_with(b"COMMIT\0") => {
                    let blow = awaited.lock().unwrap_or_else(PoisonError::into_inner).take();
                    if let Some(blow) = blow {
                        return self.swallow(blow, &mut to).await;
                    }
                    self.lane.committed(self.number);
                }
                b'E' | b'N' => {
                    if let Some(code) = field(&message, b'C') {
                        *self.lane.state().sqlstates.entry(code).or_default() += 1;
                    }
                    // A COMMIT that failed was no COMMIT.
                    self.give_back(awaited);
                }
                b'Z' if message[5..] == *b"T" => drop(self.lane.phase.send_replace(Phase::Open)),
                _ => {}
            }
            to.write_all(&message).await?;
        }
    }

    /// The transaction is committed, and the worker does not hear of it.
    async fn swallow(&self, blow: Fault, to: &mut OwnedWriteHalf) -> Result<(), End> {
        self.lane.struck(self.number, blow);
        match blow {
            Fault::StallAfterCommit => sleep(STALL).await,
            // The worker may still talk, and nobody listens.
            Fault::HalfClose => {
                to.shutdown().await?;
                sleep(STALL).await;
            }
            _ => {}
        }
        Err(End::Cut)
    }

    async fn linger(&self) {
        if self.lane.is_slow() {
            sleep(DELAY).await;
        }
    }
}

/// A message with its type, its length and all it holds.
async fn read_typed(from: &mut BufReader<OwnedReadHalf>) -> io::Result<Vec<u8>> {
    let kind = from.read_u8().await?;
    read_sized(from, vec![kind]).await
}

/// What begins with its own length, behind what is read already.
async fn read_sized(from: &mut BufReader<OwnedReadHalf>, mut message: Vec<u8>) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    let rest = usize::try_from(length).ok().and_then(|length| length.checked_sub(4)).filter(|rest| *rest < LARGEST);
    let rest = rest.ok_or(io::ErrorKind::InvalidData)?;
    message.extend(length.to_be_bytes());
    let start = message.len();
    message.resize(start + rest, 0);
    from.read_exact(&mut message[start..]).await?;
    Ok(message)
}

/// Whether a worker's message asks for a COMMIT: as a simple query, or as a statement to be parsed.
fn is_commit(message: &[u8]) -> bool {
    let text = match message[0] {
        b'Q' => &message[5..],
        // Behind the statement's name.
        b'P' => message[5..].splitn(2, |byte| *byte == 0).nth(1).unwrap_or_default(),
        _ => return false,
    };
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let last = text.rsplit(|byte| *byte == b';').map(<[u8]>::trim_ascii).find(|statement| !statement.is_empty());
    last.is_some_and(|statement| statement.eq_ignore_ascii_case(b"COMMIT"))
}

/// A field of an error or a notice.
fn field(message: &[u8], kind: u8) -> Option<String> {
    let fields = message[5..].split(|byte| *byte == 0);
    let found = fields.filter(|field| field.first() == Some(&kind)).map(|field| &field[1..]).next()?;
    Some(String::from_utf8_lossy(found).into_owned())
}
