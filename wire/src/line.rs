//! Line protocol, written straight into a buffer.
//!
//! Escaped as InfluxDB's line-protocol reference says: commas and blanks in measurements; commas, `=` and blanks in tag
//! keys, tag values and field keys; quotes and backslashes in texts. Two things the reference leaves open are decided
//! here, for all but texts. A backslash directly before an escaped character cannot be told from an escape: such
//! backslashes are doubled, and readers see them doubled. One at the end cannot be written at all, since InfluxDB 2.7
//! takes the comma, `=` or blank after any backslash as escaped, however many there are: a `_` follows it. A control
//! character, newlines among them, becomes `_`.

use crate::mapping::{self, Field, Point, Points, Tag, Value};
use crate::sample::Sample;

/// Tag keys for which InfluxDB refuses a line.
const REFUSED_TAG_KEYS: &[&[u8]] = &[b"time", b"_field", b"_measurement"];

/// What of a host stands on each of its lines: its name and its labels, escaped once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTags {
    /// Ascending by key.
    tags: Box<[EscapedTag]>,
}

/// A tag's escaped key and its `,key=value`.
type EscapedTag = (Box<[u8]>, Box<[u8]>);

impl HostTags {
    /// The tags of a host of this name with these labels. A label whose key or value is empty is left out, one named
    /// `host` too, one whose key InfluxDB refuses, and all but one of those whose keys are written the same.
    pub fn new<'a>(name: &'a str, labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let labels = labels.into_iter().filter(|(key, _)| *key != "host");
        let mut tags: Vec<EscapedTag> = std::iter::once(("host", name))
            .chain(labels)
            .filter(|(key, value)| !key.is_empty() && !value.is_empty())
            .map(|(key, value)| {
                let mut escaped_key = Vec::with_capacity(key.len());
                write_key(&mut escaped_key, key);
                let mut escaped = Vec::with_capacity(key.len() + value.len() + 2);
                write_tag(&mut escaped, Tag { key, value });
                (escaped_key.into(), escaped.into())
            })
            .filter(|(key, _): &EscapedTag| !REFUSED_TAG_KEYS.contains(&&**key))
            .collect();
        tags.sort();
        tags.dedup_by(|a, b| a.0 == b.0);
        Self { tags: tags.into() }
    }
}

/// Appends one line for each point of `sample`, each ending in a newline, with time in ns. Gives how many.
pub fn write_sample(out: &mut Vec<u8>, host: &HostTags, sample: &Sample) -> usize {
    let Some(time_ns) = sample.time_ms.checked_mul(1_000_000) else {
        return 0;
    };
    let mut writer = LineWriter::new(out, host, time_ns);
    mapping::map_sample(sample, &mut writer);
    writer.lines
}

/// Appends one line for each of the points that a sample of this time mapped to, as `write_sample` does. Gives how many.
pub fn write_points(out: &mut Vec<u8>, host: &HostTags, time_ms: i64, points: &[Point<'_>]) -> usize {
    let Some(time_ns) = time_ms.checked_mul(1_000_000) else {
        return 0;
    };
    let mut writer = LineWriter::new(out, host, time_ns);
    points.iter().for_each(|point| writer.point(*point));
    writer.lines
}

/// Writes points of one host and one time.
struct LineWriter<'a> {
    out: &'a mut Vec<u8>,
    host: &'a HostTags,
    /// ` TIME\n`, the same for each line.
    end: [u8; 24],
    end_len: usize,
    lines: usize,
}

impl<'a> LineWriter<'a> {
    fn new(out: &'a mut Vec<u8>, host: &'a HostTags, time_ns: i64) -> Self {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(time_ns).as_bytes();
        let mut end = [b' '; 24];
        end[1..=digits.len()].copy_from_slice(digits);
        end[digits.len() + 1] = b'\n';
        Self { out, host, end, end_len: digits.len() + 2, lines: 0 }
    }

