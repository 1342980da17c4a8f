use super::*;

fn http(status: u16, body: &str) -> Answer {
    Answer::Http { status, retry_after: None, location: None, body: body.to_owned() }
}

const HTML: &str = "<html><body>Welcome to the hotel's network</body></html>";

#[test]
fn each_answer_of_the_table_has_its_action() {
    let own = r#"{"code":"invalid","message":"unable to parse 'm': missing fields"}"#;
    let expected = [
        (204, "", Action::Written),
        (200, "", Action::Hold(Reason::Unexpected, CHECK_URL)),
        (200, HTML, Action::Hold(Reason::Unexpected, CHECK_URL)),
        (202, "{}", Action::Hold(Reason::Unexpected, CHECK_URL)),
        (302, "", Action::Hold(Reason::Unexpected, CHECK_REDIRECT)),
        (400, own, Action::Split),
        (400, r#"{"error":"partial write: unable to parse 'm'"}"#, Action::Split),
        (400, HTML, Action::Hold(Reason::Unexpected, CHECK_URL)),
        (400, "", Action::Hold(Reason::Unexpected, CHECK_URL)),
        (401, own, Action::Hold(Reason::Unauthorized, CHECK_TOKEN)),
        (403, HTML, Action::Hold(Reason::Unauthorized, CHECK_TOKEN)),
        (404, r#"{"code":"not found","message":"bucket"}"#, Action::Hold(Reason::NotFound, CHECK_BUCKET)),
        (404, HTML, Action::Hold(Reason::Unexpected, CHECK_URL)),
        (405, "", Action::Hold(Reason::Unexpected, CHECK_URL)),
        (408, "", Action::Retry(Reason::ServerError, None)),
        (413, HTML, Action::Halve),
        (422, HTML, Action::Hold(Reason::Unexpected, CHECK_URL)),
        (429, "", Action::Retry(Reason::Busy, None)),
        (500, own, Action::Retry(Reason::ServerError, None)),
        (502, HTML, Action::Retry(Reason::ServerError, None)),
        (503, "", Action::Retry(Reason::Busy, None)),
    ];
    for (status, body, action) in expected {
        assert_eq!(judge(&http(status, body)).action, action, "{status} {body}");
    }
    assert_eq!(judge(&Answer::Timeout).action, Action::Retry(Reason::Timeout, None));
    let refused = Answer::Unreachable("connection refused".into());
    assert_eq!(judge(&refused).action, Action::Retry(Reason::Unreachable, None));
}

#[test]
fn a_partial_write_says_how_many_lines_were_dropped() {
    let conflict = r#"{"code":"unprocessable entity","message":"failure writing points to database: partial write: field type conflict: input field \"v\" on measurement \"m\" is type float, already exists as type string dropped=2"}"#;
    let verdict = judge(&http(422, conflict));
    assert_eq!(verdict.action, Action::Partly(Some(2)));
    assert!(verdict.words.contains("already exists as type string"), "{}", verdict.words);
    assert_eq!(judge(&http(422, r#"{"code":"x","message":"no figure"}"#)).action, Action::Partly(None));
}

#[test]
fn a_dropped_line_has_the_reason_that_its_influxdb_names() {
    for (words, reason) in [
        (
            "partial write: dropped 1 points outside retention policy of duration 1h0m0s dropped=1 for database",
            "too_old",
        ),
        ("partial write: points beyond retention policy dropped=1", "too_old"),
        ("partial write: field type conflict: input field \"v\" is type float dropped=1", "type_conflict"),
        ("partial write of line protocol occurred: invalid column type for column 'v'", "type_conflict"),
        ("unable to parse 'm v=': missing field value", "malformed"),
        ("partial write of line protocol occurred: parsing failed for write_lp endpoint", "malformed"),
        ("partial write: max-values-per-tag limit exceeded", "refused"),
    ] {
        assert_eq!(drop_reason(words), reason, "{words}");
        assert!(blames_the_line(words), "{words}");
        assert!(crate::metrics::INFLUX_DROPS.contains(&reason), "{reason}");
    }
    let of_3 = r#"{"error":"partial write of line protocol occurred","data":[{"original_line":"m v=1","line_number":1,"error_message":"invalid column type for column 'v'"}]}"#;
    assert!(judge(&http(400, of_3)).words.contains("occurred: invalid column type"));
}

#[test]
fn a_message_too_long_to_be_read_whole_is_still_influxdbs() {
    let body = format!(r#"{{"code":"invalid","message":"unable to parse '{}"#, "x".repeat(70_000));
    let verdict = judge(&http(400, &body));
    assert_eq!(verdict.action, Action::Split);
    assert!(verdict.words.chars().count() < 600, "a log line stays short");
}

#[test]
fn retry_after_is_honoured_within_bounds() {
    let busy = |seconds| Answer::Http {
        status: 429,
        retry_after: Some(Duration::from_secs(seconds)),
        location: None,
        body: String::new(),
    };
    assert_eq!(judge(&busy(7)).action, Action::Retry(Reason::Busy, Some(Duration::from_secs(7))));
    assert_eq!(judge(&busy(9_999_999)).action, Action::Retry(Reason::Busy, Some(MAX_RETRY_AFTER)));
}

#[test]
fn a_redirect_names_where_it_points_and_a_log_line_holds_no_control_characters() {
    let location = Some("https://elsewhere/\nlogin".to_owned());
    let answer = Answer::Http { status: 307, retry_after: None, location, body: String::new() };
    assert_eq!(judge(&answer).words, "307 to https://elsewhere/ login");
}

#[test]
fn every_reason_is_on_the_metrics_list() {
    use Reason::*;
    let all =
        [Unreachable, Timeout, Unauthorized, NotFound, Rejected, TooLarge, Busy, ServerError, Unexpected];
    assert_eq!(all.map(Reason::word), crate::metrics::INFLUX_ERRORS);
}
