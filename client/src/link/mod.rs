//! The way from a sample to the server that settles it.
//!
//! [`protocol`] decides everything and does no I/O; [`driver`] moves its messages over a connection; [`tcp`] opens
//! one; [`event`] is what both have to tell. [`disk`] decides what of it waits on disk.

pub mod disk;
pub mod driver;
pub mod event;
pub mod protocol;
pub mod tcp;
