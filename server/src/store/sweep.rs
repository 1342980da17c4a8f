//! Work that comes to each host once in a cycle, spread over the cycle, hosts in the order of their numbers.

use std::ops::Range;

/// How far a cycle has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sweep {
    cycle_ms: i64,
    /// Which cycle.
    cycle: i64,
    /// The first host that has not had its turn in it.
    next: usize,
}

impl Sweep {
    /// Begins where a sweep would be at this time, so that work is spread from the start.
    pub(super) fn new(cycle_ms: i64, time_ms: i64, hosts: usize) -> Self {
        let cycle_ms = cycle_ms.max(1);
        let mut sweep = Self { cycle_ms, cycle: time_ms.div_euclid(cycle_ms), next: 0 };
        sweep.next = sweep.target(time_ms, hosts);
        sweep
    }

    /// The hosts whose turn has come since, and the sweep after them. However the number of hosts grows, the next turn of
    /// a host comes at the latest a cycle after the one before.
    pub(super) fn due(self, time_ms: i64, hosts: usize) -> ([Range<usize>; 2], Self) {
        let cycle = time_ms.div_euclid(self.cycle_ms);
        let target = self.target(time_ms, hosts);
        let next = self.next.min(hosts);
        match cycle - self.cycle {
            0 => ([next..target.max(next), 0..0], Self { next: target.max(next), ..self }),
            1 if target <= next => ([next..hosts, 0..target], Self { cycle, next: target, ..self }),
            // More than a cycle since, or a clock that was set.
            _ => ([0..hosts, 0..0], Self { cycle, next: target, ..self }),
        }
    }

    fn target(&self, time_ms: i64, hosts: usize) -> usize {
        let into = i128::from(time_ms.rem_euclid(self.cycle_ms));
        (into * hosts as i128 / i128::from(self.cycle_ms)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cycle_reaches_each_host_once() {
        let mut sweep = Sweep::new(100, 1_000, 10);
        let mut turns = Vec::new();
        for time in (1_000..1_100).step_by(7).chain([1_100]) {
            let (ranges, after) = sweep.due(time, 10);
            sweep = after;
            turns.extend(ranges.into_iter().flatten());
        }
        assert_eq!(turns, (0..10).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn a_host_waits_no_longer_than_a_cycle_and_a_step(
            steps in proptest::collection::vec((1i64..30, 0usize..20), 1..200)
        ) {
            let (mut time, mut hosts) = (0, 1);
            let mut sweep = Sweep::new(100, time, hosts);
            let mut turn = vec![0; hosts];
            for (step, more) in steps {
                time += step;
                hosts += more;
                turn.resize(hosts, time);
                let (ranges, after) = sweep.due(time, hosts);
                sweep = after;
                ranges.into_iter().flatten().for_each(|host| turn[host] = time);
                for (host, turn) in turn.iter().enumerate() {
                    prop_assert!(time - turn <= 130, "host {} waits since {}, it is {}", host, turn, time);
                }
            }
        }
    }
}
