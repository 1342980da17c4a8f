//! What each answer to a write means. No I/O here.
//!
//! | answer | reason counted | what is done |
//! |---|---|---|
//! | 204 | | the lines are written |
//! | 400 in InfluxDB's own form | `rejected` | the lines are split until the bad one stands alone: see [`super::delivery`] |
//! | 422 in InfluxDB's own form | `rejected` | the good lines are stored; split a little to find the others, which are dropped: see [`drop_reason`] |
//! | 413 | `too_large` | halved; later requests are no larger |
//! | 401, 403 | `unauthorized` | kept, tried again slowly; the operator is told to look at the token |
//! | 404 in InfluxDB's own form | `not_found` | kept, tried again slowly; the operator is told to create or correct the bucket |
//! | 429, 503 | `busy` | kept, tried again after `Retry-After` (seconds, bounded) or with backoff |
//! | 408, other 5xx | `server_error` | kept, tried again with backoff |
//! | no answer in time | `timeout` | kept, tried again with backoff |
//! | no connection, or it closed | `unreachable` | kept, tried again with backoff |
//! | 3xx | `unexpected` | not followed; kept, tried again slowly; the operator is told where it points |
//! | all else: 200 and other 2xx, HTML, a stranger's 400 | `unexpected` | kept, tried again slowly |
//!
//! Every InfluxDB (1.8, 2, 3) answers a write with 204, so a 200 comes from something that is not one, such as a login
//! page. A 422 names and counts one cause only: where lines that are too old and lines of a conflicting type come
//! together, or lines of several shards, `dropped=N` is less than what was lost, which is why it is split too. InfluxDB's
//! own form is a JSON object with a `message` (2) or an `error` (1.8, 3). 1.8 and 3 answer a partial write with a 400 and
//! store the good lines all the same: splitting sends those again, which is harmless. A 500 after a full disk comes with lines that can be queried and are forgotten at a restart, which is why nothing but 204 counts.

use std::time::Duration;

/// Longest `Retry-After` that is honoured: a server that asks for a year does not stop the writer for a year.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
/// Characters of an answer that reach the log.
const MAX_WORDS: usize = 500;

/// What came back for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A whole HTTP answer.
    Http {
        /// Its status.
        status: u16,
        /// `Retry-After`, where it was given in seconds.
        retry_after: Option<Duration>,
        /// `Location`.
        location: Option<String>,
        /// The beginning of its body.
        body: String,
    },
    /// None in time.
    Timeout,
    /// No connection, or one that closed before the answer: in whose words.
    Unreachable(String),
}

/// Why a write request failed. A closed list, the same as `metrics::INFLUX_ERRORS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No connection, or it was closed.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// A token that is wrong or may not write here.
    Unauthorized,
    /// No such organisation or bucket.
    NotFound,
    /// A line that InfluxDB does not take.
    Rejected,
    /// Too many bytes at once.
    TooLarge,
    /// It asked to be left alone for a while.
    Busy,
    /// It failed.
    ServerError,
    /// What answers is not an InfluxDB.
    Unexpected,
}

impl Reason {
    /// The word in metrics and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Unauthorized => "unauthorized",
            Self::NotFound => "not_found",
            Self::Rejected => "rejected",
            Self::TooLarge => "too_large",
            Self::Busy => "busy",
            Self::ServerError => "server_error",
            Self::Unexpected => "unexpected",
        }
    }
}

/// What to do about an answer: a row of the table above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The lines are written.
    Written,
    /// So many of the lines, or more, will never be stored, the others are; `None` where InfluxDB did not say.
    Partly(Option<usize>),
    /// Nothing is stored because of a bad line somewhere in it.
    Split,
    /// Too large.
    Halve,
    /// It may go well soon.
    Retry(Reason, Option<Duration>),
    /// It will go well once a person has changed something, which is said here.
    Hold(Reason, &'static str),
}

/// An answer understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What to do.
    pub action: Action,
    /// InfluxDB's own words, for logs. Empty for 204.
    pub words: String,
}

