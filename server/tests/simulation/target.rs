//! Drives what feeds one InfluxDB: source, delivery, cursor, and the list of what is owed.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vitals_server::influx::answer::Answer;
use vitals_server::influx::book::Book;
use vitals_server::influx::delivery::{Delivery, Job, Limits, Next};
use vitals_server::influx::owed::{Owed, Span, Stretch};
use vitals_server::influx::source::Source;
use vitals_server::journal::Journal;
use vitals_server::metrics::Metrics;
use vitals_wire::log::model::ModelFs;
use vitals_wire::log::{Fs, Position};

use crate::ctx::Ctx;
use crate::history::History;
use crate::influxdb::{InfluxDb, is_refused};
use crate::samples::{host_of, tags};

const DIR: &str = "/var/lib/vitals/influx";
const CURSOR: &str = "/var/lib/vitals/influx/cursor";
/// Lines at which a batch ends; few, so that batches are many.
const MAX_LINES: usize = 12;
/// A smaller batch waits so long for more.
const BATCH_WAIT_MS: u64 = 1_000;
const TICK_MS: u64 = 1_000;

/// A batch that was offered, so that it can be owed instead.
struct Offered {
    newest_ms: i64,
    times: Stretch,
}

/// See the module.
pub struct Target {
    fs: ModelFs,
    book: Book,
    source: Source,
    delivery: Delivery,
    offered: VecDeque<Offered>,
    /// All before it is written, owed or counted, ...
    settled: (Position, i64),
    /// ... is in the cursor file, ...
    saved: Position,
    /// ... and the journal knows.
    passed: Position,
    /// What is owed once each of the batches that are on their way is written.
    under_way: VecDeque<Owed>,
    /// Requests, by when their answers come.
    requests: BTreeMap<(u64, u64), (Job, Answer)>,
    seq: u64,
    since: Option<u64>,
    read_at: Option<u64>,
    retry_at: Option<u64>,
    tick_at: u64,
}

/// The place that the file tells, and when the newest record before it came.
fn load(fs: &ModelFs) -> Option<(Position, i64)> {
    let text = String::from_utf8(fs.read(Path::new(CURSOR)).ok()?).ok()?;
    let mut parts = text.split(' ').map(str::parse::<i64>);
    let mut next = || parts.next()?.ok();
    let (segment, offset, ms) = (next()?, next()?, next()?);
    Some((Position { segment: segment as u64, offset: offset as u64 }, ms))
}

fn save(fs: &ModelFs, (at, ms): (Position, i64)) -> std::io::Result<()> {
    fs.replace(Path::new(CURSOR), format!("{} {} {ms}", at.segment, at.offset).as_bytes())
}

impl Target {
    pub fn open(
        ctx: &Ctx,
        fs: &ModelFs,
        journal: &Journal,
        metrics: &Metrics,
        share_bytes: u64,
    ) -> Result<Self, String> {
        let shared: Arc<dyn Fs> = Arc::new(fs.clone());
        fs.create_dir(Path::new(DIR)).map_err(|error| error.to_string())?;
        let everything = Span { from_ms: 0, to_ms: i64::MAX / 2 };
        let (book, existed) = Book::open(shared, PathBuf::from(DIR).join("owed"), everything)
            .map_err(|error| error.to_string())?;
        if !existed {
            // Whether it is new matters only where history is to be filled.
            let _ = book.save();
        }
        let known = load(fs).unwrap_or_default();
        let reader =
            journal.lagging_reader("influx", known.0, share_bytes).map_err(|error| error.to_string())?;
        let settled = reader.position();
        let has_gap = known.0 != Position::default() && known.0 != settled;
        book.limit_needs(journal.end());
        let tags_at = Arc::new(|host, _| host_of(host).map(tags));
        let source = Source::new(reader, tags_at, metrics.influx.of("influx"), MAX_LINES, (known.1, has_gap));
        let limits = Limits {
            in_flight: 2,
            owed_in_flight: 2,
            max_lines: MAX_LINES * 2,
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(10),
            slow_retry: Duration::from_secs(10),
        };
        Ok(Self {
            fs: fs.clone(),
            book,
            source,
            delivery: Delivery::new(limits),
            offered: VecDeque::new(),
            settled: (settled, known.1),
            saved: settled,
            passed: settled,
            under_way: VecDeque::new(),
            requests: BTreeMap::new(),
            seq: 0,
            since: None,
            read_at: Some(ctx.now),
            retry_at: None,
            tick_at: ctx.now + TICK_MS,
        })
    }

