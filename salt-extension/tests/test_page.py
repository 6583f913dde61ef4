"""
The page of ``fleet --html``: parsed, and looked at by a browser.
"""

from __future__ import annotations

import html.parser
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time
from typing import Any

import pytest

from conftest import World
from saltext.heat_bootstrap import cli, page, store, views
from test_cli import run

pytestmark = pytest.mark.without_salt

NOW = 1_800_000_000
CHROMIUM = next((found for found in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if found), None)
HOSTILE = [
    "<script>document.title='owned'</script>",
    "\"><img src=x onerror=document.title='owned'>",
    "' onmouseover='x",
    "</title></style></svg><h1>owned</h1>",
    "a&lt;b&amp;c",
    "evil\u202etxt.exe",
    "red\x1b[31m\x07\u2066\u200b",
    "two\nlines\u2028three",
    "שלום" + "x" * 200,
    "\U0001f4a5" * 100,
    "javascript:alert(1)",
    "\ufeff]]><!--",
]


def entry(number: int = 0, **changes: Any) -> dict[str, Any]:
    """As the database has it."""
    found = {
        "id": f"web-{number:03}",
        "bootstrap_id": f"b-{number}",
        "time": NOW - 600 + number,
        "verdict": "done",
        "code": 0,
        "reason": None,
        "message": "all is well",
        "step": None,
        "jid": None,
        "seconds": 40.0 + number % 17,
        "steps": [["install", 22.0 + number % 7], ["keys", 0.4], ["enroll", 0.3], ["connect", 5.5], ["states", 9.0]],
        "failures": [],
    }
    return {**found, **changes}


def failure(number: int = 0, sls: str = "memcached_v14", name: str = "memcached", comment: str = "not found") -> dict[str, Any]:
    failures = [{"id": name, "sls": sls, "comment": comment}]
    return entry(number, verdict="failed", code=51, step="states", failures=failures)


def under_way(number: int = 0) -> dict[str, Any]:
    return {"id": f"web-{number:03}", "bootstrap_id": "b", "time": NOW - 30, "verdict": "under way", "jid": "1", "until": NOW + 9}


def silent(number: int = 0) -> dict[str, Any]:
    return {**under_way(number), "time": NOW - 900, "verdict": "no report", "until": NOW - 300, "message": "nothing was heard"}


def herd(count: int) -> list[dict[str, Any]]:
    """A few failed, a few under way."""
    return [failure(n) if n % 23 == 5 else under_way(n) if n % 41 == 7 else entry(n) for n in range(count)]


def test_one_without_a_report_is_seen() -> None:
    text = made([entry(0), silent(1), under_way(2)])
    assert '<li class="failed some"><b>1</b>without a report</li>' in text
    assert re.search(r'<tr id="vm-\d" class="failed">.*no report.*nothing was heard', text)
    assert text.index('<td class="verdict">no report') < text.index('<td class="verdict">under way')
    bar = page.Bar.of(silent(1), NOW, 3600)
    assert (bar.begin, bar.end, bar.took) == (NOW - 900, NOW - 300, "nothing was heard")
    # There is none of that where all have reported.
    assert "without a report" not in made([entry(0), failure(1), under_way(2)])


def hostile() -> list[dict[str, Any]]:
    found = []
    for number, text in enumerate(HOSTILE):
        failures = [{"id": text, "sls": text, "comment": text}] * 3
        steps = [[text, 30.0], ["keys", 1e11]]
        found.append(entry(number, id=text, verdict="failed", code=51, failures=failures, steps=steps, step=text, message=text))
    found.append(entry(50, id=HOSTILE[0], verdict="failed", code=33, message=HOSTILE[1], reason=HOSTILE[0], step=HOSTILE[0]))
    found.append(entry(51, seconds=9e11))
    found.append(entry(52, seconds=0, steps=[]))
    return found


def made(found: list[dict[str, Any]]) -> str:
    return page.page(found, "Bootstraps", "salt_master", NOW)


class Reader(html.parser.HTMLParser):
    """What a browser would make of it, if all is closed that was opened."""

    EMPTY = ("meta", "link", "rect", "line")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in self.EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        assert tag in self.EMPTY
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        # Browsers write them, too.
        if tag in self.EMPTY:
            return
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def of(self, tag: str, kind: str | None = None) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag and kind in (None, attrs.get("class"))]


