//! Just enough of an HTTP/1.1 server for the stand-ins: one request a connection, answered by a function.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::listen::Listener;

/// A request, read whole.
#[derive(Clone, Debug)]
pub struct Request {
    /// GET, POST ...
    pub method: String,
    /// Path with query.
    pub path: String,
    /// As they came, names in lower case.
    pub headers: Vec<(String, String)>,
    /// What Content-Length promised.
    pub body: Vec<u8>,
}

impl Request {
    /// The first header of this name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// What a server does with a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Answers properly.
    Reply {
        /// The status.
        status: u16,
        /// Headers beside Content-Length and Connection.
        headers: Vec<(String, String)>,
        /// The body.
        body: Vec<u8>,
    },
    /// Sends these bytes as they are and closes: half an answer, or none at all.
    Raw(Vec<u8>),
    /// Begins an answer, and does not end it well.
    Cut {
        /// What would be answered.
        answer: Box<Answer>,
        /// Where it is cut.
        at: At,
        /// What happens there.
        then: Then,
    },
    /// A body of so many bytes, white space all of it.
    Flood(usize),
    /// Says nothing until the client gives up.
    Hang,
    /// Waits first.
    After(Duration, Box<Answer>),
}

/// A place in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// After so many bytes.
    Byte(usize),
    /// After the headers.
    Body,
    /// After half of the body.
    HalfOfTheBody,
}

/// How an answer goes on that does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The connection is reset.
    Reset,
    /// The connection is closed in good order.
    Close,
    /// Nothing comes any more, and the connection stays.
    Stall,
    /// The rest comes byte by byte, so long after each other.
    Drip(Duration),
}

impl Answer {
    /// A JSON reply.
    pub fn json(status: u16, body: &Value) -> Answer {
        Answer::text(status, "application/json", &body.to_string())
    }

    /// A reply with this text.
    pub fn text(status: u16, content_type: &str, body: &str) -> Answer {
        let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        Answer::Reply { status, headers, body: body.as_bytes().to_vec() }
    }

    /// What goes over the wire, were all of it sent.
    fn bytes(self) -> Vec<u8> {
        match self {
            Answer::Reply { status, headers, body } => {
                let mut bytes = format!("HTTP/1.1 {status} Stand-in\r\n");
                for (name, value) in headers {
                    bytes.push_str(&format!("{name}: {value}\r\n"));
                }
                bytes.push_str(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len()));
                [bytes.into_bytes(), body].concat()
            }
            Answer::Raw(bytes) => bytes,
            Answer::After(_, answer) | Answer::Cut { answer, .. } => answer.bytes(),
            Answer::Flood(length) => format!("HTTP/1.1 200 Stand-in\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").into_bytes(),
            Answer::Hang => Vec::new(),
        }
    }

    /// The page that salt-api's server makes of an error, whatever the client accepts.
    pub fn cherrypy_error(status: u16, message: &str) -> Answer {
        Answer::text(
            status,
            "text/html;charset=utf-8",
            &format!(
                "<!DOCTYPE html>\n<html>\n<head>\n    <title>{status}</title>\n</head>\n    <body>\n        <h2>{status}</h2>\n        \
             <p>{message}</p>\n        <pre id=\"traceback\"></pre>\n    </body>\n</html>\n"
            ),
        )
    }
}

/// What a connection meets before there is a request.
#[derive(Clone)]
pub enum Front {
    /// No TLS.
    Plain,
    /// TLS, with this configuration.
    Tls(Arc<ServerConfig>),
    /// The connection is reset once the client has spoken.
    Reset,
    /// Nothing ever comes.
    Silence,
    /// These bytes, whatever was said, and the end.
    Noise(Vec<u8>),
}

/// A server on a free loopback port.
pub struct Server {
    listener: Listener,
    scheme: &'static str,
}