    pub fn next_at(&self) -> u64 {
        let first = self.requests.keys().next().map(|(at, _)| *at);
        let batch = self.since.map(|since| since + BATCH_WAIT_MS).filter(|_| self.delivery.has_room());
        let read = self.read_at.filter(|_| !self.source.is_full());
        let times = [first, batch, read, self.retry_at];
        times.into_iter().flatten().fold(self.tick_at, u64::min)
    }

    /// The journal has more.
    pub fn news(&mut self, now: u64) {
        self.read_at = Some(now);
    }

    /// Whether everything is written.
    pub fn is_at_rest(&self, journal: &Journal) -> bool {
        self.requests.is_empty()
            && self.delivery.is_empty()
            && self.source.waiting().is_none()
            && self.settled.0 >= journal.end()
            && self.book.look(Owed::is_empty)
            && self.under_way.is_empty()
    }

    /// What keeps it from rest.
    pub fn state(&self, journal: &Journal) -> String {
        format!(
            "influx: {} requests under way, {} batches offered, reads at {}, settled {}, journal's end {}, owed {:?}",
            self.requests.len(),
            self.offered.len(),
            self.source.position(),
            self.settled.0,
            journal.end(),
            self.book.owed()
        )
    }

    /// Does what is due.
    pub fn step(&mut self, ctx: &mut Ctx, influxdb: &mut InfluxDb, history: &History) {
        self.answers(ctx);
        loop {
            self.read(ctx);
            self.hand_over(ctx);
            self.fill_owed(ctx, history);
            self.send(ctx, influxdb);
            for _ in 0..self.delivery.settle_owed() {
                if let Some(then) = self.under_way.pop_front() {
                    self.book.filled(then);
                }
            }
            let Some(settled) = self.delivery.settle() else { break };
            ctx.trace(|| format!("influx: settled up to {settled}"));
            self.settled.0 = self.settled.0.max(settled);
            while self.offered.len() > self.delivery.under_way()
                && let Some(offered) = self.offered.pop_front()
            {
                self.settled.1 = self.settled.1.max(offered.newest_ms);
            }
        }
        if self.tick_at <= ctx.now {
            self.tick(ctx);
        }
    }

    fn answers(&mut self, ctx: &mut Ctx) {
        while let Some(first) = self.requests.first_entry().filter(|first| first.key().0 <= ctx.now) {
            let (job, answer) = first.remove();
            let jitter = ctx.rng.f64();
            let outcome = self.delivery.answered(job, &answer, ctx.instant(), jitter);
            ctx.trace(|| format!("influx: {} lines taken, {:?}", outcome.taken, outcome.error));
            for dropped in outcome.dropped {
                let Some(line) = dropped.line else { continue };
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if !is_refused(&line) {
                    ctx.fail(format!("a line was dropped that InfluxDB would have taken: {line}"));
                }
            }
        }
    }

    fn read(&mut self, ctx: &mut Ctx) {
        if self.read_at.is_none_or(|at| at > ctx.now) || self.source.is_full() {
            return;
        }
        let read = self.source.fill();
        if let Some(missing) = self.source.take_missing() {
            ctx.trace(|| format!("influx: lost unread, owed by time: {missing:?}"));
            self.book.owe_unsaved(&missing, self.source.position());
        }
        self.read_at = match read {
            Ok(true) => Some(ctx.now),
            Ok(false) => None,
            Err(_) => Some(ctx.now + 1_000),
        };
        if self.source.waiting().is_some() {
            self.since.get_or_insert(ctx.now);
        }
        self.look_back();
    }

    fn hand_over(&mut self, ctx: &Ctx) {
        let Some((_, lines)) = self.source.waiting() else { return };
        let is_due = lines >= MAX_LINES || self.since.is_some_and(|since| since + BATCH_WAIT_MS <= ctx.now);
        if !is_due || !self.delivery.has_room() {
            return;
        }
        if let Some(batch) = self.source.take() {
            self.since = None;
            self.delivery.offer(batch.body, batch.lines, batch.after, batch.received_ms);
            self.offered.push_back(Offered { newest_ms: batch.newest_ms, times: batch.times });
            self.read_at = Some(self.read_at.map_or(ctx.now, |at| at.min(ctx.now)));
        }
    }

