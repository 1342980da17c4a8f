//! Fields of points in a form that is small and easily compared, from wherever they are.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;

use anyhow::{Context, bail};
use vitals_client::queue::content_hash;
use vitals_server::store::{self, Store};
use vitals_wire::ids::HostId;
use vitals_wire::mapping::{Point, Value, map_sample};
use vitals_wire::sample::Sample;

/// The events of a host are the server's own words, not the host's.
pub const EVENTS: &str = "vitals_event";

/// A field's value; floats by their bits, texts by their hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// By its bits.
    Float(u64),
    /// As it is.
    Integer(i64),
    /// By its hash.
    Text(u64),
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Float(bits) => write!(f, "{:?}", f64::from_bits(*bits)),
            Self::Integer(integer) => write!(f, "{integer}i"),
            Self::Text(hash) => write!(f, "a text with hash {hash:016x}"),
        }
    }
}

/// One field of one point, ordered by time, then by series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Field {
    /// Its time.
    pub ns: i64,
    /// Measurement, tags beside the host's name, and the field's name, by their number in [`Names`].
    pub series: u32,
    /// Its value.
    pub figure: Figure,
}

/// Numbers for series, which are written as `measurement,tag=value field`, tags ascending.
#[derive(Debug, Default)]
pub struct Names {
    numbers: HashMap<String, u32>,
    names: Vec<String>,
}

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.names.len() as u32;
        self.numbers.insert(name.to_owned(), number);
        self.names.push(name.to_owned());
        number
    }

    /// The series with this number.
    pub fn name(&self, number: u32) -> &str {
        self.names.get(number as usize).map_or("?", String::as_str)
    }

    /// Whether it is of this measurement.
    pub fn is_of(&self, number: u32, measurement: &str) -> bool {
        self.name(number).split([',', ' ']).next() == Some(measurement)
    }
}

/// Tags have to be ascending; those without a value do not count.
fn put_tag(name: &mut String, key: &str, value: &str) {
    if !value.is_empty() {
        // Writing to a text cannot fail.
        let _ = write!(name, ",{key}={value}");
    }
}

/// What of `sample` must be found.
pub fn of_sample(names: &mut Names, sample: &Sample, out: &mut Vec<Field>) {
    let mut name = String::with_capacity(128);
    map_sample(sample, &mut |point: Point<'_>| {
        name.clear();
        name.push_str(point.measurement);
        point.tags.iter().for_each(|tag| put_tag(&mut name, tag.key, tag.value));
        let length = name.len();
        for field in point.fields {
            name.truncate(length);
            name.push(' ');
            name.push_str(field.name);
            let figure = match field.value {
                Value::Float(float) => Figure::Float(float.to_bits()),
                Value::Integer(integer) => Figure::Integer(integer),
                Value::Text(text) => Figure::Text(content_hash(text.as_bytes())),
            };
            out.push(Field { ns: sample.time_ms * 1_000_000, series: names.number(&name), figure });
        }
    });
}

/// All that the store holds of a host.
pub fn of_store(names: &mut Names, store: &Store, host: HostId, out: &mut Vec<Field>) -> anyhow::Result<()> {
    // Without tags a selector means every series, but for `cpu`.
    let mut selectors = BTreeSet::new();
    for info in store.fields(host)? {
        let tags: Vec<String> = match &*info.measurement {
            "cpu" => info.tags.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect(),
            _ => Vec::new(),
        };
        selectors.insert(match tags.len() {
            0 => format!("{}.{}", info.measurement, info.field),
            _ => format!("{}.{}{{{}}}", info.measurement, info.field, tags.join(",")),
        });
    }
    for selector in selectors {
        let parsed = selector.parse().map_err(|error| anyhow::anyhow!("{selector}: {error}"))?;
        for series in store.series(host, &parsed, 0, i64::MAX, usize::MAX)? {
            let mut name = series.measurement;
            series.tags.iter().for_each(|(key, value)| put_tag(&mut name, key, value));
            name.push(' ');
            name.push_str(&series.field);
            let number = names.number(&name);
            out.extend(series.points.into_iter().map(|(time_ms, value)| {
                let figure = match value {
                    store::Value::Float(float) => Figure::Float(float.to_bits()),
                    store::Value::Integer(integer) => Figure::Integer(integer),
                };
                Field { ns: time_ms * 1_000_000, series: number, figure }
            }));
        }
    }
    Ok(())
}

