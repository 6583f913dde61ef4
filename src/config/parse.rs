//! Making settings of the merged configuration: every key is read here, every problem is listed.

use std::time::Duration;

use serde_json::Value;

use super::fragments::Merged;
use super::settings::{Accept, Api, Apply, Minion, Settings, Signal, Start, Trust};
use crate::heat::handle;
use crate::minion::config::RESERVED;
use crate::packages::settings::install;
use crate::salt::public_key::{Fingerprint, PublicKey};
use crate::salt::settings::{accept, enroll};
use crate::types::address::shown;
use crate::types::duration;
use crate::types::names::{HookPath, MinionId, StateName};
use crate::types::secret::Secret;
use crate::types::section::{Complaints, Section};

/// Texts that the configuration only refers to. Looking them up is the caller's effect.
pub trait References {
    /// The content of a file; the error is a sentence without the file's name.
    fn file(&self, path: &str) -> Result<Secret, String>;
    /// A credential handed over by the service manager, by its name.
    fn credential(&self, name: &str) -> Option<Secret>;
    /// The short host name.
    fn host_name(&self) -> String;
}

/// Shorter than this no run can even report.
const SHORTEST: Duration = Duration::from_secs(5);
/// Heat's own limit for the timeout of a wait condition (43,200 s).
const LONGEST: Duration = Duration::from_secs(43_200);
const DEFAULT_DEADLINE: Duration = Duration::from_secs(25 * 60);

impl Settings {
    /// Makes settings of the merged configuration, or says everything that is wrong with it.
    pub fn parse(merged: &Merged, refs: &dyn References) -> Result<Settings, Vec<String>> {
        let complaints = Complaints::about(merged);
        let settings = {
            let top = Section::top(merged, &complaints);
            let accept = accept(&top);
            let deregister_at_shutdown = top.choice("deregister", &[("never", false), ("at-shutdown", true)]).unwrap_or(false);
            let forget_secrets = top.truth("forget_secrets").unwrap_or(false);
            let apply = apply(&top, accept);
            let api = api(&top, refs, forget_secrets);
            let enroll = enroll(&top, refs, accept, forget_secrets);
            let minion = minion(&top, refs, accept);
            let install = install(&top, refs);
            let signal = signal(&top, refs, &complaints);
            let deadline = deadline(&top);
            let splay = splay(&top, deadline);
            let needs_api = match accept {
                Accept::Enroll => false,
                Accept::Wheel => true,
                Accept::Nobody => apply.is_some(),
            };
            if needs_api && !top.section("api").is_present() {
                top.complain("api", "is missing: accepting the key and triggering states need url, username and password");
            }
            if deregister_at_shutdown && forget_secrets && accept != Accept::Enroll {
                top.complain("forget_secrets", "would wipe the password with which deregister \"at-shutdown\" logs in: choose one of them");
            }
            top.finish();
            minion.zip(install).map(|(minion, install)| Settings {
                minion,
                install,
                api,
                accept,
                enroll,
                apply,
                signal,
                deregister_at_shutdown,
                forget_secrets,
                deadline,
                splay,
            })
        };
        match (complaints.into_lines(), settings) {
            (lines, Some(settings)) if lines.is_empty() => Ok(settings),
            (lines, _) => Err(lines),
        }
    }

    /// The signal part alone, from a configuration whose other parts may be wrong: Heat is told of
    /// a bad configuration too.
    pub fn parse_signal(merged: &Merged, refs: &dyn References) -> Option<Signal> {
        let complaints = Complaints::about(merged);
        signal(&Section::top(merged, &complaints), refs, &complaints)
    }
}

fn minion(top: &Section, refs: &dyn References, accept: Accept) -> Option<Minion> {
    let section = top.section("minion");
    let id = match section.value("id") {
        Some(_) => section.parsed("id", MinionId::parse),
        None => default_id(&section, refs),
    };
    let masters: Vec<String> = section.texts("master").into_iter().flatten().map(str::to_owned).collect();
    if section.value("master").is_none() {
        section.complain("master", "is missing: the address of the Salt master");
    }
    for master in &masters {
        if master.chars().any(|c| c.is_whitespace() || c == '/') || master.is_empty() {
            section.complain("master", format!("{master:?} is no host name or address"));
        }
    }
    let finger = section.parsed("master_finger", Fingerprint::parse);
    let key = section.parsed("master_public_key", |text| PublicKey::parse(text).map(|key| key.fingerprint()));
    let first_use = section.truth("trust_on_first_use");
    let trust = match (finger, key) {
        (Some(finger), Some(key)) if finger != key => {
            section.complain("master_finger", "is not the fingerprint of master_public_key: give the one that is right");
            Trust::Given(finger)
        }
        (Some(known), _) | (None, Some(known)) => Trust::Given(known),
        (None, None) if first_use == Some(true) => Trust::FirstUse,
        (None, None) if accept == Accept::Enroll => Trust::AskService,
        (None, None) => {
            if !top.section("api").is_present() {
                section.complain("master_finger", "is missing: without an api section nothing else says which master is the right one");
            }
            Trust::AskApi
        }
    };
    let start =
        section.choice("start", &[("auto", Start::Auto), ("systemd", Start::Systemd), ("sysv", Start::Sysv), ("direct", Start::Direct)]);
    let keep_key = section.truth("keep_key").unwrap_or(false);
    let program = section.text("program").unwrap_or("salt-minion").to_owned();
    let config = section.mapping("config").unwrap_or_default();
    for key in config.keys().filter(|key| RESERVED.contains(&key.as_str())) {
        section.complain(&format!("config.{key}"), format!("is set by this program: {}", instead_of(key)));
    }
    let grains = section.mapping("grains").unwrap_or_default();
    section.finish();
    Some(Minion { id: id?, masters, trust, start: start.unwrap_or(Start::Auto), program, keep_key, config, grains })
}

