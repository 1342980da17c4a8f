//! Joining, secrets, and whom to trust from now on: what is said of these on each connection, and what is to be kept.
//!
//! - The token is said until a server took this host, and again to one that does not know it (any more), shut it out or
//!   knows another secret: a token that replaces this very host brings it back.
//! - Asked for a new secret, the host keeps a second one and then says it. From the next connection on it shows the second,
//!   and the first again where that is refused. Once the second was taken, the first is forgotten. Cut between any two of
//!   these steps, one of both still opens the door.
//! - Keys that a server names are kept, and then it is told so. It may not have heard that when a connection breaks, so it
//!   is told again on the next, until a later batch is acknowledged.
//!
//! Whatever is kept is kept by a [`Job`], one at a time; what fails is tried again.

use std::time::{Duration, Instant};

use vitals_wire::bounded::{List, Text};
use vitals_wire::ids::Secret;
use vitals_wire::limits::{MAX_PINS, MAX_TOKEN_BYTES};
use vitals_wire::message::{ClientMessage, Hello, Learnt, NewSecret, Refusal, Welcome};

use super::Protocol;
use crate::link::event::{Event, Standing, TrustNews};
use crate::trust::Pin;
use crate::trust::job::{Job, Outcome};

/// What failed is tried again after this.
const RETRY: Duration = Duration::from_secs(10);

/// What was known before this run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// A server took this host.
    pub is_joined: bool,
    /// A second secret, which the server may know.
    pub next_secret: Option<Secret>,
    /// The keys that a server named last, ascending.
    pub pins: Vec<Pin>,
    /// What is kept says already all that it would once a server took this host.
    pub is_current: bool,
    /// Whether keys that a server names may be trusted: not over plain TCP.
    pub learns: bool,
    /// Whether the secret can change.
    pub rotates: bool,
}

#[derive(Debug)]
struct Next {
    secret: Secret,
    /// The server may know it.
    may_hold: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Access {
    /// There is somebody to do jobs.
    keeps: bool,
    learns: bool,
    rotates: bool,
    token: Option<Text<MAX_TOKEN_BYTES>>,
    is_joined: bool,
    secret: Secret,
    next: Option<Next>,
    /// Keys that are kept.
    pins: Vec<Pin>,
    /// Keys that a server named, to be kept.
    wanted: Option<Vec<Pin>>,
    /// Keys of which a server surely heard that they are kept, in this run.
    heard: Vec<Pin>,
    keep_due: bool,
    make_due: bool,
    change_due: bool,
    busy: Option<Job>,
    retry_at: Option<Instant>,
    is_troubled: bool,
    told: Standing,
    connection: Connection,
}

/// What was said on the present connection, and is to be.
#[derive(Debug, Default)]
struct Connection {
    is_open: bool,
    said_token: bool,
    showed_next: bool,
    secret_due: bool,
    learnt_due: bool,
    /// These keys were said to be kept, before this batch.
    learnt: Option<(Vec<Pin>, u64)>,
}

impl Access {
    /// Of a host that nothing is known of and nothing kept for; takes what it joins with out of `hello`.
    pub(super) fn new(hello: &mut Hello) -> Self {
        Self {
            keeps: false,
            learns: false,
            rotates: false,
            token: hello.token.take(),
            is_joined: false,
            secret: hello.secret.clone(),
            next: None,
            pins: Vec::new(),
            wanted: None,
            heard: Vec::new(),
            keep_due: false,
            make_due: false,
            change_due: false,
            busy: None,
            retry_at: None,
            is_troubled: false,
            told: Standing::default(),
            connection: Connection::default(),
        }
    }

    /// This is known, and somebody does the jobs.
    pub(super) fn know(&mut self, known: Known) {
        self.keeps = true;
        (self.learns, self.rotates) = (known.learns, known.rotates);
        self.is_joined = known.is_joined;
        self.next = known.next_secret.map(|secret| Next { secret, may_hold: true });
        self.pins = known.pins;
        self.keep_due = false;
        // Kept with the first `Welcome`, if not before.
        self.wanted = (!known.is_current).then(|| self.pins.clone());
    }

