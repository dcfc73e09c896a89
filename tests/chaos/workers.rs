//! The workers: real `masq run` processes of two builds, each with a supervisor that starts it again whenever it ends,
//! as a cluster would. Each process has a log of its own, and its end is put on record.

use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    process::{Child, Command},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    faults::{Fault, Tally},
    proxy::{Lane, Phase},
    records::Records,
};

/// How long a worker gets to stop in good order before it counts as stuck; its own grace period is shorter.
const STOP_PATIENCE: Duration = Duration::from_secs(40);

/// How old a process is at least when it is told to stop in good order.
const GROWN_UP: Duration = Duration::from_secs(2);

/// How long a fault waits for the moment at which it is to strike.
const MOMENT_PATIENCE: Duration = Duration::from_secs(2);

/// What a worker process is started with.
pub(crate) struct Plan {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) logs: PathBuf,
    pub(crate) name: String,
    pub(crate) metrics: SocketAddr,
    pub(crate) lane: Arc<Lane>,
}

/// What may be asked of a worker's supervisor. Each is answered when it is over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// kill -9, when its transaction is there.
    Kill(Option<Phase>),
    /// SIGSTOP for so long, then SIGCONT.
    Stop(Duration),
    /// SIGTERM, and wait until it has ended.
    Term,
    /// SIGTERM, and no new start.
    End,
}

/// A worker and who starts it again.
pub(crate) struct Supervised {
    orders: mpsc::Sender<(Order, oneshot::Sender<()>)>,
    pub(crate) pid: Arc<AtomicU32>,
    pub(crate) plan: Arc<Plan>,
    task: JoinHandle<()>,
}

impl Supervised {
    pub(crate) fn start(plan: Plan, records: Arc<Records>, tally: Arc<Tally>) -> Self {
        let (orders, inbox) = mpsc::channel(1);
        let (plan, pid) = (Arc::new(plan), Arc::new(AtomicU32::new(0)));
        let supervisor = Supervisor { plan: Arc::clone(&plan), pid: Arc::clone(&pid), records, tally, starts: 0 };
        Self { orders, pid, plan, task: tokio::spawn(supervisor.run(inbox)) }
    }

    /// Gives an order and waits until it is carried out.
    pub(crate) async fn order(&self, order: Order) {
        let (done, answer) = oneshot::channel();
        if self.orders.send((order, done)).await.is_ok() {
            drop(answer.await);
        }
    }

    /// Ends it in good order, for good.
    pub(crate) async fn end(self) {
        self.order(Order::End).await;
        drop(self.task.await);
    }
}

struct Supervisor {
    plan: Arc<Plan>,
    pid: Arc<AtomicU32>,
    records: Arc<Records>,
    tally: Arc<Tally>,
    starts: u32,
}

impl Supervisor {
    async fn run(mut self, mut inbox: mpsc::Receiver<(Order, oneshot::Sender<()>)>) {
        loop {
            self.starts += 1;
            let mut child = self.spawn().expect("a worker starts");
            let started = Instant::now();
            let pid = child.id().expect("it runs");
            self.pid.store(pid, Ordering::Relaxed);
            let ended = loop {
                tokio::select! {
                    status = child.wait() => {
                        self.note("exited", status.ok(), json!({}));
                        // As a cluster would: not at once, so that one that cannot start does not spin.
                        sleep(Duration::from_millis(300)).await;
                        break false;
                    }
                    Some((order, done)) = inbox.recv() => {
                        let ended = self.obey(order, &mut child, started).await;
                        let _nobody_waits = done.send(());
                        match ended {
                            Some(last) => break last,
                            None => continue,
                        }
                    }
                }
            };
            self.pid.store(0, Ordering::Relaxed);
            if ended {
                return;
            }
        }
    }

    fn spawn(&self) -> io::Result<Child> {
        let Plan { program, arguments, environment, logs, name, .. } = &*self.plan;
        let log = File::create(logs.join(format!("{name}.{}.log", self.starts)))?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.kill_on_drop(true).spawn()
    }

    /// Carries out an order. `Some`: the process has ended, and for good or not.
    async fn obey(&self, order: Order, child: &mut Child, started: Instant) -> Option<bool> {
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))?;
        match order {
            Order::Kill(moment) => {
                if let Some(phase) = moment {
                    self.plan.lane.reaches(phase, MOMENT_PATIENCE).await;
                }
                self.tally.fired(Fault::KillWorker);
                signal(pid, Signal::KILL);
                let status = child.wait().await.ok();
                self.note("killed", status, json!({ "moment": moment.map(|phase| format!("{phase:?}")) }));
                Some(false)
            }
            Order::Stop(time) => {
                self.plan.lane.reaches(Phase::Open, MOMENT_PATIENCE).await;
                signal(pid, Signal::STOP);
                sleep(time).await;
                signal(pid, Signal::CONT);
                self.records.write("ends", json!({ "worker": self.name(), "how": "paused", "ms": time.as_millis() }));
                None
            }
            Order::Term | Order::End => {
                let last = matches!(order, Order::End);
                // Before it listens for signals one ends it as it ends any program.
                sleep(GROWN_UP.saturating_sub(started.elapsed())).await;
                let before = Instant::now();
                signal(pid, Signal::TERM);
                let status = timeout(STOP_PATIENCE, child.wait()).await;
                let took = before.elapsed();
                let how = if status.is_ok() { "stopped" } else { "stuck" };
                let status = status.ok().and_then(Result::ok);
                if !last && status.is_some_and(|status| status.success()) {
                    self.tally.observed(Fault::StopWorker);
                }
                self.note(how, status, json!({ "ms": took.as_millis(), "last": last }));
                if how == "stuck" {
                    drop(child.kill().await);
                }
                Some(last)
            }
        }
    }

    fn name(&self) -> String {
        format!("{}.{}", self.plan.name, self.starts)
    }

    fn note(&self, how: &str, status: Option<ExitStatus>, more: Value) {
        let code = status.and_then(|status| status.code());
        let mut line = json!({ "worker": self.name(), "how": how, "code": code });
        if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more);
        }
        self.records.write("ends", line);
    }
}

/// An error means that it has ended in this moment.
fn signal(pid: Pid, signal: Signal) {
    let _ended = kill_process(pid, signal);
}

/// What the system says of a process: the most memory that it ever had resident in KiB, and how many files it has open.
/// `None` for what may not be read; a worker keeps others out of its `/proc`.
pub(crate) fn sample(pid: u32) -> (Option<u64>, Option<usize>) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok();
    let peak = status.as_deref().and_then(|status| {
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    });
    (peak, fs::read_dir(format!("/proc/{pid}/fd")).ok().map(Iterator::count))
}
