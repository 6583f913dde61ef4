"""
What is known, for people: for the command and for the runner.
"""

from __future__ import annotations

import re
import time
from typing import Any

from saltext.heat_bootstrap import config
from saltext.heat_bootstrap.store import Store

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


def fleet(store: Store, failed: bool, since: int, now: float) -> list[dict[str, Any]]:
    """How the last bootstrap of each minion ended, and which are under way."""
    with store.read() as connection:
        found = store.fleet(connection, int(now) - since, now)
    return [{**entry, "time": moment(entry["time"])} for entry in found if not failed or entry["verdict"] == "failed"]


def duration(text: str) -> int:
    """Seconds in a text such as 90m, 24h or 7d."""
    match = re.match(r"([0-9]{1,6})([smhd])\Z", text)
    if match is None or int(match.group(1)) == 0:
        raise ValueError(f"{text!r} is no time; write 30m, 24h or 7d")
    return int(match.group(1)) * _UNITS[match.group(2)]


def moment(seconds: int) -> str:
    """As people and sorters read it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
