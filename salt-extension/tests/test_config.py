"""
The configuration's one key: all that is wrong with it is said at once.
"""

from __future__ import annotations

from typing import Any

import pytest

from conftest import World
from saltext.heat_bootstrap import config


def read(world: World, **changes: Any) -> config.Config:
    wanted = {"ssl_crt": "/a", "ssl_key": "/b", **changes}
    return config.read({**world.opts, "heat_bootstrap": {key: value for key, value in wanted.items() if value is not ...}})


def test_what_goes_without_saying(world: World) -> None:
    found = read(world)
    assert (found.port, found.host, found.most_at_once, found.ssl_chain) == (8010, "", 100, None)
    assert found.database == f"sqlite:///{world.file}"


def test_all_problems_at_once(world: World) -> None:
    with pytest.raises(config.Wrong) as wrong:
        read(world, ssl_crt=..., port=0, most_at_once="x", colour=1, database="nonsense", host=5)
    assert [problem.split(" ")[0] for problem in wrong.value.problems] == [
        "heat_bootstrap.colour",
        "heat_bootstrap.ssl_crt",
        "heat_bootstrap.port",
        "heat_bootstrap.host",
        "heat_bootstrap.most_at_once",
        "heat_bootstrap.database",
    ]
    assert all("etc/master" in problem for problem in wrong.value.problems)


@pytest.mark.parametrize(
    "address, says",
    [
        ("mysql://user:hush-hush@host/db", "needs a driver that is not installed (No module named 'MySQLdb')"),
        ("postgresql://user:hush-hush@host/db", "is of a kind that the service does not know; there are sqlite, mysql, mariadb"),
        ("mysql+pymysql://user:hush@-hush@host/db", "has an @ in its user or password that has to be written as %40"),
        # Another one for each process, and for each directory that a command is given in
        ("sqlite://", "needs the path of a file from the root on"),
        ("sqlite:///tokens.sqlite", "needs the path of a file from the root on"),
        ("nonsense", "is no database's address; there are mysql+pymysql://"),
    ],
)
def test_addresses_of_databases(world: World, address: str, says: str) -> None:
    with pytest.raises(config.Wrong) as wrong:
        read(world, database=address)
    [problem] = wrong.value.problems
    assert says in problem and "hush" not in problem


def test_addresses_that_are_good(world: World) -> None:
    pytest.importorskip("pymysql")
    for address in (
        "mysql+pymysql://u:p%40ss@db.example.net/name",
        "mariadb+pymysql://u@/name?unix_socket=/run/s",
        "sqlite:////a/b",
    ):
        assert read(world, database=address).database == address


def test_what_is_missing_and_what_is_empty(world: World) -> None:
    with pytest.raises(config.Wrong) as wrong:
        config.read(world.opts)
    assert "there is no heat_bootstrap in" in str(wrong.value) and "etc/master" in str(wrong.value)
    with pytest.raises(config.Wrong) as wrong:
        read(world, host=None, ssl_chain=None, ssl_crt=...)
    assert [problem.split(" in ")[0] + " " + problem.split("/master ")[1] for problem in wrong.value.problems] == [
        "heat_bootstrap.ssl_crt is missing",
        "heat_bootstrap.ssl_chain has no value",
        "heat_bootstrap.host has no value",
    ]


@pytest.mark.parametrize("value", [None, [], "x", 5])
def test_no_mapping(world: World, value: Any) -> None:
    with pytest.raises(config.Wrong):
        config.read({**world.opts, "heat_bootstrap": value})


def test_a_password_is_not_said(world: World) -> None:
    with pytest.raises(config.Wrong) as wrong:
        read(world, database="oracle+nothing://user:hush-hush@host/db")
    assert "hush-hush" not in str(wrong.value)


def test_files(world: World) -> None:
    [first, second] = config.unreadable(read(world))
    assert "heat_bootstrap.ssl_crt: /a cannot be read" in first and "/b" in second


def test_salts_loader_finds_it(world: World) -> None:
    import salt.loader

    assert "heat_bootstrap.start" not in salt.loader.netapi(dict(world.opts))
    opts = {**world.opts, "heat_bootstrap": {"ssl_crt": "/a", "ssl_key": "/b"}}
    assert [name for name in salt.loader.netapi(opts) if name.startswith("heat_bootstrap.")] == ["heat_bootstrap.start"]
    runner = salt.loader.runner(opts)
    names = {name for name in runner if name.startswith("heat_bootstrap.")}
    assert names == {"heat_bootstrap.tokens", "heat_bootstrap.audit", "heat_bootstrap.fleet"}
    text = world.token()
    assert text.split(".")[2] not in str(runner["heat_bootstrap.tokens"]())
    assert [token["is"] for token in runner["heat_bootstrap.tokens"]()] == ["good"]
    assert runner["heat_bootstrap.audit"]() == [] and runner["heat_bootstrap.fleet"]() == []
