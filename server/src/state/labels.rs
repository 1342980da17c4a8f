//! A host's labels: who gave them, and which are in force.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vitals_wire::limits::MAX_LABELS;

/// Who gave a label; each wins over those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The client's configuration: for display and InfluxDB alone, as whoever holds the machine can set it.
    Client,
    /// The token with which the host joined.
    Token,
    /// An administrator.
    Administrator,
}

impl Origin {
    /// The word in the API and in tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Token => "token",
            Self::Administrator => "administrator",
        }
    }
}

/// A label that is in force.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// Its key.
    pub key: Box<str>,
    /// Its value.
    pub value: Box<str>,
    /// Who gave it.
    pub origin: Origin,
}

/// Labels of one origin, by key.
pub type Labels = BTreeMap<Box<str>, Box<str>>;
/// Labels of an administrator, by key; `None` takes away what others gave.
pub type GivenLabels = BTreeMap<Box<str>, Option<Box<str>>>;

/// What is in force of all origins, by key. Where they are too many, the client's go first.
pub(super) fn in_force(client: &Labels, token: &Labels, given: &GivenLabels) -> Vec<Label> {
    let is_open = |key: &str| !given.contains_key(key);
    let label = |origin, key: &str, value: &str| Label { key: key.into(), value: value.into(), origin };
    let of_given =
        given.iter().filter_map(|(key, value)| Some(label(Origin::Administrator, key, value.as_deref()?)));
    let of_token = token.iter().filter(|(key, _)| is_open(key));
    let of_client = client.iter().filter(|(key, _)| is_open(key) && !token.contains_key(*key));
    let mut labels: Vec<Label> = of_given
        .chain(of_token.map(|(key, value)| label(Origin::Token, key, value)))
        .chain(of_client.map(|(key, value)| label(Origin::Client, key, value)))
        .take(MAX_LABELS)
        .collect();
    labels.sort();
    labels
}

/// The labels of a version as they are kept: lists of key, value and origin.
pub(super) fn to_json(labels: &[Label]) -> serde_json::Result<String> {
    let rows: Vec<_> = labels.iter().map(|label| (&*label.key, &*label.value, label.origin)).collect();
    serde_json::to_string(&rows)
}

/// What [`to_json`] gave, or the first form, pairs without an origin: only clients gave labels then.
pub(super) fn from_json(text: &str) -> serde_json::Result<Vec<Label>> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Kept {
        Origins(Vec<(Box<str>, Box<str>, Origin)>),
        Pairs(Vec<(Box<str>, Box<str>)>),
        Object(Labels),
    }
    let client = |(key, value)| Label { key, value, origin: Origin::Client };
    let mut labels: Vec<Label> = match serde_json::from_str(text)? {
        Kept::Origins(rows) => {
            rows.into_iter().map(|(key, value, origin)| Label { key, value, origin }).collect()
        }
        Kept::Pairs(pairs) => pairs.into_iter().map(client).collect(),
        Kept::Object(labels) => labels.into_iter().map(client).collect(),
    };
    labels.sort();
    labels.dedup_by(|one, other| one.key == other.key);
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    fn shown(labels: &[Label]) -> Vec<String> {
        labels.iter().map(|one| format!("{}={} {}", one.key, one.value, one.origin.word())).collect()
    }

    #[test]
    fn an_administrator_wins_over_a_token_and_that_over_the_client() {
        let client = labels(&[("env", "dev"), ("rack", "3"), ("room", "a")]);
        let token = labels(&[("env", "prod"), ("team", "db")]);
        let given: GivenLabels = [("team", Some("web")), ("room", None)]
            .map(|(key, value)| (key.into(), value.map(Into::into)))
            .into();
        let both = in_force(&client, &token, &given);
        assert_eq!(shown(&both), ["env=prod token", "rack=3 client", "team=web administrator"]);
    }

    #[test]
    fn where_there_are_too_many_the_clients_go_first() {
        let many = |prefix: &str, count: usize| -> Labels {
            (0..count).map(|n| (format!("{prefix}{n:02}").into(), "x".into())).collect()
        };
        let both = in_force(&many("a", 10), &many("t", 10), &GivenLabels::new());
        assert_eq!(both.len(), MAX_LABELS);
        assert_eq!(both.iter().filter(|label| label.origin == Origin::Token).count(), 10);
    }

    #[test]
    fn labels_survive_their_json_and_the_first_form_is_read() {
        let both = in_force(&labels(&[("a", "1")]), &labels(&[("b", "2")]), &GivenLabels::new());
        assert_eq!(from_json(&to_json(&both).unwrap()).unwrap(), both);
        for old in [r#"[["b","2"],["a","1"]]"#, r#"{"a":"1","b":"2"}"#] {
            assert_eq!(shown(&from_json(old).unwrap()), ["a=1 client", "b=2 client"], "{old}");
        }
        assert!(from_json("[]").unwrap().is_empty() && from_json("{}").unwrap().is_empty());
        assert!(from_json("7").is_err());
    }
}
