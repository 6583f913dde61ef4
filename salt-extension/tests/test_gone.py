"""
Leases: who is gone loses his key, and who comes back gets it again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import pytest

import vm
from conftest import World, pem
from saltext.heat_bootstrap import cli, gone
from saltext.heat_bootstrap.refusals import Unavailable
from test_claims import accept, delete, enrolled, reject, revoke
from test_cli import run

DAY = 86400


def renewed(world: World, minion: str = "web-1", key: int = 0) -> vm.Vm:
    """A machine that has a lease."""
    who = world.vm(minion, key=key, deregister=True)
    assert world.enroll(who) == "accepted"
    assert world.word("renew", who.claim("renew")) == "renewed"
    return who


def remove_gone(world: World, answering: Sequence[str] = (), span: int = 7 * DAY) -> list[str]:
    """Who is removed, by a master that hears only these."""
    found = gone.silent(world.store, world.keys, int(world.clock()) - span, lambda asked: set(asked) & set(answering))
    went = []
    for one in found:
        if not one.answers and gone.remove(world.store, world.keys, "the_master", one, world.clock(), lambda _act, _minion: None):
            went.append(one.record.id)
    return went


# What the service says


def test_a_lease_moves_nothing(world: World) -> None:
    who = renewed(world)
    assert world.words() == ["accepted"] and world.used(who) == 1
    assert world.word("renew", who.claim("renew")) == "renewed"


def test_it_wants_the_right_to_leave(world: World) -> None:
    who = enrolled(world)
    assert world.word("renew", who.claim("renew")) == "403 deregister-not-allowed"
    assert remove_gone(world, span=-1) == []


def test_who_has_left_comes_back(world: World) -> None:
    who = renewed(world)
    assert world.word("deregister", who.claim("deregister")) == "removed"
    assert world.accepted() is None
    # Also long after the token has expired, and without a use of it.
    world.clock.now += 90 * DAY
    assert world.word("renew", who.claim("renew")) == "returned"
    assert world.accepted() == pem(who) and world.used(who) == 1
    assert world.words()[-2:] == ["removed", "returned"]
    assert world.word("renew", who.claim("renew")) == "renewed"
    assert world.word("apply", who.claim("apply")) == "200"
    # And may leave again.
    assert world.word("deregister", who.claim("deregister")) == "removed"


def test_the_old_name_of_a_machine_goes_with_its_lease(world: World) -> None:
    before = renewed(world)
    after = world.vm("web-2", deregister=True)
    assert world.enroll(after) == "accepted"
    world.clock.now += 8 * DAY
    assert world.word("renew", after.claim("renew")) == "renewed"
    assert remove_gone(world, answering=["web-2"]) == ["web-1"]
    assert world.keys_there() == ["web-2"] and world.accepted("web-2") == pem(before)
    # With the key goes what is said of it.
    with world.store.read() as connection:
        assert world.store.with_several_names(connection) == []


def test_a_claim_of_before_it_left_brings_nobody_back(world: World) -> None:
    who = renewed(world)
    old = who.claim("renew")
    assert world.word("renew", old) == "renewed"
    assert world.word("deregister", who.claim("deregister")) == "removed"
    assert world.word("renew", old) == "409 replayed"
    assert world.accepted() is None


def test_what_an_operator_does_stands(world: World) -> None:
    who = renewed(world)
    delete(world)
    assert world.word("renew", who.claim("renew")) == "403 not-enrolled"
    assert world.accepted() is None
    # Let in by hand, and removed by hand
    accept(world, who)
    assert world.word("renew", who.claim("renew")) == "renewed"
    assert world.word("deregister", who.claim("deregister")) == "removed"
    accept(world, who)
    assert world.word("renew", who.claim("renew")) == "renewed"
    delete(world)
    assert world.word("renew", who.claim("renew")) == "403 not-enrolled"


def test_rejected_conflicting_and_revoked(world: World) -> None:
    who = renewed(world)
    assert world.word("deregister", who.claim("deregister")) == "removed"
    reject(world, who)
    assert world.word("renew", who.claim("renew")) == "409 key-rejected"
    (world.pki / "minions_rejected" / "web-1").unlink()
    other = world.vm(key=1)
    accept(world, other)
    assert world.word("renew", who.claim("renew")) == "409 key-conflict"
    assert world.accepted() == pem(other)
    delete(world)
    revoke(world, who)
    assert world.word("renew", who.claim("renew")) == "403 token-revoked"
    stranger = world.vm("web-1", who.token, key=2)
    assert world.word("renew", stranger.claim("renew")) == "403 not-enrolled"


# What the operator's command does


def test_only_who_is_silent_goes(world: World) -> None:
    gone_one, living, busy = renewed(world), renewed(world, "web-2"), renewed(world, "web-3")
    world.clock.now += 8 * DAY
    assert world.word("renew", living.claim("renew")) == "renewed"
    # web-3 could not renew, and its minion lives.
    assert remove_gone(world, answering=["web-2", "web-3"]) == ["web-1"]
    assert (world.accepted("web-1"), world.accepted("web-2")) == (None, pem(living))
    assert world.accepted("web-3") == pem(busy)
    assert world.words()[-1] == "gone"
    assert remove_gone(world, answering=["web-2", "web-3"]) == []
    # It was only switched off.
    assert world.word("renew", gone_one.claim("renew")) == "returned"
    assert world.accepted("web-1") == pem(gone_one)


def test_who_has_no_lease_stays(world: World) -> None:
    who = enrolled(world, deregister=True)
    world.clock.now += 1000 * DAY
    assert remove_gone(world) == []
    assert world.accepted() == pem(who)


def test_a_lease_is_of_one_key(world: World) -> None:
    renewed(world)
    anew = world.vm(key=1, rebuild=True)
    assert world.enroll(anew) == "replaced"
    world.clock.now += 30 * DAY
    assert remove_gone(world) == []
    assert world.accepted() == pem(anew)


def test_a_master_that_nobody_hears_removes_nobody(world: World) -> None:
    old, young = renewed(world), renewed(world, "web-2")
    world.clock.now += 8 * DAY
    assert world.word("renew", young.claim("renew")) == "renewed"
    with pytest.raises(Unavailable, match="web-2"):
        remove_gone(world)
    assert world.accepted() == pem(old)


def test_who_comes_back_meanwhile_stays(world: World) -> None:
    who = renewed(world)
    world.clock.now += 8 * DAY
    [one] = gone.silent(world.store, world.keys, int(world.clock()) - 7 * DAY, lambda _asked: set())
    assert world.word("renew", who.claim("renew")) == "renewed"
    assert not gone.remove(world.store, world.keys, "the_master", one, world.clock(), lambda _act, _minion: None)
    assert world.accepted() == pem(who)


def test_prune_keeps_who_lives(world: World) -> None:
    living, silent = renewed(world), renewed(world, "web-2")
    world.clock.now += 100 * DAY
    assert world.word("renew", living.claim("renew")) == "renewed"
    before = int(world.clock()) - 30 * DAY
    counts = world.store.write(lambda connection: world.store.prune(connection, before, world.clock()))
    assert (counts["tokens"], counts["minions"]) == (1, 1)
    assert world.word("renew", living.claim("renew")) == "renewed"
    assert world.word("renew", silent.claim("renew")) == "403 not-enrolled"


def test_a_database_of_before_there_were_leases(world: World) -> None:
    who = enrolled(world, deregister=True)
    world.store.close()
    with sqlite3.connect(world.file) as connection:
        connection.execute("DROP TABLE hsb_leases")
        connection.execute("DROP INDEX hsb_minions_finger")
    connection.close()
    assert world.word("renew", who.claim("renew")) == "renewed"
    with sqlite3.connect(world.file) as connection:
        indexes = [name for _, name, *_ in connection.execute("PRAGMA index_list(hsb_minions)")]
    connection.close()
    assert "hsb_minions_finger" in indexes


def test_the_command(configured: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Here no master runs; with one, and real minions, it is among the agent's tests.
    world = configured
    who = world.vm(deregister=True)
    assert world.enroll(who) == "accepted"
    world.clock.now -= 10 * DAY
    past = who.claim("renew")
    assert world.word("renew", past) == "renewed"
    assert run(world, "prune", "--gone", "7d") == 1
    assert "cannot be asked which minions answer" in capsys.readouterr().err
    assert world.accepted() == pem(who)
    assert run(world, "prune", "--dry-run") == 1
    assert "--gone" in capsys.readouterr().err
    answers: set[str] = {"web-1"}
    monkeypatch.setattr(cli.gone, "ping_by_salt", lambda _opts: lambda _asked: answers)
    assert run(world, "prune", "--gone", "7d") == 0
    assert "web-1 stays" in capsys.readouterr().err
    answers.clear()
    assert run(world, "prune", "--gone", "7d", "--dry-run") == 0
    assert "would be removed" in capsys.readouterr().out and world.accepted() == pem(who)
    assert run(world, "prune", "--gone", "7d") == 0
    said = capsys.readouterr().err
    assert "web-1 is gone" in said and "0 tokens" in said and world.accepted() is None
    assert run(world, "prune", "--gone", "11d") == 0
