//! Keys over starts, crashes and changes.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::tls::pair::certificates_of;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn open(&self) -> Result<Keys, KeysError> {
        Keys::open_in(self.0.path().to_owned(), None)
    }

    /// With a certificate of one's own.
    fn configured(&self) -> Result<Keys, KeysError> {
        Keys::open_in(self.0.path().to_owned(), Some((self.path("own.crt"), self.path("own.key"))))
    }

    /// Puts a new key in place; gives its pin and certificate.
    fn put(&self) -> (Pin, String) {
        let (pair, pem) = Pair::make(Utc::now()).unwrap();
        self.put_this(&pem);
        (pair.pin(), pem)
    }

    fn put_this(&self, pem: &str) {
        std::fs::write(self.path("own.crt"), certificates_of(pem)).unwrap();
        std::fs::write(self.path("own.key"), pem).unwrap();
    }
}

fn pin(keys: &Keys) -> Pin {
    Pin(keys.pin().unwrap())
}

#[test]
fn a_key_is_made_once_and_stays_and_is_its_owners_alone() {
    let place = Place::new();
    let first = pin(&place.open().unwrap());
    assert_eq!(pin(&place.open().unwrap()), first);
    let mode = std::fs::metadata(place.path(TODAY)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_damaged_key_is_named_with_a_remedy_and_left_as_it_is() {
    let place = Place::new();
    place.open().unwrap();
    let whole = std::fs::read_to_string(place.path(TODAY)).unwrap();
    let half = &whole[..whole.len() / 2];
    for damaged in ["", "junk", half, &whole.replacen('M', "N", 1)] {
        std::fs::write(place.path(TODAY), damaged).unwrap();
        let error = place.open().unwrap_err().to_string();
        assert!(error.contains(TODAY) && error.contains("backup"), "{error}");
        assert!(!error.contains("BEGIN"), "{error}");
        assert_eq!(std::fs::read_to_string(place.path(TODAY)).unwrap(), damaged);
    }
}

#[test]
fn a_key_is_announced_switched_to_and_the_same_after_each_start() {
    let place = Place::new();
    let keys = place.open().unwrap();
    let old = pin(&keys);
    assert!(matches!(keys.switch(), Err(KeysError::NoneAnnounced)));
    let next = keys.announce(None).unwrap();
    assert_eq!(*keys.pins(), [old.0, next.0]);
    assert!(matches!(keys.announce(None), Err(KeysError::Announced(pin)) if pin == next));
    assert_eq!(*place.open().unwrap().pins(), [old.0, next.0]);

    let before = keys.server_config().unwrap();
    assert_eq!(keys.switch().unwrap(), next);
    assert_eq!(*keys.pins(), [next.0]);
    assert!(!Arc::ptr_eq(&before, &keys.server_config().unwrap()), "new connections see it");
    assert_eq!(*place.open().unwrap().pins(), [next.0]);
    assert_eq!(std::fs::read_dir(place.0.path()).unwrap().count(), 1);
}

#[test]
fn an_announced_key_can_be_given_up() {
    let place = Place::new();
    let keys = place.open().unwrap();
    let (old, next) = (pin(&keys), keys.announce(None).unwrap());
    assert_eq!(keys.abort().unwrap(), next);
    assert_eq!(*keys.pins(), [old.0]);
    assert!(matches!(keys.abort(), Err(KeysError::NoneAnnounced)));
    assert_eq!(*place.open().unwrap().pins(), [old.0]);
}

#[test]
fn a_lost_key_is_not_made_anew_while_another_is_announced() {
    let place = Place::new();
    place.open().unwrap().announce(None).unwrap();
    std::fs::remove_file(place.path(TODAY)).unwrap();
    let error = place.open().unwrap_err().to_string();
    assert!(error.contains(TODAY) && error.contains(NEXT), "{error}");
    assert!(!place.path(TODAY).exists());
}

#[test]
fn a_configured_certificate_is_renewed_but_never_changes_its_key_unannounced() {
    let place = Place::new();
    let (first, pem) = place.put();
    let keys = place.configured().unwrap();
    assert_eq!(*keys.pins(), [first.0]);
    assert!(!place.path(TODAY).exists(), "no key of our own is needed");

    let before = keys.server_config().unwrap();
    assert_eq!(keys.reload().unwrap(), Reloaded::SameKey);
    assert!(!Arc::ptr_eq(&before, &keys.server_config().unwrap()));

    let (second, second_pem) = place.put();
    let error = keys.reload().unwrap_err().to_string();
    assert!(error.contains("own.crt") && error.contains("--announce"), "{error}");
    assert_eq!(*keys.pins(), [first.0], "the one of before stays in use");

    place.put_this(&pem);
    assert!(matches!(keys.announce(None), Err(KeysError::NotNamed)));
    assert!(matches!(keys.announce(Some("x")), Err(KeysError::NoCertificate(_))));
    assert!(matches!(keys.announce(Some(&pem)), Err(KeysError::Same)));
    assert_eq!(keys.announce(Some(&second_pem)).unwrap(), second);
    let kept = std::fs::read_to_string(place.path(NEXT)).unwrap();
    assert!(!kept.contains("PRIVATE"), "a key that was named by mistake is not copied: {kept}");
    assert_eq!(*place.configured().unwrap().pins(), [first.0, second.0]);
    assert!(matches!(keys.switch(), Err(KeysError::PutInPlace { .. })));

    place.put_this(&second_pem);
    assert_eq!(keys.reload().unwrap(), Reloaded::NextKey(second));
    assert_eq!(*keys.pins(), [second.0]);
    assert!(!place.path(NEXT).exists());
}

#[test]
fn a_configured_certificate_that_cannot_be_used_is_named() {
    let place = Place::new();
    let error = place.configured().unwrap_err().to_string();
    assert!(error.contains("own.crt") && error.contains("clients.certificate"), "{error}");
    place.put();
    let keys = place.configured().unwrap();
    let (_, other) = Pair::make(Utc::now()).unwrap();
    std::fs::write(place.path("own.key"), other).unwrap();
    let error = keys.reload().unwrap_err().to_string();
    assert!(error.contains("own.key") && error.contains("not that of the certificate"), "{error}");
}

#[test]
fn a_crash_after_a_configured_key_was_taken_leaves_no_next_key() {
    let place = Place::new();
    place.put();
    let keys = place.configured().unwrap();
    let (pair, pem) = Pair::make(Utc::now()).unwrap();
    keys.announce(Some(&pem)).unwrap();
    place.put_this(&pem);
    // Another process reads what lies there: the reload's last step is missing.
    assert_eq!(*place.configured().unwrap().pins(), [pair.pin().0]);
}

#[test]
fn a_port_of_plain_tcp_has_no_keys() {
    let keys = Keys::default();
    assert!(keys.pins().is_empty() && keys.pin().is_none() && keys.server_config().is_none());
    assert!(matches!(keys.announce(None), Err(KeysError::Insecure)));
}
