//! Vitals' client.

pub mod clock;
pub mod collect;
pub mod facts;
pub mod sampler;
pub mod show;
