//! Stands between a client and a server, and keeps the answer to the first greeting from the client.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Longest piece of a client's handshake that holds no `Hello`: a ChangeCipherSpec.
const NOTHING: usize = 6;

/// See the module. After [`cut`](Self::cut) it only hands on.
pub struct Cutter {
    /// Where clients connect.
    pub address: SocketAddr,
    held: Arc<Mutex<Vec<TcpStream>>>,
    is_cut: Arc<AtomicBool>,
}

impl Cutter {
    /// In front of this server.
    pub fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (held, is_cut) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let cutter =
            Self { address: listener.local_addr().unwrap(), held: held.clone(), is_cut: is_cut.clone() };
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(server).unwrap();
                held.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                let has_said = Arc::new(AtomicBool::new(false));
                let (to_server, from_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn({
                    let has_said = has_said.clone();
                    // Its first piece is the ClientHello. What comes after the server's handshake holds the `Hello`.
                    let mut pieces = 0;
                    move || {
                        hand_on(from_client, to_server, |piece| {
                            pieces += 1;
                            has_said.fetch_or(pieces > 1 && piece > NOTHING, Ordering::SeqCst);
                            true
                        });
                    }
                });
                let is_cut = is_cut.clone();
                std::thread::spawn(move || {
                    hand_on(server, client, |_| {
                        !has_said.load(Ordering::SeqCst) || is_cut.load(Ordering::SeqCst)
                    });
                });
            }
        });
        cutter
    }

    /// Ends the connections that there are; those after them are left alone.
    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        for stream in self.held.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Copies until the end, but for pieces that are not let pass.
fn hand_on(mut from: TcpStream, mut to: TcpStream, mut passes: impl FnMut(usize) -> bool) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        // Before the server can have heard it.
        if passes(n) && to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
