//! How the master is reached, how it accepts the key, and what it is asked to apply: `accept` and the sections `api`, `enroll` and `apply`.

use serde_json::{Map, Value};

use super::claim::Token;
use crate::types::names::{HookPath, StateName};
use crate::types::references::{References, certificate, secret, urls};
use crate::types::secret::Secret;
use crate::types::section::Section;
use crate::types::url::Url;

/// The `api` section.
#[derive(Debug)]
pub struct Api {
    /// Base URLs without a slash at the end.
    pub urls: Vec<Url>,
    /// Who logs in.
    pub username: String,
    /// With what; absent where it was wiped after use.
    pub password: Option<Secret>,
    /// Salt's word for the way of checking both.
    pub eauth: String,
    /// The CA that signed salt-api's certificate, as PEM; the system's if absent.
    pub ca: Option<String>,
}

/// The `enroll` section, for the enrolment service.
#[derive(Debug)]
pub struct Enroll {
    /// Base URLs without a slash at the end.
    pub urls: Vec<Url>,
    /// What proves that this machine may be let in; absent where it was wiped after use.
    pub token: Option<Token>,
    /// The CA that signed the service's certificate, as PEM, where the token pins no key; the system's if absent.
    pub ca: Option<String>,
}

/// The `accept` key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// By the enrolment service on the master, which answers.
    Enroll,
    /// By `wheel key.accept` with the API user's own permissions.
    Wheel,
    /// Not by this program: somebody or something else accepts it.
    Nobody,
}

/// The `apply` section.
#[derive(Debug)]
pub struct Apply {
    /// The hook to fire.
    pub hook: HookPath,
    /// The states to run.
    pub states: Vec<StateName>,
    /// How the reactor matches the minion's id.
    pub matcher: String,
    /// Pillar passed to the run.
    pub pillar: Map<String, Value>,
}

impl Apply {
    /// The states as the hook's `args` carries them.
    pub fn argument(&self) -> String {
        self.states.iter().map(StateName::as_str).collect::<Vec<_>>().join(",")
    }
}

/// Reads `accept`. Whoever names the enrolment service wants it.
pub fn accept(top: &Section) -> Accept {
    let ways = [("enroll", Accept::Enroll), ("wheel", Accept::Wheel), ("none", Accept::Nobody)];
    let service = top.section("enroll").value("url").is_some();
    top.choice("accept", &ways).unwrap_or(if service { Accept::Enroll } else { Accept::Wheel })
}

/// Reads `enroll`. Without a token nobody is let in, unless it was wiped after use.
pub fn enroll(top: &Section, refs: &dyn References, accept: Accept, wiped: bool) -> Option<Enroll> {
    let section = top.section("enroll");
    if accept != Accept::Enroll {
        if section.is_present() {
            top.complain("enroll", "belongs to accept \"enroll\", which is not set");
        }
        return None;
    }
    let given = secret(&section, "token", "token_file", refs);
    if given.is_none() && section.value("token").is_none() && section.value("token_file").is_none() && !wiped {
        let missing = "is missing: give token, token_file, or the systemd credential enroll.token";
        section.complain("token", format!("{missing}; `heat-bootstrap token create` on the master makes one"));
    }
    let token = given.and_then(|given| Token::parse(given.expose()).map_err(|why| section.complain("token", why)).ok());
    let urls = urls(&section, "https://salt.example.net:8010");
    let ca = certificate(&section, refs);
    section.finish();
    Some(Enroll { urls, token, ca })
}

/// Reads `api`.
pub fn api(top: &Section, refs: &dyn References, wiped: bool) -> Option<Api> {
    let section = top.section("api");
    if !section.is_present() {
        return None;
    }
    let urls = urls(&section, "https://salt.example.net:8000");
    let username = section.text("username");
    if section.value("username").is_none() {
        section.complain("username", "is missing");
    }
    let password = secret(&section, "password", "password_file", refs);
    if password.is_none() && !wiped && section.value("password").is_none() && section.value("password_file").is_none() {
        section.complain("password", "is missing: give password, password_file, or the systemd credential api.password");
    }
    let eauth = section.text("eauth").unwrap_or("pam").to_owned();
    let ca = certificate(&section, refs);
    section.finish();
    Some(Api { urls, username: username?.to_owned(), password, eauth, ca })
}

/// Reads `apply`.
pub fn apply(top: &Section, accept: Accept) -> Option<Apply> {
    let section = top.section("apply");
    if !section.is_present() {
        return None;
    }
    let hook = match section.value("hook") {
        Some(_) => section.parsed("hook", HookPath::parse),
        None => HookPath::parse("states/state").ok(),
    };
    if accept == Accept::Enroll && section.value("hook").is_some() {
        section.complain("hook", "is not used with accept \"enroll\": the enrolment service publishes the job itself");
    }
    let names: Vec<&str> = section.texts("states").into_iter().flatten().collect();
    if section.value("states").is_none() {
        section.complain("states", "is missing: the states to run, such as [\"memcached_v14\"]");
    }
    let mut states = Vec::new();
    for name in names {
        match StateName::parse(name) {
            Ok(state) => states.push(state),
            Err(why) => section.complain("states", why),
        }
    }
    // What the reactor may get as tgt_type and still name this minion by its id alone.
    let matcher = section.choice("matcher", &[("list", "list"), ("glob", "glob")]).unwrap_or("list").to_owned();
    let pillar = section.mapping("pillar").unwrap_or_default();
    section.finish();
    Some(Apply { hook: hook?, states, matcher, pillar })
}
