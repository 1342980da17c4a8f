use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use vitals_wire::bounded::{List, Text};
use vitals_wire::ids::HostId;
use vitals_wire::sample::Sample;
use vitals_wire::section::{Event, EventKind, Events};

use super::db::{self, Blobs};
use super::engine::{Engine, Seal};
use super::test_support::{BASE_MS, Rig, host, sample, written};
use super::{StoreError, read};

/// Two hours of two hosts, the first hour merged, and the file closed.
fn filled() -> Rig {
    let mut rig = Rig::new();
    for number in [1, 2] {
        for i in 0..24 {
            let samples = (0..60).map(|j| sample(host(number), BASE_MS + (i * 60 + j) * 5_000)).collect();
            rig.send(host(number), samples);
            rig.commit(Seal::All);
        }
    }
    rig.pass(2 * 3_600_000);
    rig.merge_all();
    checkpoint(&mut rig);
    rig
}

/// As `filled`, one host, with 24 samples in the first hour's blob and 12 in a piece of the next.
fn filled_a_little() -> Rig {
    let mut rig = Rig::new();
    for (hour, part) in [(0, 0), (0, 1), (1, 0)] {
        let at = |i: i64| BASE_MS + hour * 3_600_000 + (part * 12 + i) * 5_000;
        rig.send(host(1), (0..12).map(|i| sample(host(1), at(i))).collect());
        rig.commit(Seal::All);
    }
    rig.pass(5_000_000);
    rig.merge_all();
    // Hundreds of small changes follow, which need not be durable.
    rig.connection().pragma_update(None, "synchronous", "OFF").unwrap();
    rig
}

/// All of the log is in the file after it.
fn checkpoint(rig: &mut Rig) {
    rig.engine().checkpoint();
    let log = format!("{}-wal", rig.options.path.display());
    assert_eq!(std::fs::metadata(log).unwrap().len(), 0);
}

fn open_error(rig: &mut Rig) -> StoreError {
    rig.engine = None;
    let before = std::fs::read(&rig.options.path).unwrap();
    let error = Engine::open(rig.options.clone(), rig.metrics.clone(), rig.now).unwrap_err();
    assert_eq!(std::fs::read(&rig.options.path).unwrap(), before, "a file that is refused is not touched");
    error
}

#[test]
fn a_file_of_a_newer_version_is_refused_by_its_number() {
    let mut rig = filled();
    rig.connection().pragma_update(None, "user_version", db::VERSION + 1).unwrap();
    checkpoint(&mut rig);
    let error = open_error(&mut rig);
    assert!(matches!(error, StoreError::Newer { found, .. } if found == db::VERSION + 1), "{error}");
}

#[test]
fn a_file_that_is_something_else_is_refused_and_not_touched() {
    let mut rig = Rig::new();
    rig.engine = None;
    for entry in std::fs::read_dir(rig.options.path.parent().unwrap()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    std::fs::write(&rig.options.path, "a shopping list\n".repeat(500)).unwrap();
    assert!(matches!(open_error(&mut rig), StoreError::NotOurs { .. }));
    std::fs::remove_file(&rig.options.path).unwrap();
    let other = rusqlite::Connection::open(&rig.options.path).unwrap();
    other.execute_batch("CREATE TABLE hosts (x)").unwrap();
    drop(other);
    assert!(matches!(open_error(&mut rig), StoreError::NotOurs { .. }));
}

#[test]
fn a_file_that_was_cut_short_is_refused_as_damaged() {
    let mut rig = filled();
    rig.engine = None;
    let whole = std::fs::read(&rig.options.path).unwrap();
    for left in [whole.len() / 2, whole.len() - 4096, whole.len() - 5000, 4096] {
        std::fs::write(&rig.options.path, &whole[..left]).unwrap();
        let error = open_error(&mut rig);
        assert!(matches!(error, StoreError::Damaged { .. }), "{left} of {}: {error}", whole.len());
    }
}

#[test]
fn a_path_that_cannot_be_opened_is_named() {
    let mut rig = Rig::new();
    rig.options.path = rig.options.path.join("nothing").join("history.db");
    let error = Engine::open(rig.options.clone(), rig.metrics.clone(), rig.now).unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable { path, .. } if *path == rig.options.path), "{error}");
}

