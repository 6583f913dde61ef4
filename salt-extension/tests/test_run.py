"""
The process of salt-api: it waits while the configuration is wrong, and ends when it is told to.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from typing import Any

import pytest

import real
import vm
from conftest import World
from saltext.heat_bootstrap import run


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_mistakes_are_waited_out(world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def until(text: str, then: Any) -> threading.Thread:
        def wait() -> None:
            deadline = time.monotonic() + 30
            while text not in caplog.text and time.monotonic() < deadline:
                time.sleep(0.01)
            then()

        thread = threading.Thread(target=wait)
        thread.start()
        return thread

    waiting = until("heat_bootstrap.prot in", terminate)
    run.forever({**world.opts, "heat_bootstrap": {"prot": 1}})
    waiting.join()
    assert "ssl_crt" in caplog.text
    caplog.clear()
    # It is made anew from what is there, as soon as it is there.
    monkeypatch.setattr(run, "TRY_AGAIN", 0.05)
    [port] = real.free_ports(1)
    crt, key = str(world.root / "server.crt"), str(world.root / "server.key")
    settings = {"ssl_crt": crt, "ssl_key": key, "host": "127.0.0.1", "port": port}
    answers: list[Any] = []

    def answered() -> None:
        deadline = time.monotonic() + 30
        while not answers and time.monotonic() < deadline:
            try:
                connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=vm.believing())
                connection.request("GET", "/v1/status")
                answers.append(json.loads(connection.getresponse().read()))
                connection.close()
            except OSError:
                time.sleep(0.02)
        terminate()

    def repaired() -> None:
        real.certificate(world.root)
        answered()

    waiting = until("server.crt cannot be read", repaired)
    run.forever({**world.opts, "heat_bootstrap": settings})
    waiting.join()
    assert answers and answers[0]["protocol"] == 1


def test_a_port_that_is_taken(world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    real.certificate(world.root)
    crt, key = str(world.root / "server.crt"), str(world.root / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        timer = threading.Timer(0.3, terminate)
        timer.start()
        run.forever({**world.opts, "heat_bootstrap": {"ssl_crt": crt, "ssl_key": key, "host": "127.0.0.1", "port": port}})
        timer.join()
    assert f"127.0.0.1 port {port}: Address already in use" in caplog.text


def test_a_key_of_another_certificate(world: World, caplog: pytest.LogCaptureFixture) -> None:
    real.certificate(world.root)
    crt, key = world.root / "server.crt", world.root / "server.key"
    key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    timer = threading.Timer(0.3, terminate)
    timer.start()
    run.forever({**world.opts, "heat_bootstrap": {"ssl_crt": str(crt), "ssl_key": str(key), "host": "127.0.0.1"}})
    timer.join()
    assert "heat_bootstrap.ssl_crt and ssl_key cannot be used" in caplog.text
