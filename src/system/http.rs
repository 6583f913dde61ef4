//! HTTP over verified TLS, with everything limited: the time, the size of the answer, the redirects
//! (none). What went wrong is told apart here, since the words for it differ by library.

use std::error::Error as _;
use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::CertificateError;
use tracing::debug;
use ureq::config::{Config, ConfigBuilder};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::typestate::AgentScope;
use ureq::unversioned::transport::{Connector as _, DefaultConnector, TcpConnector};
use ureq::{Agent, Proxy, http};

use super::lookup::Lookup;
use super::pinned::PinnedTls;
use super::tls::provider;
use crate::types::pin::Pin;
use crate::types::secret::Secret;
use crate::types::time::http_date;
use crate::types::url::Url;
use crate::types::version::{PROGRAM, VERSION};

/// No answer that this program wants is larger.
const MOST_BODY: u64 = 8 * 1024 * 1024;
/// CherryPy drops an idle connection after 10 s; one that is older than this is not used again.
const MOST_IDLE: Duration = Duration::from_secs(8);

/// A client that keeps one connection open.
pub struct Client {
    agent: Agent,
}

/// One request.
pub struct Request<'a> {
    /// GET, POST ...
    pub method: &'static str,
    /// The whole URL.
    pub url: &'a Url,
    /// Header lines; their values are never logged.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body; it is never logged.
    pub body: &'a [u8],
    /// For everything from the name to the last byte.
    pub timeout: Duration,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
    /// How long the server asks to be left alone.
    pub retry_after: Option<Duration>,
    headers: http::HeaderMap,
}

impl Reply {
    /// A header's value, if it is there and plain text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpError {
    /// The name has no address (yet).
    Name(String),
    /// No connection.
    Connect(String),
    /// Nothing, or not all, came in time.
    TimedOut(Duration),
    /// The connection cannot be trusted.
    Tls(TlsError),
    /// The connection broke.
    Broken(String),
    /// What came is no HTTP, or more than anybody would say.
    InvalidResponse(String),
}

/// Why a TLS connection cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsError {
    /// Signed by a CA that is not ours. It may have the name of one that is, as when that was made anew.
    UnknownIssuer,
    /// The certificate's time is over.
    Expired,
    /// The certificate's time has not come, or the clock is behind.
    NotYetValid,
    /// The certificate is for other names.
    WrongName,
    /// It is a CA's own certificate, which no server may show.
    Authority,
    /// It has another public key than the one that is pinned.
    WrongKey,
    /// What answers there does not speak TLS.
    NotTls,
    /// Something else, in the library's words.
    Other(String),
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpError::Name(host) => write!(f, "the name {host} does not resolve"),
            HttpError::Connect(why) => write!(f, "no connection: {why}"),
            HttpError::TimedOut(span) => write!(f, "no complete answer within {:.0} s", span.as_secs_f64()),
            HttpError::Tls(tls_error) => write!(f, "{tls_error}"),
            HttpError::Broken(why) => write!(f, "the connection broke: {why}"),
            HttpError::InvalidResponse(why) => write!(f, "the answer cannot be read: {why}"),
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::UnknownIssuer => f.write_str("its certificate is signed by an unknown CA, or by another key of a known one"),
            TlsError::Expired => f.write_str("its certificate has expired, by this machine's clock"),
            TlsError::NotYetValid => f.write_str("its certificate is not valid yet, by this machine's clock"),
            TlsError::WrongName => f.write_str("its certificate is for another name"),
            TlsError::Authority => f.write_str("its certificate is a CA's (basicConstraints CA:TRUE), not a server's"),
            TlsError::WrongKey => f.write_str("its public key is not the one that the token pins"),
            TlsError::NotTls => f.write_str("it does not speak TLS"),
            TlsError::Other(why) => f.write_str(why),
        }
    }
}

/// Where a download goes: everything that comes is handed on in pieces.
pub type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> std::io::Result<()>;

impl Client {
    /// A client for public things: it trusts the system's CAs and goes through the proxy that the environment names
    /// (`https_proxy`, `no_proxy`), and follows redirects, as mirrors send them; what a request shows of us goes to no redirect.
    pub fn for_downloads() -> Client {
        // Without a store of CAs http:// still works, and https:// says why not.
        let roots = system_certificates().unwrap_or_default();
        let config = configured(roots).proxy(Proxy::try_from_env()).max_redirects(5).max_redirects_will_error(true).build();
        Client { agent: agent(config) }
    }