#[test]
fn damaged_pages_never_panic_and_what_is_read_is_right() {
    let mut rig = filled();
    rig.engine = None;
    let whole = std::fs::read(&rig.options.path).unwrap();
    let mut random = fastrand::Rng::with_seed(5);
    let (mut opened, mut some_read, mut damaged) = (0, 0, 0);
    let pages = whole.len() / 4096;
    for page in (0..20).chain((20..pages).step_by(pages / 40 + 1)) {
        let mut bytes = whole.clone();
        for byte in &mut bytes[page * 4096..(page + 1) * 4096] {
            if random.u8(0..8) == 0 {
                *byte ^= random.u8(1..);
            }
        }
        for aside in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{aside}", rig.options.path.display()));
        }
        std::fs::write(&rig.options.path, bytes).unwrap();
        let Ok(mut engine) = Engine::open(rig.options.clone(), rig.metrics.clone(), rig.now) else {
            continue;
        };
        opened += 1;
        for number in [1, 2] {
            let Ok(times) = engine.shared.samples(host(number), 0..i64::MAX) else { continue };
            some_read += times.len();
            let is_ours =
                |time: &i64| (time - BASE_MS) % 5_000 == 0 && (0..7_200_000).contains(&(time - BASE_MS));
            assert!(times.iter().all(is_ours) && times.is_sorted_by(|a, b| a < b), "page {page}");
            let selector = "mem.available".parse().unwrap();
            for series in
                engine.shared.series(host(number), &selector, 0..i64::MAX, 10_000).into_iter().flatten()
            {
                for (time, value) in series.points {
                    let expected = super::test_support::expected([&sample(host(number), time)].into_iter());
                    let key = ("mem".to_owned(), Vec::new(), "available".to_owned());
                    let super::Value::Integer(value) = value else { panic!("{value:?}") };
                    assert_eq!(expected[&key][&time], (false, value as u64), "page {page}");
                }
            }
        }
        damaged += engine.shared.counters.damaged_blobs.get();
        let _ = engine.merge_hosts(0..2, rig.now);
        let _ = engine.tidy(rig.now);
    }
    assert!(opened > 20 && some_read > 20 * 1440 && damaged > 0, "{opened} {some_read} {damaged}");
}

#[test]
fn a_damaged_blob_is_skipped_and_counted_once_and_the_rest_is_read() {
    for (blobs, lost) in [(Blobs::Raw, 720), (Blobs::Pieces, 60)] {
        let mut rig = filled();
        let engine = rig.engine();
        let key = db::first_key(&engine.storage.connection, blobs, 0).unwrap().unwrap();
        let mut blob = db::blob(&engine.storage.connection, blobs, key).unwrap().unwrap();
        blob[40] ^= 4;
        let sql = format!("UPDATE {} SET blob = ?1 WHERE key = ?2", blobs.table());
        engine.storage.connection.execute(&sql, rusqlite::params![blob, key]).unwrap();
        for _ in 0..2 {
            assert_eq!(engine.shared.samples(host(1), 0..i64::MAX).unwrap().len(), 1440 - lost);
            assert_eq!(engine.shared.samples(host(2), 0..i64::MAX).unwrap().len(), 1440);
        }
        assert_eq!(engine.shared.counters.damaged_blobs.get(), 1);

        // Late data for that hour are not merged into the damage, nor does the merge make anything worse.
        let late = sample(host(1), BASE_MS + 1);
        rig.send(host(1), vec![late]);
        rig.commit(Seal::All);
        rig.pass(2 * 3_600_000);
        rig.merge_all();
        assert_eq!(rig.engine().shared.samples(host(1), 0..i64::MAX).unwrap().len(), 1441 - lost);
        let connection = rig.connection();
        assert_eq!(
            db::blob(connection, blobs, key).unwrap(),
            Some(blob),
            "it stays for whoever can repair it"
        );
    }
}

