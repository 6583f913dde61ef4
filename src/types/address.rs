//! Hosts and ports, as URLs and the minion's `master` name them.

use ureq::http::Uri;

/// Whom to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A name or an address, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl Address {
    /// The address in a URL.
    pub fn of_url(url: &str) -> Option<Address> {
        let uri: Uri = url.parse().ok()?;
        let port = uri.port_u16().or(match uri.scheme_str()? {
            "https" => Some(443),
            "http" => Some(80),
            _ => None,
        })?;
        Some(Address { host: bare(uri.host()?).to_owned(), port })
    }

    /// The address of a master: a host, or a host with a port of its own, `host:port` or `[v6]:port` (`salt/minion.py`, `prep_ip_port`).
    pub fn of_master(text: &str, port: u16) -> Address {
        let own = text.rsplit_once(':').filter(|(host, _)| !host.contains(':') || (host.starts_with('[') && host.ends_with(']')));
        let own = own.and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = own.unwrap_or((text, port));
        Address { host: bare(host).to_owned(), port }
    }
}

/// A URL for people to read: without a user's name and password in it, and without its query, which may be a signature.
pub fn without_secrets(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((before, after)) => {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            let host: String = after.chars().take_while(|&c| c.is_alphanumeric() || ".-:[]".contains(c)).collect();
            format!("{scheme}://***@{host}")
        }
        None => url.split(['?', '#']).next().unwrap_or_default().to_owned(),
    }
}

fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_url_holds_no_secret() {
        assert_eq!(without_secrets("https://salt:8000/x"), "https://salt:8000/x");
        assert_eq!(without_secrets("https://salt/x?sig=geheim#geheim"), "https://salt/x");
        for url in
            ["https://u:geheim@salt:8000/x", "https://u:geheim@h?x@salt:8000/x", "u:geheim/?@salt:8000", "https://u:geh?e#im@salt:8000"]
        {
            let shown = without_secrets(url);
            assert!(shown.ends_with("://***@salt:8000") && !shown.contains("geh"), "{shown}");
        }
    }

    #[test]
    fn urls_and_masters() {
        let of = |host: &str, port| Address { host: host.into(), port };
        assert_eq!(Address::of_url("https://salt.example.net:8000"), Some(of("salt.example.net", 8000)));
        assert_eq!(Address::of_url("https://[2001:db8::1]/salt"), Some(of("2001:db8::1", 443)));
        assert_eq!(Address::of_url("ftp://x"), None);
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
