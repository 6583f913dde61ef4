//! A session with salt-api (rest_cherrypy): logged in when first needed and again when it died,
//! logged out when dropped, whatever the path.

use std::time::Duration;

use serde_json::Value;
use tracing::{debug, info, warn};

use super::advice::{self, BROKEN_SOCKET};
use super::api::{self, Refusal};
use crate::salt::settings::Api;
use crate::system::http::{Client, HttpError, Reply, Request};
use crate::system::retry::{RetryError, Wait};
use crate::types::failure::{Failure, Kind};
use crate::types::names::HookPath;
use crate::types::secret::Secret;
use crate::types::url::Url;

/// With the master away, salt-api keeps a call for 180 s and then says 503; and the first login after a start has been seen to take 27 s.
/// The enrolment service gives up after 20 s on a master that does not publish. So each try gets more than the one before, and of tries
/// there are as many as there is time for.
const TIMEOUTS: [Duration; 3] = [Duration::from_secs(15), Duration::from_secs(30), Duration::from_secs(60)];
/// With less time the last try could not even be refused.
const AT_LEAST: Duration = Duration::from_millis(100);
/// A hook only puts an event on the bus.
const HOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// From an event on the bus to its job on an idle master's minion it takes 0.1 to 2 s. One that comes later runs beside another: no more
/// than that.
const ON_ITS_WAY: Duration = Duration::from_secs(2);
/// How often it is looked for meanwhile.
const LOCAL: Duration = Duration::from_millis(40);
/// After so many answers of one kind to a hook a person is told what to do about it.
const BROKEN: u32 = 3;
/// Where no salt-api answers, each is asked again after at most this.
const LONGEST_ROUND: Duration = Duration::from_secs(15);
/// A logout is a courtesy: the session would die by itself.
const LOGOUT_TIMEOUT: Duration = Duration::from_secs(1);

/// The session. One TLS connection is kept for all of it.
pub struct Session<'a> {
    api: &'a Api,
    client: Client,
    url: usize,
    pinned: bool,
    token: Option<Secret>,
    permissions: Value,
}

