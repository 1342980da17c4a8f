//! How people and scripts name a field: `measurement.field` or `measurement.field{tag=value,…}`.
//!
//! The last dot before the tags parts measurement and field. Values may stand in double quotes, in which `\"` and `\\`
//! mean a quote and a backslash. Blanks around names and values are not part of them. Without tags a selector means
//! `cpu-total` for `cpu`, and every series elsewhere.

use std::fmt;
use std::str::FromStr;

/// Which series of a host are meant, and which field of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldSelector {
    measurement: String,
    field: String,
    /// Ascending by key, each key once.
    tags: Vec<(String, String)>,
}

/// What is wrong with a selector, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} at column {column} of {text:?}; a field is measurement.field or measurement.field{{tag=value}}"
)]
pub struct SelectorError {
    /// What was found or missed.
    pub what: &'static str,
    /// Where, counted in characters from 1.
    pub column: usize,
    /// All of what was read.
    pub text: String,
}

impl FieldSelector {
    /// Such as `cpu`.
    pub fn measurement(&self) -> &str {
        &self.measurement
    }

    /// Such as `usage_active`.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The tags that a series must have, ascending by key.
    pub fn tags(&self) -> &[(String, String)] {
        &self.tags
    }

    /// Whether a series of this selector's measurement is meant, by its tags.
    pub fn wants<'a>(&self, mut tag: impl FnMut(&str) -> Option<&'a str>) -> bool {
        if self.tags.is_empty() {
            return self.measurement != "cpu" || tag("cpu") == Some("cpu-total");
        }
        self.tags.iter().all(|(key, value)| tag(key) == Some(value))
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.measurement, self.field)?;
        for (i, (key, value)) in self.tags.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            write!(f, "{}{key}=\"{value}\"", if i == 0 { '{' } else { ',' })?;
        }
        if self.tags.is_empty() { Ok(()) } else { f.write_str("}") }
    }
}

impl FromStr for FieldSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Parser { text, at: 0 }.selector()
    }
}

/// Characters that part things and so cannot be in a name.
fn is_mark(c: char) -> bool {
    matches!(c, '{' | '}' | '=' | ',' | '"')
}

struct Parser<'a> {
    text: &'a str,
    /// Bytes read so far.
    at: usize,
}

