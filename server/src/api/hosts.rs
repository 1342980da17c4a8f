//! Hosts, and what each said last.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vitals_wire::mapping::{self, Point, Value};
use vitals_wire::message::DropReason;
use vitals_wire::sample::Sample;
use vitals_wire::section::{Section, TopProcesses};

use super::Shared;
use super::caller::{Access, Caller, Reader, Scope};
use super::error::Problem;
use super::extract::{Json, Path};
use crate::commands::host::{label_changes, what_stays};
use crate::live::HostNow;
use crate::session::seats::Cloned;
use crate::state::{Host, HostChange};
use crate::{clock, time};

/// All hosts.
#[derive(Debug, Serialize, ToSchema)]
pub struct HostList {
    /// By name.
    hosts: Vec<HostInfo>,
}

/// A host: who it is and whether it is there.
#[derive(Debug, Serialize, ToSchema)]
pub struct HostInfo {
    /// 32 hexadecimal digits, for as long as the host exists.
    #[schema(example = "0f8fad5bd9cb469fa16570867728950e")]
    id: String,
    /// What it is called now.
    #[schema(example = "web-1")]
    name: String,
    /// Its labels.
    labels: BTreeMap<String, String>,
    /// Who gave each: `client`, `token` or `administrator`. Those of the client count for no scope.
    label_origins: BTreeMap<String, &'static str>,
    /// What an administrator calls it; absent where it is called as it calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "shop")]
    given_name: Option<String>,
    /// What it calls itself.
    #[schema(example = "web-1")]
    told_name: String,
    /// It is to make a new secret.
    rotate: bool,
    /// When it was shut out (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<String>,
    /// The id that its client says, where another machine took its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    /// `up`, `down`, `off`, `asleep`, or `unknown` for the first minute after a start of the server.
    #[schema(example = "up")]
    state: &'static str,
    /// Since when it is in that state (RFC 3339).
    since: String,
    /// When it was last heard (RFC 3339); absent if not since the server's start.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<String>,
    /// When it was first heard (RFC 3339).
    first_seen: String,
    /// Time between two samples in seconds.
    #[schema(example = 5.0)]
    interval_seconds: f64,
    /// The version of its client.
    #[schema(example = "0.1.0")]
    client_version: String,
    /// Where it is connected from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "192.0.2.7:51234")]
    address: Option<String>,
    /// How far its clock is ahead of the server's in ms, network included.
    #[serde(skip_serializing_if = "Option::is_none")]
    skew_ms: Option<i64>,
    /// How many of its samples were refused for good since the server's start, by reason: `clock_ahead`, `too_old`, ….
    /// A reason that never was is absent.
    refused: BTreeMap<&'static str, u64>,
    /// Points of series beyond its cap that were dropped since the server's start.
    series_dropped: u64,
    /// The addresses of two clients that use its identity at the same time, where that was seen within the last ten
    /// minutes: a machine was copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["192.0.2.7:51234", "192.0.2.8:40112"]))]
    clone_suspected: Option<Vec<String>>,
    /// What it is.
    facts: HostFacts,
}

/// What rarely changes about a host; what it does not tell is absent.
#[derive(Debug, Serialize, ToSchema)]
pub struct HostFacts {
    /// The operating system with its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    os: Option<String>,
    /// The kernel's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<String>,
    /// The architecture.
    #[serde(skip_serializing_if = "Option::is_none")]
    architecture: Option<String>,
    /// The CPU's model.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_model: Option<String>,
    /// CPUs that can be scheduled on.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpus: Option<u32>,
    /// Memory in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    /// When the system started (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    boot_time: Option<String>,
}

/// A host's newest reading.
#[derive(Debug, Serialize, ToSchema)]
pub struct Latest {
    /// The host's id.
    id: String,
    /// The host's name.
    name: String,
    /// When it was taken, by the host's clock (RFC 3339).
    time: String,
    /// The same in ms since 1970.
    time_ms: i64,
    /// When it arrived (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    received: Option<String>,
    /// What was read, as measurements with tags and fields.
    points: Vec<LatestPoint>,
}

/// One point of a reading.
#[derive(Debug, Serialize, ToSchema)]
pub struct LatestPoint {
    /// Such as `cpu`.
    #[schema(example = "cpu")]
    measurement: String,
    /// Tags beside the host's own.
    tags: BTreeMap<String, String>,
    /// When it was taken in ms since 1970, where that is not the time of the whole: top processes come less often.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_ms: Option<i64>,
    /// Its fields: numbers, or texts.
    #[schema(value_type = BTreeMap<String, f64>)]
    fields: BTreeMap<String, serde_json::Value>,
}