/// The Flux query for all fields of a host, in the form that [`of_flux`] reads.
pub fn flux_query(bucket: &str, host: &str) -> String {
    format!(
        r#"from(bucket: "{bucket}") |> range(start: 0, stop: 2200-01-01T00:00:00Z) |> filter(fn: (r) => r.host == "{host}" and r._measurement != "{EVENTS}") |> drop(columns: ["_start", "_stop", "host"])"#
    )
}

/// Where the columns of a table are.
#[derive(Default)]
struct Columns {
    names: Vec<String>,
    time: usize,
    value: usize,
    measurement: usize,
    field: usize,
    table: usize,
    kind: char,
}

impl Columns {
    fn new(types: &[String], names: Vec<String>) -> anyhow::Result<Self> {
        let at = |name: &str| {
            names.iter().position(|column| column == name).with_context(|| format!("no column {name}"))
        };
        let value = at("_value")?;
        let kind = match types.get(value).map(String::as_str) {
            Some("double") => 'f',
            Some("long") => 'i',
            Some("string") => 's',
            other => bail!("values of type {other:?}"),
        };
        let (time, measurement) = (at("_time")?, at("_measurement")?);
        let (field, table) = (at("_field")?, at("table")?);
        Ok(Self { time, value, measurement, field, table, kind, names })
    }

    fn series(&self, cells: &[&str]) -> String {
        let not_tags = [self.time, self.value, self.measurement, self.field, self.table];
        let mut tags: Vec<(&str, &str)> = self
            .names
            .iter()
            .zip(cells)
            .enumerate()
            .filter(|(at, (name, _))| !not_tags.contains(at) && !name.is_empty() && *name != "result")
            .map(|(_, (name, cell))| (name.as_str(), *cell))
            .collect();
        tags.sort_unstable();
        let mut name = cells.get(self.measurement).copied().unwrap_or_default().to_owned();
        tags.iter().for_each(|(key, value)| put_tag(&mut name, key, value));
        name.push(' ');
        name.push_str(cells.get(self.field).copied().unwrap_or_default());
        name
    }
}

/// What [`flux_query`] gave: annotated CSV, tables one after another, whose rows share their series.
pub fn of_flux(names: &mut Names, csv: &str, out: &mut Vec<Field>) -> anyhow::Result<()> {
    let (mut columns, mut types, mut header_is_next) = (Columns::default(), Vec::new(), false);
    let mut table: Option<(String, u32)> = None;
    for line in csv.split('\n').map(|line| line.trim_end_matches('\r')).filter(|line| !line.is_empty()) {
        let unquoted;
        let cells: Vec<&str> = if line.contains('"') {
            unquoted = cells_of(line);
            unquoted.iter().map(String::as_str).collect()
        } else {
            line.split(',').collect()
        };
        if cells.first() == Some(&"#datatype") {
            types = cells.into_iter().map(str::to_owned).collect();
            header_is_next = true;
            continue;
        }
        if std::mem::take(&mut header_is_next) {
            columns = Columns::new(&types, cells.iter().map(|&cell| cell.to_owned()).collect())?;
            table = None;
            continue;
        }
        if cells.contains(&"error") && columns.names.is_empty() {
            bail!("the query failed: {line}");
        }
        let cell = |at: usize| cells.get(at).copied().with_context(|| format!("a short row: {line}"));
        let number = cell(columns.table)?;
        let series = match &table {
            Some((known, series)) if known == number => *series,
            _ => {
                let series = names.number(&columns.series(&cells));
                table = Some((number.to_owned(), series));
                series
            }
        };
        let time = chrono::DateTime::parse_from_rfc3339(cell(columns.time)?)?;
        let ns = time.timestamp_nanos_opt().with_context(|| format!("a time out of range: {line}"))?;
        let value = cell(columns.value)?;
        let figure = match columns.kind {
            'f' => Figure::Float(value.parse::<f64>()?.to_bits()),
            'i' => Figure::Integer(value.parse()?),
            _ => Figure::Text(content_hash(value.as_bytes())),
        };
        out.push(Field { ns, series, figure });
    }
    Ok(())
}

/// The cells of a row some of which are quoted.
fn cells_of(line: &str) -> Vec<String> {
    let (mut cells, mut cell, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => cell.extend(chars.next()),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => cells.push(std::mem::take(&mut cell)),
            c => cell.push(c),
        }
    }
    cells.push(cell);
    cells
}

