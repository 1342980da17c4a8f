use vitals_wire::bounded::List;
use vitals_wire::log::model::ModelFs;
use vitals_wire::sample::{Sample, encode_sample};
use vitals_wire::section::{Opaque, Section};

use super::*;

const DIR: &str = "/state/spool";
const MAX: u64 = 40_000;

/// A sample of about this many bytes.
fn sample(time_ms: i64, bytes: usize) -> Record {
    let opaque = Opaque { kind: 999, bytes: vec![time_ms as u8; bytes].into() };
    let sample = Sample { time_ms, sections: List::first(vec![Section::Opaque(opaque)]).0 };
    Record { encoded: encode_sample(&sample).unwrap().into(), was_sent: time_ms % 2 == 0 }
}

fn spool(fs: &ModelFs) -> Spool {
    Spool::new_on(Arc::new(fs.clone()), Path::new(DIR), MAX)
}

fn open(fs: &ModelFs) -> (Spool, Opened) {
    let mut spool = spool(fs);
    match spool.perform(Job::Open) {
        Outcome::Opened(opened) => (spool, opened),
        other => panic!("{other:?}"),
    }
}

fn put(spool: &mut Spool, times: std::ops::Range<i64>, bytes: usize) -> Outcome {
    spool.perform(Job::Put { samples: times.map(|time_ms| sample(time_ms, bytes)).collect() })
}

fn read(spool: &mut Spool, from: Position) -> Vec<Kept> {
    match spool.perform(Job::Read { from, samples: 1000, bytes: usize::MAX }) {
        Outcome::Read { samples, is_end: true, .. } => samples,
        other => panic!("{other:?}"),
    }
}

fn times(spool: &mut Spool) -> Vec<i64> {
    read(spool, Position::default()).iter().map(|kept| kept.time_ms).collect()
}

fn bytes_on(fs: &ModelFs) -> u64 {
    fs.files().iter().map(|(_, len)| len).sum()
}

