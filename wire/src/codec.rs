//! Frames and messages to bytes and back. The only module that names bincode.
//!
//! # Layout
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of the body, big-endian u32, checked against a cap before anything is allocated |
//! | 1 to 5 | kind of the message, as a varint |
//! | the rest | the message's body |
//!
//! The body is bincode 2 with its `standard` configuration: integers as varints (below 251 one byte; 251, 252, 253 are
//! followed by 2, 4, 8 bytes, little-endian), signed ones zigzag-coded first, floats as 8 bytes little-endian, options
//! as one byte 0 or 1, texts and lists behind their length, structs as their fields in order, enums behind the number
//! of their variant. The golden bytes below each message define the format, not the crate: bincode is unmaintained
//! (RUSTSEC-2025-0141) and could be replaced by anything that keeps them.
//!
//! Decoding never trusts a claimed length: texts borrow from the frame, lists grow as entries come, and a limit bounds
//! the whole. Bytes left over are an error.

use bincode::config::{self, Config, Configuration, Limit, LittleEndian, Varint};
use bincode::error::{DecodeError, EncodeError};
use bytes::{Buf, BufMut, BytesMut};
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;
use tokio_util::codec::{Decoder, Encoder};

use crate::limits::{MAX_FRAME_BYTES, MAX_HELLO_FRAME_BYTES};

const HEADER_BYTES: usize = 4;
/// What the read buffer of an idle connection shrinks back to: ten thousand of them wait most of the time.
const IDLE_BUFFER_BYTES: usize = 1 << 10;

/// bincode's limit counts an integer as what it takes in memory, up to 8 bytes, also where it travels as one. With a
/// limit below 8 times the cap, a frame under its cap could be encoded and then not be decoded.
const CLAIM_FACTOR: usize = 8;
const CONFIG: Configuration<LittleEndian, Varint, Limit<{ CLAIM_FACTOR * MAX_FRAME_BYTES }>> =
    config::standard().with_limit::<{ CLAIM_FACTOR * MAX_FRAME_BYTES }>();
/// A record holds what came in one frame, and who sent it.
const RECORD_CONFIG: Configuration<LittleEndian, Varint, Limit<{ 2 * CLAIM_FACTOR * MAX_FRAME_BYTES }>> =
    config::standard().with_limit::<{ 2 * CLAIM_FACTOR * MAX_FRAME_BYTES }>();

/// What can be wrong with bytes that should be a message. None leaves the stream usable: the connection ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A frame longer than its cap. Nothing was allocated for it.
    #[error("a frame of {len} bytes, at most {max} are taken")]
    FrameTooLarge {
        /// Its claimed length.
        len: usize,
        /// The cap.
        max: usize,
    },
    /// A frame without even a kind.
    #[error("an empty frame")]
    EmptyFrame,
    /// A kind that this version does not know in this direction, and cannot send.
    #[error("unknown kind of message {kind}")]
    UnknownMessage {
        /// The number.
        kind: u32,
    },
    /// The body ends before the message does.
    #[error("the message ends too early")]
    Truncated,
    /// The message ends before the body does.
    #[error("{0} bytes left over after the message")]
    TrailingBytes(usize),
    /// A list or text that claims more than its cap.
    #[error("{0}")]
    TooLong(String),
    /// Bytes that no encoder makes.
    #[error("{0}")]
    Invalid(String),
}

/// A connection's bytes could not be read, or not understood.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The peer does not keep to the protocol.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl From<DecodeError> for CodecError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::UnexpectedEnd { .. } => Self::Truncated,
            DecodeError::LimitExceeded => Self::TooLong("a length over the frame's cap".to_owned()),
            // serde's own word for it, from `bounded`.
            DecodeError::OtherString(text) if text.starts_with("invalid length") => Self::TooLong(text),
            DecodeError::OtherString(text) => Self::Invalid(text),
            other => Self::Invalid(other.to_string()),
        }
    }
}

impl From<EncodeError> for CodecError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::OtherString(text) => Self::Invalid(text),
            other => Self::Invalid(other.to_string()),
        }
    }
}

/// A set of messages that can travel in one direction.
pub trait Message: Sized {
    /// Kinds and names of all of them.
    const KINDS: &'static [(u32, &'static str)];
    /// Appends kind and body.
    fn encode(&self, out: &mut BytesMut) -> Result<(), CodecError>;
    /// Reads the body of a message of `kind`. One of a kind that this version does not know is taken, and nothing but its
    /// kind is kept.
    fn decode(kind: u32, body: &[u8]) -> Result<Self, CodecError>;
    /// Whether it is of a kind that this version does not know: it cannot be encoded.
    fn is_unknown(&self) -> bool;
}

/// Appends to a buffer, for bincode.
struct Appender<'a>(&'a mut BytesMut);

impl bincode::enc::write::Writer for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fn decode_whole<'de, T: Deserialize<'de>>(bytes: &'de [u8], config: impl Config) -> Result<T, CodecError> {
    let (value, used) = bincode::serde::borrow_decode_from_slice(bytes, config)?;
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(CodecError::TrailingBytes(left)),
    }
}

