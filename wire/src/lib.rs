//! What travels between Vitals' clients and server, and what waits on their disks.
//!
//! In the order in which data flows:
//!
//! - [`section`] and [`sample`]: one reading of one host, in typed sections; [`centi`] and [`bounded`] are what they are made of.
//! - [`name`] and [`ids`]: who is who.
//! - [`token`]: the one text with which a host joins.
//! - [`message`]: what client and server say to each other; [`limits`]: how much of it at most.
//! - [`codec`]: messages to bytes and back, and frames on a connection.
//! - [`log`]: frames that wait on disk: the client's spool and the server's journal; [`record`] is what the journal holds.
//! - [`mapping`]: the one place that gives a reading its measurements, tags and fields, which are Telegraf's.
//! - [`line`](mod@line): line protocol of it.

// Support files of the tests name this crate as everybody else does.
#[cfg(test)]
extern crate self as vitals_wire;

#[cfg(test)]
mod arbitrary;
pub mod bounded;
pub mod centi;
pub mod codec;
#[cfg(test)]
mod golden;
pub mod ids;
pub mod limits;
pub mod line;
pub mod log;
pub mod mapping;
pub mod message;
pub mod name;
#[cfg(test)]
#[path = "../tests/support/reading.rs"]
mod reading;
pub mod record;
pub mod sample;
pub mod section;
pub mod token;
