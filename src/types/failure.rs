//! Failures: a closed kind, a sentence, and facts. The exit code, the stable reason, the meaning
//! and the advice all come from the kind by exhaustive matches, so that a new kind cannot be
//! forgotten in one of them.
//!
//! Long, since each kind has its line in each of the tables, and whoever adds one wants to see them together.

use std::collections::BTreeMap;
use std::fmt;

/// Every way in which this program can end. The tens of the code name the part that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "reason() and meaning() below are the documentation, the same text that `explain` prints")]
pub enum Kind {
    Done,
    Config,
    Usage,
    NotRoot,
    PackageFailed,
    RepositoryUnreachable,
    PackageUntrusted,
    UnsupportedSystem,
    LocalSystem,
    PackageLocked,
    ApiUnreachable,
    ApiTls,
    LoginRefused,
    PermissionRefused,
    ApiProtocol,
    KeyNotSeen,
    KeyRejected,
    KeyConflict,
    MasterUntrusted,
    MinionNotConnected,
    NoReaction,
    StateFailed,
    StateNotRendered,
    StateTimeout,
    StatePending,
    OutOfTime,
    Interrupted,
    SignalUndelivered,
    Bug,
}

impl Kind {
    /// All of them, in the order of their codes.
    pub const ALL: [Kind; 29] = [
        Kind::Done,
        Kind::Config,
        Kind::Usage,
        Kind::NotRoot,
        Kind::PackageFailed,
        Kind::RepositoryUnreachable,
        Kind::PackageUntrusted,
        Kind::UnsupportedSystem,
        Kind::LocalSystem,
        Kind::PackageLocked,
        Kind::ApiUnreachable,
        Kind::ApiTls,
        Kind::LoginRefused,
        Kind::PermissionRefused,
        Kind::ApiProtocol,
        Kind::KeyNotSeen,
        Kind::KeyRejected,
        Kind::KeyConflict,
        Kind::MasterUntrusted,
        Kind::MinionNotConnected,
        Kind::NoReaction,
        Kind::StateFailed,
        Kind::StateNotRendered,
        Kind::StateTimeout,
        Kind::StatePending,
        Kind::OutOfTime,
        Kind::Interrupted,
        Kind::SignalUndelivered,
        Kind::Bug,
    ];

    /// The exit code.
    pub const fn code(self) -> u8 {
        match self {
            Kind::Done => 0,
            Kind::Config => 10,
            Kind::Usage => 11,
            Kind::NotRoot => 12,
            Kind::PackageFailed => 20,
            Kind::RepositoryUnreachable => 21,
            Kind::PackageUntrusted => 22,
            Kind::UnsupportedSystem => 23,
            Kind::LocalSystem => 24,
            Kind::PackageLocked => 25,
            Kind::ApiUnreachable => 30,
            Kind::ApiTls => 31,
            Kind::LoginRefused => 32,
            Kind::PermissionRefused => 33,
            Kind::ApiProtocol => 34,
            Kind::KeyNotSeen => 40,
            Kind::KeyRejected => 41,
            Kind::KeyConflict => 42,
            Kind::MasterUntrusted => 43,
            Kind::MinionNotConnected => 44,
            Kind::NoReaction => 50,
            Kind::StateFailed => 51,
            Kind::StateNotRendered => 52,
            Kind::StateTimeout => 53,
            Kind::StatePending => 54,
            Kind::OutOfTime => 60,
            Kind::Interrupted => 61,
            Kind::SignalUndelivered => 70,
            Kind::Bug => 90,
        }
    }

