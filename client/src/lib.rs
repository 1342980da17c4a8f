//! Vitals' client.
//!
//! In the order in which data flows: a sampler makes samples, [`queue`] holds them until they are settled, [`link`]
//! brings them to a server; [`run`] puts them together, [`simulate`] does so for hosts that are not there.

pub mod cli;
pub mod config;
pub mod identity;
pub mod link;
pub mod logging;
pub mod queue;
pub mod run;
pub mod simulate;
pub mod tee;

#[cfg(test)]
mod test_server;
