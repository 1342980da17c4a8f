//! A stream of frames in either direction, cut anywhere: it ends in messages or one error, the same however it is cut,
//! and every message is encoded to bytes that mean the same again.
#![no_main]

use std::fmt::Debug;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tokio_util::codec::{Decoder, Encoder};
use vitals_wire::codec::{FrameCodec, Message};
use vitals_wire::message::{ClientMessage, ServerMessage};

/// Texts of all messages, and of the error if there is one. Texts, since NaN is not equal to itself.
fn read<M: Message + Debug>(stream: &[u8], chunk: usize, mut each: impl FnMut(M)) -> Vec<String> {
    let mut codec = FrameCodec::<M, M>::new();
    let mut buffer = BytesMut::new();
    let mut seen = Vec::new();
    for bytes in stream.chunks(chunk) {
        buffer.extend_from_slice(bytes);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(message)) => {
                    seen.push(format!("{message:?}"));
                    each(message);
                }
                Ok(None) => break,
                Err(error) => {
                    seen.push(error.to_string());
                    return seen;
                }
            }
        }
    }
    if let Err(error) = codec.decode_eof(&mut buffer) {
        seen.push(error.to_string());
    }
    seen
}

fn check<M: Message + Debug>(stream: &[u8], chunk: usize) {
    let whole = read::<M>(stream, stream.len().max(1), |message| {
        if message.is_unknown() {
            return;
        }
        let text = format!("{message:?}");
        let mut frame = BytesMut::new();
        FrameCodec::<M, M>::new().encode(message, &mut frame).unwrap();
        let again = FrameCodec::<M, M>::new().decode(&mut frame).unwrap().unwrap();
        assert_eq!(format!("{again:?}"), text);
    });
    assert_eq!(read::<M>(stream, chunk, drop), whole);
}

fuzz_target!(|data: &[u8]| {
    let Some((&how, stream)) = data.split_first() else { return };
    let chunk = usize::from(how >> 1) + 1;
    match how & 1 {
        0 => check::<ClientMessage>(stream, chunk),
        _ => check::<ServerMessage>(stream, chunk),
    }
});
