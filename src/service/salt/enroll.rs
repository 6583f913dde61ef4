//! Enrolling by a claim to a hook: the master decides, and the API user needs no permission at all.
//!
//! A hook is answered as soon as its event is on the bus, and nothing comes back from who decides. So whether a claim was
//! granted is seen on this machine: by a minion that connects, or by what its log says the master told it.

use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use tracing::{info, warn};

use super::session::Session;
use crate::decide::claim::{Asked, Claim};
use crate::decide::fingerprint::Fingerprint;
use crate::machine::patience::Patience;
use crate::machine::process;
use crate::service::minion::connection::{self, Connected};
use crate::service::minion::daemon::Minion;
use crate::service::minion::keypair::{self, KeyPair};
use crate::service::minion::place::Place;
use crate::words::failure::{Failure, Kind};
use crate::words::names::MinionId;

/// A claim that was granted lets the minion in at its next call, which comes within a second or two. One that still waits after
/// this was refused, or nobody heard it.
const GRANTED_WITHIN: Duration = Duration::from_secs(8);
/// So often a key is claimed before nobody is thought to grant it.
const CLAIMS: u32 = 3;
/// As for a key that is accepted by wheel.
const MOST: Duration = Duration::from_secs(120);
const EVERY: Duration = Duration::from_millis(20);

/// In whose name claims are made.
pub struct Claimant<'a> {
    /// What they are signed with.
    pub keys: &'a KeyPair,
    /// The minion.
    pub id: &'a MinionId,
    /// In the course of which bootstrap.
    pub bootstrap_id: &'a str,
}

impl Claimant<'_> {
    /// Signs a claim and posts it. It is a new one every time: the master grants each once.
    pub fn claim(&self, session: &mut Session, asked: Asked, patience: &Patience) -> Result<(), Failure> {
        self.claim_until::<()>(session, asked, patience, || None).map(|_| ())
    }

    /// The same for a claim whose effect can be seen here: `came_through` finds it should salt-api not answer well.
    pub fn claim_until<T>(
        &self,
        session: &mut Session,
        asked: Asked,
        patience: &Patience,
        came_through: impl FnMut() -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let nonce = nonce()?;
        let claim = Claim { asked, id: self.id, key: &self.keys.public, bootstrap_id: self.bootstrap_id, nonce: &nonce };
        let document = claim.document();
        let body = claim.body(&document, &self.keys.sign(document.as_bytes())?);
        session.hook(&asked.hook(), &body, patience, came_through)
    }
}

fn nonce() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Failure::new(Kind::LocalSystem, "the kernel gives no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The pair that this minion signs with, once it is there.
pub fn own_keys(place: &Place) -> Result<KeyPair, Failure> {
    keypair::load(place)?
        .ok_or_else(|| Failure::new(Kind::KeyNotSeen, format!("there is no key pair of the minion in {}", place.pki_dir.display())))
}

/// Waits for the pair that the minion makes itself.
pub fn await_keys(minion: &mut Minion, patience: &Patience) -> Result<KeyPair, Failure> {
    let found = patience.slice(MOST).poll(EVERY, || {
        minion.check()?;
        keypair::load(&minion.place)
    })?;
    found.ok_or_else(|| {
        minion.explain(Failure::new(Kind::KeyNotSeen, format!("salt-minion has made no key pair in {}", minion.place.pki_dir.display())))
    })
}

/// Waits until the minion is connected; where its key still waits after a while, `claim_again` is called.
pub fn connect(
    minion: &mut Minion,
    id: &MinionId,
    master: Option<&Fingerprint>,
    patience: &Patience,
    mut claim_again: impl FnMut(&Patience) -> Result<(), Failure>,
) -> Result<Connected, Failure> {
    let patience = patience.slice(MOST);
    let knew_a_master = minion.place.met_master().is_some();
    let mut met = false;
    for claims in 1..=CLAIMS {
        let mut waits_since: Option<Instant> = None;
        let connected = patience.poll(EVERY, || {
            met |= process::connected(&minion.pids(), &[minion.place.master_port]);
            if let Some(connected) = connection::seen(minion, master).map_err(|failure| refused(minion, id, failure))? {
                return Ok(Some(Some(connected)));
            }
            if minion.says("has rejected this minion's public key") {
                return Err(refused(minion, id, Failure::new(Kind::KeyRejected, "")));
            }
            // A minion that is let in writes down whom it has met.
            let let_in = !knew_a_master && minion.place.met_master().is_some();
            if let_in || !minion.says("has cached the public key for this node") {
                return Ok(None);
            }
            let since = *waits_since.get_or_insert_with(Instant::now);
            Ok((since.elapsed() > GRANTED_WITHIN).then_some(None))
        })?;
        match connected {
            Some(Some(connected)) => return Ok(connected),
            Some(None) if claims < CLAIMS => {
                warn!("the minion's key waits on the master: claiming it again");
                claim_again(&patience)?;
            }
            // The time is up, and it waits still.
            Some(None) | None if waits_since.is_some() => break,
            Some(None) | None => return Err(minion.explain(not_connected(minion, id, met))),
        }
    }
    Err(minion.explain(ask_the_audit(
        Failure::new(
            Kind::PermissionRefused,
            format!("the master did not grant the claim for the key of {id}, which waits there: it was refused, or nobody decides claims"),
        ),
        id,
    )))
}

fn not_connected(minion: &Minion, id: &MinionId, met: bool) -> Failure {
    let port = minion.place.publish_port;
    if met || minion.place.met_master().is_some() {
        return Failure::new(
            Kind::MinionNotConnected,
            format!("salt-minion runs, but holds no connection to the master's publish port {port}"),
        );
    }
    Failure::new(Kind::KeyNotSeen, format!("the minion {id} never reached the master's port {}", minion.place.master_port))
}

/// Salt tells a minion the same whether an operator has rejected its key or another key is accepted under its id
/// (`salt/channel/server.py`, `_auth`). A key that was made for this very bootstrap nobody can have rejected.
fn refused(minion: &Minion, id: &MinionId, failure: Failure) -> Failure {
    if failure.kind != Kind::KeyRejected {
        return failure;
    }
    let failure = if minion.place.made_keys() {
        Failure::new(Kind::KeyConflict, format!("the master refuses this minion's key: another key is accepted under the id {id}, or an operator has rejected it")).hint(format!(
            "If this machine replaces an older one of the same name, run `salt-key -d {id}` on the master and run again here, or mint its token with rebuild=True; \
             `salt-run heat_salt_bootstrap.audit {id}` there says why the claim was not granted."
        ))
    } else {
        Failure::new(
            Kind::KeyRejected,
            format!(
                "the master refuses the key that {id} had already: an operator has rejected it, or another key is accepted under this id"
            ),
        )
        .hint(format!(
            "On the master `salt-key -L` shows which; `salt-run heat_salt_bootstrap.audit {id}` there says why the claim was not granted."
        ))
    };
    minion.explain(failure)
}

/// Says where the reason for a refusal stands.
pub fn ask_the_audit(failure: Failure, id: &MinionId) -> Failure {
    let hint = format!(
        "On the master `salt-run heat_salt_bootstrap.audit {id}` says why. If it shows nothing about this claim, the reactor for \
         salt/netapi/hook/heat-salt-bootstrap/* or the runner heat_salt_bootstrap is missing there, or failed: see the master's log."
    );
    info!("{hint}");
    failure.hint(hint)
}