#[test]
fn nothing_is_made_before_the_first_sample_and_next_to_nothing_is_left_after_the_last() {
    let fs = ModelFs::new(1);
    let (mut spool, opened) = open(&fs);
    assert_eq!((opened.samples, fs.files().len()), (0, 0));
    let Outcome::Put { samples: 50, standing } = put(&mut spool, 0..50, 100) else { panic!("not put") };
    assert!(standing.bytes > 5000);
    let kept = read(&mut spool, standing.cursor);
    assert_eq!(kept.iter().map(|kept| kept.time_ms).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
    assert!(kept.iter().all(|kept| kept.record == sample(kept.time_ms, 100)), "as they were put");

    let to = kept[29].after;
    assert!(matches!(spool.perform(Job::Pass { to, drops: Drops::default() }), Outcome::Passed(_)));
    drop(spool);
    let (mut spool, opened) = open(&fs);
    assert_eq!((opened.samples, opened.first_ms), (20, Some(30)));
    assert_eq!(times(&mut spool), (30..50).collect::<Vec<_>>());
    let drops = Drops { too_old: 2, ..Drops::default() };
    spool.perform(Job::Pass { to: kept[49].after, drops });
    assert!(bytes_on(&fs) < 200, "{:?}", fs.files());
    put(&mut spool, 50..51, 10);
    assert_eq!(times(&mut spool), [50], "and it goes on");
    assert_eq!(open(&fs).1.drops, drops);
}

#[test]
fn a_full_spool_gives_up_its_oldest_counts_them_durably_and_stays_below_its_cap() {
    let fs = ModelFs::new(2);
    let (mut spool, _) = open(&fs);
    let (mut next, mut lost) = (0, Vec::new());
    while next < 1000 {
        match put(&mut spool, next..next + 1, 300) {
            Outcome::Put { standing, .. } => {
                next += 1;
                assert!(standing.bytes <= MAX, "{standing:?}");
            }
            Outcome::Full => match spool.perform(Job::MakeRoom { settled: vec![3], under_way: vec![] }) {
                Outcome::Room { gone, .. } => lost.extend(gone),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
    let gone: Vec<i64> = lost.iter().map(|gone| gone.time_ms).collect();
    assert_eq!(gone, (0..gone.len() as i64).collect::<Vec<_>>(), "the oldest, each once");
    assert_eq!(lost.iter().filter(|gone| gone.was_settled).count(), 1);
    assert!(lost.iter().all(|gone| gone.hash == content_hash(&sample(gone.time_ms, 300).encoded)));
    let left = times(&mut spool);
    assert_eq!(left, (gone.len() as i64..1000).collect::<Vec<_>>());
    assert!(left.len() > 100, "most of the space is used: {}", left.len());
    drop(spool);
    assert_eq!(open(&fs).1.drops.spool_full, gone.len() as u64 - 1);
    // What is under way is not taken away.
    let (mut spool, _) = open(&fs);
    let job = Job::MakeRoom { settled: vec![], under_way: vec![left[0]] };
    assert_eq!(spool.perform(job), Outcome::Held);
}

#[test]
fn a_kill_or_a_crash_between_any_two_calls_neither_loses_nor_counts_a_sample_twice() {
    for crash in [false, true] {
        let mut reached_end = false;
        for stop in 1..400 {
            let fs = ModelFs::new(stop);
            let mut rng = fastrand::Rng::with_seed(stop);
            let (mut spool, _) = open(&fs);
            put(&mut spool, 0..60, 500);
            fs.stop_after(stop);
            let mut put_for_sure = 60;
            let mut passed = 0;
            // Fills it, gives up the oldest, passes some, and empties it.
            for round in 0..12 {
                let from = 60 + round * 10;
                match put(&mut spool, from..from + 10, 500) {
                    Outcome::Put { samples: 10, .. } => put_for_sure = from + 10,
                    Outcome::Put { samples, .. } => put_for_sure = from + samples as i64,
                    Outcome::Full => {
                        spool.perform(Job::MakeRoom { settled: vec![], under_way: vec![] });
                        if let Outcome::Put { samples, .. } = put(&mut spool, from..from + 10, 500) {
                            put_for_sure = from + samples as i64;
                        }
                    }
                    _ => break,
                }
                if put_for_sure < from + 10 {
                    break;
                }
                if round % 4 == 3
                    && let Outcome::Read { samples, .. } =
                        spool.perform(Job::Read { from: Position::default(), samples: 5, bytes: 1 << 20 })
                    && let Some(last) = samples.last()
                {
                    // Counted as dropped for their age: each by its own.
                    let drops = Drops { too_old: samples.len() as u64, ..Drops::default() };
                    passed += samples.len();
                    spool.perform(Job::Pass { to: last.after, drops });
                }
            }
            reached_end |= !fs.is_stopped();
            if crash {
                fs.crash(&mut rng);
            } else {
                fs.kill();
            }
            drop(spool);
            let (mut spool, opened) = open(&fs);
            let left = times(&mut spool);
            assert_eq!(left.len() as u64, opened.samples, "stop {stop}");
            let dropped = opened.drops.spool_full + opened.drops.too_old;
            let what = format!(
                "stop {stop}, crash {crash}: {put_for_sure} put, {dropped} dropped, left {left:?}, {passed}"
            );
            // Ascending without a hole from the first that is left; what was dropped are exactly those before.
            let first = left.first().copied().unwrap_or(dropped as i64);
            assert_eq!(first as u64, dropped, "{what}");
            assert!(left.windows(2).all(|pair| pair[1] == pair[0] + 1), "{what}");
            assert!(left.last().is_none_or(|&last| last + 1 >= put_for_sure), "{what}");
        }
        assert!(reached_end, "not every place was tried");
    }
}

#[test]
fn a_disk_that_fails_keeps_what_is_there_and_goes_on_when_it_is_back() {
    let fs = ModelFs::new(3);
    let (mut spool, _) = open(&fs);
    put(&mut spool, 0..5, 100);
    let full = bytes_on(&fs) + 100;
    for (break_it, mend) in [
        (
            Box::new(|faults: &mut vitals_wire::log::model::Faults| faults.sync_fails = true)
                as Box<dyn Fn(&mut vitals_wire::log::model::Faults)>,
            Box::new(|faults: &mut vitals_wire::log::model::Faults| faults.sync_fails = false)
                as Box<dyn Fn(&mut vitals_wire::log::model::Faults)>,
        ),
        (Box::new(|faults| faults.read_only = true), Box::new(|faults| faults.read_only = false)),
        (Box::new(move |faults| faults.capacity = Some(full)), Box::new(|faults| faults.capacity = None)),
        (Box::new(|faults| faults.sync_dir_fails = true), Box::new(|faults| faults.sync_dir_fails = false)),
    ] {
        let before = times(&mut spool);
        fs.fail(&*break_it);
        let next = before.last().map_or(0, |last| last + 1);
        let failed = put(&mut spool, next..next + 4, 100);
        assert!(
            matches!(failed, Outcome::Failed { is_final: false, .. } | Outcome::Put { .. }),
            "{failed:?}"
        );
        fs.fail(&*mend);
        if !matches!(failed, Outcome::Put { .. }) {
            assert_eq!(times(&mut spool), before);
            assert!(matches!(put(&mut spool, next..next + 4, 100), Outcome::Put { samples: 4, .. }));
        }
        assert_eq!(times(&mut spool), (0..next + 4).collect::<Vec<_>>());
    }
    // A disk that is full of settled samples is emptied without a header.
    let full = bytes_on(&fs);
    fs.fail(|faults| faults.capacity = Some(full));
    let to = read(&mut spool, Position::default())[10].after;
    spool.perform(Job::Pass { to, drops: Drops::default() });
    fs.fail(|faults| faults.capacity = None);
    assert!(bytes_on(&fs) < full);
}

#[test]
fn damage_is_skipped_and_counted_and_a_lost_header_only_sends_again() {
    for seed in 0..60 {
        let fs = ModelFs::new(seed);
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut spool, _) = open(&fs);
        for n in 0..10 {
            put(&mut spool, n * 10..n * 10 + 10, 200);
        }
        let Outcome::Read { samples, .. } =
            spool.perform(Job::Read { from: Position::default(), samples: 20, bytes: 1 << 20 })
        else {
            panic!("not read")
        };
        spool.perform(Job::Pass { to: samples[19].after, drops: Drops::default() });
        drop(spool);
        let files = fs.files();
        let (path, len) = &files[rng.usize(..files.len())];
        for _ in 0..rng.usize(1..10) {
            fs.flip_bit(path, rng.u64(..len * 8));
        }
        let (mut spool, opened) = open(&fs);
        let Outcome::Read { samples, damaged, is_end: true, .. } =
            spool.perform(Job::Read { from: Position::default(), samples: 1000, bytes: 1 << 20 })
        else {
            panic!("not read")
        };
        let damaged = damaged + samples.iter().map(|kept| kept.damaged).sum::<u64>();
        let is_header = path.ends_with("header");
        assert_eq!(opened.damaged, u64::from(is_header));
        assert!(samples.iter().all(|kept| kept.record == sample(kept.time_ms, 200)));
        if is_header {
            assert!(samples.len() >= 80, "some again, none missing");
        } else {
            assert!(samples.len() >= 80 || damaged > 0, "{path:?}: {} left, {damaged}", samples.len());
        }
        assert!(matches!(put(&mut spool, 200..201, 10), Outcome::Put { .. }), "and it goes on");
    }
}

#[test]
fn a_spool_of_a_newer_version_is_left_as_it_is() {
    let fs = ModelFs::new(4);
    let (mut spool, _) = open(&fs);
    put(&mut spool, 0..3, 10);
    drop(spool);
    let path = Path::new(DIR).join("header");
    let mut newer = b"VitSpool\0\x02later".to_vec();
    let checksum = crc32c::crc32c(&newer);
    newer.extend_from_slice(&checksum.to_be_bytes());
    fs.replace(&path, &newer).unwrap();
    let before: Vec<_> = fs.files();
    let Outcome::Failed { why, is_final: true } = self::spool(&fs).perform(Job::Open) else {
        panic!("opened")
    };
    assert!(why.contains("newer version"), "{why}");
    assert_eq!((fs.files(), fs.content(&path).unwrap()), (before, newer));
}

#[test]
fn segments_that_somebody_took_away_are_no_trouble_for_those_that_come_after() {
    let fs = ModelFs::new(5);
    let (mut spool, _) = open(&fs);
    put(&mut spool, 0..100, 200);
    let to = read(&mut spool, Position::default())[80].after;
    spool.perform(Job::Pass { to, drops: Drops::default() });
    drop(spool);
    for (path, _) in fs.files() {
        if path.extension().is_some_and(|extension| extension == "log") {
            fs.remove(&path).unwrap();
        }
    }
    let (mut spool, opened) = open(&fs);
    assert_eq!(opened.samples, 0);
    put(&mut spool, 100..110, 200);
    drop(spool);
    assert_eq!(times(&mut open(&fs).0), (100..110).collect::<Vec<_>>());
}

/// A spool of the real file system with samples 0 to 4 in it, and the place behind them.
fn on_a_real_disk() -> (tempfile::TempDir, Spool, Position) {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::new(&dir.path().join("spool"), MAX);
    assert!(matches!(spool.perform(Job::Open), Outcome::Opened(_)));
    assert!(matches!(put(&mut spool, 0..5, 100), Outcome::Put { samples: 5, .. }));
    let after = read(&mut spool, Position::default())[4].after;
    (dir, spool, after)
}

#[test]
fn a_directory_that_is_taken_away_costs_nothing_that_is_put_later() {
    let (dir, mut spool, _) = on_a_real_disk();
    std::fs::remove_dir_all(dir.path().join("spool")).unwrap();
    // The first attempt may find out.
    while !matches!(put(&mut spool, 5..8, 100), Outcome::Put { samples: 3, .. }) {}
    let mut next = Spool::new(&dir.path().join("spool"), MAX);
    let Outcome::Opened(opened) = next.perform(Job::Open) else { panic!("not opened") };
    assert_eq!(opened.samples, 3, "they are on disk for who comes after a kill");
    assert_eq!(times(&mut next), [5, 6, 7]);
}

#[test]
fn a_place_in_a_directory_that_was_taken_away_passes_nothing_in_the_new_one() {
    let (dir, mut spool, old) = on_a_real_disk();
    std::fs::remove_dir_all(dir.path().join("spool")).unwrap();
    while !matches!(put(&mut spool, 5..20, 100), Outcome::Put { samples: 15, .. }) {}
    assert!(matches!(spool.perform(Job::Pass { to: old, drops: Drops::default() }), Outcome::Passed(_)));
    assert_eq!(times(&mut spool), (5..20).collect::<Vec<_>>());
    assert_eq!(read(&mut spool, old).len(), 15, "and they are read from the old place on");
}

#[test]
fn a_disk_that_the_spool_itself_has_filled_up_is_freed_also_where_drops_are_to_be_counted() {
    let fs = ModelFs::new(21);
    let (mut spool, _) = open(&fs);
    let Outcome::Put { samples, .. } = put(&mut spool, 0..60, 100) else { panic!("not put") };
    (60..300).step_by(10).for_each(|first| drop(put(&mut spool, first..first + 10, 100)));
    let kept = read(&mut spool, Position::default());
    assert!(samples == 60 && kept.len() > 200, "{}", kept.len());
    let full = bytes_on(&fs);
    fs.fail(|faults| faults.capacity = Some(full));
    let drops = Drops { too_old: 30, ..Drops::default() };
    let to = kept[149].after;
    assert!(matches!(spool.perform(Job::Pass { to, drops }), Outcome::Passed(_)), "by itself");
    assert!(bytes_on(&fs) < full * 3 / 4);
    let (mut spool, opened) = open(&fs);
    assert_eq!((opened.drops, times(&mut spool)[0]), (drops, 150));
}
