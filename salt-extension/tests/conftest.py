"""
A service with the real Salt of this environment, without a master that runs.
"""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import salt._logging.impl
import salt.config
import salt.utils.event

import real
import vm
from saltext.heat_bootstrap import tokens
from saltext.heat_bootstrap.claims import Key
from saltext.heat_bootstrap.keys import Keys
from saltext.heat_bootstrap.publish import NotSent, Publisher, Unknown
from saltext.heat_bootstrap.service import Answer, Service
from saltext.heat_bootstrap.store import Store

# Keeps what is logged until a daemon says where to, and prints it at the end.
salt._logging.impl.shutdown_temp_handler()


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now


class FakePublisher(Publisher):
    """Notes what would be published."""

    def __init__(self, opts: dict[str, Any]) -> None:
        super().__init__(opts)
        self.published: list[tuple[str, str, str, Any]] = []
        self.trouble: Exception | None = None

    def publish(self, minion: str, states: Any, pillar: Any, bootstrap_id: str, jid: str) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.published.append((minion, ",".join(states), jid, pillar))


class World:
    """A master's directory, a service on it, and what tests ask of both."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.clock = Clock()
        path = root / "etc" / "master"
        path.parent.mkdir()
        names = {"root_dir": str(root), "pki_dir": "/pki", "cachedir": "/cache", "sock_dir": "/run", "log_file": "/log"}
        path.write_text(json.dumps({**names, "user": "root", "id": "the_master"}))
        self.opts: dict[str, Any] = salt.config.master_config(str(path))
        self.pki = root / "pki"
        for name in ("minions", "minions_pre", "minions_rejected", "minions_denied"):
            (self.pki / name).mkdir(parents=True)
        (root / "cache").mkdir()
        (self.pki / "master.pub").write_text("the master's key")
        self.file = self.pki / "heat-bootstrap" / "heat-bootstrap.sqlite"
        self.publisher = FakePublisher(self.opts)
        self.most_at_once = 3
        self.service = self.another()

    def another(self, master: str = "the_master", opts: dict[str, Any] | None = None, url: str | None = None) -> Service:
        """One more service, as after a restart, or that of another master."""
        self.store = Store(url or f"sqlite:///{self.file}")
        self.keys = Keys(opts or self.opts, str(self.file.parent))
        return Service(self.store, self.keys, self.publisher, master, self.most_at_once, self.clock)

    def restart(self) -> None:
        """Nothing is left in memory."""
        self.store.close()
        self.service = self.another()

    def token(self, pattern: str = "web-*", **changes: Any) -> str:
        """A new token's text."""
        name, text, digest = tokens.new()
        now = int(self.clock())
        token = tokens.Token(name, digest, pattern, ("ok", "more"), 1, 0, now, now + 3600, False, False, False)
        self.store.write(lambda connection: self.store.add_token(connection, replace(token, **changes)))
        return text

    def vm(self, minion: str = "web-1", token: str | None = None, key: int = 0, **changes: Any) -> vm.Vm:
        """A VM, with a token of its own unless one is given."""
        return vm.Vm(minion, token or self.token(**changes), key, self.clock)

    def ask(self, verb: str, body: bytes) -> Answer:
        """One request."""
        return self.service.handle("POST", f"/v1/{verb}", body, "192.0.2.7")

    def word(self, verb: str, body: bytes) -> str:
        """How it was refused, with the right status and nothing that is missing; or its status."""
        answer = self.ask(verb, body)
        if answer.status == 200:
            return str(answer.body.get("status", "200"))
        assert set(answer.body) - {"skew"} == {"error", "message", "hint", "time"}, answer
        assert answer.body["time"] == int(self.clock())
        assert "Traceback" not in json.dumps(answer.body)
        if answer.status == 503:
            assert 5 <= int(dict(answer.headers)["Retry-After"]) <= 300
        return f"{answer.status} {answer.body['error']}"

    def enroll(self, who: vm.Vm, **changes: Any) -> str:
        """The answer's word."""
        answer = self.ask("enroll", who.claim("enroll", **changes))
        if answer.status != 200:
            return f"{answer.status} {answer.body['error']}"
        opened = who.opened(answer.body)
        assert opened["id"] == who.id
        assert opened["master_public_key"] == "the master's key"
        return str(opened["status"])

    def accepted(self, minion: str = "web-1") -> str | None:
        """What Salt would find."""
        path = self.pki / "minions" / minion
        return path.read_text() if path.exists() else None

    def keys_there(self) -> list[str]:
        """All ids that are accepted."""
        return [path.name for path in (self.pki / "minions").iterdir() if not path.name.startswith((".", "tmp"))]

    def used(self, who: vm.Vm) -> int:
        """How many uses are gone."""
        with self.store.read() as connection:
            token = self.store.token(connection, str(who.token).split(".")[1])
        assert token is not None
        return token.used

    def audit(self) -> list[dict[str, Any]]:
        """All lines."""
        with self.store.read() as connection:
            return self.store.audit_lines(connection, None, 100000)

    def words(self) -> list[str]:
        """What they say."""
        return [line["word"] for line in self.audit()]


@pytest.fixture(autouse=True)
def nothing_of_salt_is_left_open(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Salt 3008 warns of such when Python happens to collect it: in the log of another test, or of an operator's command."""
    made: list[Any] = []
    begun = salt.utils.event.SaltEvent.__init__

    def begins(event: Any, *arguments: Any, **others: Any) -> None:
        begun(event, *arguments, **others)
        made.append(event)

    monkeypatch.setattr(salt.utils.event.SaltEvent, "__init__", begins)
    yield
    assert [event for event in made if event.subscriber is not None or event.pusher is not None] == []


@pytest.fixture
def world(tmp_path: pathlib.Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def configured(world: World) -> World:
    """With a certificate, and all that the master's configuration needs for the service."""
    real.certificate(world.root)
    path = world.root / "etc" / "master"
    crt, key = str(world.root / "server.crt"), str(world.root / "server.key")
    path.write_text(json.dumps({**json.loads(path.read_text()), "heat_bootstrap": {"ssl_crt": crt, "ssl_key": key}}))
    return world


def pem(who: vm.Vm) -> str:
    """The VM's key as the service writes it."""
    return Key.read(vm.public_pem(who.private)).pem()


__all__ = ["NotSent", "Unknown", "World", "pem"]
