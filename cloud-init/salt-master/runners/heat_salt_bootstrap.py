"""
Decides what VMs that boot with heat-salt-bootstrap may do: join as a minion, run states, leave.

A VM posts a claim to a hook of salt-api; the reactor claims.sls hands it to ``decide``. Nothing that comes with the event is
believed: not its tag, not its headers, and of the claim only what this module has checked. What everybody who can log in may
read on the event bus is worth nothing: a claim holds no secret, it is good for one key and one use.

An operator's commands, on the master::

    salt-run heat_salt_bootstrap.mint 'web-*' states=memcached_v14 uses=10 hours=24
    salt-run heat_salt_bootstrap.list
    salt-run heat_salt_bootstrap.revoke 3f62a1b09c44d7e8
    salt-run heat_salt_bootstrap.audit web-1

Tokens, what was enrolled with them, and the audit log lie below ``<pki_dir>/heat-salt-bootstrap``. No token is there, only
its SHA-256, which proves claims; whoever can read that file can read the master's own private key as well.

:maturity: Salt 3006 and 3008
"""

import base64
import binascii
import contextlib
import fcntl
import fnmatch
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import tempfile
import time

import salt.client
import salt.exceptions
import salt.key
import salt.utils.verify

log = logging.getLogger(__name__)

# More than any claim with a sane pillar needs.
MOST_BYTES = 256 * 1024
# So many claims of one minion are known again when somebody replays them; then it has to enrol anew.
MOST_NONCES = 1000
# The audit log is turned over at this size, and one old one is kept.
MOST_AUDIT = 16 * 1024 * 1024

STATE_NAME = re.compile(r"[A-Za-z0-9_./+-]{1,200}\Z")
HEX = re.compile(r"[0-9a-f]{16,64}\Z")
# DER of SEQUENCE { OID rsaEncryption, NULL }, RFC 3279
RSA = bytes.fromhex("300d06092a864886f70d0101010500")
# DER of DigestInfo for SHA-256, RFC 8017, 9.2
SHA256 = bytes.fromhex("3031300d060960864801650304020105000420")


class Refused(salt.exceptions.SaltInvocationError):
    """A claim that is not granted, with the reason for the audit log."""


# The operator's commands


def mint(id, states="", uses=1, hours=24, rebuild=False, deregister=False):  # pylint: disable=redefined-builtin
    """
    Makes a token and returns it; it cannot be shown again.

    id
        The minion id it is good for, or a pattern such as ``web-*``
    states
        The states that minions enrolled with it may have run on themselves, joined by commas
    uses
        How many keys it gets accepted
    hours
        How long it is good for
    rebuild
        May it replace the accepted key of a minion that has the same id?
    deregister
        May minions enrolled with it remove their own key?
    """
    _check_id(str(id).replace("*", "x").replace("?", "x"))
    names = [name for name in (states if isinstance(states, list) else str(states).split(",")) if name]
    for name in names:
        if not STATE_NAME.match(str(name)):
            raise Refused("{!r} is no state's name".format(name))
    if int(uses) < 1 or float(hours) <= 0:
        raise Refused("uses and hours have to be more than nothing")
    name, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    token = "hsb1.{}.{}".format(name, secret)
    now = time.time()
    with _state() as state:
        state["tokens"][name] = {
            "hash": hashlib.sha256(token.encode()).hexdigest(),
            "id": str(id),
            "states": [str(name) for name in names],
            "uses": int(uses),
            "expires": int(now + float(hours) * 3600),
            "minted": int(now),
            "rebuild": _truth(rebuild),
            "deregister": _truth(deregister),
            "revoked": False,
            "used": [],
        }
        _audit({"verb": "mint", "token": name, "id": str(id), "granted": True, "why": "by the operator"})
    return token


def list_():
    """
    Shows all tokens, without what proves them.
    """
    shown = {}
    with _state(write=False) as state:
        for name, token in state["tokens"].items():
            shown[name] = {key: value for key, value in token.items() if key != "hash"}
            shown[name]["expires"] = _written(token["expires"])
            shown[name]["minted"] = _written(token["minted"])
            shown[name]["good"] = _token_trouble(token) is None
    return shown