    /// How it stands, where that was not told yet.
    pub(super) fn news(&mut self) -> Option<Event> {
        let now = Standing { is_joined: self.is_joined, has_next_secret: self.next.is_some() };
        (std::mem::replace(&mut self.told, now) != now).then_some(Event::Standing(now))
    }

    /// Fills in a `Hello` for a new connection.
    pub(super) fn greet(&mut self, hello: &Hello) -> Hello {
        let next = self.next.as_ref().filter(|next| next.may_hold);
        let token = self.token.clone().filter(|_| !self.is_joined);
        self.connection =
            Connection { said_token: token.is_some(), showed_next: next.is_some(), ..Connection::default() };
        let secret = next.map_or(&self.secret, |next| &next.secret).clone();
        Hello { secret, token, ..hello.clone() }
    }

    /// A server took this host.
    pub(super) fn welcomed(&mut self, welcome: &Welcome, events: &mut Vec<Event>) {
        self.connection.is_open = true;
        if !std::mem::replace(&mut self.is_joined, true) {
            self.wanted.get_or_insert_with(|| self.pins.clone());
            events.push(Event::Trust(TrustNews::Joined));
        }
        if self.connection.showed_next
            && let Some(next) = self.next.take()
        {
            self.secret = next.secret;
            self.change_due = self.keeps;
            events.push(Event::Trust(TrustNews::SecretChanged));
        }
        self.make_due = false;
        match (welcome.rotate_secret, &self.next) {
            (false, _) => {}
            (true, _) if !self.keeps || !self.rotates => {
                events.push(Event::Ignored { what: "another secret" });
            }
            (true, Some(_)) => self.connection.secret_due = true,
            (true, None) => self.make_due = true,
        }
        self.named(&welcome.pins);
        self.keep_due = self.keeps && self.wanted.is_some();
    }

    /// The server named the keys that it has and will have.
    pub(super) fn named(&mut self, pins: &List<[u8; 32], MAX_PINS>) {
        if !self.keeps || !self.learns || pins.is_empty() {
            return;
        }
        let mut pins: Vec<Pin> = pins.iter().copied().map(Pin).collect();
        pins.sort_unstable();
        pins.dedup();
        let being_kept = match &self.busy {
            Some(Job::Keep { pins }) => pins,
            _ => &self.pins,
        };
        if pins != *being_kept {
            self.wanted = Some(pins);
            self.keep_due = true;
        } else {
            // Only where it stands, if at all.
            self.wanted = self.wanted.take().map(|_| pins);
            self.connection.learnt_due =
                self.wanted.is_none() && self.busy.is_none() && self.heard != self.pins;
        }
    }

    /// The server said no. Whether it is worth asking it again at once, with something else to show.
    pub(super) fn refused(&mut self, code: Refusal, events: &mut Vec<Event>) -> bool {
        match code {
            Refusal::Credential if self.connection.showed_next => {
                if let Some(next) = &mut self.next {
                    next.may_hold = false;
                    events.push(Event::Trust(TrustNews::OldSecret));
                }
                true
            }
            Refusal::Credential => {
                // Neither, then. Both have another try: with the token, or later.
                if let Some(next) = &mut self.next {
                    next.may_hold = true;
                }
                self.says_token(events)
            }
            Refusal::NotEnrolled | Refusal::Revoked => self.says_token(events),
            _ => false,
        }
    }

    /// Whether there is a token that this server has not heard; then it is said from now on.
    fn says_token(&mut self, events: &mut Vec<Event>) -> bool {
        let is_unsaid = self.token.is_some() && !self.connection.said_token;
        if is_unsaid {
            self.is_joined = false;
            events.push(Event::Trust(TrustNews::TokenAgain));
        }
        is_unsaid
    }

    /// The connection ended.
    pub(super) fn closed(&mut self) {
        self.connection = Connection::default();
    }

    /// What is to be said now, if anything; `next_batch` is the number of the batch that goes next.
    pub(super) fn say(&mut self, next_batch: u64) -> Option<ClientMessage> {
        if std::mem::take(&mut self.connection.secret_due)
            && let Some(next) = &mut self.next
        {
            next.may_hold = true;
            return Some(NewSecret { secret: next.secret.clone() }.into());
        }
        if std::mem::take(&mut self.connection.learnt_due) {
            self.connection.learnt = Some((self.pins.clone(), next_batch));
            let pins = List::first(self.pins.iter().map(|pin| pin.0).collect()).0;
            return Some(Learnt { pins }.into());
        }
        None
    }

