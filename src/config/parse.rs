//! Making settings of the merged configuration: every key is read here, every problem is listed.

use std::time::Duration;

use super::fragments::Merged;
use super::settings::{Leaving, Settings};
use crate::heat::settings::{Signal, signal};
use crate::minion::settings::minion;
use crate::packages::settings::install;
use crate::salt::settings::{Accept, accept, api, apply, enroll};
use crate::types::references::{References, duration};
use crate::types::section::{Complaints, Section};

/// Shorter than this no run can even report.
const SHORTEST: Duration = Duration::from_secs(5);
/// Heat's own limit for the timeout of a wait condition (43,200 s).
pub const LONGEST: Duration = Duration::from_secs(43_200);
/// Long enough for a slow mirror and long states, and less than the half hour for which many templates wait.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(25 * 60);

impl Settings {
    /// Makes settings of the merged configuration, or says everything that is wrong with it.
    pub fn parse(merged: &Merged, refs: &dyn References) -> Result<Settings, Vec<String>> {
        let complaints = Complaints::about(merged);
        let settings = {
            let top = Section::top(&merged.keys, &complaints);
            let accept = accept(&top);
            let ways = [("never", Leaving::Never), ("at-shutdown", Leaving::AtShutdown), ("when-gone", Leaving::WhenGone)];
            let deregister = top.choice("deregister", &ways).unwrap_or(Leaving::Never);
            let forget_secrets = top.truth("forget_secrets").unwrap_or(false);
            let apply = apply(&top, accept);
            let api = api(&top, refs, forget_secrets);
            let enroll = enroll(&top, refs, accept, forget_secrets);
            let minion = minion(&top, refs, accept);
            let install = install(&top, refs, forget_secrets);
            let signal = signal(&top, refs);
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
            if deregister == Leaving::WhenGone && accept != Accept::Enroll {
                top.complain("deregister", "\"when-gone\" needs the enrolment service, which knows who lives: accept \"enroll\"");
            }
            if deregister == Leaving::AtShutdown && forget_secrets && accept != Accept::Enroll {
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
                deregister,
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
        signal(&Section::top(&merged.keys, &complaints), refs)
    }
}

fn deadline(top: &Section) -> Duration {
    let Some(span) = duration(top, "deadline") else { return DEFAULT_DEADLINE };
    if span < SHORTEST || span > LONGEST {
        top.complain("deadline", "has to lie between 5s and 12h, which is also the longest that a wait condition waits");
    }
    span
}

fn splay(top: &Section, deadline: Duration) -> Duration {
    let span = duration(top, "splay").unwrap_or_default();
    // What is left has to be enough for the work.
    if span > deadline / 2 {
        top.complain("splay", "may take half of the deadline at most");
    }
    span
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fragments::Fragment;
    use crate::minion::settings::Trust;
    use crate::types::secret::Secret;
    use crate::types::url::Url;
    use serde_json::{Value, json};

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
            (api.urls[0].expose(), api.password.unwrap().expose(), api.eauth.as_str()),
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
    fn a_deadline_lies_between_two_bounds() {
        let parsed = |span: Duration| {
            let mut config = smallest();
            config["deadline"] = json!(format!("{}s", span.as_secs()));
            parse(config).map(|settings| settings.deadline)
        };
        let second = Duration::from_secs(1);
        assert_eq!([SHORTEST, LONGEST].map(|span| parsed(span).unwrap()), [SHORTEST, LONGEST]);
        assert!([SHORTEST - second, LONGEST + second].into_iter().all(|span| parsed(span).is_err()));
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
        assert_eq!((signal.handle.address().expose(), signal.id.as_deref()), ("http://heat/x", Some("n-1")));
    }

    #[test]
    fn whoever_names_the_service_enrolls_by_it() {
        let token = format!("hsb2.0123456789abcdef.{}", "A".repeat(43));
        let config = json!({"minion": {"master": "salt"}, "enroll": {"url": "https://salt:8010/", "token": token},
            "apply": {"states": ["a"]}});
        let settings = parse(config.clone()).unwrap();
        assert_eq!((settings.accept, settings.minion.trust), (Accept::Enroll, Trust::AskService));
        let enroll = settings.enroll.unwrap();
        assert_eq!((enroll.urls, enroll.token.unwrap().name()), (vec![Url::parse("https://salt:8010").unwrap()], "0123456789abcdef"));
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
