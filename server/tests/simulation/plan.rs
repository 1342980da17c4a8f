//! What goes wrong and when: all of it follows from a seed.

use fastrand::Rng;

use crate::influxdb::Mood;

/// How a process comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// SIGKILL: memory is gone, files are as the process saw them.
    Kill,
    /// SIGKILL between two system calls, this many from now.
    KillAt(u64),
    /// The power fails: what was not synced may be gone.
    Crash,
    /// The power fails between two system calls.
    CrashAt(u64),
    /// SIGTERM: it drains.
    Term,
}

/// What is wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    Full,
    ReadOnly,
    Denied,
    SyncFails,
    SyncDirFails,
}

/// Something goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The connections of a host break after so many bytes more.
    Cut {
        host: usize,
        after: usize,
    },
    /// They swallow everything without a word.
    Silence {
        host: usize,
    },
    /// The way of a host is slow for a while.
    Slow {
        host: usize,
        up_ms: u64,
        down_ms: u64,
        for_ms: u64,
    },
    /// No connection comes about for a while, refused at once or only after a while.
    Shut {
        host: usize,
        slowly: bool,
        for_ms: u64,
    },
    Client {
        host: usize,
        death: Death,
        down_ms: u64,
    },
    Server {
        death: Death,
        down_ms: u64,
    },
    ClientDisk {
        host: usize,
        disk: Disk,
        for_ms: u64,
    },
    ServerDisk {
        disk: Disk,
        for_ms: u64,
    },
    /// History's file cannot be written for a while.
    History {
        for_ms: u64,
    },
    Influx {
        mood: Mood,
        for_ms: u64,
    },
    InfluxRestart,
    /// A host's clock is set by so much.
    Clock {
        host: usize,
        by_ms: i64,
    },
}

/// One host.
#[derive(Debug, Clone)]
pub struct HostPlan {
    pub interval_ms: u64,
    pub phase_ms: u64,
    /// How far its clock is off at first.
    pub offset_ms: i64,
    pub starts_at: u64,
    /// Samples whose line InfluxDB never takes: one in so many.
    pub refused_in: Option<u64>,
}

/// A schedule.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub hosts: Vec<HostPlan>,
    /// Ascending by time in ms.
    pub faults: Vec<(u64, Fault)>,
    /// From here on nothing goes wrong any more, and what was wrong is mended.
    pub healed_at: u64,
    /// No sample is taken from here on.
    pub quiet_at: u64,
    /// All must be at rest by then.
    pub rest_by: u64,
    pub journal_segment_bytes: u64,
    pub journal_cap_bytes: u64,
    pub compress: bool,
    pub influx_share_bytes: u64,
    /// Samples that a client's memory holds at most.
    pub queue_samples: usize,
    pub spool_bytes: u64,
}

/// 2026-11-21 in ms: where the true time begins.
pub const WALL_MS: i64 = 1_795_219_200_000;
const HOUR_MS: i64 = 3_600_000;
const YEARS_12_MS: i64 = 12 * 8766 * HOUR_MS;
/// The clock has ten digits for stretches: starts and steps of one host stay below, so that none comes twice.
const MAX_STRETCHES: usize = 8;

impl Plan {
    /// The schedule of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let rng = &mut rng;
        let hosts: Vec<HostPlan> = (0..rng.usize(1..=4)).map(|_| host(rng)).collect();
        let run_ms = rng.u64(60_000..180_000);
        let mut stretches = vec![1; hosts.len()];
        let mut faults = Vec::new();
        // Some schedules are about one part alone, so that its rules are tried hard.
        let focus = rng.u8(..6);
        for _ in 0..rng.usize(4..=14) {
            let at = rng.u64(1_000..run_ms);
            for fault in faults_of(rng, focus, hosts.len()) {
                let (at, fault) = (at + fault.0, fault.1);
                if at >= run_ms {
                    continue;
                }
                if let Fault::Client { host, .. } | Fault::Clock { host, .. } = fault {
                    stretches[host] += 1;
                    if stretches[host] > MAX_STRETCHES {
                        continue;
                    }
                }
                faults.push((at, fault));
            }
        }
        faults.sort_by_key(|(at, _)| *at);
        let cap = *choose(rng, &[6_000u64, 12_000, 60_000, 4_000_000]);
        Self {
            seed,
            hosts,
            faults,
            healed_at: run_ms,
            quiet_at: run_ms + 20_000,
            rest_by: run_ms + 1_800_000,
            journal_segment_bytes: *choose(rng, &[700, 2_000, 8_000, 1 << 20]),
            journal_cap_bytes: cap,
            compress: rng.u8(..4) > 0,
            influx_share_bytes: cap / 2,
            queue_samples: *choose(rng, &[12, 40, 1024, 1024]),
            spool_bytes: *choose(rng, &[1_500, 4_000, 100_000, 1 << 20]),
        }
    }
}

fn choose<'a, T>(rng: &mut Rng, of: &'a [T]) -> &'a T {
    &of[rng.usize(..of.len())]
}

