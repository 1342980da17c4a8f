//! What a sample costs on its way: to bytes, from bytes, and to line protocol.
//!
//! The budget for line protocol is 10 µs for a sample of 23 lines, the aim 3 µs.

#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, criterion_group, criterion_main};
use tokio_util::codec::{Decoder, Encoder};
use vitals_wire::bounded::List;
use vitals_wire::line::{HostTags, write_sample};
use vitals_wire::message::{ClientCodec, ServerCodec};
use vitals_wire::message::{ClientMessage, Samples};
use vitals_wire::sample::{decode_sample, encode_sample};

#[path = "../tests/support/reading.rs"]
mod reading;

fn line_protocol(criterion: &mut Criterion) {
    let host = HostTags::new("web-1.example.org", [("env", "prod"), ("rack", "3")]);
    let mut out = Vec::with_capacity(1 << 14);
    for (name, sample) in
        [("usual sample to 23 lines", reading::usual()), ("after a walk, 43 lines", reading::after_a_walk())]
    {
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                write_sample(&mut out, &host, black_box(&sample))
            });
        });
    }
    let awkward = HostTags::new("web 1, \"Süd\"", [("env", "prod, really"), ("rack", "3=4")]);
    let sample = reading::usual();
    criterion.bench_function("usual sample of a host that needs escapes", |bencher| {
        bencher.iter(|| {
            out.clear();
            write_sample(&mut out, &awkward, black_box(&sample))
        });
    });
}

fn sample(criterion: &mut Criterion) {
    let sample = reading::usual();
    let bytes = encode_sample(&sample).unwrap_or_default();
    println!("a usual sample takes {} bytes", bytes.len());
    criterion.bench_function("encode a sample", |bencher| bencher.iter(|| encode_sample(black_box(&sample))));
    criterion.bench_function("decode a sample", |bencher| bencher.iter(|| decode_sample(black_box(&bytes))));
}

fn frame(criterion: &mut Criterion) {
    let samples = List::new(vec![reading::usual()]).unwrap_or_default();
    let message = ClientMessage::from(Samples { batch: 1, backlog: false, samples });
    let mut buffer = BytesMut::new();
    criterion.bench_function("encode a frame", |bencher| {
        bencher.iter(|| {
            buffer.clear();
            ClientCodec::new().encode(black_box(message.clone()), &mut buffer).is_ok()
        });
    });
    let frame = buffer.clone();
    let mut codec = ServerCodec::new();
    criterion.bench_function("decode a frame", |bencher| {
        bencher.iter(|| {
            buffer.clear();
            buffer.extend_from_slice(black_box(&frame));
            codec.decode(&mut buffer).is_ok()
        });
    });
}

criterion_group!(benches, line_protocol, sample, frame);
criterion_main!(benches);