fn instead_of(key: &str) -> &'static str {
    match key {
        "id" => "use minion.id",
        "master" => "use minion.master",
        "master_finger" => "use minion.master_finger",
        "grains" => "use minion.grains",
        "root_dir" => "use --root",
        _ => "the result of the states is read from the job cache",
    }
}

fn default_id(section: &Section, refs: &dyn References) -> Option<MinionId> {
    let name = refs.host_name();
    if name.is_empty() || name == "localhost" {
        section.complain("id", format!("is missing, and the host name {name:?} cannot serve in its place: many machines have it"));
        return None;
    }
    MinionId::parse(&name)
        .map_err(|why| section.complain("id", format!("is missing, and the host name cannot serve in its place: {why}")))
        .ok()
}

fn api(top: &Section, refs: &dyn References, wiped: bool) -> Option<Api> {
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

/// The base URLs of a section, without a slash at the end.
pub fn urls(section: &Section, such_as: &str) -> Vec<String> {
    let urls: Vec<String> = section.texts("url").into_iter().flatten().map(|url| url.trim_end_matches('/').to_owned()).collect();
    if section.value("url").is_none() {
        section.complain("url", format!("is missing: such as {such_as}"));
    }
    for url in &urls {
        if let Err(why) = check_url(url) {
            section.complain("url", format!("{:?} {why}", shown(url)));
        }
    }
    urls
}

fn check_url(url: &str) -> Result<(), String> {
    let parsed: ureq::http::Uri = url.parse().map_err(|_| "is no URL".to_owned())?;
    match parsed.scheme_str() {
        Some("https") => {}
        Some("http") => return Err("is not encrypted: it has to be https://".into()),
        _ => return Err("is no https:// URL".into()),
    }
    if parsed.authority().is_none_or(|authority| authority.as_str().contains('@')) {
        return Err("holds a user name: give the base URL only".into());
    }
    if parsed.query().is_some() || url.contains('#') {
        return Err("holds a query or a fragment: give the base URL only".into());
    }
    Ok(())
}

/// A secret that stands in the configuration, in a file that it names, or in a credential under the key's path.
pub fn secret(section: &Section, key: &'static str, file_key: &'static str, refs: &dyn References) -> Option<Secret> {
    match (section.text(key), section.text(file_key)) {
        (Some(_), Some(_)) => {
            section.complain(file_key, format!("stands beside {key}: give one of them"));
            None
        }
        (Some(text), None) => Some(Secret::new(text)),
        (None, Some(path)) => match refs.file(path) {
            Ok(text) if text.expose().trim_end_matches(['\r', '\n']).is_empty() => {
                section.complain(file_key, format!("{path} is empty"));
                None
            }
            Ok(text) => Some(Secret::new(text.expose().trim_end_matches(['\r', '\n']))),
            Err(why) => {
                section.complain(file_key, format!("{path} cannot be read: {why}"));
                None
            }
        },
        (None, None) => refs.credential(&section.path_of(key)).map(|text| Secret::new(text.expose().trim_end_matches(['\r', '\n']))),
    }
}

/// A CA that stands in the configuration, or in a file that it names.
pub fn certificate(section: &Section, refs: &dyn References) -> Option<String> {
    let pem = match (section.text("ca"), section.text("ca_file")) {
        (Some(_), Some(_)) => {
            section.complain("ca_file", "stands beside ca: give one of them");
            return None;
        }
        (Some(pem), None) => ("ca", pem.to_owned()),
        (None, Some(path)) => match refs.file(path) {
            Ok(text) => ("ca_file", text.expose().to_owned()),
            Err(why) => {
                section.complain("ca_file", format!("{path} cannot be read: {why}"));
                return None;
            }
        },
        (None, None) => return None,
    };
    let (key, pem) = pem;
    let mut certificates = 0;
    for item in ureq::tls::parse_pem(pem.as_bytes()) {
        match item {
            Ok(ureq::tls::PemItem::Certificate(_)) => certificates += 1,
            Ok(_) => section.complain(key, "holds something else than certificates; a private key has no place here"),
            Err(why) => section.complain(key, format!("is no PEM: {why}")),
        }
    }
    if certificates == 0 {
        section.complain(key, "holds no certificate (-----BEGIN CERTIFICATE----- ...)");
    }
    Some(pem)
}

fn apply(top: &Section, accept: Accept) -> Option<Apply> {
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

fn signal(top: &Section, refs: &dyn References, complaints: &Complaints) -> Option<Signal> {
    let credential;
    let value = match top.value("signal") {
        Some(value) => value,
        None => {
            credential = Value::String(refs.credential("signal")?.expose().trim().to_owned());
            &credential
        }
    };
    let handle = handle::parse(value).map_err(|why| complaints.add("signal", why)).ok()??;
    if !value.is_object() {
        return Some(Signal { handle, ca: None, id: None });
    }
    let section = top.section("signal");
    let ca = certificate(&section, refs);
    let id = section.text("id").map(str::to_owned);
    Some(Signal { handle, ca, id })
}

fn deadline(top: &Section) -> Duration {
    let Some(span) = span_of(top, "deadline") else { return DEFAULT_DEADLINE };
    if span < SHORTEST || span > LONGEST {
        top.complain("deadline", "has to lie between 5s and 12h, which is also the longest that a wait condition waits");
    }
    span
}

fn splay(top: &Section, deadline: Duration) -> Duration {
    let span = span_of(top, "splay").unwrap_or_default();
    // What is left has to be enough for the work.
    if span > deadline / 2 {
        top.complain("splay", "may take half of the deadline at most");
    }
    span
}

/// Seconds, or a text such as 25m.
fn span_of(top: &Section, key: &'static str) -> Option<Duration> {
    match top.value(key)? {
        Value::Number(number) => {
            let seconds = number.as_u64();
            if seconds.is_none() {
                top.complain(key, "has to be a whole number of seconds, or a text such as 25m");
            }
            seconds.map(Duration::from_secs)
        }
        _ => top.parsed(key, duration::parse),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fragments::Fragment;
    use serde_json::json;

    struct Fixed;

    impl References for Fixed {
        fn file(&self, path: &str) -> Result<Secret, String> {
            if path == "/pw" { Ok(Secret::new("from-file\n")) } else { Err("No such file or directory".into()) }
        }
        fn credential(&self, name: &str) -> Option<Secret> {
            (name == "api.password").then(|| Secret::new("from-credential\n"))
        }
        fn host_name(&self) -> String {
            "host-7".into()
        }
    }

    fn parse(value: Value) -> Result<Settings, Vec<String>> {
        let Value::Object(keys) = value else { panic!("not a mapping") };
        Settings::parse(&Merged::of([Fragment { source: "config.json".into(), keys }]), &Fixed)
    }

    fn smallest() -> Value {
        json!({"minion": {"master": "salt"}, "api": {"url": "https://salt:8000/", "username": "boot"}})
    }

    #[test]
    fn the_smallest_configuration_gets_the_defaults() {
        let settings = parse(smallest()).unwrap();
        assert_eq!(settings.minion.id.as_str(), "host-7");
        assert_eq!(settings.minion.trust, Trust::AskApi);
        assert_eq!(settings.deadline, Duration::from_secs(1500));
        let api = settings.api.unwrap();
        assert_eq!(
            (api.urls[0].as_str(), api.password.unwrap().expose(), api.eauth.as_str()),
            ("https://salt:8000", "from-credential", "pam")
        );
        assert!(settings.apply.is_none() && settings.signal.is_none());
    }

    #[test]
    fn every_problem_is_listed_with_file_and_key() {
        let complaints = parse(json!({
            "minion": {"id": "web-*", "master": ["a", "b c"], "master_finger": "ab:cd", "colour": "red", "config": {"id": "x"}},
            "api": {"url": "http://salt:8000", "username": "boot", "password": "x", "password_file": "/pw", "ca": "nonsense"},
            "apply": {"states": ["a,b"], "hook": "../login", "matcher": "compound"},
            "accept": "maybe", "deadline": "soon", "signal": {"nothing": 1}, "extra": true
        }))
        .unwrap_err();
        for expected in [
            "config.json: minion.id: \"web-*\" holds '*'",
            "config.json: minion.master: \"b c\"",
            "config.json: minion.master_finger:",
            "config.json: minion.colour: unknown key; known here are config, grains, id",
            "config.json: minion.config.id: is set by this program: use minion.id",
            "config.json: api.url: \"http://salt:8000\" is not encrypted",
            "config.json: api.password_file: stands beside password",
            "config.json: api.ca: holds no certificate",
            "config.json: apply.states: \"a,b\"",
            "config.json: apply.hook:",
            "config.json: apply.matcher: \"compound\" is none of list, glob",
            "config.json: accept: \"maybe\" is none of enroll, wheel, none",
            "config.json: deadline: \"soon\"",
            "config.json: signal: holds no handle",
            "config.json: extra: unknown key",
        ] {
            assert!(complaints.iter().any(|line| line.starts_with(expected)), "{expected:?} is not in {complaints:#?}");
        }
    }

    #[test]
    fn complaints_are_bounded_and_hold_no_password() {
        let mut config = smallest();
        config["api"]["url"] = json!(["https://boot:geheim@salt:8000/", "https://salt:8000/?token=geheim"]);
        config["install"] = json!({"repository": {"url": "ftp://boot:geheim@mirror/"}});
        config["x\ny".repeat(1_000)] = json!(1);
        for n in 0..1_000 {
            config[format!("key-{n}")] = json!(n);
        }
        let complaints = parse(config).unwrap_err();
        assert_eq!((complaints.len(), complaints.last().unwrap().as_str()), (51, "and 954 more"), "{complaints:?}");
        let all = complaints.join("\n");
        assert!(!all.contains("geheim") && all.contains("https://***@salt:8000"), "{all}");
        assert!(complaints.iter().all(|line| line.len() < 1_100 && !line.contains('\n')));
    }

    #[test]
    fn secrets_come_from_files_and_never_stay_silent() {
        let mut value = smallest();
        value["api"]["password_file"] = json!("/pw");
        assert_eq!(parse(value.clone()).unwrap().api.unwrap().password.unwrap().expose(), "from-file");
        value["api"]["password_file"] = json!("/nowhere");
        assert_eq!(parse(value).unwrap_err(), ["config.json: api.password_file: /nowhere cannot be read: No such file or directory"]);
    }

    #[test]
    fn the_signal_part_is_read_from_a_bad_configuration() {
        let Value::Object(keys) = json!({"minion": 3, "signal": {"endpoint": "http://heat/x", "token": "t", "id": "n-1"}}) else {
            unreachable!()
        };
        let merged = Merged::of([Fragment { source: "a".into(), keys }]);
        assert!(Settings::parse(&merged, &Fixed).is_err());
        let signal = Settings::parse_signal(&merged, &Fixed).unwrap();
        assert_eq!((signal.handle.address(), signal.id.as_deref()), ("http://heat/x", Some("n-1")));
    }

    #[test]
    fn whoever_names_the_service_enrolls_by_it() {
        let token = format!("hsb2.0123456789abcdef.{}", "A".repeat(43));
        let config = json!({"minion": {"master": "salt"}, "enroll": {"url": "https://salt:8010/", "token": token},
            "apply": {"states": ["a"]}});
        let settings = parse(config.clone()).unwrap();
        assert_eq!((settings.accept, settings.minion.trust), (Accept::Enroll, Trust::AskService));
        let enroll = settings.enroll.unwrap();
        assert_eq!((enroll.urls, enroll.token.unwrap().name()), (vec!["https://salt:8010".to_owned()], "0123456789abcdef"));
        let complain = |section: &str, key: &str, value: Value| {
            let mut config = config.clone();
            config[section][key] = value;
            parse(config).unwrap_err().join("; ")
        };
        for (section, key, value, expected) in [
            ("enroll", "token", json!("hsb1.a.b"), "enroll.token: is no token"),
            ("enroll", "token", Value::Null, "enroll.token: is missing"),
            ("enroll", "url", json!("http://salt:8010"), "enroll.url: \"http://salt:8010\" is not encrypted"),
            ("enroll", "pin", json!("x"), "enroll.pin: unknown key"),
            ("apply", "hook", json!("states/state"), "apply.hook: is not used"),
            ("minion", "id", json!("a*"), "minion.id"),
        ] {
            let said = complain(section, key, value);
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn secrets_that_were_to_be_wiped_may_be_missing() {
        let config = json!({"minion": {"master": "salt", "id": "x"}, "forget_secrets": true, "enroll": {"url": "https://salt:8010"}});
        let settings = parse(config).unwrap();
        assert!(settings.enroll.unwrap().token.is_none() && settings.forget_secrets);
        let config = json!({"minion": {"master": "salt", "id": "x"}, "forget_secrets": true,
            "api": {"url": "https://salt:8000/", "username": "boot", "password": null}});
        assert!(parse(config).is_ok());
    }

    #[test]
    fn without_an_api_somebody_else_must_vouch_for_the_master() {
        let complaints = parse(json!({"minion": {"master": "salt"}, "accept": "none"})).unwrap_err();
        assert!(complaints[0].contains("minion.master_finger"), "{complaints:?}");
    }
}
