"""
Tokens, and what each allows.

Nothing here looks at a file, a database or a clock.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Iterable

from saltext.heat_bootstrap import claims
from saltext.heat_bootstrap.refusals import Refused

TEXT = re.compile(r"(hsb2\.([0-9a-f]{16})\.[A-Za-z0-9_-]{43})(\.[sc][A-Za-z0-9_-]{43})?\Z")


@dataclass(frozen=True)
class Token:
    """
    What an operator allows to whoever brings the token.
    """

    name: str
    # SHA-256 of the token without its pin: the key of the proofs
    digest: str
    pattern: str
    states: tuple[str, ...]
    uses: int
    used: int
    created: int
    expires: int
    rebuild: bool
    deregister: bool
    revoked: bool

    @property
    def key(self) -> bytes:
        """What the proofs are made with."""
        return bytes.fromhex(self.digest)

    def allows_id(self, minion: str) -> None:
        """Refuses an id that the token is not for."""
        if not fnmatchcase(minion, self.pattern):
            raise Refused(
                "id-not-allowed",
                f"The token is for {self.pattern}, not for {minion}.",
                "Give the VM the id that the token was made for, or make a token for this one: heat-bootstrap token create.",
            )

    def allows_states(self, states: Iterable[str]) -> None:
        """Refuses states that the token does not name."""
        others = [name for name in states if name not in self.states]
        if others:
            raise Refused(
                "state-not-allowed",
                f"The token does not allow {', '.join(others)[:300]}.",
                "Make a token that names them: heat-bootstrap token create ... --states.",
            )

    def is_not_revoked(self) -> None:
        """Refuses a token that an operator has made worthless."""
        if self.revoked:
            raise Refused("token-revoked", "The token is revoked.")

    def has_a_use(self, now: float) -> None:
        """Refuses a token that is too old, or whose uses are gone."""
        if now > self.expires:
            raise Refused("token-expired", "The token has expired.", "Make another: heat-bootstrap token create.")
        if self.used >= self.uses:
            raise Refused(
                "token-used-up",
                f"The token is used up: {self.used} of {self.uses}.",
                "Make another with --uses for as many VMs as there are: heat-bootstrap token create.",
            )

    def trouble(self, now: float) -> str | None:
        """Why it is good for nothing new; ``None`` if it is good."""
        try:
            self.is_not_revoked()
            self.has_a_use(now)
        except Refused as refused:
            return refused.word[len("token-") :]
        return None


def new() -> tuple[str, str, str]:
    """
    The name, the text without a pin, and the digest of a token that nobody had before.
    """
    name = secrets.token_hex(8)
    text = f"hsb2.{name}.{secrets.token_urlsafe(32)}"
    return name, text, hashlib.sha256(text.encode()).hexdigest()


def read(text: str) -> tuple[str, str, str | None]:
    """
    The name, the digest and the pin in a token's text.
    """
    match = TEXT.match(text)
    if match is None:
        raise ValueError("this is no token")
    pin = match.group(3)
    return match.group(2), hashlib.sha256(match.group(1).encode()).hexdigest(), pin[1:] if pin else None


def name_in(text: str) -> str:
    """
    The name, if it alone or all of the token was given.
    """
    parts = text.split(".")
    name = parts[1] if len(parts) > 1 else parts[0]
    if not claims.TOKEN_NAME.match(name):
        raise ValueError("a token's name has 16 of 0-9 a-f; see: heat-bootstrap token list")
    return name


def checked_pattern(pattern: str) -> str:
    """
    The pattern, if an id could match it.
    """
    try:
        claims.minion_id(re.sub(r"\[!?[^]/\\,*?]+\]|[*?]", "x", pattern))
    except Refused as refused:
        says = "ids have no white space, none of [ ] , / \\, and no dot in front; *, ? and [abc] stand for others"
        raise ValueError(f"{pattern!r} is no pattern for ids: {says}") from refused
    if len(pattern.encode("utf-8", "replace")) > 255:
        raise ValueError(f"{pattern!r} is too long for a pattern")
    return pattern


def checked_states(states: Iterable[str]) -> tuple[str, ...]:
    """
    The states, if that is what they can be called.
    """
    names = tuple(dict.fromkeys(states))
    for name in names:
        if not claims.STATE_NAME.match(name):
            raise ValueError(f"{name!r} is no state's name")
    if len(names) > claims.MOST_STATES:
        raise ValueError(f"a token allows at most {claims.MOST_STATES} states")
    return names
