"""
The service on the wire: TLS and connections by asyncio, HTTP by h11.

Strangers cost little here: nobody waits for a handshake or a slow sender, and who is not proved has a queue of his own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import email.utils
import errno
import json
import logging
import os
import resource
import socket
import ssl
import tempfile
import threading
import time
from typing import Any, Callable

import h11

from saltext.heat_bootstrap import claims
from saltext.heat_bootstrap.config import KEY, Config
from saltext.heat_bootstrap.publish import THREADS
from saltext.heat_bootstrap.refusals import Refused
from saltext.heat_bootstrap.service import Answer, Service

log = logging.getLogger(__name__)

# For a handshake, for a request's head, for its body and for taking the answer, each
SILENCE = 10.0
MOST_HEAD = 16384
# A body that is a little too long is read, so that its sender hears why it is refused.
MOST_DRAINED = 4 * claims.MOST_BYTES
LINGER = 2.0
DOOR_THREADS = 2
WORK_THREADS = 8
PUBLISH_THREADS = THREADS
# Longer queues would be waited for longer than agents wait: 15 s the first time.
MOST_WAIT = 8.0
MOST_AT_THE_DOOR = 512
MOST_AT_WORK = 2048
MOST_TO_PUBLISH = 256
# Bodies of all connections together: 8,192 strangers with one of 256 KiB each would be 2 GiB.
MOST_HELD = 128 * 1024 * 1024
CERTIFICATE_EVERY = 60.0
# What is at work when the service is told to end
GRACE = 5.0


class Queue:
    """
    Threads for one kind of work, and how many may wait for them. Whoever would wait longer than agents do is told so at once:
    what is done for those who have hung up meanwhile is done in vain, and they ask again.
    """

    def __init__(self, threads: int, most: int, name: str) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, f"hsb-{name}")
        self._threads = threads
        self._most = most
        self._inside = 0
        # Seconds that one takes, lately, and since when those at work have been at it
        self._takes = 0.0
        self._since: dict[object, float] = {}
        self._lock = threading.Lock()

    async def run(self, work: Callable[[], Any]) -> Any:
        """What ``work`` returns; only ever called by the thread of the event loop."""
        if self._inside >= self._most or self.wait() > MOST_WAIT:
            raise Full
        self._inside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: self._timed(work))
        finally:
            self._inside -= 1

    def wait(self) -> float:
        """Seconds until the next one would have its turn."""
        before_it = self._inside - self._threads + 1
        if before_it <= 0:
            return 0.0
        with self._lock:
            # One that takes very long is noticed before it ends.
            longest = time.monotonic() - min(self._since.values()) if self._since else 0.0
            return before_it * max(self._takes, longest) / self._threads

    def _timed(self, work: Callable[[], Any]) -> Any:
        mark, began = object(), time.monotonic()
        with self._lock:
            self._since[mark] = began
        gone = False
        try:
            return work()
        except Gone:
            gone = True
            raise
        finally:
            with self._lock:
                del self._since[mark]
                if not gone:
                    self._takes += (time.monotonic() - began - self._takes) / 8

    def close(self) -> None:
        """Starts nothing more."""
        self._pool.shutdown(wait=False)


class Full(Exception):
    """
    As many wait as may.
    """


class Gone(Exception):
    """
    Whoever asked is not there any more.
    """


class Server:
    """
    Connections with a limit: where there are too many, those that have been silent for longest make place.
    """

    def __init__(self, service: Service, context: ssl.SSLContext, most_connections: int) -> None:
        self.service = service
        self.context = context
        self.door = Queue(DOOR_THREADS, MOST_AT_THE_DOOR, "door")
        self.work = Queue(WORK_THREADS, MOST_AT_WORK, "work")
        self.publishing = Queue(PUBLISH_THREADS, MOST_TO_PUBLISH, "apply")
        self.ending = False
        # Bytes of bodies that are here
        self.held = 0
        self._most = most_connections
        # Dictionaries, since they keep the order. Silent is who has no complete request at work; the oldest come first.
        self._silent: dict[Connection, asyncio.Task[None]] = {}
        self._working: dict[Connection, asyncio.Task[None]] = {}

    async def accept(self, listener: socket.socket) -> None:
        """Takes connections until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                peer, address = await loop.sock_accept(listener)
            except OSError as error:
                # Everything else is the peer's, the network's, or passes.
                if error.errno in (errno.EBADF, errno.EINVAL, errno.ENOTSOCK):
                    raise
                self._make_place(1)
                await asyncio.sleep(0.05)
                continue
            connection = Connection(self, peer, str(address[0]))
            self._silent[connection] = asyncio.ensure_future(connection.live())
            self._make_place(len(self._silent) + len(self._working) - self._most)

    def _make_place(self, count: int) -> None:
        # Never the newest: it has had no time to say something.
        for connection in list(self._silent)[: max(0, min(count, len(self._silent) - 1))]:
            self._silent.pop(connection).cancel()

    def works(self, connection: Connection) -> None:
        """A request is complete: this connection waits for us."""
        task = self._silent.pop(connection, None)
        if task is not None:
            self._working[connection] = task

    def rests(self, connection: Connection) -> None:
        """It is answered: the next request has to come soon."""
        task = self._working.pop(connection, None)
        if task is not None:
            self._silent[connection] = task

    def left(self, connection: Connection) -> None:
        """It has ended."""
        self._silent.pop(connection, None)
        self._working.pop(connection, None)

    async def end(self) -> None:
        """Lets who is at work finish, if that does not take long."""
        self.ending = True
        for task in self._silent.values():
            task.cancel()
        working = list(self._working.values())
        if working:
            _, late = await asyncio.wait(working, timeout=GRACE)
            for task in late:
                task.cancel()
        for queue in (self.door, self.work, self.publishing):
            queue.close()


