//! What of the kept samples goes out, and what comes of it.

use std::time::Instant;

use super::{Away, Disk, Kind, MAX_EARLY, Outgoing, Stand, Verdict};
use crate::link::event::{Event, Loss};
use crate::queue::{Entry, content_hash};

impl Disk {
    /// Those that are at hand and not under way, oldest first, as `judge` wants; gives when each was first sent.
    pub fn send(
        &mut self,
        batch: u64,
        events: &mut Vec<Event>,
        mut judge: impl FnMut(&Outgoing<'_>) -> Verdict,
    ) -> Vec<i64> {
        let mut first = Vec::new();
        if self.wants_room {
            return first;
        }
        for fetched in self.fetched.iter_mut().filter(|fetched| fetched.stand == Stand::Idle) {
            let outgoing = Outgoing { time_ms: fetched.time_ms, encoded: &fetched.record.encoded };
            match judge(&outgoing) {
                Verdict::Stop => break,
                Verdict::Send => {
                    fetched.stand = Stand::UnderWay(batch);
                    if !std::mem::replace(&mut fetched.record.was_sent, true) {
                        first.push(fetched.time_ms);
                    }
                }
                Verdict::Drop(loss) => {
                    fetched.stand = Stand::Settled;
                    match loss {
                        Loss::TooLarge => fetched.drops.too_large += 1,
                        _ => fetched.drops.too_old += 1,
                    }
                    let hash = content_hash(&fetched.record.encoded);
                    events.push(Event::Dropped { time_ms: fetched.time_ms, hash, loss });
                }
            }
        }
        self.advance();
        first
    }

    /// Whether a sample that is kept is neither under way nor settled.
    pub fn is_idle(&self, time_ms: i64) -> bool {
        let fetched = self.fetched.iter().find(|fetched| fetched.time_ms == time_ms);
        match fetched {
            Some(fetched) => fetched.stand == Stand::Idle,
            None => !self.early.contains(&time_ms) && self.away.iter().all(|away| away.time_ms != time_ms),
        }
    }

    /// A sample that is kept went out from memory, as live.
    pub fn send_live(&mut self, batch: u64, entry: &Entry) {
        match self.fetched.iter_mut().find(|fetched| fetched.time_ms == entry.time_ms) {
            Some(fetched) => (fetched.stand, fetched.record.was_sent) = (Stand::UnderWay(batch), true),
            None => self.away.push(Away {
                batch,
                time_ms: entry.time_ms,
                hash: entry.hash(),
                age_from: entry.taken,
            }),
        }
    }

    /// These batches are settled: hands over time and hash of each of their samples, and when it was taken where that
    /// is known.
    pub fn settle(&mut self, batches: &[u64], mut settled: impl FnMut(i64, u64, Option<Instant>)) {
        for fetched in &mut self.fetched {
            if matches!(fetched.stand, Stand::UnderWay(batch) if batches.contains(&batch)) {
                fetched.stand = Stand::Settled;
                settled(fetched.time_ms, content_hash(&fetched.record.encoded), None);
            }
        }
        let early = &mut self.early;
        self.away.retain(|away| {
            let is_settled = batches.contains(&away.batch) && early.len() < MAX_EARLY;
            if is_settled {
                early.insert(away.time_ms);
                settled(away.time_ms, away.hash, Some(away.age_from));
            }
            !is_settled
        });
        self.advance();
    }

    /// The connection is gone: nothing is under way any more.
    pub fn release(&mut self) {
        self.away.clear();
        let write = self.retry_mut(Kind::Write);
        if write.failures == 0 {
            // It waited for what was under way.
            write.at = None;
        }
        for fetched in &mut self.fetched {
            if fetched.stand != Stand::Settled {
                fetched.stand = Stand::Idle;
            }
        }
    }

    /// This batch is not under way any more.
    pub fn put_off(&mut self, batch: u64) {
        self.away.retain(|away| away.batch != batch);
        let under_way = Stand::UnderWay(batch);
        self.fetched
            .iter_mut()
            .filter(|fetched| fetched.stand == under_way)
            .for_each(|fetched| fetched.stand = Stand::Idle);
    }
}
