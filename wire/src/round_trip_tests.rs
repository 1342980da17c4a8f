//! What is encoded is decoded to the same, and arbitrary bytes do no harm.

use crate::message::ServerCodec;
use crate::record::{decode_record, encode_record};
use crate::sample::{decode_sample, encode_sample};
use proptest::prelude::*;

use super::*;
use crate::arbitrary;

fn there_and_back<M: Message + Clone + PartialEq + std::fmt::Debug>(message: &M) {
    let body = encode_frame_body(message).unwrap();
    assert_eq!(decode_frame_body::<M>(&body).as_ref(), Ok(message));
    let mut stream = BytesMut::new();
    FrameCodec::<M, M>::new().encode(message.clone(), &mut stream).unwrap();
    assert_eq!(stream[4..], body[..]);
    assert_eq!(FrameCodec::<M, M>::new().decode(&mut stream).unwrap().as_ref(), Some(message));
    assert!(stream.is_empty());
}

/// Whatever decodes is encoded to bytes that decode to the same again. Bytes are compared, since NaN is not itself.
fn settles<M: Message + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = decode_frame_body::<M>(bytes)
        && !message.is_unknown()
    {
        let body = encode_frame_body(&message).unwrap();
        assert!(body.len() <= bytes.len(), "{message:?} takes more than what it came from");
        let again = decode_frame_body::<M>(&body).unwrap();
        assert_eq!(encode_frame_body(&again).unwrap(), body, "{message:?} became {again:?}");
        assert_eq!(format!("{message:?}"), format!("{again:?}"));
    }
}

/// The bytes of some golden vector, a little changed: nearly right bytes go deeper than random ones.
fn nearly_golden(vectors: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<proptest::sample::Index>(), any::<u8>(), 0..4u8);
    (proptest::sample::select(vectors), proptest::collection::vec(change, 1..4)).prop_map(
        |(mut bytes, changes)| {
            for (place, byte, how) in changes {
                if bytes.is_empty() {
                    break;
                }
                let place = place.index(bytes.len());
                match how {
                    0 => bytes[place] = byte,
                    1 => bytes[place] = bytes[place].wrapping_add(1),
                    2 => bytes.insert(place, byte),
                    _ => drop(bytes.remove(place)),
                }
            }
            bytes
        },
    )
}

fn all_bytes<T>(vectors: Vec<Golden<T>>) -> Vec<Vec<u8>> {
    vectors.iter().map(Golden::bytes).collect()
}

proptest! {
    #[test]
    fn what_a_client_says_is_heard(message in arbitrary::client_message()) {
        there_and_back(&message);
    }

    #[test]
    fn what_a_server_says_is_heard(message in arbitrary::server_message()) {
        there_and_back(&message);
    }

    #[test]
    fn a_sample_survives_by_itself_and_in_a_record(record in arbitrary::record()) {
        for sample in &record.samples {
            let bytes = encode_sample(sample).unwrap();
            prop_assert_eq!(&decode_sample(&bytes).unwrap(), sample);
        }
        let bytes = encode_record(&record).unwrap();
        prop_assert_eq!(decode_record(&bytes), Ok(record));
    }

    #[test]
    fn a_section_survives(section in arbitrary::section()) {
        let body = section.encode_body().unwrap();
        match Section::decode_body(section.kind(), &body) {
            Some(decoded) => prop_assert_eq!(decoded, Ok(section)),
            None => prop_assert!(matches!(section, Section::Opaque(_))),
        }
    }

    #[test]
    fn any_bytes_are_refused_or_mean_something(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..6u8) {
        settles::<ClientMessage>(&bytes);
        settles::<ServerMessage>(&bytes);
        let sample = [&[4][..], &bytes].concat();
        settles::<ClientMessage>(&sample);
        let of_kind = [&[kind][..], &bytes].concat();
        settles::<ClientMessage>(&of_kind);
        let _ = decode_record(&bytes);
    }

    #[test]
    fn nearly_right_bytes_are_refused_or_mean_something(
        client in nearly_golden(all_bytes(vectors::client())),
        server in nearly_golden(all_bytes(vectors::server())),
        record in nearly_golden(all_bytes(record_vectors())),
    ) {
        settles::<ClientMessage>(&client);
        settles::<ServerMessage>(&server);
        if let Ok(decoded) = decode_record(&record) {
            let bytes = encode_record(&decoded).unwrap();
            prop_assert_eq!(decode_record(&bytes), Ok(decoded));
        }
    }

    #[test]
    fn any_stream_ends_in_messages_or_one_error(
        stream in proptest::collection::vec(any::<u8>(), 0..100),
        sizes in proptest::collection::vec(1..9usize, 1..30),
    ) {
        let mut codec = ServerCodec::for_strangers();
        let mut buffer = BytesMut::new();
        let mut rest = &stream[..];
        for size in sizes {
            let (chunk, after) = rest.split_at(size.min(rest.len()));
            rest = after;
            buffer.extend_from_slice(chunk);
            while let Ok(Some(_)) = codec.decode(&mut buffer) {}
        }
        let _ = codec.decode_eof(&mut buffer);
    }
}
