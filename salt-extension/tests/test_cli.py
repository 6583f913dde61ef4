"""
The operator's command.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

import vm
from conftest import World
from saltext.heat_bootstrap import cli, tokens, views


def run(world: World, *arguments: str) -> int:
    return cli.main(["-c", str(world.root / "etc"), *arguments])


def test_create(configured: World, capsys: pytest.CaptureFixture[str]) -> None:
    world = configured
    asked = ("web-*", "--states", "ok,more", "--uses", "2", "--expires", "2h", "--rebuild", "--deregister")
    assert run(world, "token", "create", *asked) == 0
    out, err = capsys.readouterr()
    text = out.strip()
    assert out == text + "\n"
    name, _, pin = tokens.read(text)
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    spki = vm.private_key(99).public_key().public_bytes(*form)
    assert pin == "s" + base64.urlsafe_b64encode(hashlib.sha256(spki).digest()).decode().rstrip("=")
    assert f"Token {name}: 2 keys for web-*" in err and "may replace accepted keys and deregister" in err
    assert text.split(".")[2] not in err
    who = world.vm(token=text)
    assert world.enroll(who) == "accepted"
    assert world.word("apply", who.claim("apply", states=["ok", "more"])) == "200"
    assert world.words() == ["created", "accepted", "published"]


def test_pins(configured: World, capsys: pytest.CaptureFixture[str]) -> None:
    world = configured
    assert run(world, "token", "create", "web-1", "--pin", "none") == 0
    assert capsys.readouterr().out.count(".") == 2
    assert run(world, "token", "create", "web-1", "--pin", "ca") == 1
    assert f"no CA among the certificates in {world.root / 'server.crt'}" in capsys.readouterr().err
    (world.root / "server.crt").write_text("nothing")
    assert run(world, "token", "create", "web-1") == 1
    assert f"no certificate in {world.root / 'server.crt'}" in capsys.readouterr().err
    (world.root / "server.crt").unlink()
    assert run(world, "token", "create", "web-1") == 1
    assert "server.crt" in capsys.readouterr().err


@pytest.mark.parametrize("pattern", ["", "../x", "a/b", "a,b", ".web", "a b", "x" * 256, "a\nb", "web-]"])
def test_patterns_that_are_none(configured: World, pattern: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(configured, "token", "create", pattern) == 1
    said = capsys.readouterr().err
    assert "no pattern for ids" in said or "too long for a pattern" in said
    assert "request" not in said


@pytest.mark.parametrize("pattern", ["*", "web-?", "web-[0-9]*", "[!a]b", "web-1.example.net"])
def test_patterns_that_are_some(configured: World, pattern: str) -> None:
    assert run(configured, "token", "create", pattern, "--pin", "none") == 0


@pytest.mark.parametrize("wrong", [("--uses", "0"), ("--states", "a b"), ("--expires", "0h"), ("--pin", "x")])
def test_wrong_arguments(configured: World, wrong: tuple[str, str]) -> None:
    try:
        assert run(configured, "token", "create", "web-1", *wrong) == 1
    except SystemExit as ended:
        assert ended.code == 2
    assert configured.audit() == []


def test_list_revoke_audit_forget_prune(configured: World, capsys: pytest.CaptureFixture[str]) -> None:
    world = configured
    who = world.vm()
    name = str(who.token).split(".")[1]
    assert world.enroll(who) == "accepted"
    assert run(world, "token", "list") == 0
    assert name in capsys.readouterr().out
    assert run(world, "token", "list", "--json") == 0
    [listed] = json.loads(capsys.readouterr().out)
    assert (listed["is"], listed["used"]) == ("used-up", 1) and "digest" not in listed
    # All of the token, by a hand that does not know better
    assert run(world, "token", "revoke", str(who.token)) == 0
    assert world.enroll(who) == "403 token-revoked"
    capsys.readouterr()
    assert run(world, "token", "revoke", "0" * 16) == 1
    assert run(world, "token", "revoke", "nonsense") == 1
    assert run(world, "forget", "web-1") == 0
    assert run(world, "forget", "web-1") == 1
    capsys.readouterr()
    assert run(world, "audit", "web-1", "--json") == 0
    assert [line["word"] for line in json.loads(capsys.readouterr().out)] == ["accepted", "token-revoked", "forgotten"]
    assert run(world, "audit") == 0
    assert "forgotten" in capsys.readouterr().out
    old = world.vm("web-2", expires=1)
    assert run(world, "prune") == 0
    assert world.enroll(old) == "401 token-unknown"


def test_prune_forgets_who_came_in(configured: World) -> None:
    world = configured
    who = world.vm()
    assert world.enroll(who) == "accepted"
    world.store.write(lambda connection: world.store.prune(connection, int(world.clock()) + 4000, world.clock()))
    for verb in ("apply", "report", "deregister"):
        assert world.word(verb, who.claim(verb)) == "403 not-enrolled"
    assert world.accepted()


def test_fleet(configured: World, capsys: pytest.CaptureFixture[str]) -> None:
    world = configured
    text = world.token(uses=9)
    failures: Any = [{"id": "pkg", "sls": "ok", "comment": "no such package"}]
    for number, changes in enumerate([{}, {"verdict": "failed", "code": 20, "failures": failures}, {"seconds": 40}]):
        who = world.vm(f"web-{number}", text)
        world.enroll(who)
        assert world.word("report", who.claim("report", **changes)) == "noted"
    waiting = world.vm("web-9", text)
    world.enroll(waiting)
    world.ask("apply", waiting.claim("apply"))
    assert run(world, "fleet") == 0
    out = capsys.readouterr().out
    assert "2 done, 1 failed, 1 under way; median 26 s, slowest 40 s" in out
    assert "ok: pkg: no such package" in out
    assert run(world, "fleet", "--failed", "--json", "--since", "2h") == 0
    assert [entry["id"] for entry in json.loads(capsys.readouterr().out)] == ["web-1"]


def test_configuration_that_is_wrong(configured: World, capsys: pytest.CaptureFixture[str]) -> None:
    path = configured.root / "etc" / "master"
    options = json.loads(path.read_text())
    path.write_text(json.dumps({**options, "heat_bootstrap": {"prot": 1}}))
    assert run(configured, "token", "list") == 1
    err = capsys.readouterr().err
    assert err.count("heat-bootstrap: ") == 3 and str(path) in err and "heat_bootstrap.prot" in err
    assert cli.main(["-c", "/nowhere", "token", "list"]) == 1
    assert "/nowhere/master" in capsys.readouterr().err


@pytest.mark.parametrize("count", ["0", "-5", "x", "1000000"])
def test_counts_that_are_none(configured: World, count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(configured, "audit", "--count", count)
    assert f"{count!r} is no whole number from 1 to 100000" in capsys.readouterr().err


def test_durations() -> None:
    assert [views.duration(text) for text in ("30s", "90m", "2h", "7d")] == [30, 5400, 7200, 604800]
