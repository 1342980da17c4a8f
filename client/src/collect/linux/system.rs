//! The system as a whole: `/proc/loadavg`, `/proc/uptime`, `/proc/stat`, the CPUs' topology and `utmp`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vitals_wire::centi::Centi;
use vitals_wire::section::System;

use super::super::{Collector, Reading, Setup};
use super::file::HeldFile;
use super::scan;

/// Size of glibc's `struct utmp`. Most 64-bit systems keep 32 bits for its times and its session, as their 32-bit programs
/// have them; these do not.
const UTMP_BYTES: usize =
    if cfg!(any(target_arch = "aarch64", target_arch = "loongarch64", target_arch = "s390x")) {
        400
    } else {
        384
    };
/// `USER_PROCESS`: somebody is logged in.
const UTMP_USER: i16 = 7;

pub(super) struct SystemCollector {
    uptime: HeldFile,
    utmp: HeldFile,
    proc: PathBuf,
    sys_cpu: PathBuf,
    /// For how many CPUs `physical` was counted.
    counted_for: Option<u32>,
    physical: Option<u32>,
}

impl SystemCollector {
    pub(super) fn new(setup: &Setup<'_>) -> Self {
        Self {
            uptime: HeldFile::new(setup.roots.proc.join("uptime")),
            utmp: HeldFile::optional(setup.roots.run.join("utmp")),
            proc: setup.roots.proc.clone(),
            sys_cpu: setup.roots.sys.join("devices/system/cpu"),
            counted_for: None,
            physical: None,
        }
    }
}

impl Collector for SystemCollector {
    fn collect(&mut self, reading: &mut Reading<'_>) {
        let Some((n_cpus, boot_time)) = reading.shared.stat().map(parse_stat) else { return };
        let Some(uptime) = self.uptime.read().and_then(parse_uptime) else { return };
        if self.counted_for != Some(n_cpus) {
            // Once, and when a CPU comes or goes.
            self.counted_for = Some(n_cpus);
            self.physical = count_physical(&self.sys_cpu).or_else(|| {
                std::fs::read(self.proc.join("cpuinfo")).ok().and_then(|text| parse_cpuinfo(&text))
            });
        }
        if reading.rescan {
            // It may have been replaced.
            self.utmp.reopen();
        }
        let system = System {
            load: reading.shared.loadavg().and_then(parse_load),
            n_cpus,
            n_physical_cpus: self.physical,
            n_users: self.utmp.read().map(|utmp| count_users(utmp, UTMP_BYTES)),
            uptime,
            boot_time,
        };
        reading.sections.push(system.into());
    }
}

/// CPUs online, and when the system started.
fn parse_stat(stat: &[u8]) -> (u32, Option<i64>) {
    let mut n_cpus = 0;
    let mut boot_time = None;
    for line in scan::lines(stat) {
        if let Some(rest) = line.strip_prefix(b"cpu") {
            n_cpus += u32::from(rest.first().is_some_and(u8::is_ascii_digit));
        } else if let Some(rest) = line.strip_prefix(b"btime ") {
            boot_time = scan::signed(rest);
        }
    }
    (n_cpus, boot_time)
}

fn parse_uptime(text: &[u8]) -> Option<u64> {
    let seconds = scan::words(text).next()?;
    scan::number(seconds.split(|&b| b == b'.').next()?)
}

/// `0.37 0.26 0.28 1/102 25168`
fn parse_load(text: &[u8]) -> Option<[Centi; 3]> {
    let mut words = scan::words(text);
    let mut next = || Centi::round(scan::fraction(words.next()?)?);
    Some([next()?, next()?, next()?])
}

fn count_users(utmp: &[u8], record_bytes: usize) -> u32 {
    let kind = |entry: &&[u8]| i16::from_ne_bytes([entry[0], entry[1]]) == UTMP_USER;
    utmp.chunks_exact(record_bytes).filter(kind).count() as u32
}