def revoke(name):
    """
    Makes a token worthless, and with it what minions enrolled with it may ask for. Their keys stay; see ``salt-key -d``.

    name
        Its name, which is what stands between its dots; or all of it
    """
    parts = str(name).split(".")
    name = parts[1] if len(parts) == 3 else parts[0]
    with _state() as state:
        if name not in state["tokens"]:
            raise Refused("there is no token {}".format(name))
        state["tokens"][name]["revoked"] = True
        _audit({"verb": "revoke", "token": name, "granted": True, "why": "by the operator"})
    return "token {} is revoked".format(name)


def prune(days=30):
    """
    Forgets tokens that have been expired or revoked for so long that nobody asks for them. Minions that were enrolled with
    them stay minions, and may ask for nothing more.
    """
    before = time.time() - float(days) * 24 * 3600
    with _state() as state:
        gone = [name for name, token in state["tokens"].items() if token["expires"] < before]
        for name in gone:
            del state["tokens"][name]
        for minion in [minion for minion, record in state["minions"].items() if record["token"] not in state["tokens"]]:
            del state["minions"][minion]
    return gone


def audit(id=None, count=20):  # pylint: disable=redefined-builtin
    """
    Shows the last decisions, the newest last.

    id
        Only those about this minion id
    count
        How many
    """
    lines = []
    with contextlib.suppress(FileNotFoundError), open(_path("audit.log"), encoding="utf-8") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if id is None or entry.get("id") == str(id):
                    lines.append(entry)
    return lines[-int(count):]


__func_alias__ = {"list_": "list"}


# What the reactor calls


def decide(verb, claim):
    """
    Grants a claim, or not; either is written into the audit log.

    verb
        enroll, apply or deregister: the end of the hook's path
    claim
        The hook's body as JSON, as Base64
    """
    entry, wanted = {"verb": str(verb)[:32]}, {}
    try:
        wanted = _read(verb, claim)
        entry.update({"id": wanted["id"], "bootstrap_id": wanted["bootstrap_id"]})
        entry["why"] = {"enroll": _enroll, "apply": _apply, "deregister": _deregister}[verb](wanted)
        entry["granted"] = True
    except Refused as refused:
        entry.update({"granted": False, "why": str(refused)})
        log.warning("heat-salt-bootstrap: %s of %s refused: %s", entry["verb"], entry.get("id", "somebody"), refused)
    except Exception as error:
        entry.update({"granted": False, "why": "the master failed: {!r}".format(error)[:500]})
        raise
    finally:
        entry["token"] = wanted.get("token")
        _audit(entry)
    return entry


def _read(verb, claim):
    """
    The claim's fields, all of them checked, signed by the key that it is about.
    """
    if verb not in ("enroll", "apply", "deregister"):
        raise Refused("there is no such claim")
    if not isinstance(claim, str) or len(claim) > 2 * MOST_BYTES:
        raise Refused("the claim is no text, or too long")
    posted = _json(_decoded(claim))
    document = _decoded(_text(posted, "claim", MOST_BYTES))
    wanted = _json(document)
    if wanted.get("verb") != verb:
        raise Refused("the claim is for another hook")
    _check_id(wanted.get("id"))
    key = PublicKey(_text(wanted, "key", 16 * 1024))
    if not key.has_signed(document, _decoded(_text(posted, "signature", 4096))):
        raise Refused("the claim is not signed by the key that it names")
    if not HEX.match(_text(wanted, "nonce", 64)):
        raise Refused("the claim has no nonce")
    bootstrap_id = _text(wanted, "bootstrap_id", 64)
    if not re.match(r"[0-9A-Za-z-]*\Z", bootstrap_id):
        raise Refused("the bootstrap_id is none")
    checked = {"id": wanted["id"], "key": key, "nonce": wanted["nonce"], "bootstrap_id": bootstrap_id}
    if verb == "enroll":
        checked.update({"token": _text(wanted, "token", 64), "document": document, "proof": _text(posted, "proof", 64)})
    if verb == "apply":
        states, pillar = wanted.get("states"), wanted.get("pillar", {})
        if not isinstance(states, list) or not states or not all(isinstance(s, str) and STATE_NAME.match(s) for s in states):
            raise Refused("the claim names no states")
        if not isinstance(pillar, dict):
            raise Refused("the pillar is no mapping")
        checked.update({"states": states, "pillar": pillar})
    return checked