/// What `run --tee` wrote: line protocol of one host.
pub fn of_lines(names: &mut Names, text: &str, out: &mut Vec<Field>) -> anyhow::Result<()> {
    for line in text.lines() {
        let parts = split(line, ' ');
        let [key, fields, time] = &*parts else {
            // A kill cuts a line off at any byte; the next one then begins behind it.
            continue;
        };
        let Ok(ns) = time.parse::<i64>() else { continue };
        let mut tags = split(key, ',').into_iter();
        let mut name = unescaped(tags.next().unwrap_or_default());
        for tag in tags {
            let pair = split(tag, '=');
            let [key, value] = &*pair else { bail!("a tag without a value: {line}") };
            if *key != "host" {
                put_tag(&mut name, &unescaped(key), &unescaped(value));
            }
        }
        for field in split(fields, ',') {
            let pair = split(field, '=');
            let [field, value] = &*pair else { bail!("a field without a value: {line}") };
            let figure = if let Some(digits) = value.strip_suffix('i') {
                Figure::Integer(digits.parse()?)
            } else if let Some(text) = value.strip_prefix('"') {
                Figure::Text(content_hash(unescaped(text.trim_end_matches('"')).as_bytes()))
            } else {
                Figure::Float(value.parse::<f64>()?.to_bits())
            };
            let series = names.number(&format!("{name} {}", unescaped(field)));
            out.push(Field { ns, series, figure });
        }
    }
    Ok(())
}

/// Splits at `at` where no backslash stands before it.
fn split(text: &str, at: char) -> Vec<&str> {
    let (mut parts, mut start, mut is_escaped) = (Vec::new(), 0, false);
    for (index, c) in text.char_indices() {
        if c == at && !is_escaped {
            parts.push(text.get(start..index).unwrap_or_default());
            start = index + c.len_utf8();
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match chars.peek() {
            Some(&next) if c == '\\' && ",= \"\\".contains(next) => {
                out.push(next);
                chars.next();
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(names: &Names, fields: &[Field]) -> Vec<String> {
        fields
            .iter()
            .map(|field| format!("{} {}={}", field.ns, names.name(field.series), field.figure))
            .collect()
    }

    #[test]
    fn annotated_csv_is_read_with_types_tags_and_quotes() {
        let csv = "#datatype,string,long,dateTime:RFC3339,double,string,string,string\r\n\
            ,result,table,_time,_value,_field,_measurement,cpu\r\n\
            ,_result,0,2026-01-01T00:00:00.5Z,1.5,usage,cpu,cpu0\r\n\
            ,_result,0,2026-01-01T00:00:01Z,-0,usage,cpu,cpu0\r\n\
            ,_result,1,2026-01-01T00:00:01Z,2,usage,cpu,\"a,\"\"b\"\r\n\r\n\
            #datatype,string,long,dateTime:RFC3339,long,string,string\r\n\
            ,result,table,_time,_value,_field,_measurement\r\n\
            ,_result,2,2026-01-01T00:00:00Z,7,total,mem\r\n";
        let (mut names, mut fields) = (Names::default(), Vec::new());
        of_flux(&mut names, csv, &mut fields).unwrap();
        assert_eq!(
            shown(&names, &fields),
            [
                "1767225600500000000 cpu,cpu=cpu0 usage=1.5",
                "1767225601000000000 cpu,cpu=cpu0 usage=-0.0",
                "1767225601000000000 cpu,cpu=a,\"b usage=2.0",
                "1767225600000000000 mem total=7i",
            ]
        );
        let failed = "#datatype,string,string\r\n,error,reference\r\n,boom,1\r\n";
        assert!(of_flux(&mut Names::default(), failed, &mut Vec::new()).is_err());
    }

    #[test]
    fn line_protocol_and_a_sample_give_the_same_fields() {
        use vitals_client::simulate::host::Host;
        use vitals_client::simulate::script::Given;
        let sample = Host::numbered(1, 0, "sim-", 1_000).sample(1_790_000_000_000, &Given::default());
        let mut text = Vec::new();
        let tags = vitals_wire::line::HostTags::new("a host", []);
        vitals_wire::line::write_sample(&mut text, &tags, &sample);
        let text = format!("{}cpu,host=x usa\n", String::from_utf8(text).unwrap());
        let (mut names, mut sent, mut wanted) = (Names::default(), Vec::new(), Vec::new());
        of_lines(&mut names, &text, &mut sent).unwrap();
        of_sample(&mut names, &sample, &mut wanted);
        assert!(wanted.len() > 50);
        assert_eq!(shown(&names, &sent), shown(&names, &wanted));
    }
}
