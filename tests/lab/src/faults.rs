//! A server that goes wrong as it is told, at the requests that it is told of: the faults of the network, and of whatever
//! stands between a client and the server that it means. In front of real Salt it is a proxy; in front of a stand-in it makes
//! that one unreliable.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustls::ServerConfig;

use crate::http::{Answer, At, Front, Request, Server, Then};
use crate::peer::{Certificate, Scripted};
use crate::tls::Authority;

/// With so much time left half of it is a second and more, also if the client has used up a second of it before it counts.
const ENOUGH_FOR_A_PAUSE: Duration = Duration::from_secs(4);

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server dies: the connection ends without an answer, and further ones are refused.
    Refused,
    /// Connections are reset during the TLS handshake.
    HandshakeReset,
    /// Connections are taken, and nothing is ever said.
    HandshakeStalls,
    /// What answers speaks no TLS.
    HandshakeNoise,
    /// The certificate is of a CA that nobody trusts.
    OtherCertificate,
    /// The real answer breaks off.
    Cut(At, Then),
    /// Bytes that are no HTTP.
    Garbage,
    /// This status, with so many seconds as Retry-After.
    Status(u16, Option<u64>),
    /// A page that says back all that it was told, with status 502.
    Echo,
    /// A page where JSON belongs, with status 200.
    Page,
    /// Half of the real answer's body, as if that were all of it.
    HalfABody,
    /// A body of 100 MB.
    HugeBody,
    /// A redirect to another host.
    Redirect,
    /// The real answer with a second Content-Length, which contradicts the first.
    TwoLengths,
    /// The real answer with 400 kB of headers.
    HugeHeaders,
}

impl Fault {
    /// The table's rows.
    pub const ALL: [Fault; 32] = [
        Fault::Refused,
        Fault::HandshakeReset,
        Fault::HandshakeStalls,
        Fault::HandshakeNoise,
        Fault::OtherCertificate,
        Fault::Cut(At::Byte(0), Then::Reset),
        Fault::Cut(At::Byte(30), Then::Reset),
        Fault::Cut(At::HalfOfTheBody, Then::Reset),
        Fault::Cut(At::Byte(0), Then::Stall),
        Fault::Cut(At::HalfOfTheBody, Then::Stall),
        Fault::Cut(At::Byte(0), Then::Drip(Duration::from_millis(200))),
        Fault::Cut(At::Byte(0), Then::Close),
        Fault::Cut(At::Body, Then::Close),
        Fault::Cut(At::HalfOfTheBody, Then::Close),
        Fault::Garbage,
        Fault::Status(500, None),
        Fault::Status(500, Some(1)),
        Fault::Status(502, None),
        Fault::Status(502, Some(1)),
        Fault::Status(503, None),
        Fault::Status(503, Some(1)),
        Fault::Status(503, Some(3600)),
        Fault::Status(503, Some(u64::MAX)),
        Fault::Status(429, None),
        Fault::Status(429, Some(1)),
        Fault::Echo,
        Fault::Page,
        Fault::HalfABody,
        Fault::HugeBody,
        Fault::Redirect,
        Fault::TwoLengths,
        Fault::HugeHeaders,
    ];

    /// Does the request reach the real server, so that only its answer is lost?
    pub fn comes_through(self) -> bool {
        matches!(self, Fault::Cut(..) | Fault::HalfABody | Fault::TwoLengths | Fault::HugeHeaders)
    }

    /// Does it come before there is a request?
    pub fn is_of_the_connection(self) -> bool {
        matches!(self, Fault::Refused | Fault::HandshakeReset | Fault::HandshakeStalls | Fault::HandshakeNoise | Fault::OtherCertificate)
    }

