//! How much one request may take, and how many there are at once.
//!
//! A panic in a handler ends the connection that it came through, and nothing else: each connection is a task of its own.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use tokio::sync::Semaphore;

use super::caller::Origin;
use super::crowd::{Crowd, Place};
use super::error::Problem;
use crate::metrics::Metrics;

/// Longest body of a request in bytes.
pub const MAX_BODY_BYTES: usize = 256 << 10;
/// Time until the head of the answer is there; a stream may go on after that for as long as it likes.
pub const REQUEST_TIME: Duration = Duration::from_secs(30);
/// Where one logs in: who is nobody yet can send a body there alone, and take his time.
const LOGIN: &str = "/api/v1/session";
/// Logins of one address (IPv6: one /64) under way; far fewer of them are looked at at once.
const LOGINS_OF_ADDRESS: usize = 16;
/// What those are told who found no room, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// What one request may take, and how many there may be.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Requests under way: each counts until its answer is handed over to the connection, or dropped.
    pub slots: Arc<Semaphore>,
    /// Those of them that are logins: so that who does not get on with one keeps out nobody who is logged in.
    pub logins: Arc<Crowd>,
    /// Time until the head of the answer is there.
    pub time: Duration,
    /// Where it is counted whom was said no.
    pub metrics: Arc<Metrics>,
}

impl Limits {
    /// So many requests, half of which may be logins.
    pub fn new(requests: usize, time: Duration, metrics: Arc<Metrics>) -> Self {
        let logins = Crowd::new(requests.div_ceil(2), LOGINS_OF_ADDRESS);
        Self { slots: Arc::new(Semaphore::new(requests)), logins: Arc::new(logins), time, metrics }
    }

    /// Room for a login; `None` within for a request that is none. `Err` where there is no room.
    fn login(&self, request: &Request) -> Result<Option<Place>, ()> {
        // The listener always says where it comes from.
        let Some(origin) = request.extensions().get::<Origin>().filter(|_| request.uri().path() == LOGIN)
        else {
            return Ok(None);
        };
        self.logins.enter(origin.address, false).map(Some).map_err(|_| ())
    }
}

/// Keeps a request within them.
pub async fn keep(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    if says_too_long(&request) {
        let text = format!("the body is longer than {MAX_BODY_BYTES} bytes");
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text).into_response();
    }
    // Whether the process lives can be asked at any time: who does not hear it kills it.
    if request.uri().path() == "/healthz" {
        return next.run(request).await;
    }
    let (Ok(login), Ok(slot)) = (limits.login(&request), limits.slots.try_acquire_owned()) else {
        limits.metrics.http.turned_away.add("requests", 1);
        let no = Problem::unavailable("too many requests are under way (http.max_requests); try again");
        return ([(header::RETRY_AFTER, RETRY_AFTER)], no).into_response();
    };
    let heard = Heard::default();
    let done = heard.0.clone();
    let answer = next.run(request.map(|body| guarded(body, heard)));
    let mut answer = std::pin::pin!(answer);
    match tokio::time::timeout(limits.time, &mut answer).await {
        Ok(response) => response.map(|body| guarded(body, (slot, login))),
        Err(_) => {
            limits.metrics.http.turned_away.add("time", 1);
            let time = limits.time;
            if done.load(Relaxed) {
                let no = Problem::unavailable(format!("the answer was not ready within {time:?}; try again"));
                ([(header::RETRY_AFTER, RETRY_AFTER)], no).into_response()
            } else {
                let no = format!("the body did not come within {time:?}");
                Problem::new(StatusCode::REQUEST_TIMEOUT, no).into_response()
            }
        }
    }
}

fn says_too_long(request: &Request) -> bool {
    request.body().size_hint().lower() > MAX_BODY_BYTES as u64
}

/// Notes that nobody waits for the request's body any more.
#[derive(Debug, Default)]
struct Heard(Arc<AtomicBool>);

impl Drop for Heard {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// A body that holds something until it has ended or is dropped.
struct Guarded<G> {
    body: Body,
    _guard: G,
}

fn guarded<G: Unpin + Send + 'static>(body: Body, guard: G) -> Body {
    Body::new(Guarded { body, _guard: guard })
}

impl<G: Unpin> HttpBody for Guarded<G> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
