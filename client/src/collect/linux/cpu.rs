//! CPU usage: shares of time between two readings of `/proc/stat`, and frequencies from `cpufreq`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use vitals_wire::bounded::List;
use vitals_wire::centi::Centi;
use vitals_wire::section::{Core, Cpu, CpuUsage};

use super::super::slow::{Answer, SlowItem, SlowReads};
use super::super::{Collector, Counters, Reading, Setup};
use super::file::Attribute;
use super::scan;

/// user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice. Old kernels have fewer.
const COLUMNS: usize = 10;
const USER: usize = 0;
const NICE: usize = 1;
const SYSTEM: usize = 2;
const IDLE: usize = 3;
const IOWAIT: usize = 4;
const IRQ: usize = 5;
const SOFTIRQ: usize = 6;
const STEAL: usize = 7;
const GUEST: usize = 8;
const GUEST_NICE: usize = 9;

/// Times of one line, in ticks since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Times {
    ticks: [u64; COLUMNS],
    columns: usize,
}

/// The total and each core by its number, ascending.
#[derive(Debug, Default)]
struct AllTimes {
    total: Option<Times>,
    cores: Vec<(u32, Times)>,
}

pub(super) struct CpuCollector {
    sys_cpu: PathBuf,
    counters: Arc<Counters>,
    before: AllTimes,
    now: AllTimes,
    have_cores_changed: bool,
    frequencies: Option<(Arc<Frequencies>, Arc<SlowItem>)>,
    frequency_budget: Duration,
}

/// Files of the cores that have a frequency, all read in one call that may block: kernels 4.13 to 5.17 measure on x86
/// when they are asked, and sleep 10 to 20 ms for each core.
struct Frequencies {
    /// By the core's number, ascending.
    files: Vec<(u32, Attribute)>,
    /// Where the next round begins, so that each core has its turn when a round does not come to all.
    next: AtomicUsize,
    /// One could not be read: of a core that went offline.
    has_failed: AtomicBool,
}

impl Frequencies {
    /// Opens what there is.
    fn open(sys_cpu: &Path, numbers: impl Iterator<Item = u32>) -> Self {
        let open = |number: u32| {
            let path = sys_cpu.join(format!("cpu{number}/cpufreq/scaling_cur_freq"));
            Some((number, Attribute::open(&path).ok()?))
        };
        let files = numbers.filter_map(open).collect();
        Self { files, next: AtomicUsize::new(0), has_failed: AtomicBool::new(false) }
    }

    /// In kHz, of as many cores as can be asked within `budget`, one at least.
    fn read(&self, budget: Duration) -> Answer {
        let started = Instant::now();
        let count = self.files.len();
        let first = self.next.load(Ordering::Relaxed) % count.max(1);
        let mut read = Vec::with_capacity(count);
        let mut asked = 0;
        for (number, file) in self.files[first..].iter().chain(&self.files[..first]) {
            match file.number() {
                Ok(khz) => read.push((*number, khz)),
                Err(_) => self.has_failed.store(true, Ordering::Relaxed),
            }
            asked += 1;
            if started.elapsed() >= budget {
                break;
            }
        }
        self.next.store(first + asked, Ordering::Relaxed);
        read.sort_unstable_by_key(|(number, _)| *number);
        Answer::Numbers(read)
    }
}

/// What a round of frequencies may take, of the deadline of a call.
fn budget(deadline: Duration) -> Duration {
    (deadline / 8).min(Duration::from_millis(100))
}

impl CpuCollector {
    pub(super) fn new(setup: &Setup<'_>) -> Self {
        Self {
            sys_cpu: setup.roots.sys.join("devices/system/cpu"),
            counters: setup.counters.clone(),
            before: AllTimes::default(),
            now: AllTimes::default(),
            have_cores_changed: false,
            frequencies: None,
            frequency_budget: budget(setup.config.read_deadline()),
        }
    }

