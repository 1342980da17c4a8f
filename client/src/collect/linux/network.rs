//! Counters of network interfaces: `/proc/net/dev`, with speed and state from `/sys/class/net`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vitals_wire::bounded::{List, Text};
use vitals_wire::section::{Interface, Network};

use super::super::slow::{Answer, SlowItem, SlowReads};
use super::super::{CollectConfig, Collector, Counters, Reading, Setup};
use super::file::{Attribute, HeldFile};
use super::scan;

/// `IFF_UP` and `IFF_LOOPBACK` of the kernel's `if.h`.
const UP: u64 = 1;
const LOOPBACK: u64 = 8;
/// What the kernel calls loopback.
const LOOPBACK_NAME: &str = "lo";
/// Speeds are asked for in one round of so many: some drivers take milliseconds, and a speed rarely changes.
const SPEED_EVERY: u32 = 12;
/// What the kernel and Telegraf say for a speed that is not known.
const UNKNOWN_SPEED: i64 = -1;

pub(super) struct NetworkCollector {
    config: CollectConfig,
    counters: Arc<Counters>,
    class: PathBuf,
    dev: HeldFile,
    known: Vec<Known>,
    rounds: u32,
}

struct Known {
    name: Box<str>,
    is_wanted: bool,
    flags: Option<Attribute>,
    speed: i64,
    speed_call: Option<Arc<SlowItem>>,
    was_up: bool,
    is_loopback: bool,
    /// What it had counted when its state was read.
    figures: Figures,
    /// The speed was asked for since it came up.
    has_asked: bool,
}

impl NetworkCollector {
    pub(super) fn new(setup: &Setup<'_>) -> Self {
        Self {
            config: setup.config.clone(),
            counters: setup.counters.clone(),
            class: setup.roots.sys.join("class/net"),
            dev: HeldFile::new(setup.roots.proc.join("net/dev")),
            known: Vec::new(),
            rounds: 0,
        }
    }
}

impl Known {
    fn new(name: &str, config: &CollectConfig, class: &Path) -> Self {
        let is_wanted = config.wants_interface(name);
        let flags = if is_wanted { Attribute::open(&class.join(name).join("flags")).ok() } else { None };
        Self {
            name: name.into(),
            is_wanted,
            flags,
            speed: UNKNOWN_SPEED,
            speed_call: None,
            was_up: false,
            is_loopback: false,
            figures: Figures::default(),
            has_asked: false,
        }
    }

    /// Whether it is up and leads somewhere. Where that cannot be read, as in a container, it is shown unless it is called
    /// as loopback always is.
    fn is_shown(&mut self, figures: &Figures, rescan: bool, config: &CollectConfig, class: &Path) -> bool {
        if !self.is_wanted || self.is_loopback {
            return false;
        }
        let Some(flags) = &self.flags else { return &*self.name != LOOPBACK_NAME };
        // One that is down and moves nothing is still down: it need not be looked at each time.
        let has_moved = std::mem::replace(&mut self.figures, *figures) != *figures;
        if !(self.was_up || has_moved || rescan) {
            return false;
        }
        let mut flags = flags.hexadecimal().ok();
        if flags.is_none() {
            // It is gone, and what the kernel lists is another one of its name.
            *self = Self { figures: *figures, ..Self::new(&self.name, config, class) };
            flags = self.flags.as_ref().and_then(|flags| flags.hexadecimal().ok());
        }
        let Some(flags) = flags else { return false };
        self.is_loopback = flags & LOOPBACK != 0;
        flags & UP != 0 && !self.is_loopback
    }
}

impl Collector for NetworkCollector {
    fn prepare(&mut self, slow: &mut SlowReads, _rescan: bool) {
        let is_due = self.rounds.is_multiple_of(SPEED_EVERY);
        self.rounds = self.rounds.wrapping_add(1);
        for known in &mut self.known {
            if let Some(Answer::Number(speed)) = known.speed_call.as_ref().and_then(|call| call.take()) {
                known.speed = speed;
            }
            known.speed_call = None;
            if known.was_up && (is_due || !known.has_asked) {
                known.has_asked = true;
                let path = self.class.join(&*known.name).join("speed");
                let name = path.display().to_string();
                // Opened each time: one held open would outlive an interface that is replaced by another.
                let read = move || {
                    let speed = Attribute::open(&path).and_then(|speed| speed.number());
                    Answer::Number(speed.unwrap_or(UNKNOWN_SPEED))
                };
                known.speed_call = Some(slow.add(name, false, read));
            }
        }
    }

