//! Hosts and ports, as URLs and the minion's `master` name them.

/// Whom to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A name or an address, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl Address {
    /// The address of a master: a host, or a host with a port of its own, `host:port` or `[v6]:port` (`salt/minion.py`, `prep_ip_port`).
    pub fn of_master(text: &str, port: u16) -> Address {
        let own = text.rsplit_once(':').filter(|(host, _)| !host.contains(':') || (host.starts_with('[') && host.ends_with(']')));
        let own = own.and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = own.unwrap_or((text, port));
        Address { host: bare(host).to_owned(), port }
    }
}

fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masters() {
        let of = |host: &str, port| Address { host: host.into(), port };
        for (text, expected) in [
            ("salt", of("salt", 4506)),
            ("salt:14506", of("salt", 14506)),
            ("192.0.2.1", of("192.0.2.1", 4506)),
            ("2001:db8::1", of("2001:db8::1", 4506)),
            ("[2001:db8::1]", of("2001:db8::1", 4506)),
            ("[2001:db8::1]:99", of("2001:db8::1", 99)),
        ] {
            assert_eq!(Address::of_master(text, 4506), expected, "{text}");
        }
    }
}
