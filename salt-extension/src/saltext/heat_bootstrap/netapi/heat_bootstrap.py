"""
The enrolment service for VMs that boot with heat-salt-bootstrap, as a process of salt-api.

It is started where the master's configuration has the key ``heat_bootstrap``; the extension's README says what is in it.
"""

from __future__ import annotations

from typing import Any

from saltext.heat_bootstrap import config as _config
from saltext.heat_bootstrap import run as _run

__virtualname__ = "heat_bootstrap"
# Salt's loader sets it.
__opts__: dict[str, Any]


def __virtual__():  # type: ignore[no-untyped-def]
    if _config.KEY not in __opts__:
        return False, f"there is no {_config.KEY} in the master's configuration"
    return __virtualname__


def start() -> None:
    """
    Serves until salt-api ends.
    """
    _run.forever(__opts__)
    _run.leave()