def _enroll(wanted):
    """
    Places exactly the claim's key as the accepted one.
    """
    minion, key = wanted["id"], wanted["key"]
    with _state() as state:
        name = wanted["token"]
        token = state["tokens"].get(name)
        if token is None:
            raise Refused("there is no token of that name")
        proof = hmac.new(bytes.fromhex(token["hash"]), wanted["document"], hashlib.sha256).hexdigest()
        if not hmac.compare_digest(proof.encode(), wanted["proof"].encode()):
            raise Refused("the claim is not proved by the token that it names")
        if token["revoked"]:
            raise Refused("the token is revoked")
        if not fnmatch.fnmatchcase(minion, token["id"]):
            raise Refused("the token is for {}".format(token["id"]))
        keys = Keys(__opts__)
        accepted = keys.accepted(minion)
        if accepted == key:
            # Said again, since a VM cannot see whether its first claim was heard. Who replays it gains nothing.
            record = state["minions"].get(minion, {})
            if record.get("finger") == key.finger() and record.get("token") == name:
                return "its key is accepted already"
        trouble = _token_trouble(token)
        if trouble is not None:
            raise Refused(trouble)
        if wanted["nonce"] in [use["nonce"] for use in token["used"]]:
            raise Refused("the claim was used before")
        if keys.is_rejected(minion):
            raise Refused("an operator has rejected a key of this id")
        why = "its key is accepted"
        if accepted is not None and accepted != key:
            if not token["rebuild"]:
                raise Refused("another key is accepted under this id, and the token does not allow to replace it")
            keys.remove(minion)
            why = "its key replaces the accepted one with the fingerprint {}".format(accepted.finger())
        # Counted before it is placed: if this ends in between, a use is lost and none is gained.
        token["used"].append({"id": minion, "finger": key.finger(), "time": int(time.time()), "nonce": wanted["nonce"]})
        before = state["minions"].get(minion, {})
        nonces = before.get("nonces", []) if before.get("finger") == key.finger() else []
        state["minions"][minion] = {"finger": key.finger(), "token": name, "nonces": nonces}
        _save(state)
        keys.accept(minion, key)
        return why


def _apply(wanted):
    """
    Runs states on the minion that asks for it, and on no other.
    """
    with _state() as state:
        token = _entitled(state, wanted)
        others = [name for name in wanted["states"] if name not in token["states"]]
        if others:
            raise Refused("the token does not allow {}".format(", ".join(others)))
        _note_nonce(state, wanted)
    kwarg = {"queue": True, "bootstrap_id": wanted["bootstrap_id"]}
    if wanted["pillar"]:
        kwarg["pillar"] = wanted["pillar"]
    with contextlib.closing(_local_client()) as client:
        published = client.run_job(
            [wanted["id"]],
            "state.sls",
            arg=[",".join(wanted["states"])],
            tgt_type="list",
            kwarg=kwarg,
            metadata={"bootstrap_id": wanted["bootstrap_id"]},
            listen=False,
        )
    return "job {} runs {}".format((published or {}).get("jid", "?"), ",".join(wanted["states"]))


def _deregister(wanted):
    """
    Removes the key of the minion that asks for it.
    """
    with _state() as state:
        token = _entitled(state, wanted)
        if not token["deregister"]:
            raise Refused("the token does not allow to deregister")
        _note_nonce(state, wanted)
        Keys(__opts__).remove(wanted["id"])
    return "its key is removed"


def _entitled(state, wanted):
    """
    The token with which the minion was enrolled, if it is that very minion which asks.
    """
    record = state["minions"].get(wanted["id"])
    if record is None:
        raise Refused("this minion was not enrolled with a token")
    wanted["token"] = record["token"]
    if Keys(__opts__).accepted(wanted["id"]) != wanted["key"]:
        raise Refused("the claim is signed by another key than the accepted one")
    if record["finger"] != wanted["key"].finger():
        raise Refused("this minion was enrolled with another key")
    token = state["tokens"].get(record["token"])
    if token is None or token["revoked"]:
        raise Refused("the token with which this minion was enrolled is revoked")
    return token


