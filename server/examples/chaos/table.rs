//! What is said at the end.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::book::{End, Entries};
use super::oracle::Verdict;
use super::record::Record;
use super::rest::Scrape;
use super::schedule::{Disk, Target};
use super::town::Town;

/// Lines with this word in any log are a failure.
const PANIC: &str = "panicked";

/// Lines of any log below `dir` that tell of a panic.
pub fn panics(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let text = fs::read(entry.path()).unwrap_or_default();
        for line in String::from_utf8_lossy(&text).lines().filter(|line| line.contains(PANIC)) {
            found.push(format!("{}: {line}", entry.file_name().to_string_lossy()));
        }
    }
    found
}

/// What a program says that makes itself a key or an identity: once, at its first start.
const MADE: [&str; 2] = ["made a key for the clients", "is_new=true"];

/// Logs below `dir` of programs that made their key or identity more than once: kills and full disks cost them the one that
/// they had.
pub fn made_anew(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let text = fs::read(entry.path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        for made in MADE {
            let times = text.lines().filter(|line| line.contains(made)).count();
            if times > 1 {
                found.push(format!("{}: {made}: {times} times", entry.file_name().to_string_lossy()));
            }
        }
    }
    found
}

/// The samples' accounts and what was done, one line each.
pub fn print(
    town: &Town,
    record: &Record,
    entries: &Entries,
    verdict: &Verdict,
    scrape: &Scrape,
    (length, rest): (Duration, Duration),
) {
    let row = |what: &str, figure: String| println!("{what:<58} {figure}");
    let number = |figure: u64| figure.to_string();
    println!();
    row("seed", number(town.wish.seed));
    row("hosts, each second; real clients", format!("{}; {}", town.wish.hosts, town.wish.clients));
    row("seconds with faults", format!("{:.0}", length.as_secs_f64()));
    row("samples taken", number(verdict.taken));
    row("samples acknowledged", number(verdict.settled));
    row("samples stored", format!("{} ({} fields)", verdict.stored, verdict.fields));
    row("samples in InfluxDB", number(verdict.in_influx));
    row("samples dropped by clients", number(verdict.dropped));
    for (reason, count) in &record.dropped {
        row(&format!("  {reason}"), number(*count));
    }
    row("  of these stored all the same", number(verdict.dropped_and_stored));
    row("samples lost at ends of the simulation", number(verdict.lost_at_kills));
    row("samples lost while a spool could not be written", number(verdict.lost_without_spool));
    row(
        "samples of real clients: stored, in InfluxDB, lost",
        format!("{}, {}, {}", verdict.real.0, verdict.real.1, verdict.real_lost),
    );
    let targets = [Target::Server, Target::Simulate, Target::Influxd]
        .into_iter()
        .chain((0..town.wish.clients).map(Target::Client));
    let mut kills = 0;
    for target in targets {
        let of = |end| entries.count(target, end);
        kills += of(End::Killed);
        row(
            &format!("{target}: killed, stopped, ended by itself"),
            format!("{}, {}, {}", of(End::Killed), of(End::Stopped), of(End::ByItself)),
        );
    }
    row("kills", number(kills as u64));
    row("processes frozen", number(entries.stops));
    for (side, proxy) in ["clients", "InfluxDB"].into_iter().zip(&town.proxies) {
        let counts = &proxy.counts;
        row(
            &format!("to {side}: connections, cut, frozen, times refused"),
            format!(
                "{}, {}, {}, {}",
                counts.connections.load(Relaxed),
                counts.cuts.load(Relaxed),
                counts.freezes.load(Relaxed),
                counts.refusals.load(Relaxed)
            ),
        );
    }
    let full = |which| entries.full.iter().filter(|(disk, ..)| *disk == which).count();
    row(
        "times a disk was full: server, clients",
        match town.disks[0].is_mounted() {
            true => format!("{}, {}", full(Disk::Server), full(Disk::Clients)),
            false => "left out: no small file system can be mounted here; root can".to_owned(),
        },
    );
    row("starts that failed on a full disk", number(entries.starts_failed_on_full));
    row("logs torn", number(entries.torn));
    row("lines of the record that a kill cut", number(record.cut_lines));
    row(
        "bytes that InfluxDB was not given, since the last start",
        number(scrape.get("vitals_influx_given_up_bytes_total") as u64),
    );
    row("seconds to rest", format!("{:.1}", rest.as_secs_f64()));
    row("lost, doubled, altered", format!("{}, {}, {}", verdict.lost, verdict.doubled, verdict.altered));
    println!();
}
