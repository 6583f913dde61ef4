//! What the master knows under this minion's id, and what that means for the key we hold.

use serde_json::Value;

use super::public_key::{Fingerprint, PublicKey};
use crate::types::excerpt::quoted;
use crate::types::names::MinionId;

/// A key as `key.print` (the text) or `key.finger` (the fingerprint) shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Text(PublicKey),
    Finger(Fingerprint),
}

impl Seen {
    fn parse(text: &str) -> Result<Seen, String> {
        PublicKey::parse(text)
            .map(Seen::Text)
            .or_else(|_| Fingerprint::parse(text).map(Seen::Finger))
            .map_err(|_| format!("neither a public key nor a fingerprint: {}", quoted(text)))
    }

    fn is(&self, ours: &PublicKey) -> bool {
        match self {
            Seen::Text(key) => key == ours,
            Seen::Finger(finger) => ours.fingerprints().contains(finger),
        }
    }
}

/// All keys that lie under one id, by the directory of the master's in which they lie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyState {
    accepted: Vec<Seen>,
    pending: Vec<Seen>,
    rejected: Vec<Seen>,
    denied: Vec<Seen>,
}

impl KeyState {
    /// Reads what `key.print` or `key.finger` returned for `id`: `{"minions_pre": {"ID": "..."}}`.
    /// A denied id may hold several keys, as a list (3008, `salt/key.py`).
    pub fn read(returned: &Value, id: &MinionId) -> Result<KeyState, String> {
        let states = returned.as_object().ok_or_else(|| format!("no mapping of key states: {}", quoted(&returned.to_string())))?;
        let mut read = KeyState::default();
        for (state, keys) in states {
            let list = match state.as_str() {
                "minions" => &mut read.accepted,
                "minions_pre" => &mut read.pending,
                "minions_rejected" => &mut read.rejected,
                "minions_denied" => &mut read.denied,
                _ => continue,
            };
            match keys.get(id.as_str()) {
                Some(Value::String(text)) => list.push(Seen::parse(text)?),
                Some(Value::Array(texts)) => {
                    for text in texts {
                        list.push(Seen::parse(text.as_str().unwrap_or_default())?);
                    }
                }
                _ => {}
            }
        }
        Ok(read)
    }

    /// Does any key lie here that is not ours?
    pub fn holds_others(&self, ours: &PublicKey) -> bool {
        [&self.accepted, &self.pending, &self.rejected, &self.denied].into_iter().flatten().any(|key| !key.is(ours))
    }

    /// What it means for the key that this machine holds, or will make if it has none yet. The master answers a minion in this
    /// order too: rejected ids first, then accepted, then denied and pending ones
    /// (`salt/channel/server.py`, `_auth`).
    pub fn judge(&self, ours: Option<&PublicKey>) -> Judgement {
        let is_ours = |key: &Seen| ours.is_some_and(|ours| key.is(ours));
        if !self.rejected.is_empty() {
            return Judgement::Rejected;
        }
        if !self.accepted.is_empty() {
            return if self.accepted.iter().any(is_ours) { Judgement::Accepted } else { Judgement::Taken { by: "accepted" } };
        }
        if !self.pending.is_empty() {
            return if self.pending.iter().any(is_ours) { Judgement::Pending } else { Judgement::Taken { by: "pending" } };
        }
        if self.denied.iter().any(is_ours) {
            return Judgement::Denied;
        }
        Judgement::Absent
    }
}

/// What the master makes of our key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It has not arrived.
    Absent,
    /// It waits to be accepted.
    Pending,
    /// It is accepted.
    Accepted,
    /// The id was rejected by an operator.
    Rejected,
    /// Our key was denied, since another one was there first, which is gone by now.
    Denied,
    /// Another key holds the id.
    Taken {
        /// Salt's word for the state of that other key.
        by: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const OURS: &str = "-----BEGIN PUBLIC KEY-----\nYWJj\n-----END PUBLIC KEY-----";
    const OTHER: &str = "-----BEGIN PUBLIC KEY-----\nZGVm\n-----END PUBLIC KEY-----";

    fn judged(returned: Value) -> Judgement {
        let id = MinionId::parse("web-1").unwrap();
        KeyState::read(&returned, &id).unwrap().judge(Some(&PublicKey::parse(OURS).unwrap()))
    }

    #[test]
    fn each_state_has_its_judgement() {
        assert_eq!(judged(json!({})), Judgement::Absent);
        assert_eq!(judged(json!({"minions_pre": {"web-1": OURS}})), Judgement::Pending);
        assert_eq!(judged(json!({"minions_pre": {"web-1": OTHER}})), Judgement::Taken { by: "pending" });
        assert_eq!(judged(json!({"minions": {"web-1": OURS}})), Judgement::Accepted);
        assert_eq!(judged(json!({"minions": {"web-1": OTHER}, "minions_denied": {"web-1": OURS}})), Judgement::Taken { by: "accepted" });
        assert_eq!(judged(json!({"minions": {"web-1": OURS}, "minions_denied": {"web-1": OTHER}})), Judgement::Accepted);
        assert_eq!(judged(json!({"minions_denied": {"web-1": [OTHER, OURS]}})), Judgement::Denied);
        assert_eq!(judged(json!({"minions_rejected": {"web-1": OURS}})), Judgement::Rejected);
    }

    #[test]
    fn whoever_has_no_key_yet_finds_the_id_free_or_taken() {
        let id = MinionId::parse("web-1").unwrap();
        let judged = |returned: Value| KeyState::read(&returned, &id).unwrap().judge(None);
        assert_eq!(judged(json!({})), Judgement::Absent);
        assert_eq!(judged(json!({"minions_pre": {"web-1": OTHER}})), Judgement::Taken { by: "pending" });
        assert_eq!(judged(json!({"minions": {"web-1": OTHER}})), Judgement::Taken { by: "accepted" });
        assert_eq!(judged(json!({"minions_rejected": {"web-1": OTHER}})), Judgement::Rejected);
        assert_eq!(judged(json!({"minions_denied": {"web-1": OTHER}})), Judgement::Absent);
    }

    #[test]
    fn other_ids_and_the_masters_own_keys_do_not_count() {
        assert_eq!(judged(json!({"minions": {"web-2": OURS}, "local": {"master.pub": OTHER}})), Judgement::Absent);
    }

    #[test]
    fn fingerprints_serve_in_either_form() {
        let ours = PublicKey::parse(OURS).unwrap();
        for finger in ours.fingerprints() {
            assert_eq!(judged(json!({"minions_pre": {"web-1": finger.as_str()}})), Judgement::Pending);
        }
        let other = PublicKey::parse(OTHER).unwrap().fingerprint();
        assert_eq!(judged(json!({"minions_pre": {"web-1": other.as_str()}})), Judgement::Taken { by: "pending" });
    }

    #[test]
    fn what_is_no_key_state_is_an_error() {
        let id = MinionId::parse("web-1").unwrap();
        for nonsense in [json!([]), json!("x"), json!({"minions": {"web-1": "x"}}), json!({"minions_denied": {"web-1": [1]}})] {
            assert!(KeyState::read(&nonsense, &id).is_err(), "{nonsense}");
        }
    }
}
