"""
A database that is locked, full, read-only, broken, too new or gone is no reason for anything but: come back.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
import sqlalchemy as sa

import vm
from conftest import World
from saltext.heat_bootstrap import store
from saltext.heat_bootstrap.refusals import Unavailable


def all_verbs(world: World) -> list[str]:
    who = world.vm()
    assert world.enroll(who) == "accepted"
    return [world.word(verb, who.claim(verb)) for verb in ("enroll", "apply", "report", "renew", "deregister")]


def test_locked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.2)
    world.restart()
    who = world.vm()
    other = sqlite3.connect(world.file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    body = who.claim("enroll")
    assert world.word("enroll", body) == "503 unavailable"
    assert world.accepted() is None
    assert world.word("check", who.claim("check")) == "good"
    other.execute("ROLLBACK")
    other.close()
    assert who.opened(world.ask("enroll", body).body)["status"] == "accepted"


def test_read_only_and_full(world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    who, other = world.vm(), world.vm("web-2")
    assert world.enroll(other) == "accepted"
    settings = store._settings
    for pragma in ("query_only = ON", "max_page_count = 1"):

        def worse(connection: Any, record: Any, pragma: str = pragma) -> None:
            settings(connection, record)
            connection.execute(f"PRAGMA {pragma}")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "_settings", worse)
            world.restart()
            caplog.clear()
            if pragma.startswith("query"):
                assert {world.word("enroll", who.claim("enroll")) for _ in range(3)} == {"503 unavailable"}
                assert world.accepted() is None
            else:
                # Enough to need another page
                reports = [other.claim("report", bootstrap_id=f"b-{number}", message="x" * 2000) for number in range(20)]
                assert "503 unavailable" in {world.word("report", report) for report in reports}
            lines = [line for line in caplog.records if line.levelname == "ERROR"]
            assert len(lines) == 1, [line.getMessage() for line in lines]
            assert lines[0].exc_info is None or lines[0].exc_info is False
    world.restart()
    assert world.enroll(who) in ("accepted", "already")
    assert world.used(who) == 1


def test_corrupt(world: World, caplog: pytest.LogCaptureFixture) -> None:
    who = world.vm()
    assert world.enroll(who) == "accepted"
    world.store.close()
    good = world.file.read_bytes()
    world.file.write_bytes(b"this is no database" * 1000)
    for verb in ("enroll", "check", "apply", "report", "renew", "deregister"):
        assert world.word(verb, who.claim(verb)) == "503 unavailable"
    assert len([line for line in caplog.records if line.levelname == "ERROR"]) == 1
    # Repaired while the service runs
    for path in world.file.parent.glob("*-wal"):
        path.unlink()
    world.file.write_bytes(good)
    assert world.enroll(who) == "already"


def test_newer_schema(world: World, caplog: pytest.LogCaptureFixture) -> None:
    who = world.vm()
    world.store.close()
    with sqlite3.connect(world.file) as connection:
        connection.execute("UPDATE hsb_meta SET value = 2 WHERE name = 'schema'")
    connection.close()
    assert world.word("enroll", who.claim("enroll")) == "503 unavailable"
    assert "has schema 2, this version knows 1" in caplog.text


def test_a_directory_that_cannot_be_made(world: World) -> None:
    world.store.close()
    world.service = world.another(url="sqlite:////proc/nowhere/db.sqlite")
    assert world.word("enroll", vm.Vm(clock=world.clock).claim("enroll")) == "503 unavailable"


def test_a_server_that_is_not_there(world: World) -> None:
    pytest.importorskip("pymysql")
    world.service = world.another(url="mysql+pymysql://user:hush-hush@127.0.0.1:1/salt")
    answer = world.ask("enroll", vm.Vm(clock=world.clock).claim("enroll"))
    assert (answer.status, answer.body["error"]) == (503, "unavailable")


def test_an_address_that_its_driver_does_not_take(world: World) -> None:
    pytest.importorskip("pymysql")
    broken = store.Store("mysql+pymysql://user:hush-hush@127.0.0.1:1/salt?bogus=1", workers=1)
    with pytest.raises(Unavailable) as unavailable, broken.read():
        pass
    assert "unexpected keyword argument 'bogus'" in str(unavailable.value) and "hush" not in str(unavailable.value)


def test_whatever_else_fails(world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fails(*_: Any) -> None:
        raise ZeroDivisionError("hidden")

    monkeypatch.setattr(world.keys, "state", fails)
    who = world.vm()
    assert world.word("enroll", who.claim("enroll")) == "503 unavailable"
    assert world.word("enroll", who.claim("enroll")) == "503 unavailable"
    assert caplog.text.count("ZeroDivisionError: hidden") == 1


def test_the_cost_does_not_grow(world: World) -> None:
    """Every statement of a claim finds its rows by an index, however many there are."""
    who = world.vm(uses=10)
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, text: str, values: Any, *_: Any) -> None:
        statements.append((text, values))

    sa.event.listen(world.store._ready(), "before_cursor_execute", note)
    world.enroll(who)
    world.enroll(world.vm("web-1", rebuild=True, key=1))
    who = world.vm("web-2", deregister=True)
    for verb in ("check", "enroll", "apply", "report", "renew", "deregister"):
        assert world.ask(verb, who.claim(verb)).status == 200
    world.enroll(world.vm("web-3", expires=0))
    connection = sqlite3.connect(world.file)
    assert len(statements) > 50
    for text, values in statements:
        if text.split()[0] in ("SELECT", "UPDATE", "DELETE"):
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", values)]
            assert plan and not any("SCAN" in step for step in plan), (text, plan)
    connection.close()
