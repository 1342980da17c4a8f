//! Walks over all processes, on a thread of their own with low priority: they take a millisecond for 70 processes.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::error;
use vitals_wire::bounded::{List, Text};
use vitals_wire::centi::Centi;
use vitals_wire::section::{ProcessGroup, ProcessStates, TopProcesses};

/// Between the two walks that the first result needs.
const FIRST_PAUSE: Duration = Duration::from_millis(400);
const STACK_BYTES: usize = 256 << 10;
/// Groups by CPU and groups by memory.
const TOP: usize = 10;
/// How much nicer the thread is than the rest of the client.
const NICENESS: i32 = 10;

/// What a walk found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Walk {
    pub states: ProcessStates,
    /// `None` in a first walk, which cannot know what used CPU.
    pub top: Option<TopProcesses>,
}

/// Does one walk; `None` where it cannot.
pub(super) type Source = Box<dyn FnMut() -> Option<Walk> + Send>;

/// The thread that walks.
pub(super) struct Walker {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    latest: Option<Walk>,
    has_first_ended: bool,
    has_ended: bool,
}

impl Walker {
    /// Starts walking: at once, shortly after it, and then every `interval`.
    pub(super) fn start(interval: Duration, mut source: Source) -> Option<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let builder = thread::Builder::new().name("process-walk".into()).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || theirs.walk(interval, &mut source));
        match thread {
            Ok(_) => Some(Self { shared }),
            Err(error) => {
                error!(%error, "cannot start the thread that walks over processes");
                None
            }
        }
    }

    /// What the last walk found, once.
    pub(super) fn take(&self) -> Option<Walk> {
        self.shared.lock().latest.take()
    }

    pub(super) fn is_first_under_way(&self) -> bool {
        !self.shared.lock().has_first_ended
    }
}

impl Drop for Walker {
    fn drop(&mut self) {
        self.shared.lock().has_ended = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    /// The lock, also after a panic elsewhere: the state is valid between any two statements.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn walk(&self, interval: Duration, source: &mut Source) {
        #[cfg(target_os = "linux")]
        // Zero means the calling thread. Not being nicer does no harm.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        source();
        let mut next = Instant::now() + FIRST_PAUSE;
        loop {
            let mut state = self.lock();
            loop {
                let left = next.saturating_duration_since(Instant::now());
                if state.has_ended {
                    return;
                }
                if left.is_zero() {
                    break;
                }
                state = self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
            drop(state);
            let walk = source();
            let mut state = self.lock();
            state.latest = walk;
            state.has_first_ended = true;
            next = Instant::now() + interval;
        }
    }
}

/// What one process adds to its group.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Share {
    pub count: u32,
    /// Seconds of CPU since the walk before.
    pub cpu: f64,
    /// Bytes.
    pub memory: u64,
}

/// Processes summed by command name.
#[derive(Debug, Default)]
pub(super) struct Groups {
    by_name: BTreeMap<Box<str>, Share>,
}

impl Groups {
    pub(super) fn add(&mut self, name: &str, share: Share) {
        let sum = match self.by_name.get_mut(name) {
            Some(sum) => sum,
            None => self.by_name.entry(name.into()).or_default(),
        };
        sum.count += share.count;
        sum.cpu += share.cpu;
        sum.memory = sum.memory.saturating_add(share.memory);
    }

    /// The ten groups with the most CPU and the ten with the most memory, each once, by name. A group that used neither
    /// is in no top.
    pub(super) fn top(&self, elapsed: Duration) -> TopProcesses {
        let all: Vec<(&str, &Share)> = self.by_name.iter().map(|(name, share)| (&**name, share)).collect();
        let mut is_top = vec![false; all.len()];
        let mut order: Vec<usize> = (0..all.len()).filter(|&i| all[i].1.cpu > 0.0).collect();
        // Stable, so that equal ones stay in the order of their names.
        order.sort_by(|&a, &b| all[b].1.cpu.total_cmp(&all[a].1.cpu));
        order.iter().take(TOP).for_each(|&i| is_top[i] = true);
        order = (0..all.len()).filter(|&i| all[i].1.memory > 0).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(all[i].1.memory));
        order.iter().take(TOP).for_each(|&i| is_top[i] = true);
        let seconds = elapsed.as_secs_f64();
        let groups = all.iter().zip(&is_top).filter(|(_, is_top)| **is_top).map(|((name, share), _)| {
            let percent = if seconds > 0.0 { share.cpu * 100.0 / seconds } else { 0.0 };
            ProcessGroup {
                name: Text::cut(name),
                count: share.count,
                cpu: Centi::round(percent).unwrap_or_default(),
                memory: share.memory,
            }
        });
        TopProcesses { groups: List::first(groups.collect()).0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tops_by_cpu_and_by_memory_are_united_and_ordered_by_name() {
        let mut groups = Groups::default();
        for i in 0..15u32 {
            let name = format!("p{i:02}");
            groups.add(&name, Share { count: 1, cpu: f64::from(i), memory: u64::from(100 - i) });
        }
        groups.add("p14", Share { count: 2, cpu: 1.0, memory: 0 });
        let top = groups.top(Duration::from_secs(10));
        let names: Vec<&str> = top.groups.iter().map(|group| &*group.name).collect();
        // CPU: p05 to p14; memory: p00 to p09.
        assert_eq!(names.len(), 15);
        assert!(names.is_sorted(), "{names:?}");
        let last = &top.groups[14];
        assert_eq!((last.count, last.cpu, last.memory), (3, Centi(15_000), 86));
    }

    #[test]
    fn a_group_that_used_nothing_is_in_no_top() {
        let mut groups = Groups::default();
        groups.add("kthreadd", Share { count: 1, cpu: 0.0, memory: 0 });
        assert!(groups.top(Duration::from_secs(1)).groups.is_empty());
    }
}
