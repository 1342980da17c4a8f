//! A walk over all processes: the one file `/proc/PID/stat` of each.

use std::collections::HashMap;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::fs::{Mode, OFlags, RawDir};
use rustix::io::Errno;
use vitals_wire::section::ProcessStates;

use super::super::Roots;
use super::super::walk::{Groups, Share, Source, Walk};
use super::scan;

/// Processes beyond so many are not looked at, so that a fork bomb does not eat the client's memory, too.
const MAX_PROCESSES: usize = 200_000;
/// `PF_KTHREAD` of the kernel's `sched.h`.
const KERNEL_THREAD: u64 = 0x0020_0000;
/// A line has some 300 bytes; what is asked for stands well before the end.
const STAT_BYTES: usize = 1024;
const DIR_BYTES: usize = 8192;

/// Walks over the processes below `roots.proc`.
pub(in super::super) fn source(roots: &Roots) -> Source {
    let mut walks = Walks {
        proc: roots.proc.clone(),
        before: HashMap::new(),
        walked_at: None,
        walked_at_ticks: 0,
        ticks_per_second: rustix::param::clock_ticks_per_second().max(1) as f64,
        page_size: rustix::param::page_size() as u64,
    };
    Box::new(move || walks.walk().ok())
}

struct Walks {
    proc: std::path::PathBuf,
    /// By pid: when it started, and the CPU ticks it had used.
    before: HashMap<u32, (u64, u64)>,
    walked_at: Option<Instant>,
    /// When the walk before began, in ticks since the system started, as processes' starts are told.
    walked_at_ticks: u64,
    ticks_per_second: f64,
    page_size: u64,
}

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
struct Stat<'a> {
    name: &'a [u8],
    state: u8,
    is_kernel_thread: bool,
    cpu_ticks: u64,
    started: u64,
    resident_pages: u64,
}

impl Walks {
    fn walk(&mut self) -> Result<Walk, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&self.proc, flags, Mode::empty())?;
        let now = Instant::now();
        let now_ticks = uptime_ticks(self.ticks_per_second);
        let elapsed = self.walked_at.map(|before| now.duration_since(before));
        let mut states = ProcessStates::default();
        let mut groups = Groups::default();
        let mut seen = HashMap::with_capacity(self.before.len());
        let mut entries = [MaybeUninit::<u8>::uninit(); DIR_BYTES];
        let mut entries = RawDir::new(&dir, &mut entries);
        let mut text = [0; STAT_BYTES];
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            let Some(pid) = scan::number(name.to_bytes()).and_then(|pid| u32::try_from(pid).ok()) else {
                continue;
            };
            // A process that ended meanwhile is none any more.
            let Ok(len) = read_stat(&dir, name, &mut text) else { continue };
            let Some(stat) = parse(&text[..len]) else { continue };
            count(&mut states, stat.state);
            let ticks = match self.before.get(&pid) {
                Some((started, ticks)) if *started == stat.started => stat.cpu_ticks.saturating_sub(*ticks),
                // It came since the walk before, and used all it has used since then.
                _ if stat.started >= self.walked_at_ticks => stat.cpu_ticks,
                // The walk before missed it: what it has used since then is not known.
                _ => 0,
            };
            seen.insert(pid, (stat.started, stat.cpu_ticks));
            let share = Share {
                count: 1,
                cpu: ticks as f64 / self.ticks_per_second,
                memory: stat.resident_pages.saturating_mul(self.page_size),
            };
            groups.add(&String::from_utf8_lossy(group_name(&stat)), share);
            if seen.len() >= MAX_PROCESSES {
                break;
            }
        }
        self.before = seen;
        self.walked_at = Some(now);
        self.walked_at_ticks = now_ticks;
        Ok(Walk { states, top: elapsed.map(|elapsed| groups.top(elapsed)) })
    }
}

fn uptime_ticks(ticks_per_second: f64) -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // Rounded down, as the kernel does.
    ((now.tv_sec as f64 + now.tv_nsec as f64 / 1e9) * ticks_per_second) as u64
}

fn read_stat(proc: &OwnedFd, pid: &CStr, text: &mut [u8]) -> Result<usize, Errno> {
    let mut path = [0; 32];
    let pid = pid.to_bytes();
    let suffix = b"/stat";
    let len = pid.len() + suffix.len();
    let (head, tail) = path.split_at_mut_checked(pid.len()).ok_or(Errno::NAMETOOLONG)?;
    head.copy_from_slice(pid);
    tail.get_mut(..suffix.len()).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(suffix);
    let file = rustix::fs::openat(proc, &path[..len], OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::read(&file, text)
}

/// `1234 (na me) S ppid pgrp session tty tpgid flags minflt cminflt majflt cmajflt utime stime cutime cstime priority
/// nice threads itrealvalue starttime vsize rss …`; a name may hold anything, brackets and blanks too.
fn parse(text: &[u8]) -> Option<Stat<'_>> {
    let open = text.iter().position(|&b| b == b'(')?;
    let close = text.iter().rposition(|&b| b == b')')?;
    let name = text.get(open + 1..close)?;
    let mut words = scan::words(&text[close + 1..]);
    let state = *words.next()?.first()?;
    // The third word was the state; `skip` says how many words lie in between.
    let mut next = |skip: usize| scan::number(words.nth(skip)?);
    let flags = next(5)?;
    let user = next(4)?;
    let system = next(0)?;
    let started = next(6)?;
    let resident_pages = next(1)?;
    let is_kernel_thread = flags & KERNEL_THREAD != 0;
    Some(Stat {
        name,
        state,
        is_kernel_thread,
        cpu_ticks: user.saturating_add(system),
        started,
        resident_pages,
    })
}

