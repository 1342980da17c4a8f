//! What is asked of whoever keeps trust and secrets on disk, and what it answers; as [`crate::spool::job`] for samples.

use vitals_wire::ids::Secret;

use super::Pin;

/// Keeps trust and secrets, durably.
pub trait Keep: std::fmt::Debug + Send + 'static {
    /// Does one job. May wait for a disk.
    fn perform(&mut self, job: Job) -> Outcome;
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// A server took this host; keep so, where it is, and the keys that it named; answered by `Kept`.
    Keep {
        /// The keys, ascending.
        pins: Vec<Pin>,
    },
    /// Make a second secret and keep it beside this one; answered by `Made`.
    MakeSecret {
        /// The one in force.
        present: Secret,
    },
    /// The server took this secret, which was the second: it is the only one from now on; answered by `Changed`.
    ChangeSecret {
        /// The secret.
        to: Secret,
    },
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Kept.
    Kept,
    /// The second secret, which is kept.
    Made(Secret),
    /// The old one is gone.
    Changed,
    /// It did not work, and all is as it was: worth another try later.
    Failed {
        /// Why, for people.
        why: String,
    },
}