/// Cores without their hyper-threads: each core lists the same threads in all of them.
fn count_physical(sys_cpu: &Path) -> Option<u32> {
    let mut cores = BTreeSet::new();
    for entry in std::fs::read_dir(sys_cpu).ok()?.flatten() {
        let name = entry.file_name();
        let is_cpu = name
            .to_str()
            .and_then(|name| name.strip_prefix("cpu"))
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
        if !is_cpu {
            continue;
        }
        let topology = entry.path().join("topology");
        let threads = std::fs::read(topology.join("core_cpus_list"))
            .or_else(|_| std::fs::read(topology.join("thread_siblings_list")));
        if let Ok(threads) = threads {
            cores.insert(threads);
        }
    }
    (!cores.is_empty()).then_some(cores.len() as u32)
}

/// Different pairs of `physical id` and `core id`.
fn parse_cpuinfo(text: &[u8]) -> Option<u32> {
    let mut cores = BTreeSet::new();
    let mut package = 0;
    for line in scan::lines(text) {
        let value = || scan::number(line.rsplit(|&b| b == b':').next()?.trim_ascii());
        if line.starts_with(b"physical id") {
            package = value().unwrap_or(0);
        } else if line.starts_with(b"core id")
            && let Some(core) = value()
        {
            cores.insert((package, core));
        }
    }
    (!cores.is_empty()).then_some(cores.len() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_uptime_and_load_are_read() {
        assert_eq!(
            parse_stat(b"cpu  1\ncpu0 1\ncpu1 1\nintr 4\nbtime 1795244467\n"),
            (2, Some(1_795_244_467))
        );
        assert_eq!(parse_uptime(b"2523.78 4251.73\n"), Some(2523));
        assert_eq!(parse_load(b"0.37 12.26 0.28 1/102 25168\n"), Some([Centi(37), Centi(1226), Centi(28)]));
        assert_eq!((parse_uptime(b""), parse_load(b"0.1 x 0.2")), (None, None));
    }

    #[test]
    fn only_sessions_of_users_are_counted() {
        for bytes in [384, 400] {
            let mut utmp = vec![0xff; 3 * bytes + 5];
            for (at, kind) in [(0, 7i16), (1, 8), (2, 7)] {
                utmp[at * bytes..at * bytes + 2].copy_from_slice(&kind.to_ne_bytes());
            }
            assert_eq!(count_users(&utmp, bytes), 2);
        }
    }

    #[test]
    fn a_record_of_utmp_is_as_large_as_the_c_library_of_this_machine_says() {
        // As `utmp.h` lists its fields.
        let (session, time) =
            if cfg!(any(target_arch = "aarch64", target_arch = "loongarch64", target_arch = "s390x")) {
                (8, 16)
            } else {
                (4, 8)
            };
        // Type and pid, line, id, user, host, exit status; session and time, aligned; address, and what is unused.
        let before = 4 + 4 + 32 + 4 + 32 + 256 + 4;
        assert_eq!(before % session, 0);
        assert_eq!(UTMP_BYTES, before + session + time + 16 + 20 + (if session == 8 { 4 } else { 0 }));
    }

    #[test]
    fn hyper_threads_are_no_cores() {
        let cpuinfo = b"processor\t: 0\nphysical id\t: 0\ncore id\t\t: 0\n\nprocessor\t: 1\nphysical id\t: 0\ncore id\t\t: 0\n\n\
            processor\t: 2\nphysical id\t: 1\ncore id\t\t: 0\n";
        assert_eq!(parse_cpuinfo(cpuinfo), Some(2));
        assert_eq!(parse_cpuinfo(b"processor : 0\nBogoMIPS : 50.00\n"), None, "as on ARM");
        let dir = tempfile::tempdir().unwrap();
        for (cpu, threads) in
            [("cpu0", "0,2"), ("cpu1", "1,3"), ("cpu2", "0,2"), ("cpu3", "1,3"), ("cpufreq", "x")]
        {
            let topology = dir.path().join(cpu).join("topology");
            std::fs::create_dir_all(&topology).unwrap();
            std::fs::write(topology.join("thread_siblings_list"), threads).unwrap();
        }
        assert_eq!(count_physical(dir.path()), Some(2));
    }
}
