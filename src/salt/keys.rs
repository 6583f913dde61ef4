//! The minion's key on the master: exactly ours is accepted, and it is made sure that it was.

use std::time::Duration;

use serde_json::json;
use tracing::{debug, warn};

use super::key_state::{Judgement, KeyState};
use super::public_key::{Fingerprint, PublicKey};
use super::session::Session;
use crate::system::retry::Wait;
use crate::types::failure::{Fact, Failure, Kind};
use crate::types::names::MinionId;

/// So often a key is accepted before it is thought to stay as it is.
const ACCEPTS: u32 = 5;
/// How often the master is asked for a key that did not arrive at once.
const REMOTE: Duration = Duration::from_millis(400);

/// The master's fingerprint, as salt-api states it over verified TLS.
pub fn master_fingerprint(session: &mut Session, wait: &Wait) -> Result<Fingerprint, Failure> {
    // The hash is named, since the master's own default may be another than the minion's.
    let returned = session.wheel("key.finger_master", &json!({"hash_type": "sha256"}), wait).map_err(|failure| {
        if !lacks_permission(&failure) {
            return failure;
        }
        failure.hint("Give the user key.finger_master, or set minion.master_finger (salt-key -F master) or minion.master_public_key, so that the master need not be asked.")
    })?;
    let text = returned["local"]["master.pub"].as_str().unwrap_or_default();
    Fingerprint::parse(text).map_err(|why| Failure::new(Kind::ApiProtocol, format!("key.finger_master returned {returned}: {why}")))
}

/// Is it the user who lacks the permission, and not salt-api that does not serve wheel at all?
pub fn lacks_permission(failure: &Failure) -> bool {
    failure.kind == Kind::PermissionRefused && failure.facts.contains_key(&Fact::Permission)
}

/// Gets the key `ours` accepted, and no other, once it has reached the master. As long as it has not, `can_still_come` is asked, and
/// fails if the minion that has to show the key will not come up any more. Says whether that changed anything.
pub fn accept(
    session: &mut Session,
    id: &MinionId,
    ours: PublicKey,
    mut can_still_come: impl FnMut() -> Result<(), Failure>,
    wait: &Wait,
) -> Result<bool, Failure> {
    let mut look = Look::new(id, Some(ours));
    let missing = format!("the key of {id} has not reached the master yet");
    let judgement = wait.poll_aloud(REMOTE, &missing, || {
        let judgement = look.at_master(session, wait)?;
        if judgement == Judgement::Absent {
            return can_still_come().map(|()| None);
        }
        Ok(Some(judgement))
    })?;
    match judgement {
        None | Some(Judgement::Absent) => return Err(look.not_seen()),
        Some(Judgement::Pending) => {}
        Some(Judgement::Accepted) => return Ok(false),
        Some(other) => return Err(look.refused(other)),
    }
    for _ in 0..ACCEPTS {
        accept_exactly(session, id, wait)?;
        // Neither the reply's success nor what it returned proves anything: look again.
        match look.at_master(session, wait)? {
            Judgement::Accepted => return Ok(true),
            // A busy master that was just answering the minion writes its key down as pending once more (3008).
            Judgement::Pending => wait.pause(REMOTE)?,
            Judgement::Absent => return Err(look.not_seen()),
            other => return Err(look.refused(other)),
        }
    }
    Err(Failure::new(Kind::ApiProtocol, format!("key.accept was answered {ACCEPTS} times, but the key of {id} is still pending"))
        .hint("See the master's log; its key directory may be read-only or full."))
}

/// Looks at what lies on the master under this id, and leaves it as it is. What `accept` would fail of is a failure here too. `ours`
/// is the key of this machine, if it has one yet.
pub fn inspect(session: &mut Session, id: &MinionId, ours: Option<PublicKey>, wait: &Wait) -> Result<Judgement, Failure> {
    let mut look = Look::new(id, ours);
    match look.at_master(session, wait)? {
        fine @ (Judgement::Absent | Judgement::Pending | Judgement::Accepted) => Ok(fine),
        other => Err(look.refused(other)),
    }
}

