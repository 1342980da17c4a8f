//! The sections of a sample: one typed struct for each kind of reading, one file each.
//!
//! What a host does not have, or could not read this time, is a section or an `Option` that is not there, never zero.
//! A released struct is frozen: a new kind of reading is a new kind with the next number.

mod client;
mod cpu;
mod disk_io;
mod events;
mod file_systems;
mod memory;
mod network;
mod processes;
mod server;
mod swap;
mod system;
mod temperatures;
mod top_processes;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Serialize, Serializer};

pub use client::ClientHealth;
pub use cpu::{Core, Cpu, CpuUsage};
pub use disk_io::{Disk, DiskIo, DiskTimes};
pub use events::{Event, EventKind, Events};
pub use file_systems::{FileSystem, FileSystems, Inodes};
pub use memory::Memory;
pub use network::{Interface, Network};
pub use processes::{ProcessStates, Processes};
pub use server::{ReasonCount, ServerHealth};
pub use swap::Swap;
pub use system::System;
pub use temperatures::{Temperature, Temperatures};
pub use top_processes::{ProcessGroup, TopProcesses};

use crate::codec;

/// A name of a device, an interface, a sensor or a command.
pub type Name = crate::bounded::Text<{ crate::limits::MAX_NAME_BYTES }>;

macro_rules! sections {
    ($($(#[$doc:meta])* $kind:literal $variant:ident($payload:ty),)*) => {
        /// One kind of reading.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Section {
            $($(#[$doc])* $variant($payload),)*
            /// Bytes of a kind that this version does not know, or that do not decode as their kind should. They are
            /// kept as they came, counted, and mapped to nothing.
            Opaque(Opaque),
        }

        impl Section {
            /// The kinds that this version knows, with their names.
            pub const KINDS: &'static [(u32, &'static str)] = &[$(($kind, stringify!($variant)),)*];

            /// The number under which this section travels.
            pub fn kind(&self) -> u32 {
                match self {
                    $(Self::$variant(_) => $kind,)*
                    Self::Opaque(opaque) => opaque.kind,
                }
            }

            pub(crate) fn encode_body(&self) -> Result<Vec<u8>, codec::CodecError> {
                match self {
                    $(Self::$variant(section) => codec::encode_section(section),)*
                    Self::Opaque(opaque) => Ok(opaque.bytes.to_vec()),
                }
            }

            /// Decodes the body of a section of `kind`; `None` for a kind that this version does not know.
            pub fn decode_body(kind: u32, bytes: &[u8]) -> Option<Result<Self, codec::CodecError>> {
                match kind {
                    $($kind => Some(codec::decode_section(bytes).map(Self::$variant)),)*
                    _ => None,
                }
            }
        }
        $(impl From<$payload> for Section {
            fn from(section: $payload) -> Self {
                Self::$variant(section)
            }
        })*
    };
}

sections! {
    /// CPU usage, in total and per core.
    1 Cpu(Cpu),
    /// Memory.
    2 Memory(Box<Memory>),
    /// Swap space.
    3 Swap(Swap),
    /// Space and inodes of mounted file systems.
    4 FileSystems(FileSystems),
    /// Counters of disks and partitions.
    5 DiskIo(DiskIo),
    /// Counters of network interfaces.
    6 Network(Network),
    /// Load, uptime and other facts of the whole system.
    7 System(System),
    /// Counts of processes by state.
    8 Processes(Processes),
    /// Temperature sensors.
    9 Temperatures(Temperatures),
    /// What uses most CPU and memory, by command name.
    10 TopProcesses(TopProcesses),
    /// The client's own health.
    11 ClientHealth(Box<ClientHealth>),
    /// The server's own health.
    100 ServerHealth(ServerHealth),
    /// What happened to hosts, as the server saw it.
    101 Events(Events),
}

/// A section that is carried without being understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opaque {
    /// The kind's number.
    pub kind: u32,
    /// Its body as it came.
    pub bytes: Box<[u8]>,
}

impl Opaque {
    /// Whether the kind is known, so that its bytes should have decoded.
    pub fn is_damaged(&self) -> bool {
        Section::KINDS.iter().any(|(kind, _)| *kind == self.kind)
    }
}

/// A byte string on the wire: length, then bytes.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl Serialize for Section {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let body = self.encode_body().map_err(serde::ser::Error::custom)?;
        let mut pair = serializer.serialize_tuple(2)?;
        pair.serialize_element(&self.kind())?;
        pair.serialize_element(&Bytes(&body))?;
        pair.end()
    }
}

impl<'de> Deserialize<'de> for Section {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SectionVisitor;
        impl<'de> Visitor<'de> for SectionVisitor {
            type Value = Section;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a section's kind and body")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Section, A::Error> {
                let missing = || serde::de::Error::custom("a section without kind or body");
                let kind: u32 = seq.next_element()?.ok_or_else(missing)?;
                let bytes: &'de [u8] = seq.next_element()?.ok_or_else(missing)?;
                Ok(match Section::decode_body(kind, bytes) {
                    Some(Ok(section)) => section,
                    Some(Err(_)) | None => Section::Opaque(Opaque { kind, bytes: bytes.into() }),
                })
            }
        }
        deserializer.deserialize_tuple(2, SectionVisitor)
    }
}

/// The golden vectors of all sections, for the tests of the codec and the fuzz targets' corpus.
#[cfg(test)]
pub(crate) fn vectors() -> Vec<crate::golden::Golden<Section>> {
    let files = [
        cpu::tests::vectors(),
        memory::tests::vectors(),
        swap::tests::vectors(),
        file_systems::tests::vectors(),
        disk_io::tests::vectors(),
        network::tests::vectors(),
        system::tests::vectors(),
        processes::tests::vectors(),
        temperatures::tests::vectors(),
        top_processes::tests::vectors(),
        client::tests::vectors(),
        server::tests::vectors(),
        events::tests::vectors(),
    ];
    files.into_iter().flatten().collect()
}
