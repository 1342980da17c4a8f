//! How much one may do, and which hosts one may see.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vitals_wire::name::check_label;

use super::Host;

/// Labels that a scope may name.
const MAX_LABELS: usize = 16;

/// How much one may do; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Look.
    Read,
    /// Manage hosts: name, label, enrol, revoke and remove them.
    Write,
    /// Everything: people, API tokens, the audit log too.
    Admin,
}

impl Access {
    /// The word in the table, the commands and the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Access {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Read, Self::Write, Self::Admin]
            .into_iter()
            .find(|access| access.word() == text)
            .ok_or_else(|| format!("{text:?} is not read, write or admin"))
    }
}

/// Labels that a host must have to be seen, given by a token or an administrator; empty: all hosts are seen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scope(pub BTreeMap<String, String>);

impl Scope {
    /// Whether this host is seen.
    pub fn covers(&self, host: &Host) -> bool {
        self.0.iter().all(|(key, value)| host.trusted_label(key) == Some(value))
    }

    /// Whether all hosts are seen.
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// From `key=value` each.
    ///
    /// # Errors
    /// One that is no label, in words.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let pairs = pairs.into_iter().map(|pair| {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("{pair:?} is no label: write it as key=value, such as env=prod"))?;
            Ok((key.to_owned(), value.to_owned()))
        });
        let scope = Self(pairs.collect::<Result<_, String>>()?);
        scope.check()?;
        Ok(scope)
    }

    /// Whether hosts can have such labels at all.
    ///
    /// # Errors
    /// They cannot, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.0.len() > MAX_LABELS {
            return Err(format!("a scope has at most {MAX_LABELS} labels"));
        }
        for (key, value) in &self.0 {
            check_label(key, value).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_all() {
            return f.write_str("all hosts");
        }
        let pairs: Vec<String> = self.0.iter().map(|(key, value)| format!("{key}={value}")).collect();
        f.write_str(&pairs.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_access_includes_those_below_it_and_has_one_word() {
        assert!(Access::Read < Access::Write && Access::Write < Access::Admin);
        for access in [Access::Read, Access::Write, Access::Admin] {
            assert_eq!(access.word().parse(), Ok(access));
            assert_eq!(serde_json::to_value(access).unwrap(), access.word());
        }
        assert!("root".parse::<Access>().is_err());
    }

    #[test]
    fn a_scope_takes_labels_alone() {
        assert_eq!(Scope::from_pairs(["env=prod", "rack=a=1"]).unwrap().to_string(), "env=prod,rack=a=1");
        assert_eq!(Scope::from_pairs([]).unwrap().to_string(), "all hosts");
        for wrong in ["env", "Env=prod", "=prod", "1a=b", "env=", "env=a\nb"] {
            assert!(Scope::from_pairs([wrong]).is_err(), "{wrong}");
        }
        let many: Vec<String> = (0..17).map(|i| format!("k{i}=v")).collect();
        assert!(Scope::from_pairs(many.iter().map(String::as_str)).is_err());
    }
}
