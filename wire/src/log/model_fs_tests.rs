use super::*;

fn dir() -> &'static Path {
    Path::new("/log")
}

fn in_dir(name: &str) -> PathBuf {
    dir().join(name)
}

/// An empty directory.
fn fresh(seed: u64) -> ModelFs {
    let fs = ModelFs::new(seed);
    fs.create_dir(dir()).unwrap();
    fs
}

/// What is left of a file after each of many crashes at the same point.
fn after_crashes(prepare: impl Fn(&ModelFs)) -> BTreeSet<Option<Vec<u8>>> {
    let crashed = (0..200).map(|seed| {
        let fs = fresh(seed);
        prepare(&fs);
        fs.crash(&mut Rng::with_seed(seed));
        fs.content(&in_dir("a"))
    });
    crashed.collect()
}

#[test]
fn a_crash_takes_what_was_not_synced_and_never_what_was() {
    let named_only = after_crashes(|fs| {
        fs.create(&in_dir("a")).unwrap().append(b"abcdef").unwrap();
        fs.sync_dir(dir()).unwrap();
    });
    let expected = (0..=6).map(|len| Some(b"abcdef"[..len].to_vec()));
    assert!(expected.into_iter().all(|tail| named_only.contains(&tail)), "{named_only:?}");
    assert!(named_only.contains(&Some(vec![0; 6])) && !named_only.contains(&None));

    let synced_only = after_crashes(|fs| {
        let mut file = fs.create(&in_dir("a")).unwrap();
        file.append(b"abcdef").unwrap();
        file.sync().unwrap();
    });
    assert_eq!(synced_only, BTreeSet::from([None, Some(b"abcdef".to_vec())]));

    let both = after_crashes(|fs| {
        let mut file = fs.create(&in_dir("a")).unwrap();
        file.append(b"abcdef").unwrap();
        file.sync().unwrap();
        fs.sync_dir(dir()).unwrap();
        file.append(b"g").unwrap();
    });
    assert!(both.iter().all(|left| left.as_ref().unwrap().starts_with(b"abcdef")));
    assert_eq!(both.len(), 3, "{both:?}");
}

#[test]
fn a_removal_and_a_cut_may_be_undone_until_they_are_synced() {
    let prepared = |fs: &ModelFs| {
        fs.replace(&in_dir("a"), b"abc").unwrap();
        fs.remove(&in_dir("a")).unwrap();
    };
    assert_eq!(after_crashes(prepared), BTreeSet::from([None, Some(b"abc".to_vec())]));
    let synced = |fs: &ModelFs| {
        prepared(fs);
        fs.sync_dir(dir()).unwrap();
    };
    assert_eq!(after_crashes(synced), BTreeSet::from([None]));
    let cut = after_crashes(|fs| {
        let mut file = fs.create(&in_dir("a")).unwrap();
        file.append(b"abc").unwrap();
        file.sync().unwrap();
        fs.sync_dir(dir()).unwrap();
        file.cut(1).unwrap();
    });
    assert_eq!(cut, BTreeSet::from([Some(b"a".to_vec()), Some(b"abc".to_vec())]));
}

#[test]
fn a_replaced_file_is_the_old_or_the_new_one_wherever_the_process_dies() {
    for calls in 1..=6 {
        for crash in [false, true] {
            let mut seen = BTreeSet::new();
            for seed in 0..100 {
                let fs = fresh(seed);
                fs.replace(&in_dir("a"), b"old one").unwrap();
                fs.stop_after(calls);
                let done = fs.replace(&in_dir("a"), b"new one").is_ok();
                assert_eq!((done, fs.is_stopped()), (calls == 6, calls < 6));
                if crash {
                    fs.crash(&mut Rng::with_seed(seed))
                } else {
                    fs.kill()
                }
                let found = fs.read(&in_dir("a")).unwrap();
                assert!(!done || found == b"new one");
                seen.insert(found);
            }
            let both = BTreeSet::from([b"new one".to_vec(), b"old one".to_vec()]);
            assert!(seen.is_subset(&both));
            assert_eq!(
                seen.len() == 2,
                crash && calls == 5,
                "only a rename that was not synced can be undone"
            );
        }
    }
}

#[test]
fn after_a_kill_everything_written_is_there_and_old_handles_fail() {
    let fs = fresh(1);
    let mut file = fs.create(&in_dir("a")).unwrap();
    file.append(b"abc").unwrap();
    let mut reader = fs.open(&in_dir("a")).unwrap();
    fs.kill();
    file.append(b"d").unwrap_err();
    file.sync().unwrap_err();
    reader.read_at(0, &mut [0; 4]).unwrap_err();
    assert_eq!(fs.read(&in_dir("a")).unwrap(), b"abc");
    fs.clone().crash(&mut Rng::with_seed(1));
    file.cut(0).unwrap_err();
}

