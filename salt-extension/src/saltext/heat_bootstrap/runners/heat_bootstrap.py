"""
What the enrolment service knows, for ``salt-run``::

    salt-run heat_bootstrap.tokens
    salt-run heat_bootstrap.audit web-1
    salt-run heat_bootstrap.fleet failed=True

Only what may be seen by everybody who can read the master's job cache and event bus, since that is where a runner's returns
go. Tokens are made with the command ``heat-bootstrap``.
"""

from __future__ import annotations

import time as _time
from typing import Any

from saltext.heat_bootstrap import config as _config
from saltext.heat_bootstrap import views as _views

__virtualname__ = "heat_bootstrap"
# Salt's loader sets it.
__opts__: dict[str, Any]


def __virtual__():  # type: ignore[no-untyped-def]
    if _config.KEY not in __opts__:
        return False, f"there is no {_config.KEY} in the master's configuration"
    return __virtualname__


def tokens() -> list[dict[str, Any]]:
    """
    All tokens, without what proves them.
    """
    return _views.tokens(_views.opened(__opts__), _time.time())


def audit(id: str | None = None, count: int = 20) -> list[dict[str, Any]]:  # pylint: disable=redefined-builtin
    """
    The last decisions, the newest last.

    id
        Only those about this minion
    count
        How many
    """
    return _views.audit(_views.opened(__opts__), None if id is None else str(id), int(count))


def fleet(failed: bool = False, since: str = "24h") -> list[dict[str, Any]]:
    """
    How the last bootstrap of each minion ended, and which are under way.

    failed
        Only those that failed
    since
        How far to look back: 90m, 2h, 3d
    """
    return _views.fleet(_views.opened(__opts__), bool(failed), _views.duration(str(since)), _time.time())
