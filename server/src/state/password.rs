//! Passwords: which are taken, and their argon2id hashes with OWASP's parameters.
//!
//! A hash costs 19 MiB and some tens of ms of CPU, on purpose: [`Hasher`] bounds how many are made at once and how many
//! wait, so that a flood of logins costs one core. The 19 MiB are taken once, at the first hash, and kept: each of the
//! threads that hash would otherwise keep its own, since the allocator has a heap for each.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use argon2::password_hash::{Output, ParamsString, PasswordHash, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::secret::{self, NoRandom};

/// Memory in KiB, passes and lanes: OWASP Password Storage Cheat Sheet, argon2id.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Characters that a password has at least.
pub const MIN_CHARACTERS: usize = 12;
/// Bytes that a password has at most.
pub const MAX_BYTES: usize = 1_024;
/// Hashes made at once.
const AT_ONCE: usize = 1;
/// Hashes that wait for their turn.
const WAITING: usize = 40;
/// Of those, strangers': guesses from very many addresses leave room for the people who are at home here.
const WAITING_STRANGERS: usize = 24;
/// Longest unit that only repeats in what is too obvious: `passwordpassword`.
const MAX_UNIT: usize = 12;
/// Symbols of generated passwords: those that look like others are left out. 32, so that each byte gives one evenly.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// A hash of those parameters that nobody's password has: who is unknown costs as much as who is known.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$dml0YWxzLW5vYm9keS0wMQ$7mVhZ0Xq0m1s5b0aWlKJr6yYQZc3vXQm2k8dT1uEw9I";

/// Why a password cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too few characters.
    #[error("a password has at least {MIN_CHARACTERS} characters: a phrase of some words will do")]
    Short,
    /// Too many bytes.
    #[error("a password has at most {MAX_BYTES} bytes")]
    Long,
    /// The person's name, or little more.
    #[error("a password is not the name, nor little more than it: take a phrase of some words")]
    Name,
    /// What is tried first.
    #[error("this password is among the first that anybody tries: take a phrase of some words")]
    Obvious,
}

/// Why no hash was made or compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Too many are asked for at once. Trying again later makes sense.
    #[error("too many passwords are being looked at: try again in some seconds")]
    Busy,
    /// The system gives no random bits or no memory.
    #[error("the system gives no memory or no random bits to hash a password")]
    System,
}

impl From<NoRandom> for HashError {
    fn from(_: NoRandom) -> Self {
        Self::System
    }
}

/// A password as text, which shows itself to nobody who prints it. Travels in JSON over the commands' socket (0600) and in
/// requests' bodies.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

impl Password {
    /// This text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// A random one of 100 bits, in groups that can be read out.
    ///
    /// # Errors
    /// The system gives no random bits.
    pub fn random() -> Result<Self, NoRandom> {
        let symbols: Vec<u8> =
            secret::random::<20>()?.iter().map(|byte| ALPHABET[usize::from(byte % 32)]).collect();
        let groups: Vec<String> =
            symbols.chunks(5).map(|group| String::from_utf8_lossy(group).into_owned()).collect();
        Ok(Self(groups.join("-")))
    }

    /// The text itself, for its owner's eyes.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `person` may have it.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, person: &str) -> Result<(), PasswordError> {
        if self.0.len() > MAX_BYTES {
            return Err(PasswordError::Long);
        }
        if self.0.chars().count() < MIN_CHARACTERS {
            return Err(PasswordError::Short);
        }
        let low = self.0.to_lowercase();
        let name = person.to_lowercase();
        let rest = low.replace(&name, "");
        if !name.is_empty() && rest != low && rest.chars().count() < 6 {
            return Err(PasswordError::Name);
        }
        if is_obvious(&low) { Err(PasswordError::Obvious) } else { Ok(()) }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"********\"")
    }
}

