//! Which job is to be done next, and when.

use std::time::Instant;

use super::{Disk, Kind, MAX_FETCHED_BYTES, MAX_PUT_BYTES, MAX_PUT_SAMPLES, Mode, PASS_EVERY, Stand, Wish};
use crate::queue::Queue;
use crate::spool::job::Job;

impl Disk {
    /// The next job, if there is one to do now.
    pub fn job(&mut self, now: Instant, queue: &mut Queue, wish: Wish) -> Option<Job> {
        if self.busy.is_some() {
            return None;
        }
        let (kind, job) = match self.mode {
            Mode::Off => return None,
            Mode::Closed if self.retry(Kind::Open).may(now) => (Kind::Open, Job::Open),
            Mode::Closed => return None,
            Mode::Open => self
                .write_job(now, queue, wish)
                .map(|job| (Kind::Write, job))
                .or_else(|| self.read_job(now, wish).map(|job| (Kind::Read, job)))
                .or_else(|| self.pass_job(now, wish).map(|job| (Kind::Pass, job)))?,
        };
        self.busy = Some(kind);
        Some(job)
    }

    /// When there will be a job, if nothing happens until then.
    pub fn wakes_at(&self, queue: &Queue, wish: Wish) -> Option<Instant> {
        if self.busy.is_some() {
            return None;
        }
        match self.mode {
            Mode::Off => None,
            Mode::Closed => self.retry(Kind::Open).at,
            Mode::Open => {
                let due =
                    queue.oldest_taken().filter(|_| !self.takes_none).map(|taken| taken + wish.keep_after);
                let write = match self.retry(Kind::Write).at {
                    _ if self.passes_first() => None,
                    // Also when the queue is empty: then room is not wanted any more.
                    Some(at) if self.wants_room => Some(at),
                    at => due.map(|due| at.map_or(due, |at| at.max(due))),
                };
                let read = self.retry(Kind::Read).at.filter(|_| self.wants_read(wish).is_some());
                let pass =
                    self.pass_at(wish).map(|due| self.retry(Kind::Pass).at.map_or(due, |at| at.max(due)));
                [write, read, pass].into_iter().flatten().min()
            }
        }
    }

    fn write_job(&mut self, now: Instant, queue: &mut Queue, wish: Wish) -> Option<Job> {
        if self.takes_none || !self.retry(Kind::Write).may(now) {
            return None;
        }
        let is_wanted = |taken| taken + wish.keep_after <= now;
        // Whoever wanted room may have been settled meanwhile.
        self.wants_room &= queue.oldest_taken().is_some_and(is_wanted);
        if self.passes_first() {
            return None;
        }
        if self.wants_room {
            let settled = self.fetched.iter().filter(|fetched| fetched.stand == Stand::Settled);
            let settled = settled.map(|fetched| fetched.time_ms).chain(self.early.iter().copied()).collect();
            let under_way = self.fetched.iter().filter(|fetched| matches!(fetched.stand, Stand::UnderWay(_)));
            let under_way = under_way.map(|fetched| fetched.time_ms);
            let under_way = under_way.chain(self.away.iter().map(|away| away.time_ms)).collect();
            return Some(Job::MakeRoom { settled, under_way });
        }
        let samples =
            queue.put_away(MAX_PUT_SAMPLES, MAX_PUT_BYTES, |entry| entry.taken + wish.keep_after <= now);
        if samples.is_empty() {
            return None;
        }
        self.putting = samples.iter().map(|(time_ms, _)| *time_ms).collect();
        Some(Job::Put { samples: samples.into_iter().map(|(_, record)| record).collect() })
    }

    /// Room is wanted, and some of what is kept is settled: that goes first, being no loss, and may be enough.
    fn passes_first(&self) -> bool {
        self.wants_room && self.pass.is_some()
    }

    /// How much should be read, if anything.
    fn wants_read(&self, wish: Wish) -> Option<(usize, usize)> {
        let (samples, bytes) = wish.at_hand?;
        let idle = self.fetched.iter().filter(|fetched| fetched.stand == Stand::Idle).count();
        let wanted = (self.unread > 0 || !self.is_at_end)
            && !self.wants_room
            && idle < samples.div_ceil(2)
            && self.fetched_bytes < MAX_FETCHED_BYTES;
        wanted.then_some((samples, bytes.min(MAX_FETCHED_BYTES)))
    }

    fn read_job(&mut self, now: Instant, wish: Wish) -> Option<Job> {
        let (samples, bytes) = self.wants_read(wish).filter(|_| self.retry(Kind::Read).may(now))?;
        Some(Job::Read { from: self.read_from, samples, bytes })
    }

    /// When what is settled is to be passed.
    fn pass_at(&self, wish: Wish) -> Option<Instant> {
        self.pass?;
        let is_home = self.samples() == 0;
        Some(if is_home || self.wants_room || wish.is_closing && self.fetched.is_empty() {
            self.passed_at
        } else {
            self.passed_at + PASS_EVERY
        })
    }

    fn pass_job(&mut self, now: Instant, wish: Wish) -> Option<Job> {
        let is_due = self.pass_at(wish).is_some_and(|at| at <= now) && self.retry(Kind::Pass).may(now);
        let to = self.pass.filter(|_| is_due)?;
        self.pass = None;
        let drops = std::mem::take(&mut self.drops);
        self.passing = Some((to, drops));
        Some(Job::Pass { to, drops })
    }
}