#[test]
fn a_flipped_byte_loses_the_samples_that_are_counted_and_no_other() {
    let mut rig = filled_a_little();
    for (blobs, sql) in [
        (Blobs::Raw, "UPDATE raw SET blob = ?1 WHERE key = ?2"),
        (Blobs::Pieces, "UPDATE pieces SET blob = ?1 WHERE key = ?2"),
    ] {
        let key = db::first_key(rig.connection(), blobs, 0).unwrap().unwrap();
        let whole = db::blob(rig.connection(), blobs, key).unwrap().unwrap();
        let samples = super::blob::read_all(&whole).unwrap().times;
        let all = rig.engine().samples(host(1), 0, i64::MAX).unwrap();
        let left: Vec<i64> = all.iter().copied().filter(|time| !samples.contains(time)).collect();
        assert_eq!((left.len(), samples.len()), if blobs == Blobs::Raw { (12, 24) } else { (24, 12) });
        let mut random = fastrand::Rng::with_seed(3);
        let spread = (0..whole.len()).step_by(whole.len() / 100);
        for place in (0..40).chain(spread).chain([whole.len() - 1]) {
            let mut damaged = whole.clone();
            damaged[place] ^= random.u8(1..);
            rig.connection().execute(sql, rusqlite::params![damaged, key]).unwrap();
            let shared = rig.engine().shared.clone();
            let before = shared.counters.damaged_samples.get();
            let times = shared.samples(host(1), 0..i64::MAX).unwrap();
            let rows = shared.rows(host(1), 0..i64::MAX, usize::MAX).unwrap();
            assert_eq!(rows.iter().map(|row| row.time_ms).collect::<Vec<_>>(), times, "byte {place}");
            let sent: Vec<_> = times.iter().map(|time| sample(host(1), *time)).collect();
            assert!(rig.lines(host(1), 0..i64::MAX) == written(&sent, 0..i64::MAX), "byte {place}");
            assert_eq!(times, left, "byte {place}");
            let counted = shared.counters.damaged_samples.get() - before;
            assert_eq!(counted, samples.len() as u64, "byte {place}");
            shared.damaged.lock().unwrap().clear();
            if place % 8 > 0 {
                rig.connection().execute(sql, rusqlite::params![whole, key]).unwrap();
                continue;
            }
            // Also where the merge is first to find it.
            rig.reopen();
            rig.pass(2 * 3_600_000);
            let late = vec![sample(host(1), samples[0] + 1)];
            rig.send(host(1), late);
            rig.commit(Seal::All);
            rig.merge_all();
            let shared = rig.engine().shared.clone();
            assert_eq!(shared.counters.damaged_blobs.get(), 1, "byte {place}");
            assert_eq!(shared.counters.damaged_samples.get(), samples.len() as u64, "byte {place}");
            let found = shared.samples(host(1), 0..i64::MAX).unwrap();
            assert_eq!(found.len(), left.len() + 1, "byte {place}");
            rig = filled_a_little();
        }
    }
}

#[test]
fn a_full_disk_loses_nothing_and_what_waits_is_sealed_when_there_is_room() {
    let mut rig = Rig::new();
    rig.options.memory_bytes = 1 << 20;
    rig.reopen();
    let pages: i64 = rig.connection().pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    rig.connection().pragma_update(None, "max_page_count", pages + 2).unwrap();
    let mut sent = 0;
    while !rig.engine().is_full() {
        rig.send(host(1), (0..60).map(|i| sample(host(1), BASE_MS + (sent * 60 + i) * 5_000)).collect());
        sent += 1;
        assert!(sent < 10_000);
    }
    let now = rig.now;
    let before = read(&rig.engine().shared.memory).bytes;
    for _ in 0..3 {
        let error = rig.engine().commit(now, Seal::Due).unwrap_err();
        assert!(matches!(error, StoreError::Failed(_)) && error.to_string().contains("full"), "{error}");
    }
    assert_eq!(read(&rig.engine().shared.memory).bytes, before);
    assert_eq!(rig.engine().cursor().offset, 0, "the journal keeps what is not sealed");
    rig.check();
    rig.connection().pragma_update(None, "max_page_count", 1 << 30).unwrap();
    rig.commit(Seal::Due);
    assert!(!rig.engine().is_full());
    assert_eq!(rig.engine().cursor().offset, sent as u64);
    rig.check();
    rig.reopen();
    rig.check();
}

