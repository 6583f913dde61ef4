//! Telling Heat, over whatever transport the handle wants.

use std::time::Duration;

use serde_json::{Value, json};
use tracing::info;

use super::handle::{Handle, Keystone, Target, Way};
use super::keystone;
use super::signal::{Answer, Message, answer, probe_answer};
use crate::heat::settings::Signal;
use crate::system::clock::Skew;
use crate::system::http::{Client, Distrust, Reply, Request, Trouble};
use crate::system::retry::{Miss, Patience};
use crate::types::failure::{Failure, Kind};
use crate::types::secret::Secret;

/// heat-api, Keystone and Swift answer at once; what takes longer than this is tried again.
const TIMEOUT: Duration = Duration::from_secs(20);
/// heat-api-cfn waits for the engine, up to 60 s, before it answers.
const CFN_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a message stays in a Zaqar queue, in seconds. Heat reads it within one.
const ZAQAR_TTL: u32 = 3600;

/// Sends a signal until Heat has taken it, has refused it some times in a row, or the time is up.
pub fn tell(signal: &Signal, message: &Message, patience: &Patience) -> Result<(), Failure> {
    let client = Client::trusting(needed_ca(signal)).map_err(|why| undelivered(format!("Heat cannot be told: {why}")))?;
    let content = message.content(signal.handle.form);
    let teller = Teller { client: &client, patience };
    patience.retry("signal", |_| teller.tell(signal, &content))?;
    info!("told Heat {} as {} ({})", message.status.as_str(), message.id, signal.handle.transport());
    Ok(())
}

/// Asks whether a signal would be taken, without giving one: Heat counts nothing of this.
pub fn probe(signal: &Signal, patience: &Patience) -> Result<String, Failure> {
    let handle = &signal.handle;
    let client = Client::trusting(needed_ca(signal)).map_err(|why| undelivered(format!("Heat cannot be asked: {why}")))?;
    let said = patience.retry("probe", |_| {
        let teller = Teller { client: &client, patience };
        let ask = |method, url: &str, headers: &[(&str, &str)]| teller.send(method, url, "", headers, TIMEOUT).map(|reply| reply.status);
        let status = match &handle.way {
            Way::Token { endpoint, token } => ask("GET", endpoint, &[("X-Auth-Token", token.expose())])?,
            // The signature is for the signal's own method. The service itself can be asked.
            Way::Cfn { url, .. } | Way::Aws(url) => ask("GET", top_of(url.expose()), &[])?,
            Way::TempUrl(url) => ask("HEAD", url.expose(), &[])?,
            Way::Heat { login, target } => {
                let access = teller.log_in(login)?;
                ask("GET", &access.url_of(login, target)?, &[("X-Auth-Token", access.token.expose())])?
            }
            Way::Zaqar { login, .. } => {
                let access = teller.log_in(login)?;
                access.endpoint(login, "messaging").map(|_| 200)?
            }
        };
        match probe_answer(&handle.way, status) {
            Ok(said) => Ok(said),
            Err(why) if matches!(status, 408 | 429 | 500..=599) => Err(Miss::Passing(undelivered(why), None)),
            Err(why) => Err(Miss::Final(undelivered(why))),
        }
    })?;
    Ok(format!("{} at {}: {said}", handle.transport(), handle.address()))
}

/// `http://host:port/` of a URL.
fn top_of(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    url[host..].find('/').map_or(url, |end| &url[..=host + end])
}

struct Teller<'a> {
    client: &'a Client,
    patience: &'a Patience,
}

/// What Keystone gives to somebody who logs in.
struct Access {
    token: Secret,
    answer: Vec<u8>,
}

