//! A connection of a client made by hand: TLS, or TCP with nothing over it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};

/// What a client made by hand writes to and reads from.
pub enum Wire {
    /// With TLS.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    /// Without.
    Plain(TcpStream),
}

impl Wire {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Tls(tls) => &tls.sock,
            Self::Plain(plain) => plain,
        }
    }

    /// The TLS of it, which must be there.
    pub fn tls(&self) -> &ClientConnection {
        match self {
            Self::Tls(tls) => &tls.conn,
            Self::Plain(_) => panic!("this is plain TCP"),
        }
    }

    /// How long a reading may take.
    pub fn set_read_timeout(&self, most: Duration) {
        self.socket().set_read_timeout(Some(most)).unwrap();
    }

    /// This end of it.
    pub fn local_addr(&self) -> SocketAddr {
        self.socket().local_addr().unwrap()
    }

    /// Says that nothing more is said, and still hears.
    pub fn end(&mut self) {
        if let Self::Tls(tls) = self {
            tls.conn.send_close_notify();
            tls.flush().unwrap();
        }
        self.socket().shutdown(Shutdown::Write).unwrap();
    }
}

/// What the server says is heard also where it takes nothing more, which rustls's own stream would find out first.
fn read(tls: &mut StreamOwned<ClientConnection, TcpStream>, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match tls.conn.reader().read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
        tls.conn.read_tls(&mut tls.sock)?;
        tls.conn.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    }
}

impl Read for Wire {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tls(tls) => read(tls, bytes),
            Self::Plain(plain) => plain.read(bytes),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tls(tls) => tls.write(bytes),
            Self::Plain(plain) => plain.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(tls) => tls.flush(),
            Self::Plain(plain) => plain.flush(),
        }
    }
}
