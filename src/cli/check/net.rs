//! Names, addresses, and the way to ports.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::board::Chain;
use crate::system::reach::{self, Tried};
use crate::types::address::Address;
use crate::types::failure::{Failure, Kind};

/// A way that takes longer than this is none.
const WITHIN: Duration = Duration::from_secs(4);

/// A master: its name, its port for keys and returns, its port for publishing.
pub fn master(chain: &mut Chain, master: &str, [ret, publish]: [u16; 2]) -> Option<()> {
    let address = Address::of_master(master, ret);
    let addresses = name(chain, &address, Kind::KeyNotSeen)?;
    port(chain, &address, &addresses, Kind::KeyNotSeen);
    let publish: Vec<SocketAddr> = addresses.iter().map(|address| SocketAddr::new(address.ip(), publish)).collect();
    port(chain, &address, &publish, Kind::MinionNotConnected);
    Some(())
}

/// The addresses of a name.
pub fn name(chain: &mut Chain, address: &Address, kind: Kind) -> Option<Vec<SocketAddr>> {
    let host = &address.host;
    if host.parse::<IpAddr>().is_ok() {
        let found = reach::addresses(host, address.port).map_err(|error| unknown(host, kind, &error));
        return chain.found(found, |_| format!("{host} is an address"));
    }
    let found = reach::addresses(host, address.port).map_err(|error| unknown(host, kind, &error));
    let found =
        found.and_then(|found| if found.is_empty() { Err(unknown(host, kind, &io::Error::other("no address"))) } else { Ok(found) });
    chain.found(found, |found| format!("{host} is {}", listed(found)))
}

fn unknown(host: &str, kind: Kind, error: &io::Error) -> Failure {
    Failure::new(kind, format!("the name {host} does not resolve: {}", plainly(error)))
        .hint("Check /etc/resolv.conf and the name. This program reads /etc/hosts and asks those servers; programs that ask through nsswitch.conf, as `getent` does, may know more names.")
}

/// Those of version 4 first, each kind by its name.
fn listed(addresses: &[SocketAddr]) -> String {
    let of = |kind: &str, fits: fn(&IpAddr) -> bool| {
        let all: Vec<String> = addresses.iter().map(SocketAddr::ip).filter(fits).map(|ip| ip.to_string()).collect();
        if all.is_empty() { format!("no {kind}") } else { format!("{kind} {}", all.join(", ")) }
    };
    format!("{}; {}", of("IPv4", IpAddr::is_ipv4), of("IPv6", IpAddr::is_ipv6))
}

/// The way to a port: one address that answers is enough, and the others are told. `None` if none does.
pub fn port(chain: &mut Chain, of: &Address, addresses: &[SocketAddr], kind: Kind) -> Option<()> {
    let verdict = verdict(of, &reach::connect(addresses, WITHIN), kind);
    chain.found(verdict, String::clone).map(|_| ())
}

fn verdict(of: &Address, tried: &[Tried], kind: Kind) -> Result<String, Failure> {
    let results: Vec<String> = tried
        .iter()
        .map(|Tried { to, from }| match from {
            Ok(from) => format!("{to} answers (from {from})"),
            Err(error) => format!("{to} does not: {}", plainly(error)),
        })
        .collect();
    if tried.iter().any(|one| one.from.is_ok()) {
        return Ok(results.join("; "));
    }
    let failure = Failure::new(kind, format!("no connection to {}: {}", of.host, results.join("; ")));
    let hint = tried.iter().find_map(|one| one.from.as_ref().err()).map(reach::advice);
    Err(match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    })
}

/// Without the number of the error, and without what the sentence says already.
fn plainly(error: &io::Error) -> String {
    let text = error.to_string().to_lowercase();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.strip_prefix("failed to lookup address information: ").unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_listed() {
        let of = |all: &[&str]| listed(&all.iter().map(|one| one.parse().unwrap()).collect::<Vec<_>>());
        assert_eq!(of(&["[2001:db8::1]:1", "192.0.2.1:1", "192.0.2.2:1"]), "IPv4 192.0.2.1, 192.0.2.2; IPv6 2001:db8::1");
        assert_eq!(of(&["192.0.2.1:1"]), "IPv4 192.0.2.1; no IPv6");
    }

    #[test]
    fn one_address_that_answers_is_enough() {
        let of = Address { host: "salt".into(), port: 4506 };
        let refused = || Tried { to: "[2001:db8::1]:4506".parse().unwrap(), from: Err(io::Error::from_raw_os_error(111)) };
        let fine = Tried { to: "192.0.2.1:4506".parse().unwrap(), from: Ok("192.0.2.9".parse().unwrap()) };
        let failure = verdict(&of, &[refused()], Kind::KeyNotSeen).unwrap_err();
        assert_eq!(failure.message, "no connection to salt: [2001:db8::1]:4506 does not: connection refused");
        assert!(failure.hint.unwrap().contains("listens"));
        let results = verdict(&of, &[refused(), fine], Kind::KeyNotSeen).unwrap();
        assert_eq!(results, "[2001:db8::1]:4506 does not: connection refused; 192.0.2.1:4506 answers (from 192.0.2.9)");
    }
}
