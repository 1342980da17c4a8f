//! One sample for people and for other programs: what `vitals-client sample` prints.

use serde::Serialize;
use serde_json::{Map, Value as Json};
use vitals_wire::line::{self, HostTags};
use vitals_wire::mapping::{self, Point, Value};
use vitals_wire::sample::Sample;

mod table;

pub(crate) use table::bytes;
pub use table::table;

/// One point, as JSON.
#[derive(Serialize)]
struct JsonPoint<'a> {
    measurement: &'a str,
    tags: Map<String, Json>,
    fields: Map<String, Json>,
    /// Milliseconds since 1970.
    time: i64,
}

/// The points of a sample as JSON: a list of `measurement`, `tags` (with `host` and `labels`), `fields` and `time` in ms
/// since 1970, one on each line.
pub fn json<'a>(
    sample: &Sample,
    host: &'a str,
    labels: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> String {
    let mut own: Map<String, Json> = Map::new();
    for (key, value) in labels.into_iter().chain([("host", host)]) {
        own.insert(key.to_owned(), value.into());
    }
    let mut out = String::from("[");
    mapping::map_sample(sample, &mut |point: Point<'_>| {
        let mut tags = match point.about {
            Some(about) => Map::from_iter([("host".to_owned(), Json::from(about))]),
            None => own.clone(),
        };
        let filled = point.tags.iter().filter(|tag| !tag.value.is_empty());
        tags.extend(filled.map(|tag| (tag.key.to_owned(), Json::from(tag.value))));
        let fields = point.fields.iter().filter_map(|field| {
            let value = match field.value {
                Value::Float(float) => Json::Number(serde_json::Number::from_f64(float)?),
                Value::Integer(integer) => integer.into(),
                Value::Text(text) => text.into(),
            };
            Some((field.name.to_owned(), value))
        });
        let point = JsonPoint {
            measurement: point.measurement,
            tags,
            fields: fields.collect(),
            time: sample.time_ms,
        };
        // Maps with text keys always serialize.
        if let Ok(text) = serde_json::to_string(&point) {
            out.push_str(if out.len() == 1 { "\n" } else { ",\n" });
            out.push_str(&text);
        }
    });
    out.push_str("\n]\n");
    out
}

/// The sample as line protocol, with time in ns: what is written to InfluxDB.
pub fn influx(sample: &Sample, host: &HostTags) -> String {
    let mut lines = Vec::with_capacity(4096);
    line::write_sample(&mut lines, host, sample);
    // Made of texts and figures only.
    String::from_utf8_lossy(&lines).into_owned()
}

#[cfg(test)]
#[path = "show_tests.rs"]
mod tests;
