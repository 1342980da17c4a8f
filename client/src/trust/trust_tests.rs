use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use vitals_wire::ids::Secret;

use super::job::{Job, Keep, Outcome};
use super::*;
use crate::identity::{Identity, Secrets};
use crate::link::tls::Pins;

fn kept() -> Kept {
    Kept {
        host: Some(HostId([7; 16])),
        by: Basis::Pins,
        addresses: vec!["vitals.example.org:7400".to_owned(), "[2001:db8::1]:7400".to_owned()],
        pins: vec![Pin([1; 32]), Pin([0xfb; 32])],
    }
}

#[test]
fn what_was_learnt_survives_a_restart_and_only_its_owner_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(dir.path());
    assert_eq!(Kept::read(&path).unwrap(), Kept::default(), "nothing at first");
    kept().write(&path).unwrap();
    assert_eq!(Kept::read(&path).unwrap(), kept());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let bare = Kept { host: None, addresses: vec![], pins: vec![], by: Basis::Nothing };
    bare.write(&path).unwrap();
    assert_eq!(Kept::open(&path), bare);
}

#[test]
fn a_file_that_is_cut_or_changed_anywhere_is_named_and_moved_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(dir.path());
    let whole = kept().text();
    for end in 0..whole.len() {
        std::fs::write(&path, &whole[..end]).unwrap();
        assert!(Kept::read(&path).is_err(), "cut at {end}");
    }
    std::fs::write(&path, whole.replace("pin = 01", "pin = 02")).unwrap();
    assert_eq!(Kept::open(&path), Kept::default());
    assert!(!path.exists() && path.with_extension("damaged").exists());
    std::fs::write(&path, [0xff; 100]).unwrap();
    assert_eq!(Kept::open(&path), Kept::default(), "what is no text neither");
    std::fs::write(&path, "x".repeat(100_000)).unwrap();
    assert_eq!(Kept::open(&path), Kept::default());
}

#[test]
fn a_line_of_a_later_version_is_no_damage() {
    let body = format!("{FIRST_LINE}\nby = ca\ncolour = blue\n");
    let text = format!("{body}sum = {:08x}\n", crc32c::crc32c(body.as_bytes()));
    assert_eq!(parse(&text).unwrap().by, Basis::Ca);
}

#[test]
fn pins_are_64_digits_and_nothing_else() {
    let pin = Pin([0xab; 32]);
    assert_eq!(format!(" {} ", pin.to_string().to_uppercase()).parse(), Ok(pin));
    for bad in ["", "ab", &"g".repeat(64), &"a".repeat(65), &"é".repeat(32)] {
        assert!(bad.parse::<Pin>().unwrap_err().contains("64 hexadecimal digits"), "{bad}");
    }
}

#[test]
fn what_was_given_is_before_what_was_learnt() {
    let learnt = kept();
    assert_eq!(Basis::of(true, true, true, &learnt), Basis::Nothing);
    assert_eq!(Basis::of(false, true, true, &learnt), Basis::Pins);
    assert_eq!(Basis::of(false, false, true, &learnt), Basis::Ca);
    assert_eq!(Basis::of(false, false, false, &learnt), Basis::Pins);
    // Whoever was let in by a public certificate goes on so.
    let by_roots = Kept { by: Basis::Roots, ..kept() };
    assert_eq!(Basis::of(false, false, false, &by_roots), Basis::Roots);
    assert_eq!(Basis::of(false, false, false, &Kept::default()), Basis::Roots);
}

fn keeper(dir: &Path, shared: &Arc<std::sync::Mutex<Shared>>) -> Keeper {
    let secrets = Secrets::of(dir, HostId([7; 16]));
    Keeper::new(shared.clone(), Some(HostId([7; 16])), Basis::Pins, kept().addresses, Some(secrets))
}

#[test]
fn what_a_server_names_is_kept_once_and_trusted_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(dir.path());
    let pins = Arc::new(Pins::new(vec![]));
    let shared = Shared::new(Some(path.clone()), Kept::default(), pins.clone());
    let mut keeper = keeper(dir.path(), &shared);
    assert!(!keeper.is_current());
    assert_eq!(keeper.perform(Job::Keep { pins: kept().pins }), Outcome::Kept);
    assert!(keeper.is_current() && pins.has(&Pin([1; 32])));
    assert_eq!(Kept::read(&path).unwrap(), kept());
    std::fs::remove_file(&path).unwrap();
    assert_eq!(keeper.perform(Job::Keep { pins: kept().pins }), Outcome::Kept);
    assert!(!path.exists(), "what is kept is not written again");
    assert_eq!(keeper.perform(Job::Keep { pins: vec![Pin([2; 32])] }), Outcome::Kept);
    assert!(pins.has(&Pin([2; 32])) && !pins.has(&Pin([1; 32])), "what is not named any more is not trusted");
}

#[test]
fn a_disk_that_takes_nothing_fails_the_job_and_not_the_trust_of_this_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = path(dir.path());
    std::fs::create_dir_all(path.with_extension("new").join("x")).unwrap();
    let pins = Arc::new(Pins::new(vec![]));
    let shared = Shared::new(Some(path.clone()), Kept::default(), pins.clone());
    let mut keeper = keeper(dir.path(), &shared);
    assert!(matches!(keeper.perform(Job::Keep { pins: kept().pins }), Outcome::Failed { .. }));
    assert!(pins.has(&Pin([1; 32])) && !keeper.is_current());
    std::fs::remove_dir_all(path.with_extension("new")).unwrap();
    assert_eq!(keeper.perform(Job::Keep { pins: kept().pins }), Outcome::Kept);
    assert_eq!(Kept::read(&path).unwrap(), kept());
}

#[test]
fn a_new_secret_is_on_disk_beside_the_old_one_until_it_took_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::open(dir.path()).unwrap();
    let (host, present) = (identity.host, identity.secret.clone());
    drop(identity);
    let shared = Shared::new(None, Kept::default(), Arc::new(Pins::new(vec![])));
    let mut keeper = Keeper::new(shared, None, Basis::Pins, vec![], Some(Secrets::of(dir.path(), host)));
    let Outcome::Made(next) = keeper.perform(Job::MakeSecret { present: present.clone() }) else { panic!() };
    assert_ne!(next, present);
    let identity = Identity::open(dir.path()).unwrap();
    assert_eq!((identity.host, &identity.secret), (host, &present));
    assert_eq!(identity.next_secret.as_ref(), Some(&next));
    drop(identity);
    assert_eq!(keeper.perform(Job::ChangeSecret { to: next.clone() }), Outcome::Changed);
    let identity = Identity::open(dir.path()).unwrap();
    assert_eq!((identity.host, identity.secret.clone(), &identity.next_secret), (host, next, &None));
    let mut fixed = Keeper::new(
        Shared::new(None, Kept::default(), Arc::new(Pins::new(vec![]))),
        None,
        Basis::Pins,
        vec![],
        None,
    );
    assert!(matches!(fixed.perform(Job::MakeSecret { present: Secret([1; 32]) }), Outcome::Failed { .. }));
}
