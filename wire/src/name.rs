//! What a host may be called, and how it may be labelled.

use crate::bounded::Text;
use crate::limits::{MAX_HOST_NAME_BYTES, MAX_LABEL_KEY_BYTES, MAX_LABEL_VALUE_BYTES};

/// Tag keys that the mapping uses itself, where a label by the same name would fork or overwrite a series, and `time`:
/// InfluxDB refuses a line with such a tag. `mapping`'s tests hold this list against what the mapping really writes.
pub const RESERVED_LABEL_KEYS: &[&str] = &[
    "cpu",
    "device",
    "event",
    "fstype",
    "host",
    "interface",
    "mode",
    "name",
    "path",
    "process_name",
    "reason",
    "sensor",
    "time",
];

/// Why a name or a label cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No text at all.
    #[error("a host's name cannot be empty")]
    Empty,
    /// Longer than the cap.
    #[error("a host's name has at most {MAX_HOST_NAME_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// A character that no screen, path or line protocol can carry safely.
    #[error("a host's name cannot hold {0:?}")]
    Character(char),
    /// A blank at an end, which nobody would see.
    #[error("a host's name cannot begin or end with a blank")]
    BlankAtEnd,
    /// A label's key outside `[a-z][a-z0-9_]*`, or too long.
    #[error(
        "a label's key is 1 to {MAX_LABEL_KEY_BYTES} of a-z, 0-9 and _, beginning with a letter; {0:?} is not"
    )]
    LabelKey(String),
    /// A label's key that the mapping uses itself.
    #[error("{0:?} is a tag of Vitals' own and cannot be a label's key")]
    ReservedKey(String),
    /// A label's value that is empty, too long, or holds a control character.
    #[error(
        "a label's value is 1 to {MAX_LABEL_VALUE_BYTES} bytes without control characters; that of {0:?} is not"
    )]
    LabelValue(String),
}

/// Checks a host's name: 1 to 255 bytes of printable text without `/`, and without blanks at its ends.
///
/// Spaces, commas, `=` and quotes inside are taken; whoever writes them out escapes them.
pub fn check_host_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_HOST_NAME_BYTES {
        return Err(NameError::TooLong(name.len()));
    }
    if let Some(bad) = name.chars().find(|c| *c == '/' || is_unprintable(*c)) {
        return Err(NameError::Character(bad));
    }
    if name.starts_with(char::is_whitespace) || name.ends_with(char::is_whitespace) {
        return Err(NameError::BlankAtEnd);
    }
    Ok(())
}

/// Checks one label's key and value.
pub fn check_label(key: &str, value: &str) -> Result<(), NameError> {
    let key_is_plain = key.len() <= MAX_LABEL_KEY_BYTES
        && key.starts_with(|c: char| c.is_ascii_lowercase())
        && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if !key_is_plain {
        return Err(NameError::LabelKey(key.to_owned()));
    }
    if RESERVED_LABEL_KEYS.contains(&key) {
        return Err(NameError::ReservedKey(key.to_owned()));
    }
    if value.is_empty() || value.len() > MAX_LABEL_VALUE_BYTES || value.chars().any(is_unprintable) {
        return Err(NameError::LabelValue(key.to_owned()));
    }
    Ok(())
}

/// Makes the nearest valid host name of what an operating system calls a host.
pub fn nearest_host_name(raw: &str) -> Text<MAX_HOST_NAME_BYTES> {
    let printable: String = raw.chars().filter(|c| *c != '/' && !is_unprintable(*c)).collect();
    let cut = Text::<MAX_HOST_NAME_BYTES>::cut(printable.trim());
    let trimmed = cut.trim();
    Text::cut(if trimmed.is_empty() { "unnamed" } else { trimmed })
}

/// Control characters, line and paragraph separators, and those that turn the reading direction: what could make
/// one name look like another or break a line.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_names_are_taken_whatever_they_hold() {
        for name in ["web-1", "a b", "a,b=c\"d\"", "数据库", "x", &"n".repeat(255), "back\\slash", "it's"]
        {
            assert_eq!(check_host_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn names_that_would_break_something_are_refused_with_their_reason() {
        assert_eq!(check_host_name(""), Err(NameError::Empty));
        assert_eq!(check_host_name(&"n".repeat(256)), Err(NameError::TooLong(256)));
        assert_eq!(check_host_name("a/b"), Err(NameError::Character('/')));
        assert_eq!(check_host_name("a\nb"), Err(NameError::Character('\n')));
        assert_eq!(check_host_name("a\u{202e}b"), Err(NameError::Character('\u{202e}')));
        assert_eq!(check_host_name(" a"), Err(NameError::BlankAtEnd));
        assert_eq!(check_host_name("a\u{a0}"), Err(NameError::BlankAtEnd));
    }

    #[test]
    fn labels_are_plain_and_never_shadow_a_tag() {
        assert_eq!(check_label("env", "prod"), Ok(()));
        assert!(matches!(check_label("Env", "x"), Err(NameError::LabelKey(_))));
        assert!(matches!(check_label("1a", "x"), Err(NameError::LabelKey(_))));
        assert!(matches!(check_label("host", "x"), Err(NameError::ReservedKey(_))));
        assert!(matches!(check_label("env", ""), Err(NameError::LabelValue(_))));
        assert!(matches!(check_label("env", "a\nb"), Err(NameError::LabelValue(_))));
    }

    #[test]
    fn what_a_system_calls_itself_becomes_a_valid_name() {
        for raw in ["", " / ", "a/b\n", &"é".repeat(200)] {
            assert_eq!(check_host_name(&nearest_host_name(raw)), Ok(()), "{raw:?}");
        }
        assert_eq!(&*nearest_host_name("a/b\n"), "ab");
    }
}
