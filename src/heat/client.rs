//! Telling Heat, over whatever transport the handle wants.

use std::time::Duration;

use serde_json::{Value, json};
use tracing::info;

use super::handle::{Handle, Keystone, Target, Transport};
use super::keystone;
use super::signal::{Answer, Message, answer, probe_answer};
use crate::heat::settings::Signal;
use crate::system::clock::Skew;
use crate::system::http::{Client, HttpError, Reply, Request, TlsError};
use crate::system::retry::{RetryError, Wait};
use crate::types::failure::{Failure, Kind};
use crate::types::secret::Secret;
use crate::types::url::Url;

/// heat-api, Keystone and Swift answer at once; what takes longer than this is tried again.
const TIMEOUT: Duration = Duration::from_secs(20);
/// heat-api-cfn waits for the engine, up to 60 s, before it answers.
const CFN_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a message stays in a Zaqar queue, in seconds. Heat reads it within one.
const ZAQAR_TTL: u32 = 3600;

/// Sends a signal until Heat has taken it, has refused it some times in a row, or the time is up.
pub fn tell(signal: &Signal, message: &Message, wait: &Wait) -> Result<(), Failure> {
    let client = Client::trusting(needed_ca(signal)).map_err(|why| undelivered(format!("Heat cannot be told: {why}")))?;
    let content = message.content(signal.handle.form);
    let signaller = SignalClient { client: &client, wait };
    wait.retry("signal", |_| signaller.tell(signal, &content))?;
    info!("signalled {} to Heat as {} ({})", message.status.as_str(), message.id, signal.handle.transport());
    Ok(())
}

/// Asks whether a signal would be taken, without giving one: Heat counts nothing of this.
pub fn probe(signal: &Signal, wait: &Wait) -> Result<String, Failure> {
    let handle = &signal.handle;
    let client = Client::trusting(needed_ca(signal)).map_err(|why| undelivered(format!("Heat cannot be asked: {why}")))?;
    let detail = wait.retry("probe", |_| {
        let signaller = SignalClient { client: &client, wait };
        let ask = |method, url: &Url, headers: &[(&str, &str)]| signaller.send(method, url, "", headers, TIMEOUT).map(|reply| reply.status);
        let status = match &handle.transport {
            Transport::Token { endpoint, token } => ask("GET", endpoint, &[("X-Auth-Token", token.expose())])?,
            // The signature is for the signal's own method. The service itself can be asked.
            Transport::Cfn { url, .. } | Transport::Aws(url) => ask("GET", &url.top(), &[])?,
            Transport::TempUrl(url) => ask("HEAD", url, &[])?,
            Transport::Heat { login, target } => {
                let access = signaller.log_in(login)?;
                ask("GET", &access.url_of(login, target)?, &[("X-Auth-Token", access.token.expose())])?
            }
            Transport::Zaqar { login, .. } => {
                let access = signaller.log_in(login)?;
                access.endpoint(login, "messaging").map(|_| 200)?
            }
        };
        match probe_answer(&handle.transport, status) {
            Ok(detail) => Ok(detail),
            Err(why) if matches!(status, 408 | 429 | 500..=599) => Err(RetryError::Transient(undelivered(why), None)),
            Err(why) => Err(RetryError::Permanent(undelivered(why))),
        }
    })?;
    Ok(format!("{} at {}: {detail}", handle.transport(), handle.address()))
}

struct SignalClient<'a> {
    client: &'a Client,
    wait: &'a Wait,
}

/// What Keystone gives to somebody who logs in.
struct Access {
    token: Secret,
    answer: Vec<u8>,
}

