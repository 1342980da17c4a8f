//! What goes wrong when: all of it from the seed, so that a run that found something can be played again.
//!
//! The processes themselves are not deterministic, so a second run meets the same blows in another state.

use std::time::Duration;

use fastrand::Rng;

/// Kills that a run has for each minute at least: twenty in three.
pub const LEAST_KILLS_A_MINUTE: usize = 7;

/// A process that is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// `vitals-server`.
    Server,
    /// `vitals-client simulate`.
    Simulate,
    /// `vitals-client run`, by its number.
    Client(usize),
    /// InfluxDB.
    Influxd,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Server => f.write_str("server"),
            Self::Simulate => f.write_str("simulate"),
            Self::Client(number) => write!(f, "client-{}", number + 1),
            Self::Influxd => f.write_str("influxd"),
        }
    }
}

/// What happens to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL, and a start after the pause; `tear` spoils the newest segments meanwhile.
    Kill {
        /// How long it is away.
        pause: Duration,
        /// Whether half a record is left behind the newest one.
        tear: bool,
    },
    /// SIGTERM, and a start after the pause.
    Term {
        /// How long it is away once it has ended.
        pause: Duration,
    },
    /// SIGSTOP, and SIGCONT after this time.
    Freeze(Duration),
}

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Between clients and server.
    Clients,
    /// Between server and InfluxDB.
    Influx,
}

/// What a proxy does to the connections.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Cuts this share of them, at once or within the next bytes.
    Cut(f64),
    /// Lets nothing pass on this share of them, and closes none: half open.
    Freeze(f64),
    /// Holds each piece back for up to so long.
    Delay(Duration),
    /// Lets so many bytes a second pass on each.
    Throttle(u32),
    /// Takes no new ones, and cuts the old.
    Refuse,
}

/// Which small disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// The server's.
    Server,
    /// Where all clients keep their spools.
    Clients,
}

/// Something that lasts from a time on.
#[derive(Debug, Clone, Copy)]
pub struct Timed<T> {
    /// From the run's start.
    pub at: Duration,
    /// What.
    pub what: T,
    /// How long; zero for what happens in an instant.
    pub lasts: Duration,
}

/// A whole run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// For each process, what happens to it, in order.
    pub blows: Vec<(Target, Vec<Timed<Blow>>)>,
    /// What the proxies do, in order.
    pub weather: Vec<Timed<(Side, Fault)>>,
    /// When disks are full, in order.
    pub fills: Vec<Timed<Disk>>,
}

fn seconds(rng: &mut Rng, from: f64, to: f64) -> Duration {
    Duration::from_secs_f64(from + rng.f64() * (to - from))
}

/// Mostly short, sometimes as long as `most`.
fn pause(rng: &mut Rng, most: f64) -> Duration {
    Duration::from_secs_f64(0.1 + rng.f64().powi(3) * most)
}

impl Plan {
    /// The plan of this seed.
    pub fn new(seed: u64, length: Duration, clients: usize) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x6368_616f_735f_3031);
        let targets = [Target::Server, Target::Simulate, Target::Influxd]
            .into_iter()
            .chain((0..clients).map(Target::Client));
        let mut blows: Vec<_> = targets.map(|target| (target, of_target(&mut rng, target, length))).collect();
        let least = (length.as_secs_f64() / 60.0 * LEAST_KILLS_A_MINUTE as f64).ceil() as usize;
        top_up(&mut blows, least);
        Self { blows, weather: weather(&mut rng, length), fills: fills(&mut rng, length) }
    }

    /// Kills of all processes.
    pub fn kills(&self) -> usize {
        kills(&self.blows)
    }
}

fn kills(blows: &[(Target, Vec<Timed<Blow>>)]) -> usize {
    let all = blows.iter().flat_map(|(_, steps)| steps);
    all.filter(|step| matches!(step.what, Blow::Kill { .. })).count()
}