const CHECK_TOKEN: &str = "check the InfluxDB token: it must exist and may write to this bucket";
const CHECK_BUCKET: &str = "create the bucket, or correct the organisation and bucket in the configuration";
const CHECK_REDIRECT: &str = "redirects are not followed: set InfluxDB's URL to the address that it names";
const CHECK_URL: &str = "this is not how InfluxDB answers: check its URL and what stands between";

/// Looks an answer up in the table.
pub fn judge(answer: &Answer) -> Verdict {
    let (status, retry_after, location, body) = match answer {
        Answer::Http { status, retry_after, location, body } => (*status, *retry_after, location, body),
        Answer::Timeout => {
            return Verdict {
                action: Action::Retry(Reason::Timeout, None),
                words: "no answer in time".into(),
            };
        }
        Answer::Unreachable(words) => {
            return Verdict { action: Action::Retry(Reason::Unreachable, None), words: cut(words) };
        }
    };
    if status == 204 {
        return Verdict { action: Action::Written, words: String::new() };
    }
    let own = own_words(body);
    let action = match status {
        300..=399 => Action::Hold(Reason::Unexpected, CHECK_REDIRECT),
        400 if own.is_some() => Action::Split,
        422 if own.is_some() => Action::Partly(own.as_deref().and_then(dropped)),
        401 | 403 => Action::Hold(Reason::Unauthorized, CHECK_TOKEN),
        404 if own.is_some() => Action::Hold(Reason::NotFound, CHECK_BUCKET),
        413 => Action::Halve,
        429 | 503 => Action::Retry(Reason::Busy, retry_after.map(|after| after.min(MAX_RETRY_AFTER))),
        408 | 500..=599 => Action::Retry(Reason::ServerError, None),
        _ => Action::Hold(Reason::Unexpected, CHECK_URL),
    };
    let text = cut(own.as_deref().unwrap_or(body));
    let words = match location {
        Some(location) if (300..400).contains(&status) => format!("{status} to {}", cut(location)),
        _ => format!("{status} {text}"),
    };
    Verdict { action, words }
}

/// Whether these words of a 400 leave no doubt that the line is to blame. InfluxDB 1.8 and 2 say "unable to parse" of one
/// that cannot be read, 3 says "parsing failed"; 1.8 and 3 say "partial write" of one that can be read and not stored.
pub fn blames_the_line(words: &str) -> bool {
    ["unable to parse", "parsing failed", "partial write"].into_iter().any(|said| words.contains(said))
}

/// Why a line is never taken, by InfluxDB's words about it: one of `metrics::INFLUX_DROPS`.
pub fn drop_reason(words: &str) -> &'static str {
    // 2.7: "dropped 1 points outside retention policy of duration …"; 1.8: "points beyond retention policy".
    if words.contains("retention policy") {
        return "too_old";
    }
    // 1.8 and 2: "field type conflict: input field …"; 3: "invalid column type for column …".
    if words.contains("type conflict") || words.contains("invalid column type") {
        return "type_conflict";
    }
    if words.contains("unable to parse") || words.contains("parsing failed") {
        "malformed"
    } else {
        "refused"
    }
}

/// Whether a line dropped for this reason is worth a person's look: one that is only too old is not.
pub fn is_for_quarantine(reason: &str) -> bool {
    !matches!(reason, "too_old" | "no_host")
}

/// The `message` or `error` of an answer in InfluxDB's own form.
fn own_words(body: &str) -> Option<String> {
    if let Ok(serde_json::Value::Object(mut object)) = serde_json::from_str(body) {
        // 3 says in general terms what happened, and about the first line what exactly.
        let detail = object.get("data").and_then(|data| data.get(0)?.get("error_message")?.as_str());
        let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
        return ["message", "error"].into_iter().find_map(|key| match object.remove(key) {
            Some(serde_json::Value::String(words)) => Some(words + &detail),
            _ => None,
        });
    }
    // The message quotes each bad line, so it can be too long to have been read whole.
    let is_own = body.starts_with(r#"{"code":"#) || body.starts_with(r#"{"error":"#);
    is_own.then(|| body.to_owned())
}

/// The N of "partial write: … dropped=N".
fn dropped(words: &str) -> Option<usize> {
    let (_, after) = words.rsplit_once("dropped=")?;
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    after[..end].parse().ok()
}

fn cut(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_WORDS).collect()
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
