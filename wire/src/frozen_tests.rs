//! Version 1 is frozen: its golden vectors never change, since clients and servers that speak it are out there.
//!
//! What is new is a new kind of message or section (or a longer list of codes), with vectors of its own that are added
//! below. A line that stands here is never changed and never taken away.

use super::*;

/// Each golden vector with the CRC-32C of its bytes: messages as they lie in a frame, bodies of sections, records of the
/// journal, and the text of join tokens.
const FROZEN: &[(&str, u32)] = &[
    ("hello_bare", 0x8e007236),
    ("hello_full", 0xa5931bdb),
    ("samples_none", 0xf7006846),
    ("samples_live", 0x2fedb5e7),
    ("samples_backlog", 0x93f29ef1),
    ("new_secret_zeros", 0x75152288),
    ("new_secret_high_bytes", 0xe0078975),
    ("live_sample_empty", 0xfeba0760),
    ("live_sample_two_sections", 0x4fe14ed6),
    ("bye_shutdown", 0x5e220d7a),
    ("bye_uninstall", 0x8ae86991),
    ("bye_newer_reason", 0xef4528ec),
    ("learnt_none", 0x98ae26e0),
    ("learnt_one", 0x80d4dc8f),
    ("welcome_bare", 0xd97f35ad),
    ("welcome_usual", 0x7594e2a5),
    ("welcome_extreme", 0x44063b67),
    ("ack_nothing", 0x3e84be98),
    ("ack_two_batches", 0x5fecd34c),
    ("ack_extreme", 0x97ff927c),
    ("set_interval_end", 0xe86e71ae),
    ("set_interval_second", 0xf04a8f57),
    ("set_interval_extreme", 0xfc063148),
    ("refused_empty_text", 0x24a20f67),
    ("refused_with_text", 0x0579d8d1),
    ("refused_newer_code", 0xcaf2d814),
    ("pins_none", 0x40fcd00a),
    ("pins_one", 0x3d2c0cdf),
    ("cpu_bare", 0xaad1b6f8),
    ("cpu_full", 0x8707f1b7),
    ("memory_bare", 0x84fbecee),
    ("memory_full", 0x7950c9dd),
    ("memory_extreme", 0xe11c8c1f),
    ("swap_bare", 0x48674bc7),
    ("swap_full", 0x22d863d9),
    ("swap_extreme", 0x00c53a12),
    ("file_systems_none", 0x527d5351),
    ("file_systems_two", 0x82d58fe3),
    ("disk_io_none", 0x527d5351),
    ("disk_io_two", 0xc622ef31),
    ("network_none", 0x527d5351),
    ("network_two", 0x8ae54f32),
    ("system_bare", 0x572a7c8a),
    ("system_full", 0x603006b7),
    ("system_extreme", 0x49bfce97),
    ("processes_bare", 0x48674bc7),
    ("processes_full", 0x758b661e),
    ("processes_extreme", 0x949086fd),
    ("temperatures_none", 0x527d5351),
    ("temperatures_three", 0x1ec881e0),
    ("top_processes_none", 0x527d5351),
    ("top_processes_two", 0x964b1505),
    ("client_health_bare", 0x530ed410),
    ("client_health_full", 0x4c51d9d0),
    ("server_health_bare", 0x766b37f1),
    ("server_health_full", 0xd6725c9d),
    ("events_none", 0x527d5351),
    ("events_three", 0x71eb6153),
    ("events_cloned", 0xcef236e9),
    ("record_empty", 0xb5936f5d),
    ("record_two_samples", 0xfbe0f27e),
    ("token_bare", 0xcf0235f2),
    ("token_usual", 0x44cd91c6),
];

/// All that there are now.
fn vectors_of_now() -> Vec<(&'static str, Vec<u8>)> {
    let mut all: Vec<_> = vectors::client().iter().map(|golden| (golden.name, golden.bytes())).collect();
    all.extend(vectors::server().iter().map(|golden| (golden.name, golden.bytes())));
    all.extend(crate::section::vectors().iter().map(|golden| (golden.name, golden.bytes())));
    all.extend(record_vectors().iter().map(|golden| (golden.name, golden.bytes())));
    all.extend(
        crate::token::tests::vectors().into_iter().map(|(name, _, text)| (name, text.as_bytes().to_vec())),
    );
    all
}

#[test]
fn no_golden_vector_of_version_1_is_changed_or_taken_away() {
    assert_eq!(PROTOCOL_VERSION, 1);
    let now = vectors_of_now();
    for (name, sum) in FROZEN {
        let (_, bytes) = now
            .iter()
            .find(|(found, _)| found == name)
            .unwrap_or_else(|| panic!("the golden vector {name} of version 1 is gone: it is frozen"));
        assert_eq!(
            crc32c::crc32c(bytes),
            *sum,
            "the golden vector {name} of version 1 is not what it was: it is frozen"
        );
    }
    for (name, bytes) in &now {
        let count = FROZEN.iter().filter(|(frozen, _)| frozen == name).count();
        assert_eq!(
            count,
            1,
            "a new golden vector is frozen too: (\"{name}\", {:#010x}),",
            crc32c::crc32c(bytes)
        );
    }
    assert_eq!(now.len(), FROZEN.len(), "a name stands twice");
}

#[test]
#[ignore = "prints the lines of all vectors"]
fn print_the_lines() {
    for (name, bytes) in vectors_of_now() {
        println!("LINE    (\"{name}\", {:#010x}),", crc32c::crc32c(&bytes));
    }
}
