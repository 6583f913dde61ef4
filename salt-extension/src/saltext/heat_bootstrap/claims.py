"""
Reads what a VM sends: a claim has the right form, or there is none.

Nothing here looks at a file, a database or a clock.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from saltext.heat_bootstrap.refusals import Refused

MOST_BYTES = 262144
MOST_SKEW = 300
# What JSON parsers and MessagePack nest without trouble, and more than any sane pillar has.
MOST_DEPTH = 64
MOST_STATES = 200
# An agent that waits longer for one job is none of ours.
MOST_DEADLINE = 7 * 86400

VERBS = ("enroll", "check", "apply", "report", "renew", "deregister")
# The others are proved by the key that was enrolled.
BY_TOKEN = ("enroll", "check")

STATE_NAME = re.compile(r"[A-Za-z0-9_./+-]{1,200}\Z")
BOOTSTRAP_ID = re.compile(r"[0-9A-Za-z-]{1,64}\Z")
NONCE = re.compile(r"[0-9a-f]{32,64}\Z")
JOB = re.compile(r"[0-9a-f]{32}\Z")
TOKEN_NAME = re.compile(r"[0-9a-f]{16}\Z")
PROOF = re.compile(r"[0-9a-f]{64}\Z")
NOT_IN_AN_ID = frozenset("*?[],/\\")


@dataclass(frozen=True)
class Key:
    """
    A minion's public key, as the bytes of its SubjectPublicKeyInfo.
    """

    der: bytes

    @property
    def finger(self) -> str:
        """Names the key, however its PEM text was broken into lines."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def shown(self) -> str:
        """Its fingerprint as ``salt-key -f`` shows it: of the text between the first line and the last."""
        text = "\n".join(self.pem().splitlines()[1:-1]) + "\n"
        digest = hashlib.sha256(text.encode()).hexdigest()
        return ":".join(digest[start : start + 2] for start in range(0, 64, 2))

    def pem(self) -> str:
        """As Salt writes it: no new line at the end."""
        body = base64.b64encode(self.der).decode()
        lines = [body[start : start + 64] for start in range(0, len(body), 64)]
        return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----"])

    @classmethod
    def read(cls, text: str) -> Key:
        """Takes the PEM armour off; whether an RSA key is within, ``verify`` finds out."""
        lines = [line.strip() for line in text.strip().splitlines()]
        if len(lines) < 3 or lines[0] != "-----BEGIN PUBLIC KEY-----" or lines[-1] != "-----END PUBLIC KEY-----":
            raise _malformed("key is no public key in PEM form")
        return cls(_decoded("".join(lines[1:-1]), "key"))


@dataclass(frozen=True)
class Report:
    """
    How a bootstrap ended, in the agent's words.
    """

    verdict: str
    code: int
    reason: str | None
    message: str | None
    step: str | None
    jid: str | None
    seconds: float
    steps: tuple[tuple[str, float], ...]
    failures: tuple[dict[str, str], ...]

    def digest(self) -> str:
        """Tells whether the same report was sent again."""
        return hashlib.sha256(repr(self).encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True)
class Claim:
    """
    What a VM asks for. Its form is right; nothing of it is proved yet.
    """

    verb: str
    id: str
    key: Key
    bootstrap_id: str
    nonce: str
    time: int
    document: bytes
    signature: bytes
    proof: str = ""
    token: str = ""
    states: tuple[str, ...] = ()
    job: str = ""
    pillar: dict[str, Any] | None = None
    again: bool = False
    deadline: int = 0
    report: Report | None = None

    def is_proved_by(self, token_key: bytes) -> bool:
        """Was the document written by somebody who has the token?"""
        return hmac.compare_digest(hmac_of(token_key, self.document), self.proof)

    def job_digest(self) -> str:
        """
        Tells whether a job is asked for again with other contents. The job's random name goes into it, so that the digest
        of a pillar with a weak secret is of no use to who reads the database of several masters side by side.
        """
        content = [self.job, self.id, self.key.finger, self.bootstrap_id, list(self.states), self.pillar]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def hmac_of(token_key: bytes, document: bytes) -> str:
    """The proof that whoever wrote the document has the token."""
    return hmac.new(token_key, document, hashlib.sha256).hexdigest()


