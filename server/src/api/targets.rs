//! The InfluxDBs that are written to, and what they refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::caller::Reader;
use super::error::Problem;
use super::extract::{Json, Query};
use crate::influx::{Health, Target};
use crate::time;

/// Lines of the quarantine in one answer.
const MAX_LINES: usize = 1_000;
/// Lines where no number is asked for.
const DEFAULT_LINES: usize = 100;

/// All InfluxDBs that are written to.
#[derive(Debug, Serialize, ToSchema)]
pub struct TargetList {
    /// In the order of the configuration.
    targets: Vec<TargetInfo>,
}

/// How one InfluxDB is. Counts begin at the server's start.
#[derive(Debug, Serialize, ToSchema)]
pub struct TargetInfo {
    /// What it is called.
    #[schema(example = "influx")]
    name: String,
    /// Where it is.
    #[schema(example = "http://127.0.0.1:8086")]
    url: String,
    /// The organisation.
    org: String,
    /// The bucket.
    bucket: String,
    /// `ok`, `away` (it takes nothing and is tried again), `held` (it takes nothing until a person has mended something),
    /// or `server not running`.
    #[schema(example = "ok")]
    state: &'static str,
    /// Since when it takes nothing (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// Why it takes nothing, as in `vitals_influx_errors_total`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "unauthorized")]
    reason: Option<&'static str>,
    /// The same in InfluxDB's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
    /// Bytes of the journal that it has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_bytes: Option<u64>,
    /// Age of the oldest live sample that it has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_seconds: Option<f64>,
    /// Spans of time that it is owed from history.
    owed_spans: usize,
    /// Their length.
    owed_seconds: f64,
    /// The oldest time that it is owed (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    owed_from: Option<String>,
    /// Lines that it took.
    lines: u64,
    /// Those of them that were owed.
    filled_lines: u64,
    /// Lines in quarantine.
    #[serde(skip_serializing_if = "Option::is_none")]
    quarantined: Option<usize>,
    /// Lines that it will never take, by reason.
    dropped: BTreeMap<&'static str, u64>,
}

/// Lines that InfluxDB refused.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuarantineList {
    /// How many there are in all.
    total: usize,
    /// Newest first.
    lines: Vec<QuarantinedLine>,
}

/// A line that InfluxDB refused.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuarantinedLine {
    /// Which InfluxDB.
    #[schema(example = "influx")]
    target: String,
    /// When it was refused (RFC 3339).
    time: String,
    /// `malformed`, `type_conflict`, `too_large` or `refused`; empty where a person has edited the file.
    #[schema(example = "type_conflict")]
    reason: String,
    /// InfluxDB's own words.
    error: String,
    /// The line, in line protocol.
    line: String,
}

/// Which lines of the quarantine are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct QuarantineQuery {
    /// Which InfluxDB. Default: all.
    target: Option<String>,
    /// How many lines, at most 1,000. Default: 100.
    #[param(maximum = 1_000)]
    limit: Option<usize>,
    /// How many of the newest are left out, to go on after an answer. Default: none.
    skip: Option<usize>,
}

