use std::os::unix::fs::PermissionsExt;

use super::*;

fn own(dir: &Path, public: &[&str]) -> Page {
    let files = Files { certificate: dir.join("page.crt"), key: dir.join("page.key") };
    let public: Vec<String> = public.iter().map(|&name| name.to_owned()).collect();
    Page::of(files, Some(Names::of(&public, "0.0.0.0".parse().unwrap()))).unwrap()
}

fn key(dir: &Path) -> String {
    fs::read_to_string(dir.join("page.key")).unwrap()
}

#[test]
fn the_first_start_makes_a_certificate_that_stays_and_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let first = own(dir.path(), &[]).fingerprint();
    assert_eq!((first.len(), own(dir.path(), &[]).fingerprint()), (95, first));
    for file in ["page.crt", "page.key"] {
        let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn a_new_name_makes_a_new_certificate_with_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    let (before, with) = (own(dir.path(), &[]).fingerprint(), key(dir.path()));
    let after = own(dir.path(), &["vitals.example.org:7400", "[2001:db8::7]:1", "192.0.2.7"]);
    assert_ne!(before, after.fingerprint());
    assert_eq!(with, key(dir.path()));
    let shown = after.files.read().unwrap();
    for name in ["vitals.example.org", "2001:db8::7", "192.0.2.7", "localhost", "::1"] {
        let names = Names { must: vec![name.to_owned()], may: Vec::new() };
        assert!(names.are_in(&shown, SystemTime::now()), "{name}");
    }
    let other = Names { must: vec!["evil.example".to_owned()], may: Vec::new() };
    assert!(!other.are_in(&shown, SystemTime::now()), "it is not for anything else");
    assert_eq!(
        own(dir.path(), &["192.0.2.7"]).fingerprint(),
        after.fingerprint(),
        "a name less changes nothing"
    );
}

#[test]
fn a_certificate_is_made_anew_before_its_end_while_the_server_runs() {
    let dir = tempfile::tempdir().unwrap();
    let page = own(dir.path(), &[]);
    let (before, with) = (page.fingerprint(), key(dir.path()));
    let now = SystemTime::now();
    page.look(now + HOLDS - RENEWED_BEFORE - DAY);
    assert_eq!(page.fingerprint(), before);
    page.look(now + HOLDS - RENEWED_BEFORE + DAY);
    assert_ne!(page.fingerprint(), before);
    assert_eq!(with, key(dir.path()));
}

#[test]
fn damaged_files_of_our_own_are_made_anew_at_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let before = own(dir.path(), &[]).fingerprint();
    for file in ["page.crt", "page.key"] {
        fs::write(dir.path().join(file), "-----BEGIN CERTIFICATE-----\nhalf").unwrap();
        assert_ne!(own(dir.path(), &[]).fingerprint(), before);
    }
}

#[test]
fn a_broken_pair_on_disk_leaves_what_was_read_before_and_a_whole_one_replaces_it() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (page, other) = (own(dirs[0].path(), &[]), own(dirs[1].path(), &[]));
    let before = page.fingerprint();
    let bring = |file: &str| fs::copy(dirs[1].path().join(file), dirs[0].path().join(file)).unwrap();
    bring("page.crt");
    page.look(SystemTime::now());
    assert_eq!(page.fingerprint(), before, "the key is not that of the certificate");
    fs::remove_file(dirs[0].path().join("page.key")).unwrap();
    page.look(SystemTime::now());
    assert_eq!(page.fingerprint(), before, "there is no key");
    bring("page.key");
    page.look(SystemTime::now());
    assert_eq!(page.fingerprint(), other.fingerprint());
}

#[test]
fn a_configured_file_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    own(dir.path(), &[]);
    let of = |certificate: &str, key: &str| {
        let files = Files { certificate: dir.path().join(certificate), key: dir.path().join(key) };
        Page::of(files, None).unwrap_err().to_string()
    };
    assert!(of("no.crt", "page.key").contains("no.crt does not exist"));
    assert!(of("page.key", "page.key").contains("page.key cannot be used"));
    let error = of("page.crt", "page.crt");
    assert!(error.contains("page.crt") && error.contains("no whole private key"), "{error}");
}
