"""
The one key ``heat_bootstrap`` in the master's configuration.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

KEY = "heat_bootstrap"
# What is tried out
KINDS = ("sqlite", "mysql", "mariadb")
KNOWN = ("port", "host", "ssl_crt", "ssl_key", "ssl_chain", "database", "most_at_once")


class Wrong(Exception):
    """
    The configuration cannot be used; all that is wrong with it, at once.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Config:
    """
    What an operator has set, or what goes without saying.
    """

    ssl_crt: str
    ssl_key: str
    ssl_chain: str | None
    port: int
    # Empty for all addresses of the machine
    host: str
    database: str
    most_at_once: int
    # For locks, and for the database unless that is elsewhere
    directory: str


def read(opts: dict[str, Any]) -> Config:
    """
    The configuration in the master's options, if nothing is wrong with it.
    """
    where = opts.get("conf_file", "the master's configuration")
    if KEY not in opts:
        raise Wrong([f"there is no {KEY} in {where} and what it includes; this host's master has no enrolment service"])
    wanted = opts[KEY]
    if not isinstance(wanted, dict):
        raise Wrong([f"{KEY} in {where} is no mapping"])
    problems = [f"{KEY}.{key} in {where} is unknown; there are {', '.join(KNOWN)}" for key in wanted if key not in KNOWN]

    def text(key: str, default: str | None = None) -> str:
        value = wanted.get(key, default)
        if not isinstance(value, str) or (not value and default is None):
            empty = "has no value" if key in wanted else "is missing"
            problems.append(f"{KEY}.{key} in {where} {empty if value is None else 'is no text'}")
            return ""
        return value

    def whole(key: str, default: int, most: int) -> int:
        value = wanted.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            problems.append(f"{KEY}.{key} in {where} is no whole number from 1 to {most}")
            return default
        return value

    directory = os.path.join(opts["pki_dir"], "heat-bootstrap")
    config = Config(
        ssl_crt=text("ssl_crt"),
        ssl_key=text("ssl_key"),
        ssl_chain=text("ssl_chain") if "ssl_chain" in wanted else None,
        port=whole("port", 8010, 65535),
        host=text("host", ""),
        database=text("database", f"sqlite:///{os.path.join(directory, 'heat-bootstrap.sqlite')}"),
        most_at_once=whole("most_at_once", 100, 1_000_000),
        directory=directory,
    )
    trouble = _trouble_with(config.database)
    if trouble is not None:
        problems.append(f"{KEY}.database in {where} {trouble}")
    if problems:
        raise Wrong(problems)
    return config


def _trouble_with(database: str) -> str | None:
    """What is wrong with the address. Nothing of it is repeated: a password may be anywhere in it."""
    try:
        url = sa.engine.make_url(database)
        dialect: Any = url.get_dialect()
    except Exception:  # SQLAlchemy and the dialects have many, and some say the password
        return "is no database's address; there are mysql+pymysql://USER:PASSWORD@HOST/NAME and sqlite:////PATH"
    kind = url.get_backend_name()
    if kind not in KINDS:
        return f"is of a kind that the service does not know; there are {', '.join(KINDS)}"
    if kind == "sqlite" and not os.path.isabs(url.database or ""):
        # It would be another one in each directory, or in each process.
        return "needs the path of a file from the root on: sqlite:/// and then /var/..."
    if "@" in (url.host or ""):
        return "has an @ in its user or password that has to be written as %40 (and % as %25)"
    try:
        # SQLAlchemy 2, and 1.4
        (getattr(dialect, "import_dbapi", None) or dialect.dbapi)()
    except ImportError as error:
        return f"needs a driver that is not installed ({error}); salt-pip install pymysql brings that of mysql+pymysql://"
    return None


def unreadable(config: Config) -> list[str]:
    """
    Which of its files cannot be read by who runs this.
    """
    problems = []
    for key in ("ssl_crt", "ssl_key", "ssl_chain"):
        path = getattr(config, key)
        if path is None:
            continue
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            problems.append(f"{KEY}.{key}: {path} cannot be read: {error.strerror}")
    return problems