def harmless(text: str) -> Reader:
    """Nothing in it runs, and nothing is fetched."""
    reader = Reader(text)
    for tag, attrs in reader.tags:
        assert tag not in ("script", "img", "iframe", "object", "embed", "base", "form", "use", "image", "foreignobject")
        assert not [name for name in attrs if name.startswith("on") or name in ("style", "src", "srcset", "xlink:href")]
        assert attrs.get("href", "#").startswith("#") or attrs["href"] == "data:,"
    assert not re.search(r"https?:|@import|url\(", text)
    assert all(character.isprintable() or character == "\n" for character in text)
    return reader


def test_none() -> None:
    reader = harmless(made([]))
    assert "No bootstrap has reported, and none is under way." in reader.texts
    assert not reader.of("svg") and not reader.of("table")
    assert reader.texts.count("–") == 2  # noqa: RUF001 - as the page has it


def test_one() -> None:
    reader = harmless(made([failure()]))
    [bar] = reader.of("rect", "bar")
    assert float(bar["width"]) > 500
    for text in ("web-000", "memcached_v14", "memcached", "not found", "40 s, code 51", "failed", "51", "install"):
        assert text in reader.texts, text
    # Every second one of the five steps is darker.
    assert len(reader.of("rect", "step")) == 2


def test_all_at_the_same_moment() -> None:
    harmless(made([entry(number, time=NOW, seconds=0) for number in range(3)]))


@pytest.mark.parametrize("count", [31, 200, 500, 2500])
def test_many(count: int) -> None:
    found = herd(count)
    reader = harmless(made(found))
    bars = reader.of("rect", "bar")
    assert len(bars) == count == len(reader.of("tr")) - 1
    tops = [(float(bar["y"]), float(bar["y"]) + float(bar["height"])) for bar in bars]
    assert all(before[1] <= after[0] + 0.01 for before, after in zip(tops, tops[1:]))
    links = [attrs["href"][1:] for attrs in reader.of("a")]
    rows = [attrs["id"] for attrs in reader.of("tr") if "id" in attrs]
    assert sorted(links) == sorted(rows) and len(set(rows)) == count
    # The failed ones come first.
    kinds = [attrs["class"] for attrs in reader.of("tr") if "id" in attrs]
    assert kinds == sorted(kinds, key=["failed", "under", "done"].index)
    # Up to some hundreds each has its name beside it, in letters that can be read.
    names = reader.of("text", "id")
    assert len(names) == (count if count <= 400 else 0)
    assert all(float(name["font-size"]) >= 11 for name in names)


def test_bars_are_where_they_should_be() -> None:
    first, second = entry(0, time=NOW - 60, seconds=60), entry(1, time=NOW, seconds=60)
    bars = harmless(made([second, first])).of("rect", "bar")
    left = [float(bar["x"]) for bar in bars]
    wide = [float(bar["width"]) for bar in bars]
    assert wide[0] == pytest.approx(wide[1], abs=0.2)
    assert left[0] + wide[0] == pytest.approx(left[1], abs=0.2)
    [bar] = harmless(made([under_way()])).of("rect", "bar")
    assert float(bar["width"]) > 500


def test_a_long_night_between_two_herds_is_folded() -> None:
    early = [entry(number, time=NOW - 80000 + number) for number in range(10)]
    late = [entry(number + 10) for number in range(10)]
    reader = harmless(made(early + late))
    assert len(reader.of("rect", "gap")) == 1
    assert min(float(bar["width"]) for bar in reader.of("rect", "bar")) > 150
    clocks = [text for text in reader.texts if re.search(r"\d\d:\d\d", text) and "UTC" not in text]
    assert len({clock.split()[0] for clock in clocks if "-" in clock}) >= 2


def test_one_that_says_it_took_a_century_hides_nobody() -> None:
    reader = harmless(made([*(entry(number) for number in range(20)), entry(20, seconds=9e11)]))
    assert min(float(bar["width"]) for bar in reader.of("rect", "bar")) > 8
    assert any(text.startswith("earlier, ") for text in reader.texts)


