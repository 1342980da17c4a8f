//! A record of the journal: what decodes is encoded to bytes that mean the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vitals_wire::record::{decode_record, encode_record};

fuzz_target!(|data: &[u8]| {
    let Ok(record) = decode_record(data) else { return };
    let bytes = encode_record(&record).unwrap();
    let again = decode_record(&bytes).unwrap();
    assert_eq!(format!("{again:?}"), format!("{record:?}"));
    assert_eq!(encode_record(&again).unwrap(), bytes);
});
