//! A sample as a table for a terminal of 80 columns.

use std::fmt::Write as _;

use vitals_wire::centi::Centi;
use vitals_wire::sample::Sample;
use vitals_wire::section::{
    Cpu, DiskIo, FileSystems, Memory, Network, Processes, Section, Swap, System, Temperatures, TopProcesses,
};

/// Columns of a terminal that nothing exceeds.
const WIDTH: usize = 80;
/// Between two columns.
const GAP: &str = "  ";

/// A readable table of `sample`, aligned, in units that people read, at most 80 columns wide.
pub fn table(sample: &Sample) -> String {
    let mut out = String::new();
    for section in &sample.sections {
        let block = match section {
            Section::Cpu(cpu) => cpu_block(cpu),
            Section::Memory(memory) => memory_block(memory),
            Section::Swap(swap) => swap_block(swap),
            Section::FileSystems(file_systems) => file_systems_block(file_systems),
            Section::DiskIo(disk_io) => disk_io_block(disk_io),
            Section::Network(network) => network_block(network),
            Section::System(system) => system_block(system),
            Section::Processes(processes) => processes_block(processes),
            Section::Temperatures(temperatures) => temperatures_block(temperatures),
            Section::TopProcesses(top) => top_block(top),
            Section::ClientHealth(_) | Section::ServerHealth(_) | Section::Events(_) | Section::Opaque(_) => {
                continue;
            }
        };
        if !out.is_empty() && !block.is_empty() {
            out.push('\n');
        }
        out.push_str(&block);
    }
    out
}

