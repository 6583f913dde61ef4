"""
``doctor``: what is well, what is not, and what cannot be seen; and nothing is changed by looking.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import pathlib
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import salt.config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

import real
import vm
from conftest import World
from saltext.heat_bootstrap import cli, doctor
from test_cli import run
from test_http import Running, running

__all__ = ["running"]


def configure(world: World, settings: dict[str, Any] | None = None, **changes: Any) -> None:
    """Other options, and others of the service's."""
    path = world.root / "etc" / "master"
    options = json.loads(path.read_text())
    options["heat_bootstrap"] = {**options["heat_bootstrap"], **(settings or {})}
    path.write_text(json.dumps({**options, **changes}))


def looked(world: World) -> list[doctor.Finding]:
    opts = salt.config.master_config(str(world.root / "etc" / "master"))
    return doctor.look(opts, doctor.sources(opts), time.time())


def said(world: World, what: str) -> list[tuple[str, str]]:
    return [(finding.verdict, finding.says) for finding in looked(world) if finding.what == what]


def has(found: list[tuple[str, str]], verdict: str, text: str) -> bool:
    return any(kind == verdict and text in says for kind, says in found)


def snapshot(root: pathlib.Path) -> dict[str, Any]:
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = (status.st_mode, status.st_uid, status.st_mtime_ns if path.is_file() else 0, content)
    return found


def certify(where: pathlib.Path, days: int, names: list[x509.GeneralName] | None = None, key: int = 99) -> None:
    """A certificate with so many days left."""
    private = vm.private_key(key)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key()).serial_number(1)
    builder = builder.not_valid_before(now - datetime.timedelta(days=50)).not_valid_after(now + datetime.timedelta(days=days))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    where.write_bytes(builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def test_all_is_well(tmp_path: pathlib.Path) -> None:
    """With a real master and a real salt-api."""
    ports = real.free_ports(3)
    real.configure_master(tmp_path, ports)
    master = tmp_path / "master"
    certify(master / "server.crt", 90, [x509.DNSName("salt.example.net")])
    (master / "server.key").chmod(0o600)
    arguments = ("-c", str(master / "etc"))

    def looks() -> tuple[int, list[dict[str, Any]]]:
        command = [sys.executable, "-m", "saltext.heat_bootstrap.cli", *arguments, "doctor", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout)

    with contextlib.ExitStack() as ending:
        ending.enter_context(real.daemon(tmp_path, "salt-master", *arguments))
        ending.enter_context(real.daemon(tmp_path, "salt-api", *arguments))
        real.run("heat-bootstrap", *arguments, "token", "create", "web-*")
        real.until("the service answers", lambda: real.listens(ports[2]))
        real.until("the master publishes", (master / "run" / "publish_pull.ipc").exists)
        real.until("all is well", lambda: looks()[0] == 0)
        code, findings = looks()
        assert (code, {finding["verdict"] for finding in findings}) == (0, {"ok"}), findings
        assert {finding["what"] for finding in findings} == {
            "configuration", "certificate", "database", "tokens", "service", "master", "keys", "salt-api", "files",
        }  # fmt: skip
        text = real.run("heat-bootstrap", *arguments, "doctor")
        assert "0 WRONG, 0 unknown" in text and f"runs and answers on port {ports[1]}" in text
    code, findings = looks()
    assert code == 1
    wrong = {finding["what"] for finding in findings if finding["verdict"] == "WRONG"}
    assert "service" in wrong and all(finding["do"] for finding in findings if finding["verdict"] == "WRONG")


def test_nothing_is_changed(configured: World, capsys: pytest.CaptureFixture[str]) -> None:
    world = configured
    world.store.close()
    shutil.rmtree(world.file.parent, ignore_errors=True)
    before = snapshot(world.root)
    assert run(world, "doctor") == 1
    assert snapshot(world.root) == before
    assert f"unknown  database       {world.file} is not there yet" in capsys.readouterr().out
    text = world.token()
    world.store.close()
    before = snapshot(world.root)
    assert run(world, "doctor") == 1
    assert snapshot(world.root) == before
    out = capsys.readouterr().out
    assert f"{world.file} opens, has schema 1 and may be written" in out
    assert "1 good, 1 of them expiring within a day; 0 used up, 0 expired, 0 revoked" in out
    # Nor is a secret told.
    digest = hashlib.sha256(text.encode()).hexdigest()
    for secret in (text.split(".")[2], digest, (world.root / "server.key").read_text().splitlines()[1]):
        assert secret not in out


def test_wrong_configuration(configured: World) -> None:
    world = configured
    configure(world, {"prot": 1, "most_at_once": 0})
    found = looked(world)
    assert [finding.verdict for finding in found if finding.what == "configuration"] == ["WRONG", "WRONG"]
    assert {"master", "keys", "salt-api", "files"} <= {finding.what for finding in found}
    path = world.root / "etc" / "master"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "heat_bootstrap"}))
    assert has(said(world, "configuration"), "WRONG", "heat_bootstrap")


