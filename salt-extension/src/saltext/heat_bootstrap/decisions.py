"""
What is granted to whom. Nothing here looks at a file, a database or a clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from saltext.heat_bootstrap.claims import Claim, Key
from saltext.heat_bootstrap.refusals import Refused
from saltext.heat_bootstrap.tokens import Token


@dataclass(frozen=True)
class Record:
    """
    Which key was let in under an id, and by which token.
    """

    id: str
    finger: str
    token: str
    enrolled: int
    removed: bool


@dataclass(frozen=True)
class KeyState:
    """
    What the master has under an id. ``key`` is the accepted one, and ``None`` also where it cannot be read.
    """

    accepted: bool = False
    rejected: bool = False
    key: Key | None = None


@dataclass(frozen=True)
class Grant:
    """
    The answer's word, and whether that takes a use of the token and a key that is placed.
    """

    status: str
    counts: bool
    places: bool


def enrolment(token: Token, claim: Claim, record: Record | None, state: KeyState, placed: str | None, now: float) -> Grant:
    """
    May this key come in?

    record
        Who was let in last under this id, by this master or another one with the same database
    placed
        The fingerprint of the key that was placed last under this id on this very master
    """
    token.is_not_revoked()
    token.allows_id(claim.id)
    token.allows_states(claim.states)
    ours = record is not None and not record.removed and (record.finger, record.token) == (claim.key.finger, token.name)
    if ours and state.rejected:
        raise key_rejected(claim.id)
    if ours and state.accepted and state.key == claim.key:
        return Grant("already", counts=False, places=False)
    # Counted once, but not placed here: by another master, or by this one just before it was killed.
    granted = ours and placed != claim.key.finger
    if not granted:
        token.has_a_use(now)
    if state.rejected:
        raise key_rejected(claim.id)
    # Also one that was let in and is not placed here: whether an operator has removed it, nobody can tell.
    others = (
        (state.accepted and state.key != claim.key)
        or (record is not None and not record.removed and record.finger not in (claim.key.finger, placed))
    )  # fmt: skip
    if others and not token.rebuild:
        raise key_conflict(claim.id)
    return Grant("replaced" if others else "accepted", counts=not granted, places=True)


def owner(claim: Claim, record: Record | None) -> Record:
    """
    The record of the very minion that claims: the proof of what comes without a token.
    """
    if record is None or record.finger != claim.key.finger:
        raise not_enrolled(claim.id)
    return record


def application(token: Token | None, claim: Claim, record: Record, state: KeyState) -> None:
    """
    May these states run?
    """
    if record.removed or token is None:
        raise not_enrolled(claim.id)
    token.is_not_revoked()
    token.allows_states(claim.states)
    if state.rejected:
        raise key_rejected(claim.id)
    if not state.accepted:
        raise not_enrolled(claim.id)
    if state.key != claim.key:
        raise key_conflict(claim.id)


def removal(token: Token | None, claim: Claim, record: Record, state: KeyState) -> bool:
    """
    May the key go, and is it still there?
    """
    if record.removed:
        # It was granted; a key that is still there was left by a service that was killed.
        return state.accepted and state.key == claim.key
    if token is None:
        raise not_enrolled(claim.id)
    token.is_not_revoked()
    _may_leave(token)
    return state.accepted and state.key == claim.key


def renewal(token: Token | None, claim: Claim, record: Record, state: KeyState, placed: str | None) -> bool:
    """
    May the machine keep its key, and is that to be placed anew? It is where it went because the machine was thought to be
    gone, or had said so itself. A key that an operator has removed stays away.
    """
    if token is None:
        raise not_enrolled(claim.id)
    token.is_not_revoked()
    _may_leave(token)
    if state.rejected:
        raise key_rejected(claim.id)
    if state.accepted:
        if state.key != claim.key:
            raise key_conflict(claim.id)
        return False
    if not record.removed and placed == claim.key.finger:
        raise not_enrolled(claim.id)
    return True


def _may_leave(token: Token) -> None:
    if not token.deregister:
        raise Refused(
            "deregister-not-allowed",
            "The token does not allow to deregister.",
            "Make one that does: heat-bootstrap token create --deregister.",
        )


def not_enrolled(minion: str) -> Refused:
    """No token let it in, or another key did."""
    return Refused(
        "not-enrolled",
        f"No token has let {minion} in with this key, or its key was removed.",
        "Enrol it: the agent does at its next start.",
    )


def key_conflict(minion: str) -> Refused:
    """Somebody else has this name."""
    return Refused(
        "key-conflict",
        f"Another key is accepted as {minion}.",
        f"Was the VM built anew? Remove its old key (salt-key -d {minion}; heat-bootstrap forget {minion}) "
        "or use a token with --rebuild.",
    )


def key_rejected(minion: str) -> Refused:
    """An operator has said no."""
    return Refused(
        "key-rejected",
        f"An operator has rejected a key of {minion}.",
        f"See salt-key -l rejected; salt-key -d {minion} forgets it.",
    )
