"""
What goes wrong in the middle of a herd, by the names that herd.py takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

import real

# By which the database is slower, for every packet that it is sent.
SLOW = 0.2
# Which of two masters goes.
GONE = 1
# What the logs say of the fault itself.
HARMLESS: dict[str, list[str]] = {"service": [], "master": [], "database": [], "one-of-two": []}


def kill_service(herd: Any) -> None:
    """As a crash would; salt-api starts it anew by itself."""
    process = herd.masters[0].service_process()
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    gone = time.monotonic()
    real.until("salt-api has started the service anew", lambda: real.listens(herd.masters[0].ports[2]))
    herd.watch.notes.append((time.time() - herd.started, f"the service answers again after {time.monotonic() - gone:.1f} s"))


def restart_master(herd: Any) -> None:
    """As a package's upgrade would. salt-api and the service stay."""
    master = herd.masters[0]
    gone = time.monotonic()
    master.master.close()
    master.start_master()
    master.ready()
    herd.watch.notes.append((time.time() - herd.started, f"the master answers again after {time.monotonic() - gone:.1f} s"))


def slow_database(_herd: Any) -> None:
    """From now on."""
    Proxy.delay = SLOW


def end_one(herd: Any) -> None:
    """The second master's machine is gone, with all that runs there. States that it has published, Salt cannot end by another."""
    herd.masters[GONE].api.close()
    herd.masters[GONE].master.close()


HAPPENS = {"service": kill_service, "master": restart_master, "database": slow_database, "one-of-two": end_one}


@contextlib.contextmanager
def mariadb(root: pathlib.Path, through_proxy: bool) -> Iterator[str]:
    """A database of its own, and where it is reached."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    server, install = shutil.which("mariadbd", path=path), shutil.which("mariadb-install-db", path=path)
    assert server and install, "there is no MariaDB here"
    data, address = root / "db", root / "db.socket"
    user = ["--user=root"] if os.getuid() == 0 else []
    made = [install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db", *user]
    subprocess.run(made, check=True, capture_output=True)
    arguments = [
        "--no-defaults",
        f"--datadir={data}",
        f"--socket={address}",
        "--skip-networking",
        f"--pid-file={root / 'db.pid'}",
    ]
    with open(root / "db.out", "wb") as log:
        process = subprocess.Popen([server, *arguments, *user], stdout=log, stderr=log)
    try:
        base = f"mysql+pymysql://root@/?unix_socket={address}"
        real.until("the database answers", lambda: _made(base))
        if through_proxy:
            Proxy(str(address), str(root / "proxy.socket")).start()
            address = root / "proxy.socket"
            real.until("the proxy is there", address.exists)
        yield f"mysql+pymysql://root@/hsb?unix_socket={address}"
    finally:
        process.terminate()
        process.wait(60)


def _made(base: str) -> bool:
    with contextlib.suppress(sa.exc.DBAPIError), sa.create_engine(base).connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE IF NOT EXISTS hsb")
        return True
    return False


class Proxy(threading.Thread):
    """
    Stands in front of the database, and passes on what it is sent after ``delay`` seconds.
    """

    delay = 0.0

    def __init__(self, database: str, address: str) -> None:
        super().__init__(daemon=True)
        self._database = database
        self._address = address

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_unix_server(self._connected, self._address)
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_database, to_database = await asyncio.open_unix_connection(self._database)
        await asyncio.gather(
            self._passes(reader, to_database, slow=True), self._passes(from_database, writer, slow=False), return_exceptions=True
        )

    async def _passes(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, slow: bool) -> None:
        try:
            while chunk := await reader.read(65536):
                if slow and self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(chunk)
                await writer.drain()
        finally:
            writer.close()
