use proptest::prelude::*;

use super::*;
use crate::arbitrary;
use crate::bounded::Text;
use crate::golden::{list, text};
use crate::ids::HostId;
use crate::mapping::map_sample;
use crate::reading;
use crate::section::*;

#[path = "line_parser.rs"]
mod parser;
use parser::{Line, Parsed, parse};

fn written(host: &HostTags, sample: &Sample) -> (String, usize) {
    let mut out = Vec::new();
    let lines = write_sample(&mut out, host, sample);
    (String::from_utf8(out).unwrap(), lines)
}

/// What a reader sees of a tag's key or value.
fn as_read(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_ascii_control() { '_' } else { c }).collect();
    let mut read = String::new();
    let mut backslashes = 0;
    for c in text.chars() {
        if matches!(c, ',' | '=' | ' ') {
            read.extend(std::iter::repeat_n('\\', backslashes));
        }
        backslashes = if c == '\\' { backslashes + 1 } else { 0 };
        read.push(c);
    }
    if backslashes > 0 {
        read.push('_');
    }
    read
}

fn expected_value(value: Value<'_>) -> Parsed {
    match value {
        Value::Float(float) => Parsed::Float(float.to_bits()),
        Value::Integer(integer) => Parsed::Integer(integer),
        Value::Text(text) => {
            Parsed::Text(text.chars().map(|c| if c.is_ascii_control() { '_' } else { c }).collect())
        }
    }
}

/// The lines that readers should see, made without any escaping.
fn expected(name: &str, labels: &[(Text<32>, Text<64>)], sample: &Sample) -> Vec<Line> {
    let mut lines = Vec::new();
    map_sample(sample, &mut |point: Point<'_>| {
        let mut tags: Vec<(String, String)> =
            point.tags.iter().map(|tag| (tag.key.to_owned(), as_read(tag.value))).collect();
        tags.push(("host".to_owned(), as_read(point.about.unwrap_or(name))));
        tags.retain(|(_, value)| !value.is_empty());
        if point.about.is_none() {
            let mut labels: Vec<(String, String)> = labels
                .iter()
                .filter(|(key, value)| !key.is_empty() && !value.is_empty() && &**key != "host")
                .map(|(key, value)| (as_read(key), as_read(value)))
                .filter(|(key, _)| !["time", "_field", "_measurement"].contains(&&**key))
                .collect();
            labels.sort_by(|a, b| a.0.cmp(&b.0));
            for (key, value) in labels {
                if !tags.iter().any(|(other, _)| *other == key) {
                    tags.push((key, value));
                }
            }
        }
        let fields: Vec<(String, Parsed)> =
            point.fields.iter().map(|field| (field.name.to_owned(), expected_value(field.value))).collect();
        let time = sample.time_ms * 1_000_000;
        lines.push(Line { measurement: point.measurement.to_owned(), tags, fields, time });
    });
    lines
}

/// Tags in an order of their own: a reader does not see it, and the parser has checked what was written. Where two
/// labels have the same key as read, either may stand.
fn comparable(mut lines: Vec<Line>) -> Vec<Line> {
    lines.iter_mut().for_each(|line| line.tags.sort());
    lines
}

proptest! {
    #[test]
    fn whatever_is_written_reads_back_as_it_was(
        name in arbitrary::text::<255>(),
        labels in proptest::collection::btree_map(arbitrary::text::<32>(), arbitrary::text::<64>(), 0..5),
        sample in arbitrary::hostile_sample(),
    ) {
        let pairs: Vec<_> = labels.into_iter().collect();
        // Keys that are read the same are tried by a test of their own.
        let keys: std::collections::BTreeSet<String> = pairs.iter().map(|(key, _)| as_read(key)).collect();
        prop_assume!(keys.len() == pairs.len());
        let host = HostTags::new(&name, pairs.iter().map(|(key, value)| (&**key, &**value)));
        let (out, lines) = written(&host, &sample);
        let read = parse(out.as_bytes()).map_err(TestCaseError::fail)?;
        prop_assert_eq!(read.len(), lines);
        prop_assert_eq!(comparable(read), comparable(expected(&name, &pairs, &sample)));
    }

    #[test]
    fn any_label_and_name_leave_lines_that_parse(
        name in "\\PC{1,20}",
        labels in proptest::collection::vec(("[a\\\\ ,=\n_]{0,3}|time|host|cpu|_field|_measurement", "[b\\\\ ,=\n]{0,3}"), 0..6),
    ) {
        let host = HostTags::new(&name, labels.iter().map(|(key, value)| (&**key, &**value)));
        let (out, lines) = written(&host, &reading::usual());
        let read = parse(out.as_bytes()).map_err(TestCaseError::fail)?;
        prop_assert_eq!((read.len(), lines), (23, 23));
    }

    #[test]
    fn every_finite_float_reads_back_to_the_bit(bits in any::<u64>(), centi in any::<u32>()) {
        for float in [f64::from_bits(bits), f64::from(centi) / 100.0, f64::from(centi) / 1000.0] {
            let mut out = Vec::new();
            let field = [Field { name: "f", value: Value::Float(float) }];
            let host = HostTags::new("h", []);
            LineWriter::new(&mut out, &host, 1).point(Point { measurement: "m", about: None, tags: &[], fields: &field });
            let read = parse(&out).map_err(TestCaseError::fail)?;
            if float.is_finite() {
                prop_assert_eq!(&read[0].fields[0].1, &Parsed::Float(float.to_bits()));
            } else {
                prop_assert!(read.is_empty(), "a line without fields is none");
            }
        }
    }
}