/// One character, a repeated word, a row of the keyboard or of the alphabet, or a word that is tried first with little
/// around it.
fn is_obvious(low: &str) -> bool {
    const ROWS: [&str; 5] = [
        "01234567890123456789",
        "abcdefghijklmnopqrstuvwxyz",
        "qwertyuiopasdfghjklzxcvbnm",
        "qwertzuiopasdfghjklyxcvbnm",
        "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik",
    ];
    const WORDS: [&str; 8] =
        ["password", "passwort", "administrator", "vitals", "letmein", "welcome", "changeme", "qwerty"];
    let letters: Vec<char> = low.chars().collect();
    let repeats = (1..=MAX_UNIT.min(letters.len() / 2))
        .any(|unit| letters.iter().skip(unit).zip(&letters).all(|(one, before)| one == before));
    let backwards: String = letters.iter().rev().collect();
    let is_row = ROWS.iter().any(|row| row.contains(low) || row.contains(&backwards));
    let is_word = WORDS.iter().any(|word| {
        let rest = low.replace(word, "");
        rest.len() < low.len() && rest.chars().count() < 6 && rest.chars().all(|c| !c.is_alphabetic())
    });
    repeats || is_row || is_word
}

/// An argon2id hash in PHC's form.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash(Box<str>);

impl Hash {
    /// As it was kept.
    pub(super) fn kept(text: String) -> Self {
        Self(text.into())
    }

    /// As it is kept.
    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(…)")
    }
}

fn argon2() -> Result<Argon2<'static>, HashError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| HashError::System)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// What this password makes of this salt, of as many bytes as usual.
fn output(password: &Password, salt: &SaltString, memory: &mut [Block]) -> Result<Output, HashError> {
    let mut bytes = [0; 64];
    let salt = salt.decode_b64(&mut bytes).map_err(|_| HashError::System)?;
    let argon2 = argon2()?;
    Output::init_with(Params::DEFAULT_OUTPUT_LEN, |out| {
        Ok(argon2.hash_password_into_with_memory(password.0.as_bytes(), salt, out, memory)?)
    })
    .map_err(|_| HashError::System)
}

/// Takes some tens of ms of CPU.
fn hash(password: &Password, memory: &mut [Block]) -> Result<Hash, HashError> {
    let salt = SaltString::encode_b64(&secret::random::<16>()?).map_err(|_| HashError::System)?;
    let output = output(password, &salt, memory)?;
    let argon2 = argon2()?;
    let params = ParamsString::try_from(argon2.params()).map_err(|_| HashError::System)?;
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params,
        salt: Some(salt.as_salt()),
        hash: Some(output),
    };
    Ok(Hash(hash.to_string().into()))
}

/// Takes some tens of ms of CPU, whatever the outcome, compares in constant time. Nobody's hash fits nothing.
fn fits(password: &Password, hash: Option<&Hash>, memory: &mut [Block]) -> Result<bool, HashError> {
    let text = hash.map_or(NOBODY, Hash::text);
    // A hash that is not one was written by somebody else: it fits nothing, and costs as much.
    let (parsed, is_real) = match PasswordHash::new(text) {
        Ok(parsed) => (parsed, hash.is_some()),
        Err(_) => (PasswordHash::new(NOBODY).map_err(|_| HashError::System)?, false),
    };
    let is_right = if is_usual(&parsed) {
        let salt = parsed.salt.map(|salt| SaltString::from_b64(salt.as_str()));
        let salt = salt.transpose().map_err(|_| HashError::System)?.ok_or(HashError::System)?;
        let output = output(password, &salt, memory)?;
        parsed.hash.is_some_and(|kept| kept == output)
    } else {
        argon2()?.verify_password(password.0.as_bytes(), &parsed).is_ok()
    };
    Ok(is_right && is_real)
}

/// Whether a hash was made as they are made now.
fn is_usual(hash: &PasswordHash<'_>) -> bool {
    let params = Params::try_from(hash).ok();
    hash.algorithm == Algorithm::Argon2id.ident()
        && hash.version == Some(Version::V0x13.into())
        && hash.salt.is_some()
        && hash.hash.is_some_and(|output| output.len() == Params::DEFAULT_OUTPUT_LEN)
        && params.is_some_and(|p| (p.m_cost(), p.t_cost(), p.p_cost()) == (MEMORY_KIB, PASSES, LANES))
}

/// Who wants a password looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// Somebody at an address from which nobody has logged in yet.
    Stranger,
    /// Somebody who has a login, or is where somebody logged in before.
    Known,
}

