//! Hits the processes, the network and the disks as the plan says.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep, sleep_until};

use super::book::{Book, End, now_ms};
use super::disk::SmallDisk;
use super::influxd::Influxd;
use super::process::Process;
use super::proxy::Proxy;
use super::schedule::{Blow, Disk, Fault, Side, Target, Timed};
use super::torn::tear;

/// Between two looks at a process that should run.
const LOOK: Duration = Duration::from_millis(200);
/// Before a start that failed is tried again.
const START_AGAIN: Duration = Duration::from_millis(500);
/// How long a start may take: two cores may be busy.
pub const START: Duration = Duration::from_secs(60);
/// How long an end after SIGTERM may take.
pub const STOP: Duration = Duration::from_secs(40);
/// Between two fillings of a disk that is full: what was freed meanwhile is taken too.
const FILL_AGAIN: Duration = Duration::from_millis(300);

/// A process that can be hit.
pub trait Victim: Send {
    /// Starts it. `Err` says why not.
    fn start(&mut self) -> impl Future<Output = Result<(), String>> + Send;
    /// SIGTERM, and gone. `Err` says what was wrong with that.
    fn term(&mut self) -> impl Future<Output = Result<(), String>> + Send;
    /// SIGKILL, and gone.
    fn kill(&mut self);
    /// SIGSTOP or SIGCONT.
    fn signal(&self, signal: Signal);
    /// How it ended, if it did so by itself.
    fn has_ended(&mut self) -> Option<String>;
    /// Where its logs are that may be torn.
    fn logs(&self) -> Option<PathBuf>;
}

/// One of Vitals' programs.
pub struct Program {
    /// The process.
    pub process: Process,
    /// Where its logs are.
    pub logs: Option<PathBuf>,
}

impl Victim for Program {
    async fn start(&mut self) -> Result<(), String> {
        self.process.start(START).await
    }

    async fn term(&mut self) -> Result<(), String> {
        if self.process.pid().is_none() {
            return Ok(());
        }
        match self.process.stop(STOP).await {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("SIGTERM ended it with {status}")),
            None => Err(format!("it did not end within {STOP:?} of SIGTERM")),
        }
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    fn has_ended(&mut self) -> Option<String> {
        Some(format!("it ended by itself with {}", self.process.has_ended()?))
    }

    fn logs(&self) -> Option<PathBuf> {
        self.logs.clone()
    }
}

impl Victim for &mut Influxd {
    async fn start(&mut self) -> Result<(), String> {
        self.start_again().await;
        Ok(())
    }

    async fn term(&mut self) -> Result<(), String> {
        self.stop().await;
        Ok(())
    }

    fn kill(&mut self) {
        Influxd::kill(self);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            // Its child, which nobody else waits for: the number is still its own.
            let _ = kill_process(pid, signal);
        }
    }

    fn has_ended(&mut self) -> Option<String> {
        None
    }

    fn logs(&self) -> Option<PathBuf> {
        None
    }
}

/// What all who hit share.
#[derive(Clone)]
pub struct Run {
    /// When it began.
    pub start: Instant,
    /// For how long things go wrong.
    pub length: Duration,
    /// What was done.
    pub book: Arc<Book>,
    /// Of the server and of the clients.
    pub disks: [Arc<SmallDisk>; 2],
}

impl Run {
    fn disk(&self, disk: Disk) -> &SmallDisk {
        match disk {
            Disk::Server => &self.disks[0],
            Disk::Clients => &self.disks[1],
        }
    }
}

/// Does to one process what the plan says, starts it whenever it is gone, and gives it back running.
pub async fn strike<V: Victim>(
    run: Run,
    target: Target,
    mut victim: V,
    steps: Vec<Timed<Blow>>,
    mut rng: Rng,
) -> V {
    for step in steps {
        watch_over(&run, target, &mut victim, run.start + step.at).await;
        match step.what {
            Blow::Kill { pause, tear: tears } => {
                victim.kill();
                run.book.mark(target, End::Killed);
                if let Some(logs) = victim.logs().filter(|_| tears)
                    && let Ok(torn) = tear(&logs, &mut rng)
                {
                    run.book.lock().torn += torn;
                }
                sleep(pause).await;
            }
            Blow::Term { pause } => {
                if let Err(why) = victim.term().await {
                    run.book.trouble(format!("{target}: {why}"));
                }
                run.book.mark(target, End::Stopped);
                sleep(pause).await;
            }
            Blow::Freeze(time) => {
                victim.signal(Signal::STOP);
                run.book.lock().stops += 1;
                sleep(time).await;
                victim.signal(Signal::CONT);
                continue;
            }
        }
        raise(&run, target, &mut victim).await;
    }
    watch_over(&run, target, &mut victim, run.start + run.length).await;
    victim
}

/// Starts it until it runs.
async fn raise<V: Victim>(run: &Run, target: Target, victim: &mut V) {
    let disk = if target == Target::Server { Disk::Server } else { Disk::Clients };
    loop {
        let begun = now_ms();
        let Err(why) = victim.start().await else { return };
        if run.book.lock().was_full(disk, begun, now_ms()) {
            run.book.lock().starts_failed_on_full += 1;
        } else {
            run.book.trouble(format!("{target} did not start: {why}"));
        }
        sleep(START_AGAIN).await;
    }
}

/// Waits, and starts it again if it ends by itself.
async fn watch_over<V: Victim>(run: &Run, target: Target, victim: &mut V, until: Instant) {
    while Instant::now() < until {
        if let Some(how) = victim.has_ended() {
            run.book.trouble(format!("{target}: {how}"));
            run.book.mark(target, End::ByItself);
            raise(run, target, victim).await;
        }
        sleep_until(until.min(Instant::now() + LOOK)).await;
    }
}

/// Makes the weather.
pub async fn blow(run: Run, steps: Vec<Timed<(Side, Fault)>>, proxies: [Arc<Proxy>; 2]) {
    let proxy = |side| match side {
        Side::Clients => &proxies[0],
        Side::Influx => &proxies[1],
    };
    // Each beginning and each end, in order.
    let mut changes: Vec<(Duration, bool, Side, Fault)> = Vec::new();
    for Timed { at, what: (side, fault), lasts } in steps {
        changes.push((at, true, side, fault));
        changes.push(((at + lasts).min(run.length), false, side, fault));
    }
    changes.sort_by_key(|(at, ..)| *at);
    for (at, begins, side, fault) in changes {
        sleep_until(run.start + at).await;
        if begins { proxy(side).begin(fault) } else { proxy(side).end(fault) }
    }
}

/// Fills the disks.
pub async fn fill(run: Run, steps: Vec<Timed<Disk>>, which: Disk) {
    for step in steps.into_iter().filter(|step| step.what == which && run.disk(which).is_mounted()) {
        sleep_until(run.start + step.at).await;
        let end = run.start + (step.at + step.lasts).min(run.length);
        // Open from before it is full, so that who looks at it meanwhile finds it.
        run.book.lock().full.push((which, now_ms(), i64::MAX));
        while Instant::now() < end {
            if let Err(error) = run.disk(which).fill() {
                run.book.trouble(format!("ballast: {error}"));
            }
            sleep_until(end.min(Instant::now() + FILL_AGAIN)).await;
        }
        run.disk(which).free();
        let mut entries = run.book.lock();
        if let Some(open) = entries.full.iter_mut().find(|(disk, _, to)| *disk == which && *to == i64::MAX) {
            open.2 = now_ms();
        }
    }
}