    /// The short stable word for scripts, Heat and people.
    pub const fn reason(self) -> &'static str {
        match self {
            Kind::Done => "done",
            Kind::Config => "config",
            Kind::Usage => "usage",
            Kind::NotRoot => "not-root",
            Kind::PackageFailed => "package-failed",
            Kind::RepositoryUnreachable => "repository-unreachable",
            Kind::PackageUntrusted => "package-untrusted",
            Kind::UnsupportedSystem => "unsupported-system",
            Kind::LocalSystem => "local-system",
            Kind::PackageLocked => "package-locked",
            Kind::ApiUnreachable => "api-unreachable",
            Kind::ApiTls => "api-tls",
            Kind::LoginRefused => "login-refused",
            Kind::PermissionRefused => "permission-refused",
            Kind::ApiProtocol => "api-protocol",
            Kind::KeyNotSeen => "key-not-seen",
            Kind::KeyRejected => "key-rejected",
            Kind::KeyConflict => "key-conflict",
            Kind::MasterUntrusted => "master-untrusted",
            Kind::MinionNotConnected => "minion-not-connected",
            Kind::NoReaction => "no-reaction",
            Kind::StateFailed => "state-failed",
            Kind::StateNotRendered => "state-not-rendered",
            Kind::StateTimeout => "state-timeout",
            Kind::StatePending => "state-pending",
            Kind::OutOfTime => "out-of-time",
            Kind::Interrupted => "interrupted",
            Kind::SignalUndelivered => "signal-undelivered",
            Kind::Bug => "bug",
        }
    }

    /// What it means, in one sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Kind::Done => "Everything holds, also when nothing had to change.",
            Kind::Config => "The configuration cannot be used.",
            Kind::Usage => "The command line is wrong.",
            Kind::NotRoot => "This needs root.",
            Kind::PackageFailed => "The package manager, or the program that it should have installed, failed.",
            Kind::RepositoryUnreachable => "The source of the package cannot be reached.",
            Kind::PackageUntrusted => "A signature or a checksum of the package is wrong.",
            Kind::UnsupportedSystem => "There is no way to install salt-minion on this system.",
            Kind::LocalSystem => "The file system or the service manager of this machine refused something.",
            Kind::PackageLocked => "Another package manager held its lock until the end.",
            Kind::ApiUnreachable => "salt-api, or the enrolment service, did not answer.",
            Kind::ApiTls => {
                "The TLS connection to salt-api, or to the enrolment service, cannot be trusted, or the clocks are too far apart."
            }
            Kind::LoginRefused => "salt-api refused the user, the password or the eauth.",
            Kind::PermissionRefused => "The API user, or the token, may not do what is needed.",
            Kind::ApiProtocol => "salt-api, or the enrolment service, answered something that it should not.",
            Kind::KeyNotSeen => "This minion's key never reached the master.",
            Kind::KeyRejected => "The master has rejected this minion's key.",
            Kind::KeyConflict => "Another key holds this minion id on the master.",
            Kind::MasterUntrusted => "The master that the minion met is not the one it should meet.",
            Kind::MinionNotConnected => "The minion's key is accepted, but the minion did not connect.",
            Kind::NoReaction => "The states were requested, but no job came of it.",
            Kind::StateFailed => "The states ran, and at least one failed.",
            Kind::StateNotRendered => "The states could not be run: not found, not rendered, no state in them, or the pillar has errors.",
            Kind::StateTimeout => "The states were still running when the time was up.",
            Kind::StatePending => "The states were only tested: changes are pending, and nothing was applied.",
            Kind::OutOfTime => "The deadline passed.",
            Kind::Interrupted => "The program was told to stop.",
            Kind::SignalUndelivered => "The work is done, but Heat could not be told.",
            Kind::Bug => "The program ran into something that should be impossible.",
        }
    }

    /// What to do about it, where the failure itself knows nothing better.
    pub const fn advice(self) -> &'static str {
        match self {
            Kind::Done => "Nothing.",
            Kind::Config => "Fix the keys named in the message; `heat-salt-bootstrap plan` checks without changing anything.",
            Kind::Usage => "See `heat-salt-bootstrap --help`.",
            Kind::NotRoot => "Run it as root, or give --root DIR with a directory of your own.",
            Kind::PackageFailed => "Run the command in the message by hand and read its output.",
            Kind::RepositoryUnreachable => {
                "Check name resolution, routes and proxy towards the repository, or name a mirror in install.repository.url."
            }
            Kind::PackageUntrusted => {
                "Compare install.repository.gpg_key or install.sha256 with what the source publishes; do not turn the check off."
            }
            Kind::UnsupportedSystem => "Put salt-minion into the image and set install.source to preinstalled.",
            Kind::LocalSystem => "Look at the message's file or service: space, permissions, read-only mounts, the service's own log.",
            Kind::PackageLocked => "See who holds the lock (the message names it); raise the deadline if it was only slow.",
            Kind::ApiUnreachable => {
                "From this machine try `curl -v API-URL/login`; check the address, the port (8000, or 8010 of the enrolment service), security groups, and that salt-api runs."
            }
            Kind::ApiTls => {
                "Give the CA that signed the certificate in api.ca or enroll.ca, or a token that pins the service's key; make sure the URL's name is in the certificate, and that the clock is right."
            }
            Kind::LoginRefused => {
                "On the master try `salt -a EAUTH` with the same user; check api.username, api.password and api.eauth against external_auth in the master's configuration."
            }
            Kind::PermissionRefused => {
                "With accept \"enroll\" see `heat-bootstrap audit ID` on the master. With \"wheel\" give the user '@wheel': [key.accept, key.print, key.finger, key.finger_master] in external_auth and name wheel in netapi_enable_clients."
            }
            Kind::ApiProtocol => {
                "Check that api.url leads to salt-api with rest_cherrypy, or enroll.url to the enrolment service, and not to a proxy or another service."
            }
            Kind::KeyNotSeen => {
                "Check that the minion runs (its log is /var/log/salt/minion) and reaches the master's ports 4505 and 4506."
            }
            Kind::KeyRejected => "On the master look at `salt-key -l rejected`; if the machine is yours, `salt-key -d ID` and run again.",
            Kind::KeyConflict => {
                "If this machine replaces an older one of the same name, remove the old key on the master with `salt-key -d ID` and run again; otherwise give it another minion.id."
            }
            Kind::MasterUntrusted => {
                "If the master was rebuilt, correct minion.master_finger and remove /etc/salt/pki/minion/minion_master.pub; if not, somebody answers in its place."
            }
            Kind::MinionNotConnected => "Read /var/log/salt/minion; check that the master's publish port (4505) can be reached from here.",
            Kind::NoReaction => {
                "On the master check that a reactor is configured for the tag in the message, that its file renders, and that it targets this minion id (`salt-run state.event pretty=True` shows the event)."
            }
            Kind::StateFailed => {
                "See the failing states in `heat-salt-bootstrap status`; try them here with `salt-call state.apply STATE`."
            }
            Kind::StateNotRendered => "Try `salt-call state.show_sls STATE` here; the message carries Salt's own words.",
            Kind::StateTimeout => "See what hangs with `salt-call saltutil.running`; raise the deadline if the states are only slow.",
            Kind::StatePending => "Take `test: True` away, in the minion's configuration or in the reactor, and run again.",
            Kind::OutOfTime => {
                "See which step took the time in `heat-salt-bootstrap status`; raise `deadline`, and with it the timeout of the wait condition."
            }
            Kind::Interrupted => "Run it again: it continues where it stopped.",
            Kind::SignalUndelivered => {
                "`heat-salt-bootstrap signal` sends the kept report again; a token or URL that has expired wants HEAT_SIGNAL in the template."
            }
            Kind::Bug => "Please report it with the output of `heat-salt-bootstrap status --json` and the log.",
        }
    }

    /// Finds a kind by its code or its reason, as a person types it.
    pub fn named(text: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.reason() == text || kind.code().to_string() == text)
    }
}

