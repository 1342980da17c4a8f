//! A join token, as text and as content under a right checksum: what is read is written to a text that means the same
//! again, and what a client would say of it is heard as its secret.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use vitals_wire::token::{JoinToken, MAX_CHARS, PREFIX};

fn check(text: &str) {
    let Ok(token) = text.parse::<JoinToken>() else { return };
    let again = token.to_string();
    assert!(again.len() <= MAX_CHARS);
    assert_eq!(again.parse(), Ok(token.clone()));
    assert_eq!(JoinToken::heard(&token.said()), Some(token.secret.clone()));
    assert!(!format!("{token:?}").contains(&*token.said()));
}

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = str::from_utf8(data) {
        check(text);
        let _ = JoinToken::heard(text);
    }
    let summed = [data, &crc32c::crc32c(data).to_be_bytes()].concat();
    check(&format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(summed)));
});
