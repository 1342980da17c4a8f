use crate::message::{ClientCodec, ServerCodec};
use crate::record::{Record, decode_record, encode_record};
use bytes::{BufMut, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::*;
use crate::golden::{self, Golden, golden, list, text};
use crate::ids::HostId;
use crate::limits::*;
use crate::message::*;
use crate::sample::Sample;
use crate::section::*;

#[path = "corpus_tests.rs"]
mod corpus;
#[path = "frozen_tests.rs"]
mod frozen;
#[path = "round_trip_tests.rs"]
mod round_trip;

type FrameResult<M> = Result<Option<M>, FrameError>;

fn framed(body: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_u32(body.len() as u32);
    frame.put_slice(body);
    frame
}

fn client_says(body: &[u8]) -> Result<ClientMessage, CodecError> {
    decode_frame_body(body)
}

fn codec_error<M: std::fmt::Debug>(result: FrameResult<M>) -> CodecError {
    match result {
        Err(FrameError::Codec(error)) => error,
        other => panic!("not refused: {other:?}"),
    }
}

pub(super) fn record_vectors() -> Vec<Golden<Record>> {
    let swap = Swap { total: 1, free: 0, bytes_in: None, bytes_out: Some(2) };
    let sample = Sample { time_ms: 1_795_232_825_003, sections: list(vec![swap.into()]) };
    vec![
        golden(
            "record_empty",
            Record { host: HostId::SERVER, received_ms: 0, backlog: false, samples: vec![] },
            "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
        ),
        golden(
            "record_two_samples",
            Record {
                host: HostId([0xfb; 16]),
                received_ms: i64::MAX,
                backlog: true,
                samples: vec![sample, Sample::default()],
            },
            "fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fd fe ff ff ff ff ff ff ff 01 02 \
             fd 56 fd 6d f8 43 03 00 00 01 03 05 01 00 00 01 02 00 00",
        ),
    ]
}

#[test]
fn a_record_has_its_golden_bytes() {
    golden::check(
        &record_vectors(),
        |record| encode_record(record).unwrap(),
        |bytes| decode_record(bytes).unwrap(),
    );
}

#[test]
fn a_frame_has_its_golden_bytes() {
    let bye = golden("bye", Bye { reason: ByeReason::Restart }, "00 00 00 02 05 04");
    let live = golden("live", LiveSample { sample: Sample::default() }, "00 00 00 03 04 00 00");
    golden::check::<ClientMessage>(
        &[bye, live],
        |message| {
            let mut frame = BytesMut::new();
            ClientCodec::new().encode(message.clone(), &mut frame).unwrap();
            frame.to_vec()
        },
        |bytes| ServerCodec::new().decode(&mut BytesMut::from(bytes)).unwrap().unwrap(),
    );
}

#[test]
fn every_kind_has_two_golden_vectors() {
    fn counted(kinds: &[(u32, &str)], found: &[u32]) {
        for (kind, name) in kinds {
            assert!(found.iter().filter(|found| *found == kind).count() >= 2, "{name}");
        }
    }
    let first_byte = |bytes: Vec<u8>| u32::from(bytes[0]);
    let client: Vec<u32> = vectors::client().iter().map(|golden| first_byte(golden.bytes())).collect();
    let server: Vec<u32> = vectors::server().iter().map(|golden| first_byte(golden.bytes())).collect();
    let sections: Vec<u32> = crate::section::vectors().iter().map(|golden| golden.value.kind()).collect();
    counted(ClientMessage::KINDS, &client);
    counted(ServerMessage::KINDS, &server);
    counted(Section::KINDS, &sections);
}

#[test]
fn a_list_that_claims_two_to_the_forty_entries_is_too_long() {
    const CLAIM: [u8; 9] = [0xfd, 0, 0, 0, 0, 0, 1, 0, 0];
    // Samples: batch, backlog, then the list.
    let samples = [&[2, 0, 0][..], &CLAIM].concat();
    let error = client_says(&samples).unwrap_err();
    assert_eq!(
        error,
        CodecError::TooLong("invalid length 1099511627776, expected at most 256 entries".to_owned())
    );
    // LiveSample: time, then the list of sections.
    let sections = [&[4, 0][..], &CLAIM].concat();
    assert!(matches!(client_says(&sections), Err(CodecError::TooLong(_))));
    // Ack: time, then the list of batches.
    let batches = [&[0x41, 0][..], &CLAIM].concat();
    assert!(matches!(decode_frame_body::<ServerMessage>(&batches), Err(CodecError::TooLong(_))));
    // A record's samples have no cap but what is there.
    let record = [&[0; 18][..], &CLAIM].concat();
    assert!(matches!(decode_record(&record), Err(CodecError::TooLong(_) | CodecError::Truncated)));
    // Inside a section it is the section that is damaged, and the rest of the sample is read.
    let cpu = [&[0; 10][..], &CLAIM].concat();
    let sample = [&[4, 0, 2, 1, 19][..], &cpu, &[3, 4, 7, 0, 0, 0]].concat();
    let ClientMessage::LiveSample(live) = client_says(&sample).unwrap() else { panic!() };
    assert_eq!(live.sample.sections[0], Section::Opaque(Opaque { kind: 1, bytes: cpu.into() }));
    assert!(matches!(&live.sample.sections[1], Section::Swap(swap) if swap.total == 7));
}

#[test]
fn a_text_that_claims_more_than_a_frame_can_hold_is_too_long() {
    // Refused: code, then the text.
    let body = [0x43, 1, 0xfd, 0, 0, 0, 0, 0, 1, 0, 0];
    assert_eq!(
        decode_frame_body::<ServerMessage>(&body),
        Err(CodecError::TooLong("a length over the frame's cap".to_owned()))
    );
    let mut overflow = [0xff; 11];
    overflow[..3].copy_from_slice(&[0x43, 1, 0xfd]);
    assert!(matches!(decode_frame_body::<ServerMessage>(&overflow), Err(CodecError::TooLong(_))));
}

/// The bytes of a `Hello` whose name is as long as `name`.
fn hello_named(name: &[u8]) -> Vec<u8> {
    let mut body = vec![1, 1, 0];
    body.extend([7; 64]);
    body.push(0);
    body.extend(bincode::encode_to_vec(name, config::standard()).unwrap());
    body.extend([0; 11]);
    body
}

#[test]
fn a_host_name_of_a_megabyte_is_too_long_and_too_large_for_a_stranger() {
    assert!(
        matches!(client_says(&hello_named(b"web-1")), Ok(ClientMessage::Hello(hello)) if &*hello.name == "web-1")
    );
    let body = hello_named(&vec![b'n'; 1_000_000]);
    assert_eq!(
        client_says(&body),
        Err(CodecError::TooLong("invalid length 1000000, expected at most 255 bytes of text".to_owned()))
    );
    assert!(client_says(&hello_named(&[b'n'; MAX_HOST_NAME_BYTES])).is_ok());
    let one_over = client_says(&hello_named(&[b'n'; MAX_HOST_NAME_BYTES + 1]));
    assert!(matches!(one_over, Err(CodecError::TooLong(_))));
    let stranger = codec_error(ServerCodec::for_strangers().decode(&mut framed(&body)));
    assert_eq!(stranger, CodecError::FrameTooLarge { len: body.len(), max: MAX_HELLO_FRAME_BYTES });
}

#[test]
fn bytes_left_over_are_an_error() {
    assert_eq!(client_says(&[5, 1, 0]), Err(CodecError::TrailingBytes(1)));
    for golden in vectors::client() {
        let longer = [golden.bytes(), vec![0; 3]].concat();
        assert_eq!(client_says(&longer), Err(CodecError::TrailingBytes(3)), "{}", golden.name);
    }
    let record = [record_vectors()[1].bytes(), vec![0]].concat();
    assert_eq!(decode_record(&record), Err(CodecError::TrailingBytes(1)));
}

#[test]
fn a_message_cut_anywhere_ends_too_early() {
    fn cut<M: Message + std::fmt::Debug + PartialEq>(vectors: Vec<Golden<M>>) {
        for golden in vectors {
            let bytes = golden.bytes();
            assert_eq!(decode_frame_body::<M>(&[]), Err(CodecError::EmptyFrame));
            for end in 1..bytes.len() {
                let cut = decode_frame_body::<M>(&bytes[..end]);
                assert_eq!(cut, Err(CodecError::Truncated), "{} cut at {end}", golden.name);
            }
        }
    }
    cut(vectors::client());
    cut(vectors::server());
    for golden in record_vectors() {
        let bytes = golden.bytes();
        for end in 0..bytes.len() {
            assert_eq!(decode_record(&bytes[..end]), Err(CodecError::Truncated), "{} at {end}", golden.name);
        }
    }
}

#[test]
fn unknown_messages_and_those_of_the_other_direction_are_told_by_their_kind_and_never_sent() {
    for kind in [0, 7, 63, 64, 250] {
        assert_eq!(client_says(&[kind, 1]), Ok(ClientMessage::Unknown(kind.into())));
    }
    assert_eq!(client_says(&[0xfc, 0xff, 0xff, 0xff, 0xff]), Ok(ClientMessage::Unknown(u32::MAX)));
    assert_eq!(decode_frame_body::<ServerMessage>(&[5, 1]), Ok(ServerMessage::Unknown(5)));
    // A kind that is no u32.
    assert!(matches!(client_says(&[0xfd, 1, 0, 0, 0, 0, 0, 0, 0]), Err(CodecError::Invalid(_))));
    assert!(matches!(client_says(&[0xff]), Err(CodecError::Invalid(_))));
    let mut bytes = BytesMut::new();
    let error = ServerCodec::new().encode(ServerMessage::Unknown(5), &mut bytes);
    assert!(matches!(error, Err(FrameError::Codec(CodecError::UnknownMessage { kind: 5 }))));
    assert!(bytes.is_empty());
}

#[test]
fn bytes_that_no_encoder_makes_are_invalid() {
    // A boolean, an option, and text that is not UTF-8.
    assert!(matches!(client_says(&[2, 0, 2, 0]), Err(CodecError::Invalid(_))));
    let mut token = hello_named(b"web-1");
    token[67] = 2;
    assert!(matches!(client_says(&token), Err(CodecError::Invalid(_))));
    assert!(matches!(client_says(&hello_named(b"\xff")), Err(CodecError::Invalid(_))));
}

#[test]
fn an_unknown_section_is_skipped_and_kept_byte_for_byte() {
    // LiveSample: time 0, three sections: swap, kind 251 with 2 bytes, swap.
    let body = [4, 0, 3, 3, 4, 0, 0, 0, 0, 0xfb, 0xfb, 0, 2, 0xde, 0xad, 3, 4, 9, 9, 0, 0];
    let message = client_says(&body).unwrap();
    let ClientMessage::LiveSample(LiveSample { sample }) = &message else { panic!() };
    let Section::Opaque(opaque) = &sample.sections[1] else { panic!() };
    assert_eq!((opaque.kind, &*opaque.bytes, opaque.is_damaged()), (251, &[0xde, 0xad][..], false));
    assert_eq!(sample.sections[2], Section::Swap(Swap { total: 9, free: 9, ..Swap::default() }));
    assert_eq!(encode_frame_body(&message).unwrap(), &body[..]);
    let record =
        Record { host: HostId([1; 16]), received_ms: 1, backlog: false, samples: vec![sample.clone()] };
    assert_eq!(decode_record(&encode_record(&record).unwrap()), Ok(record), "the journal keeps it too");
}

#[test]
fn a_damaged_section_harms_neither_its_message_nor_its_neighbours() {
    // Too short, too long, and a length that lies within the body.
    for damaged in [&[0u8, 0, 0][..], &[0, 0, 0, 0, 0], &[0xfd, 0, 0, 0], &[]] {
        let body = [&[4, 0, 2, 3, damaged.len() as u8][..], damaged, &[3, 4, 9, 9, 0, 0]].concat();
        let message = client_says(&body).unwrap();
        let ClientMessage::LiveSample(LiveSample { sample }) = &message else { panic!() };
        let Section::Opaque(opaque) = &sample.sections[0] else { panic!("{damaged:?} was understood") };
        assert!(opaque.is_damaged());
        assert_eq!((opaque.kind, &*opaque.bytes), (3, damaged));
        assert!(matches!(&sample.sections[1], Section::Swap(_)));
        assert_eq!(encode_frame_body(&message).unwrap(), &body[..]);
    }
}

#[test]
fn a_frame_that_claims_four_gigabytes_is_too_large_before_its_body_comes() {
    let mut buffer = BytesMut::from(&[0xff; 4][..]);
    let error = codec_error(ServerCodec::new().decode(&mut buffer));
    assert_eq!(error, CodecError::FrameTooLarge { len: u32::MAX as usize, max: MAX_FRAME_BYTES });
    assert!(buffer.capacity() < 1 << 10, "nothing was made ready for it");
}

#[test]
fn strangers_have_a_smaller_cap_until_they_are_introduced() {
    let over = (MAX_HELLO_FRAME_BYTES as u32 + 1).to_be_bytes();
    let mut codec = ServerCodec::for_strangers();
    let error = codec_error(codec.decode(&mut BytesMut::from(&over[..])));
    assert_eq!(
        error,
        CodecError::FrameTooLarge { len: MAX_HELLO_FRAME_BYTES + 1, max: MAX_HELLO_FRAME_BYTES }
    );
    assert!(matches!(codec.decode(&mut BytesMut::from(&16_384u32.to_be_bytes()[..])), Ok(None)));
    codec.introduced();
    assert!(matches!(codec.decode(&mut BytesMut::from(&over[..])), Ok(None)), "it waits for the body");
    let over = (MAX_FRAME_BYTES as u32 + 1).to_be_bytes();
    assert!(matches!(
        codec_error(codec.decode(&mut BytesMut::from(&over[..]))),
        CodecError::FrameTooLarge { .. }
    ));
}

#[test]
fn an_empty_frame_and_a_truncated_one_have_errors_of_their_own() {
    assert_eq!(codec_error(ServerCodec::new().decode(&mut framed(&[]))), CodecError::EmptyFrame);
    let whole = framed(&[5, 1]);
    for end in 1..whole.len() {
        let mut cut = BytesMut::from(&whole[..end]);
        assert!(matches!(ServerCodec::new().decode(&mut cut), Ok(None)), "more may come");
        let error = ServerCodec::new().decode_eof(&mut cut);
        assert!(
            matches!(&error, Err(FrameError::Io(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof),
            "no more will come: {error:?}"
        );
    }
    assert!(
        matches!(ServerCodec::new().decode_eof(&mut BytesMut::new()), Ok(None)),
        "between frames is the end"
    );
}

#[test]
fn frames_come_out_whole_however_they_are_split() {
    let messages: Vec<ClientMessage> = vectors::client().into_iter().map(|golden| golden.value).collect();
    let mut stream = BytesMut::new();
    for message in &messages {
        ClientCodec::new().encode(message.clone(), &mut stream).unwrap();
    }
    let mut at_once = stream.clone();
    let mut codec = ServerCodec::new();
    let all: Vec<_> = std::iter::from_fn(|| codec.decode(&mut at_once).unwrap()).collect();
    assert_eq!(all, messages, "several frames in one buffer");

    for split in 0..=stream.len() {
        let mut buffer = BytesMut::from(&stream[..split]);
        let mut out: Vec<_> = std::iter::from_fn(|| codec.decode(&mut buffer).unwrap()).collect();
        buffer.extend_from_slice(&stream[split..]);
        out.extend(std::iter::from_fn(|| codec.decode(&mut buffer).unwrap()));
        assert_eq!(out, messages, "split at {split}");
    }

    let mut buffer = BytesMut::new();
    let mut out = Vec::new();
    for byte in &stream {
        buffer.put_u8(*byte);
        out.extend(codec.decode(&mut buffer).unwrap());
    }
    assert_eq!(out, messages, "byte for byte");
}

fn opaque(bytes: usize) -> Section {
    Section::Opaque(Opaque { kind: 200, bytes: vec![0xff; bytes].into() })
}

#[test]
fn a_message_over_the_cap_is_not_sent_and_leaves_nothing_behind() {
    let samples = |sections| Samples {
        batch: 1,
        backlog: false,
        samples: list(vec![Sample { time_ms: 0, sections: list(sections) }]),
    };
    let mut buffer = BytesMut::from(&b"before"[..]);
    let too_large = samples(vec![opaque(MAX_FRAME_BYTES)]);
    let Err(FrameError::Codec(error)) = ClientCodec::new().encode(too_large.into(), &mut buffer) else {
        panic!("it was encoded")
    };
    assert!(matches!(error, CodecError::FrameTooLarge { max: MAX_FRAME_BYTES, .. }));
    assert_eq!(&buffer[..], b"before");

    // As large as can be: 4 bytes before the sample, 8 before the bytes of its section.
    let largest = ClientMessage::from(samples(vec![opaque(MAX_FRAME_BYTES - 12)]));
    let mut buffer = BytesMut::new();
    ClientCodec::new().encode(largest.clone(), &mut buffer).unwrap();
    assert_eq!(buffer.len(), 4 + MAX_FRAME_BYTES);
    let mut codec = ServerCodec::new();
    assert!(codec.decode(&mut buffer).unwrap() == Some(largest));
    assert!(buffer.capacity() <= 1 << 10, "an idle connection keeps {} bytes", buffer.capacity());
}

#[test]
fn what_fits_a_frame_can_be_read_however_small_its_parts_are() {
    // Many short sections: bincode's own count of them is far above the bytes that they take.
    let sample = Sample { time_ms: 1, sections: list(vec![opaque(61); MAX_SECTIONS]) };
    let samples = list(vec![sample; MAX_BATCH_SAMPLES - 4]);
    let message = ClientMessage::from(Samples { batch: 1, backlog: true, samples });
    let body = encode_frame_body(&message).unwrap();
    assert!(body.len() <= MAX_FRAME_BYTES && body.len() > MAX_FRAME_BYTES * 9 / 10, "{}", body.len());
    // Not `assert_eq`, which would print it all.
    assert!(client_says(&body) == Ok(message));
}

#[test]
fn a_sample_at_all_its_caps_fits_a_frame() {
    fn long<const MAX: usize>() -> crate::bounded::Text<MAX> {
        text(&"n".repeat(MAX))
    }
    let most = crate::centi::Centi(u32::MAX);
    let usage = CpuUsage {
        user: most,
        system: most,
        idle: most,
        nice: Some(most),
        iowait: Some(most),
        irq: Some(most),
        softirq: Some(most),
        steal: Some(most),
        guest: Some(most),
        guest_nice: Some(most),
    };
    let core = Core { number: u32::MAX, usage, frequency_khz: Some(u32::MAX) };
    let file_system = FileSystem {
        device: long(),
        path: long(),
        fstype: long(),
        read_only: true,
        total: u64::MAX,
        free: u64::MAX,
        used: u64::MAX,
        inodes: Some(Inodes { total: u64::MAX, free: u64::MAX }),
    };
    let disk = Disk {
        name: long(),
        reads: u64::MAX,
        writes: u64::MAX,
        read_bytes: u64::MAX,
        write_bytes: u64::MAX,
        read_time: Some(u64::MAX),
        write_time: Some(u64::MAX),
        io_time: Some(u64::MAX),
        weighted_io_time: Some(u64::MAX),
        iops_in_progress: Some(u64::MAX),
        merged_reads: Some(u64::MAX),
        merged_writes: Some(u64::MAX),
        times: Some(DiskTimes { io_await: Some(1.0), io_svctm: Some(1.0), io_util: 1.0 }),
    };
    let interface = Interface {
        name: long(),
        bytes_recv: u64::MAX,
        bytes_sent: u64::MAX,
        packets_recv: u64::MAX,
        packets_sent: u64::MAX,
        err_in: u64::MAX,
        err_out: u64::MAX,
        drop_in: Some(u64::MAX),
        drop_out: Some(u64::MAX),
        speed: Some(i64::MAX),
    };
    let sensor = Temperature { sensor: long(), millidegrees: i32::MAX };
    let group = ProcessGroup { name: long(), count: u32::MAX, cpu: most, memory: u64::MAX };
    let sections: Vec<Section> = vec![
        Cpu { total: usage, cores: list(vec![core; MAX_CORES]) }.into(),
        FileSystems { file_systems: list(vec![file_system; MAX_FILE_SYSTEMS]) }.into(),
        DiskIo { disks: list(vec![disk; MAX_DISKS]) }.into(),
        Network { interfaces: list(vec![interface; MAX_INTERFACES]) }.into(),
        Temperatures { sensors: list(vec![sensor; MAX_SENSORS]) }.into(),
        TopProcesses { groups: list(vec![group; MAX_PROCESS_GROUPS]) }.into(),
        Section::Memory(Box::default()),
    ];
    let message = ClientMessage::from(Samples {
        batch: u64::MAX,
        backlog: false,
        samples: list(vec![Sample { time_ms: i64::MAX, sections: list(sections) }]),
    });
    let body = encode_frame_body(&message).unwrap();
    assert!(body.len() <= MAX_FRAME_BYTES, "{} bytes", body.len());
    assert!(client_says(&body) == Ok(message), "and is read again");
}
