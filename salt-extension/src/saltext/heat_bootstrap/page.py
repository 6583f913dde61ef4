"""
The fleet as one page, for the wall or the ticket: nothing of it comes from elsewhere, and there is no script in it.

Ids, comments and names of states come from VMs: whatever they say is shown as text. Nothing here looks at a file, a database
or a clock.
"""

from __future__ import annotations

import base64
import hashlib
import html
import time
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, Iterator, Sequence

from saltext.heat_bootstrap import views
from saltext.heat_bootstrap.claims import MOST_DEADLINE

# Of the timeline, in its own units; the browser scales it.
WIDTH = 1200.0
# Right of the bars: what it took, and the code
ROOM_FOR_TOOK = 110.0
MOST_ROOM_FOR_IDS = 260.0
# Height of a row for herds up to this size. Below a dozen units there is no room for words.
ROWS = ((30, 24.0), (80, 18.0), (400, 14.0), (2000, 5.0), (1 << 62, 2.0))
LEAST_FOR_WORDS = 14.0
# Of a bold letter, in its height
LETTER = 0.68
# Nobody took longer; who says so gets no more digits.
MOST_SECONDS = 9_999_999
# One of Salt's ids and comments may be longer than a person reads in a cell.
MOST_COMMENT = 500
TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 7 * 86400)
CLASSES = {"done": "done", "failed": "failed", "no report": "failed", "under way": "under"}
FIRST = {"failed": 0, "no report": 1, "under way": 2, "done": 3}

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f4f6f8; --ink: #1a2129; --muted: #5a6674; --line: #d6dce3; --band: #eef1f4;
  --done: #2a7d4f; --failed: #b8322a; --under: #2c66a8; --done-text: #1f6b41; --failed-text: #a3261f; --under-text: #245a96;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #11161c; --panel: #1a2129; --ink: #e4e9ef; --muted: #9aa6b4; --line: #2e3843; --band: #1a2129;
    --done: #2f8556; --failed: #c8453c; --under: #3a78bf; --done-text: #6cc795; --failed-text: #ff8f86; --under-text: #86b8f0;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px; max-width: 1500px; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 24px; font-weight: 650; }
h2 { margin: 32px 0 8px; font-size: 17px; font-weight: 650; }
p { margin: 4px 0; }
.muted { color: var(--muted); }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 20px 0 0; padding: 0; list-style: none; }
.tiles li { flex: 1 1 130px; padding: 12px 16px; background: var(--panel); border-radius: 8px;
  border-top: 4px solid var(--line); }
