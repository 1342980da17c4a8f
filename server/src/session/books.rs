//! What each host has used of its limits. It outlives connections, so that connecting anew gains nobody anything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vitals_wire::ids::HostId;
use vitals_wire::message::Samples;

use super::limits::{Budget, largest_batch};
use super::protocol::Allowed;
use super::series::{SeriesBook, Surplus};
use crate::config::HostLimits;

/// Time after which nothing is left of a host that is gone: its series count no more, and its budget is full.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Time between two looks for such hosts.
const SWEEP: Duration = Duration::from_secs(3600);
/// Time between two lines about a host whose series are dropped.
const TOLD: Duration = Duration::from_secs(3600);

/// The books of all hosts that were connected within the last day.
#[derive(Debug)]
pub struct Books {
    limits: HostLimits,
    /// The zero of all times here.
    start: Instant,
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    books: HashMap<HostId, Book>,
    swept: Duration,
}

/// The book of one host; a newer connection of it writes into the same.
pub(super) type Book = Arc<Mutex<Pages>>;

/// What one host has used.
#[derive(Debug)]
pub(super) struct Pages {
    budget: Budget,
    series: SeriesBook,
    used: Duration,
    /// When it was last said that series are dropped, and the points dropped since.
    told: Option<Duration>,
    dropped: u64,
}

impl Books {
    /// Nobody has used anything.
    pub fn new(limits: HostLimits) -> Self {
        Self { limits, start: Instant::now(), shelf: Mutex::default() }
    }

    /// The largest batch of backlog, in samples and in bytes of its frame, that is ever taken.
    pub(super) fn largest_batch(&self) -> (u32, u32) {
        largest_batch(&self.limits)
    }

    /// The cap of series.
    pub(super) fn most_series(&self) -> u32 {
        self.limits.series
    }

    /// The book of a host that connects.
    pub(super) fn open(&self, host: HostId, now: Instant) -> Book {
        let now = self.since_start(now);
        let mut shelf = lock(&self.shelf);
        if now.saturating_sub(shelf.swept) >= SWEEP {
            shelf.swept = now;
            // One that a session holds is in use, however long its host has been silent.
            shelf
                .books
                .retain(|_, book| Arc::strong_count(book) > 1 || now.saturating_sub(lock(book).used) < KEPT);
        }
        let new = || Pages {
            budget: Budget::new(&self.limits, now),
            series: SeriesBook::default(),
            used: now,
            told: None,
            dropped: 0,
        };
        shelf.books.entry(host).or_insert_with(|| Arc::new(Mutex::new(new()))).clone()
    }

    /// What may pass of a batch whose frame has so many bytes.
    pub(super) fn allow(&self, book: &Book, samples: &Samples, bytes: usize, now: Instant) -> Allowed {
        let now = self.since_start(now);
        let mut pages = lock(book);
        pages.used = now;
        let count = samples.samples.len();
        if samples.backlog {
            return if pages.budget.backlog(count, bytes, now) { Allowed::All } else { Allowed::Later };
        }
        match pages.budget.live(count, bytes, now) {
            passing if passing < count => Allowed::First(passing),
            _ => Allowed::All,
        }
    }

    /// Whether a sample for the live view alone may pass.
    pub(super) fn allow_one(&self, book: &Book, bytes: usize, now: Instant) -> bool {
        lock(book).budget.live(1, bytes, self.since_start(now)) > 0
    }

    /// Takes out of samples what is beyond the cap of series. Gives what that was, and where it is to be said, the points
    /// dropped since it was last said.
    pub(super) fn trim<'s>(
        &self,
        book: &Book,
        samples: impl Iterator<Item = &'s mut vitals_wire::sample::Sample>,
        now: Instant,
    ) -> (Surplus, Option<u64>) {
        let now = self.since_start(now);
        // Minutes may begin anew.
        let minute = (now.as_secs() / 60) as u16;
        let mut pages = lock(book);
        let mut surplus = Surplus::default();
        samples.for_each(|sample| pages.series.trim(sample, self.limits.series, minute, &mut surplus));
        let count = surplus.count();
        pages.dropped += count;
        let is_due = count > 0 && pages.told.is_none_or(|told| now.saturating_sub(told) >= TOLD);
        let told = is_due.then(|| {
            pages.told = Some(now);
            std::mem::take(&mut pages.dropped)
        });
        (surplus, told)
    }

    fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is valid after each single step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_has_used_stays_for_a_day_after_its_last_connection() {
        let books = Books::new(HostLimits { samples_per_second: 1, ..HostLimits::default() });
        let (host, other) = (HostId([1; 16]), HostId([2; 16]));
        let now = Instant::now();
        let used = |at: Instant| {
            let book = books.open(host, at);
            (0..100).filter(|_| books.allow_one(&book, 1, at)).count()
        };
        assert_eq!((used(now), used(now + Duration::from_secs(2))), (60, 2));
        assert!(books.allow_one(&books.open(other, now), 1, now), "one host's is not another's");
        let held = books.open(host, now);
        books.open(other, now + 2 * KEPT);
        assert_eq!(lock(&books.shelf).books.len(), 2, "one that is in use stays");
        drop(held);
        books.open(other, now + 2 * KEPT + SWEEP);
        assert_eq!(lock(&books.shelf).books.len(), 1);
    }
}
