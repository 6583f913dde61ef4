//! URLs that are asked for: read once, where the configuration or a peer gives them. Whoever has one need not look at its text again.

use core::net::Ipv6Addr;
use std::fmt;

use super::address::Address;
use super::secret::Secret;

/// What stands for a user's name and password.
const MASK: &str = "***@";

/// An `http://` or `https://` URL that can be requested as it stands.
///
/// `Display` and `Debug` are for people: a user's name and password, the query, which may be a signature, and the fragment are not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// All of it, the scheme in lower case.
    text: Secret,
    /// Where the host begins: after the scheme, and after who logs in.
    host: usize,
    /// Where the host and its port are over.
    path: usize,
    port: u16,
}

impl Url {
    /// Reads a URL; the error is a sentence that shows no secret.
    pub fn parse(text: &str) -> Result<Url, String> {
        Url::read(text).map_err(|why| complaint(text, why))
    }

    /// Reads one that has to be `https://`.
    pub fn encrypted(text: &str) -> Result<Url, String> {
        match Url::read(text) {
            Ok(url) if url.is_encrypted() => Ok(url),
            Ok(_) => Err(complaint(text, "is not encrypted: it has to be https://")),
            Err(NO_SCHEME) => Err(complaint(text, "does not begin with https://")),
            Err(why) => Err(complaint(text, why)),
        }
    }

    /// An `https://` URL of which this program itself knows the host and the path.
    pub fn known(host: &str, path: &str) -> Url {
        let start = "https://".len();
        Url { text: Secret::new(format!("https://{host}{path}")), host: start, path: start + host.len(), port: 443 }
    }

    fn read(text: &str) -> Result<Url, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or(NO_SCHEME)?;
        let (scheme, usual) = match scheme {
            _ if scheme.eq_ignore_ascii_case("https") => ("https", 443),
            _ if scheme.eq_ignore_ascii_case("http") => ("http", 80),
            _ => return Err(NO_SCHEME),
        };
        let text = Secret::new(format!("{scheme}://{rest}"));
        let whole = text.expose();
        if whole.contains(|c: char| c.is_whitespace() || c.is_control()) || whole.parse::<ureq::http::Uri>().is_err() {
            return Err("is no URL");
        }
        let start = whole.len() - rest.len();
        let path = start + rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let host = whole[start..path].rfind('@').map_or(start, |at| start + at + 1);
        let (name, port) = name_and_port(&whole[host..path]);
        if name.is_empty() {
            return Err("names no host");
        }
        // What the library makes of a port that is none is the usual one.
        let port = port.map_or(Some(usual), |port| port.parse().ok().filter(|&number| number > 0 && !port.starts_with('+')));
        let port = port.ok_or("has no port behind its last colon: that is a number from 1 to 65535")?;
        if name.strip_prefix('[').is_some_and(|rest| rest.trim_end_matches(']').parse::<Ipv6Addr>().is_err()) {
            return Err("has brackets around what is no IPv6 address");
        }
        Ok(Url { host, path, port, text })
    }

    /// All of it, for whoever asks for it or hands it on to somebody who does.
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    /// Is it `https://`?
    pub fn is_encrypted(&self) -> bool {
        self.expose().starts_with("https:")
    }

    /// The host: a name or an address, without brackets.
    pub fn host(&self) -> &str {
        let (name, _) = name_and_port(self.server());
        name.trim_start_matches('[').trim_end_matches(']')
    }

    /// Whom it leads to.
    pub fn address(&self) -> Address {
        Address { host: self.host().to_owned(), port: self.port }
    }

    /// The path, with its slash; empty where there is none.
    pub fn path(&self) -> &str {
        &self.expose()[self.path..self.end_of_path()]
    }

    /// Host and port, as they are written.
    pub fn server(&self) -> &str {
        &self.expose()[self.host..self.path]
    }

    /// Host, port and path, as they are written.
    pub fn place(&self) -> &str {
        &self.expose()[self.host..self.end_of_path()]
    }

    /// The value of a parameter of the query, as it is written.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.expose().split_once('?')?;
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Does it name somebody who logs in?
    pub fn has_login(&self) -> bool {
        self.host > self.scheme().len()
    }

    /// Is there more to it than a path?
    pub fn has_query(&self) -> bool {
        self.end_of_path() < self.expose().len()
    }

    /// Do both lead to the same server, and in the same way?
    pub fn same_server(&self, other: &Url) -> bool {
        self.scheme() == other.scheme() && self.port == other.port && self.host().eq_ignore_ascii_case(other.host())
    }

    /// The same without slashes at its end.
    pub fn base(&self) -> Url {
        Url { text: Secret::new(self.expose().trim_end_matches('/')), ..*self }
    }

    /// What lies below this one, which ends with its path.
    pub fn below(&self, path: &str) -> Url {
        Url { text: Secret::new(format!("{}/{path}", self.expose().trim_end_matches('/'))), ..*self }
    }

    /// The same with more at its end.
    pub fn with(&self, more: &str) -> Url {
        Url { text: Secret::new(format!("{}{more}", self.expose())), ..*self }
    }

    /// The top of the same server.
    pub fn top(&self) -> Url {
        Url { text: Secret::new(format!("{}/", &self.expose()[..self.path])), ..*self }
    }

    fn scheme(&self) -> &'static str {
        if self.is_encrypted() { "https://" } else { "http://" }
    }

    fn end_of_path(&self) -> usize {
        self.expose().find(['?', '#']).unwrap_or(self.expose().len())
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.scheme(), if self.has_login() { MASK } else { "" }, self.place())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const NO_SCHEME: &str = "does not begin with https:// or http://";