#[test]
fn the_call_at_which_a_process_dies_may_write_a_part() {
    let written: BTreeSet<usize> = (0..100)
        .map(|seed| {
            let fs = fresh(seed);
            let mut file = fs.create(&in_dir("a")).unwrap();
            fs.stop_after(2);
            file.append(b"abc").unwrap();
            file.append(b"def").unwrap_err();
            file.append(b"ghi").unwrap_err();
            file.sync().unwrap_err();
            fs.read(&in_dir("a")).unwrap_err();
            fs.content(&in_dir("a")).unwrap().len()
        })
        .collect();
    assert_eq!(written, BTreeSet::from([3, 4, 5, 6]));
}

#[test]
fn a_failed_sync_loses_what_it_had_to_write_for_good() {
    let fs = fresh(1);
    let mut file = fs.create(&in_dir("a")).unwrap();
    fs.sync_dir(dir()).unwrap();
    file.append(b"one").unwrap();
    file.sync().unwrap();
    file.append(b"two").unwrap();
    fs.fail(|faults| faults.sync_fails = true);
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(EIO));
    fs.fail(|faults| faults.sync_fails = false);
    file.append(b"six").unwrap();
    file.sync().unwrap();
    assert_eq!(fs.content(&in_dir("a")).unwrap(), b"onetwosix", "as long as the memory holds it");
    fs.crash(&mut Rng::with_seed(1));
    let left = fs.content(&in_dir("a")).unwrap();
    assert!(left.starts_with(b"one") && !left.contains(&b't'), "{left:?}");
}

#[test]
fn a_disk_that_is_full_takes_what_fits_and_all_again_when_there_is_room() {
    let fs = fresh(1);
    let mut file = fs.create(&in_dir("a")).unwrap();
    fs.fail(|faults| faults.capacity = Some(5));
    file.append(b"abc").unwrap();
    let error = file.append(b"def").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(fs.files(), [(in_dir("a"), 5)]);
    assert_eq!(fs.create(&in_dir("b")).unwrap_err().kind(), io::ErrorKind::StorageFull);
    fs.replace(&in_dir("b"), b"").unwrap_err();
    fs.cut(&in_dir("a"), 3).unwrap();
    fs.replace(&in_dir("b"), b"de").unwrap();
    fs.replace(&in_dir("b"), b"de").unwrap_err();
    assert_eq!(fs.read(&in_dir("b")).unwrap(), b"de");
}

#[test]
fn what_is_read_only_or_denied_says_so_and_stays() {
    let fs = fresh(1);
    let mut file = fs.create(&in_dir("a")).unwrap();
    file.append(b"abc").unwrap();
    fs.fail(|faults| faults.read_only = true);
    let read_only = [
        file.append(b"d").unwrap_err(),
        file.cut(1).unwrap_err(),
        file.sync().unwrap_err(),
        fs.create(&in_dir("b")).unwrap_err(),
        fs.cut(&in_dir("a"), 0).unwrap_err(),
        fs.remove(&in_dir("a")).unwrap_err(),
        fs.replace(&in_dir("a"), b"").unwrap_err(),
        fs.create_dir(&in_dir("c")).unwrap_err(),
    ];
    assert!(read_only.iter().all(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem), "{read_only:?}");
    assert_eq!(fs.read(&in_dir("a")).unwrap(), b"abc");
    fs.fail(|faults| (faults.read_only, faults.denied) = (false, true));
    let denied = [
        fs.open(&in_dir("a")).unwrap_err(),
        fs.read(&in_dir("a")).unwrap_err(),
        fs.create(&in_dir("b")).unwrap_err(),
        fs.remove(&in_dir("a")).unwrap_err(),
        fs.replace(&in_dir("a"), b"").unwrap_err(),
        fs.list(dir()).unwrap_err(),
        fs.sync_dir(dir()).unwrap_err(),
    ];
    assert!(denied.iter().all(|error| error.kind() == io::ErrorKind::PermissionDenied), "{denied:?}");
    file.append(b"def").unwrap();
    file.sync().unwrap();
    fs.fail(|faults| faults.denied = false);
    assert_eq!(fs.list(dir()).unwrap(), [("a".to_owned(), 6)]);
}

#[test]
fn bytes_that_cannot_be_read_fail_and_those_before_them_do_not() {
    let fs = fresh(1);
    fs.replace(&in_dir("a"), b"abcdef").unwrap();
    fs.fail(|faults| faults.unreadable = 3..5);
    let mut file = fs.open(&in_dir("a")).unwrap();
    let mut into = [0; 6];
    assert_eq!(file.read_at(1, &mut into).unwrap(), 2);
    assert_eq!(file.read_at(3, &mut into).unwrap_err().raw_os_error(), Some(EIO));
    assert_eq!((file.read_at(5, &mut into).unwrap(), into[0]), (1, b'f'));
    assert_eq!(file.read_at(9, &mut into).unwrap(), 0);
    fs.read(&in_dir("a")).unwrap_err();
    fs.replace(&in_dir("b"), b"abc").unwrap();
    assert_eq!(fs.read(&in_dir("b")).unwrap(), b"abc", "too short for it");
    assert!(fs.flip_bit(&in_dir("b"), 8) && !fs.flip_bit(&in_dir("b"), 24));
    fs.crash(&mut Rng::with_seed(1));
    assert_eq!(fs.content(&in_dir("b")).unwrap(), b"acc");
}
