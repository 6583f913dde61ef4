//! The configuration, once it is known to be right: its fields cannot be wrong, and nobody asks
//! again. `settings_reader` makes it.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::heat::handle::Handle;
use crate::packages::os::Format;
use crate::packages::version::Wish;
use crate::salt::claim::Token;
use crate::salt::public_key::Fingerprint;
use crate::types::names::{HookPath, MinionId, StateName};
use crate::types::secret::Secret;

/// Everything a verb needs to know.
#[derive(Debug)]
pub struct Settings {
    /// The minion on this machine.
    pub minion: Minion,
    /// Where its program comes from.
    pub install: Install,
    /// How to reach salt-api; absent where nothing needs it.
    pub api: Option<Api>,
    /// How the key gets accepted.
    pub accept: Accept,
    /// The service that lets machines in; absent where another way is taken.
    pub enroll: Option<Enroll>,
    /// What to trigger; absent where the master does that by itself.
    pub apply: Option<Apply>,
    /// How to tell Heat; absent where there is no Heat.
    pub signal: Option<Signal>,
    /// Does the machine remove its own key when it is switched off?
    pub deregister_at_shutdown: bool,
    /// Are secrets wiped off the configuration once they have served?
    pub forget_secrets: bool,
    /// For the whole run, the report included.
    pub deadline: Duration,
    /// A random part of this passes before the master is asked anything.
    pub splay: Duration,
}

/// The `minion` section.
#[derive(Debug)]
pub struct Minion {
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

/// The `install` section.
#[derive(Debug)]
pub struct Install {
    /// Where the program comes from.
    pub source: Source,
    /// The version that has to be there.
    pub version: Option<Wish>,
}

/// Where the minion's program comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// From a package repository.
    Repository {
        /// Its URL; the Salt project's own if absent.
        url: Option<String>,
        /// The key that signs it.
        key: SigningKey,
    },
    /// From one package file.
    Package {
        /// Where it is, by https.
        url: String,
        /// What it is: .rpm or .deb.
        format: Format,
        /// The SHA-256 of its content, in lower-case hexadecimal.
        sha256: String,
    },
    /// It is there already.
    Preinstalled,
}

/// The public key of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SigningKey {
    /// Armoured, in the configuration or in a file that it names.
    Given(String),
    /// To be fetched over verified TLS.
    At(String),
}

/// The `api` section.
#[derive(Debug)]
pub struct Api {
    /// Base URLs without a slash at the end.
    pub urls: Vec<String>,
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
    pub urls: Vec<String>,
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

impl Settings {
    /// Does each URL of salt-api belong to a master of its own, in this order? So it is where there are as many of them as of
    /// masters; otherwise all URLs lead to the same key store, and one that answers is enough.
    pub fn one_api_for_each_master(&self) -> bool {
        let masters = self.minion.masters.len();
        masters > 1 && self.api.as_ref().is_some_and(|api| api.urls.len() == masters)
    }

    /// The same of the enrolment service's URLs.
    pub fn one_service_for_each_master(&self) -> bool {
        let masters = self.minion.masters.len();
        masters > 1 && self.enroll.as_ref().is_some_and(|enroll| enroll.urls.len() == masters)
    }
}

impl Apply {
    /// The states as the hook's `args` carries them.
    pub fn argument(&self) -> String {
        self.states.iter().map(StateName::as_str).collect::<Vec<_>>().join(",")
    }
}

/// The `signal` key.
#[derive(Debug)]
pub struct Signal {
    /// Where and how.
    pub handle: Handle,
    /// The CA that signed the endpoint's certificate, as PEM; the system's if absent.
    pub ca: Option<String>,
    /// Under which id; the minion's if absent.
    pub id: Option<String>,
}
