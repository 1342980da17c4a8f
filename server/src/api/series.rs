//! History of a field.

use std::collections::BTreeMap;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::caller::Reader;
use super::error::Problem;
use super::extract::{Json, Path, Query};
use super::hosts::find;
use crate::clock;
use crate::field::FieldSelector;
use crate::store::{StoreError, Value};
use crate::time;

/// The range where none is asked for.
const DEFAULT_RANGE_MS: i64 = 3_600_000;
/// Points in one answer, all series together.
const MAX_POINTS: usize = 200_000;

/// What of a host's history is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct SeriesQuery {
    /// The field, as `measurement.field` or `measurement.field{tag=value}`. Without tags it means `cpu-total` for
    /// `cpu`, and every series, each labelled, elsewhere.
    #[param(example = "cpu.usage_active")]
    field: String,
    /// The first time (RFC 3339 or ms since 1970). Default: one hour before `to`.
    #[param(example = "2026-01-31T12:00:00Z")]
    from: Option<String>,
    /// The first time that is not wanted any more (RFC 3339 or ms since 1970). Default: now.
    to: Option<String>,
}

/// History of a field of one host.
#[derive(Debug, Serialize, ToSchema)]
pub struct SeriesAnswer {
    /// The host's id.
    id: String,
    /// The host's present name.
    name: String,
    /// The first time of the range (RFC 3339).
    from: String,
    /// The end of the range (RFC 3339).
    to: String,
    /// What was found, one for each combination of tags.
    series: Vec<OneSeries>,
}

/// One series.
#[derive(Debug, Serialize, ToSchema)]
pub struct OneSeries {
    /// Such as `cpu`.
    #[schema(example = "cpu")]
    measurement: String,
    /// Such as `usage_active`.
    #[schema(example = "usage_active")]
    field: String,
    /// Tags beside the host's own.
    tags: BTreeMap<String, String>,
    /// Times in ms since 1970 with their values, oldest first. A gap is a gap: nothing is filled in.
    #[schema(value_type = Vec<(i64, f64)>)]
    points: Vec<(i64, Number)>,
}

/// A figure: integers stay integers.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Number {
    /// A float.
    Float(f64),
    /// An integer.
    Integer(i64),
}

/// History of a field of one host, raw.
#[utoipa::path(
    get, path = "/api/v1/hosts/{host}/series", operation_id = "get_series", tag = "history",
    params(("host" = String, Path, description = "Its id or its present name."), SeriesQuery),
    responses(
        (status = 200, description = "What was found.", body = SeriesAnswer),
        (status = 400, description = "A field or time that cannot be read, or too many points.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The password must be changed first.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such host, or none that the caller may see.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "History cannot be read now.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn series(
    State(shared): State<Shared>,
    Reader(caller): Reader,
    Path(host): Path<String>,
    Query(query): Query<SeriesQuery>,
) -> Result<Json<SeriesAnswer>, Problem> {
    let host = find(&shared, &caller, &host)?;
    let field: FieldSelector =
        query.field.parse().map_err(|error| Problem::bad_request(format!("field: {error}")))?;
    let time_of = |name: &str, text: Option<&str>| {
        text.map(time::parse).transpose().map_err(|error| Problem::bad_request(format!("{name}: {error}")))
    };
    let to_ms = time_of("to", query.to.as_deref())?.unwrap_or_else(clock::now_ms);
    let from_ms =
        time_of("from", query.from.as_deref())?.unwrap_or_else(|| to_ms.saturating_sub(DEFAULT_RANGE_MS));
    if from_ms >= to_ms {
        return Err(Problem::bad_request("from must be before to"));
    }
    let (store, id) = (shared.store.clone(), host.id);
    let found = tokio::task::spawn_blocking(move || store.series(id, &field, from_ms, to_ms, MAX_POINTS))
        .await
        .map_err(|error| Problem::unavailable(error.to_string()))?
        .map_err(|error| match error {
            StoreError::TooManyPoints { .. } => Problem::bad_request(error.to_string()),
            error => Problem::unavailable(error.to_string()),
        })?;
    let series = found.into_iter().map(|series| OneSeries {
        measurement: series.measurement,
        field: series.field,
        tags: series.tags.into_iter().collect(),
        points: series.points.into_iter().map(|(time_ms, value)| (time_ms, value.into())).collect(),
    });
    Ok(Json(SeriesAnswer {
        id: host.id.to_string(),
        name: host.name().to_owned(),
        from: time::format(from_ms),
        to: time::format(to_ms),
        series: series.collect(),
    }))
}

impl From<Value> for Number {
    fn from(value: Value) -> Self {
        match value {
            Value::Float(float) => Self::Float(float),
            Value::Integer(integer) => Self::Integer(integer),
        }
    }
}
