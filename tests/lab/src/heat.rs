//! A stand-in for Heat: the signal endpoint of one `OS::Heat::WaitConditionHandle` with TOKEN_SIGNAL.
//!
//! This is not Heat. Its rules are what was measured with real Heat (openstack-heat 27.0.1 behind Keystone 30), above
//! all that **a 200 does not mean accepted**: the body is judged later, and a wrong one is lost without a word.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::http::{Answer, Request, Server};
use crate::tls::{Authority, Validity};

const PATH: &str = "/v1/2f1e0d9c8b7a46958473625140f1e2d3/stacks/web-stack/6f5902ac-2373-4bad-b4c6-3a5e1b1f7c1d/resources/handle/signal";
const TOKEN: &str = "gAAAAABstand-in-TOKEN-5b1d0c7e9f3a";
/// oslo.middleware's default max_request_body_size.
const LARGEST_BODY: usize = 1_048_576;

/// What Heat recorded of a signal.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// SUCCESS or FAILURE.
    pub status: String,
    /// The reason given, or Heat's own.
    pub reason: String,
    /// The id given, or a number.
    pub id: String,
    /// Anything.
    pub data: Value,
}

/// A request to the stand-in, and the status it was answered with (none: not answered).
#[derive(Clone, Debug)]
pub struct Received {
    /// The request.
    pub request: Request,
    /// The answer's status.
    pub answered: Option<u16>,
}

/// The stand-in.
pub struct StandIn {
    server: Server,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    signals: Vec<Signal>,
    requests: Vec<Received>,
    /// Statuses to give to the next requests without looking at them.
    failing: Vec<u16>,
    hanging: usize,
}

impl StandIn {
    /// Starts one over plain HTTP, as many a private cloud has it.
    pub fn start() -> Result<StandIn> {
        StandIn::serve(None)
    }

    /// Starts one over TLS.
    pub fn start_tls(authority: &Authority) -> Result<StandIn> {
        StandIn::serve(Some(authority.issue(&["127.0.0.1", "localhost"], Validity::Current)?.server_config()?))
    }

    fn serve(tls: Option<Arc<rustls::ServerConfig>>) -> Result<StandIn> {
        let state = Arc::new(Mutex::new(State::default()));
        let server = Server::start(tls, {
            let state = Arc::clone(&state);
            move |request| state.lock().unwrap().answer(request)
        })?;
        Ok(StandIn { server, state })
    }

    /// The handle's `endpoint`.
    pub fn endpoint(&self) -> String {
        self.endpoint_at(&self.server.url())
    }

    /// The handle's `endpoint` for who comes by way of another server, which has to pass on what it gets.
    pub fn endpoint_at(&self, url: &str) -> String {
        format!("{url}{PATH}")
    }

    /// Answers a request that came by another way.
    pub fn answer(&self, request: &Request) -> Answer {
        self.state.lock().unwrap().answer(request)
    }

    /// The handle's `token`.
    pub fn token(&self) -> &str {
        TOKEN
    }

    /// The handle's `curl_cli`.
    pub fn curl_cli(&self) -> String {
        format!(
            "curl -i -X POST -H 'X-Auth-Token: {TOKEN}' -H 'Content-Type: application/json' -H 'Accept: application/json' {}",
            self.endpoint()
        )
    }

    /// What a template hands to the agent as `signal`.
    pub fn handle(&self) -> Value {
        json!({"endpoint": self.endpoint(), "token": self.token()})
    }

    /// The signals that were recorded, in the order they came. Those that Heat loses are not among them.
    pub fn signals(&self) -> Vec<Signal> {
        self.state.lock().unwrap().signals.clone()
    }

    /// Every request, also those that were lost or made to fail.
    pub fn requests(&self) -> Vec<Received> {
        self.state.lock().unwrap().requests.clone()
    }

    /// The stack's status and its reason, for a WaitCondition `w` of this count.
    pub fn stack_status(&self, count: usize) -> (String, String) {
        let mut ids = BTreeSet::new();
        for signal in self.signals() {
            // The first failure is the stack's end, and so is the last id that was waited for.
            if signal.status == "FAILURE" {
                let reason = format!("Resource CREATE failed: WaitConditionFailure: resources.w: {}", signal.reason);
                return ("CREATE_FAILED".to_owned(), reason);
            }
            ids.insert(signal.id);
            if ids.len() >= count {
                return ("CREATE_COMPLETE".to_owned(), "Stack CREATE completed successfully".to_owned());
            }
        }
        ("CREATE_IN_PROGRESS".to_owned(), "Stack CREATE started".to_owned())
    }

    /// Answers the next n requests with this status, whatever they hold.
    pub fn fail_next(&self, n: usize, status: u16) {
        self.state.lock().unwrap().failing.extend(std::iter::repeat_n(status, n));
    }

    /// Leaves the next n requests without an answer.
    pub fn hang_next(&self, n: usize) {
        self.state.lock().unwrap().hanging += n;
    }

    /// Takes back what [`StandIn::fail_next`] and [`StandIn::hang_next`] still have in store.
    pub fn recover(&self) {
        let mut state = self.state.lock().unwrap();
        state.failing.clear();
        state.hanging = 0;
    }

    /// Down: connections are refused.
    pub fn set_down(&self, down: bool) {
        self.server.set_down(down);
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Answer {
        let status = self.status_for(request);
        self.requests.push(Received { request: request.clone(), answered: status });
        match status {
            None => Answer::Hang,
            Some(200) => Answer::json(200, &Value::Null),
            Some(status) => {
                let error = json!({"code": status, "title": "Stand-in", "explanation": "made by the test's stand-in"});
                Answer::json(status, &error)
            }
        }
    }

    fn status_for(&mut self, request: &Request) -> Option<u16> {
        if self.hanging > 0 {
            self.hanging -= 1;
            return None;
        }
        if !self.failing.is_empty() {
            return Some(self.failing.remove(0));
        }
        if request.body.len() > LARGEST_BODY {
            return Some(400);
        }
        if request.header("x-auth-token") != Some(TOKEN) {
            return Some(401);
        }
        // The token is good for its own handle only.
        if request.path != PATH {
            return Some(403);
        }
        if request.method != "POST" {
            return Some(405);
        }
        let details = if is_read_as_json(request) {
            let Ok(details) = serde_json::from_slice(&request.body) else {
                return Some(400);
            };
            details
        } else {
            Map::new()
        };
        self.signals.extend(judge(details, self.signals.len() + 1));
        Some(200)
    }
}

/// Heat looks at the body only under these types, and only if it begins with a brace; otherwise it is as good as empty.
fn is_read_as_json(request: &Request) -> bool {
    let content_type = request.header("content-type").unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    matches!(essence, "" | "text/plain" | "application/json") && request.body.starts_with(b"{")
}

/// What the engine makes of a body: what is missing is filled in, what is wrong loses the signal.
fn judge(mut details: Map<String, Value>, number: usize) -> Option<Signal> {
    if details.keys().any(|key| !matches!(key.as_str(), "status" | "reason" | "data" | "id")) {
        return None;
    }
    let status = details.remove("status").unwrap_or_else(|| "SUCCESS".into());
    if status != "SUCCESS" && status != "FAILURE" {
        return None;
    }
    Some(Signal {
        status: as_python_text(status),
        reason: details.remove("reason").map_or_else(|| format!("Signal {number} received"), as_python_text),
        id: details.remove("id").map_or_else(|| number.to_string(), as_python_text),
        data: details.remove("data").unwrap_or_default(),
    })
}

/// Heat is Python and calls str().
fn as_python_text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Null => "None".to_owned(),
        other => other.to_string(),
    }
}
