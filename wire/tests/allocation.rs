//! What a peer claims is not allocated: only what it really sent is.

use allocation_counter::measure;
use bytes::BytesMut;
use tokio_util::codec::Decoder;
use vitals_wire::codec::decode_frame_body;
use vitals_wire::message::ServerCodec;
use vitals_wire::message::{ClientMessage, ServerMessage};
use vitals_wire::record::decode_record;

/// A varint that says 2^40.
const CLAIM: [u8; 9] = [0xfd, 0, 0, 0, 0, 0, 1, 0, 0];
/// Enough for an error's text and a few entries, and far below any claim.
const LITTLE: u64 = 4 << 10;

/// The most bytes that were allocated at once while `run` ran.
fn peak(run: impl FnOnce()) -> u64 {
    measure(run).bytes_max
}

#[test]
fn the_counter_counts() {
    assert!(peak(|| drop(std::hint::black_box(vec![0u8; 1 << 20]))) >= 1 << 20);
}

#[test]
fn a_list_or_text_that_claims_much_costs_little() {
    // The list of samples, a sample's sections, the list of batches, a text.
    let client = [[&[2, 0, 0][..], &CLAIM].concat(), [&[4, 0][..], &CLAIM].concat()];
    let server = [[&[0x41, 0][..], &CLAIM].concat(), [&[0x43, 1][..], &CLAIM].concat()];
    for body in client {
        let peak = peak(|| assert!(decode_frame_body::<ClientMessage>(&body).is_err()));
        assert!(peak < LITTLE, "{body:x?} cost {peak} bytes");
    }
    for body in server {
        let peak = peak(|| assert!(decode_frame_body::<ServerMessage>(&body).is_err()));
        assert!(peak < LITTLE, "{body:x?} cost {peak} bytes");
    }
}

#[test]
fn a_list_at_its_cap_that_has_no_entries_costs_little() {
    // 256 samples are allowed, and so are 1,024 refused ones: none follows.
    let samples = [2, 0, 0, 0xfb, 0, 1];
    assert!(peak(|| assert!(decode_frame_body::<ClientMessage>(&samples).is_err())) < LITTLE);
    let refused = [0x41, 0, 0, 0xfb, 0, 4];
    assert!(peak(|| assert!(decode_frame_body::<ServerMessage>(&refused).is_err())) < LITTLE);
    // 4,096 cores in a section, which is then kept as it came.
    let cores = [&[4, 0, 1, 1, 13][..], &[0; 10], &[0xfb, 0, 16]].concat();
    let peak = peak(|| assert!(decode_frame_body::<ClientMessage>(&cores).is_ok()));
    assert!(peak < LITTLE, "{peak} bytes");
}

#[test]
fn a_section_or_record_that_claims_much_costs_little() {
    // A section whose body claims 2^40 bytes.
    let section = [&[4, 0, 1, 1][..], &CLAIM].concat();
    assert!(peak(|| assert!(decode_frame_body::<ClientMessage>(&section).is_err())) < LITTLE);
    let record = [&[0; 18][..], &CLAIM].concat();
    let peak = peak(|| assert!(decode_record(&record).is_err()));
    assert!(peak < LITTLE, "{peak} bytes");
}

#[test]
fn a_frame_grows_no_faster_than_its_bytes_come() {
    let mut too_large = BytesMut::from(&[0xff; 4][..]);
    assert!(peak(|| assert!(ServerCodec::new().decode(&mut too_large).is_err())) < LITTLE);

    let mut largest = BytesMut::from(&(1u32 << 20).to_be_bytes()[..]);
    let peak = peak(|| assert!(matches!(ServerCodec::new().decode(&mut largest), Ok(None))));
    assert!(peak < LITTLE, "4 bytes of a frame of 1 MiB cost {peak} bytes");
}
