use super::super::{Connection, LastError};
use super::*;

fn full() -> Status {
    Status {
        running: true,
        connected: true,
        version: "0.1.0".into(),
        pid: 4711,
        host: "0123456789abcdef0123456789abcdef".into(),
        name: "web-1".into(),
        started_ms: 1_795_257_337_000,
        uptime: 86_400 + 2 * 3600,
        servers: vec!["vitals-1.internal:7400".into(), "vitals-2.internal:7400".into()],
        connection: Some(Connection {
            server: "vitals-1.internal:7400".into(),
            server_version: "0.1.0".into(),
            name: "web-1".into(),
            since_ms: 1_795_257_338_000,
            seconds: 3725,
        }),
        connections: 2,
        taken: 17_280,
        acknowledged: 17_022,
        waiting_memory: 1,
        waiting_disk: 250,
        oldest_waiting_ms: Some(1_250_000),
        dropped: [("queue_full".to_owned(), 5), ("too_large".to_owned(), 2)].into(),
        spool_bytes: 1 << 20,
        skew_ms: Some(-3),
        clock_steps: 1,
        last_step_ms: Some(-3_600_000),
        last_error: Some(LastError {
            time_ms: health::wall_ms() - 180_000,
            server: "vitals-2.internal:7400".into(),
            text: "cannot connect: the name has no address".into(),
        }),
        memory: Some(3 << 20),
        cpu_ms: 8640,
        trusts: "pins".into(),
        joined: true,
        next_secret: true,
        ..Status::default()
    }
}

#[test]
fn all_that_people_ask_for_stands_in_eighty_columns() {
    let text = table(&full());
    println!("{text}");
    for line in [
        "state           connected to vitals-1.internal:7400",
        "  since         2026-11-21 10:35:38 UTC, for 1 h 2 min",
        "trusts          the server's key",
        "joined          yes; its secret is being changed",
        "connections     2 since the start",
        "last error      3 min 0 s ago, at vitals-2.internal:7400: cannot connect: the",
        "                name has no address",
        "samples taken   17,280",
        "  acknowledged  17,022",
        "  waiting       1 in memory, 250 on disk; the oldest is 20 min 50 s old",
        "  dropped       7: queue_full 5, too_large 2",
        "spool           1.0 MiB on disk",
        "clock           about 3 ms ahead of the server's",
        "  steps         1, the last by 1 h 0 min back",
        "  host          web-1 (0123456789abcdef0123456789abcdef)",
        "  memory        3.0 MiB",
        "  CPU time      8.6 s (0.009 % of a core)",
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} is missing in\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH && line.trim_end() == line), "{text}");
}

#[test]
fn a_client_that_just_started_has_no_holes_in_its_table() {
    let text = table(&Status { servers: vec!["127.0.0.1:7400".into()], ..Status::default() });
    println!("{text}");
    for line in [
        "state           not connected",
        "  tried         127.0.0.1:7400",
        "last error      none",
        "  waiting       0 in memory, 0 on disk",
        "  dropped       0",
        "clock           not compared with a server's yet",
        "  steps         none",
        "  memory        unknown",
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} is missing in\n{text}");
    }
}

#[test]
fn what_a_server_says_neither_steers_the_terminal_nor_runs_over_its_edge() {
    let mut status = full();
    let text = format!("\u{1b}[2J{}\u{7}  end", "ü".repeat(200));
    status.last_error = Some(LastError { time_ms: 0, server: "a:1".into(), text });
    status.connection = None;
    let text = table(&status);
    assert!(!text.contains('\u{1b}') && !text.contains('\u{7}') && text.contains("end\n"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
}

#[test]
fn dates_are_those_of_the_calendar() {
    for (ms, text) in [
        (0, "1970-01-01 00:00:00 UTC"),
        (-1, "1969-12-31 23:59:59 UTC"),
        (951_782_400_000, "2000-02-29 00:00:00 UTC"),
        (951_868_800_000, "2000-03-01 00:00:00 UTC"),
        (1_709_251_199_999, "2024-02-29 23:59:59 UTC"),
        (4_107_542_400_000, "2100-03-01 00:00:00 UTC"),
        (1_735_689_599_000, "2024-12-31 23:59:59 UTC"),
    ] {
        assert_eq!(utc(ms), text);
    }
    let _ = (utc(i64::MAX), utc(i64::MIN));
}

#[test]
fn figures_are_shown_as_people_read_them() {
    assert_eq!(
        (number(0), number(999), number(1000), number(1_234_567)),
        ("0".into(), "999".into(), "1,000".into(), "1,234,567".into())
    );
    let shown = [0, 59, 60, 3599, 3600, 86_399, 86_400, u64::MAX].map(duration);
    let words = ["0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "23 h 59 min", "1 d 0 h"];
    assert_eq!(shown[..7], words);
    assert_eq!((milliseconds(-999), milliseconds(1500), milliseconds(i64::MIN)).1, "1.5 s");
}

#[test]
fn a_status_survives_json_and_an_older_client_s_is_understood() {
    let status = full();
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
    let older: Status =
        serde_json::from_str(r#"{"running":true,"taken":5,"of_another_version":[1]}"#).unwrap();
    assert_eq!((older.running, older.taken, older.connection), (true, 5, None));
}