impl Server {
    /// Starts it, with TLS if there is a configuration for it.
    pub fn start(tls: Option<Arc<ServerConfig>>, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Result<Server> {
        let front = tls.map_or(Front::Plain, Front::Tls);
        Server::behind(move || front.clone(), answer)
    }

    /// Starts it behind a front that is asked for anew by each connection.
    pub fn behind(
        front: impl Fn() -> Front + Send + Sync + 'static,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Result<Server> {
        let scheme = match front() {
            Front::Tls(_) => "https",
            _ => "http",
        };
        let listener = Listener::start(move |mut stream| {
            // A client that goes away in the middle is its own affair, and part of some tests.
            let _ = match front() {
                Front::Plain => converse(stream, &answer),
                Front::Tls(config) => ServerConnection::new(config)
                    .map_err(io::Error::other)
                    .and_then(|session| converse(StreamOwned::new(session, stream), &answer)),
                Front::Reset => stream.read(&mut [0; 16]).and_then(|_| stream.abort()),
                Front::Silence => drain(&mut stream),
                Front::Noise(bytes) => stream.write_all(&bytes).and_then(|()| stream.hang_up()).and_then(|()| drain(&mut stream)),
            };
        })?;
        Ok(Server { listener, scheme })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// `http://127.0.0.1:PORT`, or https.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address())
    }

    /// Down: connections are refused.
    pub fn set_down(&self, down: bool) {
        self.listener.set_down(down);
    }
}

/// What can be spoken over: TCP, or TLS over it.
trait Stream: Read + Write {
    /// Closes so that the client sees an orderly end.
    fn hang_up(&mut self) -> io::Result<()>;

    /// Has the connection reset when this is dropped.
    fn abort(&mut self) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn hang_up(&mut self) -> io::Result<()> {
        self.shutdown(std::net::Shutdown::Write)
    }

    fn abort(&mut self) -> io::Result<()> {
        let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&*self, sockopt::Linger, &at_once).map_err(io::Error::from)
    }
}

impl Stream for StreamOwned<ServerConnection, TcpStream> {
    fn hang_up(&mut self) -> io::Result<()> {
        self.conn.send_close_notify();
        self.flush()?;
        self.sock.shutdown(std::net::Shutdown::Write)
    }

    fn abort(&mut self) -> io::Result<()> {
        self.sock.abort()
    }
}

fn converse(stream: impl Stream, answer: &impl Fn(&Request) -> Answer) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let answer = match read_request(&mut stream) {
        Ok(Some(request)) => answer(&request),
        Ok(None) => return Ok(()),
        // What salt-api's server says to whom speaks TLS where none is spoken.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Answer::text(400, "text/plain", "Malformed Request-Line"),
        Err(error) => return Err(error),
    };
    if send(&mut stream, answer)? == Ended::Aborted {
        return stream.get_mut().abort();
    }
    stream.get_mut().hang_up()?;
    // Closing with unread bytes would reset the connection and lose the answer on its way.
    drain(&mut stream)
}

/// How the sending of an answer ended.
#[derive(PartialEq, Eq)]
enum Ended {
    Well,
    Aborted,
}

fn send(stream: &mut BufReader<impl Stream>, answer: Answer) -> io::Result<Ended> {
    match answer {
        Answer::Hang => drain(stream)?,
        Answer::After(time, answer) => {
            thread::sleep(time);
            return send(stream, *answer);
        }
        Answer::Cut { answer, at, then } => {
            let bytes = answer.bytes();
            let body = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
            let at = match at {
                At::Byte(at) => at.min(bytes.len()),
                At::Body => body,
                At::HalfOfTheBody => usize::midpoint(body, bytes.len()),
            };
            let out = stream.get_mut();
            out.write_all(&bytes[..at])?;
            out.flush()?;
            match then {
                Then::Close => {}
                Then::Stall => drain(stream)?,
                Then::Reset => return Ok(Ended::Aborted),
                Then::Drip(pause) => {
                    for byte in &bytes[at..] {
                        thread::sleep(pause);
                        out.write_all(&[*byte])?;
                        out.flush()?;
                    }
                }
            }
        }
        Answer::Flood(length) => {
            let out = stream.get_mut();
            out.write_all(&answer.bytes())?;
            let piece = [b' '; 64 * 1024];
            for begun in (0..length).step_by(piece.len()) {
                out.write_all(&piece[..piece.len().min(length - begun)])?;
            }
            out.flush()?;
        }
        whole => {
            stream.get_mut().write_all(&whole.bytes())?;
            stream.get_mut().flush()?;
        }
    }
    Ok(Ended::Well)
}

/// Reads what still comes, until the client closes.
fn drain(stream: &mut impl Read) -> io::Result<()> {
    io::copy(stream, &mut io::sink()).map(drop)
}

/// None when the client closed without a word, as a port scan or a probe of TLS does.
fn read_request(stream: &mut impl BufRead) -> io::Result<Option<Request>> {
    let first = read_line(stream)?;
    let mut words = first.split(' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let mut request = Request { method: method.to_owned(), path: path.to_owned(), headers: Vec::new(), body: Vec::new() };
    loop {
        let line = read_line(stream)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    stream.take(length).read_to_end(&mut request.body)?;
    Ok(Some(request))
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}
