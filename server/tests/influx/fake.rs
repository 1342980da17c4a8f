//! HTTP servers that answer writes as no InfluxDB should, one behaviour a request, and then as a good one.

use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What happens to a request.
#[derive(Clone)]
pub enum Behave {
    /// The lines are taken: 204.
    Take,
    /// The same after this time.
    TakeAfter(Duration),
    /// The lines are taken and the connection closes without an answer.
    TakeAndClose,
    /// This is answered: status line, headers, body.
    Say(&'static str, &'static str, &'static str),
    /// No answer ever.
    Hang,
    /// The connection closes before an answer.
    Close,
    /// It closes in the middle of one.
    CloseInside,
}

/// One of them. Ends when it is dropped.
pub struct Fake {
    pub addr: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    script: Mutex<VecDeque<Behave>>,
    requests: AtomicUsize,
    lines: Mutex<HashMap<String, usize>>,
    /// Counting is too slow where throughput is measured.
    only_count: bool,
    max_delay: Duration,
    /// Lines that hold this are not taken, the others are, and this is answered: status line and body.
    refuses: Option<(&'static str, &'static str, &'static str)>,
}

impl Fake {
    /// Plays `script`, and takes all that comes after it.
    pub async fn start(script: impl IntoIterator<Item = Behave>) -> Self {
        Self::with(State { script: Mutex::new(script.into_iter().collect()), ..State::default() }).await
    }

    /// Takes all, each request after a random time up to `max_delay`.
    pub async fn slow(max_delay: Duration) -> Self {
        Self::with(State { max_delay, ..State::default() }).await
    }

    /// Takes all but lines that hold `text`; a request with such a line is answered `status` and `body`.
    pub async fn refusing(text: &'static str, status: &'static str, body: &'static str) -> Self {
        Self::with(State { refuses: Some((text, status, body)), ..State::default() }).await
    }

    /// Takes all without looking at it.
    pub async fn only_counting() -> Self {
        Self::with(State { only_count: true, ..State::default() }).await
    }

    async fn with(state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(state);
        let shared = state.clone();
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, shared.clone()));
            }
        });
        Self { addr, state, accepting }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Write requests so far.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Each line taken, with how often.
    pub fn lines(&self) -> HashMap<String, usize> {
        self.state.lines.lock().unwrap().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufStream::new(stream);
    loop {
        let mut first = String::new();
        if stream.read_line(&mut first).await? == 0 {
            return Ok(());
        }
        let (mut length, mut is_gzip) = (0, false);
        loop {
            let mut header = String::new();
            stream.read_line(&mut header).await?;
            let header = header.trim().to_ascii_lowercase();
            match header.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(("content-encoding", "gzip")) => is_gzip = true,
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        // Only writes are played to; the check at start gets a plain no.
        if !first.starts_with("POST /api/v2/write?") {
            stream.write_all(b"HTTP/1.1 501 Not Implemented\r\ncontent-length: 0\r\n\r\n").await?;
            stream.flush().await?;
            continue;
        }
        state.requests.fetch_add(1, Ordering::SeqCst);
        if !state.max_delay.is_zero() {
            tokio::time::sleep(state.max_delay.mul_f64(fastrand::f64())).await;
        }
        let behave = state.script.lock().unwrap().pop_front().unwrap_or(Behave::Take);
        match behave {
            Behave::Take | Behave::TakeAfter(_) => {
                if let Behave::TakeAfter(time) = behave {
                    tokio::time::sleep(time).await;
                }
                let answer = match (take(&state, &body, is_gzip), state.refuses) {
                    (false, Some((_, status, body))) => {
                        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                    }
                    _ => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
                };
                stream.write_all(answer.as_bytes()).await?;
            }
            Behave::TakeAndClose => {
                take(&state, &body, is_gzip);
                return Ok(());
            }
            Behave::Say(status, headers, body) => {
                let length = body.len();
                let answer = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await?;
            }
            Behave::Hang => std::future::pending().await,
            Behave::Close => return Ok(()),
            Behave::CloseInside => {
                stream
                    .write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 500\r\n\r\n{\"code\":")
                    .await?;
                stream.flush().await?;
                return Ok(());
            }
        }
        stream.flush().await?;
    }
}

/// Whether every line was taken.
fn take(state: &State, body: &[u8], is_gzip: bool) -> bool {
    if state.only_count {
        // Decompressing is InfluxDB's work and would be measured as the writer's.
        return true;
    }
    let mut text = String::new();
    if is_gzip {
        flate2::read::GzDecoder::new(body).read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(body.to_vec()).unwrap();
    }
    let mut lines = state.lines.lock().unwrap();
    let is_refused = |line: &str| state.refuses.is_some_and(|(text, _, _)| line.contains(text));
    for line in text.lines().filter(|line| !is_refused(line)) {
        *lines.entry(line.to_owned()).or_default() += 1;
    }
    !text.lines().any(is_refused)
}
