//! A disk that gets full under a running server: nothing is acknowledged that is not kept, live readings go on, `/readyz`
//! says why, and all goes on by itself when there is room again. And a disk that is read-only at the start.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::peer::{Peer, hello, now_ms, sample};
use support::server::{Server, wait_for};
use vitals_wire::bounded::List;
use vitals_wire::message::{Samples, ServerMessage};
use vitals_wire::sample::Sample;
use vitals_wire::section::{Opaque, Section};

/// A file system of 8 MiB, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, said in one line, without the rights to mount one; a failure with `CI=true`.
    #[allow(clippy::explicit_write, reason = "what eprintln! says is kept from whoever runs the tests")]
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m,mode=700", "vitals-test"])
            .arg(dir.path())
            .status()
            .is_ok_and(|status| status.success());
        if !mounted {
            // Where all tests have to run, one that cannot has failed.
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "no small file system can be mounted here, and CI=true"
            );
            writeln!(std::io::stderr(), "SKIPPED: no small file system can be mounted here; root can")
                .unwrap();
        }
        mounted.then_some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        assert!(Command::new("mount").args(["-o", &options]).arg(self.path()).status().unwrap().success());
    }

    /// Fills what is left.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = File::create(&path).unwrap();
        let (mut block, zeros) = (1 << 16, vec![0; 1 << 16]);
        while block > 0 {
            if file.write_all(&zeros[..block]).is_err() {
                block /= 2;
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// A sample that does not fit into what is left of a page, compressed or not: a full disk still has that.
fn large_sample(time_ms: i64, uptime: u64) -> Sample {
    let mut large = sample(time_ms, uptime);
    let bytes = std::iter::repeat_with(|| fastrand::u8(..)).take(16 << 10).collect();
    large.sections.push(Section::Opaque(Opaque { kind: 9_999, bytes })).unwrap();
    large
}

/// Sends samples that cannot be kept, sees what the server says of it, mends the disk, and hears the acknowledgements.
fn goes_without_a_disk_and_on_with_it(disk: &SmallDisk, spoil: impl Fn() -> String, mend: impl Fn()) {
    let mut server = Server::start(&disk.path().join("data"), &[]);
    let (mut peer, _) = Peer::welcome(server.clients, hello(1, "web"));
    assert_eq!(&*peer.send(1, sample(now_ms(), 1)).batches, [1]);
    let words = spoil();
    for batch in 2..5 {
        let samples = List::new(vec![large_sample(now_ms(), batch)]).unwrap();
        peer.say(Samples { batch, backlog: false, samples });
        wait_for("the live picture", Duration::from_secs(2), || {
            let latest = server.json("/api/v1/hosts/web/latest");
            (latest["points"][0]["fields"]["uptime"] == batch).then_some(())
        });
    }
    let (status, why) = wait_for("a word of it", Duration::from_secs(5), || {
        Some(server.get("/readyz")).filter(|(status, _)| *status == 503)
    });
    assert!(status == 503 && why.contains(&words), "{why}");
    peer.stream.set_read_timeout(Duration::from_millis(500));
    assert!(peer.nothing_to_hear(), "nothing may be acknowledged");
    assert_eq!(server.metric("vitals_samples_acknowledged_total"), 1.0);

    mend();
    peer.stream.set_read_timeout(Duration::from_secs(20));
    let mut settled = Vec::new();
    while settled.len() < 3 {
        match peer.hear() {
            Some(ServerMessage::Ack(ack)) => settled.extend(ack.batches.iter().copied()),
            other => panic!("no ack: {other:?}"),
        }
    }
    settled.sort();
    assert_eq!(settled, [2, 3, 4]);
    assert_eq!(server.get("/readyz").0, 200);
    let kept = || {
        let series = server.json("/api/v1/hosts/web/series?field=system.uptime");
        (series["series"][0]["points"].as_array()?.len() == 4).then_some(())
    };
    wait_for("all four to be readable", Duration::from_secs(5), kept);
    drop(peer);
    assert!(server.stop().success());
}

#[test]
fn a_full_disk_stops_acknowledgements_and_nothing_else() {
    let Some(disk) = SmallDisk::mount() else { return };
    let filler = disk.path().join("filler");
    goes_without_a_disk_and_on_with_it(
        &disk,
        || {
            disk.fill();
            "No space left".to_owned()
        },
        || std::fs::remove_file(&filler).unwrap(),
    );
}

#[test]
fn the_journal_takes_at_most_half_of_a_small_disk_and_says_so() {
    let Some(disk) = SmallDisk::mount() else { return };
    let mut server = Server::start(&disk.path().join("data"), &[]);
    let cap = server.metric("vitals_journal_cap_bytes");
    assert!((3.0e6..4.3e6).contains(&cap), "{cap}");
    let line = server.log_line("the free disk space is what bounds the journal").unwrap();
    assert!(line.contains(&format!("cap={cap}")), "{line}");
    assert!(server.stop().success());
    let plenty = tempfile::tempdir().unwrap();
    let server = Server::start(&plenty.path().join("data"), &[]);
    assert_eq!(server.metric("vitals_journal_cap_bytes"), f64::from(1u32 << 31), "what is configured");
    assert!(server.log_line("bounds the journal").is_none());
}

#[test]
fn a_read_only_disk_is_named_at_the_start() {
    let Some(disk) = SmallDisk::mount() else { return };
    let data = disk.path().join("data");
    drop(Server::start(&data, &[]));
    disk.remount("ro");
    let output = Command::new(env!("CARGO_BIN_EXE_vitals-server"))
        .args(["run", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .output()
        .unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("Read-only") && words.contains(data.to_str().unwrap()), "{words}");
    disk.remount("rw");
    drop(Server::start(&data, &[]));
}
