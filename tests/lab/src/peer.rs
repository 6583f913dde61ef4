//! A server that answers as a test wants: for what real Salt and real Heat cannot be made to do.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use rustls::ServerConfig;

use crate::http::{Answer, Request, Server};
use crate::tls::{Authority, Validity};

/// What the server shows as its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// None: no TLS at all.
    Plain,
    /// One that holds.
    Good,
    /// One that has expired.
    Expired,
    /// One that is not valid yet.
    Future,
    /// One of a CA that nobody was told of.
    OtherAuthority,
    /// One for another host.
    WrongName,
    /// The authority's own.
    Authority,
}

impl Certificate {
    /// What a server needs in order to show it; none if there is to be no TLS.
    pub fn shown(self, authority: &Authority) -> Result<Option<Arc<ServerConfig>>> {
        let here = ["127.0.0.1", "localhost", "salt.test"];
        let issued = match self {
            Certificate::Plain => return Ok(None),
            Certificate::Good => authority.issue(&here, Validity::Current)?,
            Certificate::Expired => authority.issue(&here, Validity::Expired)?,
            Certificate::Future => authority.issue(&here, Validity::Future)?,
            Certificate::OtherAuthority => Authority::new()?.issue(&here, Validity::Current)?,
            Certificate::Authority => authority.itself(),
            Certificate::WrongName => authority.issue(&["somewhere-else.example"], Validity::Current)?,
        };
        issued.server_config().map(Some)
    }
}

/// A scripted server.
pub struct Scripted {
    server: Server,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Scripted {
    /// Starts one that shows a certificate of this authority and answers each request by the function.
    pub fn start(
        authority: &Authority,
        certificate: Certificate,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Result<Scripted> {
        let tls = certificate.shown(authority)?;
        let requests = Arc::new(Mutex::new(Vec::new()));
        let server = Server::start(tls, {
            let requests = Arc::clone(&requests);
            move |request| {
                requests.lock().unwrap().push(request.clone());
                answer(request)
            }
        })?;
        Ok(Scripted { server, requests })
    }

    /// Starts one that gives these answers one after the other, the last one for ever.
    pub fn in_turn(authority: &Authority, certificate: Certificate, answers: Vec<Answer>) -> Result<Scripted> {
        assert!(!answers.is_empty(), "a script needs an answer");
        let turn = Mutex::new(0);
        Scripted::start(authority, certificate, move |_| {
            let mut turn = turn.lock().unwrap();
            let answer = answers[*turn].clone();
            *turn = (*turn + 1).min(answers.len() - 1);
            answer
        })
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// What it was asked up to now.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Down: connections are refused.
    pub fn set_down(&self, down: bool) {
        self.server.set_down(down);
    }
}
