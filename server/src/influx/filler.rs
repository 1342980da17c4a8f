//! Reads history for what a target is owed, and makes batches of it.
//!
//! Each batch carries the state that the list of what is owed comes to once the batch is written, so that several can be
//! on their way and settle in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::History;
use super::book::Book;
use super::owed::Owed;

/// A batch ends at this size, whatever its lines.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// Time after which a search through history in which nothing is found takes down how far it has come.
const MAX_SEARCH: Duration = Duration::from_millis(500);
/// Pause before history is asked again that could not be read, or has not come far enough.
const RETRY: Duration = Duration::from_secs(1);

/// Lines that were owed.
#[derive(Debug)]
pub(super) struct Gathered {
    /// The lines.
    pub body: Vec<u8>,
    /// How many.
    pub lines: usize,
    /// Time that was owed and that history does not go back to any more, in ms; what concerns all hosts counts once.
    pub expired_ms: u64,
    /// What is owed once they are written.
    then: Owed,
    /// Why it ended early, and whether that is worth a word.
    stopped: Option<Stopped>,
}

#[derive(Debug)]
enum Stopped {
    /// History has not come so far yet.
    TooEarly,
    Failed(String),
}

/// Gathers up to `max_lines` lines or a few more. Blocks on history's disk.
fn gather(history: &dyn History, owed: Owed, max_lines: usize) -> Gathered {
    let mut gathered = Gathered { body: Vec::new(), lines: 0, expired_ms: 0, then: owed, stopped: None };
    let begun = Instant::now();
    if history.position() < gathered.then.needs() {
        gathered.stopped = Some(Stopped::TooEarly);
        return gathered;
    }
    let mut hosts = history.hosts();
    hosts.sort_unstable();
    let oldest_ms = history.oldest_ms();
    while gathered.lines < max_lines && gathered.body.len() < MAX_BATCH_BYTES && begun.elapsed() < MAX_SEARCH
    {
        let Some(chunk) = gathered.then.next(&hosts) else { break };
        let (room, before) = (max_lines - gathered.lines, gathered.body.len());
        match history.lines(chunk.host, chunk.from_ms, chunk.to_ms, room, &mut gathered.body) {
            Ok(filled) => {
                gathered.lines += filled.lines;
                if !chunk.of_all || hosts.first() == Some(&chunk.host) {
                    let to_ms = filled.next_ms.unwrap_or(chunk.to_ms).min(chunk.to_ms).min(oldest_ms);
                    gathered.expired_ms += u64::try_from(to_ms.saturating_sub(chunk.from_ms)).unwrap_or(0);
                }
                gathered.then.written(&chunk, filled.next_ms);
            }
            Err(error) => {
                gathered.body.truncate(before);
                gathered.stopped = Some(Stopped::Failed(error));
                break;
            }
        }
    }
    gathered
}

/// What is read of history and on its way to InfluxDB.
pub(super) struct Filler {
    history: Arc<dyn History>,
    max_lines: usize,
    gathering: Option<JoinHandle<Gathered>>,
    /// What is owed once all that is on its way is written.
    ahead: Option<Owed>,
    /// The same after each batch that is on its way.
    under_way: VecDeque<Owed>,
    again_at: Option<Instant>,
    failing: bool,
}

impl Filler {
    pub(super) fn new(history: Arc<dyn History>, max_lines: usize) -> Self {
        Self {
            history,
            max_lines,
            gathering: None,
            ahead: None,
            under_way: VecDeque::new(),
            again_at: None,
            failing: false,
        }
    }

