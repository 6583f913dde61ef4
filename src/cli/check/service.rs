//! The enrolment service: the way there, and what this machine's token is good for. Nothing is counted for being asked.

use std::time::Duration;

use super::api::{ANSWER_TIMEOUT, skew};
use super::board::Chain;
use super::net;
use crate::bootstrap::enroll;
use crate::bootstrap::state::Store;
use crate::config::settings::Settings;
use crate::minion::keypair;
use crate::minion::paths::MinionPaths;
use crate::salt::claim::{Asked, Good, Token};
use crate::salt::enrolment::{Asking, Service};
use crate::salt::settings::Enroll;
use crate::system::clock;
use crate::system::retry::Wait;
use crate::types::failure::{Failure, Kind};
use crate::types::finding::State;
use crate::types::pin::Pinned;
use crate::types::time;

/// An answer without any work behind it; one that fails is asked for again only so long.
const ASKING: Duration = Duration::from_secs(5);

/// Name, port, certificate, clock and token at one of the URLs.
pub fn check(chain: &mut Chain, settings: &Settings, number: usize, paths: &MinionPaths, store: &Store, wait: &Wait) -> Option<()> {
    let enroll = settings.enroll.as_ref()?;
    let url = enroll.urls.get(number)?;
    let address = url.address();
    let addresses = net::name(chain, &address, Kind::ApiUnreachable)?;
    net::port(chain, &address, &addresses, Kind::ApiUnreachable)?;
    let greeted = Service::at(enroll, store.pin(), number).and_then(|service| service.probe(ANSWER_TIMEOUT).map(|time| (service, time)));
    let (mut service, time) = chain.found(greeted, |_| format!("{url} shows {}", known_by(enroll)))?;
    chain.put(skew(time, clock::now(), Kind::ApiTls));
    chain.put(token(settings, enroll, &mut service, paths, store, wait))
}

fn known_by(enroll: &Enroll) -> &'static str {
    match enroll.token.as_ref().and_then(Token::pin).map(|pin| pin.of) {
        Some(Pinned::Server) => "the key that the token pins",
        Some(Pinned::Authority) => "one of the CA that the token pins",
        None => "one that can be trusted",
    }
}

fn token(settings: &Settings, enroll: &Enroll, service: &mut Service, paths: &MinionPaths, store: &Store, wait: &Wait) -> State {
    let Some(token) = &enroll.token else {
        return State::Unknown("it was wiped after use: an enrolled minion needs none".to_owned());
    };
    let keys = match keypair::load(paths) {
        Ok(keys) => keys,
        Err(failure) => return State::Wrong(failure),
    };
    let bootstrap_id = enroll::last_bootstrap(store);
    let id = &settings.minion.id;
    let asking = Asking { keys: keys.as_ref(), id, bootstrap_id: &bootstrap_id };
    let states = settings.apply.as_ref().map_or(&[][..], |apply| &apply.states);
    match service.check(&asking, Asked::Check(token, states), &wait.slice(ASKING)) {
        Ok(good) => State::Fine(describe(token, id.as_str(), &good)),
        Err(failure) => State::Wrong(refused(failure)),
    }
}

fn describe(token: &Token, id: &str, good: &Good) -> String {
    let name = token.name();
    if good.already {
        return format!("{name} has let in the key of {id}, which is accepted");
    }
    format!("{name} is good for {id} until {}; uses left: {}", time::written(good.expires), good.uses_left)
}

/// Whoever looks is not told that it was refused something, but what a run would be refused.
fn refused(failure: Failure) -> Failure {
    let message = failure.message.replace("the enrolment service refuses check", "the enrolment service would refuse a run");
    Failure { message, ..failure }
}