def _note_nonce(state, wanted):
    nonces = state["minions"][wanted["id"]]["nonces"]
    if wanted["nonce"] in nonces:
        raise Refused("the claim was used before")
    if len(nonces) >= MOST_NONCES:
        raise Refused("this minion has claimed {} times; it has to be enrolled anew with another key".format(MOST_NONCES))
    nonces.append(wanted["nonce"])
    _save(state)


def _token_trouble(token):
    if token["revoked"]:
        return "the token is revoked"
    if time.time() > token["expires"]:
        return "the token expired on {}".format(_written(token["expires"]))
    if len(token["used"]) >= token["uses"]:
        return "the token is used up: {} of {}".format(len(token["used"]), token["uses"])
    return None


# Keys


class PublicKey:
    """
    An RSA public key, taken apart and written anew: nothing else of a text gets into the key directory.
    """

    def __init__(self, text):
        lines = [line.strip() for line in text.strip().splitlines()]
        if len(lines) < 3 or lines[0] != "-----BEGIN PUBLIC KEY-----" or lines[-1] != "-----END PUBLIC KEY-----":
            raise Refused("the key is no public key in PEM form")
        self.der = _decoded("".join(lines[1:-1]))
        content, rest = _tlv(self.der, 0x30)
        if rest or not content.startswith(RSA):
            raise Refused("the key is no RSA key")
        bits, rest = _tlv(content[len(RSA):], 0x03)
        if rest or not bits.startswith(b"\0"):
            raise Refused("the key is no RSA key")
        numbers, rest = _tlv(bits[1:], 0x30)
        modulus, exponent = _tlv(numbers, 0x02)
        exponent, more = _tlv(exponent, 0x02)
        self.modulus, self.exponent = int.from_bytes(modulus, "big"), int.from_bytes(exponent, "big")
        if rest or more or not 2048 <= self.modulus.bit_length() <= 8192 or not 3 <= self.exponent < 2**32:
            raise Refused("the key is no RSA key of 2048 to 8192 bits")

    def __eq__(self, other):
        return isinstance(other, PublicKey) and self.der == other.der

    def __hash__(self):
        return hash(self.der)

    def pem(self):
        """As Salt writes it."""
        body = base64.b64encode(self.der).decode()
        lines = [body[start:start + 64] for start in range(0, len(body), 64)]
        return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----"])

    def finger(self):
        """As ``salt-key -f`` shows it."""
        body = "\n".join(self.pem().splitlines()[1:-1]) + "\n"
        digest = hashlib.sha256(body.encode()).hexdigest()
        return ":".join(digest[start:start + 2] for start in range(0, 64, 2))

    def has_signed(self, document, signature):
        """RSASSA-PKCS1-v1_5 with SHA-256, RFC 8017, 8.2.2: what should have been signed is built and compared."""
        length = (self.modulus.bit_length() + 7) // 8
        if len(signature) != length:
            return False
        info = SHA256 + hashlib.sha256(document).digest()
        expected = b"\0\1" + b"\xff" * (length - len(info) - 3) + b"\0" + info
        number = int.from_bytes(signature, "big")
        if number >= self.modulus:
            return False
        return hmac.compare_digest(pow(number, self.exponent, self.modulus).to_bytes(length, "big"), expected)


