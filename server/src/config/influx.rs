//! Where to write: InfluxDB, and others beside it.
//!
//! ```toml
//! [influx]
//! url = "http://127.0.0.1:8086"
//! token_file = "/etc/vitals/influx.token"
//!
//! [[influx.targets]]
//! name = "new"
//! url = "https://influx.example:8086"
//! token_file = "/etc/vitals/new.token"
//! start = 2026-11-20T00:00:00Z
//! ```

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::values::{Masked, Time, duration, duration_within};
use crate::influx::{InfluxError, InfluxOptions};

/// What the target is called that `[influx]` itself describes.
pub const FIRST_TARGET: &str = "influx";
/// Targets at most: each reads the journal for itself.
const MAX_TARGETS: usize = 16;
/// Characters of a name.
const MAX_NAME: usize = 32;

/// InfluxDB 2.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Influx {
    /// Such as `http://127.0.0.1:8086`. Empty: no InfluxDB, or only those of `targets`.
    pub url: String,
    /// The organisation.
    pub org: String,
    /// The bucket.
    pub bucket: String,
    /// The token; better in `token_file`.
    pub token: Masked,
    /// A file that holds the token.
    pub token_file: Option<PathBuf>,
    /// Compress what is sent.
    pub gzip: bool,
    /// Time a request may take.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Others that are written to beside it, each at its own pace.
    pub targets: Vec<InfluxTarget>,
}

impl Default for Influx {
    fn default() -> Self {
        let InfluxTarget { url, org, bucket, token, token_file, gzip, timeout, .. } = InfluxTarget::default();
        Self { url, org, bucket, token, token_file, gzip, timeout, targets: Vec::new() }
    }
}

/// One more InfluxDB 2.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InfluxTarget {
    /// What it is called: small letters, digits, `-` and `_`, a letter first, at most 32. Its place in the journal belongs
    /// to the name: another name begins anew.
    pub name: String,
    /// Such as `http://127.0.0.1:8086`.
    pub url: String,
    /// The organisation.
    pub org: String,
    /// The bucket.
    pub bucket: String,
    /// The token; better in `token_file`.
    pub token: Masked,
    /// A file that holds the token.
    pub token_file: Option<PathBuf>,
    /// Compress what is sent.
    pub gzip: bool,
    /// Time a request may take.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// From when on it gets history too, when it is new. Later `vitals-server backfill` does that.
    pub start: Option<Time>,
}

impl Default for InfluxTarget {
    fn default() -> Self {
        Self {
            name: String::new(),
            url: String::new(),
            org: "vitals".to_owned(),
            bucket: "vitals".to_owned(),
            token: Masked::default(),
            token_file: None,
            gzip: true,
            timeout: Duration::from_secs(30),
            start: None,
        }
    }
}

impl Influx {
    /// All that is written to, the first one first.
    pub fn all(&self) -> Vec<InfluxTarget> {
        let Self { url, org, bucket, token, token_file, gzip, timeout, targets } = self.clone();
        let name = FIRST_TARGET.to_owned();
        let has_first = !url.is_empty();
        let first = InfluxTarget { name, url, org, bucket, token, token_file, gzip, timeout, start: None };
        has_first.then_some(first).into_iter().chain(targets).collect()
    }

    /// A file of a token wins over one that stands beside it in the configuration.
    pub(super) fn read_tokens(&mut self) -> Result<(), ConfigError> {
        let others = self.targets.iter_mut().map(|target| (&target.token_file, &mut target.token));
        for (file, token) in std::iter::once((&self.token_file, &mut self.token)).chain(others) {
            if let Some(file) = file {
                let text = std::fs::read_to_string(file)
                    .map_err(|error| ConfigError::Unreadable { file: file.clone(), error })?;
                *token = Masked(text.trim().to_owned());
            }
        }
        Ok(())
    }

    /// What a writer itself would refuse, and names that are none.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |text: String| Err(ConfigError::Value(text));
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        duration_within("influx.timeout", self.timeout, second..=10 * minute)?;
        if self.targets.len() > MAX_TARGETS {
            return wrong(format!("influx.targets are too many: at most {MAX_TARGETS}"));
        }
        let mut names = HashSet::new();
        for target in &self.targets {
            let name = target.name.as_str();
            if name == FIRST_TARGET {
                return wrong(format!(
                    "influx.targets: the name {FIRST_TARGET:?} belongs to the one in [influx] itself; take another"
                ));
            }
            if !is_target_name(name) {
                return wrong(format!(
                    "influx.targets: {name:?} is no name: small letters, digits, - and _, a letter first, at most {MAX_NAME}"
                ));
            }
            if !names.insert(name) {
                return wrong(format!("influx.targets: two are called {name:?}"));
            }
            duration_within(&format!("influx.targets.{name}.timeout"), target.timeout, second..=10 * minute)?;
        }
        self.all().iter().try_for_each(InfluxTarget::check)
    }
}

/// Whether a target can be called this.
pub fn is_target_name(name: &str) -> bool {
    let is_inner =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    name.len() <= MAX_NAME
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(is_inner)
}

impl InfluxTarget {
    /// As the writer takes it, with this directory of its own.
    pub fn options(&self, dir: &Path) -> InfluxOptions {
        let token = self.token.0.clone();
        InfluxOptions {
            gzip: self.gzip,
            timeout: self.timeout,
            ..InfluxOptions::new(&*self.name, &*self.url, &*self.org, &*self.bucket, token, dir)
        }
    }

    /// Secrets are not shown, not even those that are where they should not be.
    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |text: String| Err(ConfigError::Value(text));
        // How its keys are called, and where else its token can come from.
        let (keys, flag, variable) = match self.name.as_str() {
            FIRST_TARGET => ("influx".to_owned(), " (--influx-token-file)", "VITALS_INFLUX_TOKEN"),
            name => (format!("influx.targets.{name}"), "", "its token"),
        };
        if self.org.is_empty() || self.bucket.is_empty() {
            return wrong(format!("{keys}.org and {keys}.bucket cannot be empty"));
        }
        // Where there is no token, the URL may be the place that holds one: it is looked at first.
        let token = if self.token.0.is_empty() { "none" } else { &self.token.0 };
        let options = InfluxOptions { token: token.into(), ..self.options(Path::new("")) };
        match options.check() {
            Ok(()) => {}
            Err(InfluxError::Url { why, .. }) => {
                let shown = match self.url.split(['?', '#']).next() {
                    Some(shown) if !shown.contains('@') => format!("{shown:?}"),
                    _ => "(not shown: it may hold a secret)".to_owned(),
                };
                return wrong(format!(
                    "{keys}.url = {shown} cannot be used: {why}; it looks like http://127.0.0.1:8086, and the token goes \
                     into {keys}.token_file{flag} or {variable}"
                ));
            }
            Err(error) => return wrong(format!("{keys}: {error}")),
        }
        if self.token.0.is_empty() {
            return wrong(match self.name.as_str() {
                FIRST_TARGET => format!(
                    "influx.url is set and no token: put it into {variable}, or name its file with \
                     influx.token_file{flag}"
                ),
                _ => format!("{keys} has no token: name its file with token_file"),
            });
        }
        Ok(())
    }
}
