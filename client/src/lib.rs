//! Vitals' client.
//!
//! In the order in which data flows: a sampler makes samples, [`queue`] holds them until they are settled, [`link`]
//! brings them to a server.

pub mod config;
pub mod identity;
pub mod link;
pub mod logging;
pub mod queue;
pub mod simulate;