class Keys:
    """
    The master's keys, as files on 3006 and behind Salt's own cache since 3008.
    """

    def __init__(self, opts):
        self.opts = opts
        self.key = salt.key.Key(opts)
        self.cache = getattr(self.key, "cache", None)

    def accepted(self, minion):
        """The accepted key of this id; ``None`` if there is none."""
        if self.cache is not None:
            found = self.cache.fetch("keys", minion) or {}
            text = found.get("pub") if found.get("state") == "accepted" else None
        else:
            text = self._text("minions", minion)
        if text is None:
            return None
        try:
            return PublicKey(text)
        except Refused as refused:
            raise Refused("the accepted key of this id cannot be read: {}".format(refused)) from refused

    def is_rejected(self, minion):
        """Has an operator said no to a key of this id?"""
        if self.cache is not None:
            return (self.cache.fetch("keys", minion) or {}).get("state") == "rejected"
        return self._text("minions_rejected", minion) is not None

    def accept(self, minion, key):
        """Makes this the accepted key; what waits or was denied under this id goes."""
        if self.cache is not None:
            self.cache.store("keys", minion, {"state": "accepted", "pub": key.pem()})
            with contextlib.suppress(Exception):
                self.cache.flush("denied_keys", minion)
            return
        _write(self._path("minions", minion), key.pem(), 0o644)
        for state in ("minions_pre", "minions_denied"):
            with contextlib.suppress(FileNotFoundError):
                os.remove(self._path(state, minion))

    def remove(self, minion):
        """As ``salt-key -d`` does, which also changes the key that protects what is published."""
        # No pattern: the names are taken as they are.
        self.key.delete_key(match_dict={"minions": [minion]})

    def _path(self, state, minion):
        return os.path.join(self.key.pki_dir if hasattr(self.key, "pki_dir") else self.opts["pki_dir"], state, minion)

    def _text(self, state, minion):
        with contextlib.suppress(FileNotFoundError), open(self._path(state, minion), encoding="utf-8") as file:
            return file.read(64 * 1024)
        return None


# Texts that come from anywhere


def _check_id(minion):
    """
    An id names one minion and one file: no pattern, no list, no path.
    """
    if not isinstance(minion, str) or not 0 < len(minion.encode("utf-8", "replace")) <= 255:
        raise Refused("the id is no text of 1 to 255 bytes")
    if minion.startswith(".") or not minion.isprintable() or any(c.isspace() or c in "*?[],/\\" for c in minion):
        raise Refused("the id is none")
    if not salt.utils.verify.valid_id(__opts__, minion):
        raise Refused("the id is none that Salt takes")


def _text(mapping, key, most):
    value = mapping.get(key)
    if not isinstance(value, str) or len(value) > most:
        raise Refused("{} is no text, or too long".format(key))
    return value


def _decoded(text):
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused("the claim is no Base64") from error


def _json(content):
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refused("the claim is no JSON") from error
    if not isinstance(value, dict):
        raise Refused("the claim is no mapping")
    return value


def _tlv(content, tag):
    """
    One DER value of this tag, and what follows it.
    """
    if len(content) < 2 or content[0] != tag:
        raise Refused("the key is no RSA key")
    length, start = content[1], 2
    if length & 0x80:
        start = 2 + (length & 0x7F)
        if start == 2 or start > 6 or len(content) < start:
            raise Refused("the key is no RSA key")
        length = int.from_bytes(content[2:start], "big")
    if len(content) < start + length:
        raise Refused("the key is no RSA key")
    return content[start:start + length], content[start + length:]


def _truth(value):
    return value if isinstance(value, bool) else str(value).lower() in ("true", "yes", "1")


def _written(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


# Files


def _local_client():
    client = salt.client.get_local_client(mopts=__opts__)
    if not hasattr(client, "close"):
        client.close = client.destroy
    return client


def _path(name):
    directory = os.path.join(__opts__["pki_dir"], "heat-salt-bootstrap")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    return os.path.join(directory, name)


@contextlib.contextmanager
def _state(write=True):
    """
    Tokens and minions; nobody else has them meanwhile, in whatever thread or process. Whoever changes them and goes on
    to change something else saves first.
    """
    with open(_path("lock"), "a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if write else fcntl.LOCK_SH)
        try:
            with open(_path("state.json"), encoding="utf-8") as file:
                state = json.load(file)
        except FileNotFoundError:
            state = {"schema": 1, "tokens": {}, "minions": {}}
        before = json.dumps(state)
        yield state
        if write and json.dumps(state) != before:
            _save(state)


def _save(state):
    _write(_path("state.json"), json.dumps(state, indent=1), 0o600)


def _write(path, text, mode):
    handle, new = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".hsb-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(new, mode)
        os.replace(new, path)
    except BaseException:
        os.remove(new)
        raise


def _audit(entry):
    """
    One JSON object a line. Texts of others are in it only as JSON strings, so no line can be forged.
    """
    path = _path("audit.log")
    with contextlib.suppress(FileNotFoundError):
        if os.path.getsize(path) > MOST_AUDIT:
            os.replace(path, path + ".1")
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(json.dumps({"time": _written(time.time()), **entry}) + "\n")
