//! `vitals-server hosts`.

use anyhow::{Context, bail};
use serde_json::Value;

use crate::config::Config;
use crate::control::{self, Answer, Request};
use crate::data_dir::DataDir;
use crate::state::State;

/// Lists all hosts: asks the running server, or reads its files where none runs.
pub fn run(config: &Config, json: bool) -> anyhow::Result<()> {
    let dir = &config.data_dir.0;
    let answer = control::ask(dir, &Request::Hosts)
        .with_context(|| format!("cannot ask the server on {}", dir.display()))?;
    let hosts = match answer {
        Some(Answer::Ok(hosts)) => hosts,
        Some(Answer::Error(error)) => bail!("{error}"),
        None if dir.exists() => from_files(config)?,
        None => bail!("no server runs on {dir}, and there is no such directory", dir = dir.display()),
    };
    if json {
        println!("{hosts:#}");
    } else {
        print!("{}", table(&hosts));
    }
    Ok(())
}

/// What is known without a server: names and facts, and nothing of now.
fn from_files(config: &Config) -> anyhow::Result<Value> {
    let data_dir = DataDir::lock(&config.data_dir.0)?;
    let (state, _thread) = State::open(&data_dir.path().join("state.db"))?;
    let hosts = state.hosts();
    let hosts = hosts.iter().map(|host| {
        serde_json::json!({
            "id": host.id.to_string(),
            "name": host.name(),
            "state": "server not running",
            "client_version": host.client_version,
        })
    });
    Ok(serde_json::json!({ "hosts": hosts.collect::<Vec<_>>() }))
}

fn table(answer: &Value) -> String {
    let none = Vec::new();
    let hosts = answer["hosts"].as_array().unwrap_or(&none);
    let column = |name: &'static str| {
        let cells = hosts.iter().map(move |host| host[name].as_str().unwrap_or("-"));
        let width =
            cells.clone().map(|cell| cell.chars().count()).chain([name.len()]).max().unwrap_or_default();
        (name, width)
    };
    let columns = ["name", "state", "last_seen", "client_version", "address", "id"].map(column);
    let line = |cells: [&str; 6]| {
        let cells = cells.iter().zip(columns).map(|(cell, (_, width))| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut table = line(columns.map(|(name, _)| name));
    for host in hosts {
        table += &line(columns.map(|(name, _)| host[name].as_str().unwrap_or("-")));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_stand_in_columns() {
        let answer = serde_json::json!({ "hosts": [
            { "name": "a", "state": "up", "id": "00" },
            { "name": "数据库", "state": "down", "id": "01" },
        ]});
        let lines: Vec<String> = table(&answer).lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "name  state  last_seen  client_version  address  id");
        assert_eq!(lines[1], "a     up     -          -               -        00");
        assert_eq!(lines.len(), 3);
    }
}
