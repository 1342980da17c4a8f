//! TLS: the clients' port with keys of our own that clients know by their digests, and the page's port with a certificate.
//!
//! [`keys`] holds the clients' port's keys and how one follows another; [`accept`] is how that port speaks, [`watch`] what
//! happens to it while the server runs. [`page`] is the page's certificate. [`pair`] is one key with its certificate,
//! [`files`] how such are written.

pub mod accept;
mod error;
pub mod files;
pub mod keys;
pub mod page;
pub mod pair;
pub mod watch;