    /// Fetches what is there and hands it on piece by piece; returns the status and how long the server asks to be left alone. Only
    /// what comes with status 200 is handed on. `most` bytes at most.
    pub fn download(
        &self,
        url: &Url,
        authorization: Option<&Secret>,
        timeout: Duration,
        most: u64,
        sink: Sink,
    ) -> Result<(u16, Option<Duration>), HttpError> {
        let shown = authorization.map(|secret| ("Authorization", secret.expose()));
        let request = Request { method: "GET", url, headers: shown.as_slice(), body: b"", timeout };
        let fetched = self.try_download(&request, most, sink);
        debug!("GET {url}: {fetched:?}");
        fetched.map_err(|error| classify(&error, &request))
    }

    fn try_download(&self, request: &Request, most: u64, sink: Sink) -> Result<(u16, Option<Duration>), ureq::Error> {
        let mut get = self.agent.get(request.url.expose());
        for (name, value) in request.headers {
            get = get.header(*name, *value);
        }
        let mut response = get.config().timeout_global(Some(request.timeout)).build().call()?;
        let (status, retry_after) = (response.status().as_u16(), retry_after(response.headers()));
        if status == 200 {
            let mut body = response.body_mut().with_config().limit(most).reader();
            let mut piece = vec![0; 64 * 1024];
            loop {
                match body.read(&mut piece)? {
                    0 => break,
                    length => sink(&piece[..length])?,
                }
            }
        }
        Ok((status, retry_after))
    }

    /// A client that trusts the certificates in `ca` (PEM) only, or the system's if there is none.
    /// The error is a sentence.
    pub fn trusting(ca: Option<&str>) -> Result<Client, String> {
        let roots = match ca {
            Some(pem) => certificates(pem),
            None => system_certificates()?,
        };
        // Requests that carry credentials go straight to their peer unless somebody says otherwise.
        let config = configured(roots).proxy(None).max_redirects(0).max_redirects_will_error(false).build();
        Ok(Client { agent: agent(config) })
    }

    /// A client that trusts whoever has the key of this pin, and nobody else. The error is a sentence.
    pub fn pinned(pin: &Pin) -> Result<Client, String> {
        let config = configured(Vec::new()).proxy(None).max_redirects(0).max_redirects_will_error(false).build();
        let connector = TcpConnector::default().chain(PinnedTls::new(pin.clone())?);
        Ok(Client { agent: Agent::with_parts(config, connector, Lookup) })
    }

    /// Sends a request and reads the whole answer.
    pub fn send(&self, request: &Request) -> Result<Reply, HttpError> {
        let begun = Instant::now();
        let result = self.try_send(request).map_err(|error| classify(&error, request));
        let outcome = match &result {
            Ok(reply) => reply.status.to_string(),
            Err(error) => error.to_string(),
        };
        debug!("{} {}: {outcome} in {:.0} ms", request.method, request.url, begun.elapsed().as_secs_f64() * 1000.0);
        result
    }

    fn try_send(&self, request: &Request) -> Result<Reply, ureq::Error> {
        let mut builder = http::Request::builder().method(request.method).uri(request.url.expose());
        for (name, value) in request.headers {
            builder = builder.header(*name, *value);
        }
        let http = builder.body(request.body)?;
        let http = self.agent.configure_request(http).timeout_global(Some(request.timeout)).build();
        let mut response = self.agent.run(http)?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MOST_BODY).read_to_vec()?;
        let headers = std::mem::take(response.headers_mut());
        let retry_after = retry_after(&headers);
        Ok(Reply { status, body, retry_after, headers })
    }
}

/// What a server that cannot be trusted says the time is (the Date header). It is sent nothing but a path.
pub fn date_unverified(url: &Url, within: Duration) -> Option<String> {
    let blind = TlsConfig::builder().disable_verification(true).unversioned_rustls_crypto_provider(provider()).build();
    let config = Agent::config_builder().tls_config(blind).http_status_as_error(false).proxy(None).max_redirects(0);
    let agent = agent(config.max_redirects_will_error(false).timeout_global(Some(within)).build());
    let response =
        agent.get(format!("https://{}", url.place())).call().inspect_err(|error| debug!("asking {url} for the time: {error}")).ok()?;
    Some(response.headers().get("date")?.to_str().ok()?.to_owned())
}

fn agent(config: Config) -> Agent {
    Agent::with_parts(config, DefaultConnector::default(), Lookup)
}