/// What is told beside a failure's sentence, by name: for whoever debugs, and for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    /// How often it was tried.
    Attempts,
    /// The fingerprint that the master should have.
    Expected,
    /// The fingerprint of a key.
    Fingerprint,
    /// The version that is there.
    Found,
    /// Who holds a lock.
    Holder,
    /// The job.
    Jid,
    /// The signal that ended a command.
    KilledBySignal,
    /// The fingerprint of the master that was met.
    Met,
    /// Where the minion's log lies.
    MinionLog,
    /// What it says last.
    MinionSays,
    /// What a repository has.
    Offered,
    /// What a command printed last.
    Output,
    /// What the user may not call.
    Permission,
    /// A process.
    Pid,
    /// The word of the enrolment service for why it refuses.
    Refused,
    /// What salt-api says of a refusal.
    SaltApiSays,
    /// How far the clock is off.
    SkewSeconds,
    /// The tag of an event.
    Tag,
    /// What a command is waiting for.
    Then,
    /// The fingerprint of a master that was believed at first sight.
    TrustedOnFirstUse,
    /// Whom it was about.
    Url,
}

impl Fact {
    /// Its name in the report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Fact::Attempts => "attempts",
            Fact::Expected => "expected",
            Fact::Fingerprint => "fingerprint",
            Fact::Found => "found",
            Fact::Holder => "holder",
            Fact::Jid => "jid",
            Fact::KilledBySignal => "killed_by_signal",
            Fact::Met => "met",
            Fact::MinionLog => "minion_log",
            Fact::MinionSays => "minion_says",
            Fact::Offered => "offered",
            Fact::Output => "output",
            Fact::Permission => "permission",
            Fact::Pid => "pid",
            Fact::Refused => "refused",
            Fact::SaltApiSays => "salt_api_says",
            Fact::SkewSeconds => "skew_seconds",
            Fact::Tag => "tag",
            Fact::Then => "then",
            Fact::TrustedOnFirstUse => "trusted_on_first_use",
            Fact::Url => "url",
        }
    }
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which of the closed kinds.
    pub kind: Kind,
    /// One sentence with the noun in it.
    pub message: String,
    /// Better advice than the kind's own.
    pub hint: Option<String>,
    /// Details.
    pub facts: BTreeMap<Fact, String>,
}

impl Failure {
    /// A failure with its sentence.
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), hint: None, facts: BTreeMap::new() }
    }

    /// Adds advice that fits better than the kind's own.
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a detail.
    pub fn fact(mut self, fact: Fact, value: impl Into<String>) -> Failure {
        self.facts.insert(fact, value.into());
        self
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.reason(), self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_reasons_are_unique_and_found_again() {
        for (position, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(Kind::named(kind.reason()), Some(kind));
            assert_eq!(Kind::named(&kind.code().to_string()), Some(kind));
            assert!(position == 0 || Kind::ALL[position - 1].code() < kind.code(), "{kind:?} is out of order");
        }
        assert_eq!(Kind::named("13"), None);
    }

    #[test]
    fn every_kind_tells_a_person_something() {
        for kind in Kind::ALL {
            assert!(kind.meaning().ends_with('.') && kind.advice().ends_with(['.', ')']), "{kind:?}");
        }
    }
}
