//! What goes out in batches, and what comes of them.

use std::time::{Duration, Instant};

use vitals_wire::bounded::List;
use vitals_wire::message::{Ack, DropReason, Samples};

use super::{
    ACK_DEADLINE, BACKLOG_PER_SECOND, BATCH_OVERHEAD, Protocol, State, dropped, is_drop_of, server_clock,
    since,
};
use crate::link::disk::Verdict;
use crate::link::event::{Event, Loss};

impl Protocol {
    pub(super) fn settle(&mut self, now: Instant, ack: &Ack) {
        let State::Open(open) = &mut self.state else { return };
        if ack.batches.is_empty() {
            // The server is there, and has put off what it got.
            open.acked_at = Some(now);
        }
        open.flights.retain(|flight| {
            let is_settled = ack.batches.contains(&flight.batch);
            if is_settled {
                // Waiting for the server's disk is in it: the greeting's answer is mostly quicker.
                open.trip = open.trip.min(since(now, flight.deadline, ACK_DEADLINE));
                open.acked_at = Some(now);
            }
            !is_settled
        });
        self.events.push(server_clock(ack.server_time_ms, open.trip));
        self.access.acked(&ack.batches);
        let events = &mut self.events;
        let failures = &mut self.failures;
        let mut tell = |time_ms, hash, taken: Option<Instant>| {
            let refused = ack.refused.iter().find(|refused| refused.time_ms == time_ms);
            events.push(match refused {
                Some(refused) => Event::Dropped { time_ms, hash, loss: Loss::Refused(refused.reason) },
                None => {
                    let age = taken.map(|taken| now.saturating_duration_since(taken));
                    Event::Settled { time_ms, hash, age }
                }
            });
            // Only now is the server known to be of use: one that welcomes and hangs up is not hammered.
            *failures = 0;
        };
        self.queue.settle(&ack.batches, |entry| {
            tell(entry.time_ms, entry.hash(), Some(entry.taken));
        });
        let spooled = &mut self.spooled;
        self.disk.settle(&ack.batches, |time_ms, hash, taken| {
            spooled.take_if(|entry| entry.time_ms == time_ms);
            tell(time_ms, hash, taken);
        });
    }

    /// The newest sample, where it has not gone out on this connection.
    pub(super) fn live(&mut self, now: Instant) -> Option<(Samples, Vec<i64>)> {
        let State::Open(open) = &mut self.state else { return None };
        if !std::mem::take(&mut open.live_due) {
            return None;
        }
        let fresh = self.fresh.take();
        if let Some(newest) = &self.spooled {
            // One that is too large is dropped when its turn comes.
            let fits = newest.encoded.len() + BATCH_OVERHEAD <= open.frame_bytes;
            if !fits || !self.disk.is_idle(newest.time_ms) {
                return None;
            }
            // What this process encoded decodes again.
            let sample = vitals_wire::sample::decode_sample(&newest.encoded).ok()?;
            let batch = open.take_off(now, false);
            self.disk.send_live(batch, newest);
            let first = if newest.was_sent() { Vec::new() } else { vec![newest.time_ms] };
            return Some((Samples { batch, backlog: false, samples: List::first(vec![sample]).0 }, first));
        }
        let newest = self.queue.newest().filter(|entry| !entry.is_under_way())?;
        if newest.encoded.len() + BATCH_OVERHEAD > open.frame_bytes {
            let lost = self.queue.remove_newest()?;
            self.events.push(dropped(&lost, Loss::TooLarge));
            return None;
        }
        let sample = match fresh {
            Some(fresh) => fresh,
            // What this process encoded decodes again.
            None => vitals_wire::sample::decode_sample(&newest.encoded).ok()?,
        };
        let batch = open.take_off(now, false);
        let first = if newest.send_in(batch) { vec![newest.time_ms] } else { Vec::new() };
        Some((Samples { batch, backlog: false, samples: List::first(vec![sample]).0 }, first))
    }

    /// The oldest samples that are not under way, as many as may go now.
    pub(super) fn backlog(&mut self, now: Instant) -> Option<(Samples, Vec<i64>)> {
        let oldest_ms = self.oldest.map(|(oldest_ms, said)| {
            let since = i64::try_from(now.saturating_duration_since(said).as_millis()).unwrap_or(i64::MAX);
            oldest_ms.saturating_add(since)
        });
        let at_most = match &self.state {
            State::Open(open) => self.at_most(open),
            _ => return None,
        };
        let State::Open(open) = &mut self.state else { return None };
        let may_go = open.has_room() && (open.backlog_at <= now || self.closing.is_some());
        if !may_go {
            return None;
        }
        let frame_bytes = open.frame_bytes;
        let events = &mut self.events;
        self.queue.remove_idle(
            |entry| entry.encoded.len() + BATCH_OVERHEAD > frame_bytes,
            |lost| events.push(dropped(&lost, Loss::TooLarge)),
        );
        let mut room = frame_bytes - BATCH_OVERHEAD;
        let mut samples = Vec::new();
        let batch = open.next_batch;
        let too_old = Loss::Refused(DropReason::TooOld);
        let mut first = self.disk.send(batch, events, |outgoing| {
            let len = outgoing.encoded.len();
            if samples.len() >= at_most {
                Verdict::Stop
            } else if len + BATCH_OVERHEAD > frame_bytes {
                Verdict::Drop(Loss::TooLarge)
            } else if oldest_ms.is_some_and(|oldest_ms| outgoing.time_ms < oldest_ms) {
                Verdict::Drop(too_old)
            } else if let (Some(left), Ok(sample)) =
                (room.checked_sub(len), vitals_wire::sample::decode_sample(outgoing.encoded))
            {
                room = left;
                samples.push(sample);
                Verdict::Send
            } else {
                // It was decoded when it was read: there is no room for it.
                Verdict::Stop
            }
        });
        // The newest has had its turn, or is too old or too large for one.
        self.spooled.take_if(|entry| events.iter().any(|event| is_drop_of(event, entry.time_ms)));
        let in_memory = if samples.is_empty() && !self.disk.has_more() { at_most } else { 0 };
        for entry in self.queue.idle().take(in_memory) {
            let Some(left) = room.checked_sub(entry.encoded.len()) else { break };
            // What this process encoded decodes again; if ever not, the others go all the same.
            let Ok(sample) = vitals_wire::sample::decode_sample(&entry.encoded) else { continue };
            room = left;
            samples.push(sample);
            if entry.send_in(batch) {
                first.push(entry.time_ms);
            }
        }
        if samples.is_empty() {
            return None;
        }
        // As taken, but for steps of the clock.
        samples.sort_by_key(|sample| sample.time_ms);
        open.backlog_at = now + Duration::from_secs(1) * samples.len() as u32 / BACKLOG_PER_SECOND;
        let batch = open.take_off(now, true);
        Some((Samples { batch, backlog: true, samples: List::first(samples).0 }, first))
    }
}