def read(verb: str, body: bytes) -> Claim:
    """
    The claim in a request's body.
    """
    if len(body) > MOST_BYTES:
        raise Refused("too-large", f"The body is longer than {MOST_BYTES} bytes.")
    posted = _mapping(body, "the body")
    document = _decoded(_text(posted, "claim", 2 * MOST_BYTES), "claim")
    wanted = _mapping(document, "the claim")
    if wanted.get("verb") != verb:
        raise _malformed("verb is not the end of the path")
    deadline, pillar, job, report = 0, None, "", None
    states: tuple[str, ...] = ()
    token, proof = "", ""
    if verb in BY_TOKEN:
        token, proof = _matching(wanted, "token", TOKEN_NAME), _matching(posted, "proof", PROOF)
    if verb in BY_TOKEN or verb == "apply":
        states = _states(wanted)
    if verb == "apply":
        if not states:
            raise _malformed("states is empty")
        job, pillar = _matching(wanted, "job", JOB), _pillar(wanted)
        if not isinstance(wanted.get("again"), bool):
            raise _malformed("again is neither true nor false")
        deadline = min(_whole(wanted, "deadline", 0, 2**62), MOST_DEADLINE)
    if verb == "report":
        report = _report(wanted)
    # Who only asks may have no key yet.
    has_key = verb != "check" or wanted.get("key") is not None
    return Claim(
        verb=verb,
        id=minion_id(wanted.get("id")),
        key=Key.read(_text(wanted, "key", 4096)) if has_key else Key(b""),
        bootstrap_id=_matching(wanted, "bootstrap_id", BOOTSTRAP_ID),
        nonce=_matching(wanted, "nonce", NONCE),
        time=_whole(wanted, "time", 0, 2**62),
        document=document,
        signature=_decoded(_text(posted, "signature", 2048), "signature") if has_key else b"",
        proof=proof,
        token=token,
        states=states,
        job=job,
        pillar=pillar,
        again=wanted["again"] if verb == "apply" else False,
        deadline=deadline,
        report=report,
    )


def verify(claim: Claim) -> None:
    """
    Is the key an RSA key as Salt uses, written in the one way in which it can be, and has it signed the document?

    Only for what is proved: this is the costly part.
    """
    if claim.verb == "check" and claim.key == Key(b""):
        return
    try:
        key = serialization.load_der_public_key(claim.key.der)
    except Exception as error:  # whatever the parser makes of a stranger's bytes
        raise _malformed("key is no public key") from error
    if not isinstance(key, rsa.RSAPublicKey):
        raise _malformed("key is no RSA key")
    if not 2048 <= key.key_size <= 8192:
        raise _malformed("key has fewer than 2048 bits or more than 8192")
    exponent = key.public_numbers().e
    if not 3 <= exponent < 2**32 or exponent % 2 == 0:
        raise _malformed("key has an exponent that nobody uses")
    written = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if written != claim.key.der:
        raise _malformed("key is not written as DER wants it")
    try:
        key.verify(claim.signature, claim.document, padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError) as error:
        raise Refused("signature-wrong", "The claim is not signed by the key that it names.") from error


def minion_id(value: Any) -> str:
    """
    An id names one minion and one file: no pattern, no list, no path.
    """
    if not isinstance(value, str) or not 0 < len(value) <= 255 or len(value.encode("utf-8", "replace")) > 255:
        raise _malformed("id is no text of 1 to 255 bytes")
    if value.startswith(".") or not value.isprintable():
        raise _malformed("id starts with a dot or cannot be printed")
    if any(character in NOT_IN_AN_ID or character.isspace() for character in value):
        raise _malformed("id has one of * ? [ ] , / \\ or white space")
    return value


def _states(wanted: dict[str, Any]) -> tuple[str, ...]:
    states = wanted.get("states")
    if not isinstance(states, list) or len(states) > MOST_STATES:
        raise _malformed("states is no list, or too long")
    if not all(isinstance(name, str) and STATE_NAME.match(name) for name in states):
        raise _malformed("states has something that is no state's name")
    return tuple(states)


