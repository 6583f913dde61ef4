//! The steps of a bootstrap, by name.

use std::fmt;

/// A step, as the log, the report and Heat name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepName {
    /// A random part of the splay passes.
    Splay,
    /// A copy of another machine gets rid of that one's key pair.
    KeyPair,
    /// Is all in place, and does the master still accept the minion?
    Look,
    /// The minion's key pair is made.
    Keys,
    /// The enrolment service lets the key in.
    Enroll,
    /// salt-api is asked for the master's fingerprint.
    Master,
    /// The program is installed.
    Install,
    /// The minion is configured and started.
    Configure,
    /// The units that end with the machine's life, or follow it, are put in place.
    Unit,
    /// The minion's start is waited for.
    Start,
    /// salt-api opens a session.
    Login,
    /// The key is accepted.
    Accept,
    /// The minion is connected.
    Connect,
    /// The enrolment service hears that the machine lives, and from now on expects that.
    Lease,
    /// The states run.
    States,
    /// The minion is stopped.
    Stop,
    /// The key is removed from the master.
    Deregister,
}

impl StepName {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            StepName::Splay => "splay",
            StepName::KeyPair => "key pair",
            StepName::Look => "look",
            StepName::Keys => "keys",
            StepName::Enroll => "enroll",
            StepName::Master => "master",
            StepName::Install => "install",
            StepName::Configure => "configure",
            StepName::Unit => "unit",
            StepName::Start => "start",
            StepName::Login => "login",
            StepName::Accept => "accept",
            StepName::Connect => "connect",
            StepName::Lease => "lease",
            StepName::States => "states",
            StepName::Stop => "stop",
            StepName::Deregister => "deregister",
        }
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