    /// These batches were acknowledged: what was said before them was heard.
    pub(super) fn acked(&mut self, batches: &[u64]) {
        if let Some((pins, _)) =
            self.connection.learnt.take_if(|(_, batch)| batches.iter().any(|acked| acked >= batch))
        {
            self.heard = pins;
        }
    }

    /// What is to be done now. No other job comes before `performed`.
    pub(super) fn job(&mut self, now: Instant) -> Option<Job> {
        if self.busy.is_some() || self.retry_at.is_some_and(|at| at > now) {
            return None;
        }
        self.busy = self.due();
        self.busy.clone()
    }

    fn due(&self) -> Option<Job> {
        if self.change_due {
            Some(Job::ChangeSecret { to: self.secret.clone() })
        } else if self.make_due && self.next.is_none() {
            Some(Job::MakeSecret { present: self.secret.clone() })
        } else if self.keep_due {
            Some(Job::Keep { pins: self.wanted.clone()? })
        } else {
            None
        }
    }

    /// When there will be a job, if nothing happens until then.
    pub(super) fn job_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| self.busy.is_none() && self.due().is_some())
    }

    /// The job ended so.
    pub(super) fn performed(&mut self, now: Instant, outcome: Outcome, events: &mut Vec<Event>) {
        let Some(job) = self.busy.take() else { return };
        match (job, outcome) {
            (_, Outcome::Failed { why }) => {
                self.retry_at = Some(now + RETRY);
                // It is tried again, or the next `Welcome` asks again.
                if !std::mem::replace(&mut self.is_troubled, true) {
                    events.push(Event::Trust(TrustNews::Trouble { why }));
                }
                return;
            }
            (Job::Keep { pins }, Outcome::Kept) => {
                self.wanted.take_if(|wanted| *wanted == pins);
                self.keep_due = self.wanted.is_some();
                if self.pins != pins {
                    events.push(Event::Trust(TrustNews::Learnt { pins: pins.clone() }));
                }
                self.pins = pins;
                let is_last = self.wanted.is_none();
                self.connection.learnt_due = self.connection.is_open
                    && is_last
                    && !self.pins.is_empty()
                    && self.learns
                    && self.heard != self.pins;
            }
            (Job::MakeSecret { .. }, Outcome::Made(secret)) => {
                self.make_due = false;
                self.next = Some(Next { secret, may_hold: false });
                self.connection.secret_due = self.connection.is_open;
                events.push(Event::Trust(TrustNews::SecretMade));
            }
            (Job::ChangeSecret { .. }, _) => self.change_due = false,
            // No keeper answers so.
            (_, _) => {}
        }
        self.retry_at = None;
        if std::mem::take(&mut self.is_troubled) {
            events.push(Event::Trust(TrustNews::Recovered));
        }
    }

    /// Whoever did the jobs is gone: nothing is kept any more.
    pub(super) fn lost(&mut self, why: String, events: &mut Vec<Event>) {
        self.busy = None;
        self.keeps = false;
        (self.keep_due, self.make_due, self.change_due) = (false, false, false);
        events.push(Event::Trust(TrustNews::Trouble { why }));
    }
}

impl Protocol {
    /// The same with somebody who keeps what is learnt, as `trust_job` asks; this is known before.
    pub fn with_trust(mut self, known: Known) -> Self {
        self.access.know(known);
        self
    }

    /// What is to be kept of trust and secrets now, if anything. No other such job comes before `trust_kept`.
    pub fn trust_job(&mut self, now: Instant) -> Option<Job> {
        self.access.job(now)
    }

    /// The job that `trust_job` gave ended so.
    pub fn trust_kept(&mut self, now: Instant, outcome: Outcome) {
        self.access.performed(now, outcome, &mut self.events);
    }

    /// Whoever keeps trust does not answer any more.
    pub fn lost_trust(&mut self, why: String) {
        self.access.lost(why, &mut self.events);
    }
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
