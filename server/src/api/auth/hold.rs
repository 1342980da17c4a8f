//! What lasts ends with the rights of the one who asked for it: at once at a logout or a revoked token, within a second at an
//! expiry.

use std::io;
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes};
use futures_util::stream::{self, Stream, StreamExt};
use tokio::time::{Instant, interval_at};

use crate::api::caller::Caller;

/// Time between two looks at whether the rights have expired.
const LOOK: Duration = Duration::from_secs(1);

/// A body that ends with its caller's rights. Such an end is an error on the connection: half an export must not look like a
/// whole one.
pub fn while_held<S, B, E>(caller: Caller, stream: S) -> Body
where
    S: Stream<Item = Result<B, E>> + Send + 'static,
    B: Into<Bytes> + Send + 'static,
    E: Into<BoxError> + Send + 'static,
{
    let looks = interval_at(Instant::now() + LOOK, LOOK);
    let start = Some((Box::pin(stream), caller, looks));
    Body::from_stream(stream::unfold(start, |state| async move {
        let (mut stream, caller, mut looks) = state?;
        loop {
            tokio::select! {
                biased;
                () = caller.ended().cancelled() => return Some((Err(over()), None)),
                _ = looks.tick() => {
                    if !caller.still_holds() {
                        return Some((Err(over()), None));
                    }
                }
                next = stream.next() => {
                    let next = next?.map(Into::into).map_err(Into::into);
                    return Some((next, Some((stream, caller, looks))));
                }
            }
        }
    }))
}

fn over() -> BoxError {
    io::Error::new(io::ErrorKind::PermissionDenied, "the caller's rights have ended").into()
}

#[cfg(test)]
#[path = "hold_tests.rs"]
mod tests;
