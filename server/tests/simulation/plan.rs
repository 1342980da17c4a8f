//! What goes wrong and when: all of it follows from a seed.

use fastrand::Rng;

use crate::fault::{FOCUSES, Fault, faults_of};

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
    /// Batches of backlog under way at most.
    pub window: u32,
    pub influx_share_bytes: u64,
    /// Samples that a client's memory holds at most.
    pub queue_samples: usize,
    pub spool_bytes: u64,
}

/// 2026-11-21 in ms: where the true time begins.
pub const WALL_MS: i64 = 1_795_219_200_000;
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
        let focus = rng.u8(..FOCUSES);
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
            hosts,
            faults,
            healed_at: run_ms,
            quiet_at: run_ms + 20_000,
            rest_by: run_ms + 1_800_000,
            journal_segment_bytes: *choose(rng, &[700, 2_000, 8_000, 1 << 20]),
            journal_cap_bytes: cap,
            compress: rng.u8(..4) > 0,
            window: *choose(rng, &[1, 2, 4]),
            influx_share_bytes: cap / 2,
            queue_samples: *choose(rng, &[12, 40, 1024, 1024]),
            spool_bytes: *choose(rng, &[1_500, 4_000, 100_000, 1 << 20]),
        }
    }
}

pub fn choose<'a, T>(rng: &mut Rng, of: &'a [T]) -> &'a T {
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