#[test]
fn a_disk_that_turns_read_only_is_waited_for() {
    let mut rig = filled();
    rig.connection().pragma_update(None, "query_only", true).unwrap();
    rig.send(host(3), vec![sample(host(3), BASE_MS)]);
    let now = rig.now;
    assert!(rig.engine().commit(now, Seal::All).is_err());
    rig.pass(9 * 24 * 3_600_000);
    let later = rig.now;
    assert!(rig.engine().tidy(later).is_err());
    rig.check();
    rig.connection().pragma_update(None, "query_only", false).unwrap();
    rig.commit(Seal::All);
    rig.reopen();
    rig.check();
}

#[test]
fn an_answer_longer_than_its_limit_is_an_error() {
    let mut rig = Rig::new();
    rig.send(host(1), (0..10).map(|i| sample(host(1), BASE_MS + i * 5_000)).collect());
    let selector = "temp.temp".parse().unwrap();
    let all = rig.engine().series(host(1), &selector, 0, i64::MAX, 10).unwrap();
    let points = all[0].points.len();
    let error = rig.engine().series(host(1), &selector, 0, i64::MAX, points - 1).unwrap_err();
    assert!(matches!(error, StoreError::TooManyPoints { limit } if limit == points - 1));
    let first = all[0].points[0].0;
    assert_eq!(rig.engine().series(host(1), &selector, first, first + 1, 1).unwrap()[0].points.len(), 1);
    assert!(rig.engine().series(host(1), &selector, first, first, 1).unwrap().is_empty());
    assert!(rig.engine().series(host(9), &selector, 0, i64::MAX, 1).unwrap().is_empty());
    let unknown = "temp.nothing".parse().unwrap();
    assert!(rig.engine().series(host(1), &unknown, 0, i64::MAX, 1).unwrap().is_empty());
}

#[test]
fn fields_name_what_a_host_had_in_memory_and_file() {
    let mut rig = Rig::new();
    rig.send(host(1), vec![sample(host(1), BASE_MS)]);
    rig.commit(Seal::All);
    rig.send(host(1), vec![sample(host(1), BASE_MS + 5_000)]);
    rig.send(host(2), vec![sample(host(2), BASE_MS + 10_000)]);
    let fields = rig.engine().shared.fields(host(1)).unwrap();
    let found: Vec<_> = fields.into_iter().map(|f| (f.measurement, f.tags, f.field)).collect();
    let expected: Vec<_> = rig.readable(host(1)).into_keys().collect();
    assert_eq!(found, expected);
    assert_eq!(rig.engine().shared.fields(host(9)).unwrap(), []);
}

fn event(host: HostId, kind: EventKind) -> Event {
    Event { host, name: Text::cut("web-1"), kind, detail: Text::cut("because") }
}

#[test]
fn events_are_read_once_before_and_after_their_commit_and_after_a_replay() {
    let mut rig = Rig::new();
    let events = |kinds: &[EventKind]| {
        let events = kinds.iter().map(|kind| event(host(7), *kind)).collect();
        vec![Events { events: List::first(events).0 }.into()]
    };
    let at = |time_ms, kinds: &[EventKind]| Sample { time_ms, sections: List::first(events(kinds)).0 };
    let (up, down) = (EventKind::Up, EventKind::Down);
    rig.send(HostId::SERVER, vec![at(BASE_MS, &[up, down, up]), at(BASE_MS + 10, &[down])]);
    let kinds = |rig: &mut Rig, from, to| -> Vec<String> {
        let events = rig.engine().shared.events(from..to, 100).unwrap();
        assert!(events.iter().all(|e| e.host == host(7) && e.name == "web-1" && e.detail == "because"));
        events.into_iter().map(|event| event.kind).collect()
    };
    for _ in 0..3 {
        assert_eq!(kinds(&mut rig, BASE_MS, BASE_MS + 10), ["up", "down", "up"]);
        assert_eq!(kinds(&mut rig, 0, i64::MAX), ["up", "down", "up", "down"]);
        assert_eq!(kinds(&mut rig, BASE_MS + 1, i64::MAX), ["down"]);
        // Commits the events and seals nothing, so that they come again from the journal.
        rig.commit(Seal::Due);
        rig.reopen();
    }
    assert_eq!(rig.readable(HostId::SERVER).len(), 0, "events are no series");
    assert_eq!(rig.engine().shared.events(0..i64::MAX, 2).unwrap().len(), 2);
    rig.commit(Seal::Due);
    rig.pass(731 * 24 * 3_600_000);
    let now = rig.now;
    rig.engine().tidy(now).unwrap();
    assert_eq!(kinds(&mut rig, 0, i64::MAX).len(), 0);
}

