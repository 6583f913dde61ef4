"""
Killed at any point: a use may be lost, none is gained; no key without a line in the audit; no job twice.
"""

from __future__ import annotations

import pathlib
import random
import subprocess
import sys
import time
from typing import Any

import pytest

from conftest import World, pem


class Killed(BaseException):
    """As SIGKILL: nothing of ours catches it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, thing: Any, name: str, after: bool = False) -> None:
    real = getattr(thing, name)

    def dies(*arguments: Any, **others: Any) -> Any:
        if after:
            real(*arguments, **others)
        raise Killed

    monkeypatch.setattr(thing, name, dies)


ENROLLING = [
    ("keys", "state", False),
    ("store", "token", False),
    ("store", "count_use", False),
    ("store", "count_use", True),
    ("store", "put_record", True),
    ("store", "remember", True),
    ("store", "note", False),
    ("store", "note", True),
    ("keys", "accept", False),
    ("keys", "accept", True),
    ("store", "put_placed", False),
    ("store", "put_placed", True),
    ("keys", "master_public_key", False),
]


@pytest.mark.parametrize("thing, name, after", ENROLLING)
@pytest.mark.parametrize("rebuild", [False, True])
def test_enrolling(world: World, thing: str, name: str, after: bool, rebuild: bool) -> None:
    who = world.vm(rebuild=rebuild)
    old = world.vm(key=1)
    if rebuild:
        assert world.enroll(old) == "accepted"
    word = "replaced" if rebuild else "accepted"
    before = len(world.audit())
    body = who.claim("enroll")
    proved = world.service.door("POST", "/v1/enroll", body)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, getattr(world, thing), name, after)
        with pytest.raises(Killed):
            world.service.work(proved)  # type: ignore[arg-type]
    world.restart()
    if world.accepted() == pem(who):
        assert world.words()[before:] == [word]
        assert world.used(who) == 1
    # The VM asks again, with the same claim or with a new one, and is let in without a second use.
    answer = world.ask("enroll", body)
    assert answer.status == 200
    assert who.opened(answer.body)["status"] in ("accepted", "already", "replaced")
    assert world.enroll(who) == "already"
    assert world.accepted() == pem(who)
    assert world.used(who) == 1
    assert world.words()[before] == word
    # Nobody else can come in with what is left of it.
    assert world.enroll(world.vm("web-2", who.token, key=2)) == "403 token-used-up"


def test_what_was_granted_and_not_done_is_nobody_elses(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    who = world.vm()
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, world.keys, "accept")
        with pytest.raises(Killed):
            world.ask("enroll", who.claim("enroll"))
    world.restart()
    assert world.enroll(world.vm(key=1)) == "409 key-conflict"
    assert world.enroll(world.vm("web-2", who.token)) == "403 token-used-up"
    world.store.write(lambda connection: world.store.forget(connection, "web-1"))
    assert world.enroll(world.vm(key=1)) == "accepted"
    assert world.enroll(who) == "403 token-used-up"


APPLYING = [
    ("store", "add_job", False),
    ("store", "add_job", True),
    ("store", "remember", True),
    ("store", "note", True),
    ("publisher", "publish", False),
    ("publisher", "publish", True),
]


@pytest.mark.parametrize("thing, name, after", APPLYING)
def test_applying(world: World, thing: str, name: str, after: bool) -> None:
    who = world.vm()
    assert world.enroll(who) == "accepted"
    document = who.document("apply")
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, getattr(world, thing), name, after)
        with pytest.raises(Killed):
            world.ask("apply", who.sealed(document))
    world.restart()
    # What was published is in the audit with its jid.
    noted = [line["why"].split()[1] for line in world.audit() if line["verb"] == "apply"]
    assert [entry[2] for entry in world.publisher.published] in ([], noted)
    before = len(world.publisher.published)
    answer = world.ask("apply", who.sealed(document))
    assert answer.status == 200
    if noted:
        assert answer.body == {"jid": noted[0], "published": False, "time": int(world.clock())}
        assert len(world.publisher.published) == before
    else:
        assert answer.body["published"] is True
    # Only who is told to publishes again, and the minion knows the jid.
    again = {**document, "nonce": "1" * 32, "again": True}
    assert world.ask("apply", who.sealed(again)).body["jid"] == answer.body["jid"]
    assert len({entry[2] for entry in world.publisher.published}) == 1


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", ["put_record", "note", "remove"])
def test_deregistering(world: World, name: str, after: bool) -> None:
    who = world.vm(deregister=True)
    assert world.enroll(who) == "accepted"
    body = who.claim("deregister")
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, world.keys if name == "remove" else world.store, name, after)
        with pytest.raises(Killed):
            world.ask("deregister", body)
    world.restart()
    if world.accepted() is None:
        assert world.words()[-1] == "removed"
    else:
        assert world.word("deregister", body) == "removed"
    assert world.accepted() is None
    assert world.word("deregister", who.claim("deregister")) == "absent"


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", ["put_lease", "put_record", "note", "accept", "put_placed"])
def test_returning(world: World, name: str, after: bool) -> None:
    who = world.vm(deregister=True)
    assert world.enroll(who) == "accepted"
    assert world.word("deregister", who.claim("deregister")) == "removed"
    body = who.claim("renew")
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, world.keys if name == "accept" else world.store, name, after)
        with pytest.raises(Killed):
            world.ask("renew", body)
    world.restart()
    if world.accepted() is not None:
        assert "returned" in world.words()
    assert world.word("renew", body) in ("returned", "renewed")
    assert world.accepted() == pem(who) and world.words().count("returned") >= 1
    assert world.word("renew", who.claim("renew")) == "renewed"
    assert world.used(who) == 1


def test_a_key_that_cannot_be_placed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import salt.exceptions

    who = world.vm()
    body = who.claim("enroll")
    for error in (OSError(28, "No space left on device"), salt.exceptions.SaltCacheError("no")):
        with pytest.MonkeyPatch.context() as patch:

            def fails(*_: Any, error: Exception = error, **__: Any) -> None:
                raise error

            if "keys.cache_driver" in world.opts:
                patch.setattr("salt.cache.Cache.store", fails)
            else:
                patch.setattr("os.replace", fails)
            assert world.word("enroll", body) == "503 unavailable"
    assert world.accepted() is None
    assert list((world.pki / "minions").iterdir()) == []
    assert who.opened(world.ask("enroll", body).body)["status"] == "accepted"
    assert world.used(who) == 1


CHILD = """
import pathlib, sys
import conftest, vm
import salt.config
from saltext.heat_bootstrap.keys import Keys
from saltext.heat_bootstrap.service import Service
from saltext.heat_bootstrap.store import Store
root, bodies = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).read_bytes().split(b"\\n")
opts = salt.config.master_config(str(root / "etc" / "master"))
directory = str(root / "pki" / "heat-bootstrap")
service = Service(Store("sqlite:///" + directory + "/heat-bootstrap.sqlite"), Keys(opts, directory), None, "the_master", 9)
for body in bodies:
    print(service.handle("POST", "/v1/enroll", body).status, flush=True)
"""


@pytest.mark.parametrize("answered", [1, 7])
def test_killed_in_the_middle_of_a_herd(world: World, answered: int) -> None:
    text = world.token(uses=40)
    herd = [world.vm(f"web-{number}", text, key=number % 4) for number in range(40)]
    bodies = [who.claim("enroll") for who in herd]
    (world.root / "bodies").write_bytes(b"\n".join(bodies))
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(world.root), str(world.root / "bodies")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=str(pathlib.Path(__file__).parent))
    assert child.stdout is not None
    for _ in range(answered):
        assert child.stdout.readline().strip() == b"200"
    # Somewhere in the next ones
    time.sleep(random.uniform(0, 0.02))
    child.kill()
    child.communicate()
    there = set(world.keys_there())
    noted = {line["id"] for line in world.audit()}
    assert answered <= len(there) <= 40
    assert there <= noted
    assert world.used(herd[0]) == len(noted) <= len(there) + 1
    # All of them ask again, and each is let in with the one use that it has.
    assert {world.ask("enroll", body).status for body in bodies} == {200}
    assert world.used(herd[0]) == 40
    assert {who.id for who in herd} == set(world.keys_there())
