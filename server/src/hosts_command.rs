//! `vitals-server hosts`.

use anyhow::{Context, bail};
use serde_json::Value;

use crate::config::Config;
use crate::control::{self, Answer, Request};
use crate::data_dir::DataDir;
use crate::state::State;

/// Where the server keeps who is who.
const STATE_FILE: &str = "state.db";

/// Lists all hosts: asks the running server, or reads its files where none runs.
pub fn run(config: &Config, json: bool) -> anyhow::Result<()> {
    let dir = &config.data_dir.0;
    let answer = control::ask(dir, &Request::Hosts)
        .with_context(|| format!("cannot ask the server on {}", dir.display()))?;
    let hosts = match answer {
        Some(Answer::Ok(hosts)) => hosts,
        Some(Answer::Error(error)) => bail!("{error}"),
        // Looked for before anything is opened: opening makes what is not there.
        None if dir.join(STATE_FILE).is_file() => from_files(config)?,
        None => bail!(
            "no server runs on {dir}, and none ever did: there is no {STATE_FILE} in it; name another with --data-dir",
            dir = dir.display()
        ),
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
    let (state, _thread) = State::open(&data_dir.path().join(STATE_FILE))?;
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
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

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
