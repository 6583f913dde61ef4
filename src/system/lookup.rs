//! The addresses of a name, by this machine's own resolver.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;

use dns_lookup::{AddrFamily, AddrInfoHints, SockType, getaddrinfo};
use tracing::debug;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// All of them, in the resolver's order. How long that takes is the resolver's affair.
///
/// Where the question for IPv6 addresses is refused, musl fails the whole look-up, whatever was answered to the other one (its
/// `src/network/lookup_name.c`, `name_from_dns`), and so may glibc. There are name servers that refuse it: then IPv4 alone is asked for.
pub fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    match (host, port).to_socket_addrs() {
        Ok(found) => Ok(found.collect()),
        Err(error) => {
            let found = of_ipv4(host, port);
            if found.is_empty() {
                return Err(error);
            }
            debug!("{host} was found by asking for IPv4 addresses alone; for both: {error}");
            Ok(found)
        }
    }
}

fn of_ipv4(host: &str, port: u16) -> Vec<SocketAddr> {
    let hints = AddrInfoHints { address: AddrFamily::Inet.into(), socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
    let found = getaddrinfo(Some(host), None, Some(hints));
    found.into_iter().flatten().flatten().map(|info| SocketAddr::new(info.sockaddr.ip(), port)).collect()
}

/// The same for an HTTP client.
#[derive(Debug)]
pub struct Lookup;

impl Resolver for Lookup {
    fn resolve(&self, uri: &Uri, _: &ureq::config::Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let (tell, told) = mpsc::sync_channel(1);
        // A resolver knows no deadline; who is late talks to nobody.
        thread::spawn(move || tell.send(addresses(&host, port)));
        let found = told.recv_timeout(*timeout.after).map_err(|_| ureq::Error::Timeout(timeout.reason))??;
        let mut all = self.empty();
        // No more fit into it.
        found.into_iter().take(16).for_each(|address| all.push(address));
        if all.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(all) }
    }
}
