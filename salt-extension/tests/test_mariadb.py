"""
Several masters with one MariaDB, where the machine has one to start.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from conftest import World, pem
from saltext.heat_bootstrap.keys import STRIPES
from saltext.heat_bootstrap.store import jobs
from test_together import together

pytestmark = pytest.mark.without_salt

SERVER = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
INSTALL = shutil.which("mariadb-install-db") or shutil.which("mysql_install_db")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("pymysql")
    if SERVER is None or INSTALL is None:
        pytest.skip("there is no MariaDB here")
    root = tmp_path_factory.mktemp("db")
    data, address = root / "data", root / "s"
    user = ["--user=root"] if os.getuid() == 0 else []
    install = [INSTALL, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db", *user]
    subprocess.run(install, check=True, capture_output=True)
    arguments = ["--no-defaults", f"--datadir={data}", f"--socket={address}", "--skip-networking", f"--pid-file={root / 'pid'}"]
    with open(root / "log", "wb") as log:
        server = subprocess.Popen([SERVER, *arguments, "--innodb-buffer-pool-size=32M", *user], stdout=log, stderr=log)
    try:
        base = f"mysql+pymysql://root@/?unix_socket={address}"
        deadline = time.monotonic() + 60
        while not _answers(base):
            assert time.monotonic() < deadline and server.poll() is None, pathlib.Path(root / "log").read_text()
            time.sleep(0.1)
        yield f"mysql+pymysql://root@/hsb?unix_socket={address}"
    finally:
        server.terminate()
        server.wait(60)


def _answers(base: str) -> bool:
    with contextlib.suppress(sa.exc.DBAPIError), sa.create_engine(base).connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        return True
    return False


@pytest.fixture
def both(world: World, url: str) -> Iterator[tuple[World, list[Any]]]:
    engine = sa.create_engine(url.replace("/hsb?", "/?"), future=True)
    with engine.connect() as connection:
        connection.exec_driver_sql("DROP DATABASE IF EXISTS hsb")
        connection.exec_driver_sql("CREATE DATABASE hsb CHARACTER SET latin1")
    engine.dispose()
    services, stores = [], []
    for number in range(2):
        pki = world.root / f"pki{number}"
        for name in ("minions", "minions_pre", "minions_rejected", "minions_denied"):
            (pki / name).mkdir(parents=True)
        (pki / "master.pub").write_text("the master's key")
        world.store.close()
        services.append(world.another(f"master{number}", {**world.opts, "pki_dir": str(pki)}, url))
        stores.append(world.store)
    yield world, services
    for store in stores:
        store.close()


def test_a_herd_between_two_masters(both: tuple[World, list[Any]]) -> None:
    world, services = both
    text = world.token(uses=7)
    herd = [world.vm(f"web-{number}", text, key=number % 4) for number in range(16)]

    def ask(who: Any, number: int) -> int:
        status: int = services[number % 2].handle("POST", "/v1/enroll", who.claim("enroll")).status
        return status

    statuses = together([lambda who=who, number=number: ask(who, number) for number, who in enumerate(herd)])
    assert sorted(statuses) == [200] * 7 + [403] * 9
    assert world.used(herd[0]) == 7
    keys = [list((world.root / f"pki{number}" / "minions").iterdir()) for number in range(2)]
    assert sum(map(len, keys)) == 7
    # At the other master, the same ones get in, without another use.
    again = [ask(who, number + 1) for number, who in enumerate(herd)]
    assert sorted(again) == [200] * 7 + [403] * 9
    assert world.used(herd[0]) == 7


def test_two_keys_at_two_masters(both: tuple[World, list[Any]]) -> None:
    world, services = both
    for round_ in range(5):
        text = world.token(uses=9)
        herd = [world.vm(f"web-{round_}", text, key=number) for number in range(2)]
        bodies = [who.claim("enroll") for who in herd]
        work = [
            lambda service=service, body=body: service.handle("POST", "/v1/enroll", body).status
            for service, body in zip(services, bodies)
        ]
        assert sorted(together(work)) == [200, 409]
        assert world.used(herd[0]) == 1


def test_everything_else(both: tuple[World, list[Any]]) -> None:
    world, services = both
    world.service = services[0]
    who, shouting = world.vm("\u00fcber-1", pattern="*", deregister=True), world.vm("\u00dcBER-1", pattern="*", key=1)
    # Ids that differ in case are two.
    assert world.enroll(who) == "accepted"
    assert world.enroll(shouting) == "accepted"
    assert world.enroll(who) == "already"
    document = who.document("apply", pillar={"a": "\U0001f600"})
    first = services[0].handle("POST", "/v1/apply", who.sealed(document)).body
    assert services[1].handle("POST", "/v1/enroll", who.claim("enroll")).status == 200
    second = services[1].handle("POST", "/v1/apply", who.sealed(document)).body
    assert (first["jid"], first["published"], second["published"]) == (second["jid"], True, False)
    # Said twice, changes no row: it has to count all the same.
    for message in ("\U0001f600", "\U0001f600", "x" * 5000):
        assert world.word("report", who.claim("report", message=message)) == "noted"
    assert world.word("deregister", who.claim("deregister")) == "removed"
    assert world.word("deregister", who.claim("deregister")) == "absent"
    assert world.words() == ["accepted", "accepted", "published", "accepted", "removed"]
    assert (world.root / "pki0" / "minions" / "\u00dcBER-1").read_text() == pem(shouting)
    with world.store.read() as connection:
        assert [entry["verdict"] for entry in world.store.fleet(connection, 0, world.clock())] == ["done", "under way"]
    pruned = world.store.write(lambda connection: world.store.prune(connection, int(world.clock()) + 9999, world.clock()))
    assert (pruned["tokens"], pruned["minions"]) == (2, 2)


def test_as_many_as_may_be_under_way_on_both(both: tuple[World, list[Any]], url: str) -> None:
    world, services = both
    text = world.token(uses=20)
    # Ids that share a lock wait for each other before they come so far.
    names = {hashlib.sha256(name.encode()).digest()[0] % STRIPES: name for name in (f"web-{number}" for number in range(40))}
    herd = [world.vm(name, text, key=number % 4) for number, name in enumerate(list(names.values())[:10])]
    for number, who in enumerate(herd):
        assert services[number % 2].handle("POST", "/v1/enroll", who.claim("enroll")).status == 200
    bodies = [who.claim("apply") for who in herd]
    with contextlib.ExitStack() as ending:
        engine = sa.create_engine(url, future=True)
        ending.callback(engine.dispose)
        watch = ending.enter_context(engine.connect()).execution_options(isolation_level="AUTOCOMMIT")
        pool = ending.enter_context(concurrent.futures.ThreadPoolExecutor(len(herd)))
        # All of them have looked before the first one is through.
        gate = ending.enter_context(engine.connect())
        gate.exec_driver_sql("UPDATE hsb_meta SET value = value + 1 WHERE name = 'gate'")
        asked = [
            pool.submit(lambda number=number, body=body: services[number % 2].handle("POST", "/v1/apply", body).status)
            for number, body in enumerate(bodies)
        ]
        waiting = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
        deadline = time.monotonic() + 60
        while watch.exec_driver_sql(waiting).scalar() != len(herd) and not any(one.done() for one in asked):
            assert time.monotonic() < deadline
            # Asked more often, it says what it said before.
            time.sleep(0.2)
        passed = [one.result() for one in asked if one.done()]
        gate.rollback()
        assert passed == []
        assert sorted(one.result() for one in asked) == [200] * 3 + [503] * 7
    # Nothing is left of those that were sent away but what they may try again with.
    with world.store.read() as connection:
        assert len(connection.execute(sa.select(jobs.c.id)).all()) == 3
    assert world.words().count("published") == 3


def test_the_lock_that_all_wait_for_is_held_for_one_question(both: tuple[World, list[Any]]) -> None:
    """A database that takes its time takes it for each statement: what nobody has to be alone for is asked before the lock."""
    world, services = both
    # The second one's store is the world's own.
    world.service = services[1]
    *most, first, second = [world.vm(f"web-{number}", key=number) for number in range(4)]
    for who in (*most, first, second):
        assert world.enroll(who) == "accepted"
    for who in most:
        assert world.word("apply", who.claim("apply")) == "200"
    said: list[str] = []
    engine = world.store._ready()
    sa.event.listen(engine, "before_cursor_execute", lambda _c, _u, text, *_: said.append(" ".join(text.split()[:2])))
    sa.event.listen(engine, "commit", lambda _connection: said.append("commit"))
    assert world.word("apply", first.claim("apply")) == "200"
    lock = said.index("UPDATE hsb_meta")
    assert said.count("UPDATE hsb_meta") == 1 and said[lock + 1 :] == ["SELECT hsb_jobs.id", "commit"]
    assert {"INSERT INTO", "DELETE FROM"} <= set(said[:lock])
    # Who is sent away does not wait for it, and changes nothing.
    said.clear()
    assert world.word("apply", second.claim("apply")) == "503 busy"
    assert {text.split()[0] for text in said} <= {"BEGIN", "SELECT"}
