//! The lab's own way into salt-api, apart from the product's, so that the one can check the other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustls::crypto::ring;
use serde_json::{Map, Value, json};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// A salt-api that may be logged in to.
#[derive(Clone)]
pub struct Api {
    agent: Agent,
    url: String,
}

impl Api {
    /// The one at this URL, behind a certificate of this CA.
    pub fn new(url: &str, ca_pem: &str) -> Result<Api> {
        let ca = Certificate::from_pem(ca_pem.as_bytes())?;
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&[ca]))
            .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .proxy(None)
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .into();
        Ok(Api { agent, url: url.to_owned() })
    }

    /// Logs in.
    pub fn login(&self, username: &str, password: &str, eauth: &str) -> Result<Session> {
        let body = json!({"username": username, "password": password, "eauth": eauth});
        let answer = self.post("/login", None, &body)?;
        let token = answer["return"][0]["token"].as_str().context("a login without a token")?.to_owned();
        Ok(Session { api: self.clone(), token })
    }

    /// What is there for everybody, at whatever URL.
    pub fn get(&self, url: &str) -> Result<Value> {
        let mut response = self.agent.get(url).call().with_context(|| format!("GET {url}"))?;
        let text = response.body_mut().read_to_string()?;
        serde_json::from_str(&text).with_context(|| format!("GET {url}: {}: {text}", response.status()))
    }

    fn post(&self, path: &str, token: Option<&str>, body: &Value) -> Result<Value> {
        let url = format!("{}{path}", self.url);
        let mut request = self.agent.post(&url).header("Content-Type", "application/json").header("Accept", "application/json");
        if let Some(token) = token {
            request = request.header("X-Auth-Token", token);
        }
        let mut response = request.send(body.to_string()).with_context(|| format!("POST {url}"))?;
        let text = response.body_mut().read_to_string()?;
        if !response.status().is_success() {
            bail!("POST {url}: {}: {text}", response.status());
        }
        serde_json::from_str(&text).with_context(|| format!("POST {url}: no JSON: {text}"))
    }
}

/// Held while a hook is fired: two at the same moment break the event socket of a salt-api 3008 for good, and the tests that
/// share a master know nothing of each other.
pub fn one_hook() -> MutexGuard<'static, ()> {
    static HOOKS: Mutex<()> = Mutex::new(());
    HOOKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A login.
pub struct Session {
    api: Api,
    token: String,
}

impl Session {
    /// The session's X-Auth-Token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Runs a wheel function; the value is what the function itself returned.
    pub fn wheel(&self, fun: &str, arguments: Value) -> Result<Value> {
        let mut answer = self.low("wheel", fun, arguments)?;
        Ok(answer["data"]["return"].take())
    }

    /// Runs a runner function.
    pub fn runner(&self, fun: &str, arguments: Value) -> Result<Value> {
        self.low("runner", fun, arguments)
    }

    /// Runs a function on one minion and waits for it; null if the minion did not answer.
    pub fn local(&self, id: &str, fun: &str, arg: &[&str]) -> Result<Value> {
        let mut answer = self.low("local", fun, json!({"tgt": id, "tgt_type": "list", "arg": arg}))?;
        Ok(answer[id].take())
    }

    /// Fires a hook, when no other test does.
    pub fn hook(&self, path: &str, body: &Value) -> Result<Value> {
        let _alone = one_hook();
        self.hook_at_once(path, body)
    }

    /// Fires a hook, whoever else does.
    pub fn hook_at_once(&self, path: &str, body: &Value) -> Result<Value> {
        self.api.post(&format!("/hook/{path}"), Some(&self.token), body)
    }

    /// Ends it.
    pub fn log_out(self) -> Result<()> {
        self.api.post("/logout", Some(&self.token), &json!({})).map(drop)
    }

    fn low(&self, client: &str, fun: &str, arguments: Value) -> Result<Value> {
        let mut call = Map::from_iter([("client".to_owned(), client.into()), ("fun".to_owned(), fun.into())]);
        if let Value::Object(arguments) = arguments {
            call.extend(arguments);
        }
        let mut answer = self.api.post("/", Some(&self.token), &json!([call]))?;
        Ok(answer["return"][0].take())
    }
}
