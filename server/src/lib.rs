//! Vitals' server.
//!
//! In the order in which data flows:
//!
//! - [`journal`]: the one durable log; committing to it is what acknowledges.
//! - [`store`]: history, read from the journal.
//! - [`influx`]: InfluxDB's writer, read from the journal.
//! - [`metrics`]: the server's own figures.

pub mod clock;
pub mod config;
pub mod connection;
pub mod influx;
pub mod journal;
pub mod live;
pub mod logging;
pub mod metrics;
pub mod session;
pub mod state;
pub mod store;
