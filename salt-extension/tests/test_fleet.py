"""
``fleet`` on a terminal, and what VMs say there.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

import pytest

from conftest import World
from saltext.heat_bootstrap import cli, page, store, views
from test_cli import run
from test_page import entry, failure, report


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, rows: int, *arguments: str) -> None:
        self.seen = b""
        self.pid, self.handle = pty.fork()
        if self.pid == 0:
            try:
                # What a shell starts in the background ignores ^C, and whatever that starts does so too.
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                os.environ["TERM"] = "xterm"
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 100, 0, 0))
                os.execv(sys.executable, [sys.executable, "-m", "saltext.heat_bootstrap.cli", *arguments])  # noqa: S606
            finally:
                os._exit(99)

    def until(self, pattern: bytes) -> bytes:
        """All that was shown since the last time, once this is there."""
        deadline = time.monotonic() + 120
        while not re.search(pattern, self.seen, re.DOTALL):
            assert time.monotonic() < deadline, self.seen
            if select.select([self.handle], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.handle, 65536)
                except OSError:
                    raise AssertionError(self.seen) from None
        seen, self.seen = self.seen, b""
        return seen

    def ended(self) -> tuple[int, bytes]:
        """Its exit code and what it said last, after ^C."""
        os.write(self.handle, b"\x03")
        last = b""
        while True:
            try:
                chunk = os.read(self.handle, 65536)
            except OSError:
                break
            if not chunk:
                break
            last += chunk
        _, status = os.waitpid(self.pid, 0)
        os.close(self.handle)
        return os.waitstatus_to_exitcode(status), last


def test_watch(configured: World) -> None:
    world = configured
    report(world, [entry(number) for number in range(50)])
    terminal = Terminal(20, "-c", str(world.root / "etc"), "fleet", "--watch", "0.2")
    first = terminal.until(rb"50 done, 0 failed, 0 under way")
    assert first.startswith(b"\x1b[2J\x1b[H")
    # As much as there is room for, and the newest.
    assert b"... and 33 older" in first and b"web-049" in first and b"web-032" not in first
    report(world, [failure(50)])
    second = terminal.until(rb"50 done, 1 failed, 0 under way")
    assert b"\x1b[2J" not in second and b"memcached_v14: memcached: not f" in second
    # A database that is away for a while ends nothing.
    world.store.write(lambda connection: connection.exec_driver_sql("ALTER TABLE hsb_reports RENAME TO away") and None)
    terminal.until(rb"heat-bootstrap: the database says: no such table")
    world.store.write(lambda connection: connection.exec_driver_sql("ALTER TABLE away RENAME TO hsb_reports") and None)
    terminal.until(rb"50 done, 1 failed, 0 under way")
    code, last = terminal.ended()
    assert code == 0 and b"Traceback" not in last and b"Interrupt" not in last


def test_watch_needs_a_terminal(configured: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(configured, "fleet", "--watch") == 1
    assert "--watch needs a terminal" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [("--watch", "0"), ("--watch", "x"), ("--watch", "nan"), ("--json", "--html", "x")])
def test_what_does_not_go_together(configured: World, wrong: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(configured, "fleet", *wrong)
    assert ended.value.code == 2


def test_a_small_terminal() -> None:
    lines = ["HEAD", *(f"line {number}" for number in range(9)), "sum"]
    assert cli._fitting(lines, 80, 24)[:-1] == lines[:-1]
    assert [line.split("  ")[0] for line in cli._fitting(lines, 80, 5)] == ["HEAD", "... and 7 older", "line 7", "line 8", "sum"]
    assert len(cli._fitting(lines, 80, 1)) == 3
    assert cli._fitting(["", "x" * 100], 20, 10)[0] == "" and len(cli._fitting(["x" * 100, ""], 20, 10)[0]) == 19
    # Letters that are twice as wide
    assert page.cut("雪" * 10, 9) == "雪雪雪雪…"


def test_nothing_that_a_vm_says_gets_at_the_terminal(configured: World, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b[2Jb\u202ec\rd\ne\x9bf"
    report(configured, [failure(0, evil, evil, evil), entry(1, message=evil, steps=[[evil, 3]])])
    assert run(configured, "fleet") == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 4 and all(character.isprintable() or character == "\n" for character in out)
    assert "a\\x1b[2Jb\\u202ec d e\\x9bf" in out


def test_what_is_shown() -> None:
    assert views.shown("grüße, שלום, 雪") == "grüße, שלום, 雪"
    assert views.shown("a\x00\x1b\u200b\u2066\ufeff") == "a\\x00\\x1b\\u200b\\u2066\\ufeff"
    assert views.shown("a\tb\nc\u00a0d") == "a b c d"


def fleet(world: World, *, failed: bool = False, since: int = 3600) -> dict[str, str]:
    """Who is shown, and as what."""
    return {entry["id"]: entry["verdict"] for entry in views.herd(world.store, failed, since, world.clock())}


def test_who_was_killed_is_not_forgotten(world: World) -> None:
    """Nobody reports for a VM that lost its power in the middle."""
    world.most_at_once = 9
    world.service = world.another()
    text = world.token(uses=9)
    installing, applying, good = (world.vm(f"web-{number}", text, number) for number in range(3))
    for who in (installing, applying, good):
        assert world.enroll(who) == "accepted"
    assert fleet(world) == dict.fromkeys(("web-0", "web-1", "web-2"), "under way")
    for who in (applying, good):
        assert world.word("apply", who.claim("apply", deadline=600)) == "200"
    assert world.word("report", good.claim("report")) == "noted"
    assert fleet(world) == {"web-0": "under way", "web-1": "under way", "web-2": "done"}
    assert fleet(world, failed=True) == {}
    world.clock.now += 601
    assert fleet(world) == {"web-0": "under way", "web-1": "no report", "web-2": "done"}
    world.clock.now += store.JOINED_FOR - 600
    assert fleet(world) == {"web-0": "no report", "web-1": "no report", "web-2": "done"}
    assert fleet(world, failed=True) == {"web-0": "no report", "web-1": "no report"}
    found = views.herd(world.store, False, 3600, world.clock())
    assert str(views.Summary.of(found)) == "1 done, 0 failed, 0 under way, 2 without a report; median 12 s, slowest 12 s"
    lines = "\n".join(cli._fleet_lines(views.fleet(world.store, False, 3600, world.clock())))
    assert "it was let in, and has asked for no job; nothing was heard until 20" in lines
    assert " was published; nothing was heard until 20" in lines
    # It was only late, or was started once more.
    assert world.word("report", applying.claim("report", verdict="failed", code=61)) == "noted"
    assert fleet(world, failed=True) == {"web-0": "no report", "web-1": "failed"}
    installing.bootstrap_id = "b-another"
    assert world.word("report", installing.claim("report")) == "noted"
    assert fleet(world) == {"web-0": "done", "web-1": "failed", "web-2": "done"}
    # Longer ago than anybody asks for.
    world.clock.now += 7200
    assert fleet(world) == {}


def test_what_came_after_it_counts(world: World) -> None:
    """A bootstrap that nobody has reported, and the next one of the same VM."""
    who = world.vm(uses=2)
    assert world.enroll(who) == "accepted"
    assert world.word("apply", who.claim("apply", deadline=60)) == "200"
    world.clock.now += 100
    assert fleet(world) == {"web-1": "no report"}
    who.bootstrap_id = "b-2"
    assert world.word("apply", who.claim("apply", deadline=60)) == "200"
    assert fleet(world) == {"web-1": "under way"}
    world.clock.now += 100
    assert fleet(world) == {"web-1": "no report"}
    assert world.word("report", who.claim("report")) == "noted"
    assert fleet(world) == {"web-1": "done"}


def test_who_goes_on_is_under_way(world: World) -> None:
    """A run that was cut off by a reboot goes on with the job that it has."""
    who = world.vm()
    assert world.enroll(who) == "accepted"
    job = who.document("apply", deadline=600)
    assert world.word("apply", who.sealed(job)) == "200"
    world.clock.now += 500
    assert world.word("apply", who.claim("apply", job=job["job"], deadline=600)) == "200"
    world.clock.now += 500
    assert fleet(world) == {"web-1": "under way"}
    world.clock.now += 101
    assert fleet(world) == {"web-1": "no report"}


def test_a_clock_that_was_years_ahead(world: World) -> None:
    """What was written down then is older than whatever came since, and nobody is under way for years."""
    world.most_at_once = 9
    world.service = world.another()
    text = world.token(uses=9, expires=2**40)
    good = world.clock.now
    world.clock.now += 10 * 365 * 86400
    herd = [world.vm(f"web-{number}", text, number) for number in range(5)]
    _, applying, reported, applied, came = herd
    for who in herd:
        assert world.enroll(who) == "accepted"
    for who in (applying, applied):
        assert world.word("apply", who.claim("apply")) == "200"
    assert world.word("report", reported.claim("report", verdict="failed", code=51)) == "noted"
    world.clock.now = good
    assert fleet(world) == {**dict.fromkeys(("web-0", "web-1", "web-3", "web-4"), "no report"), "web-2": "failed"}
    messages = [entry["message"] for entry in views.herd(world.store, True, 3600, good) if entry["verdict"] == "no report"]
    assert all(message.endswith("nothing was heard since the clock was set back") for message in messages)
    # Built anew meanwhile, and on its way to its job
    again = world.vm("web-2", rebuild=True, key=9)
    assert world.enroll(again) == "replaced"
    assert fleet(world)["web-2"] == "under way"
    for who in (again, applied, came):
        who.bootstrap_id = "b-another"
        assert world.word("report", who.claim("report")) == "noted"
    assert fleet(world) == {"web-0": "no report", "web-1": "no report", "web-2": "done", "web-3": "done", "web-4": "done"}


def test_one_key_with_two_names(configured: World, capsys: pytest.CaptureFixture[str]) -> None:
    world = configured
    text = world.token(uses=9)
    for name in ("web-old", "web-new"):
        who = world.vm(name, text)
        assert world.enroll(who) == "accepted"
        assert world.word("report", who.claim("report", message="m" * 200)) == "noted"
    other = world.vm("web-3", text, key=1)
    assert world.enroll(other) == "accepted"
    assert run(world, "fleet") == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    advice = "; remove the name that is not used any more: salt-key -d ID, heat-bootstrap forget ID"
    assert lines["web-old"].endswith("m; let in with the same key as web-new" + advice)
    assert lines["web-new"].endswith("m; let in with the same key as web-old" + advice)
    assert "same key" not in lines["web-3"]
    shown = page.page(views.herd(world.store, False, 3600, world.clock()), "x", "m", world.clock())
    assert shown.count("let in with the same key as") == 2
    assert run(world, "forget", "web-old") == 0
    assert run(world, "fleet") == 0
    assert "same key" not in capsys.readouterr().out
    # As of an image that was made of a machine with its key
    for number in range(8):
        assert world.enroll(world.vm(f"web-copy-{number}", world.token())) == "accepted"
    [new] = [entry for entry in views.herd(world.store, False, 3600, world.clock()) if entry["id"] == "web-new"]
    assert new["same_key_as"] == [f"web-copy-{number}" for number in range(5)]


def test_who_has_left_is_missed_by_nobody(world: World) -> None:
    who = world.vm(deregister=True)
    assert world.enroll(who) == "accepted"
    assert world.word("apply", who.claim("apply", deadline=60)) == "200"
    assert world.word("deregister", who.claim("deregister")) == "removed"
    world.clock.now += 2000
    assert fleet(world) == {}