def test_certificate(configured: World, capsys: pytest.CaptureFixture[str]) -> None:
    world = configured
    crt, key = world.root / "server.crt", world.root / "server.key"
    key.chmod(0o600)
    certify(crt, 90, [x509.DNSName("salt.example.net"), x509.DNSName("*.example.net")])
    found = said(world, "certificate")
    assert {verdict for verdict, _ in found} == {"ok"}
    assert has(found, "ok", "is for salt.example.net, *.example.net")
    assert has(found, "ok", "belong together, and root can read them")
    # Its end is near or past: that matters to those whose tokens do not pin its key.
    for days, when in ((3, "soon"), (-3, "not now")):
        certify(crt, days)
        assert has(said(world, "certificate"), "ok", f"which is {when}")
    assert run(world, "token", "create", "web-1") == 0
    assert has(said(world, "certificate"), "ok", "since they pin its key")
    text = world.token()
    assert has(said(world, "certificate"), "unknown", "whether there are others is not known")
    assert run(world, "token", "create", "web-1", "--pin", "none") == 0
    assert has(said(world, "certificate"), "WRONG", "--pin ca or none need it to be")
    assert text
    assert has(said(world, "certificate"), "unknown", "no subjectAltName")
    key.chmod(0o644)
    assert has(said(world, "certificate"), "WRONG", "has mode 0644: everybody can read the key")
    certify(crt, 90, key=98)
    assert has(said(world, "certificate"), "WRONG", "do not belong together")
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    key.write_bytes(vm.private_key(98).private_bytes(*form, serialization.BestAvailableEncryption(b"x")))
    assert has(said(world, "certificate"), "WRONG", "is encrypted")
    key.write_text("nonsense")
    assert has(said(world, "certificate"), "WRONG", "is no private key")
    crt.write_text("nonsense")
    assert has(said(world, "certificate"), "WRONG", f"there is no certificate in {crt}")
    crt.unlink()
    assert has(said(world, "certificate"), "WRONG", f"{crt} cannot be read")
    capsys.readouterr()


def test_database(configured: World) -> None:
    world = configured
    world.token()
    assert {verdict for verdict, _ in said(world, "database")} == {"ok"}
    world.file.chmod(0o644)
    world.file.parent.chmod(0o777)
    found = said(world, "database")
    assert has(found, "WRONG", f"{world.file} has mode 0644: others get at the tokens")
    assert has(found, "WRONG", f"{world.file.parent} has mode 0777")
    world.store.close()
    with contextlib.closing(sqlite3.connect(world.file)) as connection, connection:
        connection.execute("UPDATE hsb_meta SET value = 7 WHERE name = 'schema'")
    assert has(said(world, "database"), "WRONG", "has schema 7, this version knows 1")
    assert not said(world, "tokens")
    for path in world.file.parent.glob("*.sqlite-*"):
        path.unlink()
    world.file.write_bytes(b"this is no database" * 1000)
    assert has(said(world, "database"), "WRONG", "not a database")
    pytest.importorskip("pymysql")
    configure(world, {"database": "mysql+pymysql://user:hush-hush@127.0.0.1:1/salt"})
    assert has(said(world, "database"), "WRONG", "mysql+pymysql://user:***@127.0.0.1:1/salt")
    assert "hush-hush" not in str(looked(world))


