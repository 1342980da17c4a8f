//! A file system that never answers costs its own reading, and nothing else is late.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::mount::MountFlags;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use vitals_client::clock::SampleClock;
use vitals_client::collect::CollectConfig;
use vitals_client::sampler::{Sampler, run_sampler};
use vitals_wire::sample::Sample;
use vitals_wire::section::Section;

/// Tells the test that it runs in a mount name space of its own, where its mount can harm nobody and goes with it.
const INSIDE: &str = "VITALS_TEST_IN_MOUNT_NAME_SPACE";
const TEST: &str = "a_file_system_that_never_answers_loses_its_own_reading_and_nothing_else_is_late";

#[test]
fn a_file_system_that_never_answers_loses_its_own_reading_and_nothing_else_is_late() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    if !rustix::process::geteuid().is_root() {
        left_out("mounting a FUSE file system needs root");
        return;
    }
    if OpenOptions::new().read(true).write(true).open("/dev/fuse").is_err() {
        left_out("this machine has no /dev/fuse that can be opened");
        return;
    }
    let may_unshare =
        Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    if !may_unshare {
        left_out("this machine allows no mount name space (unshare --mount)");
        return;
    }
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "it did not run: {text}");
}

/// Past the test harness, which shows what a passing test prints to nobody. Where every test is to run it fails.
fn left_out(reason: &str) {
    let must_run = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!must_run, "left out, and CI=true says that all tests run: {reason}");
    let line = format!("left out: {TEST}: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

fn paths(sample: &Sample) -> Vec<String> {
    let found = sample.find(|section| match section {
        Section::FileSystems(file_systems) => Some(file_systems),
        _ => None,
    });
    found.map_or_else(Vec::new, |list| list.file_systems.iter().map(|fs| fs.path.to_string()).collect())
}

fn inside() {
    let dir = tempfile::tempdir().unwrap();
    let (dead, alive) = (dir.path().join("dead"), dir.path().join("alive"));
    std::fs::create_dir(&dead).unwrap();
    std::fs::create_dir(&alive).unwrap();
    rustix::mount::mount("alive", &alive, "tmpfs", MountFlags::empty(), None).unwrap();
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let options = CString::new(options).unwrap();
    rustix::mount::mount("dead", &dead, "fuse", MountFlags::empty(), Some(options.as_c_str())).unwrap();
    // Both are left out by default.
    let config = CollectConfig {
        exclude_file_system_types: vec!["proc".into(), "sysfs".into(), "cgroup*".into(), "dev*".into()],
        exclude_mount_points: Vec::new(),
        process_walk_interval: 0,
        ..CollectConfig::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let (out, mut samples) = mpsc::channel(8);
        let shutdown = CancellationToken::new();
        let sampler = Sampler::new(&config);
        let counters = sampler.counters();
        let clock = SampleClock::new(0, Duration::from_secs(2));
        let started = Instant::now();
        let run = run_sampler(sampler, Duration::from_secs(2), Duration::ZERO, clock, out, shutdown.clone());
        let task = tokio::spawn(run);
        let mut times = Vec::new();
        for number in 0..4 {
            let sample = samples.recv().await.unwrap();
            if number == 0 {
                assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
            } else {
                let off = sample.time_ms.rem_euclid(2000);
                let late =
                    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()
                        as i64
                        - sample.time_ms;
                assert!(off < 300 && late < 300, "{off} ms after its tick, came {late} ms later");
                assert!(sample.sections.iter().any(|section| section.kind() == 1), "no CPU");
            }
            let paths = paths(&sample);
            assert!(paths.contains(&alive.display().to_string()), "{number}: {paths:?}");
            assert!(!paths.contains(&dead.display().to_string()), "{number}: {paths:?}");
            times.push(sample.time_ms);
        }
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] < 3500), "{times:?}");
        assert_eq!(counters.hung_reads.load(Ordering::Relaxed), 1, "it is counted once");
        assert_eq!(counters.hanging_now.load(Ordering::Relaxed), 1);
        assert_eq!(counters.missed_ticks.load(Ordering::Relaxed), 0);
        // The file system's process ends: the call returns.
        drop(device);
        samples.recv().await.unwrap();
        samples.recv().await.unwrap();
        assert_eq!(counters.hanging_now.load(Ordering::Relaxed), 0, "what has returned does not hang");
        shutdown.cancel();
        task.await.unwrap();
    });
    // Not recursively into what is mounted there; the name space goes with this process.
    for path in [&dead, &alive] {
        rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}