/// Removes this minion's own key from the master, and no other. Says whether there was one.
pub fn remove(session: &mut Session, id: &MinionId, ours: PublicKey, wait: &Wait) -> Result<bool, Failure> {
    let mut look = Look::new(id, Some(ours));
    match look.at_master(session, wait)? {
        Judgement::Absent => return Ok(false),
        Judgement::Pending | Judgement::Accepted => {}
        other => return Err(look.refused(other).hint("The key on the master is not this machine's own, and stays.")),
    }
    session.wheel("key.delete", &json!({"match": id.as_str()}), wait).map_err(|failure| {
        if lacks_permission(&failure) {
            failure.hint("Give the user key.delete as well. Salt cannot narrow it to one minion: accept \"enroll\" can.")
        } else {
            failure
        }
    })?;
    match look.at_master(session, wait)? {
        Judgement::Absent => Ok(true),
        _ => Err(Failure::new(Kind::ApiProtocol, format!("key.delete was answered, but the master still has a key of {id}"))),
    }
}

/// Accepts the pending key of this id. `match` is a pattern, but an id holds nothing that it could
/// match besides itself. `key.accept_dict`, which takes names, is not safer: on 3008.5 it accepts a
/// key that an operator has rejected. `include_denied` is never sent: it replaces accepted keys.
fn accept_exactly(session: &mut Session, id: &MinionId, wait: &Wait) -> Result<(), Failure> {
    session.wheel("key.accept", &json!({"match": id.as_str()}), wait).map(|_| ())
}

/// Looks at what lies under our id on the master.
struct Look<'a> {
    id: &'a MinionId,
    ours: Option<PublicKey>,
    // key.print shows the key itself; a user without it may have key.finger.
    fun: &'static str,
}

impl<'a> Look<'a> {
    fn new(id: &'a MinionId, ours: Option<PublicKey>) -> Look<'a> {
        Look { id, ours, fun: "key.print" }
    }

    fn at_master(&mut self, session: &mut Session, wait: &Wait) -> Result<Judgement, Failure> {
        let returned = match session.wheel(self.fun, &self.arguments(), wait) {
            Err(failure) if self.fun == "key.print" && lacks_permission(&failure) => {
                debug!("no permission for key.print: comparing fingerprints");
                self.fun = "key.finger";
                session.wheel(self.fun, &self.arguments(), wait)?
            }
            other => other?,
        };
        let state =
            KeyState::read(&returned, self.id).map_err(|why| Failure::new(Kind::ApiProtocol, format!("{} returned {why}", self.fun)))?;
        let judgement = state.judge(self.ours.as_ref());
        debug!("key of {}: {judgement:?}", self.id);
        if judgement == Judgement::Accepted && self.ours.as_ref().is_some_and(|ours| state.holds_others(ours)) {
            warn!("another machine has tried to join as {} with another key; it was denied", self.id);
        }
        Ok(judgement)
    }

    fn arguments(&self) -> serde_json::Value {
        match self.fun {
            "key.finger" => json!({"match": self.id.as_str(), "hash_type": "sha256"}),
            _ => json!({"match": self.id.as_str()}),
        }
    }

    fn not_seen(&self) -> Failure {
        self.about_ours(Failure::new(Kind::KeyNotSeen, format!("the key of {} did not reach the master", self.id)))
    }

    fn refused(&self, judgement: Judgement) -> Failure {
        let id = self.id;
        let failure = match judgement {
            Judgement::Rejected => Failure::new(Kind::KeyRejected, format!("the key of {id} was rejected on the master")),
            Judgement::Taken { by } => Failure::new(
                Kind::KeyConflict,
                format!(
                    "another key is {by} under the id {id} on the master, so this minion's key {} denied",
                    if self.ours.is_some() { "is" } else { "would be" }
                ),
            ),
            Judgement::Denied => Failure::new(
                Kind::KeyConflict,
                format!("this minion's key was denied under the id {id}, since another key was there first"),
            )
            .hint(format!("On the master remove the denied key with `salt-key -d {id}` and run again.")),
            Judgement::Absent | Judgement::Pending | Judgement::Accepted => {
                Failure::new(Kind::Bug, format!("the key of {id} is {judgement:?}, which is no refusal"))
            }
        };
        self.about_ours(failure)
    }

    fn about_ours(&self, failure: Failure) -> Failure {
        match &self.ours {
            Some(ours) => failure.fact(Fact::Fingerprint, ours.fingerprint().as_str()),
            None => failure,
        }
    }
}