    fn collect(&mut self, reading: &mut Reading<'_>) {
        let Some(text) = self.dev.read() else {
            self.known.clear();
            return;
        };
        let mut interfaces = Vec::with_capacity(self.known.len());
        let mut seen = 0;
        for (name, figures) in scan::lines(text).filter_map(parse_line) {
            // The kernel's order changes only when interfaces come and go.
            let then = self.known[seen..].iter().position(|known| *known.name == *name);
            let is_new = then.is_none();
            match then {
                Some(skipped) => drop(self.known.drain(seen..seen + skipped)),
                None => self.known.insert(seen, Known::new(name, &self.config, &self.class)),
            }
            let known = &mut self.known[seen];
            seen += 1;
            if known.flags.is_none() && known.is_wanted && reading.rescan {
                *known = Known::new(name, &self.config, &self.class);
            }
            let is_up = known.is_shown(&figures, reading.rescan || is_new, &self.config, &self.class);
            known.has_asked &= known.was_up;
            known.was_up = is_up;
            if !known.was_up {
                continue;
            }
            if let Some(Answer::Number(speed)) = known.speed_call.as_ref().and_then(|call| call.take()) {
                known.speed = speed;
            }
            interfaces.push(interface(name, &figures, known.speed));
        }
        self.known.truncate(seen);
        if interfaces.is_empty() {
            return;
        }
        let (interfaces, left_out) = List::first(interfaces);
        self.counters.leave_out("interfaces", left_out);
        reading.sections.push(Network { interfaces }.into());
    }
}

/// The sixteen columns: eight for what was received, eight for what was sent.
type Figures = [u64; 16];

/// `  eth0: bytes packets errs drop fifo frame compressed multicast bytes packets errs drop …`; old kernels leave no
/// blank behind the colon.
fn parse_line(line: &[u8]) -> Option<(&str, Figures)> {
    let colon = line.iter().rposition(|&b| b == b':')?;
    let name = std::str::from_utf8(line[..colon].trim_ascii()).ok()?;
    let mut figures = Figures::default();
    let mut count = 0;
    for (figure, word) in figures.iter_mut().zip(scan::words(&line[colon + 1..])) {
        *figure = scan::number(word)?;
        count += 1;
    }
    (count == figures.len() && !name.is_empty()).then_some((name, figures))
}

fn interface(name: &str, figures: &Figures, speed: i64) -> Interface {
    Interface {
        name: Text::cut(name),
        bytes_recv: figures[0],
        packets_recv: figures[1],
        err_in: figures[2],
        drop_in: Some(figures[3]),
        bytes_sent: figures[8],
        packets_sent: figures[9],
        err_out: figures[10],
        drop_out: Some(figures[11]),
        speed: Some(speed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_with_and_without_a_blank_behind_the_colon() {
        for line in
            [&b"  eth0: 10 20 1 2 0 0 0 0 30 40 3 4 0 0 0 0"[..], b"eth0:10 20 1 2 0 0 0 0 30 40 3 4 0 0 0 0"]
        {
            let (name, figures) = parse_line(line).unwrap();
            let eth0 = interface(name, &figures, 1000);
            assert_eq!((&*eth0.name, eth0.bytes_recv, eth0.packets_recv), ("eth0", 10, 20));
            assert_eq!((eth0.err_in, eth0.drop_in, eth0.bytes_sent), (1, Some(2), 30));
            assert_eq!((eth0.packets_sent, eth0.err_out, eth0.drop_out), (40, 3, Some(4)));
            assert_eq!(eth0.speed, Some(1000));
        }
    }

    #[test]
    fn heads_and_torn_lines_are_no_interfaces() {
        for line in [
            &b"Inter-|   Receive                                                |  Transmit"[..],
            b" face |bytes    packets errs drop fifo frame compressed multicast|bytes",
            b"eth0: 1 2 3",
            b": 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
            b"",
        ] {
            assert_eq!(parse_line(line), None);
        }
    }
}
