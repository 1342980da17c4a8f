//! Why the client goes, for its good-bye: what was announced, or that the machine goes down, or else a restart.
//!
//! A script that replaces or removes the client announces that just before it stops it ([`Announced`]). Whether the
//! machine goes down is looked for only on machines that run systemd, and only at the end:
//!
//! 1. `/run/systemd/shutdown/scheduled`, which systemd-logind writes for `shutdown -r 18:00` and the like (`USEC`, the time
//!    in µs since 1970, and `MODE`, such as `reboot` or `poweroff`). It tells once that time has come.
//! 2. `systemctl list-jobs`, within [`ASK_DEADLINE`]: a job that starts `reboot.target`, `poweroff.target` or the like stands
//!    in it from the moment when the system begins to stop its services (systemd.special(7)).
//! 3. Where that does not answer, `/run/nologin` with the words that systemd-user-sessions.service leaves when the system
//!    goes down. It does not tell for what, so it counts as a shutdown.
//!
//! Everywhere else, and when in doubt, it is a restart: the mildest, after which the client is expected back.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use vitals_wire::message::ByeReason;

/// How long an announced reason holds: a script announces it and then stops the client at once.
pub const ANNOUNCED_FOR: Duration = Duration::from_secs(60);
/// How long finding out may take in all.
pub const ASK_DEADLINE: Duration = Duration::from_secs(1);
/// Between two looks whether `systemctl` has ended.
const LOOK: Duration = Duration::from_millis(5);
/// A shutdown that is this close has begun: services are stopped at about the time that was set.
const ABOUT_NOW_US: u64 = 5_000_000;
/// More is not read of a file or an answer; all of them are short.
const MAX_BYTES: u64 = 16 << 10;
/// Targets of which a start means that the machine goes down, and what for.
const TARGETS: [(&str, ByeReason); 5] = [
    ("reboot.target", ByeReason::Reboot),
    ("kexec.target", ByeReason::Reboot),
    ("soft-reboot.target", ByeReason::Reboot),
    ("poweroff.target", ByeReason::Shutdown),
    ("halt.target", ByeReason::Shutdown),
];

/// A reason that a person or a script can announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Announcement {
    /// Another version takes its place.
    Upgrade,
    /// It is removed from this host.
    Uninstall,
    /// It starts again, or is only stopped.
    Restart,
}

impl From<Announcement> for ByeReason {
    fn from(announcement: Announcement) -> Self {
        match announcement {
            Announcement::Upgrade => Self::Upgrade,
            Announcement::Uninstall => Self::Uninstall,
            Announcement::Restart => Self::Restart,
        }
    }
}

/// What was announced last, as long as it holds.
#[derive(Debug, Default)]
pub struct Announced(Mutex<Option<(ByeReason, Instant)>>);

impl Announced {
    /// Takes the place of what was announced before.
    pub fn announce(&self, reason: impl Into<ByeReason>, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((reason.into(), now + ANNOUNCED_FOR));
    }

    /// What holds now.
    pub fn reason(&self, now: Instant) -> Option<ByeReason> {
        let announced = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        announced.filter(|(_, until)| now < *until).map(|(reason, _)| reason)
    }
}

/// Where a machine tells that it goes down.
#[derive(Debug, Clone)]
pub struct Machine {
    /// `/run`.
    pub run: PathBuf,
    /// `systemctl`: the program, and arguments that come before its own.
    pub systemctl: Vec<String>,
}

impl Default for Machine {
    fn default() -> Self {
        Self { run: "/run".into(), systemctl: vec!["systemctl".into()] }
    }
}

impl Machine {
    /// For what this machine goes down, if it does. Waits at most [`ASK_DEADLINE`], elsewhere than on systemd not at all.
    pub async fn goes_down(self) -> Option<ByeReason> {
        if !self.run.join("systemd/system").exists() {
            return None;
        }
        let asked = tokio::task::spawn_blocking(move || self.look());
        // Short of threads, it could begin late.
        tokio::time::timeout(ASK_DEADLINE + LOOK, asked).await.ok()?.ok()?
    }

    fn look(&self) -> Option<ByeReason> {
        let now_us = u64::try_from(crate::health::wall_ms()).unwrap_or_default().saturating_mul(1000);
        let file = read_short(&self.run.join("systemd/shutdown/scheduled")).unwrap_or_default();
        scheduled(&file, now_us).or_else(|| match self.jobs() {
            Some(jobs) => starting(&jobs),
            None => read_short(&self.run.join("nologin"))
                .filter(|text| says_down(text))
                .map(|_| ByeReason::Shutdown),
        })
    }

    /// The jobs that start one of [`TARGETS`]; `None` where nobody answers in time.
    fn jobs(&self) -> Option<String> {
        let deadline = Instant::now() + ASK_DEADLINE;
        let (program, first) = self.systemctl.split_first()?;
        let mut child = Command::new(program)
            .args(first)
            .args(["list-jobs", "--no-legend", "--no-pager", "--plain"])
            // So few that the answer always fits a pipe.
            .args(TARGETS.map(|(target, _)| target))
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK),
                _ => break None,
            }
        };
        let Some(status) = status else {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        };
        let mut answer = String::new();
        child.stdout.take()?.take(MAX_BYTES).read_to_string(&mut answer).ok()?;
        status.success().then_some(answer)
    }
}

/// A scheduled shutdown whose time has come.
fn scheduled(file: &str, now_us: u64) -> Option<ByeReason> {
    let value = |key: &str| {
        let line = file.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"'))
    };
    let at_us: u64 = value("USEC")?.parse().ok()?;
    // With `dry-` before it nothing goes down. `exit` and words of the future tell nothing either.
    let reason = match value("MODE")? {
        "reboot" | "kexec" | "soft-reboot" => ByeReason::Reboot,
        "poweroff" | "halt" => ByeReason::Shutdown,
        _ => return None,
    };
    (at_us <= now_us.saturating_add(ABOUT_NOW_US)).then_some(reason)
}

/// What the jobs of `systemctl list-jobs` lead to: lines of number, unit, type and state.
fn starting(jobs: &str) -> Option<ByeReason> {
    jobs.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (unit, kind) = (words.next()?, words.next()?);
        TARGETS.iter().find(|(target, _)| *target == unit && kind == "start").map(|(_, reason)| *reason)
    })
}

/// Whether `/run/nologin` is there because the system goes down, and not because it just comes up or somebody wants it so.
fn says_down(nologin: &str) -> bool {
    nologin.contains("going down")
}

fn read_short(path: &Path) -> Option<String> {
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
#[path = "goodbye_tests.rs"]
mod tests;
