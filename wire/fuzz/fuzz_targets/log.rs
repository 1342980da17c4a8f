//! A segment of the log: whatever lies in it, opening and reading never panic, and what was written is read again but for
//! what was hit. The first byte says which: the rest is a segment's bytes, or records and damage to them.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use vitals_wire::log::model::ModelFs;
use vitals_wire::log::{Fs, LogOptions, Position, View, Writer};

const SEGMENT: &str = "/log/000000000001.log";

fn open(fs: &ModelFs, compress: bool) -> Option<Writer> {
    let options = LogOptions { dir: "/log".into(), segment_bytes: 1 << 20, compress };
    Writer::open_on(Arc::new(fs.clone()), options).ok().map(|(writer, _)| writer)
}

fn read(view: &View) -> Vec<Vec<u8>> {
    let mut reader = view.reader(Position::default());
    let mut payloads = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        payloads.push(entry.payload.to_vec());
    }
    assert_eq!(reader.position(), view.end());
    payloads
}

fuzz_target!(|data: &[u8]| {
    let Some((how, data)) = data.split_first() else { return };
    let fs = ModelFs::new(0);
    fs.create_dir(Path::new("/log")).unwrap();
    if how & 1 == 0 {
        fs.replace(Path::new(SEGMENT), data).unwrap();
        if let Some(writer) = open(&fs, false) {
            read(writer.view());
        }
        return;
    }
    let mut writer = open(&fs, how & 2 == 0).unwrap();
    let (flips, records) = data.split_at(data.len().min(usize::from(how >> 4) * 3));
    let payloads: Vec<&[u8]> = records.split(|byte| *byte == 0xff).collect();
    for (n, payload) in payloads.iter().enumerate() {
        writer.append(payload).unwrap();
        if n % 5 == 4 {
            writer.commit().unwrap();
        }
    }
    writer.commit().unwrap();
    let written = read(writer.view());
    assert_eq!(written, payloads);
    drop(writer);
    for flip in flips.chunks_exact(3) {
        fs.flip_bit(
            Path::new(SEGMENT),
            u64::from(flip[0]) << 16 | u64::from(flip[1]) << 8 | u64::from(flip[2]),
        );
    }
    if let Some(writer) = open(&fs, false) {
        let mut written = written.into_iter();
        let left = read(writer.view());
        assert!(left.iter().all(|payload| written.any(|one| one == *payload)), "in order, and nothing else");
    }
});
