"""
What is known, for people: for the command and for the runner.
"""

from __future__ import annotations

import re
import statistics
import time
from dataclasses import dataclass
from typing import Any, Sequence

from saltext.heat_bootstrap import config
from saltext.heat_bootstrap.store import SPARE_NAME, Store

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def opened(opts: dict[str, Any]) -> Store:
    """The database that the master's options name."""
    return Store(config.read(opts).database, workers=2)


def tokens(store: Store, now: float) -> list[dict[str, Any]]:
    """All tokens, without what proves them."""
    with store.read() as connection:
        found = store.tokens(connection)
    return [
        {
            "name": token.name,
            "id": token.pattern,
            "states": list(token.states),
            "uses": token.uses,
            "used": token.used,
            "created": moment(token.created),
            "expires": moment(token.expires),
            "rebuild": token.rebuild,
            "deregister": token.deregister,
            "is": token.trouble(now) or "good",
        }
        for token in found
    ]


def audit(store: Store, minion: str | None, count: int) -> list[dict[str, Any]]:
    """The last decisions, the newest last."""
    with store.read() as connection:
        lines = store.audit_lines(connection, minion, max(1, min(count, 100000)))
    return [{**line, "time": moment(line["time"])} for line in lines]


def herd(store: Store, failed: bool, since: int, now: float) -> list[dict[str, Any]]:
    """How the last bootstrap of each minion ended, or whether it is under way; times are seconds since 1970."""
    with store.read() as connection:
        found = store.fleet(connection, int(now) - since, now)
    for entry in found:
        if entry["verdict"] == "no report":
            asked = f"job {entry['jid']} was published" if entry["jid"] else "it was let in, and has asked for no job"
            # Such a one is over at once: nobody knows when its time was up.
            until = f"until {moment(entry['until'])}" if entry["until"] <= int(now) else "since the clock was set back"
            entry["message"] = f"{asked}; nothing was heard {until}"
        if "same_key_as" in entry:
            entry["note"] = f"let in with the same key as {', '.join(entry['same_key_as'])}; remove {SPARE_NAME}"
    # Who was killed says nothing, and has failed nevertheless.
    return [entry for entry in found if not failed or entry["verdict"] in ("failed", "no report")]


def fleet(store: Store, failed: bool, since: int, now: float) -> list[dict[str, Any]]:
    """The same for people and for JSON: times as they read them."""
    return [{**entry, "time": moment(entry["time"])} for entry in herd(store, failed, since, now)]


@dataclass(frozen=True)
class Summary:
    """
    A herd in one line. Only those that are done say how long it takes.
    """

    done: int
    failed: int
    under_way: int
    silent: int
    median: float | None
    slowest: float | None

    @classmethod
    def of(cls, found: Sequence[dict[str, Any]]) -> Summary:
        """Of what ``herd`` or ``fleet`` has found."""
        verdicts = [entry["verdict"] for entry in found]
        took = [entry["seconds"] for entry in found if entry["verdict"] == "done"]
        return cls(
            done=verdicts.count("done"),
            failed=verdicts.count("failed"),
            under_way=verdicts.count("under way"),
            silent=verdicts.count("no report"),
            median=statistics.median(took) if took else None,
            slowest=max(took) if took else None,
        )

    def __str__(self) -> str:
        text = f"{self.done} done, {self.failed} failed, {self.under_way} under way"
        text += f", {self.silent} without a report" if self.silent else ""
        return text if self.median is None else f"{text}; median {self.median:.0f} s, slowest {self.slowest:.0f} s"


def longest(entry: dict[str, Any]) -> tuple[str, float] | None:
    """The step that took longest, if any took time."""
    name, seconds = max(entry.get("steps") or [["", 0]], key=lambda step: float(step[1]))
    return (str(name), float(seconds)) if seconds else None


def shown(text: str) -> str:
    """
    The text on one line, and with everything written out that could hide, move or colour what stands beside it: texts come
    from VMs, and terminals and browsers obey some of them.
    """
    return "".join(
        character if character.isprintable() else " " if character.isspace() else character.encode("unicode_escape").decode()
        for character in text
    )


def duration(text: str) -> int:
    """Seconds in a text such as 90m, 24h or 7d."""
    match = re.match(r"([0-9]{1,6})([smhd])\Z", text)
    if match is None or int(match.group(1)) == 0:
        raise ValueError(f"{text!r} is no time; write 30m, 24h or 7d")
    return int(match.group(1)) * _UNITS[match.group(2)]


def moment(seconds: int) -> str:
    """As people and sorters read it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