    fn send(&mut self, ctx: &mut Ctx, influxdb: &mut InfluxDb) {
        self.retry_at = loop {
            match self.delivery.next(ctx.instant()) {
                Next::Send(job) => {
                    let response = influxdb.write(&job.body);
                    ctx.trace(|| {
                        let (lines, answer) = (job.lines, &response.answer);
                        format!("influx: sends {lines} lines, will hear {answer:?}")
                    });
                    self.seq += 1;
                    let at = ctx.now + response.after_ms;
                    self.requests.insert((at, self.seq), (job, response.answer));
                }
                Next::At(at) => break Some(ctx.time_of(at).max(ctx.now + 1)),
                Next::Nothing => break None,
            }
        };
    }

    /// As the filler does it.
    fn fill_owed(&mut self, ctx: &mut Ctx, history: &History) {
        if !self.delivery.is_open() || !self.delivery.has_owed_room() {
            return;
        }
        let generation = self.book.look(Owed::generation);
        let mut then = match self.under_way.back() {
            // What is on its way settles first, and changes nothing.
            Some(ahead) if ahead.generation() != generation => return,
            Some(ahead) => ahead.clone(),
            None => self.book.owed(),
        };
        if then.is_empty() || history.position() < then.needs() {
            return;
        }
        let hosts = history.hosts();
        let (mut body, mut lines) = (Vec::new(), 0);
        while lines < MAX_LINES {
            let Some(chunk) = then.next(&hosts) else { break };
            let before = body.len();
            match history.lines(chunk.host, chunk.from_ms, chunk.to_ms, MAX_LINES - lines, &mut body) {
                Ok((more, next_ms)) => {
                    lines += more;
                    then.written(&chunk, next_ms);
                }
                Err(error) => {
                    body.truncate(before);
                    ctx.trace(|| format!("influx: history cannot be read: {error}"));
                    break;
                }
            }
        }
        ctx.trace(|| format!("influx: {lines} owed lines"));
        self.under_way.push_back(then);
        self.delivery.offer_owed(body.into(), lines);
    }

    /// List of what is owed, cursor, and what the journal may forget.
    fn tick(&mut self, ctx: &mut Ctx) {
        self.tick_at = ctx.now + TICK_MS;
        // Before the cursor, which may stand behind a gap that is owed.
        if !self.book.is_saved() {
            let _ = self.book.save();
        }
        if self.settled.0 != self.saved && self.book.is_saved() && save(&self.fs, self.settled).is_ok() {
            self.saved = self.settled.0;
            ctx.trace(|| format!("influx: cursor {}", self.saved));
        }
        self.look_back();
        if self.source.must_give_up()
            && let Err(error) = self.give_up(ctx)
        {
            ctx.trace(|| format!("influx: cannot give up: {error}"));
        }
    }

    fn look_back(&mut self) {
        if self.source.waiting().is_none() && self.delivery.is_empty() && !self.source.is_giving_up() {
            self.settled = (self.source.position(), self.source.newest_ms());
        }
        if self.passed != self.saved {
            self.source.passed(self.saved);
            self.passed = self.saved;
        }
    }

    fn give_up(&mut self, ctx: &mut Ctx) -> Result<(), String> {
        let times = self.source.give_up().map_err(|error| error.to_string())?;
        self.offered.iter().for_each(|offered| times.add(&offered.times));
        let times = times.clone();
        self.since = None;
        let position = self.source.position();
        self.book.owe(&times, position).map_err(|error| error.to_string())?;
        let settled = (position, self.source.newest_ms());
        let _ = save(&self.fs, settled);
        self.source.gave_up();
        self.settled = settled;
        (self.saved, self.passed) = (position, position);
        self.read_at = Some(ctx.now);
        ctx.oracle.gave_up += 1;
        ctx.trace(|| format!("influx: gives up what lies before {position}: {times:?}"));
        self.look_back();
        Ok(())
    }

    /// The server ends in order.
    pub fn close(&mut self, ctx: &mut Ctx) {
        self.tick(ctx);
    }
}
