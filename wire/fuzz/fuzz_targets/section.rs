//! The body of a section of each kind: what decodes is encoded to bytes that mean the same again, and gives lines.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vitals_wire::bounded::List;
use vitals_wire::line::{HostTags, write_sample};
use vitals_wire::sample::Sample;
use vitals_wire::sample::{decode_sample, encode_sample};
use vitals_wire::section::Section;

fuzz_target!(|data: &[u8]| {
    let Some((&pick, body)) = data.split_first() else { return };
    let (kind, _) = Section::KINDS[usize::from(pick) % Section::KINDS.len()];
    let Some(Ok(section)) = Section::decode_body(kind, body) else { return };
    let sample = Sample { time_ms: 1_795_232_825_003, sections: List::new(vec![section]).unwrap() };
    let bytes = encode_sample(&sample).unwrap();
    let again = decode_sample(&bytes).unwrap();
    assert!(!matches!(again.sections[0], Section::Opaque(_)));
    assert_eq!(format!("{again:?}"), format!("{sample:?}"));
    assert_eq!(encode_sample(&again).unwrap(), bytes);

    let mut out = Vec::new();
    let lines = write_sample(&mut out, &HostTags::new("fuzz", [("env", "test")]), &sample);
    assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), lines);
    assert!(out.iter().all(|byte| *byte == b'\n' || !byte.is_ascii_control()));
});
