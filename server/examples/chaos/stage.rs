//! A run in a directory of its own, which stays if it fails.

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};

/// Does `work` in a new directory whose name begins with `prefix`, until it ends or a signal comes. Whatever still runs
/// is ended before the directory goes; after a failure, or where it is to be kept, it stays.
pub fn run<Work>(prefix: &str, keep: bool, work: impl FnOnce(PathBuf) -> Work) -> ExitCode
where
    Work: Future<Output = anyhow::Result<()>>,
{
    match whole(prefix, keep, work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn whole<Work>(prefix: &str, keep: bool, work: impl FnOnce(PathBuf) -> Work) -> anyhow::Result<()>
where
    Work: Future<Output = anyhow::Result<()>>,
{
    let dir = tempfile::Builder::new().prefix(prefix).tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        anyhow::Ok(tokio::select! {
            result = work(dir.path().to_owned()) => Some(result),
            _ = term.recv() => None,
            _ = int.recv() => None,
        })
    })?;
    runtime.shutdown_timeout(Duration::from_secs(5));
    let Some(result) = ended else { bail!("ended by a signal") };
    if result.is_err() || keep {
        eprintln!("logs, data and figures are kept in {}", dir.keep().display());
    }
    result
}