def _pillar(wanted: dict[str, Any]) -> dict[str, Any]:
    pillar = wanted.get("pillar")
    if not isinstance(pillar, dict):
        raise _malformed("pillar is no object")
    level: list[Any] = [pillar]
    for _ in range(MOST_DEPTH):
        deeper: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                deeper.extend(value.values())
            elif isinstance(value, list):
                deeper.extend(value)
        level = deeper
    if level:
        raise _malformed(f"pillar is nested deeper than {MOST_DEPTH}")
    return pillar


def _report(wanted: dict[str, Any]) -> Report:
    verdict = wanted.get("verdict")
    if verdict not in ("done", "failed"):
        raise _malformed("verdict is neither done nor failed")
    steps, failures = wanted.get("steps"), wanted.get("failures")
    if not isinstance(steps, list) or len(steps) > 1000:
        raise _malformed("steps is no list, or too long")
    for step in steps:
        if not isinstance(step, list) or len(step) != 2 or not isinstance(step[0], str) or not _is_number(step[1]):
            raise _malformed("steps has something that is not [name, seconds]")
    if not isinstance(failures, list) or len(failures) > 10000:
        raise _malformed("failures is no list, or too long")
    for failure in failures:
        if not isinstance(failure, dict) or not all(isinstance(failure.get(k), str) for k in ("id", "sls", "comment")):
            raise _malformed("failures has something that is not {id, sls, comment}")
    if not _is_number(wanted.get("seconds")):
        raise _malformed("seconds is no number")
    # What is longer than a person reads is cut, not refused: the verdict matters more.
    return Report(
        verdict=verdict,
        code=_whole(wanted, "code", 0, 255),
        reason=_optional(wanted, "reason", 100),
        message=_optional(wanted, "message", 2000),
        step=_optional(wanted, "step", 100),
        jid=_optional(wanted, "jid", 64),
        seconds=float(wanted["seconds"]),
        steps=tuple((name[:64], float(seconds)) for name, seconds in steps[:64]),
        failures=tuple(
            {"id": failure["id"][:200], "sls": failure["sls"][:200], "comment": failure["comment"][:500]}
            for failure in failures[:50]
        ),
    )


def _malformed(what: str) -> Refused:
    return Refused("malformed", f"The request cannot be read: {what}.", "Agent and service may be of versions that do not fit.")


def _text(mapping: dict[str, Any], key: str, most: int) -> str:
    value = mapping.get(key)
    if not isinstance(value, str) or len(value) > most:
        raise _malformed(f"{key} is no text, or too long")
    return value


def _optional(mapping: dict[str, Any], key: str, most: int) -> str | None:
    value = mapping.get(key)
    if value is not None and not isinstance(value, str):
        raise _malformed(f"{key} is neither text nor null")
    return None if value is None else value[:most]


def _matching(mapping: dict[str, Any], key: str, pattern: re.Pattern[str]) -> str:
    value = mapping.get(key)
    if not isinstance(value, str) or not pattern.match(value):
        raise _malformed(f"{key} does not have its form")
    return value


def _whole(mapping: dict[str, Any], key: str, least: int, most: int) -> int:
    value = mapping.get(key)
    # A boolean is an int to Python.
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _malformed(f"{key} is no whole number from {least} to {most}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12


def _decoded(text: str, what: str) -> bytes:
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _malformed(f"{what} is no Base64") from error
    # Python lets characters after the padding and bits without a meaning pass, by version; one value has one text here.
    if base64.b64encode(decoded).decode() != text:
        raise _malformed(f"{what} is no Base64")
    return decoded


def _mapping(content: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_small,
            parse_float=_finite,
            parse_constant=_constant,
        )
        if b"\\u" in content:
            # Half a surrogate pair is JSON, but no text that anybody could store.
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise _malformed(f"{what} is no JSON") from error
    if not isinstance(value, dict):
        raise _malformed(f"{what} is no object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key is there twice")
    return mapping


def _small(digits: str) -> int:
    # Salt's MessagePack has 64 bits, and Python takes its time for numbers with many thousand digits.
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError("a number is too large")
    return int(digits)


def _finite(digits: str) -> float:
    if len(digits) > 64 or not math.isfinite(float(digits)):
        raise ValueError("a number is too large")
    return float(digits)


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
