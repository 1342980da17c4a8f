//! An InfluxDB that keeps points in memory and is away, slow, full, or a liar about nothing but what it is unable to keep.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use vitals_server::influx::answer::Answer;

use crate::samples::{CONFLICT, MALFORMED};

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Takes lines.
    Well,
    /// Nobody listens.
    Away,
    /// Takes them, or (false) not, and closes the connection before it answers.
    Closes(bool),
    /// Takes them, or not, and does not answer in time.
    Hangs(bool),
    /// Fails with 500 and keeps nothing.
    Fails,
    /// Its disk is full: 500, and the points can be read until it is restarted.
    Full,
    /// Has too much to do: 503 with `Retry-After`.
    Busy,
    /// Its token was taken back.
    Unauthorized,
    /// Takes no more than so many lines at once.
    Small(usize),
    /// Any of these, request by request.
    Moody,
}

/// From a request to its time-out.
const TIMEOUT_MS: u64 = 30_000;

/// The database.
#[derive(Debug)]
pub struct InfluxDb {
    pub mood: Mood,
    /// Fields by series and time.
    points: BTreeMap<String, String>,
    /// What the next restart forgets, with what was there before.
    unsaved: BTreeMap<String, Option<String>>,
    rng: Rng,
    pub requests: u64,
}

/// What comes of a request.
#[derive(Debug)]
pub struct Response {
    pub answer: Answer,
    pub after_ms: u64,
}

impl InfluxDb {
    pub fn new(rng: Rng) -> Self {
        Self { mood: Mood::Well, points: BTreeMap::new(), unsaved: BTreeMap::new(), rng, requests: 0 }
    }

    /// Forgets what it could not save.
    pub fn restart(&mut self) {
        for (key, before) in std::mem::take(&mut self.unsaved) {
            match before {
                Some(fields) => self.points.insert(key, fields),
                None => self.points.remove(&key),
            };
        }
    }

    /// All that it has: fields by series and time.
    pub fn points(&self) -> &BTreeMap<String, String> {
        &self.points
    }

    /// A request to write these lines.
    pub fn write(&mut self, body: &[u8]) -> Response {
        self.requests += 1;
        let lines: Vec<&str> = std::str::from_utf8(body).unwrap().lines().collect();
        let mood = match self.mood {
            Mood::Moody => match self.rng.u8(..10) {
                0 => Mood::Away,
                1 => Mood::Closes(self.rng.bool()),
                2 => Mood::Hangs(self.rng.bool()),
                3 => Mood::Fails,
                4 => Mood::Busy,
                5 => Mood::Small(self.rng.usize(1..5)),
                _ => Mood::Well,
            },
            mood => mood,
        };
        let quick = self.rng.u64(1..400);
        let respond = |answer, after_ms| Response { answer, after_ms };
        match mood {
            Mood::Well | Mood::Moody => {
                let answer = self.take(&lines);
                respond(answer, quick)
            }
            Mood::Away => respond(Answer::Unreachable("connection refused".into()), 1),
            Mood::Closes(takes) => {
                if takes {
                    self.take(&lines);
                }
                respond(Answer::Unreachable("connection closed".into()), quick)
            }
            Mood::Hangs(takes) => {
                if takes {
                    self.take(&lines);
                }
                respond(Answer::Timeout, TIMEOUT_MS)
            }
            Mood::Fails => respond(http(500, r#"{"code":"internal error","message":"no"}"#), quick),
            Mood::Full => {
                for line in &lines {
                    let (key, fields) = split(line);
                    let before = self.points.insert(key.clone(), fields.to_owned());
                    self.unsaved.entry(key).or_insert(before);
                }
                respond(http(500, r#"{"code":"internal error","message":"no space left on device"}"#), quick)
            }
            Mood::Busy => {
                let Answer::Http { status, location, body, .. } = http(503, "busy") else { unreachable!() };
                let retry_after = Some(Duration::from_secs(self.rng.u64(1..8)));
                respond(Answer::Http { status, retry_after, location, body }, quick)
            }
            Mood::Unauthorized => {
                respond(http(401, r#"{"code":"unauthorized","message":"unauthorized access"}"#), quick)
            }
            Mood::Small(most) if lines.len() > most => respond(http(413, "too large"), quick),
            Mood::Small(_) => {
                let answer = self.take(&lines);
                respond(answer, quick)
            }
        }
    }

    /// As 2.7: nothing of a request with a line that it cannot parse, all but the lines of a wrong type otherwise.
    fn take(&mut self, lines: &[&str]) -> Answer {
        if let Some(bad) = lines.iter().find(|line| is_bad(line, MALFORMED)) {
            let message =
                format!(r#"{{"code":"invalid","message":"unable to parse '{}': no"}}"#, bad.escape_default());
            return http(400, &message);
        }
        let conflicts = lines.iter().filter(|line| is_bad(line, CONFLICT)).count();
        for line in lines.iter().filter(|line| !is_bad(line, CONFLICT)) {
            let (key, fields) = split(line);
            self.unsaved.remove(&key);
            self.points.insert(key, fields.to_owned());
        }
        if conflicts > 0 {
            let message = format!(
                r#"{{"code":"unprocessable entity","message":"partial write: field type conflict dropped={conflicts}"}}"#
            );
            return http(422, &message);
        }
        http(204, "")
    }
}

/// Whether no InfluxDB takes this line.
pub fn is_refused(line: &str) -> bool {
    is_bad(line, MALFORMED) || is_bad(line, CONFLICT)
}

fn is_bad(line: &str, total: u64) -> bool {
    line.contains(&format!("total={total}i,"))
}

fn http(status: u16, body: &str) -> Answer {
    Answer::Http { status, retry_after: None, location: None, body: body.to_owned() }
}

/// A line as its series and time, and its fields.
pub fn split(line: &str) -> (String, &str) {
    let (series, rest) = line.split_once(' ').unwrap();
    let (fields, time) = rest.rsplit_once(' ').unwrap();
    (format!("{series} {time}"), fields)
}
