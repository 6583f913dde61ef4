//! What a look at something that a run depends on has shown.

use std::fmt;

use super::failure::{Failure, Kind};

/// What can be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The configuration.
    Configuration,
    /// The minion's program.
    Program,
    /// Where its package comes from.
    PackageSource,
    /// Whether another package manager works.
    PackageLocks,
    /// salt-api's name.
    ApiName,
    /// Its port.
    ApiPort,
    /// The enrolment service's name.
    ServiceName,
    /// Its port.
    ServicePort,
    /// The certificate that one of the two shows.
    Certificate,
    /// This machine's clock beside the master's.
    Clock,
    /// What the token is good for.
    Token,
    /// Whether salt-api lets the user in.
    Login,
    /// What the user may do.
    Permissions,
    /// The master's key.
    MasterKey,
    /// This machine's key, here and on the master.
    OwnKey,
    /// Whether a hook can be fired.
    Hook,
    /// A master's name.
    MasterName,
    /// Its port for keys and returns.
    MasterPort,
    /// Its port for jobs.
    PublishPort,
    /// Whether the minion runs and is connected.
    Minion,
    /// Whether Heat would take a signal.
    Heat,
}

impl Subject {
    /// Its name in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Subject::Configuration => "configuration",
            Subject::Program => "program",
            Subject::PackageSource => "package source",
            Subject::PackageLocks => "package locks",
            Subject::ApiName => "salt-api name",
            Subject::ApiPort => "salt-api port",
            Subject::ServiceName => "service name",
            Subject::ServicePort => "service port",
            Subject::Certificate => "certificate",
            Subject::Clock => "clock",
            Subject::Token => "token",
            Subject::Login => "login",
            Subject::Permissions => "permissions",
            Subject::MasterKey => "master's key",
            Subject::OwnKey => "own key",
            Subject::Hook => "hook",
            Subject::MasterName => "master name",
            Subject::MasterPort => "master port",
            Subject::PublishPort => "publish port",
            Subject::Minion => "minion",
            Subject::Heat => "heat",
        }
    }

    /// A row about the only one of its kind.
    pub fn alone(self) -> Row {
        self.of("")
    }

    /// A row about one of several: `detail` says which.
    pub fn of(self, detail: impl Into<String>) -> Row {
        Row { subject: self, detail: detail.into() }
    }
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What it is about.
    pub subject: Subject,
    /// Which one of several; empty for the only one.
    pub detail: String,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.subject.as_str())?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, " {}", self.detail) }
    }
}

/// One thing that was looked at, or that was meant to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub row: Row,
    /// How it is.
    pub state: State,
}

/// How a thing is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// As it has to be; the text says what was seen.
    Fine(String),
    /// A run would fail of it, in this way.
    Wrong(Failure),
    /// Nobody could look, or what was seen proves nothing either way; the text says why.
    Unknown(String),
    /// The look did not end in time.
    Late,
}

impl State {
    /// A look that succeeds with a sentence, or fails.
    pub fn of(result: Result<String, Failure>) -> State {
        result.map_or_else(State::Wrong, State::Fine)
    }

    /// The exit code that it stands for, if nothing before it stands for another.
    pub fn code(&self) -> Option<u8> {
        match self {
            State::Fine(_) | State::Unknown(_) => None,
            State::Wrong(failure) => Some(failure.kind.code()),
            State::Late => Some(Kind::OutOfTime.code()),
        }
    }
}

/// The exit code of the first thing that is wrong. Where nothing is, but a look did not end, nobody can say that all is well: then
/// the time that ran out is the code. What merely could not be looked at is no failure.
pub fn exit_code(findings: &[Finding]) -> u8 {
    let first = |wrong: bool| findings.iter().find(|one| matches!(one.state, State::Wrong(_)) == wrong && one.state.code().is_some());
    first(true).or_else(|| first(false)).and_then(|one| one.state.code()).unwrap_or(Kind::Done.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(states: Vec<State>) -> u8 {
        let findings: Vec<Finding> = states.into_iter().map(|state| Finding { row: Subject::Login.alone(), state }).collect();
        exit_code(&findings)
    }

    #[test]
    fn the_first_that_is_wrong_counts() {
        let (fine, unknown) = (State::Fine("f".into()), State::Unknown("u".into()));
        let wrong = |kind| State::Wrong(Failure::new(kind, "w"));
        assert_eq!(code(vec![]), 0);
        assert_eq!(code(vec![fine.clone(), unknown.clone()]), 0);
        assert_eq!(code(vec![fine.clone(), State::Late, unknown.clone()]), 60);
        assert_eq!(code(vec![State::Late, unknown, wrong(Kind::KeyConflict), wrong(Kind::Config), fine]), 42);
    }
}
