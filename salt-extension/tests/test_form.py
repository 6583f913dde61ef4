"""
What is malformed is refused, whatever it is, and nothing comes of it.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

import vm
from conftest import World
from saltext.heat_bootstrap import claims
from saltext.heat_bootstrap.refusals import Refused

IDS = [
    "",
    ".",
    "..",
    ".web",
    "../web",
    "a/b",
    "a\\b",
    "/etc/passwd",
    "web*",
    "web?",
    "web[1]",
    "]",
    "a,b",
    "a b",
    "a\tb",
    "a\nb",
    "a\0b",
    "web-1\n",
    "web-1\u200b",
    "web\u202e1",
    "web\u00a01",
    "web\u3000",
    "x" * 256,
    "\u00e9" * 128,
    "\ud800",
    "\x7f",
    None,
    1,
    ["web-1"],
    {"web-1": 1},
    True,
]


@pytest.mark.parametrize("minion", IDS)
def test_no_id(world: World, minion: Any) -> None:
    who = world.vm(pattern="*")
    assert world.word("enroll", who.claim("enroll", id=minion)) == "400 malformed"
    assert world.audit() == []


@pytest.mark.parametrize(
    "minion", ["x", "x" * 255, "\u00e9" * 127, "web-1.example.net", "web:1", "w\u0435b-1", "-rf", "~root", "a'b", "$(x)"]
)
def test_ids_that_are_some(world: World, minion: str) -> None:
    who = world.vm(minion, pattern="*")
    assert world.enroll(who) == "accepted"
    assert world.accepted(minion)


def test_a_look_alike_does_not_match_the_pattern(world: World) -> None:
    assert world.enroll(world.vm("w\u0435b-1", pattern="web-*")) == "403 id-not-allowed"
    assert world.enroll(world.vm("Web-1", pattern="web-*")) == "403 id-not-allowed"


COMMON = {
    "verb": [..., "apply", "", 1, None],
    "key": [..., None, "", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "x" * 5000, 5],
    "bootstrap_id": [..., None, "", "x" * 65, "a b", "a_b", "b\n", 7],
    "nonce": [..., None, "", "a" * 31, "a" * 65, "A" * 32, "g" * 32, "a" * 32 + "\n", 5],
    "time": [..., None, "1", 1.5, True, -1, 2**63, 10**30],
    "token": [..., None, "", "A" * 16, "a" * 15, 5],
    "states": [..., None, "ok", [""], [1], ["a b"], ["a,b"], ["ok\n"], ["x" * 201], ["ok"] * 201, [["ok"]]],
}
APPLY = {
    "job": [..., None, "", "a" * 31, "a" * 33, "A" * 32],
    "states": [..., [], "ok"],
    "pillar": [..., None, [], "x"],
    "again": [..., None, 0, "true"],
    "deadline": [..., None, -1, 1.5, "60", True, 2**63],
}
REPORT = {
    "verdict": [..., None, "ok", "Done"],
    "code": [..., None, -1, 256, "0", True],
    "reason": [1, [], {}],
    "message": [1],
    "step": [False],
    "jid": [20261128],
    "seconds": [..., None, "1", True, -1, 1e13],
    "steps": [..., None, {}, ["x"], [["x"]], [["x", "1"]], [[1, 1]], [["a", 1]] * 1001],
    "failures": [..., None, {}, ["x"], [{}], [{"id": "a", "sls": "b"}], [{"id": "a", "sls": "b", "comment": 1}]],
}


def cases(table: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(key, value) for key, values in table.items() for value in values]


@pytest.mark.parametrize("key, value", cases(COMMON))
def test_enroll_fields(world: World, key: str, value: Any) -> None:
    who = world.vm()
    for verb in ("enroll", "check"):
        # Who only asks may have no key yet.
        asks = verb == "check" and key == "key" and value in (..., None)
        assert world.word(verb, who.claim(verb, **{key: value})) == ("good" if asks else "400 malformed")
    assert world.accepted() is None


def test_only_who_asks_may_have_no_key(world: World) -> None:
    who = world.vm()
    assert world.word("check", who.claim("check", key=None)) == "good"
    for verb in ("enroll", "apply", "report", "renew", "deregister"):
        assert world.word(verb, who.claim(verb, key=None)) == "400 malformed"
        empty = "-----BEGIN PUBLIC KEY-----\n\n-----END PUBLIC KEY-----"
        assert world.word(verb, who.claim(verb, key=empty)) in ("400 malformed", "403 not-enrolled")
    assert world.accepted() is None


@pytest.mark.parametrize("verb, table", [("apply", APPLY), ("report", REPORT)])
def test_fields_of_the_others(world: World, verb: str, table: dict[str, list[Any]]) -> None:
    who = world.vm()
    assert world.enroll(who) == "accepted"
    for key, value in cases(table):
        assert world.word(verb, who.claim(verb, **{key: value})) == "400 malformed", (key, value)
    assert world.publisher.published == []


def test_unknown_keys_are_ignored(world: World) -> None:
    assert world.enroll(world.vm(), future=["x"]) == "accepted"


POSTED = {
    "claim": [
        ...,
        None,
        "",
        "!",
        "AAA",
        "AA==\n",
        " AA==",
        "AB==",
        "AAAA====",
        "YWJj\u00e9",
        5,
        base64.b64encode(b"[]").decode(),
    ],
    "signature": [..., None, "!", "A", 5, "x" * 3000],
    "proof": [..., None, "", "0" * 63, "G" * 64, "0" * 64 + "\n", 5],
}


@pytest.mark.parametrize("key, value", cases(POSTED))
def test_posted(world: World, key: str, value: Any) -> None:
    who = world.vm()
    assert world.word("enroll", who.sealed(who.document("enroll"), **{key: value})) == "400 malformed"


BODIES = [
    b"",
    b"null",
    b"[]",
    b'"x"',
    b"{",
    b"\xff\xfe",
    b'{"claim": NaN}',
    b"[" * 100000,
    b'{"a":' * 20000,
    b'{"a": ' + b"9" * 100000 + b"}",
    b'{"a": 1e999}',
    b'{"claim": "", "claim": ""}',
    '{"claim": "\u00e9"}'.encode("latin-1"),
    b'{"claim": "\\ud800"}',
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_bodies(world: World, body: bytes) -> None:
    assert world.word("enroll", body) == "400 malformed"
    # The same as the signed document, from somebody who has a token.
    who = world.vm()
    assert world.word("enroll", who.sealed(body)) == "400 malformed"


def test_a_key_that_is_there_twice(world: World) -> None:
    who = world.vm()
    document = json.dumps(who.document("enroll"))
    assert world.word("enroll", who.sealed((document[:-1] + ', "id": "db-1"}').encode())) == "400 malformed"


def test_too_large(world: World) -> None:
    assert world.word("enroll", b" " * 262145) == "413 too-large"
    assert world.word("enroll", b" " * 262144) == "400 malformed"


def test_paths_and_methods(world: World) -> None:
    for path in ("/", "/v1", "/v1/", "/v1/other", "/v2/enroll", "/v1/enroll/", "/v1/_enroll", "//v1/enroll"):
        answer = world.service.handle("POST", path, b"")
        assert (answer.status, answer.body["error"]) == (404, "not-found"), path
    for method, path in (("GET", "/v1/enroll"), ("PUT", "/v1/apply"), ("POST", "/v1/status")):
        answer = world.service.handle(method, path, b"")
        assert (answer.status, answer.body["error"]) == (405, "not-found")
    answer = world.service.handle("GET", "/v1/status", b"")
    assert answer.status == 200
    assert set(answer.body) == {"service", "protocol", "version", "time"}


def signed_by(private: Any, who: vm.Vm, key: str) -> bytes:
    content = json.dumps(who.document("enroll", key=key)).encode()
    if isinstance(private, rsa.RSAPrivateKey):
        signature = private.sign(content, padding.PKCS1v15(), hashes.SHA256())
    else:
        signature = private.sign(content, ec.ECDSA(hashes.SHA256()))
    return who.sealed(content, signature=base64.b64encode(signature).decode())


def test_keys_that_salt_does_not_use(world: World) -> None:
    who = world.vm()
    weak, curve = rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP256R1())
    for private in (weak, curve):
        assert world.word("enroll", signed_by(private, who, vm.public_pem(private))) == "400 malformed"
    form = (serialization.Encoding.PEM, serialization.PublicFormat.PKCS1)
    pkcs1 = who.private.public_key().public_bytes(*form).decode()
    assert world.word("enroll", signed_by(who.private, who, pkcs1)) == "400 malformed"
    # Something after the key's end, and something before its armour
    body = base64.b64encode(claims.Key.read(vm.public_pem(who.private)).der + b"\0").decode()
    longer = f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"
    assert world.word("enroll", signed_by(who.private, who, longer)) == "400 malformed"
    assert world.word("enroll", signed_by(who.private, who, "# mine\n" + vm.public_pem(who.private))) == "400 malformed"
    assert world.accepted() is None


def test_one_key_is_one_key_however_it_is_broken_into_lines(world: World) -> None:
    who = world.vm()
    lines = vm.public_pem(who.private).split("\n")
    assert world.enroll(who, key="\r\n".join([lines[0], "".join(lines[1:-2]), lines[-2]])) == "accepted"
    assert world.accepted() == vm.public_pem(who.private).strip()
    assert world.enroll(who) == "already"


def test_signed_by_another_key(world: World) -> None:
    who, other = world.vm(), world.vm(key=1)
    document = who.document("enroll")
    content = json.dumps(document).encode()
    signature = base64.b64encode(other.private.sign(content, padding.PKCS1v15(), hashes.SHA256())).decode()
    assert world.word("enroll", who.sealed(content, signature=signature)) == "401 signature-wrong"
    sha1 = base64.b64encode(who.private.sign(content, padding.PKCS1v15(), hashes.SHA1())).decode()  # noqa: S303
    assert world.word("enroll", who.sealed(content, signature=sha1)) == "401 signature-wrong"
    assert world.word("enroll", who.sealed(content, signature="")) == "401 signature-wrong"
    assert world.accepted() is None


def test_pillars(world: World) -> None:
    who = world.vm()
    assert world.enroll(who) == "accepted"
    deep: Any = {}
    for _ in range(63):
        deep = {"a": deep} if len(str(deep)) % 2 else [deep]
    assert world.word("apply", who.claim("apply", pillar={"a": deep})) == "400 malformed"
    for value in ({"a": 2**63}, {"a": -(2**63) - 1}, {"a": float("inf")}, {"a": float("nan")}, {"a": "\ud800"}):
        assert world.word("apply", who.claim("apply", pillar=value)) == "400 malformed"
    fine = {"a": [1, -(2**63), 2**63 - 1, 1.5, None, True, "\u00e9\U0001f600\0"], "b": {"__kwarg__": True}}
    assert world.word("apply", who.claim("apply", pillar=fine)) == "200"
    assert world.publisher.published[0][3] == fine


def test_texts_of_reports_are_cut(world: World) -> None:
    report = claims.read(
        "report",
        vm.Vm().claim(
            "report",
            message="x" * 50000,
            steps=[["y" * 100, 1]] * 500,
            failures=[{"id": "a" * 300, "sls": "b" * 300, "comment": "c" * 600}] * 40,
        ),
    ).report
    assert report is not None and report.message is not None
    assert (len(report.message), len(report.steps), len(report.steps[0][0])) == (2000, 64, 64)
    assert len(json.dumps(report.failures)) < 60000


@pytest.mark.parametrize("seed", range(200))
def test_bent_requests_never_fail(seed: int) -> None:
    import random

    bend = random.Random(seed)
    body = bytearray(vm.Vm().claim(bend.choice(["enroll", "apply", "report"])))
    for _ in range(bend.randint(1, 4)):
        at = bend.randrange(len(body))
        body[at : at + bend.randint(0, 3)] = bytes(bend.randrange(256) for _ in range(bend.randint(0, 3)))
    for verb in claims.VERBS:
        try:
            claims.verify(claims.read(verb, bytes(body)))
        except Refused as refused:
            assert refused.status in (400, 401)
