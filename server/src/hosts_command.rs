//! `vitals-server hosts`.

use anyhow::{Context, bail};
use serde_json::Value;

use crate::api;
use crate::commands::table::shown;
use crate::config::Config;
use crate::control::{self, Answer, Request};
use crate::data_dir::DataDir;
use crate::state::State;

/// Where the server keeps who is who.
const STATE_FILE: &str = "state.db";

/// Lists all hosts: asks the running server, or reads its files where none runs.
///
/// # Errors
/// The server or the files cannot be read.
pub fn run(config: &Config, json: bool) -> anyhow::Result<()> {
    let hosts = hosts(config)?;
    if json {
        println!("{hosts:#}");
    } else {
        print!("{}", table(&hosts));
    }
    Ok(())
}

/// Shows one host, by its id or present name.
///
/// # Errors
/// There is no such host, or the server or the files cannot be read.
pub fn show(config: &Config, wanted: &str, json: bool) -> anyhow::Result<()> {
    let hosts = hosts(config)?;
    let found = hosts["hosts"].as_array().and_then(|hosts| {
        let by = |key: &str| hosts.iter().find(|host| host[key] == wanted);
        by("id").or_else(|| by("name"))
    });
    let Some(host) = found else {
        bail!("no host has the id or name {wanted:?}: `vitals-server host list` shows all");
    };
    if json {
        println!("{host:#}");
    } else {
        print!("{}", sheet(host));
    }
    Ok(())
}

fn hosts(config: &Config) -> anyhow::Result<Value> {
    let dir = &config.data_dir.0;
    let answer = control::ask(dir, &Request::Hosts)
        .with_context(|| format!("cannot ask the server on {}", dir.display()))?;
    match answer {
        Some(Answer::Ok(hosts)) => Ok(hosts),
        Some(Answer::Error(error)) => bail!("{error}"),
        // Looked for before anything is opened: opening makes what is not there.
        None => check_used(config).and_then(|()| from_files(config)),
    }
}

/// Whether a server has ever used the data directory.
///
/// # Errors
/// None has.
pub fn check_used(config: &Config) -> anyhow::Result<()> {
    let dir = &config.data_dir.0;
    if !dir.join(STATE_FILE).is_file() {
        bail!(
            "no server runs on {dir}, and none ever did: there is no {STATE_FILE} in it; name another with --data-dir",
            dir = dir.display()
        );
    }
    Ok(())
}

/// What is known without a server: names and facts, and nothing of now.
fn from_files(config: &Config) -> anyhow::Result<Value> {
    let data_dir = DataDir::lock(&config.data_dir.0)?;
    let (state, _thread) = State::open(&data_dir.path().join(STATE_FILE))?;
    Ok(api::hosts_json_at_rest(&state)?)
}

/// One host, a line for each thing that is known of it.
fn sheet(host: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut sheet = String::new();
    let mut line = |key: &str, value: &str| sheet += &format!("{key:16}  {}\n", shown(value));
    for (key, value) in host.as_object().into_iter().flatten() {
        match value {
            Value::Object(parts) if key == "labels" => {
                for (label, value) in parts {
                    let origin = text(&host["label_origins"][label]);
                    line("label", &format!("{label}={} ({origin})", text(value)));
                }
            }
            Value::Object(_) if key == "label_origins" => {}
            Value::Object(parts) => parts.iter().for_each(|(part, value)| line(part, &text(value))),
            Value::Bool(false) => {}
            value => line(key, &text(value)),
        }
    }
    sheet
}

fn table(answer: &Value) -> String {
    let none = Vec::new();
    let hosts = answer["hosts"].as_array().unwrap_or(&none);
    fn cell_of<'a>(host: &'a Value, name: &str) -> &'a str {
        match name {
            "state" if host["revoked"].is_string() => "revoked",
            _ => host[name].as_str().unwrap_or("-"),
        }
    }
    let column = |name: &'static str| {
        let cells = hosts.iter().map(move |host| cell_of(host, name));
        let width =
            cells.clone().map(|cell| cell.chars().count()).chain([name.len()]).max().unwrap_or_default();
        (name, width)
    };
    let columns = ["name", "state", "last_seen", "client_version", "address", "id"].map(column);
    let line = |cells: [&str; 6]| {
        let cells = cells.iter().zip(columns).map(|(cell, (_, width))| format!("{:width$}", shown(cell)));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut table = line(columns.map(|(name, _)| name));
    for host in hosts {
        table += &line(columns.map(|(name, _)| cell_of(host, name)));
    }
    table
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn hosts_stand_in_columns() {
        let answer = serde_json::json!({ "hosts": [
            { "name": "a", "state": "up", "id": "00" },
            { "name": "数据库", "state": "down", "id": "01" },
            { "name": "gone", "state": "down", "revoked": "2026-01-31T12:00:00Z", "id": "02" },
        ]});
        let lines: Vec<String> = table(&answer).lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "name  state    last_seen  client_version  address  id");
        assert_eq!(lines[1], "a     up       -          -               -        00");
        assert_eq!(lines[3], "gone  revoked  -          -               -        02");
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn a_host_is_shown_with_the_origin_of_its_labels() {
        let host = serde_json::json!({
            "name": "web", "labels": { "env": "prod" }, "label_origins": { "env": "token" }, "rotate": false,
            "facts": { "cpus": 4 },
        });
        let lines: Vec<String> =
            sheet(&host).lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines, ["cpus 4", "label env=prod (token)", "name web"]);
    }

    #[test]
    fn what_a_host_says_of_itself_does_nothing_to_the_terminal() {
        let evil = "1.0\u{1b}]0;all is well\u{7}\n\u{9b}31m";
        let host = serde_json::json!({ "name": "web", "client_version": evil, "facts": { "os": evil } });
        let all = [sheet(&host), table(&serde_json::json!({ "hosts": [host] }))].concat();
        assert_eq!(all.lines().count(), 3 + 2, "{all:?}");
        assert!(!all.contains(|c: char| c.is_control() && c != '\n'), "{all:?}");
    }

    #[test]
    fn a_directory_that_is_no_servers_is_left_as_it_is() {
        let dir = tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap();
        let mut config = Config::default();
        for data_dir in [dir.path().to_owned(), dir.path().join("none")] {
            config.data_dir.0 = data_dir.clone();
            let error = run(&config, false).unwrap_err().to_string();
            assert!(error.contains("state.db") && error.contains(data_dir.to_str().unwrap()), "{error}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