fn of_target(rng: &mut Rng, target: Target, length: Duration) -> Vec<Timed<Blow>> {
    // The least and the most time between two blows, and the longest pause.
    let (least, most, longest) = match target {
        Target::Server => (4.0, 15.0, 6.0),
        Target::Simulate => (8.0, 22.0, 5.0),
        Target::Client(_) => (10.0, 35.0, 6.0),
        Target::Influxd => (14.0, 40.0, 15.0),
    };
    let mut steps = Vec::new();
    let mut at = seconds(rng, least, most);
    while at < length {
        let what = match rng.u32(0..100) {
            0..70 => Blow::Kill { pause: pause(rng, longest), tear: rng.bool() },
            70..85 => Blow::Term { pause: pause(rng, longest) },
            _ => Blow::Freeze(seconds(rng, 0.5, 12.0)),
        };
        let lasts = match what {
            Blow::Kill { pause, .. } | Blow::Term { pause } => pause,
            Blow::Freeze(time) => time,
        };
        steps.push(Timed { at, what, lasts });
        at += lasts + seconds(rng, least, most);
    }
    steps
}

/// Turns other blows into kills until there are enough.
fn top_up(blows: &mut [(Target, Vec<Timed<Blow>>)], least: usize) {
    let mut missing = least.saturating_sub(kills(blows));
    for step in blows.iter_mut().flat_map(|(_, steps)| steps) {
        if missing > 0 && !matches!(step.what, Blow::Kill { .. }) {
            step.what = Blow::Kill { pause: step.lasts.min(Duration::from_secs(3)), tear: true };
            missing -= 1;
        }
    }
}

fn weather(rng: &mut Rng, length: Duration) -> Vec<Timed<(Side, Fault)>> {
    let mut steps = Vec::new();
    for side in [Side::Clients, Side::Influx] {
        let mut at = seconds(rng, 2.0, 6.0);
        while at < length {
            let (fault, lasts) = match rng.u32(0..10) {
                0..4 => (Fault::Cut(0.1 + 0.9 * rng.f64()), Duration::ZERO),
                4..6 => (Fault::Freeze(0.2 + 0.8 * rng.f64()), seconds(rng, 1.0, 15.0)),
                6 => (Fault::Delay(seconds(rng, 0.02, 1.0)), seconds(rng, 2.0, 10.0)),
                7 => (Fault::Throttle(rng.u32(500..20_000)), seconds(rng, 2.0, 8.0)),
                _ => (Fault::Refuse, seconds(rng, 0.5, 8.0)),
            };
            steps.push(Timed { at, what: (side, fault), lasts });
            at += lasts + seconds(rng, 1.0, 8.0);
        }
    }
    steps.sort_by_key(|step| step.at);
    steps
}

fn fills(rng: &mut Rng, length: Duration) -> Vec<Timed<Disk>> {
    let mut steps = Vec::new();
    for disk in [Disk::Server, Disk::Clients] {
        let mut at = seconds(rng, 10.0, 40.0);
        while at < length {
            let lasts = seconds(rng, 2.0, 12.0);
            steps.push(Timed { at, what: disk, lasts });
            at += lasts + seconds(rng, 20.0, 60.0);
        }
    }
    steps.sort_by_key(|step| step.at);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_plan_and_three_minutes_have_twenty_kills() {
        for seed in 0..200 {
            let plan = Plan::new(seed, Duration::from_secs(180), 3);
            assert!(plan.kills() >= 20, "seed {seed}: {}", plan.kills());
            let again = Plan::new(seed, Duration::from_secs(180), 3);
            assert_eq!(format!("{plan:?}"), format!("{again:?}"));
            assert_eq!(plan.blows.len(), 6);
            for steps in plan.blows.iter().map(|(_, steps)| steps) {
                assert!(steps.windows(2).all(|two| two[0].at + two[0].lasts < two[1].at));
            }
            assert!(plan.fills.len() >= 4 && plan.weather.len() > 20);
        }
    }
}
