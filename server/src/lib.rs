//! Vitals' server.
//!
//! In the order in which data flows:
//!
//! - [`journal`]: the one durable log; committing to it is what acknowledges.
//! - [`store`]: history, read from the journal.
//! - [`field`]: how a field of a host is named.
//! - [`influx`]: InfluxDB's writer, read from the journal.
//! - [`metrics`]: the server's own figures.

pub mod field;
pub mod influx;
pub mod journal;
pub mod metrics;
pub mod store;
