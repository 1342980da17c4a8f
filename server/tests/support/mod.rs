//! What several of the tests need.

pub mod influxd;
