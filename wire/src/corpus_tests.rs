//! The fuzz targets start from the golden vectors: `fuzz/corpus` holds each of them in the form its target takes.
//!
//! After a change of the vectors: `cargo test -p vitals-wire --lib write_the_corpus -- --ignored`.

use crate::record::{Record, encode_record};
use std::fs;
use std::path::Path;

use super::*;

/// Target, file and content of each.
fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut seeds = Vec::new();
    // The first byte's lowest bit is the direction, the rest how the stream is cut.
    for golden in vectors::client() {
        seeds.push(("frame", golden.name, [&[0][..], &framed(&golden.bytes())].concat()));
    }
    for golden in vectors::server() {
        seeds.push(("frame", golden.name, [&[7][..], &framed(&golden.bytes())].concat()));
    }
    // The first byte picks one of the known kinds.
    for golden in crate::section::vectors() {
        let kind = Section::KINDS.iter().position(|(kind, _)| *kind == golden.value.kind()).unwrap();
        seeds.push(("section", golden.name, [&[kind as u8][..], &golden.bytes()].concat()));
    }
    for golden in record_vectors() {
        seeds.push(("record", golden.name, golden.bytes()));
    }
    let samples = vec![crate::reading::after_a_walk()];
    let record = Record { host: HostId([1; 16]), received_ms: 1, backlog: false, samples };
    for (name, _, text) in crate::token::tests::vectors() {
        seeds.push(("token", name, text.as_bytes().to_vec()));
    }
    seeds.push(("record", "record_usual_sample", encode_record(&record).unwrap()));
    seeds
}

fn corpus() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus"))
}

#[test]
fn the_corpus_holds_every_golden_vector() {
    for (target, name, content) in seeds() {
        let path = corpus().join(target).join(name);
        assert_eq!(fs::read(&path).ok(), Some(content), "{} is not what it should be", path.display());
    }
}

#[test]
#[ignore = "writes the corpus anew"]
fn write_the_corpus() {
    for (target, name, content) in seeds() {
        let directory = corpus().join(target);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(name), content).unwrap();
    }
}