/// All hosts known, by name.
#[utoipa::path(
    get, path = "/api/v1/hosts", operation_id = "list_hosts", tag = "hosts",
    responses(
        (status = 200, description = "All hosts that the caller may see.", body = HostList),
        (status = 401, description = "Nobody is logged in.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The password must be changed first.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(State(shared): State<Shared>, Reader(caller): Reader) -> Json<HostList> {
    Json(all(&shared, &caller.scope))
}

/// All hosts of a scope, for the API and the command line.
pub fn all(shared: &Shared, scope: &Scope) -> HostList {
    let hosts = shared.state.hosts();
    let seen = hosts.iter().filter(|host| scope.covers(host));
    HostList { hosts: seen.map(|host| info(shared, host)).collect() }
}

/// The same while no server runs: who they are, and nothing of now.
pub fn all_at_rest(state: &crate::state::State) -> HostList {
    let at_rest = |host: &Arc<Host>| HostInfo { state: "server not running", ..info_of(host, None, None) };
    HostList { hosts: state.hosts().iter().map(at_rest).collect() }
}

/// One host.
#[utoipa::path(
    get, path = "/api/v1/hosts/{host}", operation_id = "get_host", tag = "hosts",
    params(("host" = String, Path, description = "Its id or its present name.")),
    responses(
        (status = 200, description = "The host.", body = HostInfo),
        (status = 400, description = "A path that cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The password must be changed first.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such host, or none that the caller may see.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn one(
    State(shared): State<Shared>,
    Reader(caller): Reader,
    Path(host): Path<String>,
) -> Result<Json<HostInfo>, Problem> {
    let host = find(&shared, &caller, &host)?;
    Ok(Json(info(&shared, &host)))
}

/// A host's newest reading.
#[utoipa::path(
    get, path = "/api/v1/hosts/{host}/latest", operation_id = "get_latest", tag = "hosts",
    params(("host" = String, Path, description = "Its id or its present name.")),
    responses(
        (status = 200, description = "Its newest reading.", body = Latest),
        (status = 400, description = "A path that cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The password must be changed first.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such host, none that the caller may see, or one that has not been heard since the server's start.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn latest(
    State(shared): State<Shared>,
    Reader(caller): Reader,
    Path(host): Path<String>,
) -> Result<Json<Latest>, Problem> {
    let host = find(&shared, &caller, &host)?;
    let now = shared.live.host(host.id);
    let sample = now.as_ref().and_then(|now| now.sample.clone());
    let sample = sample.ok_or_else(|| {
        Problem::not_found(format!("{:?} has sent nothing since the server's start", host.name()))
    })?;
    let mut points = points_of(&sample, None);
    let top = now.as_ref().and_then(|now| now.top.clone());
    points.extend(top.iter().flat_map(|top| points_of_top(&sample, top)));
    Ok(Json(Latest {
        id: host.id.to_string(),
        name: host.name().to_owned(),
        time: time::format(sample.time_ms),
        time_ms: sample.time_ms,
        received: now.and_then(|now| now.received_ms).map(time::format),
        points,
    }))
}

/// The newest top processes, where the newest sample has none of its own.
fn points_of_top(sample: &Sample, (time_ms, top): &(i64, TopProcesses)) -> Vec<LatestPoint> {
    if *time_ms == sample.time_ms {
        return Vec::new();
    }
    let mut older = Sample { time_ms: *time_ms, ..Sample::default() };
    // There is room in an empty list.
    let _ = older.sections.push(Section::TopProcesses(top.clone()));
    points_of(&older, Some(*time_ms))
}

fn points_of(sample: &Sample, time_ms: Option<i64>) -> Vec<LatestPoint> {
    let mut points = Vec::new();
    mapping::map_sample(sample, &mut |point: Point<'_>| {
        points.push(LatestPoint {
            measurement: point.measurement.to_owned(),
            tags: point.tags.iter().map(|tag| (tag.key.to_owned(), tag.value.to_owned())).collect(),
            time_ms,
            fields: point.fields.iter().map(|field| (field.name.to_owned(), json_of(field.value))).collect(),
        });
    });
    points
}

fn json_of(value: Value<'_>) -> serde_json::Value {
    match value {
        Value::Float(float) => float.into(),
        Value::Integer(integer) => integer.into(),
        Value::Text(text) => text.into(),
    }
}

/// What an administrator changes of a host.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostPatch {
    /// What it is called from now on, whatever its client says; `null`: as its client says. In InfluxDB the tag `host`
    /// changes from that moment, and what was written before keeps the old one.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>, example = "shop")]
    name: Option<Option<String>>,
    /// Labels by key: a value sets one, `null` takes it away, an empty text leaves it to token and client.
    #[serde(default)]
    #[schema(example = json!({ "env": "prod", "rack": null }))]
    labels: BTreeMap<String, Option<String>>,
}

/// `Some`, also of a `null`: what is not there at all is `None`.
fn said<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// What was removed, and what stays.
#[derive(Debug, Serialize, ToSchema)]
pub struct Removed {
    /// The host's id.
    id: String,
    /// What it was called.
    #[schema(example = "web-1")]
    name: String,
    /// What stays of it, for people.
    note: String,
}

/// Renames or labels a host.
#[utoipa::path(
    patch, path = "/api/v1/hosts/{host}", operation_id = "change_host", tag = "hosts",
    params(("host" = String, Path, description = "Its id or its present name.")),
    request_body = HostPatch,
    responses(
        (status = 200, description = "Changed.", body = HostInfo),
        (status = 400, description = "No JSON.", body = Problem),
        (status = 401, description = "Nobody is logged in.", body = Problem),
        (status = 403, description = "Too few rights, or a label of the caller's own scope.", body = Problem),
        (status = 404, description = "No such host.", body = Problem),
        (status = 409, description = "Another host has this name.", body = Problem),
        (status = 413, description = "Too long.", body = Problem),
        (status = 415, description = "Not said to be JSON.", body = Problem),
        (status = 422, description = "No such name or label can be.", body = Problem),
        (status = 503, description = "It cannot be written now.", body = Problem),
    )
)]
pub async fn change(
    caller: Caller,
    State(shared): State<Shared>,
    Path(host): Path<String>,
    Json(patch): Json<HostPatch>,
) -> Result<Json<HostInfo>, Problem> {
    let host = managed(&caller, &shared, &host)?;
    // Else it could take hosts out of what others see, or show them to itself.
    if let Some(key) = patch.labels.keys().find(|key| caller.scope.0.contains_key(*key)) {
        return Err(Problem::forbidden(format!(
            "the label {key:?} decides what you may see: ask somebody who sees all"
        )));
    }
    let change = HostChange { name: patch.name, labels: label_changes(patch.labels) };
    let host = shared.place.change_host(&caller.by, host.id, change).await?;
    Ok(Json(info(&shared, &host)))
}