impl Teller<'_> {
    /// One try.
    fn tell(&self, signal: &Signal, content: &Value) -> Result<(), Miss> {
        let handle = &signal.handle;
        let reply = match &handle.way {
            // A form's Content-Type, or a body that does not begin with {, would count as SUCCESS.
            Way::Token { endpoint, token } => {
                self.send("POST", endpoint, &content.to_string(), &[("X-Auth-Token", token.expose())], TIMEOUT)
            }
            Way::Cfn { url, method } => self.send(method, url.expose(), &content.to_string(), &[], CFN_TIMEOUT),
            Way::Aws(url) => self.send("PUT", url.expose(), &content.to_string(), &[], CFN_TIMEOUT),
            Way::TempUrl(url) => self.send("PUT", url.expose(), &content.to_string(), &[], TIMEOUT),
            Way::Heat { login, target } => {
                let access = self.log_in(login)?;
                let url = access.url_of(login, target)?;
                self.send("POST", &url, &content.to_string(), &[("X-Auth-Token", access.token.expose())], TIMEOUT)
            }
            Way::Zaqar { login, queue } => {
                let access = self.log_in(login)?;
                let url = format!("{}/v2/queues/{queue}/messages", access.endpoint(login, "messaging")?);
                let body = json!({"messages": [{"ttl": ZAQAR_TTL, "body": content}]}).to_string();
                // Zaqar wants every client to name itself by a UUID, so that it need not read its own messages.
                let headers = [("X-Auth-Token", access.token.expose()), ("Client-ID", "7f3a5b0e-6a1d-4c8e-9d2b-5e4f3a2b1c0d")];
                self.send("POST", &url, &body, &headers, TIMEOUT)
            }
        }?;
        match answer(&handle.way, reply.status, &reply.body, reply.retry_after) {
            Answer::Taken => Ok(()),
            Answer::Later(why, when) => Err(Miss::Passing(undelivered(why), when)),
            Answer::Odd(why) | Answer::Refused(why) => Err(Miss::Doubtful(undelivered(why))),
        }
    }

    fn send(&self, method: &'static str, url: &str, body: &str, headers: &[(&str, &str)], timeout: Duration) -> Result<Reply, Miss> {
        let plain = [("Content-Type", "application/json"), ("Accept", "application/json")];
        let headers: Vec<(&str, &str)> = plain.iter().chain(headers).copied().collect();
        let timeout = timeout.min(self.patience.remaining()).max(Duration::from_millis(200));
        let request = Request { method, url, headers: &headers, body: body.as_bytes(), timeout };
        self.client.send(&request).map_err(|trouble| no_answer(url, trouble))
    }

    /// A fresh token for every try: one that died in between would only cost another try.
    fn log_in(&self, login: &Keystone) -> Result<Access, Miss> {
        let url = format!("{}/auth/tokens", login.auth_url);
        let reply = self.send("POST", &url, keystone::token_body(login).expose(), &[], TIMEOUT)?;
        match (reply.status, reply.header("x-subject-token")) {
            (200..=299, Some(token)) => Ok(Access { token: Secret::new(token), answer: reply.body }),
            (401 | 403 | 404, _) => Err(Miss::Doubtful(undelivered(format!(
                "Keystone answered {}: it does not know the stack's user (any more): the stack is gone",
                reply.status
            )))),
            (408 | 429 | 500..=599, _) => Err(Miss::Passing(undelivered(format!("Keystone answered {}", reply.status)), reply.retry_after)),
            _ => Err(Miss::Doubtful(undelivered(format!(
                "Keystone answered {}, which is no answer to a login: is auth_url right?",
                reply.status
            )))),
        }
    }
}

impl Access {
    fn url_of(&self, login: &Keystone, target: &Target) -> Result<String, Miss> {
        match target {
            Target::Url(url) => Ok(url.clone()),
            Target::Resource { stack, resource } => {
                Ok(format!("{}/stacks/{stack}/resources/{resource}/signal", self.endpoint(login, "orchestration")?))
            }
        }
    }

    fn endpoint(&self, login: &Keystone, service: &str) -> Result<String, Miss> {
        let region = login.region.as_deref();
        keystone::endpoint(&self.answer, service, region).ok_or_else(|| {
            let place = region.map_or_else(String::new, |region| format!(" in region {region}"));
            Miss::Final(undelivered(format!("Keystone's catalog has no public endpoint for {service}{place}")))
        })
    }
}

/// Loading the system's CAs costs more than everything else; over plain HTTP none is needed.
fn needed_ca(signal: &Signal) -> Option<&str> {
    let encrypted = |handle: &Handle| match &handle.way {
        // The catalog may lead elsewhere than the first address.
        Way::Zaqar { .. } | Way::Heat { target: Target::Resource { .. }, .. } => true,
        Way::Heat { target: Target::Url(url), .. } => url.starts_with("https://") || handle.address().starts_with("https://"),
        Way::Token { .. } | Way::Cfn { .. } | Way::Aws(_) | Way::TempUrl(_) => handle.address().starts_with("https://"),
    };
    match &signal.ca {
        None if !encrypted(&signal.handle) => Some(""),
        ca => ca.as_deref(),
    }
}

fn undelivered(why: String) -> Failure {
    Failure::new(Kind::SignalUndelivered, why)
}

fn no_answer(url: &str, trouble: Trouble) -> Miss {
    // The path names the stack and the query may be a signature; the host is enough.
    let host = url.split('/').nth(2).unwrap_or_default();
    let failure = undelivered(format!("{host}: {trouble}"));
    match trouble {
        Trouble::Tls(Distrust::NotYetValid) | Trouble::Name(_) | Trouble::Connect(_) | Trouble::TimedOut(_) | Trouble::Broken(_) => {
            Miss::Passing(failure, None)
        }
        Trouble::Nonsense(_) => Miss::Doubtful(failure),
        Trouble::Tls(Distrust::Expired) if Skew::asked_of(&format!("https://{host}/")).is_some_and(Skew::is_ahead) => {
            Miss::Passing(failure.hint("This machine's clock is ahead: check the time synchronisation."), None)
        }
        Trouble::Tls(_) => Miss::Doubtful(failure.hint("Give the CA that signed Heat's certificate in signal.ca or signal.ca_file.")),
    }
}