    /// Opens the files anew, unless each core has one and all can be read.
    fn find_frequencies(&mut self, slow: &mut SlowReads) {
        let numbers = || self.now.cores.iter().map(|(number, _)| *number);
        if let Some((known, _)) = &self.frequencies
            && !known.has_failed.load(Ordering::Relaxed)
            && known.files.iter().map(|(number, _)| *number).eq(numbers())
        {
            return;
        }
        let found = Arc::new(Frequencies::open(&self.sys_cpu, numbers()));
        self.frequencies = None;
        if !found.files.is_empty() {
            let (asked, budget) = (found.clone(), self.frequency_budget);
            let name = self.sys_cpu.join("cpu*/cpufreq").display().to_string();
            let call = slow.add(name, false, move || asked.read(budget));
            self.frequencies = Some((found, call));
        }
    }
}

impl Collector for CpuCollector {
    fn prepare(&mut self, slow: &mut SlowReads, rescan: bool) {
        if rescan || std::mem::take(&mut self.have_cores_changed) {
            self.find_frequencies(slow);
        }
    }

    fn collect(&mut self, reading: &mut Reading<'_>) {
        std::mem::swap(&mut self.before, &mut self.now);
        let Some(stat) = reading.shared.stat() else {
            self.now = AllTimes::default();
            return;
        };
        parse(stat, &mut self.now);
        self.have_cores_changed |= self.now.cores.len() != self.before.cores.len();
        let frequencies = match self.frequencies.as_ref().and_then(|(_, call)| call.take()) {
            Some(Answer::Numbers(numbers)) => numbers,
            _ => Vec::new(),
        };
        let frequency = |number: u32| {
            let at = frequencies.binary_search_by_key(&number, |(number, _)| *number).ok()?;
            u32::try_from(frequencies[at].1).ok().filter(|&khz| khz > 0)
        };
        let (Some(before), Some(now)) = (self.before.total, self.now.total) else { return };
        let Some(total) = usage(&before, &now) else { return };
        let mut cores = Vec::with_capacity(self.now.cores.len());
        for at in 0..self.now.cores.len() {
            let (number, now) = self.now.cores[at];
            // A core that has just come online has no reading before.
            let Ok(then) = self.before.cores.binary_search_by_key(&number, |(number, _)| *number) else {
                continue;
            };
            if let Some(usage) = usage(&self.before.cores[then].1, &now) {
                cores.push(Core { number, usage, frequency_khz: frequency(number) });
            }
        }
        let (cores, left_out) = List::first(cores);
        self.counters.leave_out("cores", left_out);
        reading.sections.push(Cpu { total, cores }.into());
    }
}

/// Reads the `cpu` lines into `times`, whose memory is used again.
fn parse(stat: &[u8], times: &mut AllTimes) {
    times.total = None;
    times.cores.clear();
    for line in scan::lines(stat) {
        // They come first.
        let Some(rest) = line.strip_prefix(b"cpu") else { break };
        let mut words = scan::words(rest);
        let number = if rest.first() == Some(&b' ') { None } else { words.next() };
        let mut line_times = Times::default();
        for (ticks, word) in line_times.ticks.iter_mut().zip(words) {
            let Some(value) = scan::number(word) else { break };
            *ticks = value;
            line_times.columns += 1;
        }
        if line_times.columns <= IDLE {
            continue;
        }
        match number {
            None => times.total = Some(line_times),
            Some(word) => {
                if let Some(number) = scan::number(word).and_then(|number| number.try_into().ok()) {
                    times.cores.push((number, line_times));
                }
            }
        }
    }
    times.cores.sort_unstable_by_key(|(number, _)| *number);
}