#[test]
fn a_reader_beside_the_writer_sees_every_sample_once_at_any_moment() {
    let mut rig = Rig::new();
    rig.send(host(1), vec![sample(host(1), BASE_MS)]);
    let shared = rig.engine().shared.clone();
    let (sent, done) = (AtomicI64::new(1), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut looks = 0;
                    while !done.load(Ordering::Acquire) {
                        let before = sent.load(Ordering::Acquire);
                        let times = shared.samples(host(1), 0..i64::MAX).unwrap();
                        let gapless = times.iter().zip(0..).all(|(time, i)| *time == BASE_MS + i * 5_000);
                        assert!(gapless && times.len() as i64 >= before, "{} of {before}", times.len());
                        looks += 1;
                    }
                    looks
                })
            })
            .collect();
        for i in 1..3_000 {
            rig.send(host(1), vec![sample(host(1), BASE_MS + i * 5_000)]);
            sent.store(i + 1, Ordering::Release);
            rig.pass(5_000);
            if i % 10 == 0 {
                rig.commit(if i % 50 == 0 { Seal::All } else { Seal::Due });
            }
            if i % 100 == 0 {
                rig.merge_all();
            }
        }
        done.store(true, Ordering::Release);
        let looks: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert!(looks > 20, "{looks}");
    });
}

#[test]
fn the_newest_event_of_each_host_is_known_from_file_and_memory_and_found_quickly() {
    let mut rig = Rig::new();
    let at = |time_ms, events: Vec<Event>| Sample {
        time_ms,
        sections: List::new(vec![Events { events: List::new(events).unwrap() }.into()]).unwrap(),
    };
    let (up, down) = (EventKind::Up, EventKind::Down);
    assert_eq!(rig.engine().shared.last_events().unwrap(), []);
    let first = at(BASE_MS, vec![event(host(7), up), event(host(8), up), event(host(9), up)]);
    // Says nothing of whether it is there.
    let cloned = |host| event(host, EventKind::Cloned);
    rig.send(HostId::SERVER, vec![at(BASE_MS + 15, vec![cloned(host(8)), cloned(host(10))])]);
    rig.send(HostId::SERVER, vec![first, at(BASE_MS + 10, vec![event(host(8), up), event(host(8), down)])]);
    // Older, and told later.
    rig.send(HostId::SERVER, vec![at(BASE_MS - 10, vec![event(host(9), down)])]);
    rig.commit(Seal::Due);
    rig.send(HostId::SERVER, vec![at(BASE_MS + 20, vec![event(host(7), down), cloned(host(9))])]);
    for _ in 0..2 {
        let events = rig.engine().shared.last_events().unwrap();
        let found: Vec<_> =
            events.iter().map(|e| (e.host, e.time_ms - BASE_MS, e.place, e.kind.as_str())).collect();
        assert_eq!(found, [(host(7), 20, 0, "down"), (host(8), 10, 1, "down"), (host(9), 0, 2, "up")]);
        assert!(events.iter().all(|event| event.name == "web-1" && event.detail == "because"));
        rig.commit(Seal::Due);
    }

    let connection = rig.connection();
    connection
        .execute_batch(
            "WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 199999)
             INSERT INTO events SELECT n, 0, CAST(printf('%016d', n % 2000) AS BLOB), 'x', 'up', '' FROM n",
        )
        .unwrap();
    let begun = std::time::Instant::now();
    let events = rig.engine().shared.last_events().unwrap();
    // Quadratic, or a sort of them all for each host, takes minutes.
    assert!(begun.elapsed() < std::time::Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(events.len(), 2003);
    assert!(events.iter().filter(|event| event.name == "x").all(|event| event.time_ms >= 198_000));
}