fn complaint(text: &str, why: &str) -> String {
    format!("{:?} {why}", masked(text))
}

/// Host and port of what stands between the slashes; a colon inside of brackets is the address's own.
fn name_and_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (authority, None),
    }
}

/// What may be shown of a text that should be a URL, and which nobody knows to be one: nothing before an `@`, wherever that stands.
pub fn masked(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((before, after)) => {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            let host: String = after.chars().take_while(|&c| c.is_alphanumeric() || ".-:[]".contains(c)).collect();
            format!("{scheme}://{MASK}{host}")
        }
        None => text.split(['?', '#']).next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap_or_else(|why| panic!("{why}"))
    }

    #[test]
    fn what_is_shown_of_what_may_be_none_holds_no_secret() {
        assert_eq!(masked("https://salt:8000/x"), "https://salt:8000/x");
        assert_eq!(masked("https://salt/x?sig=geheim#geheim"), "https://salt/x");
        for url in
            ["https://u:geheim@salt:8000/x", "https://u:geheim@h?x@salt:8000/x", "u:geheim/?@salt:8000", "https://u:geh?e#im@salt:8000"]
        {
            let shown = masked(url);
            assert!(shown.ends_with("://***@salt:8000") && !shown.contains("geh"), "{shown}");
        }
    }

    #[test]
    fn urls_are_taken_apart() {
        for (text, host, port, path) in [
            ("https://salt.example.net:8000", "salt.example.net", 8000, ""),
            ("https://salt", "salt", 443, ""),
            ("HTTPS://Salt/", "Salt", 443, "/"),
            ("hTTp://salt/a/b", "salt", 80, "/a/b"),
            ("https://[2001:db8::1]/salt", "2001:db8::1", 443, "/salt"),
            ("https://[2001:db8::1]:8000", "2001:db8::1", 8000, ""),
            ("http://u:p@[::1]:1/x", "::1", 1, "/x"),
            ("https://u:p%40ss@salt:8000/x", "salt", 8000, "/x"),
            ("https://u@salt?a=b@c:d/e", "salt", 443, ""),
            ("https://salt/x@y:z", "salt", 443, "/x@y:z"),
            ("https://salt#a/b", "salt", 443, ""),
            ("http://192.0.2.1:65535/o?temp_url_sig=a&b=c", "192.0.2.1", 65535, "/o"),
            ("https://mirror/$releasever/", "mirror", 443, "/$releasever/"),
        ] {
            let url = url(text);
            assert_eq!((url.address(), url.path()), (Address { host: host.into(), port }, path), "{text}");
            assert_eq!(url.is_encrypted(), text.to_lowercase().starts_with("https"));
            assert_eq!(url.expose().to_lowercase(), text.to_lowercase());
            assert_eq!(Url::parse(url.expose()).as_ref(), Ok(&url), "{text}");
        }
        assert_eq!(Url::known("salt.example.net", "/a/b"), url("https://salt.example.net/a/b"));
    }

    #[test]
    fn what_is_none_is_told_why() {
        for (text, why) in [
            ("", "does not begin"),
            ("salt:8000", "does not begin"),
            ("ftp://salt", "does not begin"),
            (" https://salt", "does not begin"),
            ("https://", "is no URL"),
            ("https:///x", "is no URL"),
            ("https://:8000", "names no host"),
            ("https://u@:8000/", "names no host"),
            ("https://salt:", "has no port"),
            ("https://salt:/x", "has no port"),
            ("https://salt:0", "has no port"),
            ("https://salt:65536", "has no port"),
            ("https://salt:+80", "has no port"),
            ("https://salt:80a/", "has no port"),
            ("https://2001:db8::1/", "is no URL"),
            ("https://[2001:db8::1", "is no URL"),
            ("https://[salt]:8000", "brackets"),
            ("https://[fe80::1%25eth0]/", ""),
            ("https://salt/a b", "is no URL"),
            ("https://salt /", "is no URL"),
            ("https://salt/a\u{a0}b", "is no URL"),
            ("https://salt/\n", "is no URL"),
            ("https://u:geheim/x@salt:8000", "has no port"),
            ("https://u:geh?eim@salt:8000", "has no port"),
        ] {
            let complaint = Url::parse(text).map(|url| url.expose().to_owned()).unwrap_err();
            assert!(complaint.starts_with('"') && complaint.contains(why) && !complaint.contains("geh"), "{text:?}: {complaint}");
        }
        assert_eq!(Url::encrypted("http://u:geheim@salt").unwrap_err(), "\"http://***@salt\" is not encrypted: it has to be https://");
        assert_eq!(Url::encrypted("ftp://salt").unwrap_err(), "\"ftp://salt\" does not begin with https://");
        assert!(Url::encrypted("HTTPS://salt").is_ok());
    }

    #[test]
    fn people_see_no_secret_of_it() {
        let signed = url("https://u:geheim@h:1/a/b?Signature=geheim&Timestamp=t#geheim");
        assert_eq!(format!("{signed} {signed:?} {}", signed.place()), "https://***@h:1/a/b https://***@h:1/a/b h:1/a/b");
        assert_eq!((signed.parameter("Timestamp"), signed.parameter("sig")), (Some("t#geheim"), None));
        assert!(signed.has_login() && signed.has_query());
        assert!(!url("https://h/a@b").has_login() && !url("https://h/a@b").has_query());
    }

    #[test]
    fn what_is_made_of_one_is_one() {
        let base = url("https://[::1]:8000/salt//").base();
        assert_eq!((base.expose(), base.path()), ("https://[::1]:8000/salt", "/salt"));
        assert_eq!(url("https://h/").base().below("login"), url("https://h/login"));
        assert_eq!(url("https://h").below(""), url("https://h/"));
        assert_eq!(url("https://h/repomd.xml").with(".asc"), url("https://h/repomd.xml.asc"));
        assert_eq!(url("https://u:p@h:1/a/b?c").top(), url("https://u:p@h:1/"));
    }

    #[test]
    fn a_server_is_the_same_however_it_is_written() {
        let mirror = url("https://mirror.example/salt");
        for (text, same) in [
            ("https://u:p@MIRROR.example:443/key?x", true),
            ("http://mirror.example/", false),
            ("https://mirror.example:8443/", false),
            ("https://mirror.example.net/", false),
            ("https://mirror.example@evil.example/", false),
        ] {
            assert_eq!(mirror.same_server(&url(text)), same, "{text}");
        }
    }
}
