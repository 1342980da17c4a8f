//! What this process itself uses.

use std::fs::File;

/// Memory and CPU time of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Resident memory in bytes; `None` where the system does not tell.
    pub memory: Option<u64>,
    /// CPU time of all its threads so far, user and system, in ms.
    pub cpu_ms: u64,
}

/// `/proc/self/statm`, held open, where there is one. CPU time comes from the process's own clock, which every Unix has
/// and which counts finer than the ticks of `/proc/self/stat`.
#[derive(Debug)]
pub(super) struct UsageFiles {
    statm: Option<File>,
    page_bytes: u64,
}

impl UsageFiles {
    pub(super) fn open() -> Self {
        Self { statm: File::open("/proc/self/statm").ok(), page_bytes: rustix::param::page_size() as u64 }
    }

    pub(super) fn read(&self) -> Usage {
        use std::os::unix::fs::FileExt;
        // Seven numbers.
        let mut text = [0; 160];
        let len = self.statm.as_ref().and_then(|file| file.read_at(&mut text, 0).ok());
        let pages = len.and_then(|len| resident_pages(&text[..len]));
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Usage {
            memory: pages.map(|pages| pages.saturating_mul(self.page_bytes)),
            cpu_ms: u64::try_from(used.tv_sec.saturating_mul(1000) + used.tv_nsec / 1_000_000)
                .unwrap_or_default(),
        }
    }
}

/// The second number of `/proc/PID/statm`, proc_pid_statm(5).
fn resident_pages(statm: &[u8]) -> Option<u64> {
    std::str::from_utf8(statm).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_number_is_what_is_resident() {
        assert_eq!(resident_pages(b"1234 567 89 1 0 2 0\n"), Some(567));
        for text in [&b""[..], b"1234", b"1234 x", b"\xff \xff"] {
            assert_eq!(resident_pages(text), None, "{text:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_held_file_shows_memory_as_it_is_now() {
        let files = UsageFiles::open();
        let before = files.read();
        let ballast = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = files.read();
        let grown = after.memory.unwrap() - before.memory.unwrap();
        assert!(grown > 32 << 20, "{grown} after {}", ballast.len());
        assert!(after.cpu_ms >= before.cpu_ms);
    }
}