/// Shares of the time between two readings; `None` if none has passed, or time as a whole went backwards.
///
/// Each counter may go backwards a little (iowait does, and all may after a core was offline): it counts as not moved
/// then, so that shares stay between 0 and 100 % and add up to 100.
fn usage(before: &Times, now: &Times) -> Option<CpuUsage> {
    // The kernel counts guests' time in user and nice, too.
    let sum = |times: &Times| times.ticks[..GUEST].iter().fold(0u64, |sum, &ticks| sum.saturating_add(ticks));
    if sum(now) <= sum(before) {
        return None;
    }
    let mut delta = [0; COLUMNS];
    for ((delta, now), before) in delta.iter_mut().zip(now.ticks).zip(before.ticks) {
        *delta = now.saturating_sub(before);
    }
    // More than nothing, as the sum has grown.
    let whole: u64 = delta[..GUEST].iter().sum();
    let share = |ticks: u64| Centi::percent(ticks, whole).unwrap_or_default();
    let known = |column: usize| (now.columns > column).then(|| share(delta[column]));
    Some(CpuUsage {
        user: share(delta[USER].saturating_sub(delta[GUEST])),
        system: share(delta[SYSTEM]),
        idle: share(delta[IDLE]),
        nice: Some(share(delta[NICE].saturating_sub(delta[GUEST_NICE]))),
        iowait: known(IOWAIT),
        irq: known(IRQ),
        softirq: known(SOFTIRQ),
        steal: known(STEAL),
        guest: known(GUEST),
        guest_nice: known(GUEST_NICE),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODERN: &[u8] = b"cpu  100 20 30 800 40 5 6 7 10 2\n\
        cpu0 60 10 20 400 20 5 3 4 10 2\n\
        cpu2 40 10 10 400 20 0 3 3 0 0\n\
        intr 5 1 2\nctxt 9\nbtime 1\n";

    fn parsed(text: &[u8]) -> AllTimes {
        let mut times = AllTimes::default();
        parse(text, &mut times);
        times
    }

    fn between(before: &[u8], now: &[u8]) -> Option<CpuUsage> {
        usage(&parsed(before).total.unwrap(), &parsed(now).total.unwrap())
    }

    #[test]
    fn frequencies_that_take_long_are_read_a_few_at_a_time_and_each_in_its_turn() {
        let dir = tempfile::tempdir().unwrap();
        for number in [0, 1, 4] {
            let cpufreq = dir.path().join(format!("cpu{number}/cpufreq"));
            std::fs::create_dir_all(&cpufreq).unwrap();
            std::fs::write(cpufreq.join("scaling_cur_freq"), format!("{}\n", 1000 + number)).unwrap();
        }
        let frequencies = Frequencies::open(dir.path(), 0..5);
        let all = vec![(0, 1000), (1, 1001), (4, 1004)];
        assert_eq!(frequencies.read(Duration::from_secs(9)), Answer::Numbers(all.clone()));
        for one in all {
            assert_eq!(frequencies.read(Duration::ZERO), Answer::Numbers(vec![one]));
        }
        assert!(budget(Duration::from_secs(1)) < Duration::from_secs(1) / 4, "others are not kept waiting");
    }

    #[test]
    fn the_total_and_cores_with_gaps_in_their_numbers_are_found() {
        let times = parsed(MODERN);
        assert_eq!(times.total.unwrap().ticks, [100, 20, 30, 800, 40, 5, 6, 7, 10, 2]);
        assert_eq!(times.cores.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn shares_are_of_the_time_that_passed_and_leave_guests_out_of_user() {
        let now = b"cpu  130 20 50 840 50 5 6 7 20 2\n";
        let usage = between(MODERN, now).unwrap();
        // 30 user (10 of them guests'), 20 system, 40 idle, 10 iowait.
        assert_eq!(usage.user, Centi(2000));
        assert_eq!((usage.system, usage.idle, usage.iowait), (Centi(2000), Centi(4000), Some(Centi(1000))));
        assert_eq!((usage.guest, usage.nice), (Some(Centi(1000)), Some(Centi(0))));
        assert_eq!(usage.active(), Centi(6000));
    }

    #[test]
    fn a_counter_that_goes_backwards_counts_as_not_moved() {
        let usage = between(MODERN, b"cpu  150 20 30 850 10 5 6 7 10 2\n").unwrap();
        assert_eq!((usage.user, usage.idle, usage.iowait), (Centi(5000), Centi(5000), Some(Centi(0))));
        assert_eq!(
            between(MODERN, b"cpu  1 2 3 4 5 6 7 7 8 2\n"),
            None,
            "all went backwards: no time has passed"
        );
    }

    #[test]
    fn what_an_old_kernel_does_not_tell_is_absent() {
        let usage = between(b"cpu 1 1 1 1\n", b"cpu 2 1 1 2\n").unwrap();
        assert_eq!((usage.user, usage.iowait, usage.steal, usage.guest), (Centi(5000), None, None, None));
        assert!(parsed(b"cpu 1 2\n").total.is_none());
        assert!(parsed(b"").total.is_none());
    }
}
