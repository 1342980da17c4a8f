//! All that can go wrong, and how it is chosen.

use fastrand::Rng;

use crate::influxdb::Mood;
use crate::plan::choose;

const HOUR_MS: i64 = 3_600_000;
/// From now to beyond 2038.
const YEARS_12_MS: i64 = 12 * 8766 * HOUR_MS;

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
    /// No room but for so many bytes more.
    Full(u64),
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
    /// The server's process dies within a transaction of history after so many calls more; the last was not, or (true) was,
    /// durable if it was a commit.
    ServerInHistory {
        calls: u64,
        is_durable: bool,
        down_ms: u64,
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

/// Parts that a schedule can be about: network, server, clients, disks, InfluxDB, clocks.
pub const FOCUSES: u8 = 6;

/// One fault, or some that belong together, each this long after the first.
pub fn faults_of(rng: &mut Rng, focus: u8, hosts: usize) -> Vec<(u64, Fault)> {
    let host = rng.usize(..hosts);
    let for_ms = match rng.u8(..3) {
        0 => rng.u64(200..3_000),
        1 => rng.u64(3_000..20_000),
        _ => rng.u64(20_000..120_000),
    };
    let down_ms = rng.u64(50..15_000);
    // Half of a schedule's faults are of its focus, the others of any kind.
    let kind = if rng.bool() { focus } else { rng.u8(..FOCUSES) };
    let one = |fault| vec![(0, fault)];
    match kind {
        0 => match rng.u8(..5) {
            0 | 1 => one(Fault::Cut { host, after: if rng.bool() { rng.usize(..400) } else { 0 } }),
            2 => one(Fault::Silence { host }),
            3 => one(Fault::Slow { host, up_ms: rng.u64(..4_000), down_ms: rng.u64(..4_000), for_ms }),
            _ => one(Fault::Shut { host, slowly: rng.bool(), for_ms }),
        },
        1 => match rng.u8(..5) {
            // What a killed process has just written is found, called committed, and then the power fails.
            0 => {
                let again = down_ms + rng.u64(10..3_000);
                vec![
                    (0, Fault::Server { death: Death::KillAt(rng.u64(1..30)), down_ms }),
                    (again, Fault::Server { death: Death::Crash, down_ms }),
                ]
            }
            1 => one(Fault::ServerInHistory { calls: rng.u64(..20), is_durable: rng.bool(), down_ms }),
            _ => one(Fault::Server { death: death(rng), down_ms }),
        },
        2 => one(Fault::Client { host, death: death(rng), down_ms }),
        3 => {
            let room = if rng.bool() { 0 } else { rng.u64(1..3_000) };
            let disk = *choose(
                rng,
                &[Disk::Full(room), Disk::ReadOnly, Disk::Denied, Disk::SyncFails, Disk::SyncDirFails],
            );
            match rng.u8(..6) {
                0 => one(Fault::ServerDisk { disk, for_ms }),
                // A backlog that the server's disk does not take fills the window.
                1 => vec![
                    (0, Fault::Shut { host, slowly: false, for_ms: 40_000 }),
                    (38_000, Fault::ServerDisk { disk, for_ms: 15_000 }),
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
