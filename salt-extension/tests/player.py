"""
Plays many VMs in one process: the agent on each as far as the service can tell, and its minion as far as the master can tell.

    player.py CONFIG.json      started by herd.py

What is real: every VM has an RSA key, TLS connections and a subscription of its own. Claims are signed and the service's pinned
key is compared. The minion signs in by Salt's own class (``salt.crypt.AsyncAuth``), its requests are made by Salt's own channel
class, each job comes over its own subscription to the master's publish port, and its answer goes to the master as any minion's.

What is played: a minion's process, which would take seconds of a VM's own time to start, and the states, which take
``state_seconds`` and change nothing. A job is published to all minions in the same bytes; these are decrypted once a process and
key, and compared byte by byte after that: on VMs of their own the minions would not share this machine's cores.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import pathlib
import random
import resource
import secrets
import ssl
import sys
import time
from typing import Any

import salt.channel.client
import salt.config
import salt.crypt
import salt.exceptions
import salt.payload
import zmq
import zmq.asyncio
from cryptography import x509
from cryptography.hazmat.primitives import serialization

import vm

# The agent's own, from src/salt/enrolment.rs and src/system/retry.rs
TIMEOUTS = (15.0, 30.0, 60.0)
LONGEST_PAUSE = 15.0
FIRST_PAUSE = 0.5
LAST_TRY = 1.0
LOOK_EVERY = 0.04
# Salt's own
REQUEST_TIMEOUT = 60.0
# As the agent configures it: a second more with each try
LONGEST_ACCEPTANCE_WAIT = 10.0
# How the agent names a run of states of which Salt has made none
NOT_RENDERED = 52


class Ended(Exception):
    """
    This VM has failed, and says why.
    """


class Unanswered(Exception):
    """
    The master is gone for longer than a minion asks it, and whatever needed it fails.
    """


class Player:
    """
    What the VMs of this process have in common.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        self.out = open(settings["out"], "w", buffering=1)  # noqa: SIM115
        self.started = 0.0
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.check_hostname = False
        # Whom it speaks to is told by the pin.
        self.tls.verify_mode = ssl.CERT_NONE
        self.pin = settings["token"].split(".")[3]
        self.requests = zmq.asyncio.Context(io_threads=1)
        self.subscriptions = zmq.Context(io_threads=1)
        for context in (self.requests, self.subscriptions):
            context.set(zmq.MAX_SOCKETS, 60000)
        self.options = salt.config.minion_config(None)
        self.options.update({"__role": "minion", "master_ip": "127.0.0.1", "auth_events": False})
        self._later: set[asyncio.Task[Any]] = set()
        # Published bytes, by the key that they were decrypted with
        self._decrypted: dict[tuple[str, bytes], Any] = {}

    def note(self, minion: str, what: str, **more: Any) -> None:
        """A line for whoever looks at it afterwards."""
        self.out.write(json.dumps({"id": minion, "what": what, "t": round(time.time() - self.started, 4), **more}) + "\n")

    def later(self, work: Any) -> None:
        """Beside what else goes on; it is waited for at the end."""
        task = asyncio.ensure_future(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    def decrypted(self, crypticle: Any, message: bytes) -> Any:
        """What was published; ``AuthenticationError`` where the key is another."""
        known = (crypticle.key_string, message)
        if known not in self._decrypted:
            payload = salt.payload.loads(message)
            load = crypticle.loads(payload["load"])
            if len(self._decrypted) > 5000:
                self._decrypted.clear()
            self._decrypted[known] = load
        return self._decrypted[known]


class Minion:
    """
    A minion of one master on the wire.
    """

    def __init__(self, player: Player, who: Vm, master: dict[str, Any]) -> None:
        self.player = player
        self.who = who
        self.master = master
        directory = who.directory / f"pki-{master['publish']}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "minion.pem").write_text(who.private_pem)
        (directory / "minion.pub").write_text(vm.public_pem(who.private))
        self.directory = directory
        self.options = {
            **player.options,
            "id": who.id,
            "pki_dir": str(directory),
            "master_uri": f"tcp://127.0.0.1:{master['ret']}",
        }
        # Made before the herd starts: reading a private key takes a while.
        self.auth = _auth(self.options, who.private_pem)
        self.channel = salt.channel.client.AsyncReqChannel(self.options, None, self.auth)
        self._request: Any = None
        self._turn = asyncio.Lock()
        self._signing_in: asyncio.Task[None] | None = None
        self._subscription: Any = None
        self.came: dict[str, asyncio.Future[dict[str, Any]]] = {}
        # For those who do not know their job's name beforehand
        self.jobs: list[dict[str, Any]] = []
        self.heard = asyncio.Event()
        self.ran: set[str] = set()

    def trusts(self, master_public_key: str) -> None:
        """As the agent has it written down for the minion."""
        (self.directory / "minion_master.pub").write_text(master_public_key)

    # Requests

    async def _send(self, package: dict[str, Any]) -> Any:
        """One request and its answer on the connection that a minion keeps for that."""
        async with self._turn:
            if self._request is None:
                self._request = self.player.requests.socket(zmq.REQ)
                self._request.setsockopt(zmq.LINGER, 0)
                self._request.setsockopt(zmq.RECONNECT_IVL_MAX, 5000)
                self._request.setsockopt(zmq.IDENTITY, f"salt-req/minion/{self.who.id}/{secrets.token_hex(16)}".encode())
                self._request.connect(self.options["master_uri"])
            try:
                await self._request.send(salt.payload.dumps(package))
                return salt.payload.loads(await asyncio.wait_for(self._request.recv(), REQUEST_TIMEOUT))
            except BaseException:
                self._request.close()
                self._request = None
                raise

    async def sign_in(self) -> None:
        """One sign-in at a time, whoever waits for it."""
        if self._signing_in is None or self._signing_in.done():
            self._signing_in = asyncio.ensure_future(self._sign_in())
        await asyncio.shield(self._signing_in)

    async def _sign_in(self) -> None:
        tries = 0
        while True:
            tries += 1
            # As Salt does between two tries
            await asyncio.sleep(0.1)
            wanted = self.auth.minion_sign_in_payload()
            try:
                answer = await self._send({"enc": "clear", "load": wanted, "version": 3})
            except asyncio.TimeoutError:
                self.player.note(self.who.id, "late", request="_auth")
                continue
            credentials = self.auth.handle_signin_response(wanted, answer)
            if isinstance(credentials, dict):
                break
            self.player.note(self.who.id, "not-let-in", said=str(credentials))
            await asyncio.sleep(min(float(tries), LONGEST_ACCEPTANCE_WAIT))
        self.auth._creds = credentials
        self.auth._crypticle = salt.crypt.Crypticle(self.options, credentials["aes"])
        self.auth._session_crypticle = salt.crypt.Crypticle(self.options, credentials["session"])

    async def ask(self, load: dict[str, Any]) -> Any:
        """
        A request that is encrypted; anew after a restart of the master, which knows no old keys. Three tries of a minute each are
        Salt's own ``request_channel_tries`` and ``request_channel_timeout``.
        """
        for _ in range(3):
            nonce = secrets.token_hex(16)
            session = self.auth.session_crypticle
            try:
                answer = await self._send(self.channel._package_load(dict(load), nonce))
                if load["cmd"] == "_pillar":
                    if isinstance(answer, dict) and "key" in answer:
                        return answer
                    raise salt.crypt.AuthenticationError("no pillar")
                return session.loads(answer, nonce=nonce) if answer else answer
            except asyncio.TimeoutError:
                self.player.note(self.who.id, "late", request=load["cmd"])
            except (salt.crypt.AuthenticationError, salt.exceptions.SaltClientError, TypeError):
                self.player.note(self.who.id, "session-lost", request=load["cmd"])
                await self.sign_in()
        self.player.note(self.who.id, "lost-request", request=load["cmd"])
        raise Unanswered(load["cmd"])

    # The subscription

    async def connect(self) -> None:
        """Returns once the agent would see the connection: it looks at the machine's own, every 40 ms."""
        await self.sign_in()
        subscription = self.player.subscriptions.socket(zmq.SUB)
        subscription.setsockopt(zmq.LINGER, 1)
        for topic in self._topics():
            subscription.setsockopt(zmq.SUBSCRIBE, topic)
        subscription.setsockopt(zmq.IDENTITY, self.who.id.encode())
        subscription.setsockopt(zmq.RECONNECT_IVL, random.randint(1000, 11000))
        subscription.setsockopt(zmq.RECONNECT_IVL_MAX, 10000)
        monitor = subscription.get_monitor_socket(zmq.EVENT_CONNECTED)
        subscription.connect(f"tcp://127.0.0.1:{self.master['publish']}")
        self._subscription = subscription
        self.player.loop.add_reader(subscription.getsockopt(zmq.FD), self._readable)
        while not monitor.poll(0):
            await asyncio.sleep(LOOK_EVERY)
        subscription.disable_monitor()
        self._readable()

    def _topics(self) -> list[bytes]:
        if not self.player.settings.get("filter"):
            return [b""]
        return [b"broadcast", hashlib.sha1(self.who.id.encode()).hexdigest().encode()]  # noqa: S324 - as Salt names it

    def look(self) -> None:
        """The reader is told of changes alone, and may have missed one."""
        if self._subscription is not None:
            self._readable()

    def _readable(self) -> None:
        while True:
            try:
                message = self._subscription.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            # With zmq_filtering there is a topic before it.
            self._heard(message[-1])

    def _heard(self, message: bytes) -> None:
        try:
            load = self.player.decrypted(self.auth.crypticle, message)
        except salt.crypt.AuthenticationError:
            # The master was restarted, or its key was rotated.
            self.player.later(self._heard_after_sign_in(message))
            return
        self._job(load)

    async def _heard_after_sign_in(self, message: bytes) -> None:
        await self.sign_in()
        try:
            load = self.player.decrypted(self.auth.crypticle, message)
        except salt.crypt.AuthenticationError:
            self.player.note(self.who.id, "not-decrypted")
            return
        self._job(load)

    def _job(self, load: dict[str, Any]) -> None:
        names = load["tgt"].split(",") if isinstance(load["tgt"], str) else load["tgt"]
        if self.who.id not in names:
            return
        jid = load["jid"]
        if jid in self.ran:
            # As a minion does with what it has run.
            self.player.note(self.who.id, "job-again", jid=jid)
            return
        self.ran.add(jid)
        self.player.note(self.who.id, "job", jid=jid, fun=load["fun"])
        self.jobs.append(load)
        self.heard.set()
        waiting = self.came.setdefault(jid, self.player.loop.create_future())
        if not waiting.done():
            waiting.set_result(load)

    # What a minion does

    async def starts(self) -> None:
        """What a minion asks for and says once it is connected. Where nobody answers, it goes on."""
        data = f"Minion {self.who.id} started at {time.asctime()}"
        tag = f"salt/minion/{self.who.id}/start"
        with contextlib.suppress(Unanswered):
            await self.ask(self._pillar())
            await self.ask({"id": self.who.id, "cmd": "_minion_event", "pretag": None, "data": data, "tag": tag})

    async def runs(self, load: dict[str, Any]) -> None:
        """
        What a minion asks for when it runs one state; the state itself takes as long as was said. It asks the master that has
        published the job and no other; ``Unanswered`` is Salt's "Pillar timed out", and the job's end.
        """
        await self.ask(self._pillar())
        await self.ask({"cmd": "_master_opts"})
        await self.ask({"saltenv": "base", "prefix": "", "cmd": "_file_list"})
        await self.ask({"path": "ok.sls", "saltenv": "base", "cmd": "_file_hash"})
        await self.ask({"path": "ok.sls", "saltenv": "base", "cmd": "_serve_file", "loc": 0, "gzip": None})
        await asyncio.sleep(self.player.settings["state_seconds"])

    async def returns(self, load: dict[str, Any]) -> None:
        """The answer goes to the master."""
        state = {
            "name": "true",
            "changes": {"pid": 1, "retcode": 0, "stdout": "", "stderr": ""},
            "result": True,
            "comment": 'Command "true" run',
            "__sls__": "ok",
            "__run_num__": 0,
            "start_time": "12:00:00.000000",
            "duration": 12.3,
            "__id__": "word",
        }
        result = {
            "cmd": "_return",
            "id": self.who.id,
            "fun": load["fun"],
            "fun_args": load["arg"],
            "jid": load["jid"],
            "return": {"cmd_|-word_|-true_|-run": state},
            "retcode": 0,
            "success": True,
            "out": "highstate",
        }
        if "metadata" in load:
            result["metadata"] = load["metadata"]
        with contextlib.suppress(Unanswered):
            await self.ask(result)
            self.player.note(self.who.id, "returned", jid=load["jid"])

    def _pillar(self) -> dict[str, Any]:
        return {
            "id": self.who.id,
            "grains": {**self.player.settings["grains"], "id": self.who.id},
            "saltenv": None,
            "pillarenv": None,
            "pillar_override": {},
            "extra_minion_data": {},
            "ver": "2",
            "cmd": "_pillar",
        }


class Vm(vm.Vm):
    """
    One VM from its first claim to its report.
    """

    def __init__(self, player: Player, number: int) -> None:
        super().__init__(f"herd-{number}", player.settings["token"])
        self.player = player
        self.number = number
        self.directory = pathlib.Path(player.settings["root"]) / "vms" / self.id
        self.private_pem = (pathlib.Path(player.settings["keys"]) / f"{number}.pem").read_text()
        # Checking a key takes longer than making a claim, and these are our own.
        load = serialization.load_pem_private_key
        self.private: Any = load(self.private_pem.encode(), None, unsafe_skip_rsa_key_validation=True)
        # Both masters hear of it where there are two, as with a minion that has a list of masters.
        self.minions = [Minion(player, self, master) for master in player.settings["masters"]]
        self.at = 0
        self.until = 0.0

    async def lives(self) -> None:
        """The story, as the agent tells it."""
        settings = self.player.settings
        splay = random.uniform(0, settings["spread"])
        await asyncio.sleep(max(0.0, self.player.started + splay - time.time()))
        self.until = time.time() + settings["deadline"]
        self.note("start")
        begun = time.time()
        try:
            await self.enrolls()
            self.note("enrolled")
            starting = []
            for minion in self.minions:
                await self.within(minion.connect(), "the connection to the master")
                starting.append(asyncio.ensure_future(minion.starts()))
            self.note("connected")
            cut = await self.applies()
            steps = [["enroll", 1.0], ["states", round(time.time() - begun, 1)]]
            ended = {"verdict": "failed", "code": NOT_RENDERED, "message": cut} if cut else {"verdict": "done"}
            await self.asks("report", seconds=round(time.time() - begun, 2), steps=steps, **ended)
            self.note("cut-off" if cut else "done")
            await asyncio.gather(*starting)
        except Ended as ended:
            self.note("failed", why=str(ended))
        except Exception as error:
            self.note("failed", why=f"{error!r}")

    def note(self, what: str, **more: Any) -> None:
        """About this VM."""
        self.player.note(self.id, what, **more)

    async def within(self, work: Any, what: str) -> Any:
        """Not longer than there is time."""
        try:
            return await asyncio.wait_for(work, max(0.1, self.until - time.time()))
        except asyncio.TimeoutError as error:
            raise Ended(f"{what} took too long") from error

    async def enrolls(self) -> None:
        """At each master: the second one counts no use."""
        for number, minion in enumerate(self.minions):
            body = await self.asks("enroll", at=number if len(self.minions) > 1 else None)
            answer = self.opened(body)
            if answer["status"] not in ("accepted", "already") or answer["id"] != self.id:
                raise Ended(f"enrolled as {answer}")
            minion.trusts(answer["master_public_key"])

    async def applies(self) -> str | None:
        """Until the job came, and its states are through; what cut them off, if anything did."""
        job = secrets.token_hex(16)
        left = self.until - time.time()
        # As the agent: a third of the time at first, but no longer than a minute; then twice as long each time, up to two thirds.
        span, arrives_until = min(left / 3, 60), time.time() + left * 2 / 3
        publication = 0
        while publication < 2 or time.time() < arrives_until:
            deadline = int(self.until - time.time())
            answer = await self.asks("apply", job=job, again=publication > 0, deadline=deadline)
            publication += 1
            jid = answer["jid"]
            self.note("asked", jid=jid, published=answer["published"], again=publication > 1)
            futures = [minion.came.setdefault(jid, self.player.loop.create_future()) for minion in self.minions]
            wait = min(span * 2 ** (publication - 1), max(0.0, arrives_until - time.time()))
            done, _ = await asyncio.wait(futures, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            if done:
                number = next(number for number, future in enumerate(futures) if future.done())
                minion, load = self.minions[number], futures[number].result()
                try:
                    await self.within(minion.runs(load), "the states")
                except Unanswered as request:
                    self.note("unanswered", jid=jid, master=number, request=str(request))
                    return f"Pillar timed out: master {number} does not answer {request}"
                # The agent sees the result on the VM; the master gets it at the same time.
                self.player.later(minion.returns(load))
                self.note("applied", jid=jid)
                return None
            self.note("no-job", jid=jid)
        raise Ended("the job never came")

    async def asks(self, verb: str, at: int | None = None, **changes: Any) -> dict[str, Any]:
        """Asks the service until it answers, by the agent's own rules."""
        tries = 0
        urls = self.player.settings["services"]
        while True:
            where = self.at if at is None else at
            left = self.until - time.time()
            not_before = None
            # A claim of its own each time, as its time must not be old.
            body = self.claim(verb, **changes)
            asked = time.time()
            try:
                timeout = max(0.1, min(TIMEOUTS[min(tries, 2)], left))
                status, answer, retry_after = await asyncio.wait_for(self.player_post(urls[where], verb, body), timeout)
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
                self.note("lost", verb=verb, why=f"{error!r}"[:200], after=round(time.time() - asked, 2))
            else:
                if status == 200:
                    return answer
                self.note("refused", verb=verb, status=status, word=answer.get("error"), retry_after=retry_after)
                if status != 503:
                    raise Ended(f"{verb}: {status} {answer.get('error')}: {answer.get('message')}")
                not_before = retry_after
            if at is None and len(urls) > 1:
                self.at = (self.at + 1) % len(urls)
                # The one that asked to be left alone is not the one that is asked next.
                not_before = not_before if self.at == 0 else None
            tries += 1
            wanted = random.uniform(0, min(FIRST_PAUSE * 2 ** min(tries - 1, 8), LONGEST_PAUSE))
            if not_before is not None:
                wanted += max(not_before, FIRST_PAUSE)
            left = self.until - time.time()
            if left <= LAST_TRY:
                raise Ended(f"{verb}: no time is left after {tries} tries")
            await asyncio.sleep(wanted if wanted <= left - LAST_TRY else left / 2)

    async def player_post(self, port: int, verb: str, body: bytes) -> tuple[int, dict[str, Any], float | None]:
        """One request on a connection of its own, to whoever has the pinned key."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=self.player.tls)
        try:
            certificate = x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(True))
            form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            digest = hashlib.sha256(certificate.public_key().public_bytes(*form)).digest()
            if base64.urlsafe_b64encode(digest).decode().rstrip("=") != self.player.pin[1:]:
                raise Ended("somebody else answers")
            head = f"POST /v1/{verb} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:]) if name}
            answer = json.loads(await reader.readexactly(int(headers["content-length"])))
            retry_after = headers.get("retry-after")
            return int(lines[0].split()[1]), answer, None if retry_after is None else float(retry_after)
        finally:
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError, asyncio.TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), 2)


def _auth(options: dict[str, Any], private_pem: str) -> Any:
    """Salt's own class, which keeps one for each pki_dir."""
    auth = salt.crypt.AsyncAuth(options)
    if hasattr(salt.crypt.PrivateKey, "from_str"):
        # Salt 3008 would start a loader for each minion to read it.
        auth._private_key = salt.crypt.PrivateKey.from_str(private_pem, None)
    return auth


async def plays(settings: dict[str, Any], kind: type[Vm] = Vm) -> None:
    """Until each VM has come to an end."""
    player = Player(settings)
    herd = [kind(player, number) for number in range(settings["first"], settings["first"] + settings["count"])]
    print("ready", flush=True)
    player.started = float(await player.loop.run_in_executor(None, sys.stdin.readline))
    lives = asyncio.gather(*(each.lives() for each in herd))
    while not lives.done():
        await asyncio.wait([lives], timeout=1)
        for each in herd:
            for minion in each.minions:
                minion.look()
    # Minions that are late with an answer to the master
    deadline = time.time() + 60
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    if others:
        await asyncio.wait(others, timeout=deadline - time.time())
    player.note("-", "player-ends", cpu=round(time.process_time(), 2), left=sum(not task.done() for task in others))
    player.out.close()
    # Sockets by the thousand are put away by the kernel.
    os._exit(0)


def main() -> None:
    settings = json.loads(pathlib.Path(sys.argv[1]).read_text())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(plays(settings))


if __name__ == "__main__":
    main()