/// All InfluxDBs that are written to, and how each is.
#[utoipa::path(
    get, path = "/api/v1/targets", operation_id = "list_targets", tag = "influx",
    responses(
        (status = 200, description = "All of them.", body = TargetList),
        (status = 401, description = "Nobody is logged in.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The caller does not see all hosts, or must change the password first.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The server cannot look now.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(State(shared): State<Shared>, Reader(caller): Reader) -> Result<Json<TargetList>, Problem> {
    caller.sees_all()?;
    let listed = tokio::task::spawn_blocking(move || all(&shared.targets, true)).await;
    listed.map(Json).map_err(|error| Problem::unavailable(error.to_string()))
}

/// Lines that InfluxDB refused, with its own words, newest first.
#[utoipa::path(
    get, path = "/api/v1/quarantine", operation_id = "list_quarantine", tag = "influx",
    params(QuarantineQuery),
    responses(
        (status = 200, description = "Lines, newest first.", body = QuarantineList),
        (status = 400, description = "A query that cannot be read, or too many lines.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The caller does not see all hosts, or must change the password first.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such target.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The quarantine cannot be read now.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn quarantine(
    State(shared): State<Shared>,
    Reader(caller): Reader,
    Query(query): Query<QuarantineQuery>,
) -> Result<Json<QuarantineList>, Problem> {
    caller.sees_all()?;
    let limit = query.limit.unwrap_or(DEFAULT_LINES);
    if limit > MAX_LINES {
        return Err(Problem::bad_request(format!("limit: at most {MAX_LINES}; go on with skip")));
    }
    if let Some(name) = &query.target
        && !shared.targets.iter().any(|target| target.options.name == *name)
    {
        return Err(Problem::not_found(format!("no InfluxDB is called {name:?}")));
    }
    let read = tokio::task::spawn_blocking(move || {
        refused(&shared.targets, query.target.as_deref(), query.skip.unwrap_or_default(), limit)
    });
    match read.await {
        Ok(Ok(lines)) => Ok(Json(lines)),
        Ok(Err(error)) => Err(Problem::unavailable(error.to_string())),
        Err(error) => Err(Problem::unavailable(error.to_string())),
    }
}

/// How all of them are. Reads files.
pub fn all(targets: &[Arc<Target>], is_running: bool) -> TargetList {
    TargetList { targets: targets.iter().map(|target| info(target, is_running)).collect() }
}

fn info(target: &Target, is_running: bool) -> TargetInfo {
    let metrics = &target.metrics;
    let seconds = |ms: u64| ms as f64 / 1_000.0;
    let (owed_spans, owed_ms, owed_from) = target.book.look(|owed| {
        let stretch = owed.stretch();
        let own = stretch.hosts().filter_map(|(_, spans)| spans.first());
        let oldest = stretch.all().first().into_iter().chain(own).map(|span| span.from_ms).min();
        (stretch.count(), stretch.total_ms(), oldest)
    });
    let (state, since, reason, error, advice) = match target.health() {
        _ if !is_running => ("server not running", None, None, None, None),
        Health::Ok => ("ok", None, None, None, None),
        Health::Away { since_ms, reason, words } => {
            ("away", Some(since_ms), Some(reason.word()), Some(words), None)
        }
        Health::Held { since_ms, reason, words, advice } => {
            ("held", Some(since_ms), Some(reason.word()), Some(words), Some(advice))
        }
    };
    TargetInfo {
        name: target.options.name.clone(),
        url: target.options.url.clone(),
        org: target.options.org.clone(),
        bucket: target.options.bucket.clone(),
        state,
        since: since.map(time::format),
        reason,
        error,
        advice,
        lag_bytes: is_running.then(|| metrics.lag_bytes.get()),
        lag_seconds: is_running.then(|| seconds(metrics.lag_ms.get())),
        owed_spans,
        owed_seconds: seconds(owed_ms),
        owed_from: owed_from.map(time::format),
        lines: metrics.lines.get(),
        filled_lines: metrics.filled_lines.get(),
        quarantined: target.quarantine.newest(0, 0).ok().map(|(_, total)| total),
        dropped: metrics.dropped.iter().filter(|(_, count)| *count > 0).collect(),
    }
}

/// The newest lines of one target's quarantine, or of all. Reads files.
pub fn refused(
    targets: &[Arc<Target>],
    name: Option<&str>,
    skip: usize,
    limit: usize,
) -> std::io::Result<QuarantineList> {
    let (mut all, mut total) = (Vec::new(), 0);
    for target in targets.iter().filter(|target| name.is_none_or(|name| name == target.options.name)) {
        let (entries, of_target) = target.quarantine.newest(0, skip.saturating_add(limit))?;
        total += of_target;
        all.extend(entries.into_iter().map(|entry| (target.options.name.clone(), entry)));
    }
    // Stable: within a target the file's order counts.
    all.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.time_ms));
    let lines = all.into_iter().skip(skip).take(limit).map(|(target, entry)| QuarantinedLine {
        target,
        time: time::format(entry.time_ms),
        reason: entry.reason,
        error: entry.words,
        line: entry.line,
    });
    Ok(QuarantineList { total, lines: lines.collect() })
}
