//! Vitals' client.
//!
//! In the order in which data flows:
//!
//! - [`cli`], [`config`], [`logging`]: what the client is told to do, and how it tells what it does.
//! - [`identity`]: who it is; [`trust`]: whom it trusts; [`health`]: how it is.
//! - [`collect`]: reads this host; [`sampler`] makes samples of it on a steady interval, with times from [`clock`].
//! - [`queue`]: samples that are not settled yet, in memory; [`spool`]: on disk.
//! - [`link`]: brings them to a server; [`facts`] are told with each connection.
//! - [`reporter`] tells the log what happens on the link.
//! - [`control`]: the socket over which the running client is asked; [`status`] asks it and prints the answer.
//! - [`stop`]: how a run ends; [`goodbye`]: why, as the server is told.
//! - [`run`] puts these together; [`tee`] writes what is sent, [`show`] prints one sample.
//! - [`simulate`]: the same link for hosts that are not there.
//!
//! The sampler knows nothing of queue and link.

pub mod cli;
pub mod clock;
pub mod collect;
pub mod config;
pub mod control;
pub mod facts;
pub mod goodbye;
pub mod health;
pub mod identity;
pub mod link;
pub mod logging;
pub mod queue;
pub mod reporter;
pub mod run;
pub mod sampler;
pub mod show;
pub mod simulate;
pub mod spool;
pub mod status;
pub mod stop;
pub mod tee;
pub mod trust;

#[cfg(test)]
mod test_server;