impl SignalClient<'_> {
    /// One try.
    fn tell(&self, signal: &Signal, content: &Value) -> Result<(), RetryError> {
        let handle = &signal.handle;
        let reply = match &handle.transport {
            // A form's Content-Type, or a body that does not begin with {, would count as SUCCESS.
            Transport::Token { endpoint, token } => {
                self.send("POST", endpoint, &content.to_string(), &[("X-Auth-Token", token.expose())], TIMEOUT)
            }
            Transport::Cfn { url, method } => self.send(method, url, &content.to_string(), &[], CFN_TIMEOUT),
            Transport::Aws(url) => self.send("PUT", url, &content.to_string(), &[], CFN_TIMEOUT),
            Transport::TempUrl(url) => self.send("PUT", url, &content.to_string(), &[], TIMEOUT),
            Transport::Heat { login, target } => {
                let access = self.log_in(login)?;
                let url = access.url_of(login, target)?;
                self.send("POST", &url, &content.to_string(), &[("X-Auth-Token", access.token.expose())], TIMEOUT)
            }
            Transport::Zaqar { login, queue } => {
                let access = self.log_in(login)?;
                let url = access.endpoint(login, "messaging")?.below(&format!("v2/queues/{queue}/messages"));
                let body = json!({"messages": [{"ttl": ZAQAR_TTL, "body": content}]}).to_string();
                // Zaqar wants every client to name itself by a UUID, so that it need not read its own messages.
                let headers = [("X-Auth-Token", access.token.expose()), ("Client-ID", "7f3a5b0e-6a1d-4c8e-9d2b-5e4f3a2b1c0d")];
                self.send("POST", &url, &body, &headers, TIMEOUT)
            }
        }?;
        match answer(&handle.transport, reply.status, &reply.body, reply.retry_after) {
            Answer::Taken => Ok(()),
            Answer::Later(why, when) => Err(RetryError::Transient(undelivered(why), when)),
            Answer::Odd(why) | Answer::Refused(why) => Err(RetryError::Suspicious(undelivered(why))),
        }
    }

    fn send(&self, method: &'static str, url: &Url, body: &str, headers: &[(&str, &str)], timeout: Duration) -> Result<Reply, RetryError> {
        let plain = [("Content-Type", "application/json"), ("Accept", "application/json")];
        let headers: Vec<(&str, &str)> = plain.iter().chain(headers).copied().collect();
        let timeout = timeout.min(self.wait.remaining()).max(Duration::from_millis(200));
        let request = Request { method, url, headers: &headers, body: body.as_bytes(), timeout };
        self.client.send(&request).map_err(|error| no_answer(url, error))
    }

    /// A fresh token for every try: one that died in between would only cost another try.
    fn log_in(&self, login: &Keystone) -> Result<Access, RetryError> {
        let url = login.auth_url.below("auth/tokens");
        let reply = self.send("POST", &url, keystone::token_body(login).expose(), &[], TIMEOUT)?;
        match (reply.status, reply.header("x-subject-token")) {
            (200..=299, Some(token)) => Ok(Access { token: Secret::new(token), answer: reply.body }),
            (401 | 403 | 404, _) => Err(RetryError::Suspicious(undelivered(format!(
                "Keystone answered {}: it does not know the stack's user (any more): the stack is gone",
                reply.status
            )))),
            (408 | 429 | 500..=599, _) => {
                Err(RetryError::Transient(undelivered(format!("Keystone answered {}", reply.status)), reply.retry_after))
            }
            _ => Err(RetryError::Suspicious(undelivered(format!(
                "Keystone answered {}, which is no answer to a login: is auth_url right?",
                reply.status
            )))),
        }
    }
}

impl Access {
    fn url_of(&self, login: &Keystone, target: &Target) -> Result<Url, RetryError> {
        match target {
            Target::Url(url) => Ok(url.clone()),
            Target::Resource { stack, resource } => {
                Ok(self.endpoint(login, "orchestration")?.below(&format!("stacks/{stack}/resources/{resource}/signal")))
            }
        }
    }

    fn endpoint(&self, login: &Keystone, service: &str) -> Result<Url, RetryError> {
        let region = login.region.as_deref();
        keystone::endpoint(&self.answer, service, region).ok_or_else(|| {
            let place = region.map_or_else(String::new, |region| format!(" in region {region}"));
            RetryError::Permanent(undelivered(format!("Keystone's catalog has no public endpoint for {service}{place}")))
        })
    }
}

/// Loading the system's CAs costs more than everything else; over plain HTTP none is needed.
fn needed_ca(signal: &Signal) -> Option<&str> {
    let encrypted = |handle: &Handle| match &handle.transport {
        // The catalog may lead elsewhere than the first address.
        Transport::Zaqar { .. } | Transport::Heat { target: Target::Resource { .. }, .. } => true,
        Transport::Heat { target: Target::Url(url), .. } => url.is_encrypted() || handle.address().is_encrypted(),
        Transport::Token { .. } | Transport::Cfn { .. } | Transport::Aws(_) | Transport::TempUrl(_) => handle.address().is_encrypted(),
    };
    match &signal.ca {
        None if !encrypted(&signal.handle) => Some(""),
        ca => ca.as_deref(),
    }
}

fn undelivered(why: String) -> Failure {
    Failure::new(Kind::SignalUndelivered, why)
}

fn no_answer(url: &Url, error: HttpError) -> RetryError {
    // The path names the stack; the server is enough.
    let failure = undelivered(format!("{}: {error}", url.server()));
    match error {
        HttpError::Tls(TlsError::NotYetValid)
        | HttpError::Name(_)
        | HttpError::Connect(_)
        | HttpError::TimedOut(_)
        | HttpError::Broken(_) => RetryError::Transient(failure, None),
        HttpError::InvalidResponse(_) => RetryError::Suspicious(failure),
        HttpError::Tls(TlsError::Expired) if Skew::asked_of(&url.top()).is_some_and(Skew::is_ahead) => {
            RetryError::Transient(failure.hint("This machine's clock is ahead: check the time synchronisation."), None)
        }
        HttpError::Tls(_) => {
            RetryError::Suspicious(failure.hint("Give the CA that signed Heat's certificate in signal.ca or signal.ca_file."))
        }
    }
}
