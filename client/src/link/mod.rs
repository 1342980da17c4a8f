//! The way from a sample to the server that settles it.
//!
//! [`protocol`] decides everything and does no I/O; [`driver`] moves its messages over a connection; [`connector`] opens
//! one: [`tcp`], through a [`proxy`] or not, and [`tls`] over it, which makes a [`stream`]; [`event`] is what there is to
//! tell. [`disk`] decides what of it waits on disk.

pub mod connector;
pub mod disk;
pub mod driver;
pub mod event;
pub mod protocol;
pub mod proxy;
pub mod stream;
pub mod tcp;
pub mod tls;

#[cfg(test)]
mod joining_tests;
