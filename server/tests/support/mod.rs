//! What the tests share: the real server, the real client, a client made by hand, and a real InfluxDB.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod client;
pub mod cutter;
pub mod influxd;
pub mod peer;
pub mod readings;
pub mod secrets;
pub mod server;
pub mod tls;
pub mod wire;
