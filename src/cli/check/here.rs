//! What is on this machine: the program or the way to get it, and the minion that runs.

use super::board::Chain;
use crate::config::settings::Settings;
use crate::minion::connection;
use crate::minion::daemon::Minion;
use crate::minion::paths::MinionPaths;
use crate::packages::probe::{self, Need};
use crate::system::files::Root;
use crate::system::retry::Wait;
use crate::types::failure::{Failure, Kind};
use crate::types::finding::State;

/// Of a line of the log a person needs no more.
const MOST_WORDS: usize = 300;

/// The program, the source of its package, and who else installs something.
pub fn packages(chain: &mut Chain, settings: &Settings, root: &Root, wait: &Wait) -> Option<()> {
    let need = probe::program(&settings.install, &settings.minion.program, root, wait);
    let need = chain.found(need, |need| match need {
        Need::Nothing(detail) | Need::Program(_, detail) => detail.clone(),
    })?;
    match need {
        Need::Nothing(_) => {
            chain.put(State::Fine("not needed".into()));
            chain.put(State::Fine("not needed".into()))
        }
        Need::Program(system, _) => {
            chain.put(probe::source(&settings.install, &system));
            chain.put(probe::locks(&system))
        }
    }
}

/// The minion: does it run, is it connected, and what does its log say last?
pub fn minion(chain: &mut Chain, paths: &MinionPaths) -> Option<()> {
    let minion = Minion::found(paths.clone());
    let pid = minion.pids().first().copied();
    chain.put(verdict(Seen {
        configured: paths.drop_in.exists(),
        pid,
        connected: connection::probe(&minion).is_some(),
        ended: if pid.is_none() { Some(minion.ended()) } else { None },
        words: minion.last_words(),
        log: paths.log_file.display().to_string(),
        port: paths.publish_port,
    }))
}

/// What was seen of the minion.
struct Seen {
    configured: bool,
    pid: Option<i32>,
    connected: bool,
    ended: Option<Failure>,
    words: Option<String>,
    log: String,
    port: u16,
}

fn verdict(seen: Seen) -> State {
    let Seen { configured, pid, connected, ended, words, log, port } = seen;
    // Salt logs this as an error at each try, and it is none.
    let waits = words.as_ref().is_some_and(|words| words.contains("has cached the public key"));
    let with_words = |detail: String| match &words {
        Some(words) => format!("{detail}; the last error in {log}: {}", words.chars().take(MOST_WORDS).collect::<String>()),
        None => format!("{detail}; no error in {log}"),
    };
    match (pid, ended) {
        (None, _) if !configured => State::Fine("does not run yet: run configures and starts it".into()),
        // Salt's own words tell that another start would end as the last one did.
        (None, Some(failure)) if matches!(failure.kind, Kind::KeyRejected | Kind::MasterUntrusted) => {
            State::Wrong(Failure { message: with_words(failure.message), ..failure })
        }
        (None, _) => State::Unknown(with_words("is configured and does not run: run starts it".into())),
        (Some(pid), _) if connected => State::Fine(with_words(format!("runs (pid {pid}) and is connected to port {port}"))),
        (Some(pid), _) if !configured => State::Fine(with_words(format!("runs (pid {pid}) with another configuration: run adds its own"))),
        (Some(pid), _) if waits => State::Fine(with_words(format!("runs (pid {pid}) and waits to be accepted"))),
        (Some(pid), _) => State::Wrong(Failure::new(
            Kind::MinionNotConnected,
            with_words(format!("salt-minion runs (pid {pid}), but holds no connection to the master's publish port {port}")),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        Seen { configured: true, pid: Some(7), connected: false, ended: None, words: None, log: "LOG".into(), port: 4505 }
    }

    fn ended(kind: Kind) -> Option<Failure> {
        Some(Failure::new(kind, "salt-minion does not run"))
    }

    #[test]
    fn a_minion_that_runs() {
        assert!(
            matches!(verdict(Seen { connected: true, ..seen() }), State::Fine(detail) if detail.contains("connected") && detail.contains("no error"))
        );
        let waiting = Some("[ERROR   ] The Salt Master has cached the public key for this node".to_owned());
        assert!(matches!(verdict(Seen { words: waiting, ..seen() }), State::Fine(detail) if detail.contains("waits to be accepted")));
        assert!(
            matches!(verdict(Seen { configured: false, ..seen() }), State::Fine(detail) if detail.contains("with another configuration"))
        );
        let words = Some(format!("[ERROR] no route {}", "x".repeat(1_000)));
        let State::Wrong(failure) = verdict(Seen { words, ..seen() }) else { panic!("it is not connected") };
        assert_eq!(failure.kind, Kind::MinionNotConnected);
        assert!(failure.message.contains("no route") && failure.message.len() < 500, "{}", failure.message);
    }

    #[test]
    fn a_minion_that_does_not_run() {
        let gone = || Seen { pid: None, ended: ended(Kind::MinionNotConnected), ..seen() };
        assert!(matches!(verdict(Seen { configured: false, ..gone() }), State::Fine(_)));
        assert!(matches!(verdict(gone()), State::Unknown(detail) if detail.contains("run starts it")));
        for kind in [Kind::KeyRejected, Kind::MasterUntrusted] {
            assert!(matches!(verdict(Seen { ended: ended(kind), ..gone() }), State::Wrong(failure) if failure.kind == kind));
        }
    }
}