.tiles b { display: block; font-size: 30px; line-height: 1.2; font-weight: 650; font-variant-numeric: tabular-nums; }
.tiles .done { border-color: var(--done); }
.tiles .failed { border-color: var(--failed); }
.tiles .under { border-color: var(--under); }
.tiles .failed.some b { color: var(--failed-text); }
.chart { overflow-x: auto; }
svg { display: block; width: 100%; min-width: 760px; height: auto; font-family: inherit; }
svg text { fill: var(--muted); unicode-bidi: isolate; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .gap { fill: var(--band); }
svg a:focus-visible .bar, svg a:hover .bar { stroke: var(--ink); stroke-width: 1.5; }
svg .id { fill: var(--ink); }
svg .done .bar { fill: var(--done); }
svg .failed .bar { fill: var(--failed); }
svg .under .bar { fill: var(--under); fill-opacity: .45; stroke: var(--under); stroke-dasharray: 4 2; }
svg .failed .id, svg .failed .took { fill: var(--failed-text); font-weight: 650; }
svg .under .took { fill: var(--under-text); }
svg .step { fill: #000000; fill-opacity: .22; }
svg .name { fill: #ffffff; }
.table { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: 7px 12px 7px 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-size: 13px; font-weight: 600; color: var(--muted); white-space: nowrap; }
td { overflow: hidden; }
td p { margin: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.when, .longest { white-space: nowrap; font-variant-numeric: tabular-nums; }
.minion { font-weight: 600; overflow-wrap: anywhere; min-width: 8em; }
.what { overflow-wrap: anywhere; min-width: 16em; width: 45%; }
td.verdict { font-weight: 600; white-space: nowrap; }
tr.done td.verdict { color: var(--done-text); }
tr.failed td.verdict { color: var(--failed-text); }
tr.under td.verdict { color: var(--under-text); }
tr:target { background: var(--panel); outline: 2px solid var(--under); }
summary { cursor: pointer; color: var(--muted); }
@media print { body { max-width: none; padding: 0; } tr { break-inside: avoid; } }
"""


def page(found: Sequence[dict[str, Any]], title: str, master: str, now: float) -> str:
    """
    The whole page.

    found
        What ``views.herd`` has found
    title
        Which of the bootstraps these are
    """
    bars = sorted((Bar.of(entry, now, _longest_shown(found)) for entry in found), key=lambda bar: (bar.begin, bar.entry["id"]))
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            # Else browsers ask the server for one.
            '<link rel="icon" href="data:,">',
            f"<title>{_text(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            f"<h1>{_text(title)}</h1>",
            f'<p class="muted">Salt master <bdi>{_text(master)}</bdi>, as of {views.moment(int(now))}. All times are UTC.</p>',
            *_tiles(views.Summary.of(found)),
            "<h2>Timeline</h2>",
            *(_timeline(bars) if bars else ['<p class="none">No bootstrap has reported, and none is under way.</p>']),
            *(_table(bars) if bars else []),
            "</body>",
            "</html>",
            "",
        ]
    )


@dataclass(frozen=True)
class Bar:
    """
    One VM's bootstrap on the timeline.
    """

    entry: dict[str, Any]
    begin: float
    end: float
    # It began earlier than is shown.
    cut: bool

    @classmethod
    def of(cls, entry: dict[str, Any], now: float, longest: float) -> Bar:
        """
        A report comes at the end of a bootstrap; one without began when its job was chosen, and is taken to have gone on until
        its time was up.
        """
        if entry["verdict"] in ("under way", "no report"):
            # Another master's clock may be ahead.
            end = max(now if entry["verdict"] == "under way" else min(now, float(entry["until"])), float(entry["time"]))
            return cls(entry, max(float(entry["time"]), end - MOST_DEADLINE), end, cut=False)
        end = float(entry["time"])
        return cls(entry, end - min(entry["seconds"], longest), end, cut=entry["seconds"] > longest)

    @property
    def kind(self) -> str:
        """Its class in the style sheet."""
        return CLASSES.get(self.entry["verdict"], "under")

    @property
    def took(self) -> str:
        """What stands beside it."""
        if self.entry["verdict"] == "no report":
            return "nothing was heard"
        if "seconds" not in self.entry:
            return f"for {_whole(self.end - self.begin)} s"
        failed = f", code {self.entry['code']}" if self.entry["verdict"] == "failed" else ""
        return f"{_whole(self.entry['seconds'])} s{failed}"

    @property
    def told(self) -> str:
        """What a person reads who points at it."""
        lines = [f"{views.shown(self.entry['id'])}: {self.entry['verdict']}, {self.took}"]
        lines += [f"{views.shown(str(name))} {_whole(seconds)} s" for name, seconds in self.entry.get("steps") or []]
        return html.escape("\n".join(lines))


class Axis:
    """
    Time from left to right. Where nothing is under way for long it is folded, so that the rest has room.
    """

    def __init__(self, spans: Sequence[tuple[float, float]], left: float, width: float) -> None:
        busy = list(_joined(spans, 0))
        total = max(sum(end - begin for begin, end in busy), 1.0)
        pieces = list(_joined(busy, max(60.0, total / 8)))
        fold = min(28.0, 0.3 * width / max(len(pieces) - 1, 1))
        shown = max(sum(end - begin for begin, end in pieces), 1.0)
        self.scale = (width - fold * (len(pieces) - 1)) / shown
        self.fold = fold
        # Begin, end and the place of the begin
        self.pieces: list[tuple[float, float, float]] = []
        at = left
        for begin, end in pieces:
            self.pieces.append((begin, end, at))
            at += (end - begin) * self.scale + fold
        self._begins = [begin for begin, _, _ in self.pieces]

    def at(self, moment: float) -> float:
        """Where a moment within a piece is."""
        begin, end, left = self.pieces[max(bisect_right(self._begins, moment) - 1, 0)]
        return left + (min(max(moment, begin), end) - begin) * self.scale

    def folds(self) -> Iterator[float]:
        """Where time is folded."""
        for begin, end, left in self.pieces[:-1]:
            yield left + (end - begin) * self.scale

    def ticks(self) -> Iterator[tuple[float, str]]:
        """Places and times, so far apart that both can be read."""
        step = next((step for step in TICKS if step * self.scale >= 100), TICKS[-1])
        last, day = -1e9, ""
        for begin, end, left in self.pieces:
            # The begin of what comes after a fold says more than the next round time.
            first = -(-begin // step) * step
            moments = [begin] if first > end or left > self.pieces[0][2] else []
            moments += [first + number * step for number in range(int(max(end - first, -1) // step) + 1)]
            for moment in moments:
                at = self.at(moment)
                if at - last < 100:
                    continue
                words = time.gmtime(moment)
                clock = time.strftime("%H:%M" if int(moment) % 60 == 0 and step >= 60 else "%H:%M:%S", words)
                today = time.strftime("%Y-%m-%d", words)
                yield at, clock if today == day else f"{today[5:] if day else today} {clock}"
                last, day = at, today


def _joined(spans: Sequence[tuple[float, float]], gap: float) -> Iterator[tuple[float, float]]:
    """Spans that overlap, or have no more than ``gap`` between them, are one."""
    current: tuple[float, float] | None = None
    for begin, end in sorted(spans):
        if current is not None and begin - current[1] <= gap:
            current = (current[0], max(current[1], end))
            continue
        if current is not None:
            yield current
        current = (begin, end)
    if current is not None:
        yield current


def _longest_shown(found: Sequence[dict[str, Any]]) -> float:
    """One that took a day, or says so, is cut: the others would be dots beside it."""
    took = sorted(entry["seconds"] for entry in found if "seconds" in entry)
    usual = took[len(took) // 2] if took else 0.0
    return float(min(max(10 * usual, 3600.0), MOST_DEADLINE))


def _tiles(summary: views.Summary) -> list[str]:
    def tile(kind: str, number: str, what: str) -> str:
        return f'<li class="{kind}"><b>{number}</b>{what}</li>'

    def seconds(value: float | None) -> str:
        return "–" if value is None else f"{_whole(value)} s"  # noqa: RUF001 - a dash that is seen from afar

    return [
        '<ul class="tiles">',
        tile("done", str(summary.done), "done"),
        tile("failed some" if summary.failed else "failed", str(summary.failed), "failed"),
        *([tile("failed some", str(summary.silent), "without a report")] if summary.silent else []),
        tile("under", str(summary.under_way), "under way"),
        tile("took", seconds(summary.median), "median"),
        tile("took", seconds(summary.slowest), "slowest"),
        "</ul>",
    ]


def _timeline(bars: Sequence[Bar]) -> Iterator[str]:
    row = next(height for most, height in ROWS if len(bars) <= most)
    words = row >= LEAST_FOR_WORDS
    size = min(13.0, row - 3) if words else 12.0
    most = int(MOST_ROOM_FOR_IDS / (LETTER * size))
    names = [cut(views.shown(bar.entry["id"]), most) for bar in bars]
    left = max(_columns(name) for name in names) * LETTER * size + 14 if words else 4.0
    axis = Axis([(bar.begin, bar.end) for bar in bars], left, WIDTH - left - (ROOM_FOR_TOOK if words else 4.0))
    top, bottom = 26.0, 26.0 if len(bars) > 30 else 4.0
    height = top + row * len(bars) + bottom
    yield '<div class="chart">'
    what = f"Timeline of {len(bars)} bootstrap{'s' if len(bars) != 1 else ''}"
    yield f'<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" aria-label="{what}">'
    if axis.fold >= 6:
        for at in axis.folds():
            yield f'<rect class="gap" x="{at:.1f}" y="{top}" width="{axis.fold:.1f}" height="{row * len(bars):.1f}"/>'
    for at, clock in axis.ticks():
        yield f'<line class="grid" x1="{at:.1f}" y1="{top - 4}" x2="{at:.1f}" y2="{top + row * len(bars):.1f}"/>'
        for y in (top - 9, height - 9)[: 2 if bottom > 4 else 1]:
            yield f'<text class="clock" x="{at:.1f}" y="{y:.1f}" font-size="12">{clock}</text>'
    for number, (bar, name) in enumerate(zip(bars, names)):
        yield from _row(bar, name if words else None, number, top + number * row, row, size, left, axis)
    yield "</svg>"
    yield "</div>"
    if axis.fold >= 6 and len(axis.pieces) > 1:
        yield '<p class="muted">Time is folded at the grey bands: nothing was under way there.</p>'


def _row(bar: Bar, name: str | None, number: int, top: float, row: float, size: float, left: float, axis: Axis) -> Iterator[str]:
    begin, end = axis.at(bar.begin), axis.at(bar.end)
    thick = row - (0.6 if name is None else 2 if row < 18 else 4)
    y, width = top + (row - thick) / 2, max(end - begin, 3.0)
    line = top + row / 2 + size * 0.35
    yield f'<a href="#vm-{number}" class="{bar.kind}"><title>{bar.told}</title>'
    if name is not None:
        place = f'x="{left - 8:.1f}" y="{line:.1f}" font-size="{size:.1f}" text-anchor="end"'
        yield f'<text class="id" {place}>{html.escape(name)}</text>'
    round_ = min(3.0, thick / 4)
    yield f'<rect class="bar" x="{begin:.1f}" y="{y:.1f}" width="{width:.1f}" height="{thick:.1f}" rx="{round_:.1f}"/>'
    if name is not None and not bar.cut:
        yield from _steps(bar, begin, width, y, thick, size, axis)
    if name is not None:
        took = ("earlier, " if bar.cut else "") + bar.took
        yield f'<text class="took" x="{begin + width + 6:.1f}" y="{line:.1f}" font-size="{size:.1f}">{took}</text>'
    yield "</a>"


def _steps(bar: Bar, begin: float, width: float, y: float, thick: float, size: float, axis: Axis) -> Iterator[str]:
    """One after the other, every second one darker; what is too short to be seen is part of the one before."""
    parts: list[tuple[str, float, float]] = []
    at = 0.0
    for name, seconds in bar.entry.get("steps") or []:
        wide = min(float(seconds) * axis.scale, width - at)
        if wide < 4 and parts:
            parts[-1] = (parts[-1][0], parts[-1][1], parts[-1][2] + wide)
        elif wide > 0:
            parts.append((views.shown(str(name)), at, wide))
        at += wide
    for number, (name, offset, wide) in enumerate(parts):
        x = begin + offset
        if number % 2:
            yield f'<rect class="step" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{thick:.1f}"/>'
        if _columns(name) * LETTER * (size - 1) + 8 <= wide:
            line = y + thick / 2 + size * 0.33
            yield f'<text class="name" x="{x + 4:.1f}" y="{line:.1f}" font-size="{size - 1:.1f}">{html.escape(name)}</text>'


def _table(bars: Sequence[Bar]) -> Iterator[str]:
    yield "<h2>Each of them</h2>"
    yield '<div class="table"><table>'
    heads = ("ID", "When", "Verdict", "Code", "Failing state", "Seconds", "Longest step")
    kinds = ("minion", "when", "verdict", "number", "what", "number", "longest")
    cells = "".join(f'<th class="{kind}" scope="col">{head}</th>' for head, kind in zip(heads, kinds))
    yield f"<thead><tr>{cells}</tr></thead>"
    yield "<tbody>"
    for number, bar in sorted(enumerate(bars), key=lambda found: (FIRST.get(found[1].entry["verdict"], 2), found[0])):
        entry, longest = bar.entry, views.longest(bar.entry)
        contents = (
            f"<bdi>{_text(entry['id'])}</bdi>",
            views.moment(entry["time"]),
            html.escape(entry["verdict"]),
            str(entry.get("code", "")),
            _what(entry) + _note(entry),
            _whole(entry["seconds"]) if "seconds" in entry else "",
            f"<bdi>{_text(longest[0])}</bdi> {_whole(longest[1])}" if longest else "",
        )
        cells = "".join(f'<td class="{kind}">{content}</td>' for kind, content in zip(kinds, contents))
        yield f'<tr id="vm-{number}" class="{bar.kind}">{cells}</tr>'
    yield "</tbody></table></div>"


def _what(entry: dict[str, Any]) -> str:
    """The failing states, or else why it failed."""
    if entry["verdict"] not in ("failed", "no report"):
        return ""
    failures = [_failure(failure) for failure in entry.get("failures") or []]
    if failures:
        more = (
            f"<details><summary>and {len(failures) - 1} more</summary>{''.join(failures[1:])}</details>" if failures[1:] else ""
        )
        return failures[0] + more
    step = f"<bdi>{_text(entry['step'])}</bdi>: " if entry.get("step") else ""
    why = entry.get("message") or entry.get("reason") or ""
    return f'<p class="muted">{step}<bdi>{_text(cut(why, MOST_COMMENT))}</bdi></p>' if step or why else ""


def _note(entry: dict[str, Any]) -> str:
    return f'<p class="muted"><bdi>{_text(cut(entry["note"], MOST_COMMENT))}</bdi></p>' if "note" in entry else ""


def _failure(failure: dict[str, str]) -> str:
    comment = _text(cut(failure["comment"], MOST_COMMENT))
    where = f"<bdi>{_text(failure['sls'])}</bdi>: <bdi>{_text(failure['id'])}</bdi>"
    return f'<p>{where}</p><p class="muted"><bdi>{comment}</bdi></p>'


def _whole(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds <= MOST_SECONDS else f"over {MOST_SECONDS}"


def _text(text: str) -> str:
    return html.escape(views.shown(text))


def cut(text: str, most: int) -> str:
    """At most so many columns of it."""
    if _columns(text) <= most:
        return text
    kept, columns = "", 1
    for character in text:
        columns += _columns(character)
        if columns > most:
            break
        kept += character
    return kept + "…"


def _columns(text: str) -> int:
    """How wide it is, in letters."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