/// Forgets a host: its name is free again, and its client is not enrolled any more. History and InfluxDB keep what they
/// have.
#[utoipa::path(
    delete, path = "/api/v1/hosts/{host}", operation_id = "remove_host", tag = "hosts",
    params(("host" = String, Path, description = "Its id or its present name.")),
    responses(
        (status = 200, description = "Forgotten; what stays.", body = Removed),
        (status = 401, description = "Nobody is logged in.", body = Problem),
        (status = 403, description = "Too few rights.", body = Problem),
        (status = 404, description = "No such host.", body = Problem),
        (status = 503, description = "It cannot be written now.", body = Problem),
    )
)]
pub async fn remove(
    caller: Caller,
    State(shared): State<Shared>,
    Path(host): Path<String>,
) -> Result<Json<Removed>, Problem> {
    let host = managed(&caller, &shared, &host)?;
    let host = shared.place.remove_host(&caller.by, host.id).await?;
    let name = host.name().to_owned();
    Ok(Json(Removed { id: host.id.to_string(), note: what_stays(&name), name }))
}

/// Asks a host for a new secret. One that is connected connects again for it; the present secret holds until the new one
/// was used.
#[utoipa::path(
    post, path = "/api/v1/hosts/{host}/rotate", operation_id = "rotate_host", tag = "hosts",
    params(("host" = String, Path, description = "Its id or its present name.")),
    responses(
        (status = 200, description = "It is asked.", body = HostInfo),
        (status = 401, description = "Nobody is logged in.", body = Problem),
        (status = 403, description = "Too few rights.", body = Problem),
        (status = 404, description = "No such host.", body = Problem),
        (status = 503, description = "It cannot be written now.", body = Problem),
    )
)]
pub async fn rotate(
    caller: Caller,
    State(shared): State<Shared>,
    Path(host): Path<String>,
) -> Result<Json<HostInfo>, Problem> {
    let host = managed(&caller, &shared, &host)?;
    let host = shared.place.rotate_host(&caller.by, host.id).await?;
    Ok(Json(info(&shared, &host)))
}

