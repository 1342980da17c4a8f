//! A status as a table for a terminal of 80 columns.

use std::fmt::Write as _;

use super::Status;
use crate::health;
use crate::show::bytes;

/// Columns of a terminal that nothing exceeds.
const WIDTH: usize = 80;
/// Where values begin.
const INDENT: usize = 16;

/// What people want to know of a client, the most important first; at most 80 columns wide.
pub fn table(status: &Status) -> String {
    let mut table = Table::default();
    connection(&mut table, status);
    table.gap();
    samples(&mut table, status);
    table.gap();
    process(&mut table, status);
    table.0
}

fn connection(table: &mut Table, status: &Status) {
    let state = match &status.connection {
        Some(connection) => format!("connected to {}", connection.server),
        None => "not connected".to_owned(),
    };
    table.line("state", &if status.stopping { format!("stopping, {state}") } else { state });
    match &status.connection {
        Some(connection) => {
            let since = format!("{}, for {}", utc(connection.since_ms), duration(connection.seconds));
            table.line("  since", &since);
            table.line("  server", &format!("vitals-server {}", connection.server_version));
            table.line("  known as", &connection.name);
        }
        None => table.line("  tried", &status.servers.join(", ")),
    }
    let trusts = match &*status.trusts {
        "pins" => "the server's key",
        "ca" => "certificates from the CA file",
        "roots" => "certificates from the system's CAs",
        "none" => "anybody: plain TCP, not encrypted",
        // Of another version.
        other => other,
    };
    table.line("trusts", trusts);
    let joined = match (status.joined, status.next_secret) {
        (true, false) => "yes",
        (true, true) => "yes; its secret is being changed",
        (false, _) => "not yet: no server took this host",
    };
    table.line("joined", joined);
    table.line("connections", &format!("{} since the start", number(status.connections)));
    let error = match &status.last_error {
        Some(error) => {
            let ago = duration(health::age_ms(error.time_ms) / 1000);
            format!("{} ago, at {}: {}", ago, error.server, error.text)
        }
        None => "none".to_owned(),
    };
    table.line("last error", &error);
}

fn samples(table: &mut Table, status: &Status) {
    table.line("samples taken", &number(status.taken));
    table.line("  acknowledged", &number(status.acknowledged));
    let (memory, disk) = (number(status.waiting_memory), number(status.waiting_disk));
    let oldest = match status.oldest_waiting_ms {
        Some(age) => format!("; the oldest is {} old", duration(age / 1000)),
        None => String::new(),
    };
    table.line("  waiting", &format!("{memory} in memory, {disk} on disk{oldest}"));
    let reasons: Vec<String> =
        status.dropped.iter().map(|(reason, count)| format!("{reason} {}", number(*count))).collect();
    let reasons = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) };
    table.line("  dropped", &format!("{}{reasons}", number(status.dropped.values().sum())));
    table.line("spool", &format!("{} on disk", bytes(status.spool_bytes)));
    let skew = match status.skew_ms {
        Some(0) => "as the server's".to_owned(),
        Some(ahead) => {
            let word = if ahead > 0 { "behind" } else { "ahead of" };
            format!("about {} {word} the server's", milliseconds(ahead))
        }
        None => "not compared with a server's yet".to_owned(),
    };
    let steps = match (status.clock_steps, status.last_step_ms) {
        (0, _) | (_, None) => "none".to_owned(),
        (count, Some(last)) => {
            let way = if last < 0 { "back" } else { "forward" };
            format!("{}, the last by {} {way}", number(count), milliseconds(last))
        }
    };
    table.line("clock", &skew);
    table.line("  steps", &steps);
}

fn process(table: &mut Table, status: &Status) {
    let run = format!(
        "vitals-client {}, pid {}, since {}, for {}",
        status.version,
        status.pid,
        utc(status.started_ms),
        duration(status.uptime)
    );
    table.line("client", &run);
    table.line("  host", &format!("{} ({})", status.name, status.host));
    let memory = status.memory.map_or("unknown".to_owned(), bytes);
    let share = status.cpu_ms as f64 / 10.0 / status.uptime.max(1) as f64;
    let cpu = format!(
        "{} ({share:.3} % of a core)",
        milliseconds(i64::try_from(status.cpu_ms).unwrap_or(i64::MAX))
    );
    table.line("  memory", &memory);
    table.line("  CPU time", &cpu);
}

/// Lines of a label and a value.
#[derive(Default)]
struct Table(String);

impl Table {
    /// A value that is too long goes on below itself, broken at blanks where it has some. It may come from a server, so
    /// nothing in it steers the terminal.
    fn line(&mut self, label: &str, value: &str) {
        let value = if value.trim().is_empty() { "-" } else { value };
        let value: String = value.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        // Writing to a text cannot fail.
        let _ = write!(self.0, "{label:<INDENT$}");
        let mut column = INDENT;
        for word in value.split(' ').filter(|word| !word.is_empty()) {
            let len = word.chars().count();
            if column > INDENT && column + 1 + len <= WIDTH {
                self.0.push(' ');
                column += 1;
            } else if column > INDENT {
                self.new_line(&mut column);
            }
            for c in word.chars() {
                if column == WIDTH {
                    self.new_line(&mut column);
                }
                self.0.push(c);
                column += 1;
            }
        }
        self.0.push('\n');
    }

    fn new_line(&mut self, column: &mut usize) {
        let _ = write!(self.0, "\n{:INDENT$}", "");
        *column = INDENT;
    }

    fn gap(&mut self) {
        self.0.push('\n');
    }
}

/// With commas between thousands.
fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// In the two largest units that it has.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{} d {hours} h", number(days)),
    }
}

/// Its size alone: "3 ms", "2.5 s", and minutes and more as [`duration`] has them.
fn milliseconds(ms: i64) -> String {
    match ms.unsigned_abs() {
        ms @ 0..1000 => format!("{ms} ms"),
        ms @ 1000..60_000 => format!("{:.1} s", ms as f64 / 1000.0),
        ms => duration(ms / 1000),
    }
}

/// A time in ms since 1970 as `2026-11-21 10:35:37 UTC`.
fn utc(ms: i64) -> String {
    let seconds = ms.div_euclid(1000);
    let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", time / 3600, time / 60 % 60, time % 60)
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar. Counts from 1 March of a year, so that a leap
/// day is the last of its year, and in eras of 400 years, which all have as many days.
fn date(days: i64) -> (i64, i64, i64) {
    /// Days from 0000-03-01 to 1970-01-01.
    const TO_1970: i64 = 719_468;
    const ERA: i64 = 146_097;
    let days = days + TO_1970;
    let (era, day_of_era) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Five months from March on always have 153 days.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year_of_era + next_year, month, day)
}

#[cfg(test)]
#[path = "show_tests.rs"]
mod tests;
