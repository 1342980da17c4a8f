use super::*;

const NOW_US: u64 = 1_700_000_000_000_000;

#[test]
fn what_was_announced_holds_for_a_minute_and_the_last_word_counts() {
    let announced = Announced::default();
    let now = Instant::now();
    assert_eq!(announced.reason(now), None);
    announced.announce(Announcement::Upgrade, now);
    announced.announce(Announcement::Uninstall, now);
    assert_eq!(announced.reason(now + Duration::from_secs(59)), Some(ByeReason::Uninstall));
    assert_eq!(announced.reason(now + Duration::from_secs(60)), None);
}

#[test]
fn a_scheduled_shutdown_tells_when_its_time_has_come_and_not_before() {
    let file = |usec: u64, mode: &str| {
        format!("USEC={usec}\nWARN_WALL=1\nMODE={mode}\nWALL_MESSAGE=tonight\\ MODE=halt\n")
    };
    for (usec, mode, reason) in [
        (NOW_US, "reboot", Some(ByeReason::Reboot)),
        (NOW_US - 60_000_000, "kexec", Some(ByeReason::Reboot)),
        (NOW_US + 1_000_000, "soft-reboot", Some(ByeReason::Reboot)),
        (NOW_US, "poweroff", Some(ByeReason::Shutdown)),
        (NOW_US, "halt", Some(ByeReason::Shutdown)),
        (NOW_US + 3_600_000_000, "reboot", None),
        (NOW_US, "dry-reboot", None),
        (NOW_US, "exit", None),
    ] {
        assert_eq!(scheduled(&file(usec, mode), NOW_US), reason, "{usec} {mode}");
    }
    for text in ["", "MODE=reboot\n", "USEC=soon\nMODE=reboot\n", "USEC=-1\nMODE=reboot", "\u{0}\u{0}"] {
        assert_eq!(scheduled(text, NOW_US), None, "{text:?}");
    }
}

#[test]
fn a_job_that_starts_a_target_of_the_end_tells_which() {
    for (jobs, reason) in [
        ("123 reboot.target start waiting\n", Some(ByeReason::Reboot)),
        (
            "  7 systemd-poweroff.service start waiting\n 12 poweroff.target   start waiting\n",
            Some(ByeReason::Shutdown),
        ),
        ("9 halt.target start waiting", Some(ByeReason::Shutdown)),
        ("9 reboot.target stop waiting", None),
        ("No jobs running.\n", None),
        ("9 my-reboot.target start running\nreboot.target start\n9\n\n", None),
        ("", None),
    ] {
        assert_eq!(starting(jobs), reason, "{jobs:?}");
    }
}

/// A machine whose files are in a directory, and whose `systemctl` is this script.
fn machine(dir: &Path, systemctl: &str) -> Machine {
    let run = dir.join("run");
    std::fs::create_dir_all(run.join("systemd/system")).unwrap();
    std::fs::create_dir_all(run.join("systemd/shutdown")).unwrap();
    Machine { run, systemctl: ["sh", "-c", systemctl, "systemctl"].map(str::to_owned).to_vec() }
}

#[tokio::test]
async fn elsewhere_than_on_systemd_nothing_is_run() {
    let dir = tempfile::tempdir().unwrap();
    let machine = machine(dir.path(), &format!("touch {}/was-run", dir.path().display()));
    std::fs::remove_dir(machine.run.join("systemd/system")).unwrap();
    std::fs::write(machine.run.join("nologin"), "System is going down.").unwrap();
    assert_eq!(machine.goes_down().await, None);
    assert!(!dir.path().join("was-run").exists());
}

#[tokio::test]
async fn the_file_is_believed_first_and_then_systemctl_and_nologin_only_where_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let say_reboot = r#"[ "$1" = list-jobs ] && echo "5 reboot.target start waiting""#;
    assert_eq!(machine(dir.path(), say_reboot).goes_down().await, Some(ByeReason::Reboot));
    let quiet = machine(dir.path(), "echo No jobs running.");
    std::fs::write(quiet.run.join("nologin"), "System is going down. Unprivileged users …").unwrap();
    assert_eq!(quiet.goes_down().await, None, "somebody is about to shut it down, but not now");
    assert_eq!(machine(dir.path(), "exit 1").goes_down().await, Some(ByeReason::Shutdown));
    let coming_up = machine(dir.path(), "exit 1");
    std::fs::write(coming_up.run.join("nologin"), "System is booting up.").unwrap();
    assert_eq!(coming_up.clone().goes_down().await, None);
    let file = coming_up.run.join("systemd/shutdown/scheduled");
    std::fs::write(file, "USEC=1\nMODE=poweroff\n").unwrap();
    assert_eq!(machine(dir.path(), say_reboot).goes_down().await, Some(ByeReason::Shutdown));
}

#[tokio::test]
async fn a_systemctl_that_hangs_is_given_up_and_ended() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let hanging = machine(dir.path(), &format!("echo $$ > {}; exec sleep 60", pid.display()));
    let start = Instant::now();
    assert_eq!(hanging.goes_down().await, None);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    // What waits for its end may be a moment behind.
    let pid = std::fs::read_to_string(pid).unwrap();
    let proc = PathBuf::from("/proc").join(pid.trim());
    while proc.exists() && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(LOOK);
    }
    assert!(!proc.exists(), "still runs");
}