/// Makes and compares hashes on threads that may take their time, few at once.
#[derive(Debug, Clone)]
pub struct Hasher {
    working: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// Places of `waiting` that strangers may take.
    strangers: Arc<Semaphore>,
    /// The stranger whose turn is next, or now: all others let people go first who are known.
    first_stranger: Arc<Semaphore>,
    memory: Arc<Mutex<Memory>>,
}

/// In which hashes are made; empty until the first.
#[derive(Default)]
struct Memory(Vec<Block>);

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory(…)")
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self {
            working: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Arc::new(Semaphore::new(AT_ONCE + WAITING)),
            strangers: Arc::new(Semaphore::new(AT_ONCE + WAITING_STRANGERS)),
            first_stranger: Arc::new(Semaphore::new(AT_ONCE)),
            memory: Arc::default(),
        }
    }
}

impl Hasher {
    /// A password's hash.
    ///
    /// # Errors
    /// See there.
    pub async fn hash(&self, password: Password) -> Result<Hash, HashError> {
        // Only who is logged in, or at the server itself, gives somebody a password.
        self.work(Asks::Known, move |memory| hash(&password, memory)).await
    }

    /// Whether it is the password of that hash; without one it is not, after as long.
    ///
    /// # Errors
    /// See there.
    pub async fn fits(&self, password: Password, hash: Option<Hash>, asks: Asks) -> Result<bool, HashError> {
        self.work(asks, move |memory| fits(&password, hash.as_ref(), memory)).await
    }

    async fn work<T: Send + 'static>(
        &self,
        asks: Asks,
        work: impl FnOnce(&mut [Block]) -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, HashError> {
        let is_stranger = asks == Asks::Stranger;
        let one = is_stranger.then(|| self.strangers.clone().try_acquire_owned()).transpose();
        let one = one.map_err(|_| HashError::Busy)?;
        let place = self.waiting.clone().try_acquire_owned().map_err(|_| HashError::Busy)?;
        let first = match is_stranger {
            true => self.first_stranger.clone().acquire_owned().await.ok(),
            false => None,
        };
        let turn = self.working.clone().acquire_owned().await.map_err(|_| HashError::System)?;
        let memory = self.memory.clone();
        let done = tokio::task::spawn_blocking(move || {
            // Held by the work itself: who asked may be gone, and the CPU is used all the same.
            let _held = (one, place, first, turn);
            // One at a time has its turn, so that nobody waits for it here.
            let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
            memory.0.resize(MEMORY_KIB as usize, Block::new());
            work(&mut memory.0)
        });
        done.await.map_err(|_| HashError::System)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_taken_and_the_obvious_is_not() {
        let said = |text: &str| Password::new(text).check("operator");
        for good in ["correct horse battery", "пароль из слов", "k3J8-sLq0-92mz", "the operator of the night"]
        {
            assert_eq!(said(good), Ok(()), "{good}");
        }
        assert_eq!(said("elevenchars"), Err(PasswordError::Short));
        assert_eq!(said(&"long phrase ".repeat(100)), Err(PasswordError::Long));
        for name in ["operator-123", "OperatorOperator", "Operator2026"] {
            let error = said(name).unwrap_err();
            assert!(
                matches!(error, PasswordError::Name | PasswordError::Short | PasswordError::Obvious),
                "{name}"
            );
        }
        for obvious in [
            "aaaaaaaaaaaaaaaa",
            "passwordpassword",
            "Password1234",
            "123456789012",
            "qwertyuiopas",
            "abcabcabcabc",
            "210987654321",
            "administrator",
        ] {
            assert_eq!(said(obvious), Err(PasswordError::Obvious), "{obvious}");
        }
    }

    #[test]
    fn a_generated_password_is_long_differs_and_may_be_used() {
        let (one, other) = (Password::random().unwrap(), Password::random().unwrap());
        assert!(one != other && one.reveal().len() == 23);
        assert_eq!(one.check("admin"), Ok(()));
        assert!(!format!("{one:?}").contains(one.reveal()));
    }

    #[tokio::test]
    async fn a_hash_fits_its_password_alone_and_says_its_parameters() {
        let hasher = Hasher::default();
        let hash = hasher.hash(Password::new("correct horse battery")).await.unwrap();
        assert!(hash.text().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.text());
        assert!(!format!("{hash:?}").contains("argon2id"));
        let fits = async |text: &str, hash: Option<Hash>| {
            hasher.fits(Password::new(text), hash, Asks::Stranger).await.unwrap()
        };
        assert!(fits("correct horse battery", Some(hash.clone())).await);
        assert!(!fits("correct horse batterz", Some(hash)).await);
        assert!(!fits("correct horse battery", None).await);
        assert!(!fits("correct horse battery", Some(Hash::kept("damaged".to_owned()))).await);
    }

    #[tokio::test]
    async fn hashes_of_other_parameters_and_of_the_crate_s_own_making_fit_too() {
        use argon2::password_hash::PasswordHasher;

        let salt = SaltString::encode_b64(&[7; 16]).unwrap();
        let (hasher, password) = (Hasher::default(), Password::new("correct horse battery"));
        for params in [Params::new(64, 1, 1, None), Params::new(MEMORY_KIB, PASSES, LANES, None)] {
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.unwrap());
            let text = argon2.hash_password(password.0.as_bytes(), &salt).unwrap().to_string();
            let fits = async |text: &str, hash: &str| {
                hasher
                    .fits(Password::new(text), Some(Hash::kept(hash.to_owned())), Asks::Known)
                    .await
                    .unwrap()
            };
            assert!(
                fits("correct horse battery", &text).await && !fits("correct horse batterz", &text).await
            );
        }
        // And the other way round: what is made here, the crate knows.
        let made = hasher.hash(password.clone()).await.unwrap();
        let parsed = PasswordHash::new(made.text()).unwrap();
        assert!(argon2().unwrap().verify_password(password.0.as_bytes(), &parsed).is_ok());
        assert!(is_usual(&parsed) && is_usual(&PasswordHash::new(NOBODY).unwrap()));
    }

