//! A client made by hand: says exactly what a test wants it to say, over TLS unless that is what is attacked.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use ring::digest::{SHA256, digest};
use tokio_util::codec::{Decoder, Encoder};
use vitals_server::tls::pair::Pin;
use vitals_wire::bounded::{List, Text};
use vitals_wire::ids::{HostId, RunId, Secret};
use vitals_wire::message::ClientCodec;
use vitals_wire::message::{Ack, ClientMessage, Facts, Hello, Refused, Samples, ServerMessage, Welcome};
use vitals_wire::sample::Sample;
use vitals_wire::section::{Section, System};
use vitals_wire::token::JoinToken;

use super::secrets;
use super::server::token_for;
use super::tls::Tls;
use super::wire::Wire;

/// How long a server may say nothing.
pub const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection to a server.
pub struct Peer {
    pub stream: Wire,
    /// By what the server is known; `None` over plain TCP.
    pub pin: Option<Pin>,
    /// Where it may get a token, if it has none of its own.
    server: Option<SocketAddr>,
    codec: ClientCodec,
    buffer: BytesMut,
}

impl Peer {
    /// Over what is there already, to a server at this address.
    pub fn over(stream: Wire, server: SocketAddr, pin: Option<Pin>) -> Self {
        Self { stream, pin, server: Some(server), codec: ClientCodec::new(), buffer: BytesMut::new() }
    }

    /// Connects over TLS, and says nothing.
    pub fn connect(server: SocketAddr) -> Self {
        Self::try_connect(server).unwrap()
    }

    /// The same where the server may have no room.
    pub fn try_connect(server: SocketAddr) -> io::Result<Self> {
        Tls::usual().connect(server)
    }

    /// Connects by TCP alone, and says nothing.
    pub fn raw(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        Self::over(Wire::Plain(stream), server, None)
    }

    /// Connects over TLS with no token but what its `Hello` says.
    pub fn stranger(server: SocketAddr) -> Self {
        Self { server: None, ..Self::connect(server) }
    }

    /// Connects and is welcome.
    pub fn welcome(server: SocketAddr, hello: Hello) -> (Self, Welcome) {
        let mut peer = Self::connect(server);
        let welcome = peer.introduce(hello);
        (peer, welcome)
    }

    /// Is welcome.
    pub fn introduce(&mut self, hello: Hello) -> Welcome {
        self.say(hello);
        match self.hear() {
            Some(ServerMessage::Welcome(welcome)) => welcome,
            other => panic!("not welcome: {other:?}"),
        }
    }

    /// Sends a message.
    pub fn say(&mut self, message: impl Into<ClientMessage>) {
        self.try_say(message).unwrap();
    }

    /// The same where the server may not want to hear it.
    pub fn try_say(&mut self, message: impl Into<ClientMessage>) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        let message = match (message.into(), self.server) {
            (ClientMessage::Hello(hello), Some(server)) => joining(server, hello).into(),
            (message, _) => message,
        };
        secrets::remember_said(&message);
        self.codec.encode(message, &mut bytes).unwrap();
        self.stream.write_all(&bytes)?;
        self.stream.flush()
    }

    /// The next message; `None` when the server ends the connection.
    pub fn try_hear(&mut self) -> io::Result<Option<ServerMessage>> {
        loop {
            if let Some(message) = self.codec.decode(&mut self.buffer).unwrap() {
                return Ok(Some(message));
            }
            let mut some = [0; 4096];
            match self.stream.read(&mut some) {
                Ok(0) => return Ok(None),
                Ok(n) => self.buffer.extend_from_slice(&some[..n]),
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The same where a server may be killed, and must not be silent.
    pub fn hear(&mut self) -> Option<ServerMessage> {
        match self.try_hear() {
            Ok(message) => message,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => None,
            Err(error) => panic!("the server says nothing: {error}"),
        }
    }

    /// Whether the server says nothing within the stream's read timeout.
    pub fn nothing_to_hear(&mut self) -> bool {
        let heard = self.try_hear();
        heard.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// Sends one sample and waits for what becomes of it.
    pub fn send(&mut self, batch: u64, sample: Sample) -> Ack {
        self.say(Samples { batch, backlog: false, samples: List::new(vec![sample]).unwrap() });
        match self.hear() {
            Some(ServerMessage::Ack(ack)) => ack,
            other => panic!("no ack: {other:?}"),
        }
    }

    /// What the server refuses with before it closes the connection.
    pub fn refusal(&mut self) -> Refused {
        match self.hear() {
            Some(ServerMessage::Refused(refused)) => {
                assert_eq!(self.hear(), None, "and then the connection ends");
                refused
            }
            other => panic!("not refused: {other:?}"),
        }
    }
}

/// With a token of the server at this address, where there is one and it has none.
pub fn joining(server: SocketAddr, hello: Hello) -> Hello {
    let made = || token_for(server).map(|text| text.parse::<JoinToken>().unwrap().said());
    Hello { token: hello.token.clone().or_else(made), ..hello }
}

/// A plain introduction.
pub fn hello(id: u8, name: &str) -> Hello {
    Hello {
        protocol: 1,
        client_version: Text::cut("0.0.0-test"),
        host: HostId([id; 16]),
        run: RunId([id; 16]),
        secret: secret(id),
        token: None,
        name: Text::cut(name),
        labels: List::empty(),
        facts: Facts::default(),
        interval_ms: 5_000,
        shortest_interval_ms: 1_000,
        clock_ms: 0,
    }
}

/// A secret of this number that looks like any other, so that it can be looked for.
pub fn secret(number: u8) -> Secret {
    let bytes = digest(&SHA256, &[b"a secret of the tests, number".as_slice(), &[number]].concat());
    Secret(bytes.as_ref().try_into().unwrap())
}

/// A small sample.
pub fn sample(time_ms: i64, uptime: u64) -> Sample {
    let system = Section::System(System { n_cpus: 2, uptime, ..System::default() });
    Sample { time_ms, sections: List::new(vec![system]).unwrap() }
}

/// Now in ms since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}