#[test]
fn a_reading_is_written_line_by_line_as_expected() {
    let sections = vec![
        Swap { total: 8, free: 5, bytes_in: None, bytes_out: Some(0) }.into(),
        Network {
            interfaces: list(vec![Interface {
                name: text("eth 0"),
                bytes_recv: 1,
                bytes_sent: 2,
                packets_recv: 3,
                packets_sent: 4,
                err_in: 5,
                err_out: 6,
                drop_in: None,
                drop_out: None,
                speed: Some(-1),
            }]),
        }
        .into(),
        Temperatures { sensors: list(vec![Temperature { sensor: text(""), millidegrees: -1_500 }]) }.into(),
    ];
    let sample = Sample { time_ms: 1_795_232_825_003, sections: list(sections) };
    let host = HostTags::new("web 1,a=b", [("zone", "eu"), ("env", "prod")]);
    let (out, lines) = written(&host, &sample);
    let want = "\
swap,env=prod,host=web\\ 1\\,a\\=b,zone=eu free=5i,out=0i,total=8i,used=3i,used_percent=37.5 1795232825003000000
net,env=prod,host=web\\ 1\\,a\\=b,interface=eth\\ 0,zone=eu bytes_recv=1i,bytes_sent=2i,err_in=5i,err_out=6i,packets_recv=3i,packets_sent=4i,speed=-1i 1795232825003000000
temp,env=prod,host=web\\ 1\\,a\\=b,zone=eu temp=-1.5 1795232825003000000
";
    assert_eq!((out.as_str(), lines), (want, 3));
}

#[test]
fn an_event_stands_under_the_host_that_it_is_about_without_the_takers_labels() {
    let event = Event {
        host: HostId([1; 16]),
        name: text("db,1"),
        kind: EventKind::Bye,
        detail: text("said \"reboot\"\nC:\\"),
    };
    let sample = Sample { time_ms: 1, sections: list(vec![Events { events: list(vec![event]) }.into()]) };
    let (out, _) = written(&HostTags::new("server", [("env", "prod")]), &sample);
    assert_eq!(
        out,
        "vitals_event,event=bye,host=db\\,1 count=1i,detail=\"said \\\"reboot\\\"_C:\\\\\" 1000000\n"
    );
}

fn one_tag(value: &str) -> String {
    let mut out = Vec::new();
    write_tag(&mut out, Tag { key: "host", value });
    String::from_utf8(out).unwrap()
}

#[test]
fn backslashes_cannot_swallow_what_follows_them() {
    assert_eq!(one_tag("a\\b"), ",host=a\\b");
    assert_eq!(one_tag("a\\,b"), ",host=a\\\\\\,b", "one before the comma is two, and the comma is escaped");
    assert_eq!(one_tag("a\\"), ",host=a\\_", "one at the end would escape the next comma");
    assert_eq!(one_tag("a\\\\"), ",host=a\\\\_");
    assert_eq!(one_tag("\\"), ",host=\\_");
    assert_eq!(one_tag("a\\\n"), ",host=a\\_");
}

#[test]
fn names_that_differ_are_written_differently() {
    let names = ["a", "a\\,", "a\\\\,", "a,", "a\\", "a\\\\", "a =", "a\\ ="];
    let written: std::collections::BTreeSet<String> = names.iter().map(|name| one_tag(name)).collect();
    assert_eq!(written.len(), names.len());
}

#[test]
fn a_label_never_shadows_a_tag_of_the_mapping_and_never_spoils_a_line() {
    let labels = [
        ("cpu", "x"),
        ("host", "other"),
        ("time", "1"),
        ("_field", "f"),
        ("_measurement", "m"),
        ("", "y"),
        ("e", ""),
    ];
    let host = HostTags::new("vm", labels);
    let sample = Sample { time_ms: 0, sections: list(vec![Cpu::default().into(), Swap::default().into()]) };
    let (out, _) = written(&host, &sample);
    let mut lines = out.lines();
    assert!(lines.next().unwrap().starts_with("cpu,cpu=cpu-total,host=vm usage"), "{out}");
    assert!(lines.next().unwrap().starts_with("swap,cpu=x,host=vm free"), "{out}");
    // Two keys that are written the same would be refused as duplicates.
    let twice = HostTags::new("vm", [("a\n", "1"), ("a_", "2")]);
    assert_eq!(twice.tags.len(), 2);
}

#[test]
fn a_time_that_nanoseconds_cannot_say_gives_no_lines() {
    let mut sample = reading::usual();
    for time_ms in [i64::MAX, i64::MIN, i64::MAX / 1_000_000 + 1] {
        sample.time_ms = time_ms;
        assert_eq!(written(&HostTags::new("vm", []), &sample), (String::new(), 0));
    }
    sample.time_ms = i64::MAX / 1_000_000;
    assert_eq!(written(&HostTags::new("vm", []), &sample).1, 23);
}

#[test]
fn the_buffer_keeps_what_was_in_it() {
    let mut out = b"before\n".to_vec();
    let none = Sample { time_ms: 0, sections: list(vec![Processes::default().into()]) };
    assert_eq!(write_sample(&mut out, &HostTags::new("vm", []), &none), 0);
    assert_eq!(out, b"before\n");
}
