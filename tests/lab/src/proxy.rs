//! A wire that can be cut: a TCP proxy in front of a real server.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use anyhow::Result;

use crate::listen::Listener;

/// The proxy.
pub struct Proxy {
    listener: Listener,
    wire: Arc<Wire>,
}

/// What is taken and not passed on.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Held {
    #[default]
    Nothing,
    Answers,
    Everything,
}

#[derive(Default)]
struct Wire {
    held: Mutex<Held>,
    released: Condvar,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Starts one in front of this address.
    pub fn start(target: SocketAddr) -> Result<Proxy> {
        let wire = Arc::new(Wire::default());
        let listener = Listener::start({
            let wire = Arc::clone(&wire);
            move |client| {
                // A target that is down shows as a connection that closes at once.
                let Ok(server) = TcpStream::connect(target) else {
                    return;
                };
                // Without a second handle nothing can be passed; the client sees the connection close.
                let _ = wire.join(client, server);
            }
        })?;
        Ok(Proxy { listener, wire })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Refuses new connections, or takes them again. Those that are open stay.
    pub fn refuse(&self, refuse: bool) {
        self.listener.set_down(refuse);
    }

    /// Cuts every open connection.
    pub fn drop_connections(&self) {
        for stream in self.wire.open.lock().unwrap().drain(..) {
            // One that its peer has closed already is as good.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Takes connections and bytes but passes nothing on, or passes everything on again.
    pub fn stall(&self, stall: bool) {
        self.wire.hold(if stall { Held::Everything } else { Held::Nothing });
    }

    /// Passes on what is asked, and keeps the answers, until [`Proxy::stall`] says otherwise.
    pub fn keep_answers(&self) {
        self.wire.hold(Held::Answers);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stall(false);
        self.drop_connections();
    }
}

impl Wire {
    fn hold(&self, held: Held) {
        *self.held.lock().unwrap() = held;
        self.released.notify_all();
    }

    fn join(self: &Arc<Wire>, client: TcpStream, server: TcpStream) -> std::io::Result<()> {
        let (client_out, server_out) = (client.try_clone()?, server.try_clone()?);
        self.open.lock().unwrap().extend([client.try_clone()?, server.try_clone()?]);
        let there = Arc::clone(self);
        thread::spawn(move || there.pass(client, server_out, &[Held::Everything]));
        self.pass(server, client_out, &[Held::Everything, Held::Answers]);
        Ok(())
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream, held_by: &[Held]) {
        let mut buffer = [0; 16384];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            let held = self.held.lock().unwrap();
            drop(self.released.wait_while(held, |held| held_by.contains(held)).unwrap());
            if to.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        // The other side may have closed first.
        let _ = to.shutdown(Shutdown::Write);
    }
}
