//! The `minion` section of the configuration.

use serde_json::{Map, Value};

use super::config::RESERVED;
use crate::salt::public_key::{Fingerprint, PublicKey};
use crate::salt::settings::Accept;
use crate::types::names::MinionId;
use crate::types::references::References;
use crate::types::section::Section;

/// The `minion` section.
#[derive(Debug)]
pub struct MinionSettings {
    /// Its id.
    pub id: MinionId,
    /// The masters' addresses.
    pub masters: Vec<String>,
    /// How the master is known to be the right one.
    pub trust: Trust,
    /// How it is started.
    pub start: Start,
    /// Name or path of the program.
    pub program: String,
    /// The key pair came with the image, on purpose: a copy of this machine's disk keeps it.
    pub keep_key: bool,
    /// Further options.
    pub config: Map<String, Value>,
    /// Grains.
    pub grains: Map<String, Value>,
}

/// How the minion knows its master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// By a fingerprint that the configuration gives.
    Given(Fingerprint),
    /// By the fingerprint that salt-api states over verified TLS.
    AskApi,
    /// By the key that the enrolment service states, proved by the token.
    AskService,
    /// Whoever answers first is believed: said in so many words by the configuration.
    FirstUse,
}

/// How the minion is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Found out.
    Auto,
    /// By `systemctl`.
    Systemd,
    /// By the script in `/etc/init.d`.
    Sysv,
    /// By `salt-minion -d`.
    Direct,
}

/// Reads the section; every problem is listed.
pub fn minion(top: &Section, refs: &dyn References, accept: Accept) -> Option<MinionSettings> {
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
    Some(MinionSettings { id: id?, masters, trust, start: start.unwrap_or(Start::Auto), program, keep_key, config, grains })
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
