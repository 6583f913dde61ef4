//! Just enough of an HTTP/1.1 server for the stand-ins: one request a connection, answered by a function.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Result;
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
    /// Says nothing until the client gives up.
    Hang,
    /// Waits first.
    After(Duration, Box<Answer>),
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

/// A server on a free loopback port.
pub struct Server {
    listener: Listener,
    scheme: &'static str,
}

impl Server {
    /// Starts it, with TLS if there is a configuration for it.
    pub fn start(tls: Option<Arc<ServerConfig>>, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Result<Server> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = Listener::start(move |stream| {
            // A client that goes away in the middle is its own affair, and part of some tests.
            let _ = match &tls {
                None => converse(stream, &answer),
                Some(config) => ServerConnection::new(Arc::clone(config))
                    .map_err(io::Error::other)
                    .and_then(|session| converse(StreamOwned::new(session, stream), &answer)),
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
}

impl Stream for TcpStream {
    fn hang_up(&mut self) -> io::Result<()> {
        self.shutdown(std::net::Shutdown::Write)
    }
}

impl Stream for StreamOwned<ServerConnection, TcpStream> {
    fn hang_up(&mut self) -> io::Result<()> {
        self.conn.send_close_notify();
        self.flush()?;
        self.sock.shutdown(std::net::Shutdown::Write)
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
    send(&mut stream, answer)?;
    stream.get_mut().hang_up()?;
    // Closing with unread bytes would reset the connection and lose the answer on its way.
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

fn send(stream: &mut BufReader<impl Stream>, answer: Answer) -> io::Result<()> {
    match answer {
        Answer::Reply { status, headers, body } => {
            let mut head = format!("HTTP/1.1 {status} Stand-in\r\n");
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            head.push_str(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len()));
            let out = stream.get_mut();
            out.write_all(head.as_bytes())?;
            out.write_all(&body)?;
            out.flush()
        }
        Answer::Raw(bytes) => {
            stream.get_mut().write_all(&bytes)?;
            stream.get_mut().flush()
        }
        Answer::Hang => io::copy(stream, &mut io::sink()).map(drop),
        Answer::After(time, answer) => {
            thread::sleep(time);
            send(stream, *answer)
        }
    }
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