def test_tokens(configured: World) -> None:
    world = configured
    now = int(time.time())
    for changes in ({"expires": now + 9 * 86400}, {}, {"used": 1}, {"expires": now - 5}, {"revoked": True}):
        world.token(**changes)
    assert said(world, "tokens") == [("ok", "2 good, 1 of them expiring within a day; 1 used up, 1 expired, 1 revoked")]


def test_service(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    world = running.world
    crt, key = str(world.root / "server.crt"), str(world.root / "server.key")
    path = world.root / "etc" / "master"
    options = {**json.loads(path.read_text()), "heat_bootstrap": {"ssl_crt": crt, "ssl_key": key, "port": running.port}}
    path.write_text(json.dumps(options))
    world.clock.now = time.time()
    found = said(world, "service")
    assert {verdict for verdict, _ in found} == {"ok"} and len(found) == 4
    world.clock.now += 60
    assert has(said(world, "service"), "WRONG", "has a clock that is ")
    world.clock.now -= 120
    assert has(said(world, "service"), "WRONG", "has a clock that is ")
    with monkeypatch.context() as patch:
        patch.setattr(doctor, "__version__", "9.9")
        assert has(said(world, "service"), "WRONG", "and the installed extension 9.9")
    certify(pathlib.Path(crt), 90, key=98)
    assert has(said(world, "service"), "WRONG", "shows another key than that of")
    [port] = real.free_ports(1)
    configure(world, {"port": port})
    [(verdict, says)] = said(world, "service")
    assert verdict == "WRONG" and f"nothing answers on 127.0.0.1 port {port}: Connection refused" in says


def test_another_service_on_the_port(configured: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            peer, _ = other.accept()
            peer.recv(65536)
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            peer.close()

        configure(configured, {"port": other.getsockname()[1], "host": "127.0.0.1"})
        thread = threading.Thread(target=answer)
        thread.start()
        [(verdict, says)] = said(configured, "service")
        thread.join()
        assert verdict == "WRONG" and "does not speak TLS" in says
        # One that says nothing at all
        [(verdict, says)] = said(configured, "service")
        assert verdict == "WRONG" and "timed out" in says


@pytest.fixture
def open_world() -> Iterator[World]:
    """In a directory that everybody can enter, as a master's are."""
    root = pathlib.Path(tempfile.mkdtemp(prefix="hsb-"))
    root.chmod(0o755)
    made = World(root)
    real.certificate(root)
    path = root / "etc" / "master"
    settings = {"ssl_crt": str(root / "server.crt"), "ssl_key": str(root / "server.key")}
    path.write_text(json.dumps({**json.loads(path.read_text()), "heat_bootstrap": settings}))
    yield made
    made.store.close()
    shutil.rmtree(root)


def test_with_the_eyes_of_another_user(open_world: World) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can see with the eyes of another user")
    world = open_world
    world.token()
    world.store.close()
    (world.root / "server.key").chmod(0o600)
    # All is imported by the first look, from where nobody else may.
    opts = salt.config.master_config(str(world.root / "etc" / "master"))
    files = doctor.sources(opts)
    assert not [
        finding for finding in doctor.look(opts, files, time.time()) if finding.what == "keys" and finding.verdict != "ok"
    ]
    os.seteuid(65534)
    try:
        found = [(finding.verdict, finding.says) for finding in doctor.look(opts, files, time.time())]
    finally:
        os.seteuid(0)
    assert has(found, "WRONG", f"ssl_key: {world.root}/server.key cannot be read: Permission denied (as nobody)")
    assert has(found, "WRONG", f"nobody cannot write to {world.root}/pki/minions")
    assert has(found, "WRONG", f"nobody cannot write to {world.root}/cache")
    assert has(found, "unknown", f"{world.file}") or has(found, "WRONG", f"{world.file}")


def test_who_may_look(configured: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli.os, "geteuid", lambda: 65534)
    assert run(configured, "doctor") == 1
    assert "run it as root, not as nobody" in capsys.readouterr().err


HOOKED = [{"salt/netapi/hook/states/state": ["/srv/reactor/states.sls"]}]


@pytest.mark.parametrize(
    ("changes", "verdict", "text"),
    [
        ({}, "ok", "needs none"),
        ({"rest_cherrypy": {"port": 8000}}, "ok", "no reactor waits"),
        ({"rest_cherrypy": {"port": 8000}, "reactor": [{"salt/minion/*/start": []}]}, "ok", "no reactor waits"),
        ({"rest_cherrypy": {"port": 8000, "thread_pool": 1}, "reactor": HOOKED}, "ok", "thread_pool: 1"),
        ({"rest_cherrypy": {"port": 8000}, "reactor": HOOKED}, "WRONG", "and thread_pool 100: two hooks at once"),
        ({"rest_cherrypy": {"thread_pool": 9}, "reactor": [{"salt/netapi/*": []}]}, "WRONG", "(salt/netapi/*) and thread_pool 9"),
        ({"rest_cherrypy": {"port": 8010}}, "WRONG", "both have port 8010"),
    ],
)
def test_salt_api(configured: World, changes: dict[str, Any], verdict: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_salt_line", lambda: 3008)
    configure(configured, **changes)
    assert has(said(configured, "salt-api"), verdict, text), said(configured, "salt-api")
    if "two hooks" in text:
        monkeypatch.setattr(doctor, "_salt_line", lambda: 3006)
        assert has(said(configured, "salt-api"), "ok", "3007 and 3008 do not")


def test_one_key_with_two_names(configured: World) -> None:
    text = configured.token(uses=9)
    for name in ("web-old", "web-new"):
        assert configured.enroll(configured.vm(name, text)) == "accepted"
    assert has(said(configured, "keys"), "unknown", "the same one is accepted as web-new, web-old: a machine that got another id")
    (configured.pki / "minions" / "web-old").unlink()
    assert not has(said(configured, "keys"), "unknown", "the same one")


def test_keys_in_two_files(configured: World) -> None:
    world = configured
    directory = world.root / "etc" / "master.d"
    directory.mkdir()
    (directory / "a.conf").write_text("reactor:\n  - 'tag/one': [/srv/one.sls]\nexternal_auth:\n  pam:\n    ann: ['.*']\n")
    found = said(world, "files")
    assert found[0][0] == "ok" and len(found) == 1
    # What Salt makes one of, by the very options that it has read.
    (directory / "b.conf").write_text("reactor:\n  - 'tag/two': [/srv/two.sls]\nexternal_auth:\n  pam:\n    bob: ['.*']\n")
    opts = salt.config.master_config(str(world.root / "etc" / "master"))
    merged = len(opts["reactor"]) == 2 and set(opts["external_auth"]["pam"]) == {"ann", "bob"}
    assert [verdict for verdict, _ in said(world, "files")] == (["ok"] if merged else ["WRONG", "WRONG"])
    # What the main file says of it is gone.
    configure(world, reactor=[{"tag/three": []}], external_auth={"pam": {"cid": [".*"]}})
    found = said(world, "files")
    main = world.root / "etc" / "master"
    for key in ("reactor", "external_auth"):
        [says] = [says for verdict, says in found if verdict == "WRONG" and says.startswith(f"{key} is in ")]
        assert all(str(path) in says for path in (main, directory / "a.conf", directory / "b.conf"))
        assert f"of {main}" in says.replace("; of ", " of ") and "something is lost" in says
    (directory / "b.conf").write_text("# nothing\n")
    assert not has(said(world, "files"), "unknown", "")
    (directory / "c.conf").write_text("a: [b\n")
    assert has(said(world, "files"), "unknown", f"{directory / 'c.conf'} cannot be read as YAML")


def test_what_cannot_be_looked_at(configured: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise ZeroDivisionError("strange")

    monkeypatch.setattr(doctor, "_hooks", fails)
    configure(configured, rest_cherrypy={"port": 8000})
    assert has(said(configured, "salt-api"), "unknown", "ZeroDivisionError: strange")
    assert said(configured, "files")
