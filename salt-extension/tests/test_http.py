"""
The real server on a port of loopback: strangers cost little, and those with tokens get through.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import email.utils
import http.client
import json
import logging
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import real
import vm
from conftest import World
from saltext.heat_bootstrap import config, server


class Running:
    """The server in a thread."""

    def __init__(self, world: World) -> None:
        real.certificate(world.root)
        self.world = world
        settings = {"ssl_crt": str(world.root / "server.crt"), "ssl_key": str(world.root / "server.key"), "host": "127.0.0.1"}
        self.config = config.read({**world.opts, "heat_bootstrap": settings})
        # A port that is free
        object.__setattr__(self.config, "port", 0)
        self.port = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(30)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()

        def ready(port: int) -> None:
            self.port = port
            self._ready.set()

        await server.serve(self.config, self.world.service, self._stop, ready)

    def end(self) -> None:
        # It may have ended by itself.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    def raw(self, content: bytes, more: Any = ()) -> bytes:
        """Everything that comes back."""
        connection = self.connected()
        answer = b""
        try:
            connection.sendall(content)
            for chunk in more:
                connection.sendall(chunk)
        except OSError:
            pass
        try:
            while True:
                chunk = connection.recv(65536)
                if not chunk:
                    break
                answer += chunk
        except OSError:
            pass
        connection.close()
        return answer

    def connected(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), 30)
        return vm.believing().wrap_socket(plain)


@pytest.fixture
def running(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(server, "LINGER", 0.1)
    made = Running(world)
    yield made
    made.end()


def test_a_bootstrap(running: Running) -> None:
    world = running.world
    who = world.vm()
    status, body, headers = vm.post(running.port, "enroll", who.claim("enroll"))
    assert status == 200 and who.opened(body)["status"] == "accepted"
    assert headers["Content-Type"] == "application/json"
    status, body, _ = vm.post(running.port, "apply", who.claim("apply"))
    assert status == 200 and body["published"] is True
    status, body, _ = vm.post(running.port, "report", who.claim("report"))
    assert (status, body["status"]) == (200, "noted")
    status, body, _ = vm.post(running.port, "deregister", who.claim("deregister"))
    assert (status, body["error"]) == (403, "deregister-not-allowed")
    assert world.audit()[0]["peer"] == "127.0.0.1"


def test_one_connection_for_all(running: Running) -> None:
    who = running.world.vm()
    connection = http.client.HTTPSConnection("127.0.0.1", running.port, timeout=30, context=vm.believing())
    for verb in ("check", "enroll", "apply", "report"):
        connection.request("POST", f"/v1/{verb}", who.claim(verb))
        response = connection.getresponse()
        assert response.status == 200, response.read()
        response.read()
    connection.request("GET", "/v1/status")
    response = connection.getresponse()
    assert json.loads(response.read())["service"] == "heat-salt-bootstrap"
    # By this a VM whose clock makes the certificate look wrong can tell how wrong the clock is.
    said = email.utils.parsedate_to_datetime(response.headers["Date"]).timestamp()
    assert abs(said - time.time()) < 100
    connection.request("GET", "/v1/enroll")
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["error"]) == (405, "not-found")
    connection.request("GET", "/other?x=1")
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["error"]) == (404, "not-found")
    connection.close()


def test_who_would_wait_longer_than_agents_do_is_told_so_at_once() -> None:
    hold = threading.Event()

    async def ask() -> None:
        queue = server.Queue(2, 100, "test")
        assert await queue.run(lambda: "done") == "done"
        at_work = [asyncio.ensure_future(queue.run(lambda: hold.wait(30))) for _ in range(6)]
        while len(queue._since) < 2:
            await asyncio.sleep(0.01)
        # As long as it goes fast anybody may come.
        assert queue.wait() < server.MOST_WAIT
        # Two have been at it for so long that those who wait behind them would hang up.
        queue._since = {mark: since - 10 for mark, since in queue._since.items()}
        assert queue.wait() > server.MOST_WAIT
        with pytest.raises(server.Full):
            await queue.run(lambda: "never")
        hold.set()
        assert await asyncio.gather(*at_work) == [True] * 6
        # Nobody is before the next one.
        assert queue.wait() == 0
        assert await queue.run(lambda: "done") == "done"
        queue.close()

    asyncio.run(ask())


def test_busy_says_when_to_come_back(running: Running) -> None:
    world = running.world
    text = world.token(uses=9)
    herd = [world.vm(f"web-{number}", text) for number in range(4)]
    for who in herd:
        assert vm.post(running.port, "enroll", who.claim("enroll"))[0] == 200
    answers = [vm.post(running.port, "apply", who.claim("apply")) for who in herd]
    assert [status for status, _, _ in answers] == [200, 200, 200, 503]
    assert answers[3][1]["error"] == "busy" and int(answers[3][2]["Retry-After"]) >= 5


def test_old_tls_is_refused(running: Running) -> None:
    context = vm.believing()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, OSError)), socket.create_connection(("127.0.0.1", running.port), 30) as plain:
        context.wrap_socket(plain)


def test_large_bodies(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SILENCE", 1.0)
    for length in (262145, 1048576, 100 * 1024 * 1024):
        head = f"POST /v1/enroll HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()
        answer = running.raw(head, (b"x" * 65536 for _ in range(length // 65536)) if length < 2**21 else [b"x" * 65536])
        if length == 262145:
            # Not all of it is sent: the rest is not waited for forever.
            continue
        assert answer.startswith(b"HTTP/1.1 413 "), (length, answer[:200])
        assert b"too-large" in answer
    chunked = b"POST /v1/enroll HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    assert running.raw(chunked, [piece] * 30).startswith(b"HTTP/1.1 413 ")
    status, body, _ = vm.post(running.port, "enroll", b"x" * 300000)
    assert (status, body["error"]) == (413, "too-large")


def test_100_megabytes_that_are_sent(running: Running) -> None:
    head = b"POST /v1/enroll HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n"
    running.raw(head, (b"x" * 65536 for _ in range(1600)))
    assert vm.post(running.port, "check", running.world.vm().claim("check"))[0] == 200


NONSENSE = [
    b"\r\n\r\n",
    b"hello\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"POST /v1/enroll HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/enroll HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"POST /v1/enroll HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/enroll HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"POST /v1/enroll HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100000 + b"\r\n\r\n",
    b"POST /v1/enroll HTTP/1.1\r\n" + b"X: y\r\n" * 10000,
    b"POST /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x00\xa5" * 100,
]


@pytest.mark.parametrize("content", NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense(running: Running, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    answer = running.raw(content + b"\r\n\r\n")
    assert answer == b"" or answer.split(b" ")[1][:1] in (b"4", b"5"), answer
    assert b"Traceback" not in answer
    assert [line for line in caplog.records if line.levelno >= logging.WARNING] == []
    assert vm.post(running.port, "check", running.world.vm().claim("check"))[0] == 200


def test_strangers_on_the_tcp_port(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    for content in (b"", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01" + b"\0" * 500):
        with socket.create_connection(("127.0.0.1", running.port), 30) as plain:
            plain.sendall(content)
    assert vm.post(running.port, "check", running.world.vm().claim("check"))[0] == 200
    assert [line for line in caplog.records if line.levelno >= logging.WARNING] == []


def test_slow_senders_are_cut_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SILENCE", 0.5)
    running = Running(world)
    try:
        handshake = socket.create_connection(("127.0.0.1", running.port), 30)
        assert handshake.recv(1) == b""
        silent = running.connected()
        head = running.connected()
        head.sendall(b"POST /v1/enroll HTTP/1.1\r\n")
        body = running.connected()
        body.sendall(b"POST /v1/enroll HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
        ended = threading.Event()

        def drip() -> None:
            # Each piece comes in time; all of it does not.
            while not ended.wait(0.1):
                for connection, piece in ((head, b"X: y\r\n"), (body, b"x")):
                    try:
                        connection.sendall(piece)
                    except OSError:
                        pass

        dripping = threading.Thread(target=drip)
        dripping.start()
        for connection in (silent, head, body):
            try:
                assert connection.recv(65536) == b""
            except OSError:
                pass
        ended.set()
        dripping.join()
    finally:
        running.end()


def test_500_idle_connections(running: Running) -> None:
    world = running.world
    plain = [socket.create_connection(("127.0.0.1", running.port), 30) for _ in range(400)]
    secure = [running.connected() for _ in range(100)]
    text = world.token(uses=40)
    herd = [world.vm(f"web-{number}", text, key=number % 4) for number in range(20)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda who: vm.post(running.port, "enroll", who.claim("enroll"))[0], herd))
    assert answers == [200] * 20
    for connection in (*plain, *secure):
        connection.close()


def test_the_oldest_silent_ones_make_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "raise_limit", lambda: 128)
    running = Running(world)
    try:
        who = world.vm()
        plain = [socket.create_connection(("127.0.0.1", running.port), 30) for _ in range(63)]
        kept = running.connected()
        assert vm.post(running.port, "enroll", who.claim("enroll"))[0] == 200
        assert plain[0].recv(1) == b""
        kept.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
        assert kept.recv(65536).startswith(b"HTTP/1.1 200 ")
        for connection in (*plain, kept):
            connection.close()
    finally:
        running.end()


def test_strangers_do_not_queue_ahead_of_who_is_proved(running: Running) -> None:
    world = running.world
    ended = threading.Event()
    stranger = vm.Vm("web-0", clock=world.clock).claim("enroll")

    def flood() -> None:
        while not ended.is_set():
            try:
                vm.post(running.port, "enroll", stranger)
            except OSError:
                pass

    flooding = [threading.Thread(target=flood) for _ in range(6)]
    for thread in flooding:
        thread.start()
    text = world.token(uses=10)
    try:
        for number in range(10):
            who = world.vm(f"web-{number}", text)
            assert vm.post(running.port, "enroll", who.claim("enroll"))[0] == 200
    finally:
        ended.set()
        for thread in flooding:
            thread.join()
    assert world.words() == ["accepted"] * 10


def test_all_bodies_together_are_bounded(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_HELD", 300000)
    head = b"POST /v1/enroll HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n"
    first = running.connected()
    first.sendall(head + b"x" * 199999)
    # As soon as the first one's bytes have been read
    deadline = time.monotonic() + 30
    while not running.raw(head, [b"x" * 200000]).startswith(b"HTTP/1.1 503 "):
        assert time.monotonic() < deadline
    who = running.world.vm()
    assert vm.post(running.port, "enroll", who.claim("enroll"))[0] == 200
    first.sendall(b"x")
    assert first.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert running.raw(head, [b"x" * 200000]).startswith(b"HTTP/1.1 400 ")


def test_a_closed_connection_is_closed_as_tls_wants_it(running: Running) -> None:
    plain = socket.create_connection(("127.0.0.1", running.port), 30)
    connection = vm.believing().wrap_socket(plain, suppress_ragged_eofs=False)
    connection.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = b""
    while True:
        chunk = connection.recv(65536)
        if not chunk:
            break
        answer += chunk
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"}\n")
    connection.close()


def test_full_queues(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    world = running.world
    monkeypatch.setattr(server, "MOST_TO_PUBLISH", 1)
    who = world.vm(uses=9)
    world.enroll(who)
    hold, inside = threading.Event(), threading.Event()
    real_publish = world.publisher.publish

    def slow(*arguments: Any) -> None:
        inside.set()
        hold.wait(30)
        real_publish(*arguments)

    monkeypatch.setattr(world.publisher, "publish", slow)
    second = Running(world)
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            first = pool.submit(vm.post, second.port, "apply", who.claim("apply"))
            assert inside.wait(30)
            status, body, headers = vm.post(second.port, "apply", who.claim("apply"))
            assert (status, body["error"]) == (503, "busy") and headers["Retry-After"]
            # Those who only enrol do not wait for those who publish.
            assert vm.post(second.port, "enroll", who.claim("enroll"))[0] == 200
            hold.set()
            assert first.result(30)[0] == 200
    finally:
        hold.set()
        second.end()


def test_what_is_at_work_is_finished(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    running = Running(world)
    who = world.vm()
    inside, hold = threading.Event(), threading.Event()
    accept = world.keys.accept

    def slow(*arguments: Any, **others: Any) -> None:
        inside.set()
        hold.wait(30)
        accept(*arguments, **others)

    monkeypatch.setattr(world.keys, "accept", slow)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(vm.post, running.port, "enroll", who.claim("enroll"))
        assert inside.wait(30)
        running._loop.call_soon_threadsafe(running._stop.set)
        time.sleep(0.1)
        hold.set()
        assert waiting.result(30)[0] == 200
    running.end()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", running.port), 5)


def test_a_renewed_certificate(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CERTIFICATE_EVERY", 0.05)
    running = Running(world)
    try:
        before = running.connected().getpeercert(True)
        vm.KEYS.pop(99)
        real.certificate(world.root)
        deadline = time.monotonic() + 30
        while running.connected().getpeercert(True) == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        running.end()


def test_listeners_on_all_addresses() -> None:
    sockets = server.listeners("", 0)
    assert any(each.family == socket.AF_INET for each in sockets)
    for each in sockets:
        each.close()
    with pytest.raises(OSError, match="port 1"):
        server.listeners("192.0.2.1", 1)


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b"])
def test_a_host_that_is_none(host: str) -> None:
    """For a name that cannot be one Python has another error: the process ended by it, and salt-api started it anew at once."""
    with pytest.raises(OSError, match=f"heat_bootstrap.host: '{host}' is no address of this machine"):
        server.listeners(host, 1)