/// The command's name. Kernel threads have the CPU or the job behind a slash or colon, which changes all the time: they
/// are one group of what stands before it.
fn group_name<'a>(stat: &Stat<'a>) -> &'a [u8] {
    if !stat.is_kernel_thread {
        return stat.name;
    }
    let end = stat.name.iter().position(|&b| b == b'/' || b == b':').filter(|&end| end > 0);
    &stat.name[..end.unwrap_or(stat.name.len())]
}

fn count(states: &mut ProcessStates, state: u8) {
    states.total += 1;
    match state {
        // Both are counted elsewhere, at each reading.
        b'R' | b'D' | b'U' | b'L' => {}
        b'S' => states.sleeping += 1,
        b'Z' => states.zombies += 1,
        b'T' | b't' => states.stopped += 1,
        // Parked are the kernel's threads of a CPU that is offline: there is nothing for them to do either.
        b'I' | b'P' => states.idle += 1,
        b'X' | b'x' => states.dead += 1,
        b'W' => states.paging += 1,
        _ => states.unknown += 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"4711 (a) b (c) S 1 4711 4711 0 -1 4194560 100 200 0 0 250 50 7 8 20 0 3 0 9000 10000000 1234 18446744073709551615 1 1";

    #[test]
    fn a_name_may_hold_brackets_and_blanks() {
        let stat = parse(LINE).unwrap();
        assert_eq!(stat.name, b"a) b (c");
        assert_eq!((stat.state, stat.cpu_ticks, stat.started, stat.resident_pages), (b'S', 300, 9000, 1234));
        assert!(!stat.is_kernel_thread);
    }

    #[test]
    fn kernel_threads_are_grouped_without_their_cpu() {
        let line = b"12 (kworker/0:1-events) I 2 0 0 0 -1 69238880 0 0 0 0 0 5 0 0 20 0 1 0 30 0 0 18446744073709551615";
        let stat = parse(line).unwrap();
        assert!(stat.is_kernel_thread);
        assert_eq!(group_name(&stat), b"kworker");
        assert_eq!(group_name(&Stat { is_kernel_thread: false, ..stat }), b"kworker/0:1-events");
    }

    #[test]
    fn torn_lines_are_no_processes() {
        for text in [&b""[..], b"1 (x", b"1 x) S", b"1 )x( S", b"1 (x) S 1 2", &LINE[..60]] {
            assert_eq!(parse(text), None);
        }
    }

    #[test]
    fn a_process_that_one_walk_missed_is_not_charged_its_life_in_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let mut walk = source(&Roots { proc: dir.path().to_owned(), ..Roots::default() });
        let write = |pid: u32, name: &str, state: &str, started: u64| {
            let line = format!(
                "{pid} ({name}) {state} 1 1 1 0 -1 0 1 2 0 0 250 50 7 8 20 0 3 0 {started} 10 1234 1 1"
            );
            std::fs::create_dir_all(dir.path().join(pid.to_string())).unwrap();
            std::fs::write(dir.path().join(format!("{pid}/stat")), line).unwrap();
        };
        walk().unwrap();
        write(7, "old", "S", 0);
        write(8, "new", "S", uptime_ticks(rustix::param::clock_ticks_per_second() as f64));
        write(9, "parked", "P", 0);
        let second = walk().unwrap();
        let groups = second.top.unwrap().groups;
        let cpu = |name: &str| groups.iter().find(|group| &*group.name == name).unwrap().cpu.value();
        assert_eq!(cpu("old"), 0.0);
        assert!(cpu("new") > 0.0);
        assert_eq!((second.states.idle, second.states.unknown, second.states.sleeping), (1, 0, 2));
    }

    #[test]
    fn this_test_finds_itself_and_what_it_used() {
        let mut source = source(&Roots::default());
        let first = source().unwrap();
        assert_eq!(first.top, None, "one walk cannot know what used CPU");
        assert!(first.states.total >= 1);
        let cpu_seconds = || {
            let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
        };
        let (started, before) = (Instant::now(), cpu_seconds());
        while cpu_seconds() < before + 0.2 {
            std::hint::black_box(before);
        }
        let percent = (cpu_seconds() - before) * 100.0 / started.elapsed().as_secs_f64();
        let top = source().unwrap().top.unwrap();
        let own = std::fs::read_to_string("/proc/self/comm").unwrap();
        let own = top.groups.iter().find(|group| *group.name == *own.trim()).expect("it used much of a core");
        // The kernel counts in ticks of 10 ms.
        assert!(own.cpu.value() > percent * 0.6 && own.memory > 1 << 20, "{own:?}, {percent} %");
    }
}
