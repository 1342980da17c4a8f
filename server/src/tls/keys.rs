//! The keys of the clients' port: today's and the next.

use vitals_wire::bounded::List;
use vitals_wire::limits::MAX_PINS;

use crate::config::Config;
use crate::data_dir::DataDir;

/// The keys of the clients' port.
#[derive(Debug, Default)]
pub struct Keys {}

impl Keys {
    /// Opens those in the data directory, made where there are none; or takes what the configuration names.
    ///
    /// # Errors
    /// They cannot be read or written.
    pub fn open(_config: &Config, _data_dir: &DataDir) -> anyhow::Result<Self> {
        Ok(Self {})
    }

    /// SHA-256 of the public keys (SPKI) that clients may see, today's first. Empty where the port speaks plain TCP.
    pub fn pins(&self) -> List<[u8; 32], MAX_PINS> {
        List::empty()
    }
}