pub(crate) fn encode_message<T: Serialize>(
    kind: u32,
    message: &T,
    out: &mut BytesMut,
) -> Result<(), CodecError> {
    bincode::serde::encode_into_writer(kind, Appender(out), CONFIG)?;
    bincode::serde::encode_into_writer(message, Appender(out), CONFIG)?;
    Ok(())
}

pub(crate) fn decode_message<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, CodecError> {
    decode_whole(body, CONFIG)
}

pub(crate) fn encode_section<T: Serialize>(section: &T) -> Result<Vec<u8>, CodecError> {
    /// Room for most sections: growing to it bit by bit would cost more than the encoding.
    const USUAL_BYTES: usize = 256;
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    bincode::serde::encode_into_std_write(section, &mut bytes, CONFIG)?;
    Ok(bytes)
}

pub(crate) fn decode_section<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, CodecError> {
    decode_whole(body, CONFIG)
}

/// Encodes a message without its length, as it lies in a frame.
pub fn encode_frame_body<M: Message>(message: &M) -> Result<BytesMut, CodecError> {
    let mut out = BytesMut::new();
    message.encode(&mut out)?;
    Ok(out)
}

/// Decodes a frame's body: the kind and the message.
pub fn decode_frame_body<M: Message>(body: &[u8]) -> Result<M, CodecError> {
    if body.is_empty() {
        return Err(CodecError::EmptyFrame);
    }
    let (kind, used): (u32, usize) = bincode::serde::borrow_decode_from_slice(body, CONFIG)?;
    M::decode(kind, &body[used..])
}

pub(crate) fn encode_record<T: Serialize>(record: &T) -> Result<Vec<u8>, CodecError> {
    /// Room for a record of one usual sample.
    const USUAL_BYTES: usize = 1024;
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    bincode::serde::encode_into_std_write(record, &mut bytes, RECORD_CONFIG)?;
    Ok(bytes)
}

pub(crate) fn decode_record<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, CodecError> {
    decode_whole(bytes, RECORD_CONFIG)
}

/// Frames on a connection: reads `In`, writes `Out`.
#[derive(Debug)]
pub struct FrameCodec<In, Out> {
    max_frame_bytes: usize,
    /// Of the body of the frame that was read last.
    frame_bytes: usize,
    messages: PhantomData<fn(Out) -> In>,
}

impl<In, Out> FrameCodec<In, Out> {
    /// Takes frames up to the protocol's cap.
    pub fn new() -> Self {
        Self { max_frame_bytes: MAX_FRAME_BYTES, frame_bytes: 0, messages: PhantomData }
    }

    /// Takes only frames as small as a `Hello`, until `introduced` is called.
    pub fn for_strangers() -> Self {
        Self { max_frame_bytes: MAX_HELLO_FRAME_BYTES, frame_bytes: 0, messages: PhantomData }
    }

    /// The peer said a valid `Hello`: frames up to the protocol's cap are taken.
    pub fn introduced(&mut self) {
        self.max_frame_bytes = MAX_FRAME_BYTES;
    }

    /// Bytes of the frame that the last message came in, without its length.
    pub fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }
}

impl<In, Out> Default for FrameCodec<In, Out> {
    fn default() -> Self {
        Self::new()
    }
}

impl<In: Message, Out> Decoder for FrameCodec<In, Out> {
    type Item = In;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<In>, FrameError> {
        let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*header) as usize;
        if len > self.max_frame_bytes {
            return Err(CodecError::FrameTooLarge { len, max: self.max_frame_bytes }.into());
        }
        let Some(body) = buffer.get(HEADER_BYTES..HEADER_BYTES + len) else {
            // At most the cap, and the bytes so far were really sent; still, grow no faster than twice what came.
            let missing = HEADER_BYTES + len - buffer.len();
            buffer.reserve(missing.min(buffer.len().max(IDLE_BUFFER_BYTES)));
            return Ok(None);
        };
        let message = decode_frame_body(body)?;
        self.frame_bytes = len;
        buffer.advance(HEADER_BYTES + len);
        if buffer.is_empty() && buffer.capacity() > IDLE_BUFFER_BYTES {
            *buffer = BytesMut::with_capacity(IDLE_BUFFER_BYTES);
        }
        Ok(Some(message))
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<In>, FrameError> {
        match self.decode(buffer)? {
            Some(message) => Ok(Some(message)),
            None if buffer.is_empty() => Ok(None),
            // A connection that was cut, not a peer that breaks the protocol.
            None => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

impl<In, Out: Message> Encoder<Out> for FrameCodec<In, Out> {
    type Error = FrameError;

    fn encode(&mut self, message: Out, buffer: &mut BytesMut) -> Result<(), FrameError> {
        let start = buffer.len();
        buffer.put_u32(0);
        let encoded = message.encode(buffer).and_then(|()| {
            let len = buffer.len() - start - HEADER_BYTES;
            if len > MAX_FRAME_BYTES {
                return Err(CodecError::FrameTooLarge { len, max: MAX_FRAME_BYTES });
            }
            // Fits: the cap is far below 2^32.
            buffer[start..start + HEADER_BYTES].copy_from_slice(&(len as u32).to_be_bytes());
            Ok(())
        });
        if encoded.is_err() {
            // Nothing of a message that cannot be sent may stay before the next one.
            buffer.truncate(start);
        }
        Ok(encoded?)
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
