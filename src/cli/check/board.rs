//! The lines of `check`'s table and who looks at them: chains of looks, each in a thread of its own, all with the same end.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use crate::system::interrupt::Interrupt;
use crate::system::retry::Wait;
use crate::types::deadline::Deadline;
use crate::types::failure::Failure;
use crate::types::finding::{Finding, Row, State};

/// The looks end by then by themselves, and log out.
const LOOKING: Duration = Duration::from_secs(15);
/// Those that did not, since a name server does not answer, say, are not waited for. A person was promised 20 s.
const END: Duration = Duration::from_secs(18);

/// The table that is being filled.
pub struct Board {
    rows: Vec<Row>,
    states: Vec<Option<State>>,
    sender: Sender<(usize, State)>,
    heard: Receiver<(usize, State)>,
    wait: Wait,
    end: Deadline,
}

/// Looks that follow from each other: they fill lines that follow each other.
pub struct Chain {
    rows: Vec<Row>,
    first: usize,
    next: usize,
    broken: Option<usize>,
    sender: Sender<(usize, State)>,
}

impl Board {
    /// An empty one. Its time runs from now on.
    pub fn new() -> Board {
        let (sender, heard) = mpsc::channel();
        let wait = Wait::until(Deadline::after(LOOKING), Interrupt::default());
        Board { rows: Vec::new(), states: Vec::new(), sender, heard, wait, end: Deadline::after(END) }
    }

    /// A line that is known already.
    pub fn note(&mut self, row: Row, state: State) {
        self.rows.push(row);
        self.states.push(Some(state));
    }

    /// Lines that are going to be filled by these looks, which begin at once. Lines that they leave were not looked at.
    pub fn check(&mut self, rows: Vec<Row>, looks: impl FnOnce(&mut Chain, &Wait) -> Option<()> + Send + 'static) {
        let mut chain = Chain { rows: rows.clone(), first: self.rows.len(), next: 0, broken: None, sender: self.sender.clone() };
        self.states.extend(rows.iter().map(|_| None));
        self.rows.extend(rows);
        let wait = self.wait.clone();
        // Where no thread can be started the chain is dropped, and its lines say that nobody looked.
        let _ = thread::Builder::new().name("look".into()).spawn(move || looks(&mut chain, &wait));
    }

    /// Waits for all looks, or to the end.
    pub fn findings(self) -> Vec<Finding> {
        let Board { rows, mut states, sender, heard, end, .. } = self;
        drop(sender);
        while let Ok((row, state)) = heard.recv_timeout(end.remaining()) {
            states[row] = Some(state);
        }
        rows.into_iter().zip(states).map(|(row, state)| Finding { row, state: state.unwrap_or(State::Late) }).collect()
    }
}

impl Chain {
    /// Fills the next line. The rest can be looked at all the same.
    pub fn put(&mut self, state: State) -> Option<()> {
        if matches!(state, State::Wrong(_)) {
            self.broken = Some(self.next);
        }
        // Nobody listens any more once the time is up.
        let _ = self.sender.send((self.first + self.next, state));
        self.next += 1;
        Some(())
    }

    /// Fills the next line by what a look brought. Without that the rest cannot be looked at: `None`.
    pub fn found<T>(&mut self, looked: Result<T, Failure>, describe: impl FnOnce(&T) -> String) -> Option<T> {
        match looked {
            Ok(found) => {
                self.put(State::Fine(describe(&found)));
                Some(found)
            }
            Err(failure) => {
                self.put(State::Wrong(failure));
                None
            }
        }
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        let before = self.broken.and_then(|broken| self.rows.get(broken));
        let why = before.map_or_else(|| "nobody could look".to_owned(), |before| format!("skipped: needs the {before}"));
        while self.next < self.rows.len() {
            self.put(State::Unknown(why.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::failure::Kind;
    use crate::types::finding::Subject;

    fn rows(subjects: &[Subject]) -> Vec<Row> {
        subjects.iter().map(|subject| subject.alone()).collect()
    }

    #[test]
    fn lines_stand_in_the_order_in_which_they_were_announced() {
        let mut board = Board::new();
        board.note(Subject::Configuration.alone(), State::Fine("a".into()));
        board.check(rows(&[Subject::Program, Subject::PackageSource]), |chain, _| {
            thread::sleep(Duration::from_millis(30));
            chain.put(State::Fine("b".into()))?;
            chain.put(State::Fine("c".into()))
        });
        board.check(rows(&[Subject::Heat]), |chain, _| chain.put(State::Fine("d".into())));
        let describe: Vec<String> = board.findings().into_iter().map(|one| format!("{} {:?}", one.row, one.state)).collect();
        assert_eq!(describe, [r#"configuration Fine("a")"#, r#"program Fine("b")"#, r#"package source Fine("c")"#, r#"heat Fine("d")"#]);
    }

    #[test]
    fn what_follows_from_something_wrong_is_not_looked_at() {
        let mut board = Board::new();
        board.check(rows(&[Subject::ApiName, Subject::ApiPort, Subject::Login]), |chain, _| {
            chain.put(State::Fine("known".into()))?;
            chain.found(Err::<(), _>(Failure::new(Kind::ApiUnreachable, "closed")), |()| "open".into())?;
            panic!("the rest depends on it");
        });
        let findings = board.findings();
        assert!(matches!(findings[1].state, State::Wrong(_)));
        assert_eq!(findings[2].state, State::Unknown("skipped: needs the salt-api port".into()));
    }

    #[test]
    fn whoever_does_not_end_is_not_waited_for() {
        let mut board = Board::new();
        board.end = Deadline::after(Duration::from_millis(50));
        board.check(rows(&[Subject::ApiName, Subject::ApiPort]), |chain, _| {
            thread::sleep(Duration::from_secs(60));
            chain.put(State::Fine("too late".into()))
        });
        board.check(rows(&[Subject::Minion]), |chain, _| chain.put(State::Fine("here".into())));
        let states: Vec<State> = board.findings().into_iter().map(|one| one.state).collect();
        assert_eq!(states, [State::Late, State::Late, State::Fine("here".into())]);
    }
}
