//! The messages of protocol version 1, one file each.
//!
//! On the wire a message is its kind (a varint) followed by its body. Kinds 1 to 63 go from client to server, 64 and up
//! from server to client. There is none by which a server could make a client run, read or write anything.

mod ack;
mod bye;
mod hello;
mod learnt;
mod live_sample;
mod new_secret;
mod pins;
mod refused;
mod samples;
mod set_interval;
mod welcome;

pub use ack::{Ack, DropReason, RefusedSample};
pub use bye::{Bye, ByeReason};
pub use hello::{Facts, Hello, Label};
pub use learnt::Learnt;
pub use live_sample::LiveSample;
pub use new_secret::NewSecret;
pub use pins::Pins;
pub use refused::{Refusal, Refused};
pub use samples::Samples;
pub use set_interval::SetInterval;
pub use welcome::{Limits, Welcome};

use crate::codec::FrameCodec;

/// The protocol's version, told in `Hello` and `Welcome`.
pub const PROTOCOL_VERSION: u16 = 1;

macro_rules! messages {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $kind:literal $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        #[allow(clippy::large_enum_variant, reason = "the large ones come once a connection")]
        pub enum $name {
            $($(#[$variant_doc])* $variant($variant),)*
            /// A kind of a later version, which a peer that was introduced may send: skipped and counted.
            Unknown(u32),
        }

        impl crate::codec::Message for $name {
            const KINDS: &'static [(u32, &'static str)] = &[$(($kind, stringify!($variant)),)*];

            fn encode(&self, out: &mut bytes::BytesMut) -> Result<(), crate::codec::CodecError> {
                match self {
                    $(Self::$variant(message) => crate::codec::encode_message($kind, message, out),)*
                    Self::Unknown(kind) => Err(crate::codec::CodecError::UnknownMessage { kind: *kind }),
                }
            }

            fn decode(kind: u32, body: &[u8]) -> Result<Self, crate::codec::CodecError> {
                match kind {
                    $($kind => crate::codec::decode_message(body).map(Self::$variant),)*
                    _ => Ok(Self::Unknown(kind)),
                }
            }

            fn is_unknown(&self) -> bool {
                matches!(self, Self::Unknown(_))
            }
        }
        $(impl From<$variant> for $name {
            fn from(message: $variant) -> Self {
                Self::$variant(message)
            }
        })*
    };
}

messages! {
    /// What a client says.
    ClientMessage {
        /// Who I am; the first message of every connection.
        1 Hello,
        /// Readings to keep.
        2 Samples,
        /// The secret that I use from now on.
        3 NewSecret,
        /// A reading to show and forget.
        4 LiveSample,
        /// I am going, and why.
        5 Bye,
        /// These keys of yours I know from now on, also after a restart.
        6 Learnt,
    }
}

messages! {
    /// What a server says.
    ServerMessage {
        /// Come in; the answer to a `Hello`.
        64 Welcome,
        /// These batches are settled.
        65 Ack,
        /// Show live readings this often for a while.
        66 SetInterval,
        /// No, and why; the connection ends.
        67 Refused,
        /// My keys have changed.
        68 Pins,
    }
}

/// Frames on a connection, at the client's end.
pub type ClientCodec = FrameCodec<ServerMessage, ClientMessage>;
/// Frames on a connection, at the server's end.
pub type ServerCodec = FrameCodec<ClientMessage, ServerMessage>;

/// A closed set of numeric codes, open to numbers that a newer peer may send: `Other` keeps them.
macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $code:literal $variant:ident $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(from = "u16", into = "u16")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// A number from a newer version.
            Other(u16),
        }

        impl $name {
            /// All that this version knows.
            pub const ALL: &'static [$name] = &[$(Self::$variant,)*];

            /// The word used in logs and metrics.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                    Self::Other(_) => "other",
                }
            }
        }

        impl From<u16> for $name {
            fn from(code: u16) -> Self {
                match code {
                    $($code => Self::$variant,)*
                    other => Self::Other(other),
                }
            }
        }

        impl From<$name> for u16 {
            fn from(code: $name) -> u16 {
                match code {
                    $($name::$variant => $code,)*
                    $name::Other(other) => other,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    Self::Other(code) => write!(f, "other_{code}"),
                    known => f.write_str(known.word()),
                }
            }
        }
    };
}
use codes;

/// The golden vectors of all messages, for the tests of the codec and the fuzz targets' corpus.
#[cfg(test)]
pub(crate) mod vectors {
    use super::*;
    use crate::golden::Golden;

    pub(crate) fn client() -> Vec<Golden<ClientMessage>> {
        let files = [
            hello::tests::vectors(),
            samples::tests::vectors(),
            new_secret::tests::vectors(),
            live_sample::tests::vectors(),
            bye::tests::vectors(),
            learnt::tests::vectors(),
        ];
        files.into_iter().flatten().collect()
    }

    pub(crate) fn server() -> Vec<Golden<ServerMessage>> {
        let files = [
            welcome::tests::vectors(),
            ack::tests::vectors(),
            set_interval::tests::vectors(),
            refused::tests::vectors(),
            pins::tests::vectors(),
        ];
        files.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Message;

    /// Monitor-only by construction: ARCHITECTURE.md says why each of these lets a server run, read or write nothing on a
    /// client. Whoever adds one changes this list, and that paragraph.
    #[test]
    fn a_server_can_say_these_things_and_nothing_else() {
        let names: Vec<&str> = ServerMessage::KINDS.iter().map(|(_, name)| *name).collect();
        assert_eq!(names, ["Welcome", "Ack", "SetInterval", "Refused", "Pins"]);
    }
}
