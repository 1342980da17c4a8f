//! `vitals-server targets` and `vitals-server quarantine`.

use anyhow::{Context, bail};
use serde_json::Value;

use crate::api;
use crate::app::targets::open_all;
use crate::config::Config;
use crate::control::{self, Answer, Request};
use crate::data_dir::DataDir;
use crate::metrics::Metrics;

/// Lists the InfluxDBs that are written to: asks the running server, or reads its files where none runs.
///
/// # Errors
/// The server or the files cannot be read.
pub fn targets(config: &Config, json: bool) -> anyhow::Result<()> {
    let answer = match ask(config, &Request::Targets)? {
        Some(answer) => answer,
        None => {
            let data_dir = DataDir::lock(&config.data_dir.0)?;
            api::targets_json_at_rest(&open_all(config, &data_dir, &Metrics::new())?)?
        }
    };
    if json {
        println!("{answer:#}");
    } else {
        print!("{}", targets_table(&answer));
    }
    Ok(())
}

/// Lists lines that InfluxDB refused, newest first.
///
/// # Errors
/// There is no such target, or the server or the files cannot be read.
pub fn quarantine(config: &Config, target: Option<String>, limit: usize, json: bool) -> anyhow::Result<()> {
    let request = Request::Quarantine { target: target.clone(), skip: 0, limit };
    let answer = match ask(config, &request)? {
        Some(answer) => answer,
        None => {
            let data_dir = DataDir::lock(&config.data_dir.0)?;
            let targets = open_all(config, &data_dir, &Metrics::new())?;
            api::quarantine_json(&targets, target.as_deref(), 0, limit).map_err(anyhow::Error::msg)?
        }
    };
    if json {
        println!("{answer:#}");
    } else {
        print!("{}", quarantine_text(&answer));
    }
    Ok(())
}

/// `None` where no server runs, on a directory that a server has used.
fn ask(config: &Config, request: &Request) -> anyhow::Result<Option<Value>> {
    let dir = &config.data_dir.0;
    let answer =
        control::ask(dir, request).with_context(|| format!("cannot ask the server on {}", dir.display()))?;
    match answer {
        Some(Answer::Ok(answer)) => Ok(Some(answer)),
        Some(Answer::Error(error)) => bail!("{error}"),
        // Looked for before anything is opened: opening makes what is not there.
        None if dir.join("state.db").is_file() => Ok(None),
        None => bail!(
            "no server runs on {dir}, and none ever did: there is no state.db in it; name another with --data-dir",
            dir = dir.display()
        ),
    }
}

fn list<'a>(answer: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    answer[key].as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn targets_table(answer: &Value) -> String {
    let columns = [
        "name",
        "state",
        "since",
        "lag_bytes",
        "lag_seconds",
        "owed_spans",
        "owed_seconds",
        "quarantined",
        "url",
    ];
    let head = columns.map(str::to_owned);
    let rows: Vec<_> =
        list(answer, "targets").map(|target| columns.map(|column| text(&target[column]))).collect();
    let mut table = String::new();
    for row in std::iter::once(&head).chain(&rows) {
        let cells = row.iter().enumerate().map(|(at, cell)| {
            let width = rows.iter().map(|row| row[at].chars().count()).chain([head[at].len()]).max();
            format!("{cell:width$}", width = width.unwrap_or_default())
        });
        table += &format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    for target in list(answer, "targets") {
        let name = text(&target["name"]);
        if let Some(reason) = target["reason"].as_str() {
            table += &format!("{name}: {reason}: {}\n", text(&target["error"]));
        }
        if let Some(advice) = target["advice"].as_str() {
            table += &format!("{name}: {advice}\n");
        }
        let dropped = target["dropped"].as_object().into_iter().flatten();
        let dropped: Vec<String> = dropped.map(|(reason, count)| format!("{count} {reason}")).collect();
        if !dropped.is_empty() {
            table += &format!("{name}: dropped since the server's start: {} lines\n", dropped.join(", "));
        }
    }
    table
}

/// As in the file: what is printed can be written again.
fn quarantine_text(answer: &Value) -> String {
    let lines = list(answer, "lines").map(|line| {
        let [target, time, reason, error, line] =
            ["target", "time", "reason", "error", "line"].map(|key| text(&line[key]));
        format!("# {time} {target} {reason}: {error}\n{line}\n")
    });
    let shown: String = lines.collect();
    if shown.is_empty() { "# nothing is in quarantine\n".to_owned() } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_target_stands_in_columns_with_what_to_do() {
        let answer = serde_json::json!({ "targets": [
            { "name": "influx", "state": "ok", "lag_bytes": 12, "url": "http://a" },
            { "name": "new", "state": "held", "since": "2026-01-01T00:00:00Z", "reason": "unauthorized",
              "error": "401 unauthorized access", "advice": "check the token", "dropped": {"too_old": 7} },
        ]});
        let table = targets_table(&answer);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].starts_with("name    state  since"), "{table}");
        assert!(lines[1].ends_with("http://a"), "{table}");
        assert_eq!(lines[3], "new: unauthorized: 401 unauthorized access");
        assert_eq!(lines[4], "new: check the token");
        assert_eq!(lines[5], "new: dropped since the server's start: 7 too_old lines");
    }

    #[test]
    fn what_is_listed_of_the_quarantine_is_line_protocol() {
        let answer = serde_json::json!({ "total": 1, "lines": [
            { "target": "influx", "time": "2026-01-01T00:00:00Z", "reason": "type_conflict", "error": "422 no", "line": "m v=1 1" },
        ]});
        let expected = "# 2026-01-01T00:00:00Z influx type_conflict: 422 no\nm v=1 1\n";
        assert_eq!(quarantine_text(&answer), expected);
        assert!(quarantine_text(&serde_json::json!({ "lines": [] })).starts_with('#'));
    }
}
