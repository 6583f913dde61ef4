//! The configuration, once it is known to be right: its fields cannot be wrong, and nobody asks
//! again. `parse` makes it, of parts that the rooms of their subjects read.

use std::time::Duration;

use crate::heat::settings::Signal;
use crate::minion::settings::MinionSettings;
use crate::packages::settings::Install;
use crate::salt::settings::{Accept, Api, Apply, Enroll};

/// When the minion's key is removed from the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// When an operator does it.
    Never,
    /// By the machine itself, when it is switched off. It comes back when it is switched on again.
    AtShutdown,
    /// By the master, when the machine has not said for long that it lives.
    WhenGone,
}

/// Everything a verb needs to know.
#[derive(Debug)]
pub struct Settings {
    /// The minion on this machine.
    pub minion: MinionSettings,
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
    /// When the machine's key leaves the master.
    pub deregister: Leaving,
    /// Are secrets wiped off the configuration once they have served?
    pub forget_secrets: bool,
    /// For the whole run, the report included.
    pub deadline: Duration,
    /// A random part of this passes before the master is asked anything.
    pub splay: Duration,
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