    /// Does the client see it only when its own time is up?
    pub fn keeps_waiting(self) -> bool {
        matches!(self, Fault::HandshakeStalls | Fault::Cut(_, Then::Stall | Then::Drip(_)))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Cut(at, then) => {
                let how = match then {
                    Then::Reset => "reset",
                    Then::Close => "closed",
                    Then::Stall => "stalls",
                    Then::Drip(_) => "drips",
                };
                match at {
                    At::Byte(at) => write!(f, "{how}_at_byte_{at}"),
                    At::Body => write!(f, "{how}_after_the_headers"),
                    At::HalfOfTheBody => write!(f, "{how}_in_the_body"),
                }
            }
            Fault::Status(status, None) => write!(f, "status_{status}"),
            Fault::Status(status, Some(u64::MAX)) => write!(f, "status_{status}_retry_after_2^64-1"),
            Fault::Status(status, Some(span)) => write!(f, "status_{status}_retry_after_{span}"),
            other => {
                for (at, letter) in format!("{other:?}").char_indices() {
                    write!(f, "{}{}", if at > 0 && letter.is_uppercase() { "_" } else { "" }, letter.to_lowercase())?;
                }
                Ok(())
            }
        }
    }
}

/// How long a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasts {
    /// To the end.
    ForEver,
    /// So many requests or connections; a server that refuses connections is down until [`Faulty::come_back`].
    Times(usize),
}

/// The server.
pub struct Faulty {
    server: Arc<Server>,
    state: Arc<State>,
}

struct State {
    good: Arc<ServerConfig>,
    other: Arc<ServerConfig>,
    /// Where a redirect leads: it shows a certificate that the client trusts, so that only its own caution holds it back.
    lure: Scripted,
    server: OnceLock<Weak<Server>>,
    play: Mutex<Option<Play>>,
}

/// A fault that is being played.
struct Play {
    fault: Fault,
    at: Box<dyn Fn(&Request) -> bool + Send>,
    left: Option<usize>,
    /// How often it was played.
    played: usize,
    /// Connections meet it already.
    armed: bool,
    seen: Vec<Instant>,
}

impl Faulty {
    /// Starts one with a certificate of this authority, where nothing goes wrong yet.
    pub fn start(authority: &Authority, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Result<Faulty> {
        let shown = |certificate: Certificate| certificate.shown(authority).map(|tls| tls.expect("neither is plain"));
        let state = Arc::new(State {
            good: shown(Certificate::Good)?,
            other: shown(Certificate::OtherAuthority)?,
            lure: Scripted::start(authority, Certificate::Good, |_| Answer::text(200, "text/plain", "thank you"))?,
            server: OnceLock::new(),
            play: Mutex::default(),
        });
        let (front, spoiled) = (Arc::clone(&state), Arc::clone(&state));
        let server = Arc::new(Server::behind(move || front.front(), move |request| spoiled.answer(request, &answer))?);
        state.server.get_or_init(|| Arc::downgrade(&server));
        Ok(Faulty { server, state })
    }

    /// Plays a fault at the requests that fit. One of the connection comes with the first of them, which is not answered; or
    /// `at_once`.
    pub fn play(&self, fault: Fault, lasts: Lasts, at_once: bool, at: impl Fn(&Request) -> bool + Send + 'static) {
        let left = match lasts {
            Lasts::ForEver => None,
            Lasts::Times(times) => Some(times),
        };
        let armed = at_once && fault.is_of_the_connection();
        *self.state.play.lock().unwrap() = Some(Play { fault, at: Box::new(at), left, played: 0, armed, seen: Vec::new() });
        if armed && fault == Fault::Refused {
            self.server.set_down(true);
        }
    }

    /// A server that refused connections takes them again.
    pub fn come_back(&self) {
        self.server.set_down(false);
    }

    /// Nothing goes wrong any more.
    pub fn calm(&self) {
        self.state.play.lock().unwrap().take();
        self.come_back();
    }

    /// How often the fault was met, and its requests seen after it had gone. Connections that are refused nobody sees.
    pub fn seen(&self) -> usize {
        self.state.play.lock().unwrap().as_ref().map_or(0, |play| play.seen.len())
    }

    /// Was the span kept to that a Retry-After named, by a client whose time was up at `end`? All of them are of a second or more;
    /// where there is not so much time, half of what is left is waited. So those pauses count that began while half of it was a second
    /// and more, whatever this machine `stalled` meanwhile.
    pub fn is_left_alone(&self, end: Instant, stalled: Duration) -> bool {
        let play = self.state.play.lock().unwrap();
        let enough = ENOUGH_FOR_A_PAUSE + stalled;
        let kept = |two: &[Instant]| two[1] - two[0] >= Duration::from_secs(1) || end.saturating_duration_since(two[0]) < enough;
        play.as_ref().is_none_or(|play| {
            // The request after the last that was spoiled is none too early; those after it nobody has held back.
            !matches!(play.fault, Fault::Status(_, Some(_))) || play.seen.windows(2).take(play.played).all(kept)
        })
    }

    /// What came to where redirects lead.
    pub fn lured(&self) -> Vec<Request> {
        self.state.lure.requests()
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }
}

impl State {
    fn front(&self) -> Front {
        let mut play = self.play.lock().unwrap();
        match play.as_mut().filter(|play| play.armed).and_then(Play::takes_its_turn) {
            None | Some(Fault::Refused) => Front::Tls(Arc::clone(&self.good)),
            Some(Fault::OtherCertificate) => Front::Tls(Arc::clone(&self.other)),
            Some(Fault::HandshakeReset) => Front::Reset,
            Some(Fault::HandshakeStalls) => Front::Silence,
            Some(_) => Front::Noise(b"220 mail.example ESMTP, and 8 bit: \xff\xfe\x00\r\n".to_vec()),
        }
    }