/// Shuts a host out: its connection ends at once, and its secret lets nobody in any more. A join token that replaces it lets
/// it in again.
#[utoipa::path(
    post, path = "/api/v1/hosts/{host}/revoke", operation_id = "revoke_host", tag = "hosts",
    params(("host" = String, Path, description = "Its id or its present name.")),
    responses(
        (status = 200, description = "It is shut out.", body = HostInfo),
        (status = 401, description = "Nobody is logged in.", body = Problem),
        (status = 403, description = "Too few rights.", body = Problem),
        (status = 404, description = "No such host.", body = Problem),
        (status = 503, description = "It cannot be written now.", body = Problem),
    )
)]
pub async fn revoke(
    caller: Caller,
    State(shared): State<Shared>,
    Path(host): Path<String>,
) -> Result<Json<HostInfo>, Problem> {
    let host = managed(&caller, &shared, &host)?;
    let host = shared.place.revoke_host(&caller.by, host.id).await?;
    Ok(Json(info(&shared, &host)))
}

/// A host that the caller may manage: one outside its scope is not there.
fn managed(caller: &Caller, shared: &Shared, host: &str) -> Result<Arc<Host>, Problem> {
    caller.may(Access::Write)?;
    find(shared, caller, host)
}

/// A host that the caller may see.
pub(super) fn find(shared: &Shared, caller: &Caller, host: &str) -> Result<Arc<Host>, Problem> {
    let found = shared.state.find(host).filter(|host| caller.scope.covers(host));
    found.ok_or_else(|| Problem::not_found(format!("no host has the id or name {host:?}")))
}

fn info(shared: &Shared, host: &Host) -> HostInfo {
    info_of(host, shared.live.host(host.id), shared.place.seats.suspected(host.id, Instant::now()))
}

fn info_of(host: &Host, now: Option<HostNow>, cloned: Option<Cloned>) -> HostInfo {
    let (facts, labels) = (&host.facts, &host.newest().labels);
    HostInfo {
        id: host.id.to_string(),
        name: host.name().to_owned(),
        labels: labels.iter().map(|label| (label.key.to_string(), label.value.to_string())).collect(),
        label_origins: labels.iter().map(|label| (label.key.to_string(), label.origin.word())).collect(),
        given_name: host.given_name.as_deref().map(str::to_owned),
        told_name: host.told_name.to_string(),
        rotate: host.rotate,
        revoked: host.revoked_ms.map(time::format),
        client_id: (host.client != host.id).then(|| host.client.to_string()),
        state: now.as_ref().map_or("unknown", |now| now.presence.word()),
        since: time::format(now.as_ref().map_or_else(clock::now_ms, |now| now.since_ms)),
        last_seen: now.as_ref().and_then(|now| now.heard_ms).map(time::format),
        first_seen: time::format(host.first_seen_ms),
        interval_seconds: f64::from(host.interval_ms) / 1_000.0,
        client_version: host.client_version.to_string(),
        address: now.as_ref().and_then(|now| now.peer.as_ref()).map(|peer| peer.address.to_string()),
        skew_ms: now.as_ref().and_then(|now| now.skew_ms),
        series_dropped: now.as_ref().map_or(0, |now| now.series_dropped),
        clone_suspected: cloned.map(|Cloned(both)| both.iter().map(SocketAddr::to_string).collect()),
        refused: now.map_or_else(BTreeMap::new, |now| {
            let counts = DropReason::ALL.iter().map(|reason| reason.word()).zip(now.refused);
            counts.filter(|(_, count)| *count > 0).collect()
        }),
        facts: HostFacts {
            os: facts.os.clone(),
            kernel: facts.kernel.clone(),
            architecture: facts.architecture.clone(),
            cpu_model: facts.cpu_model.clone(),
            cpus: facts.cpus,
            memory_bytes: facts.memory,
            boot_time: facts.boot_time.map(|seconds| time::format(seconds.saturating_mul(1_000))),
        },
    }
}
