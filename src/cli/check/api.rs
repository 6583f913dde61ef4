//! salt-api: the way there, and what can be seen through it by somebody who is logged in.

use std::time::Duration;

use serde_json::json;

use super::board::Chain;
use super::net;
use crate::config::settings::{Leaving, Settings};
use crate::minion::connection;
use crate::minion::daemon::Minion;
use crate::minion::keypair;
use crate::minion::paths::MinionPaths;
use crate::minion::settings::Trust;
use crate::salt::key_state::Judgement;
use crate::salt::keys;
use crate::salt::permissions::{may_wheel, summary};
use crate::salt::public_key::{Fingerprint, PublicKey};
use crate::salt::session::Session;
use crate::salt::settings::{Accept, Api};
use crate::system::clock;
use crate::system::retry::Wait;
use crate::types::failure::{Failure, Kind};
use crate::types::finding::State;
use crate::types::names::HookPath;
use crate::types::time;

/// For an answer without any work behind it.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);
/// A hook is answered at once; one that fails is tried again only so long.
const FIRING: Duration = Duration::from_secs(5);
/// Certificates and tokens are good for longer than this, and clocks that nobody sets are off by more.
const MOST_SKEW: u64 = 300;
/// A tag outside of `heat-salt-bootstrap/`, since the reactor that the project ships hears everything below that.
const NOBODY_HEARS: (&str, &str) = ("heat-salt-bootstrap-check", "nobody-listens");

/// Name, port, certificate and clock of the salt-api at one of the URLs.
pub fn reached(chain: &mut Chain, settings: &Settings, number: usize) -> Option<()> {
    let api = settings.api.as_ref()?;
    let url = api.urls.get(number)?;
    let address = url.address();
    let addresses = net::name(chain, &address, Kind::ApiUnreachable)?;
    net::port(chain, &address, &addresses, Kind::ApiUnreachable)?;
    let greeted = Session::at(api, number).and_then(|session| session.probe(ANSWER_TIMEOUT));
    let distrusted = greeted.as_ref().is_err_and(|failure| failure.kind == Kind::ApiTls);
    match chain.found(greeted, |_| format!("{url} shows one that can be trusted")) {
        Some(date) => chain.put(skew(date.as_deref().and_then(time::http_date), clock::now(), Kind::LocalSystem)),
        None => {
            // A clock that is wrong makes good certificates bad ones, and the other way round.
            let detail = format!("it is {} here; no trusted server says what it should be", time::written(clock::now()));
            if distrusted {
                chain.put(State::Unknown(detail));
            }
            None
        }
    }
}

/// How far this machine's clock is from the one that has answered.
pub fn skew(there: Option<i64>, now: i64, kind: Kind) -> State {
    let here = time::written(now);
    let Some(there) = there else {
        return State::Unknown(format!("it is {here} here; the answer carries no time to compare it with"));
    };
    let (span, word) = (now.abs_diff(there), if now < there { "behind" } else { "ahead of" });
    match span {
        0..=2 => State::Fine(format!("{here}, as on the master's machine")),
        3..=MOST_SKEW => State::Fine(format!("{here}, {} {word} the master's machine", time::length(span))),
        _ => State::Wrong(
            Failure::new(kind, format!("the clock says {here} and is {} {word} the master's machine", time::length(span)))
                .hint("Set the one that is wrong, here with `chronyc makestep` or `timedatectl set-ntp true`: certificates and tokens are judged by it."),
        ),
    }
}

/// What can be seen through a session: at one of the URLs, or at the first that answers.
pub fn inside(chain: &mut Chain, settings: &Settings, number: Option<usize>, paths: &MinionPaths, wait: &Wait) -> Option<()> {
    let api = settings.api.as_ref()?;
    let opened = number.map_or_else(|| Session::new(api), |number| Session::at(api, number)).and_then(|mut session| {
        session.log_in(wait)?;
        Ok(session)
    });
    let mut session = chain.found(opened, |session| format!("{} is let in as {} at {}", api.username, api.eauth, session.url()))?;
    let ours = paths.public_key();
    let answers = Answers::by(&mut session, settings, ours.as_ref().ok().cloned().flatten(), wait);
    chain.put(permissions(&session, settings, api, &answers));
    chain.put(master(settings, paths, &answers));
    chain.put(own_key(settings, paths, ours, &answers));
    if settings.apply.is_some() {
        let (dir, name) = NOBODY_HEARS;
        let hook = HookPath::below(dir, name);
        let fired = session.hook::<()>(&hook, &json!({"check": settings.minion.id.as_str()}), &wait.slice(FIRING), || None);
        chain.found(fired, |_| {
            format!(
                "a test event ({}) was fired, which no reactor listens to; only a run shows whether one reacts to the real event",
                hook.tag()
            )
        })?;
    }
    Some(())
}

