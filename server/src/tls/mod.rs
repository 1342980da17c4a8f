//! TLS: the clients' port with keys of our own that clients know by their digests, and the page's port with a certificate.

pub mod files;
pub mod keys;
pub mod page;
pub mod pair;
