//! What the server itself uses (`/proc/self`).

/// Memory and CPU of this process; zero where the system does not tell.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Resident memory in bytes.
    pub memory_bytes: u64,
    /// CPU time used so far, user and system, in ms.
    pub cpu_ms: u64,
}

/// Reads it now.
pub fn read() -> Usage {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    parse(&stat, rustix::param::page_size() as u64, rustix::param::clock_ticks_per_second())
        .unwrap_or_default()
}

/// `/proc/PID/stat`, proc(5): the command's name in brackets may hold blanks, so counting begins behind the last one.
fn parse(stat: &str, page_bytes: u64, ticks_per_second: u64) -> Option<Usage> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split_ascii_whitespace();
    // `rest` begins with field 3; utime and stime are 14 and 15, rss is 24.
    let utime: u64 = fields.nth(11)?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    let rss: u64 = fields.nth(8)?.parse().ok()?;
    Some(Usage { memory_bytes: rss * page_bytes, cpu_ms: (utime + stime) * 1_000 / ticks_per_second.max(1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_brackets_and_blanks_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 13 14 15 16 17 18 19 20 123 22 23";
        let usage = parse(stat, 4096, 100).unwrap();
        assert_eq!((usage.cpu_ms, usage.memory_bytes), (3_000, 123 * 4096));
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(read().memory_bytes > 100_000);
    }
}
