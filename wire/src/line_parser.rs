//! A strict parser of line protocol, for tests: it takes what InfluxDB 2.7 takes, and refuses whatever two readers
//! could take for different things.
//!
//! InfluxDB finds the end of a measurement, tag key or tag value at the first comma, `=` or blank whose byte before is
//! no backslash; others skip each backslash with the byte behind it. Here both have to find the same end.

/// A value with its type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Parsed {
    /// As bits, so that -0 is not 0.
    Float(u64),
    Integer(i64),
    Text(String),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) measurement: String,
    pub(super) tags: Vec<(String, String)>,
    pub(super) fields: Vec<(String, Parsed)>,
    pub(super) time: i64,
}

type Parse<T> = Result<T, String>;

/// All lines of `bytes`, the last of which ends too.
pub(super) fn parse(bytes: &[u8]) -> Parse<Vec<Line>> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').ok_or("the last line does not end")?;
        if let Some(control) = line.chars().find(char::is_ascii_control) {
            return Err(format!("{control:?} in {line:?}"));
        }
        lines.push(parse_line(line).map_err(|error| format!("{error} in {line}"))?);
        rest = after;
    }
    Ok(lines)
}

fn parse_line(line: &str) -> Parse<Line> {
    let mut rest = line;
    if line.starts_with(['#', ' ', ',']) {
        return Err("a line cannot begin so".to_owned());
    }
    let measurement = unescape(take_until(&mut rest, ", ", "")?, ", ");
    let mut tags = Vec::new();
    let mut last_key = "";
    while let Some(after) = rest.strip_prefix(',') {
        rest = after;
        let key = take_until(&mut rest, "=", ", ")?;
        rest = &rest[1..];
        let value = take_until(&mut rest, ", ", "=")?;
        if key <= last_key {
            return Err(format!("tag {key} after {last_key}"));
        }
        if ["time", "_field", "_measurement"].contains(&key) {
            return Err(format!("{key} is refused as a tag"));
        }
        last_key = key;
        tags.push((unescape(key, ",= "), unescape(value, ",= ")));
    }
    let mut fields: Vec<(String, Parsed)> = Vec::new();
    while let Some(after) = rest.strip_prefix(if fields.is_empty() { ' ' } else { ',' }) {
        rest = after;
        let key = unescape(take_until(&mut rest, "=", ", ")?, ",= ");
        rest = &rest[1..];
        if fields.last().is_some_and(|(last, _)| *last >= key) {
            return Err(format!("field {key} out of order"));
        }
        let value = if rest.starts_with('"') {
            take_text(&mut rest)?
        } else {
            number(take_until(&mut rest, ", ", "")?)?
        };
        fields.push((key, value));
    }
    let time = rest.strip_prefix(' ').ok_or("no time")?;
    let time = time.parse().map_err(|_| format!("time {time:?}"))?;
    if fields.is_empty() {
        return Err("no fields".to_owned());
    }
    Ok(Line { measurement, tags, fields, time })
}

/// Takes what stands before the first of `ends` that is not escaped; one of `refused` may not come before.
fn take_until<'a>(rest: &mut &'a str, ends: &str, refused: &str) -> Parse<&'a str> {
    let bytes = rest.as_bytes();
    let stops = |byte: u8| ends.as_bytes().contains(&byte) || refused.as_bytes().contains(&byte);
    let by_previous = (0..bytes.len()).find(|&i| stops(bytes[i]) && (i == 0 || bytes[i - 1] != b'\\'));
    let mut by_skipping = 0;
    while by_skipping < bytes.len() && !stops(bytes[by_skipping]) {
        by_skipping += if bytes[by_skipping] == b'\\' { 2 } else { 1 };
    }
    let end = by_previous.ok_or("it does not end")?;
    if end != by_skipping {
        return Err(format!("ends at {end} or at {by_skipping}"));
    }
    if refused.as_bytes().contains(&bytes[end]) {
        return Err(format!("{:?} where one of {ends:?} should be", char::from(bytes[end])));
    }
    if end == 0 {
        return Err("empty".to_owned());
    }
    let (taken, after) = rest.split_at(end);
    *rest = after;
    Ok(taken)
}

fn unescape(text: &str, special: &str) -> String {
    special.chars().fold(text.to_owned(), |text, c| text.replace(&format!("\\{c}"), &c.to_string()))
}

fn number(text: &str) -> Parse<Parsed> {
    if let Some(digits) = text.strip_suffix('i') {
        return digits.parse().map(Parsed::Integer).map_err(|_| format!("integer {text:?}"));
    }
    // Rust would also read names of what InfluxDB cannot store.
    if !text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)) {
        return Err(format!("number {text:?}"));
    }
    match text.parse::<f64>() {
        Ok(float) if float.is_finite() => Ok(Parsed::Float(float.to_bits())),
        _ => Err(format!("float {text:?}")),
    }
}

fn take_text(rest: &mut &str) -> Parse<Parsed> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => {
                *rest = &rest[i + 1..];
                return Ok(Parsed::Text(text));
            }
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                other => return Err(format!("a backslash before {other:?}")),
            },
            c => text.push(c),
        }
    }
    Err("a text does not end".to_owned())
}

#[test]
fn the_parser_takes_good_lines() {
    let lines = parse(b"a\\ b,k\\==v\\,\\\\w f=1i,g=-0,h=\"x\\\"\\\\, =\" 5\nm f=1e-7 -1\n").unwrap();
    assert_eq!(lines[0].measurement, "a b");
    assert_eq!(lines[0].tags, [("k=".to_owned(), "v,\\\\w".to_owned())]);
    assert_eq!(lines[0].fields[1].1, Parsed::Float((-0.0f64).to_bits()));
    assert_eq!(lines[0].fields[2].1, Parsed::Text("x\"\\, =".to_owned()));
    assert_eq!((lines[1].time, &lines[1].fields[0].1), (-1, &Parsed::Float(1e-7f64.to_bits())));
}

#[test]
fn the_parser_refuses_what_a_reader_would_not_take_or_take_otherwise() {
    for bad in [
        "m f=1 5",
        "m,t= f=1 5\n",
        "m,=v f=1 5\n",
        "m,t=v\\ f=1 5\n",
        "m,t=v\\\\,u=w f=1 5\n",
        "m,t=a\\\\ b f=1 5\n",
        "m,t=v=w f=1 5\n",
        "m,b=1,a=2 f=1 5\n",
        "m,a=1,a=2 f=1 5\n",
        "m,time=1 f=1 5\n",
        "m f=NaN 5\n",
        "m f=inf 5\n",
        "m f=1e999 5\n",
        "m f= 5\n",
        "m f=1,f=2 5\n",
        "m f=1\n",
        "m f=\"a\nb\" 5\n",
        "m f=\"a 5\n",
        "m 5\n",
        "m f=9223372036854775808i 5\n",
        "#m f=1 5\n",
        "m\tx f=1 5\n",
    ] {
        assert!(parse(bad.as_bytes()).is_err(), "{bad:?} was taken");
    }
}