fn host(rng: &mut Rng) -> HostPlan {
    let interval_ms = *choose(rng, &[1_000, 2_000, 5_000]);
    HostPlan {
        interval_ms,
        phase_ms: rng.u64(..interval_ms),
        offset_ms: match rng.u8(..10) {
            // No battery: 1970 until somebody sets it.
            0 => -WALL_MS + rng.i64(0..100_000),
            1 => rng.i64(-5_000..5_000),
            _ => rng.i64(-50..50),
        },
        starts_at: rng.u64(..4_000),
        refused_in: (rng.u8(..5) == 0).then(|| rng.u64(5..40)),
    }
}

/// One fault, or some that belong together, each this long after the first.
fn faults_of(rng: &mut Rng, focus: u8, hosts: usize) -> Vec<(u64, Fault)> {
    let host = rng.usize(..hosts);
    let for_ms = match rng.u8(..3) {
        0 => rng.u64(200..3_000),
        1 => rng.u64(3_000..20_000),
        _ => rng.u64(20_000..120_000),
    };
    let down_ms = rng.u64(50..15_000);
    // Half of a schedule's faults are of its focus, the others of any kind.
    let kind = if rng.bool() { focus } else { rng.u8(..6) };
    let one = |fault| vec![(0, fault)];
    match kind {
        0 => match rng.u8(..5) {
            0 | 1 => one(Fault::Cut { host, after: if rng.bool() { rng.usize(..400) } else { 0 } }),
            2 => one(Fault::Silence { host }),
            3 => one(Fault::Slow { host, up_ms: rng.u64(..4_000), down_ms: rng.u64(..4_000), for_ms }),
            _ => one(Fault::Shut { host, slowly: rng.bool(), for_ms }),
        },
        1 => match rng.u8(..4) {
            // What a killed process has just written is found, called committed, and then the power fails.
            0 => {
                let again = down_ms + rng.u64(10..3_000);
                vec![
                    (0, Fault::Server { death: Death::KillAt(rng.u64(1..30)), down_ms }),
                    (again, Fault::Server { death: Death::Crash, down_ms }),
                ]
            }
            _ => one(Fault::Server { death: death(rng), down_ms }),
        },
        2 => one(Fault::Client { host, death: death(rng), down_ms }),
        3 => {
            let disk = *choose(
                rng,
                &[Disk::Full, Disk::ReadOnly, Disk::Denied, Disk::SyncFails, Disk::SyncDirFails],
            );
            match rng.u8(..6) {
                0 => one(Fault::ServerDisk { disk, for_ms }),
                // A backlog that the server's disk does not take fills the window.
                1 => vec![
                    (0, Fault::Shut { host, slowly: false, for_ms: 15_000 }),
                    (13_000, Fault::ServerDisk { disk, for_ms: 15_000 }),
                ],
                // A disk that failed, and then the power: what was acknowledged has to be there.
                2 => vec![
                    (0, Fault::ServerDisk { disk, for_ms: 3_000 }),
                    (rng.u64(500..6_000), Fault::Server { death: Death::Crash, down_ms }),
                ],
                3 | 4 => one(Fault::ClientDisk { host, disk, for_ms }),
                _ => one(Fault::History { for_ms }),
            }
        }
        4 => match rng.u8(..6) {
            0 => one(Fault::InfluxRestart),
            1 => vec![(0, Fault::Influx { mood: Mood::Full, for_ms }), (for_ms, Fault::InfluxRestart)],
            _ => {
                let mood = mood(rng);
                one(Fault::Influx { mood, for_ms })
            }
        },
        _ => clock(rng, host, for_ms),
    }
}

fn death(rng: &mut Rng) -> Death {
    match rng.u8(..6) {
        0 => Death::Term,
        1 => Death::Kill,
        2 => Death::Crash,
        3 => Death::CrashAt(rng.u64(1..40)),
        _ => Death::KillAt(rng.u64(1..40)),
    }
}

fn mood(rng: &mut Rng) -> Mood {
    match rng.u8(..9) {
        0 | 1 => Mood::Away,
        2 => Mood::Closes(rng.bool()),
        3 => Mood::Hangs(rng.bool()),
        4 => Mood::Fails,
        5 => Mood::Busy,
        6 => Mood::Unauthorized,
        7 => Mood::Small(rng.usize(1..6)),
        _ => Mood::Moody,
    }
}

fn clock(rng: &mut Rng, host: usize, for_ms: u64) -> Vec<(u64, Fault)> {
    let set = |by_ms| Fault::Clock { host, by_ms };
    match rng.u8(..8) {
        0 => vec![(0, set(-HOUR_MS))],
        1 => vec![(0, set(YEARS_12_MS)), (for_ms, set(-YEARS_12_MS))],
        2 => vec![(0, set(rng.i64(-4_000..0)))],
        3 => vec![(0, set(rng.i64(-30_000..30_000)))],
        // Back to where it was, to the millisecond: timestamps would come again.
        4 => {
            let by = 10_000 * rng.i64(1..6);
            vec![(0, set(-by))]
        }
        // Just then it is started anew.
        5 | 6 => {
            let death = if rng.bool() { Death::Kill } else { Death::Term };
            let down_ms = rng.u64(50..2_000);
            // By a multiple of every interval: the samples of the life before would come again.
            let back = 10_000 * rng.i64(1..5);
            vec![(0, Fault::Client { host, death, down_ms }), (rng.u64(..down_ms), set(-back))]
        }
        _ => vec![(0, set(HOUR_MS)), (for_ms, set(-HOUR_MS))],
    }
}