/// A block of aligned columns: heads, then rows.
struct Block {
    heads: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Block {
    fn new(heads: &[&'static str]) -> Self {
        Self { heads: heads.to_vec(), rows: Vec::new() }
    }

    fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The first column, a name, stands left and gives way where the table is too wide; figures stand right.
    fn text(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let chars = |text: &str| text.chars().count();
        // A column of which nothing is known says nothing.
        let shown: Vec<bool> = (0..self.heads.len())
            .map(|at| self.rows.iter().any(|row| row.get(at).is_some_and(|cell| cell != "-")))
            .collect();
        let mut widths: Vec<usize> = self.heads.iter().map(|head| chars(head)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(chars(cell));
            }
        }
        let others = widths.iter().zip(&shown).skip(1).filter(|(_, shown)| **shown);
        let others: usize = others.map(|(width, _)| width + GAP.len()).sum();
        if let Some(first) = widths.first_mut() {
            *first = (*first).min(WIDTH.saturating_sub(others)).max(8);
        }
        let mut out = String::new();
        let heads = self.heads.iter().map(|head| (*head).to_owned()).collect();
        for row in std::iter::once(&heads).chain(&self.rows) {
            let mut line = String::new();
            for (at, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                if at == 0 {
                    let _ = write!(line, "{:<width$}", shortened(cell, width));
                } else if shown[at] {
                    let _ = write!(line, "{GAP}{cell:>width$}");
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// `text` in at most `width` characters; the end of a path says more than its middle.
fn shortened(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        return text.to_owned();
    }
    let head = width / 3;
    let tail = width - head - 1;
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(count - tail).collect();
    format!("{start}…{end}")
}

/// `12.3 GiB`: three or four digits that count.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // What would be shown as 1024.0 is one of the next unit.
    while value >= 1023.95 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `12.3 M` where the figure would be long.
fn count(count: u64) -> String {
    const UNITS: [(&str, f64); 4] = [("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)];
    if count < 100_000 {
        return count.to_string();
    }
    let unit = UNITS.iter().find(|(_, size)| count as f64 >= *size * 0.99995);
    unit.map_or_else(|| count.to_string(), |(unit, size)| format!("{:.1} {unit}", count as f64 / size))
}

fn percent(value: Centi) -> String {
    format!("{:.1} %", value.value())
}

fn share(part: u64, whole: u64) -> String {
    Centi::percent(part, whole).map_or_else(none, percent)
}

/// What is not known.
fn none() -> String {
    "-".to_owned()
}

fn or_none<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(none, show)
}

/// `3 d 4:05 h`.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    if days > 0 { format!("{days} d {hours}:{minutes:02} h") } else { format!("{hours}:{minutes:02} h") }
}

fn cpu_block(cpu: &Cpu) -> String {
    let heads = ["CPU", "busy", "user", "system", "nice", "iowait", "irq", "steal", "idle", "MHz"];
    let mut block = Block::new(&heads);
    let cores = cpu.cores.iter().map(|core| (format!("cpu{}", core.number), core.usage, core.frequency_khz));
    for (name, usage, khz) in std::iter::once(("total".to_owned(), cpu.total, None)).chain(cores) {
        let irq = usage.irq.map(|irq| Centi(irq.0 + usage.softirq.unwrap_or_default().0));
        let cells = [
            Some(usage.active()),
            Some(usage.user),
            Some(usage.system),
            usage.nice,
            usage.iowait,
            irq,
            usage.steal,
            Some(usage.idle),
        ];
        let shares = cells.into_iter().map(|cell| or_none(cell, percent));
        let mhz = or_none(khz, |khz| (khz / 1000).to_string());
        block.row(std::iter::once(name).chain(shares).chain([mhz]));
    }
    block.text()
}

fn memory_block(memory: &Memory) -> String {
    let used = memory.total.saturating_sub(memory.available);
    let mut block = Block::new(&["MEMORY", "used", "full", "available", "free", "cached", "buffers"]);
    block.row([
        bytes(memory.total),
        bytes(used),
        share(used, memory.total),
        bytes(memory.available),
        bytes(memory.free),
        or_none(memory.cached, bytes),
        or_none(memory.buffered, bytes),
    ]);
    block.text()
}

fn swap_block(swap: &Swap) -> String {
    if swap.total == 0 {
        return "SWAP\nnone\n".to_owned();
    }
    let used = swap.total.saturating_sub(swap.free);
    let mut block = Block::new(&["SWAP", "used", "full", "free", "read", "written"]);
    block.row([
        bytes(swap.total),
        bytes(used),
        share(used, swap.total),
        bytes(swap.free),
        or_none(swap.bytes_in, bytes),
        or_none(swap.bytes_out, bytes),
    ]);
    block.text()
}

fn file_systems_block(file_systems: &FileSystems) -> String {
    let mut block = Block::new(&["FILE SYSTEM", "size", "used", "full", "free", "inodes", "type", "device"]);
    for fs in &file_systems.file_systems {
        let inodes = fs.inodes.map(|inodes| share(inodes.total.saturating_sub(inodes.free), inodes.total));
        block.row([
            if fs.read_only { format!("{} (ro)", fs.path) } else { fs.path.to_string() },
            bytes(fs.total),
            bytes(fs.used),
            share(fs.used, fs.used.saturating_add(fs.free)),
            bytes(fs.free),
            inodes.unwrap_or_else(none),
            shortened(&fs.fstype, 8),
            shortened(&fs.device, 12),
        ]);
    }
    block.text()
}

fn disk_io_block(disk_io: &DiskIo) -> String {
    let mut block = Block::new(&["DISK", "read", "written", "reads", "writes", "busy", "wait", "queue"]);
    for disk in &disk_io.disks {
        let times = disk.times;
        let wait = times.and_then(|times| times.io_await);
        block.row([
            disk.name.to_string(),
            bytes(disk.read_bytes),
            bytes(disk.write_bytes),
            count(disk.reads),
            count(disk.writes),
            or_none(times, |times| format!("{:.1} %", times.io_util)),
            or_none(wait, |wait| format!("{wait:.1} ms")),
            or_none(disk.iops_in_progress, |count| count.to_string()),
        ]);
    }
    block.text()
}

fn network_block(network: &Network) -> String {
    let heads = ["NETWORK", "received", "sent", "packets in", "out", "errors", "drops", "Mbit/s"];
    let mut block = Block::new(&heads);
    for interface in &network.interfaces {
        let drops = interface.drop_in.zip(interface.drop_out).map(|(a, b)| a.saturating_add(b));
        block.row([
            interface.name.to_string(),
            bytes(interface.bytes_recv),
            bytes(interface.bytes_sent),
            count(interface.packets_recv),
            count(interface.packets_sent),
            interface.err_in.saturating_add(interface.err_out).to_string(),
            or_none(drops, |drops| drops.to_string()),
            or_none(interface.speed.filter(|&speed| speed >= 0), |speed| speed.to_string()),
        ]);
    }
    block.text()
}

fn system_block(system: &System) -> String {
    let mut block = Block::new(&["SYSTEM", "load 1", "5", "15 min", "CPUs", "cores", "users"]);
    let [one, five, fifteen] = system.load.map_or([None; 3], |load| load.map(Some));
    let load = |load: Option<Centi>| or_none(load, |load| format!("{:.2}", load.value()));
    block.row([
        format!("up {}", duration(system.uptime)),
        load(one),
        load(five),
        load(fifteen),
        system.n_cpus.to_string(),
        or_none(system.n_physical_cpus, |count| count.to_string()),
        or_none(system.n_users, |count| count.to_string()),
    ]);
    block.text()
}

fn processes_block(processes: &Processes) -> String {
    let mut block =
        Block::new(&["PROCESSES", "running", "blocked", "sleeping", "idle", "zombies", "threads"]);
    let walk = processes.walk.as_ref();
    let number = |count: Option<u32>| or_none(count, |count| count.to_string());
    block.row([
        or_none(walk, |walk| format!("{} in all", walk.total)),
        number(processes.running),
        number(processes.blocked),
        number(walk.map(|walk| walk.sleeping)),
        number(walk.map(|walk| walk.idle)),
        number(walk.map(|walk| walk.zombies)),
        number(processes.total_threads),
    ]);
    block.text()
}

fn temperatures_block(temperatures: &Temperatures) -> String {
    let mut block = Block::new(&["TEMPERATURE", ""]);
    for sensor in &temperatures.sensors {
        block.row([sensor.sensor.to_string(), format!("{:.1} °C", f64::from(sensor.millidegrees) / 1000.0)]);
    }
    block.text()
}

fn top_block(top: &TopProcesses) -> String {
    let mut block = Block::new(&["TOP PROCESSES", "count", "CPU", "memory"]);
    let mut groups: Vec<_> = top.groups.iter().collect();
    groups.sort_by_key(|group| std::cmp::Reverse((group.cpu, group.memory)));
    for group in groups {
        block.row([group.name.to_string(), group.count.to_string(), percent(group.cpu), bytes(group.memory)]);
    }
    block.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_units_that_people_read() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes((1 << 30) - 1), "1.0 GiB", "not 1024.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(
            (count(99_999), count(999_960), count(12_345_678)),
            ("99999".into(), "1.0 M".into(), "12.3 M".into())
        );
        assert_eq!((duration(59), duration(90_000)), ("0:00 h".into(), "1 d 1:00 h".into()));
    }

    #[test]
    fn a_long_name_gives_way_to_the_figures() {
        let mut block = Block::new(&["FILE SYSTEM", "size"]);
        block.row([format!("/very/{}/end", "x".repeat(100)), "12.0 GiB".into()]);
        block.row(["/".into(), "1 B".into()]);
        let text = block.text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() == WIDTH), "{text}");
        assert!(lines[1].ends_with("/end  12.0 GiB") && lines[1].starts_with("/very/xx"), "{text}");
    }
}