fn configured(roots: Vec<Certificate<'static>>) -> ConfigBuilder<AgentScope> {
    let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(roots))).unversioned_rustls_crypto_provider(provider()).build();
    Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_idle_connections(1)
        .max_idle_connections_per_host(1)
        .max_idle_age(MOST_IDLE)
        .user_agent(format!("{PROGRAM}/{VERSION}"))
}

/// RFC 9110, 10.2.3: so many seconds, or a point in time. That one is by the server's clock: ours may be years away.
fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let wanted = text("retry-after")?;
    if let Ok(seconds) = wanted.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let ours = || SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|now| i64::try_from(now.as_secs()).ok());
    let span = http_date(wanted)? - text("date").and_then(http_date).or_else(ours)?;
    // What is over by now asks for nothing.
    u64::try_from(span).ok().map(Duration::from_secs)
}

fn certificates(pem: &str) -> Vec<Certificate<'static>> {
    parse_pem(pem.as_bytes())
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect()
}

fn system_certificates() -> Result<Vec<Certificate<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map_or_else(|| "no store of CA certificates was found".to_owned(), ToString::to_string);
        return Err(format!("{why}: install ca-certificates, or give the CA in the configuration"));
    }
    Ok(found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect())
}

fn classify(error: &ureq::Error, request: &Request) -> HttpError {
    match error {
        ureq::Error::HostNotFound => HttpError::Name(request.url.host().to_owned()),
        ureq::Error::Timeout(_) => HttpError::TimedOut(request.timeout),
        ureq::Error::Rustls(inner) => HttpError::Tls(tls_error(inner)),
        ureq::Error::Tls(why) => HttpError::Tls(TlsError::Other((*why).to_owned())),
        ureq::Error::ConnectionFailed => HttpError::Connect("refused".into()),
        ureq::Error::Io(inner) => io_error(inner, request.url.host()),
        ureq::Error::BodyExceedsLimit(most) => HttpError::InvalidResponse(format!("it is larger than {most} bytes")),
        ureq::Error::Protocol(_) | ureq::Error::Http(_) | ureq::Error::LargeResponseHeader(..) => {
            HttpError::InvalidResponse(error.to_string())
        }
        other => HttpError::Broken(other.to_string()),
    }
}

fn io_error(error: &std::io::Error, host: &str) -> HttpError {
    use std::io::ErrorKind;
    if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return HttpError::Tls(tls_error(inner));
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable => {
            HttpError::Connect(text)
        }
        // std reports a failed look-up without a kind of its own.
        _ if text.contains("failed to lookup address") => HttpError::Name(host.to_owned()),
        _ => HttpError::Broken(text),
    }
}

fn tls_error(error: &rustls::Error) -> TlsError {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => TlsError::UnknownIssuer,
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => TlsError::Expired,
        rustls::Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            TlsError::NotYetValid
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            TlsError::WrongName
        }
        rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => TlsError::WrongKey,
        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => TlsError::NotTls,
        rustls::Error::InvalidCertificate(CertificateError::Other(other))
            if other.0.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity) =>
        {
            TlsError::Authority
        }
        other => TlsError::Other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_left_before_cherrypy_drops_it() {
        let idle = configured(Vec::new()).build().max_idle_age();
        assert!(idle == MOST_IDLE && idle < Duration::from_secs(10), "{idle:?}");
    }

    #[test]
    fn a_server_may_ask_for_time_in_two_ways() {
        let asked = |lines: &[(&str, &str)]| {
            let line =
                |&(name, value): &(&str, &str)| (name.parse::<http::HeaderName>().unwrap(), value.parse::<http::HeaderValue>().unwrap());
            retry_after(&lines.iter().map(line).collect()).map(|span| span.as_secs())
        };
        let until = ("retry-after", "Mon, 23 Nov 2026 22:46:39 GMT");
        assert_eq!(asked(&[]), None);
        assert_eq!(asked(&[("retry-after", " 120 ")]), Some(120));
        assert_eq!(asked(&[until, ("date", "Mon, 23 Nov 2026 22:46:09 GMT")]), Some(30));
        assert_eq!(asked(&[until, ("date", "Mon, 23 Nov 2026 22:47:09 GMT")]), None);
        // By our own clock, whatever that is: a point in time that has passed for ever, and one that never comes.
        assert_eq!(asked(&[("retry-after", "Thu, 01 Jan 1970 00:00:01 GMT")]), None);
        assert!(asked(&[("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT")]).is_some_and(|span| span > 1_000_000_000));
        assert_eq!(asked(&[("retry-after", "soon")]), None);
    }
}
