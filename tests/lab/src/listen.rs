//! Ports where somebody listens, and may go away and come back, and ports where nobody does.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, setsockopt, socket, sockopt};

/// A loopback port at which connections are refused for as long as this lives. A listener that has been closed is no such
/// thing: its port goes to whoever asks next, and the tests beside this one ask all the time.
pub struct ClosedPort {
    address: SocketAddr,
    _bound: OwnedFd,
}

impl ClosedPort {
    /// A free port.
    pub fn pick() -> Result<ClosedPort> {
        ClosedPort::at(SockaddrIn::new(127, 0, 0, 1, 0))
    }

    /// This very port, which nobody else has or keeps.
    pub fn take(port: u16) -> Result<ClosedPort> {
        let bound = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        let address = SockaddrIn::new(127, 0, 0, 1, port);
        // Without SO_REUSEADDR, or another one that is kept in this way would be no hindrance.
        bind(bound.as_raw_fd(), &address).with_context(|| format!("cannot take {address}"))?;
        setsockopt(&bound, sockopt::ReuseAddr, &true)?;
        Ok(ClosedPort { address: SocketAddr::new(address.ip().into(), port), _bound: bound })
    }

    /// Keeps whoever asks for any port from getting this one; whoever asks for this very one gets it, as TcpListener sets
    /// SO_REUSEADDR too and nobody listens here.
    fn at(address: SockaddrIn) -> Result<ClosedPort> {
        let bound = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&bound, sockopt::ReuseAddr, &true)?;
        bind(bound.as_raw_fd(), &address).with_context(|| format!("cannot keep {address}"))?;
        let address = getsockname::<SockaddrIn>(bound.as_raw_fd())?;
        Ok(ClosedPort { address: SocketAddr::new(address.ip().into(), address.port()), _bound: bound })
    }

    /// Where nobody listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Accepts connections on a loopback port and hands each to a thread of its own.
pub struct Listener {
    port: ClosedPort,
    gate: Arc<Gate>,
    acceptor: Option<JoinHandle<()>>,
}

/// What is wanted of the accepting thread, and whether it is so yet.
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    wanted: Wanted,
    open: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Open,
    Closed,
    Ended,
}

impl Listener {
    /// Listens on a free port.
    pub fn start(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> Result<Listener> {
        // Kept while it is down as well.
        let port = ClosedPort::pick()?;
        let address = port.address();
        let socket = TcpListener::bind(address).context("cannot listen on loopback")?;
        let gate = Arc::new(Gate { state: Mutex::new(State { wanted: Wanted::Open, open: true }), changed: Condvar::new() });
        let acceptor = thread::spawn({
            let gate = Arc::clone(&gate);
            let handle = Arc::new(handle);
            move || accept(&gate, socket, address, &handle)
        });
        Ok(Listener { port, gate, acceptor: Some(acceptor) })
    }

    /// Where it listens, also while it is down.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Down: connections are refused, as with a server that is not running. Returns when it is so.
    pub fn set_down(&self, down: bool) {
        self.want(if down { Wanted::Closed } else { Wanted::Open });
        let state = self.gate.state.lock().unwrap();
        let reached = self.gate.changed.wait_timeout_while(state, Duration::from_secs(10), |state| state.open == down);
        let (state, _) = reached.unwrap();
        assert_ne!(state.open, down, "cannot listen on {} again", self.address());
    }

    fn want(&self, wanted: Wanted) {
        self.gate.state.lock().unwrap().wanted = wanted;
        self.gate.changed.notify_all();
        // The thread sits in accept(), and only a connection gets it out of there. When it does not, none is needed.
        let _ = TcpStream::connect(self.address());
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.want(Wanted::Ended);
        if let Some(acceptor) = self.acceptor.take() {
            // It panics only when a port is lost for good, which set_down has reported by then.
            let _ = acceptor.join();
        }
    }
}

fn accept<H: Fn(TcpStream) + Send + Sync + 'static>(gate: &Gate, mut socket: TcpListener, address: SocketAddr, handle: &Arc<H>) {
    loop {
        let accepted = socket.accept();
        let wanted = gate.state.lock().unwrap().wanted;
        match (wanted, accepted) {
            (Wanted::Ended, _) => return,
            (Wanted::Open, Ok((stream, _))) => {
                let handle = Arc::clone(handle);
                thread::spawn(move || handle(stream));
            }
            (Wanted::Open, Err(_)) => {}
            (Wanted::Closed, _) => {
                drop(socket);
                let mut state = gate.state.lock().unwrap();
                state.open = false;
                gate.changed.notify_all();
                let mut state = gate.changed.wait_while(state, |state| state.wanted == Wanted::Closed).unwrap();
                if state.wanted == Wanted::Ended {
                    return;
                }
                socket = TcpListener::bind(address).expect("the port is still ours");
                state.open = true;
                gate.changed.notify_all();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_free_to_those_who_know_it() {
        let port = ClosedPort::pick().unwrap().address().port();
        let taken = ClosedPort::take(port).unwrap();
        assert!(TcpStream::connect(taken.address()).is_err(), "nobody listens there");
        assert!(ClosedPort::take(port).is_err(), "it cannot be taken twice");
        let listening = TcpListener::bind(taken.address()).unwrap();
        assert!(TcpStream::connect(taken.address()).is_ok());
        drop(listening);
        assert!(ClosedPort::take(port).is_err(), "it is kept");
    }
}
