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

#[derive(Default)]
struct Wire {
    stalled: Mutex<bool>,
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
        *self.wire.stalled.lock().unwrap() = stall;
        self.wire.released.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stall(false);
        self.drop_connections();
    }
}

impl Wire {
    fn join(self: &Arc<Wire>, client: TcpStream, server: TcpStream) -> std::io::Result<()> {
        let (client_out, server_out) = (client.try_clone()?, server.try_clone()?);
        self.open.lock().unwrap().extend([client.try_clone()?, server.try_clone()?]);
        let there = Arc::clone(self);
        thread::spawn(move || there.pass(client, server_out));
        self.pass(server, client_out);
        Ok(())
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 16384];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            let stalled = self.stalled.lock().unwrap();
            drop(self.released.wait_while(stalled, |stalled| *stalled).unwrap());
            if to.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        // The other side may have closed first.
        let _ = to.shutdown(Shutdown::Write);
    }
}
