//! Vitals' server.
//!
//! In the order in which data flows:
//!
//! - [`tls`]: keys and certificates. [`connection`] accepts and frames; [`session`] is one task for each client: handshake, validation, acknowledgement.
//! - [`live`]: the picture of the fleet as it is now, in memory.
//! - [`journal`]: the one durable log; committing to it is what acknowledges.
//! - [`store`]: history, read from the journal; [`field`]: how a field is named.
//! - [`influx`]: InfluxDB's writers, read from the journal; [`backfill`]: history written to it again.
//! - [`state`]: hosts, their names and labels.
//! - [`own`]: what the server has to say for itself; [`metrics`] and [`process`] are where it comes from.
//! - [`api`] reads `store` and `live`; [`control`] is the socket of the [`commands`].
//! - [`app`] puts it all together; [`config`], [`cli`], [`logging`], [`network`], [`seldom`], [`secret`], [`data_dir`], [`shutdown`], [`clock`] and
//!   [`time`] serve it.

pub mod api;
pub mod app;
pub mod backfill;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod connection;
pub mod control;
pub mod data_dir;
pub mod field;
pub mod hosts_command;
pub mod influx;
pub mod journal;
pub mod live;
pub mod logging;
pub mod metrics;
pub mod network;
pub mod own;
pub mod process;
pub mod secret;
pub mod seldom;
pub mod session;
pub mod shutdown;
pub mod state;
pub mod store;
pub mod targets_command;
pub mod time;
pub mod tls;