    fn answer(&self, request: &Request, honest: &dyn Fn(&Request) -> Answer) -> Answer {
        let mut play = self.play.lock().unwrap();
        let fits = play.as_mut().filter(|play| (play.at)(request));
        let Some(play_here) = fits else {
            drop(play);
            return honest(request);
        };
        if play_here.fault.is_of_the_connection() {
            if play_here.armed {
                drop(play);
                return honest(request);
            }
            play_here.armed = true;
            play_here.seen.push(Instant::now());
            let refused = play_here.fault == Fault::Refused;
            drop(play);
            if let Some(server) = self.server.get().and_then(Weak::upgrade).filter(|_| refused) {
                server.set_down(true);
            }
            return Answer::Raw(Vec::new());
        }
        let fault = play_here.takes_its_turn();
        drop(play);
        fault.map_or_else(|| honest(request), |fault| self.spoiled(fault, request, || honest(request)))
    }

    fn spoiled(&self, fault: Fault, request: &Request, honest: impl Fn() -> Answer) -> Answer {
        let with = |more: Vec<(String, String)>| match honest() {
            Answer::Reply { status, headers, body } => Answer::Reply { status, headers: [headers, more].concat(), body },
            other => other,
        };
        match fault {
            Fault::Cut(at, then) => Answer::Cut { answer: Box::new(honest()), at, then },
            Fault::Garbage => Answer::Raw(b"\x00\x01\x02 this is no HTTP \xff\xfe\r\n\r\n".repeat(20)),
            Fault::Status(status, span) => {
                let Answer::Reply { status, mut headers, body } = Answer::cherrypy_error(status, "Made by the test's proxy.") else {
                    unreachable!("a page is a reply");
                };
                headers.extend(span.map(|span| ("Retry-After".to_owned(), span.to_string())));
                Answer::Reply { status, headers, body }
            }
            Fault::Echo => {
                let headers = request.headers.iter().map(|(name, value)| format!("{name}: {value}, "));
                let told = headers.collect::<String>() + &String::from_utf8_lossy(&request.body);
                Answer::cherrypy_error(502, &told.replace('"', "&quot;"))
            }
            Fault::Page => Answer::text(200, "text/html", "<!DOCTYPE html>\n<html><body><p>We will be back soon.</p></body></html>"),
            Fault::HalfABody => match honest() {
                Answer::Reply { status, headers, mut body } => {
                    body.truncate(body.len() / 2);
                    Answer::Reply { status, headers, body }
                }
                other => other,
            },
            Fault::HugeBody => Answer::Flood(100_000_000),
            Fault::Redirect => {
                let to = format!("https://localhost:{}/elsewhere", self.lure.address().port());
                Answer::Reply { status: 307, headers: vec![("Location".to_owned(), to)], body: Vec::new() }
            }
            Fault::TwoLengths => with(vec![("Content-Length".to_owned(), "7".to_owned())]),
            Fault::HugeHeaders => with((0..100).map(|n| (format!("X-More-{n}"), "x".repeat(4000))).collect()),
            Fault::Refused | Fault::HandshakeReset | Fault::HandshakeStalls | Fault::HandshakeNoise | Fault::OtherCertificate => {
                unreachable!("{fault} comes before there is a request")
            }
        }
    }
}

impl Play {
    /// The fault, unless it has gone away.
    fn takes_its_turn(&mut self) -> Option<Fault> {
        self.seen.push(Instant::now());
        match &mut self.left {
            Some(0) => return None,
            Some(left) => *left -= 1,
            None => {}
        }
        self.played += 1;
        Some(self.fault)
    }
}

/// How many tries fit into so many seconds, as the product spaces them (`src/system/retry.rs`).
pub fn most_tries(fault: Fault, seconds: f64) -> usize {
    // Near the end the pauses are halved, down to half a second: so many more.
    let halved = 4;
    if fault.keeps_waiting() {
        // Each try takes all the time there is, and the answer may come to its end only then.
        return 2;
    }
    match fault {
        Fault::Status(_, Some(span)) => 2 + halved + (seconds / span as f64) as usize,
        _ => 1 + likely_pauses(seconds) + halved,
    }
}

/// So many pauses fit into the time with a probability of less than one in a million. Each lies anywhere between nothing and its
/// cap; for n of them the probability is at most time^n / (n! * the product of their caps).
fn likely_pauses(seconds: f64) -> usize {
    let caps = [0.5, 1.0, 2.0, 4.0, 8.0].into_iter().chain(std::iter::repeat(15.0));
    let mut probability = 1.0;
    for (pauses, cap) in (1..).zip(caps) {
        probability *= seconds / (f64::from(pauses) * cap);
        if probability < 1e-6 {
            return pauses as usize;
        }
    }
    unreachable!("the factors go to nothing")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn each_fault_has_a_name_of_its_own() {
        let names: BTreeSet<String> = Fault::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), Fault::ALL.len(), "{names:?}");
        assert!(names.contains("handshake_stalls") && names.contains("reset_at_byte_30"), "{names:?}");
    }

    #[test]
    fn more_time_has_room_for_more_tries() {
        assert!(likely_pauses(0.4) < likely_pauses(6.0) && likely_pauses(6.0) < likely_pauses(60.0));
        assert!((8..12).contains(&likely_pauses(6.0)), "{}", likely_pauses(6.0));
        assert_eq!(most_tries(Fault::Status(503, Some(2)), 8.0), 10);
        assert!(most_tries(Fault::Garbage, 6.0) < most_tries(Fault::Garbage, 60.0));
    }

    /// What a client gets over plain TCP, and how it ends.
    fn got(answer: Answer) -> (String, std::io::Result<usize>) {
        let server = Server::start(None, move |_| answer.clone()).unwrap();
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut got = Vec::new();
        let end = stream.read_to_end(&mut got);
        (String::from_utf8_lossy(&got).into_owned(), end)
    }

    #[test]
    fn an_answer_is_cut_where_it_is_told() {
        let cut = |at, then| got(Answer::Cut { answer: Box::new(Answer::text(200, "text/plain", "abcdef")), at, then });
        let (text, end) = cut(At::HalfOfTheBody, Then::Close);
        assert!(text.ends_with("\r\n\r\nabc") && end.is_ok(), "{text} {end:?}");
        let (text, end) = cut(At::Body, Then::Close);
        assert!(text.ends_with("\r\n\r\n") && end.is_ok(), "{text} {end:?}");
        let (text, end) = cut(At::Byte(5), Then::Stall);
        assert!(text == "HTTP/" && end.is_err(), "{text} {end:?}");
        let (text, end) = cut(At::Byte(5), Then::Drip(Duration::ZERO));
        assert!(text.ends_with("abcdef") && end.is_ok(), "{text} {end:?}");
        let (_, end) = cut(At::Byte(0), Then::Reset);
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_flood_is_as_long_as_it_says() {
        let (text, end) = got(Answer::Flood(300_000));
        assert!(text.contains("Content-Length: 300000\r\n") && end.unwrap() > 300_000);
    }
}