class Connection:
    """
    One peer, and what it asks one after the other.
    """

    def __init__(self, server: Server, peer: socket.socket, address: str) -> None:
        self._server = server
        self._peer = peer
        self._address = address
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD)
        self._transport: asyncio.Transport | None = None
        self._is_asyncios = False
        self._is_closed = False
        self._held = 0

    async def live(self) -> None:
        """From the handshake to the end."""
        try:
            reader, writer = await self._handshake()
            while await self._exchange(reader, writer):
                self._http.start_next_cycle()
            await self._say_goodbye(reader)
            self._close()
        except (OSError, ssl.SSLError, asyncio.TimeoutError, h11.ProtocolError, EOFError):
            # What strangers do wrong is no news.
            pass
        except Exception:
            log.exception("heat_bootstrap: a connection failed")
        finally:
            self._server.left(self)
            self._let_go()
            if self._is_closed:
                pass
            elif self._transport is not None:
                self._transport.abort()
            elif self._is_asyncios:
                # Closed by asyncio, which still watches its number; what makes it do so is that the peer seems to be gone.
                with contextlib.suppress(OSError):
                    self._peer.shutdown(socket.SHUT_RDWR)
            else:
                self._peer.close()

    async def _handshake(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        self._peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = asyncio.StreamReader(limit=65536, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        self._is_asyncios = True
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, self._peer, ssl=self._server.context, ssl_handshake_timeout=SILENCE
        )
        self._transport = transport
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; may there be another?"""
        try:
            head = await asyncio.wait_for(self._event(reader), SILENCE)
            if not isinstance(head, h11.Request):
                return False
            too_large = Refused("too-large", f"The body is longer than {claims.MOST_BYTES} bytes.")
            length = next((int(value[:12]) for name, value in head.headers if name == b"content-length"), 0)
            if length > MOST_DRAINED:
                answer = self._server.service.refuse(too_large)
            else:
                if self._http.they_are_waiting_for_100_continue:
                    writer.write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
                body = await asyncio.wait_for(self._body(reader), SILENCE)
                if body is None:
                    answer = self._server.service.refuse(too_large)
                else:
                    self._server.works(self)
                    answer = await self._answer(head.method.decode(), head.target.decode(), body)
        except Gone:
            return False
        except Full:
            answer = self._server.service.refuse(self._server.service.busy("More ask than can be answered in time."))
        except h11.RemoteProtocolError:
            if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                return False
            answer = self._server.service.refuse(Refused("malformed", "This is not the HTTP that is spoken here."))
        self._let_go()
        writer.write(self._written(answer))
        await asyncio.wait_for(writer.drain(), SILENCE)
        self._server.rests(self)
        return not self._server.ending and self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _event(self, reader: asyncio.StreamReader) -> Any:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._http.receive_data(await reader.read(65536))

    async def _body(self, reader: asyncio.StreamReader) -> bytes | None:
        """``None`` if it is too long."""
        chunks: list[bytes] = []
        length = 0
        while True:
            event = await self._event(reader)
            if isinstance(event, h11.EndOfMessage):
                return b"".join(chunks) if length <= claims.MOST_BYTES else None
            if not isinstance(event, h11.Data):
                raise EOFError
            length += len(event.data)
            if length > MOST_DRAINED:
                return None
            if length <= claims.MOST_BYTES:
                chunks.append(bytes(event.data))
                self._held += len(event.data)
                self._server.held += len(event.data)
                if self._server.held > MOST_HELD:
                    raise Full

    async def _answer(self, method: str, target: str, body: bytes) -> Answer:
        server, service = self._server, self._server.service
        path = target.split("?")[0]
        if path == "/v1/status" and method == "GET":
            return service.status()
        proved = await server.door.run(self._if_there(lambda: service.door(method, path, body)))
        if isinstance(proved, Answer):
            return proved
        queue = server.publishing if proved.claim.verb == "apply" else server.work
        answer: Answer = await queue.run(self._if_there(lambda: service.work(proved, self._address)))
        return answer

    def _if_there(self, work: Callable[[], Any]) -> Callable[[], Any]:
        def worked() -> Any:
            # Who waited too long has hung up and will ask again.
            if self._transport is None or self._transport.is_closing():
                raise Gone
            return work()

        return worked

    def _written(self, answer: Answer) -> bytes:
        body = json.dumps(answer.body).encode() + b"\n"
        headers = [
            ("Date", email.utils.formatdate(usegmt=True)),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
        ]
        headers.append(("Cache-Control", "no-store"))
        headers.extend(answer.headers)
        if self._http.their_state is not h11.DONE:
            headers.append(("Connection", "close"))
        events = (h11.Response(status_code=answer.status, headers=headers), h11.Data(data=body), h11.EndOfMessage())
        return b"".join(self._http.send(event) or b"" for event in events)

    def _let_go(self) -> None:
        self._server.held -= self._held
        self._held = 0

    def _close(self) -> None:
        """
        As TLS wants it: the peer is told that nothing was cut off. It has a moment to say the same.
        """
        if self._transport is not None:
            self._is_closed = True
            self._transport.close()
            asyncio.get_running_loop().call_later(LINGER, self._transport.abort)

    async def _say_goodbye(self, reader: asyncio.StreamReader) -> None:
        """
        Who is still sending would not hear the answer if the connection were cut.
        """
        if self._http.their_state is h11.DONE or self._transport is None:
            return
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_drained(reader, 16 * MOST_DRAINED), LINGER)


async def _drained(reader: asyncio.StreamReader, most: int) -> None:
    while most > 0:
        chunk = await reader.read(65536)
        if not chunk:
            return
        most -= len(chunk)


def listeners(host: str, port: int) -> list[socket.socket]:
    """
    Sockets for all addresses that the host has; for all of the machine where it is empty.
    """
    found: list[socket.socket] = []
    try:
        try:
            addresses = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:
            raise OSError(f"{KEY}.host: {host!r} is no address of this machine: {error}") from error
        for family, kind, proto, _, address in sorted(set(addresses)):
            try:
                listener = socket.socket(family, kind, proto)
            except OSError as error:
                # Many machines are built without IPv6.
                if error.errno == errno.EAFNOSUPPORT and not host:
                    continue
                raise
            found.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                listener.bind(address)
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL and family == socket.AF_INET6 and not host:
                    found.pop().close()
                    continue
                raise OSError(error.errno, f"{address[0]} port {port}: {error.strerror}") from error
            listener.listen(1024)
            listener.setblocking(False)
    except BaseException:
        for listener in found:
            listener.close()
        raise
    return found


def tls(config: Config) -> ssl.SSLContext:
    """
    TLS as it should be in these years, with the configured certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | getattr(ssl, "OP_NO_RENEGOTIATION", 0)
    load_certificate(context, config)
    return context


def load_certificate(context: ssl.SSLContext, config: Config) -> None:
    """
    The certificate for all handshakes from now on.
    """
    if config.ssl_chain is None:
        context.load_cert_chain(config.ssl_crt, config.ssl_key)
        return
    # Python takes certificate and chain from one file only.
    with tempfile.NamedTemporaryFile(suffix=".pem") as both:
        for path in (config.ssl_crt, config.ssl_chain):
            with open(path, "rb") as file:
                both.write(file.read().strip() + b"\n")
        both.flush()
        context.load_cert_chain(both.name, config.ssl_key)


def raise_limit() -> int:
    """
    As many open files as this process may have; the limit that it has then.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > 1 << 20:
        hard = 1 << 20
    if soft != resource.RLIM_INFINITY and soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        soft = hard
    return hard if soft == resource.RLIM_INFINITY else soft


async def serve(config: Config, service: Service, stop: asyncio.Event, ready: Callable[[int], None] | None = None) -> None:
    """
    Answers until ``stop`` is set; what is at work then is finished, if that does not take long.

    ready
        Is told the port
    """
    # Broken handshakes and the like are no news.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: log.debug("asyncio: %s", context.get("message")))
    context = tls(config)
    # Half of the files are left to the database, locks and what publishes.
    server = Server(service, context, min(8192, max(64, raise_limit() // 2)))
    sockets = listeners(config.host, config.port)
    port = sockets[0].getsockname()[1]
    accepting = [asyncio.ensure_future(server.accept(listener)) for listener in sockets]
    renewing = asyncio.ensure_future(_renew(context, config))
    stopping = asyncio.ensure_future(stop.wait())
    log.info("heat_bootstrap listens on port %s", port)
    if ready is not None:
        ready(port)
    try:
        done, _ = await asyncio.wait([stopping, *accepting], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            task.result()
    finally:
        for task in (stopping, renewing, *accepting):
            task.cancel()
        for listener in sockets:
            listener.close()
        await server.end()


async def _renew(context: ssl.SSLContext, config: Config) -> None:
    """
    Certificates are renewed while nobody restarts salt-api.
    """
    seen = _changed(config)
    while True:
        await asyncio.sleep(CERTIFICATE_EVERY)
        now = _changed(config)
        if now == seen:
            continue
        try:
            load_certificate(context, config)
            seen = now
            log.info("heat_bootstrap: the certificate was loaded anew")
        except (OSError, ssl.SSLError) as error:
            # Perhaps only one of the files is the new one yet.
            log.warning("heat_bootstrap: the changed certificate cannot be loaded yet: %s", error)


def _changed(config: Config) -> list[Any]:
    marks: list[Any] = []
    for path in (config.ssl_crt, config.ssl_key, config.ssl_chain):
        try:
            status = os.stat(path) if path else None
            marks.append(status and (status.st_mtime_ns, status.st_ino))
        except OSError:
            marks.append(None)
    return marks
