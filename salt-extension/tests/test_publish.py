"""
What a publisher makes of a master that is slow, gone, or does not let it.
"""

from __future__ import annotations

import pathlib
import threading
from typing import Any

import pytest
import salt.client
import salt.exceptions

from conftest import NotSent, Unknown, World
from saltext.heat_bootstrap.publish import Publisher


class Client:
    """Salt's, as far as it is used."""

    def __init__(self, does: Any) -> None:
        self.does = does
        self.asked: list[tuple[Any, Any]] = []
        self.destroyed = False
        self.threads: set[int] = set()

    def run_job(self, *arguments: Any, **others: Any) -> Any:
        self.threads.add(threading.get_ident())
        self.asked.append((arguments, others))
        return self.does()

    def destroy(self) -> None:
        self.destroyed = True


@pytest.fixture
def master(world: World) -> World:
    (world.root / "run").mkdir(exist_ok=True)
    (world.root / "run" / "publish_pull.ipc").touch()
    return world


def published(world: World, monkeypatch: pytest.MonkeyPatch, does: Any, seconds: float = 20) -> Client:
    client = Client(does)
    monkeypatch.setattr(salt.client, "get_local_client", lambda mopts: client)
    publisher = Publisher(world.opts, threads=1, most_seconds=seconds)
    try:
        publisher.publish("web-1", ["ok", "more"], {"a": 1}, "b-1", "20261128000000000000")
    finally:
        publisher.close()
    return client


def test_what_is_asked_for(master: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = published(master, monkeypatch, lambda: {"jid": "20261128000000000000", "minions": ["web-1"]})
    [(arguments, others)] = client.asked
    assert arguments == (["web-1"], "state.sls")
    assert others == {
        "arg": ["ok,more"],
        "tgt_type": "list",
        "timeout": 15,
        "jid": "20261128000000000000",
        "kwarg": {"queue": True, "bootstrap_id": "b-1", "pillar": {"a": 1}},
        "metadata": {"bootstrap_id": "b-1"},
        "listen": False,
    }
    assert client.threads and threading.get_ident() not in client.threads


def test_a_slow_master_is_asked_once(master: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Salt's own client: what it asks a master that does not answer in time, which has it all in its queue."""
    import zmq

    context = zmq.Context()
    silent = context.socket(zmq.ROUTER)
    port = silent.bind_to_random_port("tcp://127.0.0.1")
    monkeypatch.setitem(master.opts, "interface", "127.0.0.1")
    monkeypatch.setitem(master.opts, "ret_port", port)
    publisher = Publisher(master.opts, threads=1, most_seconds=6)
    try:
        # A second less than it waits itself, and no less than one: three times would be over by then.
        with pytest.raises(Unknown):
            publisher.publish("web-1", ["ok"], None, "b-1", "20261128000000000000")
        asked = 0
        while silent.poll(4000):
            silent.recv_multipart()
            asked += 1
        assert asked == 1
    finally:
        publisher.close()
        context.destroy(linger=0)


def fails(error: Exception) -> Any:
    def does() -> None:
        raise error

    return does


def test_what_is_known_not_to_be_sent(master: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for does in (dict, fails(salt.exceptions.AuthenticationError("no")), fails(salt.exceptions.AuthorizationError("no"))):
        with pytest.raises(NotSent):
            published(master, monkeypatch, does)
    pathlib.Path(master.root / "run" / "publish_pull.ipc").unlink()
    with pytest.raises(NotSent):
        published(master, monkeypatch, dict)


def test_what_nobody_knows(master: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (salt.exceptions.SaltReqTimeoutError("slow"), salt.exceptions.SaltClientError("gone"), OSError("broken")):
        with pytest.raises(Unknown):
            published(master, monkeypatch, fails(error))


def test_a_slow_master(master: World, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = threading.Event()
    client = Client(lambda: hold.wait(30) and {"jid": "1"})
    monkeypatch.setattr(salt.client, "get_local_client", lambda mopts: client)
    publisher = Publisher(master.opts, threads=1, most_seconds=0.1)
    with pytest.raises(Unknown):
        publisher.publish("web-1", ["ok"], None, "b-1", "1")
    # This one never began.
    with pytest.raises(NotSent):
        publisher.publish("web-2", ["ok"], None, "b-1", "2")
    hold.set()
    publisher.close()
    assert len(client.asked) == 1


def test_a_client_that_failed_is_not_used_again(master: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Client] = []
    answers = iter([fails(OSError("broken")), lambda: {"jid": "1"}])

    def make(mopts: Any) -> Client:
        made.append(Client(next(answers)))
        return made[-1]

    monkeypatch.setattr(salt.client, "get_local_client", make)
    publisher = Publisher(master.opts, threads=1)
    with pytest.raises(Unknown):
        publisher.publish("web-1", ["ok"], None, "b-1", "1")
    publisher.publish("web-1", ["ok"], None, "b-1", "2")
    publisher.publish("web-1", ["ok"], None, "b-1", "3")
    publisher.close()
    assert [client.destroyed for client in made] == [True, False]


def test_jids_that_salt_has_given_are_passed_over(world: World) -> None:
    import salt.utils.jid

    publisher = Publisher(world.opts)
    jid = publisher.new_jid()
    assert salt.utils.jid.is_jid(jid) and len(jid) == 20
    seen: list[str] = []
    real = publisher._jid_dir

    def taken(asked: str) -> str:
        seen.append(asked)
        return str(world.root) if len(seen) < 3 else real(asked)

    publisher._jid_dir = taken  # type: ignore[method-assign]
    assert publisher.new_jid() == seen[2]
    assert len(set(seen)) == 3
    publisher.close()