/// What the master says to this user; `None` for what it was not asked.
struct Answers {
    master: Option<Result<Fingerprint, Failure>>,
    key: Option<Result<Judgement, Failure>>,
}

impl Answers {
    /// Asks only what a run would ask, and what the user may ask for all that is known.
    fn by(session: &mut Session, settings: &Settings, ours: Option<PublicKey>, wait: &Wait) -> Answers {
        let may = |session: &Session, fun| may_wheel(session.permissions(), fun) == Some(true);
        let asks = settings.minion.trust == Trust::AskApi || may(session, "key.finger_master");
        let master = asks.then(|| keys::master_fingerprint(session, wait));
        let asks = settings.accept == Accept::Wheel || may(session, "key.print") || may(session, "key.finger");
        let key = asks.then(|| keys::inspect(session, &settings.minion.id, ours, wait));
        Answers { master, key }
    }
}

fn refused<T>(asked: Option<&Result<T, Failure>>) -> Option<&Failure> {
    asked.and_then(|answer| answer.as_ref().err()).filter(|failure| failure.kind == Kind::PermissionRefused)
}

/// What the user lacks, all at once: nobody likes to restart a master three times.
fn permissions(session: &Session, settings: &Settings, api: &Api, answers: &Answers) -> State {
    let (user, eauth, has) = (&api.username, &api.eauth, session.permissions());
    let (wheel, asks) = (settings.accept == Accept::Wheel, settings.minion.trust == Trust::AskApi);
    let master = refused(answers.master.as_ref()).filter(|_| asks);
    let key = refused(answers.key.as_ref()).filter(|_| wheel);
    // Not the user's fault: salt-api does not serve wheel at all.
    if let Some(failure) = master.into_iter().chain(key).find(|failure| !keys::lacks_permission(failure)) {
        return State::Wrong(failure.clone());
    }
    let says = |fun| may_wheel(has, fun);
    // What the login says of permissions may be incomplete (groups). It is believed where it knows what was seen to be so.
    let sees = says("key.print") == Some(true) || says("key.finger") == Some(true);
    let blind = says("key.print") == Some(false) && says("key.finger") == Some(false);
    let knows = if key.is_some() { blind } else { sees };
    let changes = [("key.accept", wheel), ("key.delete", wheel && settings.deregister == Leaving::AtShutdown)];
    let changes: Vec<&str> = changes.into_iter().filter(|(_, needed)| *needed).map(|(fun, _)| fun).collect();
    let mut lacks: Vec<&str> = changes.iter().copied().filter(|fun| knows && says(fun) == Some(false)).collect();
    lacks.extend(key.map(|_| "key.print"));
    lacks.extend(master.map(|_| "key.finger_master"));
    if !lacks.is_empty() {
        let lacks = lacks.join(", ");
        return State::Wrong(
            Failure::new(Kind::PermissionRefused, format!("user {user:?} may not call {lacks}; its permissions are {}", summary(has))).hint(
                format!(
                    "Give the user '@wheel': [{lacks}] below external_auth: {eauth}: {user}: in the master's configuration, and restart salt-master. \
                     key.finger_master is not needed if minion.master_finger is given, and none of them with the enrolment service (accept \"enroll\")."
                ),
            ),
        );
    }
    let unsure: Vec<&str> = changes.into_iter().filter(|fun| says(fun) != Some(true)).collect();
    let has = summary(has);
    match (wheel, asks) {
        (true, _) if unsure.is_empty() => State::Fine(format!("{user} has the permissions that accept \"wheel\" needs: {has}")),
        (true, _) => {
            State::Unknown(format!("only a call shows whether {user} may call {}; its permissions are {has}", unsure.join(" and ")))
        }
        (false, true) => {
            State::Fine(format!("{user} may ask for the master's fingerprint and needs nothing else; its permissions are {has}"))
        }
        (false, false) => State::Fine(format!("{user} needs none; its permissions are {has}")),
    }
}

