use super::*;
use crate::store::engine::Seal;
use crate::store::test_support::{BASE_MS, Rig, host, sample};

/// Two hosts with an hour of samples in pieces, and some in memory only.
fn filled() -> Rig<MemoryStorage> {
    let mut rig = Rig::in_memory();
    for i in 0..4 {
        for number in [1, 2] {
            rig.send(
                host(number),
                (0..3).map(|j| sample(host(number), BASE_MS + i * 60_000 + j * 5_000)).collect(),
            );
        }
        if i < 3 {
            rig.commit(Seal::All);
        }
    }
    rig.pass(2 * 3_600_000);
    rig
}

/// Seals and merges; how it went.
fn work(rig: &mut Rig<MemoryStorage>) -> Result<(), StoreError> {
    let now = rig.now;
    rig.engine().commit(now, Seal::All)?;
    rig.engine().merge_hosts(0..2, now)
}

#[test]
fn a_crash_at_any_call_leaves_what_was_committed_and_the_journal_brings_the_rest() {
    for fault in [MemoryFault::Crash, MemoryFault::CrashAfterCommit] {
        let (mut crashes, mut at) = (0, 0);
        loop {
            let mut rig = filled();
            rig.memory.fail_after(at, fault);
            let worked = work(&mut rig);
            assert_eq!(worked.is_err(), rig.memory.is_failing());
            if worked.is_ok() {
                break;
            }
            assert!(rig.engine().samples(host(1), 0, i64::MAX).is_err(), "nothing is read of what has died");
            crashes += 1;
            at += 1;
            rig.memory.heal();
            rig.reopen();
            rig.check();
            work(&mut rig).unwrap();
            rig.check();
        }
        assert!(crashes > 8, "{crashes}");
    }
}

#[test]
fn a_commit_is_durable_or_not_as_the_fault_says() {
    for (fault, is_durable) in [(MemoryFault::Crash, false), (MemoryFault::CrashAfterCommit, true)] {
        let mut storage = MemoryStorage::new();
        storage.fail_after(2, fault);
        let mut changes = storage.begin().unwrap();
        changes.put_host(0, host(1)).unwrap();
        assert!(changes.commit().is_err());
        assert!(storage.begin().is_err() && storage.load().is_err());
        storage.heal();
        assert_eq!(storage.load().unwrap().hosts.len(), usize::from(is_durable), "{fault:?}");
    }
}

#[test]
fn a_full_disk_at_any_call_loses_nothing_and_what_waits_is_sealed_when_there_is_room() {
    let (mut failures, mut at) = (0, 0);
    loop {
        let mut rig = filled();
        rig.memory.fail_after(at, MemoryFault::Full);
        if work(&mut rig).is_ok() {
            break;
        }
        failures += 1;
        at += 1;
        rig.check();
        assert!(work(&mut rig).is_err());
        rig.check();
        rig.memory.heal();
        work(&mut rig).unwrap();
        rig.check();
        rig.reopen();
        rig.check();
    }
    assert!(failures > 8, "{failures}");
}

#[test]
fn changes_that_are_dropped_are_taken_back() {
    let mut rig = filled();
    let before = format!("{:?}", rig.memory.state().unwrap());
    let event = StoredEvent {
        time_ms: 1,
        place: 0,
        host: host(1),
        name: String::new(),
        kind: "up".to_owned(),
        detail: String::new(),
    };
    let mut storage = rig.memory.clone();
    let first = storage.state().unwrap().first_key(Blobs::Pieces, 0).unwrap().unwrap();
    for is_committed in [false, true] {
        let mut changes = storage.begin().unwrap();
        changes.put_host(2, host(3)).unwrap();
        assert!(changes.put_host(7, host(4)).is_err());
        changes.put_event(&event).unwrap();
        changes.put_cursor(Position { segment: 9, offset: 9 }).unwrap();
        changes.put_blob(Blobs::Raw, 5, b"blob").unwrap();
        changes.put_blob(Blobs::Pieces, first, b"other").unwrap();
        changes.delete_below(Blobs::Pieces, i64::MAX, 2).unwrap();
        changes.delete_events_before(i64::MAX, 2).unwrap();
        assert_eq!(changes.view().blob(Blobs::Raw, 5).unwrap().unwrap(), b"blob");
        if is_committed {
            changes.commit().unwrap();
        } else {
            drop(changes);
        }
        assert_eq!(format!("{:?}", storage.state().unwrap()) == before, !is_committed);
    }
    rig.engine = None;
}

#[test]
fn the_same_calls_make_the_same_bytes() {
    let made = || {
        let mut rig = filled();
        work(&mut rig).unwrap();
        (rig.memory.calls(), format!("{:?}", rig.memory.state().unwrap()))
    };
    assert!(made() == made());
}