    fn tags(&mut self, point: &Point<'_>) {
        if let Some(about) = point.about {
            // Few lines are about others: no need to merge quickly.
            write_tags_about(self.out, about, point.tags);
            return;
        }
        let mut own = point.tags.iter().filter(|tag| !tag.value.is_empty()).peekable();
        for (key, escaped) in &self.host.tags {
            while let Some(tag) = own.next_if(|tag| tag.key.as_bytes() < &**key) {
                write_tag(self.out, *tag);
            }
            // A label never shadows a tag of the mapping.
            if own.peek().is_none_or(|tag| tag.key.as_bytes() != &**key) {
                self.out.extend_from_slice(escaped);
            }
        }
        for tag in own {
            write_tag(self.out, *tag);
        }
    }
}

impl Points for LineWriter<'_> {
    fn point(&mut self, point: Point<'_>) {
        let start = self.out.len();
        write_escaped(self.out, point.measurement, |b| matches!(b, b',' | b' '));
        self.tags(&point);
        let mut separator = b' ';
        for Field { name, value } in point.fields {
            if matches!(value, Value::Float(float) if !float.is_finite()) || name.is_empty() {
                continue;
            }
            self.out.push(separator);
            separator = b',';
            write_key(self.out, name);
            self.out.push(b'=');
            write_value(self.out, value);
        }
        if separator == b' ' || point.measurement.is_empty() {
            self.out.truncate(start);
            return;
        }
        self.out.extend_from_slice(&self.end[..self.end_len]);
        self.lines += 1;
    }
}

fn write_tags_about(out: &mut Vec<u8>, about: &str, tags: &[Tag<'_>]) {
    let host = Tag { key: "host", value: about };
    let mut all: Vec<Tag<'_>> =
        tags.iter().copied().chain([host]).filter(|tag| !tag.value.is_empty()).collect();
    all.sort_by_key(|tag| tag.key);
    all.into_iter().for_each(|tag| write_tag(out, tag));
}

fn write_tag(out: &mut Vec<u8>, tag: Tag<'_>) {
    out.push(b',');
    write_key(out, tag.key);
    out.push(b'=');
    write_key(out, tag.value);
}

/// Tag keys, tag values and field keys.
fn write_key(out: &mut Vec<u8>, key: &str) {
    write_escaped(out, key, |b| matches!(b, b',' | b'=' | b' '));
}

fn write_escaped(out: &mut Vec<u8>, text: &str, is_special: impl Fn(u8) -> bool) {
    let bytes = text.as_bytes();
    // Nearly all names are plain.
    if bytes.iter().all(|&b| b > b' ' && !matches!(b, b'\\' | b'=' | b',' | 0x7f)) {
        out.extend_from_slice(bytes);
        return;
    }
    let mut backslashes = 0;
    for &byte in bytes {
        if byte == b'\\' {
            backslashes += 1;
        } else {
            if is_special(byte) {
                out.extend(std::iter::repeat_n(b'\\', backslashes + 1));
            }
            backslashes = 0;
        }
        out.push(if byte.is_ascii_control() { b'_' } else { byte });
    }
    if backslashes > 0 {
        out.push(b'_');
    }
}

fn write_value(out: &mut Vec<u8>, value: &Value<'_>) {
    match *value {
        Value::Float(float) => write_float(out, float),
        Value::Integer(integer) => {
            out.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes());
            out.push(b'i');
        }
        Value::Text(text) => {
            out.push(b'"');
            for &byte in text.as_bytes() {
                if matches!(byte, b'"' | b'\\') {
                    out.push(b'\\');
                }
                out.push(if byte.is_ascii_control() { b'_' } else { byte });
            }
            out.push(b'"');
        }
    }
}

/// The shortest text that reads back as the same float; whole ones without a point, as Telegraf writes them.
fn write_float(out: &mut Vec<u8>, float: f64) {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(float);
    out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
