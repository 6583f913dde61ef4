//! What is on this machine: the program or the way to get it, and the minion that runs.

use super::board::Chain;
use crate::decide::settings::Settings;
use crate::machine::files::Root;
use crate::machine::patience::Patience;
use crate::service::minion::connection;
use crate::service::minion::daemon::Minion;
use crate::service::minion::place::Place;
use crate::service::packages::look::{self, Need};
use crate::words::failure::{Failure, Kind};
use crate::words::finding::State;

/// Of a line of the log a person needs no more.
const MOST_WORDS: usize = 300;

/// The program, the source of its package, and who else installs something.
pub fn packages(chain: &mut Chain, settings: &Settings, root: &Root, patience: &Patience) -> Option<()> {
    let need = look::program(&settings.install, &settings.minion.program, root, patience);
    let need = chain.found(need, |need| match need {
        Need::Nothing(said) | Need::Program(_, said) => said.clone(),
    })?;
    match need {
        Need::Nothing(_) => {
            chain.put(State::Fine("not needed".into()));
            chain.put(State::Fine("not needed".into()))
        }
        Need::Program(system, _) => {
            chain.put(look::source(&settings.install, &system));
            chain.put(look::locks(&system))
        }
    }
}

/// The minion: does it run, is it connected, and what does its log say last?
pub fn minion(chain: &mut Chain, place: &Place) -> Option<()> {
    let minion = Minion::found(place.clone());
    let pid = minion.pids().first().copied();
    let connected = connection::look(&minion).is_some();
    let ended = if pid.is_none() { Some(minion.ended()) } else { None };
    chain.put(judged(place, pid, connected, ended, minion.last_words()))
}

fn judged(place: &Place, pid: Option<i32>, connected: bool, ended: Option<Failure>, words: Option<String>) -> State {
    let configured = place.drop_in.exists();
    let words = words.map(|words| words.chars().take(MOST_WORDS).collect::<String>());
    let waits = words.as_ref().is_some_and(|words| words.contains("has cached the public key"));
    let with_words = |said: String| match &words {
        Some(words) => format!("{said}; the last error in {}: {words}", place.log_file.display()),
        None => format!("{said}; no error in {}", place.log_file.display()),
    };
    match (pid, ended) {
        (None, _) if !configured => State::Fine("does not run yet: run configures and starts it".into()),
        // Salt's own words tell that another start would end as the last one did.
        (None, Some(failure)) if matches!(failure.kind, Kind::KeyRejected | Kind::MasterUntrusted) => {
            State::Wrong(Failure { message: with_words(failure.message), ..failure })
        }
        (None, _) => State::Unknown(with_words("is configured and does not run: run starts it".into())),
        (Some(pid), _) if connected => State::Fine(with_words(format!("runs (pid {pid}) and is connected to port {}", place.publish_port))),
        (Some(pid), _) if !configured => {
            State::Fine(with_words(format!("runs (pid {pid}), by somebody else's configuration: run adds its own")))
        }
        (Some(pid), _) if waits => State::Fine(with_words(format!("runs (pid {pid}) and waits to be accepted"))),
        (Some(pid), _) => State::Wrong(Failure::new(
            Kind::MinionNotConnected,
            with_words(format!("runs (pid {pid}), but holds no connection to the master's publish port {}", place.publish_port)),
        )),
    }
}
