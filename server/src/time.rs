//! Times as people and scripts write them: RFC 3339 or ms since 1970.

use chrono::{DateTime, SecondsFormat};

/// A time as RFC 3339 in UTC with ms; outside the years 0 to 9999, as a number of ms.
pub fn format(ms: i64) -> String {
    match DateTime::from_timestamp_millis(ms) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::Millis, true),
        None => ms.to_string(),
    }
}

/// Reads a time of a query.
pub fn parse(text: &str) -> Result<i64, String> {
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    // In a query an unescaped `+` of a time zone arrives as a blank.
    DateTime::parse_from_rfc3339(&text.replace(' ', "+"))
        .map(|time| time.timestamp_millis())
        .map_err(|_| format!("{text:?} is not a time: write it as 2026-01-31T12:00:00Z, or as ms since 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        assert_eq!(parse("1767225600123"), Ok(1_767_225_600_123));
        assert_eq!(parse("2026-01-01T00:00:00.123Z"), Ok(1_767_225_600_123));
        assert_eq!(parse("2026-01-01T02:00:00+02:00"), Ok(1_767_225_600_000));
        assert_eq!(parse("2026-01-01T02:00:00 02:00"), Ok(1_767_225_600_000));
        assert!(parse("yesterday").unwrap_err().contains("yesterday"));
    }

    #[test]
    fn any_time_can_be_written() {
        assert_eq!(format(1_767_225_600_123), "2026-01-01T00:00:00.123Z");
        assert_eq!(format(i64::MAX), i64::MAX.to_string());
    }
}
