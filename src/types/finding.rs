//! What a look at something that a run depends on has shown.

use super::failure::{Failure, Kind};

/// One thing that was looked at, or that was meant to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub what: String,
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
        let findings: Vec<Finding> = states.into_iter().map(|state| Finding { what: "x".into(), state }).collect();
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