impl<'a> Session<'a> {
    /// Prepares a session with whichever of the URLs answers; nothing is sent yet.
    pub fn new(api: &'a Api) -> Result<Session<'a>, Failure> {
        Session::prepared(api, 0, false)
    }

    /// Prepares a session with the salt-api at one of the URLs, and no other.
    pub fn at(api: &'a Api, url: usize) -> Result<Session<'a>, Failure> {
        Session::prepared(api, url, true)
    }

    fn prepared(api: &'a Api, url: usize, pinned: bool) -> Result<Session<'a>, Failure> {
        let client = Client::trusting(api.ca.as_deref())
            .map_err(|why| Failure::new(Kind::ApiTls, format!("no TLS connection can be verified: {why}")))?;
        Ok(Session { api, client, url, pinned, token: None, permissions: Value::Null })
    }

    /// Is somebody logged in, as far as is known here?
    pub fn is_open(&self) -> bool {
        self.token.is_some()
    }

    /// Logs in, unless that was done.
    pub fn log_in(&mut self, wait: &Wait) -> Result<(), Failure> {
        if self.token.is_some() {
            return Ok(());
        }
        let password = self.api.password.as_ref().ok_or_else(|| {
            Failure::new(Kind::Config, "api.password is gone, but salt-api is needed")
                .hint("forget_secrets wiped it after use: give it again in api.password or api.password_file.")
        })?;
        let body = api::login_body(&self.api.username, password, &self.api.eauth);
        let opened = wait.retry("login", |tries| {
            let reply = self.post("login", body.expose(), false, timeout(tries, wait));
            let opened = reply.and_then(|reply| {
                api::login_answer(reply.status, &reply.body).map_err(|refusal| self.refused("login", refusal, reply.retry_after))
            });
            opened.map_err(|miss| {
                if !self.has_another() {
                    return miss;
                }
                self.url = (self.url + 1) % self.api.urls.len();
                match miss {
                    // The one that asked to be left alone is not the one that is asked next.
                    RetryError::Transient(failure, Some(_)) => RetryError::Transient(failure, None),
                    other => other,
                }
            })
        })?;
        debug!("logged in at {} as {} ({})", self.base(), self.api.username, self.api.eauth);
        (self.token, self.permissions) = (Some(opened.token), opened.permissions);
        Ok(())
    }

    /// What the user may do, by what the last login said.
    pub fn permissions(&self) -> &Value {
        &self.permissions
    }

    /// The URL that is spoken to.
    pub fn url(&self) -> &Url {
        self.base()
    }

    /// Asks for nothing: whoever answers, whatever it is, can be trusted and reached. Returns what its clock says, if it does.
    pub fn probe(&self, within: Duration) -> Result<Option<String>, Failure> {
        let url = self.base().below("");
        let request = Request { method: "GET", url: &url, headers: &[("Accept", "application/json")], body: b"", timeout: within };
        match self.client.send(&request).map_err(|error| advice::unreachable(self.base(), error)) {
            Ok(reply) => Ok(reply.header("date").map(str::to_owned)),
            Err(RetryError::Permanent(failure) | RetryError::Transient(failure, _) | RetryError::Suspicious(failure)) => Err(failure),
        }
    }

    /// Calls a wheel function and returns what it returned.
    pub fn wheel(&mut self, fun: &str, arguments: &Value, wait: &Wait) -> Result<Value, Failure> {
        let body = api::wheel_body(fun, arguments);
        self.call(fun, wait, |session, timeout| {
            let reply = session.post("", &body, true, timeout)?;
            api::wheel_answer(reply.status, &reply.body).map_err(|refusal| session.refused_or_lost(fun, refusal, reply.retry_after))
        })
    }

    /// Fires a hook. A try that was not answered well may have put its event on the bus all the same: `came_through` is
    /// asked before the next one, for as long as the event may be on its way, and what it finds is returned.
    ///
    /// The event socket of a salt-api 3008 (`MasterEvent.fire_event` below `SyncWrapper`) breaks for good when two of its
    /// threads use it at the same moment: from then on each hook is answered with 500, and its event goes out with the
    /// next one.
    pub fn hook<T>(
        &mut self,
        hook: &HookPath,
        body: &Value,
        wait: &Wait,
        mut came_through: impl FnMut() -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let (path, body) = (format!("hook/{}", hook.as_str()), body.to_string());
        let (mut asked_before, mut may_be_fired) = (false, false);
        let mut broken = 0;
        let fired = self.call(&path, wait, |session, timeout| {
            let span = if may_be_fired { ON_ITS_WAY } else { Duration::ZERO };
            let found =
                if asked_before { wait.slice(span).poll(LOCAL, || Ok(came_through())).map_err(RetryError::Permanent)? } else { None };
            if found.is_some() {
                return Ok(found);
            }
            asked_before = true;
            // Of what is left now, and not before the job was looked for.
            let most = wait.remaining().max(AT_LEAST);
            let sent = session.send(&path, &body, true, of_a_hook(timeout).min(most));
            may_be_fired = match &sent {
                Ok(reply) => reply.status >= 500,
                Err(HttpError::TimedOut(_) | HttpError::Broken(_)) => true,
                // It was never heard, or by somebody else.
                Err(HttpError::Name(_) | HttpError::Connect(_) | HttpError::Tls(_) | HttpError::InvalidResponse(_)) => false,
            };
            let reply = sent.map_err(|error| advice::unreachable(session.base(), error))?;
            broken += u32::from(reply.status == 500);
            if reply.status == 500 && broken == BROKEN {
                warn!("salt-api has answered {path} with 500 {BROKEN} times. {BROKEN_SOCKET} Retrying meanwhile");
            }
            api::hook_answer(reply.status, &reply.body).map_err(|refusal| session.refused_or_lost(&path, refusal, reply.retry_after))?;
            Ok(None)
        });
        fired.or_else(|failure| came_through().map(Some).ok_or(failure))
    }

    /// A call that needs the session: if the session has died, a new one is opened, once. Where this salt-api does not answer any more and
    /// there is another, that one is logged in to.
    fn call<T>(
        &mut self,
        what: &str,
        wait: &Wait,
        mut attempt: impl FnMut(&mut Self, Duration) -> Result<T, RetryError>,
    ) -> Result<T, Failure> {
        let (mut reopened, mut moves) = (false, 0);
        loop {
            self.log_in(wait)?;
            let mut dead = false;
            let result = wait.retry(what, |tries| {
                let tried = attempt(self, timeout(tries, wait));
                match tried {
                    Err(RetryError::Transient(failure, _)) if self.has_another() => {
                        dead = true;
                        Err(RetryError::Permanent(failure))
                    }
                    other => other,
                }
            });
            if let (true, Err(failure)) = (dead && !wait.over(), &result) {
                self.token = None;
                self.url = (self.url + 1) % self.api.urls.len();
                info!("{}; logging in at {}", failure.message, self.base());
                moves += 1;
                if moves % self.api.urls.len() == 0 {
                    wait.pause(between_rounds(moves as u32))?;
                }
                continue;
            }
            // `refused_or_lost` drops the token of a session that has died.
            if self.token.is_some() || result.is_ok() || reopened {
                return result;
            }
            info!("the session with salt-api has ended: logging in again");
            reopened = true;
        }
    }

    fn post(&self, path: &str, body: &str, with_token: bool, timeout: Duration) -> Result<Reply, RetryError> {
        self.send(path, body, with_token, timeout).map_err(|error| advice::unreachable(self.base(), error))
    }

    fn send(&self, path: &str, body: &str, with_token: bool, timeout: Duration) -> Result<Reply, HttpError> {
        let url = self.base().below(path);
        let mut headers = vec![("Accept", "application/json"), ("Content-Type", "application/json")];
        if let Some(token) = self.token.as_ref().filter(|_| with_token) {
            headers.push(("X-Auth-Token", token.expose()));
        }
        self.client.send(&Request { method: "POST", url: &url, headers: &headers, body: body.as_bytes(), timeout })
    }

    /// Is there another salt-api that may be asked in place of this one?
    fn has_another(&self) -> bool {
        !self.pinned && self.api.urls.len() > 1
    }

    fn base(&self) -> &Url {
        &self.api.urls[self.url]
    }

    fn refused_or_lost(&mut self, what: &str, refusal: Refusal, retry_after: Option<Duration>) -> RetryError {
        if matches!(refusal, Refusal::Session | Refusal::TokenExpired) {
            self.token = None;
        }
        self.refused(what, refusal, retry_after)
    }

    fn refused(&self, what: &str, refusal: Refusal, retry_after: Option<Duration>) -> RetryError {
        // Whoever answers there may say back what it was told.
        let secrets = [self.api.password.as_ref(), self.token.as_ref()].into_iter().flatten();
        let refusal = secrets.fold(refusal, Refusal::without);
        advice::refused(self.base(), &self.api.username, &self.api.eauth, what, refusal, retry_after)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let Some(token) = self.token.take() else { return };
        let url = self.base().below("logout");
        let headers = [("Accept", "application/json"), ("X-Auth-Token", token.expose())];
        match self.client.send(&Request { method: "POST", url: &url, headers: &headers, body: b"", timeout: LOGOUT_TIMEOUT }) {
            Ok(_) => debug!("logged out"),
            Err(error) => warn!("could not log out of salt-api: {error}; the session ends by itself"),
        }
    }
}

/// How long a try may take, after so many others.
pub fn timeout(tries: u32, wait: &Wait) -> Duration {
    let most = TIMEOUTS[(tries as usize).min(TIMEOUTS.len() - 1)];
    most.min(wait.remaining()).max(AT_LEAST)
}

fn of_a_hook(timeout: Duration) -> Duration {
    timeout.min(HOOK_TIMEOUT)
}

fn between_rounds(moves: u32) -> Duration {
    LONGEST_ROUND.min(Duration::from_millis(500) * moves)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::retry::tests::{hour, patience};

    #[test]
    fn each_try_gets_more_as_long_as_there_is_time() {
        let hour = hour();
        assert_eq!([0, 1, 2, 9].map(|tries| timeout(tries, &hour).as_secs()), [15, 30, 60, 60]);
        assert!(timeout(2, &patience(Duration::from_secs(20))) <= Duration::from_secs(20));
        assert_eq!(timeout(0, &patience(Duration::ZERO)), AT_LEAST);
        assert_eq!([0, 2].map(|tries| of_a_hook(timeout(tries, &hour))), [HOOK_TIMEOUT; 2]);
        assert_eq!(of_a_hook(timeout(0, &patience(Duration::ZERO))), AT_LEAST);
    }

    #[test]
    fn all_of_them_are_asked_again_after_a_bounded_pause() {
        assert_eq!([2, 4].map(|moves| between_rounds(moves).as_secs()), [1, 2]);
        assert_eq!(between_rounds(u32::from(u16::MAX)), LONGEST_ROUND);
    }
}
