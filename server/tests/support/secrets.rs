//! Every secret that this process's tests make or see, and the search for them where none may be: in logs, and in data
//! directories but for the files that are there to hold one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use vitals_wire::message::ClientMessage;
use vitals_wire::token::JoinToken;

/// Characters of a long secret that are looked for, so that one that was cut is found, too.
const CHARS: usize = 24;
/// The same in bytes.
const BYTES: usize = 16;

/// Forms of secrets, and what each is.
static KNOWN: Mutex<BTreeMap<Vec<u8>, &str>> = Mutex::new(BTreeMap::new());
/// State directories of clients.
static CLIENTS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A secret that is a text: a password, an API token.
pub fn remember(what: &'static str, secret: &str) {
    assert!(secret.len() >= 8, "{what}: too short to be looked for");
    let end = secret.char_indices().nth(CHARS).map_or(secret.len(), |(end, _)| end);
    insert(what, secret.as_bytes()[..end].to_vec());
}

/// A secret that is bytes, in all forms in which it may be shown.
pub fn remember_bytes(what: &'static str, secret: &[u8]) {
    let cut = &secret[..BYTES.min(secret.len())];
    insert(what, cut.to_vec());
    let hex = cut.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    insert(what, hex.to_uppercase().into_bytes());
    insert(what, hex.into_bytes());
    // As `{:?}` shows it.
    insert(what, format!("{cut:?}").trim_matches(['[', ']']).as_bytes().to_vec());
    for coded in [URL_SAFE_NO_PAD.encode(secret), STANDARD_NO_PAD.encode(secret)] {
        remember(what, &coded);
    }
}

/// A join token: the whole, and what clients say of it.
pub fn remember_join_token(token: &str) {
    remember("a join token", token);
    let parsed: JoinToken = token.parse().unwrap();
    remember_bytes("a join token's secret", &parsed.secret.0);
}

/// The tokens in what a command printed.
pub fn remember_printed(out: &str) {
    for word in out.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')) {
        if word.parse::<JoinToken>().is_ok() {
            remember_join_token(word);
        } else if word.starts_with("vt_") && word.len() == 46 {
            remember("an API token", word);
        }
    }
}

/// What a client made by hand says.
pub fn remember_said(message: &ClientMessage) {
    match message {
        ClientMessage::Hello(hello) => {
            remember_bytes("a host's secret", &hello.secret.0);
            if let Some(secret) = hello.token.as_ref().and_then(|said| JoinToken::heard(said)) {
                remember_bytes("a join token's secret", &secret.0);
            }
        }
        ClientMessage::NewSecret(new) => remember_bytes("a host's new secret", &new.secret.0),
        _ => {}
    }
}

/// Whatever a client keeps in its state directory, now and until the end of the test.
pub fn remember_client(dir: &Path) {
    lock(&CLIENTS).insert(dir.to_owned());
    read_client(dir);
}

/// The private keys and the first password in a server's data directory.
pub fn remember_server(dir: &Path) {
    if let Ok(password) = fs::read_to_string(dir.join("admin-password")) {
        remember("the first password", password.trim());
    }
    for entry in fs::read_dir(dir.join("tls")).into_iter().flatten().flatten() {
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        for key in
            text.split("-----BEGIN ").filter(|part| part.split('\n').next().unwrap().contains("PRIVATE"))
        {
            // Its last whole line; the first is much the same for all keys of a kind.
            let lines: Vec<&str> = key.lines().take_while(|line| !line.starts_with("-----END")).collect();
            if let Some(line) = lines.iter().rev().find(|line| line.len() >= CHARS) {
                remember("a private key", line);
            }
        }
    }
}

/// Secrets in this text, by what they are.
pub fn in_text(text: &str) -> BTreeSet<String> {
    found(&search(), text.as_bytes())
}

/// Secrets in a server's data directory, as `FILE: WHAT`.
pub fn in_data_dir(dir: &Path) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    look_through(&search(), dir, dir, &mut all);
    all
}

fn look_through(search: &Search, top: &Path, dir: &Path, all: &mut BTreeSet<String>) {
    // A server that runs takes files away.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            look_through(search, top, &path, all);
        } else if kind.is_file() && !is_meant_to_hold_one(path.strip_prefix(top).unwrap()) {
            let Ok(bytes) = fs::read(&path) else { continue };
            all.extend(found(search, &bytes).into_iter().map(|what| format!("{}: {what}", path.display())));
        }
    }
}

/// Files of a data directory, by their path in it, that are there to hold a secret.
fn is_meant_to_hold_one(path: &Path) -> bool {
    let is_key = path.extension().is_some_and(|extension| extension == "key" || extension == "pem");
    path == Path::new("admin-password") || (path.parent() == Some(Path::new("tls")) && is_key)
}

/// All that is known so far, ready to be looked for.
struct Search {
    whats: Vec<&'static str>,
    forms: AhoCorasick,
}

fn search() -> Search {
    lock(&CLIENTS).iter().for_each(|dir| read_client(dir));
    let known = lock(&KNOWN);
    Search { whats: known.values().copied().collect(), forms: AhoCorasick::new(known.keys()).unwrap() }
}

fn found(search: &Search, bytes: &[u8]) -> BTreeSet<String> {
    let hits = search.forms.find_overlapping_iter(bytes);
    hits.map(|hit| search.whats[hit.pattern().as_usize()].to_owned()).collect()
}

fn read_client(dir: &Path) {
    let Ok(identity) = fs::read_to_string(dir.join("identity")) else { return };
    for line in identity.lines() {
        if let Some(("secret" | "next-secret", hex)) = line.split_once(" = ") {
            let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
            let bytes: Vec<u8> = digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
            remember_bytes("a client's secret", &bytes);
        }
    }
}

fn insert(what: &'static str, form: Vec<u8>) {
    lock(&KNOWN).insert(form, what);
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
