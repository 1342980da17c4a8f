//! Named caps on everything a peer can make long. Each is checked before anything is allocated for it.
//!
//! They are part of the protocol: raising one needs both sides upgraded, lowering one can break a fleet.

/// Largest frame body in bytes, once a peer has introduced itself.
pub const MAX_FRAME_BYTES: usize = 1 << 20;
/// Largest frame body in bytes before a valid `Hello`: strangers get little memory.
pub const MAX_HELLO_FRAME_BYTES: usize = 16 << 10;

/// Samples in one batch.
pub const MAX_BATCH_SAMPLES: usize = 256;
/// Sections in one sample, known and unknown.
pub const MAX_SECTIONS: usize = 64;
/// Batches settled by one `Ack`.
pub const MAX_ACK_BATCHES: usize = 256;
/// Samples refused by one `Ack`.
pub const MAX_ACK_REFUSED: usize = MAX_BATCH_SAMPLES * 4;

/// Bytes of a host's name.
pub const MAX_HOST_NAME_BYTES: usize = 255;
/// Labels of a host.
pub const MAX_LABELS: usize = 16;
/// Bytes of a label's key.
pub const MAX_LABEL_KEY_BYTES: usize = 32;
/// Bytes of a label's value.
pub const MAX_LABEL_VALUE_BYTES: usize = 64;
/// Bytes of a version, as in `Hello` and `Welcome`.
pub const MAX_VERSION_BYTES: usize = 64;
/// Bytes of one fact about a host, such as its kernel.
pub const MAX_FACT_BYTES: usize = 256;
/// Bytes of a join token's secret part.
pub const MAX_TOKEN_BYTES: usize = 512;
/// Bytes of the text of a `Refused`.
pub const MAX_REFUSED_TEXT_BYTES: usize = 512;
/// Pins of the server's key in `Welcome`.
pub const MAX_PINS: usize = 4;

/// CPU cores of one host.
pub const MAX_CORES: usize = 4096;
/// File systems of one host.
pub const MAX_FILE_SYSTEMS: usize = 256;
/// Disks and partitions of one host.
pub const MAX_DISKS: usize = 512;
/// Network interfaces of one host.
pub const MAX_INTERFACES: usize = 512;
/// Temperature sensors of one host.
pub const MAX_SENSORS: usize = 512;
/// Groups of processes in one reading: ten by CPU and ten by memory.
pub const MAX_PROCESS_GROUPS: usize = 20;
/// Bytes of a device's, an interface's, a sensor's or a command's name.
pub const MAX_NAME_BYTES: usize = 128;
/// Bytes of a mount point's path.
pub const MAX_PATH_BYTES: usize = 512;
/// Events in one sample of the server's own.
pub const MAX_EVENTS: usize = 256;
/// Counters by reason in one sample of the server's own.
pub const MAX_REASONS: usize = 64;
