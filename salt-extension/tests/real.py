"""
The whole way against a real Salt: a master and salt-api with nothing but this extension, and a minion.

    PYTHONPATH=OVERLAY VENV/bin/python tests/real.py

Everything lives in a directory of its own below /tmp and ends with this script; HSB_KEEP=1 leaves the directory.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

import vm

BIN = pathlib.Path(sys.executable).parent


def main() -> None:
    root = pathlib.Path(tempfile.mkdtemp(prefix="hsb-"))
    try:
        with contextlib.ExitStack() as ending:
            through(root, ending)
        print("all of it works")
    except BaseException:
        for log in [path for path in (*root.glob("*/var/log/*"), *root.glob("*.out")) if path.is_file()]:
            print(f"---- {log}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-40:]), file=sys.stderr)
        raise
    finally:
        if os.environ.get("HSB_KEEP") != "1":
            shutil.rmtree(root, ignore_errors=True)


def through(root: pathlib.Path, ending: contextlib.ExitStack) -> None:
    ports = free_ports(3)
    configure_master(root, ports)
    master = root / "master"
    started = time.monotonic()
    ending.enter_context(daemon(root, "salt-master", "-c", str(master / "etc")))
    ending.enter_context(daemon(root, "salt-api", "-c", str(master / "etc")))

    token = run("heat-bootstrap", "-c", str(master / "etc"), "token", "create", "web-*", "--states", "ok", "--deregister").strip()
    web = vm.Vm("web-1", token)
    bus = listening(ending, master)
    until("the service answers", lambda: listens(ports[2]))
    until("the master has its key", (master / "pki" / "master.pub").exists)
    until("the master publishes", (master / "run" / "publish_pull.ipc").exists)
    say(started, "master and service are there")

    status, body, _ = vm.post(ports[2], "check", web.claim("check"))
    assert (status, body["would"], body["uses_left"]) == (200, "accepted", 1), body
    status, body, _ = vm.post(ports[2], "enroll", web.claim("enroll"))
    assert status == 200, body
    answer = web.opened(body)
    assert answer["status"] == "accepted", answer
    say(started, "enrolled")
    heard(bus, "accept")

    configure_minion(root, ports, web, answer["master_public_key"])
    before = time.monotonic()
    ending.enter_context(daemon(root, "salt-minion", "-c", str(root / "minion" / "etc")))
    until("the minion is connected", lambda: connected(ports[0]))
    say(started, f"the minion is connected after {time.monotonic() - before:.1f} s")

    document = web.document("apply", pillar={"word": "hush-hush"})
    jid = apply(ports[2], web, document, published=True)
    returned = until("the job is done", lambda: result(root, jid))
    assert returned["retcode"] == 0 and returned["success"], returned
    assert returned["fun_args"][0] == "ok", returned
    say(started, f"job {jid} ran")
    assert runs(root) == ["hush-hush"], runs(root)
    assert apply(ports[2], web, document, published=False) == jid
    assert apply(ports[2], web, {**document, "nonce": web.document("apply")["nonce"]}, published=False) == jid
    again = {**document, "nonce": web.document("apply")["nonce"], "again": True}
    assert apply(ports[2], web, again, published=True) == jid
    second = apply(ports[2], web, web.document("apply", pillar={"word": "second"}), published=True)
    until("the second job is done", lambda: result(root, second))
    # Jobs of one minion are received in order: the one published again would have run before the second.
    assert runs(root) == ["hush-hush", "second"], runs(root)
    say(started, "published again it did not run again")

    status, body, _ = vm.post(ports[2], "apply", web.claim("apply", states=["other"]))
    assert (status, body["error"]) == (403, "state-not-allowed"), body
    status, body, _ = vm.post(ports[2], "report", web.claim("report", jid=jid))
    assert (status, body["status"]) == (200, "noted"), body
    fleet = json.loads(run("heat-bootstrap", "-c", str(master / "etc"), "fleet", "--json"))
    assert [(entry["id"], entry["verdict"]) for entry in fleet] == [("web-1", "done")], fleet
    tokens = json.loads(run("salt-run", "-c", str(master / "etc"), "--out=json", "heat_bootstrap.tokens"))
    assert [(entry["is"], entry["used"]) for entry in tokens] == [("used-up", 1)], tokens

    status, body, _ = vm.post(ports[2], "deregister", web.claim("deregister"))
    assert (status, body["status"]) == (200, "removed"), body
    assert "web-1" not in run("salt-key", "-c", str(master / "etc"), "-l", "accepted", "--no-color")
    status, body, _ = vm.post(ports[2], "deregister", web.claim("deregister"))
    assert (status, body["status"]) == (200, "absent"), body
    heard(bus, "delete")
    say(started, "removed")

    herd(ports[2], str(master / "etc"))
    say(started, "a herd was let in, and a job published for each")
    api_log = "\n".join(path.read_text(errors="replace") for path in (master / "var" / "log").rglob("*api*") if path.is_file())
    assert "Traceback" not in api_log and "ERROR" not in api_log, api_log[-5000:]

    secret = token.split(".")[2].encode()
    database = [path for path in (master / "pki" / "heat-bootstrap").rglob("*") if path.is_file()]
    logs = [path for path in (*(master / "var" / "log").rglob("*"), *root.glob("*.out")) if path.is_file()]
    for path in [*database, *logs]:
        content = path.read_bytes()
        assert secret not in content, path
        assert b"hush-hush" not in content, path
    audit = json.loads(run("heat-bootstrap", "-c", str(master / "etc"), "audit", "--count", "1000", "--json"))
    words = [line["word"] for line in audit if line["id"] is None or not line["id"].startswith("herd-")]
    assert words.pop() == "created"
    assert words == ["created", "accepted", "published", "again", "published", "state-not-allowed", "removed"], audit
    # Ends cleanly: nothing is left that listens.
    ending.close()
    assert not listens(ports[2])


def herd(port: int, directory: str) -> None:
    """All at once, to see that Salt's clients do not get in each other's way."""
    text = run("heat-bootstrap", "-c", directory, "token", "create", "herd-*", "--states", "ok", "--uses", "60").strip()
    vms = [vm.Vm(f"herd-{number}", text, number % 4) for number in range(60)]
    for verb in ("enroll", "apply", "report"):
        requests = [who.claim(verb) for who in vms]
        with concurrent.futures.ThreadPoolExecutor(len(vms)) as pool:
            answers = list(pool.map(lambda body, verb=verb: vm.post(port, verb, body), requests))  # type: ignore[misc]
        assert [status for status, _, _ in answers] == [200] * len(vms), [body for status, body, _ in answers if status != 200]
        if verb == "apply":
            assert len({body["jid"] for _, body, _ in answers}) == len(vms)


def apply(port: int, web: vm.Vm, document: dict[str, Any], published: bool) -> str:
    status, body, _ = vm.post(port, "apply", web.sealed(document))
    assert status == 200 and body["published"] is published, body
    return str(body["jid"])


def listening(ending: contextlib.ExitStack, master: pathlib.Path) -> Any:
    import salt.config
    import salt.utils.event

    opts = salt.config.master_config(str(master / "etc" / "master"))
    until("the bus is there", (master / "run" / "master_event_pub.ipc").exists)
    return ending.enter_context(salt.utils.event.get_master_event(opts, opts["sock_dir"], listen=True))


def heard(bus: Any, act: str) -> None:
    event = bus.get_event(wait=20, tag="salt/key")
    assert event and (event["act"], event["id"], event["result"]) == (act, "web-1", True), event


def configure_master(root: pathlib.Path, ports: list[int], service: dict[str, Any] | None = None, **changes: Any) -> None:
    """With other options than this script's where they are given: ``service`` is of the service's own key, None removes one."""
    master = root / "master"
    for directory in ("etc", "srv", "var/log"):
        (master / directory).mkdir(parents=True, exist_ok=True)
    certificate(master)
    script = "word:\n  cmd.run:\n    - name: echo {{ pillar['word'] }} >> " + str(root / "runs") + "\n"
    (master / "srv" / "ok.sls").write_text(script)
    options = {
        "user": "root",
        "root_dir": str(master),
        "interface": "127.0.0.1",
        "publish_port": ports[0],
        "ret_port": ports[1],
        "pki_dir": "/pki",
        "cachedir": "/cache",
        "sock_dir": "/run",
        "log_file": "/var/log/master",
        "api_logfile": str(master / "var/log/api"),
        "pidfile": "/master.pid",
        "api_pidfile": "/api.pid",
        "log_level_logfile": "info",
        "worker_threads": 3,
        "file_roots": {"base": [str(master / "srv")]},
        "pillar_roots": {"base": [str(master / "srv")]},
        "heat_bootstrap": {
            "host": "127.0.0.1",
            "port": ports[2],
            "ssl_crt": str(master / "server.crt"),
            "ssl_key": str(master / "server.key"),
            **(service or {}),
        },
        **changes,
    }
    options = {key: value for key, value in options.items() if value is not None}
    # JSON is YAML.
    (master / "etc" / "master").write_text(json.dumps(options, indent=1))


def configure_minion(root: pathlib.Path, ports: list[int], web: vm.Vm, master_key: str) -> None:
    minion = root / "minion"
    for directory in ("etc", "pki", "var/log"):
        (minion / directory).mkdir(parents=True)
    pem = serialization.Encoding.PEM
    private = web.private.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    (minion / "pki" / "minion.pem").write_bytes(private)
    (minion / "pki" / "minion.pem").chmod(0o400)
    (minion / "pki" / "minion.pub").write_text(vm.public_pem(web.private))
    (minion / "pki" / "minion_master.pub").write_text(master_key)
    options = {
        "user": "root",
        "root_dir": str(minion),
        "id": web.id,
        "master": "127.0.0.1",
        "master_port": ports[1],
        "publish_port": ports[0],
        "pki_dir": "/pki",
        "cachedir": "/cache",
        "sock_dir": "/run",
        "log_file": "/var/log/minion",
        "pidfile": "/minion.pid",
        "cache_jobs": True,
    }
    (minion / "etc" / "minion").write_text(json.dumps(options, indent=1))


def certificate(where: pathlib.Path) -> None:
    private = vm.private_key(99)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key()).serial_number(1)
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=2))
    pem = serialization.Encoding.PEM
    (where / "server.crt").write_bytes(builder.sign(private, hashes.SHA256()).public_bytes(pem))
    form = (pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (where / "server.key").write_bytes(private.private_bytes(*form))


def result(root: pathlib.Path, jid: str) -> Any:
    import salt.payload

    try:
        return salt.payload.loads((root / "minion" / "cache" / "minion_jobs" / jid / "return.p").read_bytes()) or None
    except Exception:  # not there, or not all of it
        return None


def runs(root: pathlib.Path) -> list[str]:
    return (root / "runs").read_text().split()


def connected(port: int) -> bool:
    """Has anybody a connection to this port of ours?"""
    lines = pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[2].endswith(f":{port:04X}") and line.split()[3] == "01" for line in lines)


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def until(what: str, found: Any, seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = found()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds} s")


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(command(program) + list(arguments), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def command(program: str) -> list[str]:
    if program == "heat-bootstrap":
        return [sys.executable, "-m", "saltext.heat_bootstrap.cli"]
    return [str(BIN / program)]


@contextlib.contextmanager
def daemon(root: pathlib.Path, program: str, *arguments: str) -> Iterator[int]:
    with open(root / f"{program}.out", "wb") as out:
        process = subprocess.Popen(command(program) + list(arguments), stdout=out, stderr=out, start_new_session=True)
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            print(f"{program} did not end", file=sys.stderr)
        # The session is this program's own: whatever it has left behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def say(started: float, what: str) -> None:
    print(f"{time.monotonic() - started:5.1f} s  {what}", flush=True)


if __name__ == "__main__":
    main()
