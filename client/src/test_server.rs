//! A server for tests: speaks the real protocol on loopback and does what the test says.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::codec::Framed;
use vitals_wire::bounded::{List, Text};
use vitals_wire::limits::{MAX_BATCH_SAMPLES, MAX_FRAME_BYTES};
use vitals_wire::message::ServerCodec;
use vitals_wire::message::{
    Ack, ClientMessage, DropReason, Hello, Limits, PROTOCOL_VERSION, Refusal, Refused, RefusedSample,
    Samples, ServerMessage, Welcome,
};

/// No step of a test takes longer unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Server {
    listener: TcpListener,
}

/// One client's connection.
pub struct Session {
    pub frames: Framed<TcpStream, ServerCodec>,
}

impl Server {
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    pub async fn accept(&self) -> Session {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.expect("a client comes").unwrap();
        Session { frames: Framed::new(stream, ServerCodec::new()) }
    }

    /// Takes a client and lets it in.
    pub async fn welcome(&self) -> (Session, Hello) {
        let mut session = self.accept().await;
        let Some(ClientMessage::Hello(hello)) = session.next().await else { panic!("no Hello") };
        session.send(welcome_to("as-named")).await;
        (session, hello)
    }
}

pub fn welcome_to(name: &str) -> Welcome {
    Welcome {
        protocol: PROTOCOL_VERSION,
        server_version: Text::cut("test"),
        server_time_ms: 0,
        name: Text::cut(name),
        window: 4,
        limits: Limits { frame_bytes: MAX_FRAME_BYTES as u32, batch_samples: MAX_BATCH_SAMPLES as u32 },
        oldest_ms: 0,
        pins: List::empty(),
        rotate_secret: false,
    }
}

impl Session {
    /// The next message; `None` when the client has closed.
    pub async fn next(&mut self) -> Option<ClientMessage> {
        timeout(PATIENCE, self.frames.next()).await.expect("the client says something").and_then(Result::ok)
    }

    pub async fn samples(&mut self) -> Samples {
        match self.next().await {
            Some(ClientMessage::Samples(samples)) => samples,
            other => panic!("{other:?} instead of samples"),
        }
    }

    pub async fn send(&mut self, message: impl Into<ServerMessage>) {
        self.frames.send(message.into()).await.unwrap();
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        self.frames.get_mut().write_all(bytes).await.unwrap();
    }

    pub async fn refuse(&mut self, retry: bool) {
        self.send(Refused { code: Refusal::Credential, text: Text::cut("not you"), retry }).await;
    }

    pub async fn ack(&mut self, batch: u64, refused: &[(i64, DropReason)]) {
        let refused = refused.iter().map(|&(time_ms, reason)| RefusedSample { time_ms, reason });
        let batches = List::new(vec![batch]).unwrap();
        self.send(Ack { server_time_ms: 0, batches, refused: List::new(refused.collect()).unwrap() }).await;
    }

    /// Acknowledges everything until the client says good-bye; gives the times and whether it did.
    pub async fn serve(mut self) -> (Vec<i64>, bool) {
        let mut times = Vec::new();
        loop {
            match self.next().await {
                Some(ClientMessage::Samples(samples)) => {
                    times.extend(samples.samples.iter().map(|sample| sample.time_ms));
                    self.ack(samples.batch, &[]).await;
                }
                Some(ClientMessage::Bye(_)) => return (times, true),
                Some(_) => {}
                None => return (times, false),
            }
        }
    }
}
