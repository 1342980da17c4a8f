//! An InfluxDB that takes everything and keeps nothing: `cargo run --example answer204 [ADDRESS]`.
//!
//! It answers 204 to each POST, and 200 with a passing state of health to all else, so that `scripts/bench.sh` measures
//! Vitals and not a database. It prints where it listens, and at the end of its standard input what it got.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Bytes of a request's head at most.
const MAX_HEAD_BYTES: usize = 64 << 10;
const TAKEN: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
const HEALTH: &str = r#"{"name":"influxdb","message":"answers 204","status":"pass","version":"v2.7.12"}"#;

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    body_bytes: AtomicU64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on {}", listener.local_addr()?);
    let counts = Arc::new(Counts::default());
    let (at_end, mut ended) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        // However reading ends, it is the end.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        drop(at_end);
    });
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                let counts = Arc::clone(&counts);
                tokio::spawn(async move {
                    // A client that goes away is no concern of the others.
                    let _ = serve(stream, &counts).await;
                });
            }
            _ = &mut ended => break,
        }
    }
    println!("requests={} body_bytes={}", counts.requests.load(Relaxed), counts.body_bytes.load(Relaxed));
    Ok(())
}

async fn serve(mut stream: TcpStream, counts: &Counts) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(64 << 10);
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if buffer.len() > MAX_HEAD_BYTES || stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, value)| value.trim().parse::<usize>().ok())
            .unwrap_or(0);
        buffer.advance(end);
        let mut left = length;
        loop {
            let taken = left.min(buffer.len());
            buffer.advance(taken);
            left -= taken;
            if left == 0 {
                break;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        counts.requests.fetch_add(1, Relaxed);
        counts.body_bytes.fetch_add(length as u64, Relaxed);
        if head.starts_with("POST ") {
            stream.write_all(TAKEN).await?;
        } else {
            let health = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{HEALTH}", HEALTH.len());
            stream.write_all(health.as_bytes()).await?;
        }
    }
}