def test_hostile_texts_are_texts() -> None:
    text = made(hostile())
    reader = harmless(text)
    assert len(reader.of("h1")) == 1 and len(reader.of("rect", "bar")) == len(hostile())
    for content in HOSTILE:
        assert reader.texts.count(views.shown(content)) >= 2, content
    assert "evil\\u202etxt.exe" in reader.texts and "two lines three" in reader.texts


def report(world: World, found: list[dict[str, Any]]) -> None:
    """Straight into the database: what it has is what the page has to bear."""
    now = int(time.time())
    rows = []
    for each in found:
        moved = {**each, "time": now - NOW + each["time"], "digest": ""}
        rows.append({**moved, "steps": json.dumps(moved["steps"]), "failures": json.dumps(moved["failures"])})
    world.store.write(lambda connection: connection.execute(store.reports.insert(), rows) and None)


def test_the_file(configured: World, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    world, path = configured, tmp_path / "wall" / "fleet.html"
    path.parent.mkdir()
    report(world, [entry(0), failure(1)])
    before = os.umask(0o027)
    try:
        assert run(world, "fleet", "--html", str(path)) == 0
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
    assert len(harmless(path.read_text()).of("rect", "bar")) == 2
    assert run(world, "fleet", "--failed", "--html", str(path)) == 0
    assert path.stat().st_mode & 0o777 == 0o644 & ~before
    content = path.read_text()
    assert len(harmless(content).of("rect", "bar")) == 1 and "<title>Failed bootstraps since " in content
    # A link stays one, and what it leads to is the page.
    link = tmp_path / "link.html"
    link.symlink_to(path)
    assert run(world, "fleet", "--html", str(link)) == 0
    assert link.is_symlink() and len(harmless(path.read_text()).of("rect", "bar")) == 2
    assert [each.name for each in path.parent.iterdir()] == ["fleet.html"]
    capsys.readouterr()
    assert run(world, "fleet", "--html", "-") == 0
    assert len(harmless(capsys.readouterr().out).of("rect", "bar")) == 2


def test_a_file_that_cannot_be_written(
    configured: World, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "page.html"
    path.write_text("the old one")
    for wrong in (tmp_path / "nowhere" / "page.html", pathlib.Path("/dev/null"), tmp_path):
        assert run(configured, "fleet", "--html", str(wrong)) == 1
        said = capsys.readouterr().err
        # And nothing of the new file beside it, whose name nobody has asked for
        assert str(wrong) in said and "/." not in said

    def fails(*_: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(cli.os, "replace", fails)
    before = sorted(tmp_path.iterdir())
    assert run(configured, "fleet", "--html", str(path)) == 1
    assert f"{path}: root may not write there; - is standard output: --html - >FILE" in capsys.readouterr().err
    assert path.read_text() == "the old one" and sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", ["none", "one", "herd", "hostile"])
def test_a_browser(tmp_path: pathlib.Path, kind: str) -> None:
    if CHROMIUM is None:
        pytest.skip("there is no chromium in PATH, so nobody has looked at the page")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # What is fetched from here would be noticed.
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        evil = f'<img src="{address}"><link rel="stylesheet" href="{address}"><style>@import "{address}"</style>'
        worse = [*hostile(), entry(60, id=evil), failure(61, evil, evil, evil)]
        found = {"none": [], "one": [failure()], "herd": herd(200), "hostile": worse}[kind]
        path, image = tmp_path / "page.html", tmp_path / "page.png"
        path.write_text(made(found))
        dumped = chromium(tmp_path / "first", "--dump-dom", path.as_uri())
        chromium(tmp_path / "second", f"--screenshot={image}", path.as_uri())
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert "CONSOLE" not in dumped.stderr, dumped.stderr
    reader = Reader(dumped.stdout)
    assert len(reader.of("rect", "bar")) == len(found)
    assert not reader.of("script") and not reader.of("img") and len(reader.of("h1")) == 1
    assert reader.texts.count("Bootstraps") == 2
    if kind == "hostile":
        for content in [*HOSTILE, evil]:
            assert reader.texts.count(views.shown(content)) >= 2, content
    assert image.read_bytes().startswith(b"\x89PNG") and image.stat().st_size > 5000


def chromium(profile: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Looks at something, with nothing of its own to do."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--hide-scrollbars", "--window-size=1400,1000"]
    flags += [f"--user-data-dir={profile}", "--enable-logging=stderr"]
    done = subprocess.run([str(CHROMIUM), *flags, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done
