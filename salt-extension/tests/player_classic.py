"""
Plays VMs as player.py does, but by the classic chain: login, ``key.accept`` by wheel, hook, reactor.

    player_classic.py CONFIG.json      started by herd.py with --way classic

The requests, their order and their patience are the agent's own with ``accept: wheel`` (src/salt/session.rs, keys.rs and
src/bootstrap/apply/by_hook.rs): one connection to salt-api for each VM, kept; what fails is tried again until the deadline.
The minion's key comes to the master by its own sign-in, and its own next one finds it accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import random
import resource
import sys
import time
import uuid
from typing import Any, Awaitable, Callable, TypeVar

import player

# The agent's own, from src/salt/session.rs and keys.rs
HOOK_TIMEOUT = 10.0
REMOTE = 0.4
ACCEPTS = 5
FIRINGS = 2

Result = TypeVar("Result")


class NotYet(Exception):
    """
    What was asked for was not done, and may be the next time.
    """


class Vm(player.Vm):
    """
    One VM from its login to its job's end. There is nobody whom it could report to but Heat.
    """

    def __init__(self, of: player.Player, number: int) -> None:
        super().__init__(of, number)
        self.session: str | None = None
        self.stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.bootstrap = str(uuid.uuid4())
        [self.minion] = self.minions

    async def lives(self) -> None:
        """The story, as the agent tells it."""
        settings = self.player.settings
        await asyncio.sleep(max(0.0, self.player.started + random.uniform(0, settings["spread"]) - time.time()))
        self.until = time.time() + settings["deadline"]
        self.note("start")
        try:
            await self.wheel("key.finger_master", hash_type="sha256")
            connecting = asyncio.ensure_future(self.minion.connect())
            await self.accepted()
            self.note("enrolled")
            await self.within(connecting, "the connection to the master")
            starting = asyncio.ensure_future(self.minion.starts())
            self.note("connected")
            load = await self.fires()
            await self.within(self.minion.runs(load), "the states")
            self.player.later(self.minion.returns(load))
            self.note("applied", jid=load["jid"])
            self.note("done")
            with contextlib.suppress(NotYet, OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
                await self.call("logout", {}, 1)
            await starting
        except player.Ended as ended:
            self.note("failed", why=str(ended))
        except Exception as error:
            self.note("failed", why=f"{error!r}")

    async def accepted(self) -> None:
        """Until the master has this key among those it has accepted."""
        begun, accepts = time.time(), 0
        while True:
            waited = time.time() - begun
            # Who is asked for so long is asked less often.
            await asyncio.sleep(REMOTE + (min(waited / 40, 10.0) if waited > 30 and not accepts else 0.0))
            keys = await self.wheel("key.print", match=self.id)
            if self.id in keys.get("minions", {}):
                return
            if self.id in keys.get("minions_pre", {}):
                if accepts == ACCEPTS:
                    raise player.Ended(f"key.accept was answered {ACCEPTS} times, but the key is still pending")
                accepts += 1
                await self.wheel("key.accept", match=self.id)
            elif time.time() > self.until:
                raise player.Ended("the key did not reach the master")

    async def fires(self) -> dict[str, Any]:
        """The hook, until a job comes of it: for a third of the time, and then once more."""
        body = {"tgt": self.id, "matcher": "list", "tgt_type": "list", "args": "ok", "bootstrap_id": self.bootstrap}
        for firing in range(FIRINGS):
            arrives_until = time.time() + (self.until - time.time()) / (3 if firing == 0 else 2)
            asked = asyncio.ensure_future(
                self.tried("hook", lambda seconds: self.call("hook/states/state", body, min(seconds, HOOK_TIMEOUT)))
            )
            found = asyncio.ensure_future(self.job(arrives_until))
            # An event may be on the bus although nobody has said so.
            await asyncio.wait([asked, found], return_when=asyncio.FIRST_COMPLETED)
            if not found.done():
                await asked
                self.note("asked", jid="-")
            load = await found
            asked.cancel()
            with contextlib.suppress(asyncio.CancelledError, player.Ended):
                await asked
            if load is not None:
                return load
            self.note("no-job", jid="-")
        raise player.Ended("no job came of the hook")

    async def job(self, until: float) -> dict[str, Any] | None:
        """The one that carries our id, if it comes by then."""
        while True:
            for load in self.minion.jobs:
                if load.get("metadata", {}).get("bootstrap_id") == self.bootstrap:
                    return load
            self.minion.heard.clear()
            try:
                await asyncio.wait_for(self.minion.heard.wait(), max(0.0, until - time.time()))
            except asyncio.TimeoutError:
                return None

    # salt-api

    async def wheel(self, fun: str, **arguments: Any) -> dict[str, Any]:
        """What a wheel function returned."""
        body = [{"client": "wheel", "fun": fun, **arguments}]
        answer = await self.tried(fun, lambda seconds: self.call("", body, seconds))
        try:
            data = answer["return"][0]["data"]
            if not data["success"]:
                raise player.Ended(f"{fun}: {str(data)[-300:]}")
            return dict(data["return"])
        except (KeyError, IndexError, TypeError) as error:
            raise player.Ended(f"{fun} was answered with {str(answer)[:300]}") from error

    async def tried(self, what: str, attempt: Callable[[float], Awaitable[Result]]) -> Result:
        """As often as there is time for, with the agent's own pauses."""
        tries = 0
        while True:
            left = self.until - time.time()
            begun = time.time()
            timeout = max(0.1, min(player.TIMEOUTS[min(tries, 2)], left))
            try:
                return await attempt(timeout)
            except NotYet as answer:
                self.note("refused", verb=what, status=answer.args[0], word=answer.args[1])
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
                self.note("lost", verb=what, why=f"{error!r}"[:200], after=round(time.time() - begun, 2))
            tries += 1
            wanted = random.uniform(0, min(player.FIRST_PAUSE * 2 ** min(tries - 1, 8), player.LONGEST_PAUSE))
            left = self.until - time.time()
            if left <= player.LAST_TRY:
                raise player.Ended(f"{what}: no time is left after {tries} tries")
            await asyncio.sleep(min(wanted, left / 2))

    async def call(self, path: str, body: Any, seconds: float) -> dict[str, Any]:
        """One request by whoever is logged in, and its answer."""
        if self.session is None:
            login = {"username": "boot", "password": self.player.settings["password"], "eauth": "file"}
            opened = await self.request("login", login, seconds)
            self.session = opened["return"][0]["token"]
        return await self.request(path, body, seconds)

    async def request(self, path: str, body: Any, seconds: float) -> dict[str, Any]:
        """On the one connection, which is made anew where it broke."""
        try:
            return await asyncio.wait_for(self.asked(path, body), seconds)
        except BaseException:
            self.hangs_up()
            raise

    async def asked(self, path: str, body: Any) -> dict[str, Any]:
        """What salt-api says; ``NotYet`` where it says that it cannot."""
        fresh = self.stream is None
        if self.stream is None:
            self.stream = await asyncio.open_connection("127.0.0.1", self.player.settings["services"][0], ssl=self.player.tls)
        reader, writer = self.stream
        content = json.dumps(body).encode()
        token = f"X-Auth-Token: {self.session}\r\n" if self.session else ""
        head = (
            f"POST /{path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nContent-Type: application/json\r\n{token}"
        )
        try:
            writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            await writer.drain()
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        except (OSError, asyncio.IncompleteReadError):
            if fresh:
                raise
            # It was closed meanwhile, as idle ones are.
            self.hangs_up()
            return await self.asked(path, body)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:]) if name}
        text = await reader.readexactly(int(headers["content-length"]))
        status = int(lines[0].split()[1])
        if headers.get("connection", "").lower() == "close":
            self.hangs_up()
        if status == 401 and path != "login":
            self.session = None
        if status != 200:
            raise NotYet(status, text.decode(errors="replace")[:200])
        return dict(json.loads(text))

    def hangs_up(self) -> None:
        """The next one is a new connection."""
        if self.stream is not None:
            self.stream[1].close()
            self.stream = None


def main() -> None:
    settings = json.loads(pathlib.Path(sys.argv[1]).read_text())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(player.plays(settings, Vm))


if __name__ == "__main__":
    main()
