//! The enrolment service: lets this machine's minion in, publishes its job, notes how it ended. Unlike a hook it answers, so what it
//! refuses is known at once and by its own words, and what it publishes by its job id.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tracing::debug;

use super::claim::{self, Asked, Claimant, Good, Job, LetIn, Refusal, Token};
use crate::salt::private_key::KeyPair;
use crate::salt::session;
use crate::salt::settings::Enroll;
use crate::system::clock::{self, Skew};
use crate::system::http::{Client, HttpError, Reply, Request, TlsError};
use crate::system::retry::{RetryError, Wait};
use crate::types::failure::{Fact, Failure, Kind};
use crate::types::hexadecimal::hexadecimal;
use crate::types::names::{Jid, MinionId};
use crate::types::pin::Pin;
use crate::types::report::Report;
use crate::types::time;
use crate::types::url::Url;

/// What to do about a clock that nobody has set.
const SET_THE_CLOCK: &str =
    "Set this machine's clock: check the time synchronisation (`timedatectl`), and on the hypervisor its own clock.";

/// The service, by one or several URLs.
pub struct Service<'a> {
    enroll: &'a Enroll,
    client: Client,
    url: usize,
    /// Only this URL is asked.
    alone: bool,
}

/// In whose name it is asked.
pub struct Asking<'a> {
    /// What claims are signed with. Only `check` does without.
    pub keys: Option<&'a KeyPair>,
    /// The minion.
    pub id: &'a MinionId,
    /// In the course of which bootstrap.
    pub bootstrap_id: &'a str,
}

