//! Scripts: given values at given times, one sample a line.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use vitals_wire::name::check_host_name;

/// How a script is written; shown by `--help`.
pub const HELP: &str = r#"A script is a file of JSON lines. Each is one sample of one host, and needs a time:
  {"host":"web-1","at_s":0,"cpu":12.5}                 at_s: seconds from the start
  {"host":"web-1","at_s":5,"cpu":97,"load":8.2}
  {"host":"db-1","time_ms":1767225600000,"mem":91}     time_ms: ms since 1970; one that has passed is sent at once
  {"host":"db-1","at_s":9,"time_ms":4102444800000}     both: sent then, with that time, right or wrong
Values: cpu, mem, swap, disk (of /) in percent used, load (of 1, 5 and 15 minutes), temp in °C. What is not given is
simulated. Samples of one host are taken in the order of the file. The simulation ends after the last, unless --hosts or
--seconds say otherwise. Hosts get an id from --seed and their name."#;

/// Values that are given rather than simulated.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Given {
    /// CPU that is not idle, in percent.
    pub cpu: Option<f64>,
    /// All three load averages.
    pub load: Option<f64>,
    /// Memory in use, in percent.
    pub mem: Option<f64>,
    /// Swap space in use, in percent.
    pub swap: Option<f64>,
    /// The root file system in use, in percent.
    pub disk: Option<f64>,
    /// Temperature in °C.
    pub temp: Option<f64>,
}

/// When a sample is taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum At {
    /// Seconds after the start, with the clock's time then.
    AfterStart(f64),
    /// With this time; not before it has come.
    TimeMs(i64),
    /// Seconds after the start, with this time.
    Both(f64, i64),
}

/// One sample of a script.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// When.
    pub at: At,
    /// What.
    pub given: Given,
}

/// The steps of each host, in the order of the file.
pub type Script = BTreeMap<String, Vec<Step>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    host: String,
    at_s: Option<f64>,
    time_ms: Option<i64>,
    cpu: Option<f64>,
    load: Option<f64>,
    mem: Option<f64>,
    swap: Option<f64>,
    disk: Option<f64>,
    temp: Option<f64>,
}

/// Reads a script. The error names file and line.
pub fn read(path: &Path) -> Result<Script, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    parse(&text).map_err(|(line, message)| format!("{}:{line}: {message}", path.display()))
}

/// Parses a script. The error has the line's number.
fn parse(text: &str) -> Result<Script, (usize, String)> {
    let mut script = Script::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let (host, step) = parse_line(line).map_err(|message| (index + 1, message))?;
        script.entry(host).or_default().push(step);
    }
    if script.is_empty() {
        return Err((1, "the script has no sample".to_owned()));
    }
    Ok(script)
}

fn parse_line(line: &str) -> Result<(String, Step), String> {
    let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
    check_host_name(&line.host).map_err(|error| error.to_string())?;
    let at = match (line.at_s, line.time_ms) {
        (Some(seconds), _) if !(0.0..=1e9).contains(&seconds) => {
            return Err("at_s is a number of seconds of 0 or more".to_owned());
        }
        (Some(seconds), None) => At::AfterStart(seconds),
        (None, Some(time_ms)) => At::TimeMs(time_ms),
        (Some(seconds), Some(time_ms)) => At::Both(seconds, time_ms),
        (None, None) => return Err("a sample needs at_s or time_ms".to_owned()),
    };
    for (key, value, most) in [
        ("cpu", line.cpu, 100.0),
        ("mem", line.mem, 100.0),
        ("swap", line.swap, 100.0),
        ("disk", line.disk, 100.0),
        ("load", line.load, 1e6),
    ] {
        if value.is_some_and(|value| !(0.0..=most).contains(&value)) {
            return Err(format!("{key} is a number from 0 to {most}"));
        }
    }
    let Line { cpu, load, mem, swap, disk, temp, host, .. } = line;
    Ok((host, Step { at, given: Given { cpu, load, mem, swap, disk, temp } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_the_steps_of_their_hosts_in_order() {
        let text = "{\"host\":\"a\",\"at_s\":1,\"cpu\":50}\n\n{\"host\":\"b\",\"time_ms\":-5}\n{\"host\":\"a\",\"at_s\":0.5,\"load\":2}\n";
        let script = parse(text).unwrap();
        let of_a: Vec<_> =
            script["a"].iter().map(|step| (step.at, step.given.cpu, step.given.load)).collect();
        assert_eq!(of_a, [(At::AfterStart(1.0), Some(50.0), None), (At::AfterStart(0.5), None, Some(2.0))]);
        assert_eq!(script["b"][0], Step { at: At::TimeMs(-5), given: Given::default() });
    }

    #[test]
    fn a_line_that_is_not_understood_is_named() {
        let good = "{\"host\":\"a\",\"at_s\":1}\n";
        for (bad, words) in [
            ("{\"host\":\"a\",\"at_s\":1,\"cpuu\":1}", "unknown field `cpuu`"),
            ("{\"host\":\"a\"}", "needs at_s or time_ms"),
            ("{\"host\":\"a\",\"at_s\":-1}", "0 or more"),
            ("{\"host\":\"a\",\"at_s\":1,\"cpu\":101}", "cpu is a number from 0 to 100"),
            ("{\"host\":\"a/b\",\"at_s\":1}", "cannot hold '/'"),
            ("nonsense", "expected"),
        ] {
            let (line, message) = parse(&format!("{good}{bad}")).unwrap_err();
            assert!(line == 2 && message.contains(words), "{message}");
        }
        assert!(parse("").is_err());
    }
}
