//! Can a host be reached at all? Its name's addresses, and a TCP connection to each of them.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use super::lookup;

/// More addresses than these say nothing more.
const MOST: usize = 8;

/// What came of trying one address.
pub struct Tried {
    /// The address.
    pub to: SocketAddr,
    /// From which address of this machine it was reached, or why it was not.
    pub from: io::Result<IpAddr>,
}

/// The addresses of a host, by this machine's own resolver, in its order. How long that takes is the resolver's affair.
pub fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut found: Vec<SocketAddr> = Vec::new();
    for address in lookup::addresses(host, port)? {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found.truncate(MOST);
    Ok(found)
}

/// Connects to each of these at once, and hangs up.
pub fn connect(addresses: &[SocketAddr], within: Duration) -> Vec<Tried> {
    let one = |to: SocketAddr| Tried { to, from: TcpStream::connect_timeout(&to, within).and_then(|stream| Ok(stream.local_addr()?.ip())) };
    thread::scope(|scope| {
        let tries: Vec<_> = addresses.iter().map(|&to| scope.spawn(move || one(to))).collect();
        tries.into_iter().filter_map(|tried| tried.join().ok()).collect()
    })
}

/// What to look at if a connection failed like this.
pub fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::ConnectionRefused => {
            "Nothing listens there, or a firewall refuses: check that the service runs, and that the port is the right one."
        }
        ErrorKind::TimedOut | ErrorKind::WouldBlock => {
            "No answer: check security groups and firewalls on the way, and that the machine is up."
        }
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::AddrNotAvailable => {
            "This machine has no route there: see `ip route` and `ip -6 route`."
        }
        _ => "Check the address, the port and the route.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn what_listens_is_reached_and_what_does_not_says_why() {
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let tried = connect(&[open.local_addr().unwrap(), closed], Duration::from_secs(5));
        assert_eq!(tried[0].from.as_ref().unwrap(), &open.local_addr().unwrap().ip());
        let error = tried[1].from.as_ref().unwrap_err();
        assert!(tried[1].to == closed && advice(error).contains("listens"), "{error}");
    }

    #[test]
    fn an_address_is_its_own_name_and_some_names_have_none() {
        assert_eq!(addresses("127.0.0.1", 7).unwrap(), ["127.0.0.1:7".parse().unwrap()]);
        assert_eq!(addresses("::1", 7).unwrap(), ["[::1]:7".parse().unwrap()]);
        assert!(addresses("nobody.invalid", 7).is_err());
    }
}