impl<'a> Service<'a> {
    /// The service at whichever of the URLs answers; nothing is sent yet. `remembered` is the pin of a token that was wiped after use.
    pub fn new(enroll: &'a Enroll, remembered: Option<Pin>) -> Result<Service<'a>, Failure> {
        Service::prepared(enroll, remembered, 0, false)
    }

    /// The service at one of the URLs, and no other.
    pub fn at(enroll: &'a Enroll, remembered: Option<Pin>, url: usize) -> Result<Service<'a>, Failure> {
        Service::prepared(enroll, remembered, url, true)
    }

    fn prepared(enroll: &'a Enroll, remembered: Option<Pin>, url: usize, alone: bool) -> Result<Service<'a>, Failure> {
        let pin = enroll.token.as_ref().map_or(remembered, |token| token.pin().cloned());
        let client = match &pin {
            Some(pin) => Client::pinned(pin),
            None => Client::trusting(enroll.ca.as_deref()),
        };
        let client = client.map_err(|why| Failure::new(Kind::ApiTls, format!("no TLS connection can be verified: {why}")))?;
        Ok(Service { enroll, client, url, alone })
    }

    /// The URL that is spoken to.
    pub fn url(&self) -> &Url {
        &self.enroll.urls[self.url]
    }

    /// Asks for nothing: whoever answers can be trusted and reached. Returns what its clock says, in seconds since 1970.
    pub fn probe(&self, within: Duration) -> Result<Option<i64>, Failure> {
        let url = self.url().below("v1/status");
        let request = Request { method: "GET", url: &url, headers: &[("Accept", "application/json")], body: b"", timeout: within };
        let failed = |miss| match miss {
            RetryError::Permanent(failure) | RetryError::Transient(failure, _) | RetryError::Suspicious(failure) => failure,
        };
        let reply = self.client.send(&request).map_err(|error| failed(self.unreachable(error)))?;
        claim::status_answer(reply.status, &reply.body).map_err(|refusal| failed(self.refused("status", refusal, None)))
    }

    /// Has the minion's key accepted. A key that is accepted already stays so, and no use is counted.
    pub fn enroll(&mut self, asking: &Asking, token: &Token, asked: Asked, wait: &Wait) -> Result<LetIn, Failure> {
        self.ask(asking, asked, wait, |reply, nonce| claim::enroll_answer(reply.status, &reply.body, token, nonce))
    }

    /// Would the key be accepted, and the states be allowed?
    pub fn check(&mut self, asking: &Asking, asked: Asked, wait: &Wait) -> Result<Good, Failure> {
        self.ask(asking, asked, wait, |reply, _| claim::check_answer(reply.status, &reply.body))
    }

    /// Has a job published, or learns which one was.
    pub fn apply(&mut self, asking: &Asking, job: &Job, wait: &Wait) -> Result<Jid, Failure> {
        self.ask(asking, Asked::Apply(job), wait, |reply, _| claim::apply_answer(reply.status, &reply.body))
    }

    /// Tells how the bootstrap ended.
    pub fn report(&mut self, asking: &Asking, report: &Report, wait: &Wait) -> Result<(), Failure> {
        self.ask(asking, Asked::Report(report), wait, |reply, _| claim::report_answer(reply.status, &reply.body))
    }

    /// Says that this machine lives. Says whether its key had been removed, and is accepted again.
    pub fn renew(&mut self, asking: &Asking, wait: &Wait) -> Result<bool, Failure> {
        self.ask(asking, Asked::Renew, wait, |reply, _| claim::renew_answer(reply.status, &reply.body))
    }

    /// Has the minion's key removed. Says whether there was one.
    pub fn deregister(&mut self, asking: &Asking, wait: &Wait) -> Result<bool, Failure> {
        self.ask(asking, Asked::Deregister, wait, |reply, _| claim::deregister_answer(reply.status, &reply.body))
    }

    /// Signs a claim and posts it, until it is answered. It is a new one every time: its time must not be old, and the service knows
    /// by the key, or by the job's name, that it is asked for the same again.
    fn ask<T>(
        &mut self,
        asking: &Asking,
        asked: Asked,
        wait: &Wait,
        read: impl Fn(&Reply, &str) -> Result<T, Refusal>,
    ) -> Result<T, Failure> {
        wait.retry(asked.verb(), |tries| {
            let answered = self
                .send(asking, asked, tries, wait)
                .and_then(|(reply, nonce)| read(&reply, &nonce).map_err(|refusal| self.refused(asked.verb(), refusal, reply.retry_after)));
            answered.map_err(|miss| self.elsewhere(miss))
        })
    }

    /// One try: the reply, and the nonce of the claim that it is for.
    fn send(&self, asking: &Asking, asked: Asked, tries: u32, wait: &Wait) -> Result<(Reply, String), RetryError> {
        let claimant = Claimant { id: asking.id, key: asking.keys.map(|keys| &keys.public), bootstrap_id: asking.bootstrap_id };
        let nonce = nonce().map_err(RetryError::Permanent)?;
        let document = claim::document(&claimant, &asked, &nonce, clock::seconds());
        let signature = asking.keys.map(|keys| keys.sign(document.as_bytes())).transpose().map_err(RetryError::Permanent)?;
        let body = claim::body(&asked, &document, signature.as_deref());
        let url = self.url().below(&format!("v1/{}", asked.verb()));
        let headers = [("Accept", "application/json"), ("Content-Type", "application/json")];
        let timeout = session::timeout(tries, wait);
        let sent = self.client.send(&Request { method: "POST", url: &url, headers: &headers, body: body.as_bytes(), timeout });
        sent.map(|reply| (reply, nonce)).map_err(|error| self.unreachable(error))
    }

    /// Where there is another URL, that one is asked the next time.
    fn elsewhere(&mut self, miss: RetryError) -> RetryError {
        if self.alone || self.enroll.urls.len() < 2 || matches!(miss, RetryError::Permanent(_)) {
            return miss;
        }
        self.url = (self.url + 1) % self.enroll.urls.len();
        debug!("trying {} next", self.url());
        match miss {
            // The one that asked to be left alone is not the one that is asked next.
            RetryError::Transient(failure, Some(_)) if self.url != 0 => RetryError::Transient(failure, None),
            other => other,
        }
    }

    fn refused(&self, verb: &str, refusal: Refusal, retry_after: Option<Duration>) -> RetryError {
        let url = self.url();
        let fail = |kind, message: String| Failure::new(kind, message).fact(Fact::Url, url.to_string());
        match refusal {
            Refusal::Refused { kind, word, message, hint } => {
                let failure = fail(kind, format!("the enrolment service refuses {verb}: {message}")).fact(Fact::Refused, word);
                let advice = || "On the master see `heat-bootstrap audit ID` and `heat-bootstrap token list`.".to_owned();
                RetryError::Permanent(failure.hint(hint.unwrap_or_else(advice)))
            }
            // At a first boot nobody may have set it yet: time synchronisation is waited for.
            Refusal::Skewed { ahead } => {
                let side = if ahead > 0 { "ahead of" } else { "behind" };
                let length = time::length(ahead.unsigned_abs());
                let detail = format!("this machine's clock is {length} {side} the enrolment service's, which refuses {verb} for it");
                let failure = fail(Kind::ApiTls, detail).fact(Fact::SkewSeconds, ahead.to_string()).hint(SET_THE_CLOCK);
                RetryError::Transient(failure, None)
            }
            Refusal::Unavailable(detail) => RetryError::Transient(
                fail(Kind::ApiUnreachable, format!("the enrolment service cannot do {verb} now: {detail}")),
                retry_after,
            ),
            // Something in front of it may have said it.
            Refusal::InvalidResponse(detail) => RetryError::Suspicious(fail(
                Kind::ApiProtocol,
                format!("{url} does not answer {verb} as the enrolment service does: {detail}"),
            )),
        }
    }

    fn unreachable(&self, error: HttpError) -> RetryError {
        let base = self.url();
        let fail = |kind| Failure::new(kind, format!("{base}: {error}")).fact(Fact::Url, base.to_string());
        let tls = |hint: &str| RetryError::Suspicious(fail(Kind::ApiTls).hint(hint));
        match &error {
            HttpError::Tls(TlsError::NotYetValid | TlsError::Expired) => {
                // By a clock that nobody has set yet at a first boot: time synchronisation is waited for.
                let skew = Skew::asked_of(&base.below("v1/status"));
                let detail = skew.map_or_else(String::new, |skew| format!("; {skew}"));
                let failure = Failure::new(Kind::ApiTls, format!("{base}: {error}{detail}")).fact(Fact::Url, base.to_string());
                RetryError::Transient(failure.hint("Set this machine's clock (`timedatectl`), or renew the service's certificate (heat_bootstrap: ssl_crt)."), None)
            }
            HttpError::Tls(TlsError::WrongKey) => tls(
                "The service has another key than when the token was made, or somebody else answers: if its certificate was renewed with another key, make a new token (`heat-bootstrap token create`).",
            ),
            HttpError::Tls(TlsError::UnknownIssuer) => tls("Use a token that pins the service's key, or give the CA that signed its certificate in enroll.ca or enroll.ca_file."),
            HttpError::Tls(TlsError::WrongName) => tls("Use a name in enroll.url that the certificate holds, or a token that pins the service's own key."),
            HttpError::Tls(TlsError::Authority) => tls("Give the service a certificate of its own (heat_bootstrap: ssl_crt), or use a token that pins its key."),
            HttpError::Tls(TlsError::NotTls) => tls("Another service answers there: the enrolment service's port is 8010 unless heat_bootstrap says otherwise."),
            HttpError::Tls(TlsError::Other(_)) => RetryError::Suspicious(fail(Kind::ApiTls)),
            HttpError::Name(_) => RetryError::Transient(fail(Kind::ApiUnreachable).hint("Check /etc/resolv.conf and the name in enroll.url."), None),
            HttpError::Connect(_) | HttpError::TimedOut(_) | HttpError::Broken(_) => RetryError::Transient(
                fail(Kind::ApiUnreachable)
                    .hint("On the master see that salt-api runs and that heat_bootstrap is configured; check the port (8010) and security groups."),
                None,
            ),
            HttpError::InvalidResponse(_) => RetryError::Suspicious(fail(Kind::ApiProtocol)),
        }
    }
}

/// Random, in hexadecimal: names a claim, or a job.
pub fn nonce() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Failure::new(Kind::LocalSystem, "the kernel provides no random numbers"))?;
    Ok(hexadecimal(&bytes))
}
