//! A gate in front of salt-api and the enrolment service: passes everything on, keeps what passed, and knows the secrets that did.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lab::api::one_hook;
use lab::faults::Faulty;
use lab::http::{Answer, Request};
use lab::master::Master;
use lab::process::until;
use rustls::crypto::ring;
use serde_json::Value;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use crate::fixture::LONG;

/// The gate. It shows a certificate of the master's own CA.
pub struct Gate {
    /// Where things go wrong on the way to the gate, when a case wants that.
    pub faults: Faulty,
    passed: Arc<Mutex<Passed>>,
    /// Requests that were passed on and are not answered yet, whoever still waits for that.
    under_way: Arc<AtomicUsize>,
    upstream: Upstream,
}

/// Counts one as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn by(counter: &Arc<AtomicUsize>) -> Counted {
        counter.fetch_add(1, Ordering::SeqCst);
        Counted(Arc::clone(counter))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct Passed {
    requests: Vec<String>,
    tokens: Vec<String>,
    hooks: Vec<(String, Value)>,
    held: Option<String>,
    /// Hooks are answered with 500, and each goes out with the next one.
    broken: bool,
    late: Option<Request>,
    /// Hooks are answered with 500, and none goes out.
    dead: bool,
    then: Option<(String, Box<dyn FnOnce() + Send>)>,
}

#[derive(Clone)]
struct Upstream {
    agent: Agent,
    url: String,
    service: String,
}

impl Gate {
    /// Opens a gate in front of this master.
    pub fn open(master: &Master) -> Gate {
        let upstream = Upstream::of(master);
        let passed = Arc::new(Mutex::new(Passed::default()));
        let under_way = Arc::new(AtomicUsize::new(0));
        let answer = {
            let (upstream, passed, counter) = (upstream.clone(), Arc::clone(&passed), Arc::clone(&under_way));
            move |request: &Request| {
                let _counted = Counted::by(&counter);
                let mut seen = passed.lock().unwrap();
                let what = described(request);
                seen.requests.push(what.clone());
                if seen.held.as_ref() == Some(&what) {
                    return Answer::Hang;
                }
                drop(seen);
                let hook = request.path.strip_prefix("/hook/");
                if let Some(hook) = hook {
                    let mut passed = passed.lock().unwrap();
                    passed.hooks.push((hook.to_owned(), request.json()));
                    if passed.dead {
                        return Answer::cherrypy_error(500, "An unexpected error occurred");
                    }
                    if passed.broken {
                        let late = passed.late.replace(request.clone());
                        drop(passed);
                        if let Some(late) = late {
                            let _alone = one_hook();
                            upstream.ask(&late);
                        }
                        return Answer::cherrypy_error(500, "An unexpected error occurred");
                    }
                }
                let _alone = hook.map(|_| one_hook());
                // As a server that is being killed: the connection ends without a word.
                let Some(Said { status, headers, body }) = upstream.ask(request) else {
                    return Answer::Raw(Vec::new());
                };
                let then = passed.lock().unwrap().then.take_if(|(request, _)| *request == what);
                if let Some((_, act)) = then {
                    act();
                }
                if status == 200 && request.path == "/login" {
                    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
                    let token = answer["return"][0]["token"].as_str().unwrap();
                    passed.lock().unwrap().tokens.push(token.to_owned());
                }
                Answer::Reply { status, headers, body: body.into_bytes() }
            }
        };
        let faults = Faulty::start(master.authority(), answer).unwrap();
        Gate { faults, passed, under_way, upstream }
    }

    /// The URL that leads through the gate.
    pub fn url(&self) -> String {
        self.faults.url()
    }

    /// Lets nothing of this kind pass from now on, as [`Gate::requests`] names it; its sender waits for an answer.
    pub fn hold(&self, request: Option<&str>) {
        self.passed.lock().unwrap().held = request.map(str::to_owned);
    }

    /// Waits until everything that was passed on is answered: what somebody gave up on may still change something.
    #[track_caller]
    pub fn await_quiet(&self) {
        until(LONG, || (self.under_way.load(Ordering::SeqCst) == 0).then_some(())).expect("what was passed on is answered");
    }

    /// From now on hooks meet a salt-api whose event socket is broken.
    pub fn break_hooks(&self) {
        self.passed.lock().unwrap().broken = true;
    }

    /// Whether hooks meet a salt-api that answers each with 500, until somebody restarts it.
    pub fn kill_hooks(&self, dead: bool) {
        self.passed.lock().unwrap().dead = dead;
    }

    /// Does this once, between the next answer to such a request and its reader.
    pub fn then(&self, request: &str, act: impl FnOnce() + Send + 'static) {
        self.passed.lock().unwrap().then = Some((request.to_owned(), Box::new(act)));
    }

    /// What was asked: `POST /login`, `key.print`, `POST /hook/...`.
    pub fn requests(&self) -> Vec<String> {
        self.passed.lock().unwrap().requests.clone()
    }

    /// The hooks that were fired, with what they carried, as everybody may read it on the event bus.
    pub fn hooks(&self) -> Vec<(String, Value)> {
        self.passed.lock().unwrap().hooks.clone()
    }

    /// The tokens of the sessions that were opened.
    pub fn tokens(&self) -> Vec<String> {
        self.passed.lock().unwrap().tokens.clone()
    }

    /// Does a session live?
    pub fn is_alive(&self, token: &str) -> bool {
        let probe = Request {
            method: "POST".to_owned(),
            path: "/".to_owned(),
            headers: vec![("x-auth-token".to_owned(), token.to_owned())],
            body: br#"[{"client":"wheel","fun":"key.finger_master"}]"#.to_vec(),
        };
        let said = self.upstream.ask(&probe).expect("salt-api answers");
        // "No permission -- see authorization schemes" where nothing is known of the session; of a user who may not do this, "for user NAME".
        // A question that comes while the logout is under way keeps the session, and what that remembers is a token that is revoked.
        said.status != 401 || said.body.contains("for user")
    }
}

impl Upstream {
    fn of(master: &Master) -> Upstream {
        let ca = ureq::tls::Certificate::from_pem(master.authority().ca_pem().as_bytes()).unwrap();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&[ca]))
            .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .proxy(None)
            .http_status_as_error(false)
            .max_idle_connections(0)
            .timeout_global(Some(Duration::from_secs(200)))
            .build()
            .into();
        Upstream { agent, url: master.api_url(), service: master.service_url() }
    }

    fn ask(&self, request: &Request) -> Option<Said> {
        let base = if request.path.starts_with("/v1/") { &self.service } else { &self.url };
        let url = format!("{base}{}", request.path);
        let mut passed_on =
            ureq::http::Request::builder().method(request.method.as_str()).uri(url).header("content-type", "application/json");
        for name in ["x-auth-token", "accept"] {
            if let Some(value) = request.header(name) {
                passed_on = passed_on.header(name, value);
            }
        }
        let mut answer = self.agent.run(passed_on.body(request.body.clone()).unwrap()).ok()?;
        let header = |name: &str| Some((name.to_owned(), answer.headers().get(name)?.to_str().ok()?.to_owned()));
        let headers = ["content-type", "date", "retry-after"].into_iter().filter_map(header).collect();
        let body = answer.body_mut().read_to_string().ok()?;
        Some(Said { status: answer.status().as_u16(), headers, body })
    }
}

/// What was answered.
struct Said {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// A wheel call by its function, everything else by its method and path.
pub fn described(request: &Request) -> String {
    match request.json()[0]["fun"].as_str() {
        Some(fun) => fun.to_owned(),
        None => format!("{} {}", request.method, request.path),
    }
}