fn master(settings: &Settings, paths: &MinionPaths, answers: &Answers) -> State {
    let shown = answers.master.as_ref().and_then(|asked| asked.as_ref().ok());
    let expected = match &settings.minion.trust {
        Trust::FirstUse => {
            return State::Fine(match paths.known_master() {
                Some(met) => format!("{}, trusted on first use", met.as_str()),
                None => "the first master that answers is trusted, as configured".to_owned(),
            });
        }
        Trust::Given(finger) => finger,
        // That one says it of itself when it is asked for more.
        Trust::AskService => return State::Unknown("the enrolment service tells it when the machine enrols".to_owned()),
        Trust::AskApi => match (shown, answers.master.as_ref().and_then(|asked| asked.as_ref().err())) {
            (Some(shown), _) => shown,
            (None, Some(failure)) if failure.kind != Kind::PermissionRefused => return State::Wrong(failure.clone()),
            (None, _) => return State::Unknown("this user may not see it".to_owned()),
        },
    };
    if let Some(shown) = shown.filter(|shown| *shown != expected) {
        return State::Wrong(
            Failure::new(
                Kind::MasterUntrusted,
                format!(
                    "salt-api says that the master's key has the fingerprint {}, the configuration expects {}",
                    shown.as_str(),
                    expected.as_str()
                ),
            )
            .hint("Compare both with `salt-key -F master` on the master, and correct minion.master_finger or minion.master_public_key."),
        );
    }
    if let Err(failure) = paths.check_master(Some(expected)) {
        return State::Wrong(failure);
    }
    let expected = expected.as_str();
    match (shown.is_some(), paths.known_master().is_some()) {
        (true, true) => State::Fine(format!("{expected}, by salt-api, and the minion has met it")),
        (true, false) => State::Fine(format!("{expected}, by salt-api")),
        (false, true) => State::Fine(format!("{expected}, by the configuration, and the minion has met it")),
        (false, false) => {
            State::Unknown(format!("{expected}, by the configuration; whether it is right shows when the minion meets the master"))
        }
    }
}

fn own_key(settings: &Settings, paths: &MinionPaths, ours: Result<Option<PublicKey>, Failure>, answers: &Answers) -> State {
    let ours = match ours.and_then(|ours| keypair::load(paths).map(|_| ours)) {
        Ok(ours) => ours,
        Err(failure) => return State::Wrong(failure),
    };
    let id = &settings.minion.id;
    let own = ours.as_ref().map_or_else(|| "this machine has none yet".to_owned(), |key| key.fingerprint().as_str().to_owned());
    match &answers.key {
        Some(Ok(Judgement::Accepted)) => State::Fine(format!("{own}, accepted on the master")),
        Some(Ok(Judgement::Pending)) if settings.accept == Accept::Nobody => {
            State::Unknown(format!("{own}, pending on the master until somebody accepts it"))
        }
        Some(Ok(Judgement::Pending)) => State::Fine(format!("{own}, pending on the master; run gets it accepted")),
        Some(Ok(_)) => State::Fine(format!("{own}; the master has no key of {id}")),
        Some(Err(failure)) if failure.kind == Kind::PermissionRefused => {
            State::Unknown(format!("{own}; this user may not see what the master has of {id}"))
        }
        Some(Err(failure)) => State::Wrong(failure.clone()),
        None if connection::probe(&Minion::found(paths.clone())).is_some() => {
            State::Fine(format!("{own}, accepted, since the minion is connected"))
        }
        None => State::Unknown(format!("{own}; this user may not see what the master has of {id} (`salt-key -f {id}` there)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_judged_by_its_distance() {
        let date = "Mon, 23 Nov 2026 22:46:39 GMT";
        let there = time::http_date(date).unwrap();
        for (here, says) in [(there + 1, "as on the master's"), (there + 200, "3 min ahead of"), (there - 30, "30 s behind")] {
            assert!(matches!(skew(Some(there), here, Kind::LocalSystem), State::Fine(detail) if detail.contains(says)), "{says}");
        }
        assert!(
            matches!(skew(Some(there), there - 86_400, Kind::LocalSystem), State::Wrong(failure) if failure.message.contains("24 h behind"))
        );
        assert!(matches!(skew(None, there, Kind::LocalSystem), State::Unknown(_)));
    }
}