    #[tokio::test]
    async fn people_who_are_known_wait_for_one_stranger_at_most() {
        let hasher = Hasher::default();
        let done = std::cell::Cell::new(0);
        let strangers = futures_util::future::join_all((0..WAITING_STRANGERS).map(async |_| {
            slowly(&hasher, Asks::Stranger).await.unwrap();
            done.set(done.get() + 1);
        }));
        let known = async {
            slowly(&hasher, Asks::Known).await.unwrap();
            done.get()
        };
        // The strangers come first.
        let (_, before) = tokio::join!(strangers, known);
        assert!(before <= 1, "{before} strangers were served before");
    }

    #[test]
    fn nobodys_hash_can_be_compared_with() {
        let nobody = PasswordHash::new(NOBODY).unwrap();
        assert_eq!(nobody.params.get_decimal("m"), Some(MEMORY_KIB));
        assert_eq!(nobody.params.get_decimal("t"), Some(PASSES));
        assert_eq!(nobody.hash.unwrap().len(), 32);
    }

    async fn slowly(hasher: &Hasher, asks: Asks) -> Result<(), HashError> {
        let work = |_: &mut [Block]| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            Ok(())
        };
        hasher.work(asks, work).await
    }

    #[tokio::test]
    async fn a_flood_is_turned_away_and_not_queued_without_end() {
        let hasher = Hasher::default();
        let all = (0..200).map(|_| slowly(&hasher, Asks::Known));
        let outcomes = futures_util::future::join_all(all).await;
        let done = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(done, AT_ONCE + WAITING);
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(()) | Err(HashError::Busy))));
        assert_eq!(slowly(&hasher, Asks::Known).await, Ok(()), "and has room again");
    }

    #[tokio::test]
    async fn strangers_leave_room_for_people_who_are_at_home_here() {
        let hasher = Hasher::default();
        let strangers = futures_util::future::join_all((0..200).map(|_| slowly(&hasher, Asks::Stranger)));
        let people = futures_util::future::join_all(
            (0..WAITING - WAITING_STRANGERS).map(|_| slowly(&hasher, Asks::Known)),
        );
        // The strangers come first, and all at once.
        let (strangers, people) = tokio::join!(strangers, people);
        assert_eq!(strangers.iter().filter(|outcome| outcome.is_ok()).count(), AT_ONCE + WAITING_STRANGERS);
        assert!(people.iter().all(Result::is_ok), "{people:?}");
        assert_eq!(slowly(&hasher, Asks::Stranger).await, Ok(()), "and strangers come in again");
    }
}