impl Parser<'_> {
    fn selector(mut self) -> Result<FieldSelector, SelectorError> {
        let start = self.at;
        let name = self.name();
        let Some((measurement, field)) = name.rsplit_once('.') else {
            return Err(self.error_at(self.at, "a dot and a field are missing"));
        };
        let dot = start + (self.text[start..].find(name.as_str()).unwrap_or(0)) + measurement.len();
        if measurement.is_empty() {
            return Err(self.error_at(dot, "the measurement is missing"));
        }
        if field.is_empty() {
            return Err(self.error_at(dot + 1, "the field is missing"));
        }
        if let Some(blank) = name.find(char::is_whitespace) {
            return Err(self.error_at(self.text.find(char::is_whitespace).unwrap_or(blank), "a blank"));
        }
        let tags = if self.take('{') { self.tags()? } else { Vec::new() };
        self.blanks();
        if self.at < self.text.len() {
            return Err(self.error_at(self.at, "something unexpected"));
        }
        Ok(FieldSelector { measurement: measurement.to_owned(), field: field.to_owned(), tags })
    }

    fn tags(&mut self) -> Result<Vec<(String, String)>, SelectorError> {
        let mut tags: Vec<(String, String)> = Vec::new();
        loop {
            self.blanks();
            let start = self.at;
            let key = self.name();
            if key.is_empty() {
                return Err(self.error_at(self.at, "a tag is missing"));
            }
            if tags.iter().any(|(other, _)| *other == key) {
                return Err(self.error_at(start, "the same tag a second time"));
            }
            if !self.take('=') {
                return Err(self.error_at(self.at, "= is missing"));
            }
            let value = self.value()?;
            tags.push((key, value));
            if self.take('}') {
                tags.sort();
                return Ok(tags);
            }
            if !self.take(',') {
                return Err(self.error_at(self.at, "} or a comma is missing"));
            }
        }
    }

    /// Up to the next mark, without blanks around it.
    fn name(&mut self) -> String {
        let rest = &self.text[self.at..];
        let end = rest.find(is_mark).unwrap_or(rest.len());
        self.at += end;
        rest[..end].trim().to_owned()
    }

    fn value(&mut self) -> Result<String, SelectorError> {
        self.blanks();
        let start = self.at;
        if !self.take('"') {
            let rest = &self.text[self.at..];
            let end = rest.find([',', '}', '"', '{']).unwrap_or(rest.len());
            self.at += end;
            let value = rest[..end].trim();
            if value.is_empty() {
                return Err(self.error_at(self.at, "the tag's value is missing"));
            }
            return Ok(value.to_owned());
        }
        let mut value = String::new();
        let mut characters = self.text[self.at..].char_indices();
        while let Some((offset, c)) = characters.next() {
            match c {
                '"' => {
                    self.at += offset + 1;
                    if value.is_empty() {
                        return Err(self.error_at(start, "the tag's value is missing"));
                    }
                    return Ok(value);
                }
                '\\' => match characters.next() {
                    Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                    _ => return Err(self.error_at(self.at + offset, "a backslash before neither \" nor \\")),
                },
                c => value.push(c),
            }
        }
        Err(self.error_at(start, "a quote that does not end"))
    }

    fn take(&mut self, mark: char) -> bool {
        self.blanks();
        let found = self.text[self.at..].starts_with(mark);
        if found {
            self.at += mark.len_utf8();
        }
        found
    }

    fn blanks(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn error_at(&self, byte: usize, what: &'static str) -> SelectorError {
        // Every place that is named lies between two characters.
        let before = self.text.get(..byte).unwrap_or(self.text);
        SelectorError { what, column: before.chars().count() + 1, text: self.text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, String, Vec<(String, String)>) {
        let selector: FieldSelector = text.parse().unwrap();
        (selector.measurement, selector.field, selector.tags)
    }

    #[test]
    fn selectors_are_read_with_and_without_tags_and_quotes() {
        type Tags<'a> = &'a [(&'a str, &'a str)];
        let table: &[(&str, &str, &str, Tags<'_>)] = &[
            ("cpu.usage_active", "cpu", "usage_active", &[]),
            (" mem.used ", "mem", "used", &[]),
            ("app.requests.count", "app.requests", "count", &[]),
            ("cpu.usage_user{cpu=cpu0}", "cpu", "usage_user", &[("cpu", "cpu0")]),
            ("disk.used{path=/,device=sda1}", "disk", "used", &[("device", "sda1"), ("path", "/")]),
            ("disk.used { path = \"/a, b}\" } ", "disk", "used", &[("path", "/a, b}")]),
            ("temp.temp{sensor=\"a\\\"b\\\\\"}", "temp", "temp", &[("sensor", "a\"b\\")]),
            ("net.speed{interface=a=b}", "net", "speed", &[("interface", "a=b")]),
            ("x.y{z=数据}", "x", "y", &[("z", "数据")]),
        ];
        for (text, measurement, field, tags) in table {
            let tags = tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            assert_eq!(parsed(text), ((*measurement).to_owned(), (*field).to_owned(), tags), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_column() {
        let table = [
            ("", "a dot and a field are missing", 1),
            ("cpu", "a dot and a field are missing", 4),
            (".x", "the measurement is missing", 1),
            ("cpu.", "the field is missing", 5),
            ("c pu.x", "a blank", 2),
            ("cpu.x{", "a tag is missing", 7),
            ("cpu.x{}", "a tag is missing", 7),
            ("cpu.x{cpu}", "= is missing", 10),
            ("cpu.x{cpu=}", "the tag's value is missing", 11),
            ("cpu.x{cpu=\"\"}", "the tag's value is missing", 11),
            ("cpu.x{cpu=a", "} or a comma is missing", 12),
            ("cpu.x{cpu=\"a}", "a quote that does not end", 11),
            ("cpu.x{é=\"a\\n\"}", "a backslash before neither \" nor \\", 11),
            ("cpu.x{a=b,a=c}", "the same tag a second time", 11),
            ("cpu.x{a=b} y", "something unexpected", 12),
            ("cpu.x}", "something unexpected", 6),
        ];
        for (text, what, column) in table {
            let error = text.parse::<FieldSelector>().unwrap_err();
            assert_eq!((error.what, error.column), (what, column), "{text}: {error}");
        }
    }

    #[test]
    fn a_selector_survives_its_text_form() {
        for text in ["cpu.usage_user", "disk.used{device=sda1,path=\"/ \\\"\\\\ }\"}"] {
            let selector: FieldSelector = text.parse().unwrap();
            assert_eq!(selector.to_string().parse(), Ok(selector));
        }
    }

    #[test]
    fn without_tags_cpu_means_its_total_and_others_mean_every_series() {
        let wants = |text: &str, tags: &[(&str, &'static str)]| {
            let selector: FieldSelector = text.parse().unwrap();
            selector.wants(|key| tags.iter().find(|(k, _)| *k == key).map(|(_, v)| *v))
        };
        assert!(wants("cpu.usage_user", &[("cpu", "cpu-total")]));
        assert!(!wants("cpu.usage_user", &[("cpu", "cpu0")]));
        assert!(wants("cpu.usage_user{cpu=cpu0}", &[("cpu", "cpu0")]));
        assert!(wants("disk.used", &[("path", "/")]));
        assert!(wants("disk.used{path=/}", &[("path", "/"), ("device", "x")]));
        assert!(!wants("disk.used{path=/,device=y}", &[("path", "/"), ("device", "x")]));
    }
}