    /// Begins to gather the next batch, if there is something to gather.
    pub(super) fn begin(&mut self, book: &Book, now: Instant) {
        if self.gathering.is_some() || self.again_at.is_some_and(|at| now < at) {
            return;
        }
        self.again_at = None;
        let is_stale =
            self.ahead.as_ref().is_some_and(|ahead| book.look(Owed::generation) != ahead.generation());
        if self.under_way.is_empty() {
            self.ahead = None;
        } else if is_stale {
            // What is on its way settles first, and changes nothing.
            return;
        }
        let is_done = match &self.ahead {
            Some(ahead) => ahead.is_empty(),
            None => book.look(Owed::is_empty),
        };
        if is_done {
            return;
        }
        let owed = self.ahead.clone().unwrap_or_else(|| book.owed());
        let (history, max_lines) = (self.history.clone(), self.max_lines);
        self.gathering = Some(tokio::task::spawn_blocking(move || gather(&*history, owed, max_lines)));
    }

    /// Waits for what is being gathered; for ever where nothing is.
    pub(super) async fn gathered(&mut self) -> Result<Gathered, tokio::task::JoinError> {
        match &mut self.gathering {
            Some(gathering) => {
                let gathered = gathering.await;
                self.gathering = None;
                gathered
            }
            None => std::future::pending().await,
        }
    }

    /// Takes note of what was gathered, and gives it back if it is to be written.
    pub(super) fn came(
        &mut self,
        influx: &str,
        mut gathered: Gathered,
        book: &Book,
    ) -> Option<(Vec<u8>, usize)> {
        if let Some(stopped) = gathered.stopped.take() {
            self.again_at = Some(Instant::now() + RETRY);
            if let Stopped::Failed(error) = stopped
                && !std::mem::replace(&mut self.failing, true)
            {
                tracing::warn!(influx, error, "history cannot be read for what influxdb is owed; trying on");
            }
        } else if std::mem::take(&mut self.failing) {
            tracing::info!(influx, "history can be read again for what influxdb is owed");
        }
        if book.look(Owed::generation) != gathered.then.generation() {
            return None;
        }
        self.under_way.push_back(gathered.then.clone());
        self.ahead = Some(gathered.then);
        Some((gathered.body, gathered.lines))
    }

    /// The first batch that is on its way is written.
    pub(super) fn settled(&mut self, book: &Book) {
        if let Some(then) = self.under_way.pop_front() {
            book.filled(then);
        }
    }

    /// When to look again, where a pause is made that is not over. One that is over needs nobody to wake up: whether
    /// there can be a next look depends on other things then.
    pub(super) fn again_at(&self, now: Instant) -> Option<Instant> {
        self.again_at.filter(|at| *at > now)
    }
}

#[cfg(test)]
mod tests {
    use vitals_wire::ids::HostId;
    use vitals_wire::log::{Position, RealFs};

    use super::*;
    use crate::influx::Filled;
    use crate::influx::owed::{Span, Stretch};

    struct Broken;

    impl History for Broken {
        fn hosts(&self) -> Vec<HostId> {
            vec![HostId([1; 16])]
        }

        fn lines(&self, _: HostId, _: i64, _: i64, _: usize, _: &mut Vec<u8>) -> Result<Filled, String> {
            Err("it is broken".to_owned())
        }

        fn position(&self) -> Position {
            Position::default()
        }
    }

    #[tokio::test]
    async fn a_pause_that_is_over_wakes_nobody_while_nothing_can_be_begun() {
        let dir = tempfile::tempdir().unwrap();
        let span = Span { from_ms: 0, to_ms: 1_000 };
        let (book, _) = Book::open(Arc::new(RealFs), dir.path().join("owed"), span).unwrap();
        let mut stretch = Stretch::new();
        stretch.add_all(span);
        book.owe(&stretch, Position::default()).unwrap();
        let mut filler = Filler::new(Arc::new(Broken), 100);
        filler.begin(&book, Instant::now());
        let gathered = filler.gathered().await.unwrap();
        filler.came("influx", gathered, &book);
        let now = Instant::now();
        let again_at = filler.again_at(now).unwrap();
        assert!(again_at > now && again_at <= now + RETRY);
        // InfluxDB is away now, so nothing is begun: a writer that woke for it would do nothing else.
        assert_eq!(filler.again_at(now + RETRY), None);
        filler.settled(&book);
        filler.begin(&book, now + RETRY);
        assert!(filler.gathering.is_some());
    }
}
