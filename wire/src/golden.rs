//! Golden bytes: what a value is on the wire, held in both directions.
//!
//! Each message and section keeps its own below itself, named, so that the fuzz targets' corpus can be made of them.

use std::fmt::Debug;

use crate::bounded::{List, Text};
use crate::codec::{self, Message};
use crate::section::Section;

/// A value and its bytes.
pub(crate) struct Golden<T> {
    /// Names the corpus file.
    pub(crate) name: &'static str,
    pub(crate) value: T,
    /// In hexadecimal, blanks wherever they help to read it.
    pub(crate) hex: &'static str,
}

impl<T> Golden<T> {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let digits: Vec<u32> =
            self.hex.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap()).collect();
        assert_eq!(digits.len() % 2, 0, "{}: half a byte", self.name);
        digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
    }
}

pub(crate) fn golden<T>(name: &'static str, value: impl Into<T>, hex: &'static str) -> Golden<T> {
    Golden { name, value: value.into(), hex }
}

/// A text that fits.
pub(crate) fn text<const MAX: usize>(text: &str) -> Text<MAX> {
    Text::new(text).unwrap()
}

/// A list that fits.
pub(crate) fn list<T: Debug, const MAX: usize>(entries: Vec<T>) -> List<T, MAX> {
    List::new(entries).unwrap()
}

/// Holds each value against its bytes, there and back.
pub(crate) fn check<T: PartialEq + Debug>(
    vectors: &[Golden<T>],
    encode: impl Fn(&T) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> T,
) {
    assert!(vectors.len() >= 2, "one value alone does not define a form");
    for golden in vectors {
        let encoded = encode(&golden.value);
        let hex: String = encoded.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(encoded, golden.bytes(), "{} is encoded as {hex}", golden.name);
        assert_eq!(decode(&golden.bytes()), golden.value, "{} is decoded as something else", golden.name);
    }
}

/// Messages, as they lie in a frame: kind and body.
pub(crate) fn check_messages<M: Message + PartialEq + Debug>(vectors: &[Golden<M>]) {
    check(
        vectors,
        |message| codec::encode_frame_body(message).unwrap().to_vec(),
        |bytes| codec::decode_frame_body(bytes).unwrap(),
    );
}

/// Bodies of sections of `kind`.
pub(crate) fn check_sections(kind: u32, vectors: &[Golden<Section>]) {
    assert!(vectors.iter().all(|golden| golden.value.kind() == kind));
    check(
        vectors,
        |section| section.encode_body().unwrap(),
        |bytes| Section::decode_body(kind, bytes).unwrap().unwrap(),
    );
}
