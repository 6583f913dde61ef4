"""
What is remembered: tokens, who came in with them, nonces, jobs, reports, and the audit.

One database for one master or for several: SQL that SQLite and MariaDB both understand. No token is in it, but what
proves claims is: whoever can read it can enrol, as whoever can read the master's own key could.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from typing import Any, Callable, Iterator, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import QueuePool

from saltext.heat_bootstrap.claims import MOST_DEADLINE, MOST_SKEW, Claim, Report
from saltext.heat_bootstrap.decisions import Record
from saltext.heat_bootstrap.refusals import Unavailable
from saltext.heat_bootstrap.tokens import Token

log = logging.getLogger(__name__)

SCHEMA = 1
# How long the database may be locked by others before a VM is told to come back.
PATIENCE = 5.0
# After a server did not answer, nobody asks it for so long.
NOT_BEFORE = 1.0
# Refusals are kept to this number, so that they cannot push out what was granted.
MOST_REFUSALS = 10000
MOST_REPORTS_OF_ONE = 20
# Of the other ids that a key has, more help nobody.
MOST_NAMES = 5
# What is to be removed where a key has two ids
SPARE_NAME = "the name that is not used any more: salt-key -d ID, heat-bootstrap forget ID"
JOBS_FOR = 30 * 86400
# A job names the deadline of its bootstrap. Who has asked for none yet is taken to have the agent's own, 25 minutes, and a
# few more.
JOINED_FOR = 1800
# Longer than a claim's time is accepted, for the sake of masters whose clocks differ.
NONCES_FOR = 2 * MOST_SKEW

Result = TypeVar("Result")


def _text(length: int) -> sa.types.TypeEngine[str]:
    # MariaDB compares without looking at case unless told otherwise, and Web-1 is not web-1.
    return _on_mariadb(sa.String(length), mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"))


def _long() -> sa.types.TypeEngine[str]:
    return _on_mariadb(sa.Text(), mysql.MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"))


def _on_mariadb(usual: sa.types.TypeEngine[str], there: sa.types.TypeEngine[str]) -> sa.types.TypeEngine[str]:
    # SQLAlchemy 1.4 takes one name at a time.
    return usual.with_variant(there, "mysql").with_variant(there, "mariadb")


# SQLite numbers rows only in a column that is an INTEGER.
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

metadata = sa.MetaData()
meta = sa.Table(
    "hsb_meta",
    metadata,
    sa.Column("name", _text(32), primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
    mysql_engine="InnoDB",
)
tokens = sa.Table(
    "hsb_tokens",
    metadata,
    sa.Column("name", _text(16), primary_key=True),
    sa.Column("digest", _text(64), nullable=False),
    sa.Column("pattern", _text(255), nullable=False),
    sa.Column("states", _long(), nullable=False),
    sa.Column("uses", sa.BigInteger, nullable=False),
    sa.Column("used", sa.BigInteger, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False),
    sa.Column("rebuild", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("deregister", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("revoked", sa.Boolean(create_constraint=False), nullable=False),
    mysql_engine="InnoDB",
)
minions = sa.Table(
    "hsb_minions",
    metadata,
    sa.Column("id", _text(255), primary_key=True),
    sa.Column("finger", _text(64), nullable=False),
    sa.Column("token", _text(16), nullable=False, index=True),
    sa.Column("enrolled", sa.BigInteger, nullable=False, index=True),
    sa.Column("removed", sa.Boolean(create_constraint=False), nullable=False),
    mysql_engine="InnoDB",
)
by_finger = sa.Index("hsb_minions_finger", minions.c.finger)
# Which key each master placed last: a claim granted by one is carried out by the others without a second use.
placements = sa.Table(
    "hsb_placements",
    metadata,
    sa.Column("id", _text(255), primary_key=True),
    sa.Column("master", _text(255), primary_key=True),
    sa.Column("finger", _text(64), nullable=False),
    mysql_engine="InnoDB",
)
# When a machine last said that it lives. Only keys of machines that do so are removed when they no longer do.
leases = sa.Table(
    "hsb_leases",
    metadata,
    sa.Column("id", _text(255), primary_key=True),
    sa.Column("finger", _text(64), nullable=False),
    sa.Column("renewed", sa.BigInteger, nullable=False, index=True),
    mysql_engine="InnoDB",
)
nonces = sa.Table(
    "hsb_nonces",
    metadata,
    sa.Column("nonce", _text(64), primary_key=True),
    sa.Column("until", sa.BigInteger, nullable=False, index=True),
    mysql_engine="InnoDB",
)
jobs = sa.Table(
    "hsb_jobs",
    metadata,
    sa.Column("id", _text(255), primary_key=True),
    sa.Column("job", _text(32), primary_key=True),
    sa.Column("jid", _text(40), nullable=False, unique=True),
    sa.Column("bootstrap_id", _text(64), nullable=False),
    sa.Column("digest", _text(64), nullable=False),
    sa.Column("chosen", sa.BigInteger, nullable=False),
    # Under way until then; 0 once it was reported.
    sa.Column("until", sa.BigInteger, nullable=False, index=True),
    # Set before it is published, and taken back only where it is known that nothing was sent.
    sa.Column("published", sa.Boolean(create_constraint=False), nullable=False),
    mysql_engine="InnoDB",
)
reports = sa.Table(
    "hsb_reports",
    metadata,
    sa.Column("id", _text(255), primary_key=True),
    sa.Column("bootstrap_id", _text(64), primary_key=True),
    sa.Column("time", sa.BigInteger, nullable=False, index=True),
    sa.Column("verdict", _text(8), nullable=False),
    sa.Column("code", sa.Integer, nullable=False),
    sa.Column("reason", _text(100)),
    sa.Column("message", _long()),
    sa.Column("step", _text(100)),
    sa.Column("jid", _text(64)),
    sa.Column("seconds", sa.Float(53), nullable=False),
    sa.Column("steps", _long(), nullable=False),
    sa.Column("failures", _long(), nullable=False),
    sa.Column("digest", _text(64), nullable=False),
    mysql_engine="InnoDB",
)
audit = sa.Table(
    "hsb_audit",
    metadata,
    sa.Column("seq", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("verb", _text(16), nullable=False),
    sa.Column("granted", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("word", _text(32), nullable=False),
    sa.Column("id", _text(255)),
    sa.Column("bootstrap_id", _text(64)),
    sa.Column("token", _text(16)),
    sa.Column("peer", _text(64)),
    sa.Column("why", _text(500), nullable=False),
    sa.Index("hsb_audit_granted", "granted", "seq"),
    sa.Index("hsb_audit_id", "id", "seq"),
    mysql_engine="InnoDB",
)


class Store:
    """
    The database, opened when it is first needed and again after it was gone.

    as_is
        It is only looked at: neither file nor tables are made.
    """

    def __init__(self, url: str, workers: int = 32, *, as_is: bool = False) -> None:
        self._url = sa.engine.make_url(url)
        self._sqlite = self._url.get_backend_name() == "sqlite"
        self._engine: Engine | None = None
        self._opening = threading.Lock()
        self._workers = workers
        self._as_is = as_is
        self._not_before = 0.0
        # SQLite has one writer; threads that queue here are served at once and do not sleep and poll.
        self._writing = threading.Lock()
        self._refusals = 0
        self._nonces_swept = 0.0

    # Transactions

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection to look things up with."""
        with self._translated(), self._ready().connect() as connection:
            yield connection

    def write(self, change: Callable[[Connection], Result]) -> Result:
        """
        Does ``change`` in one transaction that is on the disk when this returns. Where somebody else changed the same rows
        meanwhile, it is done again from the start: it must have no other effects.
        """
        for attempt in range(5):
            try:
                with self._translated(), self._alone(), self._ready().connect() as connection:
                    connection = connection.execution_options(hsb_writes=True)
                    with connection.begin():
                        return change(connection)
            except _Again as error:
                if attempt == 4:
                    raise Unavailable(f"the database has conflicts again and again: {error}") from error
                time.sleep(0.01 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Ends all connections."""
        with self._opening:
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """What goes wrong in a database is one of two things: it is to be tried again, or the VM is to come back."""
        try:
            yield
        except exc.IntegrityError as error:
            raise _Again(str(error.orig)) from error
        except exc.DBAPIError as error:
            code = error.orig.args[0] if error.orig is not None and error.orig.args else None
            # MariaDB's deadlock and lock wait: what Galera says to the second of two masters, too
            if code in (1205, 1213):
                raise _Again(str(error.orig)) from error
            if self._sqlite and "locked" not in str(error.orig):
                # The file may be another one once an operator has repaired it.
                self.close()
            raise Unavailable(f"the database says: {error.orig}") from error
        except exc.SQLAlchemyError as error:
            raise Unavailable(f"the database cannot be used: {error}") from error
        except OSError as error:
            raise Unavailable(f"the database cannot be opened: {error}") from error

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._sqlite:
            yield
            return
        if not self._writing.acquire(timeout=PATIENCE):
            raise Unavailable("the database is busy with other claims")
        try:
            yield
        finally:
            self._writing.release()

    def _ready(self) -> Engine:
        engine = self._engine
        if engine is not None:
            return engine
        with self._opening:
            if self._engine is None:
                if time.monotonic() < self._not_before:
                    raise Unavailable("the database's server did not answer just now")
                try:
                    self._engine = self._opened()
                except (ImportError, TypeError, ValueError) as error:
                    # What stands behind the ? of the address is the driver's, and it says so in its own way.
                    raise Unavailable(f"the database cannot be opened: {error}") from error
                except BaseException:
                    # A server may take its time to say nothing, and everybody waits for that here.
                    self._not_before = time.monotonic() + (0 if self._sqlite else NOT_BEFORE)
                    raise
            return self._engine

    def _opened(self) -> Engine:
        options: dict[str, Any] = {
            "poolclass": QueuePool,
            "pool_size": self._workers,
            "max_overflow": 0,
            "pool_timeout": PATIENCE,
            "future": True,
            # What is wrong with a statement is said without what was in it.
            "hide_parameters": True,
        }
        if self._sqlite:
            if self._url.database and not self._as_is:
                _private(self._url.database)
            # Transactions are begun by _begin: Python's driver has its own thoughts about when.
            options["connect_args"] = {"timeout": PATIENCE, "check_same_thread": False, "isolation_level": None}
        else:
            # Each statement sees what the others have committed; whoever was overtaken is told by the count of changed rows.
            options.update({"pool_pre_ping": True, "pool_recycle": 300, "isolation_level": "READ COMMITTED"})
            if self._url.get_driver_name() == "pymysql":
                options["connect_args"] = {"connect_timeout": 5, "read_timeout": 10, "write_timeout": 10}
        engine = sa.create_engine(self._url, **options)
        if self._sqlite:
            sa.event.listen(engine, "connect", _patience if self._as_is else _settings)
            sa.event.listen(engine, "begin", _begin)
        if self._as_is:
            return engine
        try:
            with engine.connect() as connection, connection.execution_options(hsb_writes=True).begin():
                self._prepare(connection)
        except BaseException:
            engine.dispose()
            raise
        return engine

    def _prepare(self, connection: Connection) -> None:
        if not sa.inspect(connection).has_table(meta.name):
            metadata.create_all(connection)
            # Two masters may come here at once: the second one's row is refused, and it comes again.
            connection.execute(meta.insert(), [{"name": "schema", "value": SCHEMA}, {"name": "gate", "value": 0}])
        # A database of before there were these; nothing else in it is different.
        leases.create(connection, checkfirst=True)
        by_finger.create(connection, checkfirst=True)
        found = connection.execute(sa.select(meta.c.value).where(meta.c.name == "schema")).scalar()
        if found != SCHEMA:
            raise Unavailable(
                f"the database has schema {found}, this version knows {SCHEMA}; install the version that wrote it, or a newer one"
            )

    # For who only looks

    @staticmethod
    def schema(connection: Connection) -> int | None:
        """Which schema the database has; ``None`` if it has no tables yet."""
        if not sa.inspect(connection).has_table(meta.name):
            return None
        found = connection.execute(sa.select(meta.c.value).where(meta.c.name == "schema")).scalar()
        return None if found is None else int(found)

    def try_to_write(self) -> None:
        """Changes a row and takes that back."""
        with self._translated(), self._ready().connect() as connection:
            connection = connection.execution_options(hsb_writes=True)
            with connection.begin() as transaction:
                connection.execute(meta.update().where(meta.c.name == "gate").values(value=meta.c.value + 1))
                transaction.rollback()

    @staticmethod
    def created(connection: Connection) -> dict[str, str]:
        """What the audit says of the making of each token."""
        made = sa.select(audit.c.token, audit.c.why).where(audit.c.verb == "create")
        return {str(name): str(why) for name, why in connection.execute(made)}

    # Tokens

    @staticmethod
    def token(connection: Connection, name: str) -> Token | None:
        """The token of this name."""
        row = connection.execute(sa.select(tokens).where(tokens.c.name == name)).mappings().first()
        return None if row is None else _token(row)

    @staticmethod
    def tokens(connection: Connection) -> list[Token]:
        """All of them, the newest last."""
        return [_token(row) for row in connection.execute(sa.select(tokens).order_by(tokens.c.created, tokens.c.name)).mappings()]

    @staticmethod
    def add_token(connection: Connection, token: Token) -> None:
        """A new token."""
        connection.execute(tokens.insert().values(**{**token.__dict__, "states": json.dumps(token.states)}))

    @staticmethod
    def count_use(connection: Connection, name: str, now: float) -> bool:
        """
        Takes one use, if there is one left: in one statement, which the database does for one master after the other.
        """
        left = sa.and_(tokens.c.used < tokens.c.uses, tokens.c.revoked == sa.false(), tokens.c.expires >= int(now))
        changed = connection.execute(tokens.update().where(tokens.c.name == name, left).values(used=tokens.c.used + 1))
        return changed.rowcount == 1

    @staticmethod
    def revoke(connection: Connection, name: str) -> bool:
        """Makes a token worthless, if it is there."""
        return connection.execute(tokens.update().where(tokens.c.name == name).values(revoked=True)).rowcount == 1

    # Minions

    @staticmethod
    def record(connection: Connection, minion: str) -> Record | None:
        """Who was let in last under this id."""
        row = connection.execute(sa.select(minions).where(minions.c.id == minion)).mappings().first()
        return None if row is None else Record(**row)

    @staticmethod
    def other_names(connection: Connection, minion: str, finger: str, most: int | None = None) -> list[str]:
        """Under which other ids the same key was let in; of many, the first few."""
        same = (minions.c.finger == finger, minions.c.id != minion, ~minions.c.removed)
        return list(connection.execute(sa.select(minions.c.id).where(*same).order_by(minions.c.id).limit(most)).scalars())

    @staticmethod
    def with_several_names(connection: Connection) -> list[tuple[str, list[str]]]:
        """Each key that was let in under several ids, by its fingerprint, and those ids."""
        several = sa.select(minions.c.finger).where(~minions.c.removed).group_by(minions.c.finger).having(sa.func.count() > 1)
        fingers = connection.execute(several).scalars().all()
        return sorted((finger, Store.other_names(connection, "", finger)) for finger in fingers)

    @staticmethod
    def put_record(connection: Connection, before: Record | None, record: Record) -> None:
        """
        Notes who was let in. If it is no longer ``before`` who was let in last, another master was faster: all anew.
        """
        values = dict(record.__dict__)
        if before is None:
            connection.execute(minions.insert().values(**values))
            return
        same = (minions.c.id == before.id, minions.c.finger == before.finger, minions.c.removed == before.removed)
        if connection.execute(minions.update().where(*same).values(**values)).rowcount != 1:
            raise _Again("another master changed the same minion")

    @staticmethod
    def forget(connection: Connection, minion: str) -> bool:
        """What an operator says of a VM that will not come back."""
        return connection.execute(minions.delete().where(minions.c.id == minion)).rowcount == 1

    @staticmethod
    def placed(connection: Connection, minion: str, master: str) -> str | None:
        """The fingerprint of the key that this master placed last."""
        where = (placements.c.id == minion, placements.c.master == master)
        found = connection.execute(sa.select(placements.c.finger).where(*where)).scalar()
        return None if found is None else str(found)

    @staticmethod
    def put_placed(connection: Connection, minion: str, master: str, finger: str) -> None:
        """Notes that this master has placed the key."""
        where = (placements.c.id == minion, placements.c.master == master)
        if connection.execute(placements.update().where(*where).values(finger=finger)).rowcount != 1:
            connection.execute(placements.insert().values(id=minion, master=master, finger=finger))

    @staticmethod
    def forget_placed(connection: Connection, minion: str, master: str) -> None:
        """Notes that this master has removed the key: it may be placed again."""
        connection.execute(placements.delete().where(placements.c.id == minion, placements.c.master == master))

    # Leases

    @staticmethod
    def put_lease(connection: Connection, minion: str, finger: str, now: float) -> None:
        """Notes that the machine with this key lives."""
        values = {"finger": finger, "renewed": int(now)}
        # MariaDB counts rows that were changed, and a second renewal within a second changes none.
        if connection.execute(sa.select(leases.c.id).where(leases.c.id == minion)).first() is None:
            connection.execute(leases.insert().values(id=minion, **values))
        else:
            connection.execute(leases.update().where(leases.c.id == minion).values(**values))

    @staticmethod
    def lease(connection: Connection, minion: str) -> int | None:
        """When it was renewed last."""
        found = connection.execute(sa.select(leases.c.renewed).where(leases.c.id == minion)).scalar()
        return None if found is None else int(found)

    @staticmethod
    def leased(connection: Connection) -> list[tuple[Record, int]]:
        """Everybody who was let in and has a lease, with the time of its last renewal; who was silent longest comes first."""
        same = sa.and_(leases.c.id == minions.c.id, leases.c.finger == minions.c.finger)
        query = sa.select(minions, leases.c.renewed).join(leases, same).order_by(leases.c.renewed, minions.c.id)
        found = []
        for row in connection.execute(query).mappings():
            values = dict(row)
            renewed = int(values.pop("renewed"))
            found.append((Record(**values), renewed))
        return found

    # Nonces

    @staticmethod
    def is_remembered(connection: Connection, claim: Claim) -> bool:
        """Was this very claim answered before?"""
        return connection.execute(sa.select(nonces.c.nonce).where(nonces.c.nonce == claim.nonce)).first() is not None

    def remember(self, connection: Connection, claim: Claim, now: float) -> None:
        """Notes that the claim is answered, and forgets a few that are too old to be accepted."""
        connection.execute(nonces.insert().values(nonce=claim.nonce, until=claim.time + NONCES_FOR))
        if now - self._nonces_swept >= 1:
            self._nonces_swept = now
            old = connection.execute(sa.select(nonces.c.nonce).where(nonces.c.until < int(now)).limit(500)).scalars().all()
            if old:
                connection.execute(nonces.delete().where(nonces.c.nonce.in_(old)))

    @staticmethod
    def forget_nonce(connection: Connection, claim: Claim) -> None:
        """Of a claim that was not carried out after all."""
        connection.execute(nonces.delete().where(nonces.c.nonce == claim.nonce))

    # Jobs

    @staticmethod
    def job(connection: Connection, minion: str, job: str) -> sa.engine.RowMapping | None:
        """What is known of a job."""
        return connection.execute(sa.select(jobs).where(jobs.c.id == minion, jobs.c.job == job)).mappings().first()

    @staticmethod
    def add_job(connection: Connection, claim: Claim, jid: str, now: float) -> None:
        """
        A job that is going to be published; very old ones of the same minion go. If another master has just given out the
        same jid, all anew with another one.
        """
        connection.execute(jobs.delete().where(jobs.c.id == claim.id, jobs.c.chosen < int(now) - JOBS_FOR))
        connection.execute(
            jobs.insert().values(
                id=claim.id,
                job=claim.job,
                jid=jid,
                bootstrap_id=claim.bootstrap_id,
                digest=claim.job_digest(),
                chosen=int(now),
                until=int(now) + claim.deadline,
                published=True,
            )
        )

    @staticmethod
    def publish_again(connection: Connection, claim: Claim, was_published: bool, now: float) -> None:
        """
        Notes that a job is going to be published with the jid that it has. If another master was faster, all anew.
        """
        where = (jobs.c.id == claim.id, jobs.c.job == claim.job, jobs.c.published == was_published)
        if connection.execute(jobs.update().where(*where).values(published=True, until=int(now) + claim.deadline)).rowcount != 1:
            raise _Again("another master publishes the same job")

    @staticmethod
    def goes_on(connection: Connection, claim: Claim, job: sa.engine.RowMapping, now: float) -> None:
        """
        Notes that somebody is still at a job that was published before: another run of the same bootstrap has a deadline of its
        own. What was reported stays over, and nobody holds a place for longer than one bootstrap may.
        """
        until = min(int(now) + claim.deadline, job["chosen"] + MOST_DEADLINE)
        # In the statement too, since the report may have come meanwhile.
        where = (jobs.c.id == claim.id, jobs.c.job == claim.job, jobs.c.until > 0, jobs.c.until < until)
        if 0 < job["until"] < until:
            connection.execute(jobs.update().where(*where).values(until=until))

    @staticmethod
    def was_not_published(connection: Connection, claim: Claim) -> None:
        """Of a job of which it is known that nothing was sent."""
        connection.execute(jobs.update().where(jobs.c.id == claim.id, jobs.c.job == claim.job).values(published=False, until=0))

    def shuts_the_gate(self, connection: Connection) -> bool:
        """
        From here to the end of the transaction nobody else is here: else two masters might both let the last one in. Nothing
        that somebody else may have locked is asked for after this. Says whether somebody may have come in before: with SQLite
        nobody has, since who writes there is alone from the beginning.
        """
        if self._sqlite:
            return False
        connection.execute(meta.update().where(meta.c.name == "gate").values(value=meta.c.value + 1))
        return True

    @staticmethod
    def under_way(connection: Connection, minion: str, now: float) -> tuple[int, int]:
        """How many other minions are between their job and their report, and how many jobs of this one."""
        # Told apart here: for DISTINCT, the database would go through all jobs there ever were, in the order of their ids.
        open_jobs = sa.select(jobs.c.id).where(jobs.c.until > int(now), jobs.c.chosen <= _latest(now))
        found = connection.execute(open_jobs).scalars().all()
        return len({other for other in found if other != minion}), found.count(minion)

    # Reports

    @staticmethod
    def report_digest(connection: Connection, claim: Claim) -> str | None:
        """What the report was that is noted."""
        where = (reports.c.id == claim.id, reports.c.bootstrap_id == claim.bootstrap_id)
        found = connection.execute(sa.select(reports.c.digest).where(*where)).scalar()
        return None if found is None else str(found)

    @staticmethod
    def put_report(connection: Connection, claim: Claim, report: Report, now: float) -> None:
        """Notes how a bootstrap ended, and keeps the last few of each minion."""
        values = {
            "time": int(now),
            "verdict": report.verdict,
            "code": report.code,
            "reason": report.reason,
            "message": report.message,
            "step": report.step,
            "jid": report.jid,
            "seconds": report.seconds,
            "steps": json.dumps(report.steps),
            "failures": json.dumps(report.failures),
            "digest": report.digest(),
        }
        where = (reports.c.id == claim.id, reports.c.bootstrap_id == claim.bootstrap_id)
        if connection.execute(reports.update().where(*where).values(**values)).rowcount != 1:
            connection.execute(reports.insert().values(id=claim.id, bootstrap_id=claim.bootstrap_id, **values))
        of_one = sa.select(reports.c.bootstrap_id).where(reports.c.id == claim.id)
        kept = connection.execute(of_one.order_by(reports.c.time.desc(), reports.c.bootstrap_id)).scalars().all()
        if len(kept) > MOST_REPORTS_OF_ONE:
            gone = [name for name in kept if name != claim.bootstrap_id][MOST_REPORTS_OF_ONE - 1 :]
            connection.execute(reports.delete().where(reports.c.id == claim.id, reports.c.bootstrap_id.in_(gone)))
        connection.execute(jobs.update().where(jobs.c.id == claim.id, jobs.c.bootstrap_id == claim.bootstrap_id).values(until=0))

    @staticmethod
    def end_jobs(connection: Connection, minion: str) -> None:
        """Nothing of this minion is under way any more."""
        connection.execute(jobs.update().where(jobs.c.id == minion).values(until=0))

    # Audit

    def note(
        self,
        connection: Connection,
        now: float,
        verb: str,
        word: str,
        why: str,
        *,
        granted: bool = True,
        minion: str | None = None,
        bootstrap_id: str | None = None,
        token: str | None = None,
        peer: str | None = None,
    ) -> None:
        """One line; refusals beyond the last ten thousand go."""
        connection.execute(
            audit.insert().values(
                time=int(now),
                verb=verb,
                granted=granted,
                word=word,
                id=minion,
                bootstrap_id=bootstrap_id,
                token=token,
                peer=None if peer is None else peer[:64],
                why=why[:500],
            )
        )
        if granted:
            return
        # Looking for the ten-thousandth costs something, so not each time; the first time, since it may be the only one.
        if self._refusals % 256 == 0:
            refused = sa.select(audit.c.seq).where(audit.c.granted == sa.false())
            last = connection.execute(refused.order_by(audit.c.seq.desc()).limit(1).offset(MOST_REFUSALS)).scalar()
            if last is not None:
                connection.execute(audit.delete().where(audit.c.granted == sa.false(), audit.c.seq <= last))
        self._refusals += 1

    @staticmethod
    def audit_lines(connection: Connection, minion: str | None, count: int) -> list[dict[str, Any]]:
        """The last decisions, the newest last."""
        query = sa.select(audit).order_by(audit.c.seq.desc()).limit(count)
        if minion is not None:
            query = query.where(audit.c.id == minion)
        return [dict(row) for row in connection.execute(query).mappings()][::-1]

    # For people

    @staticmethod
    def fleet(connection: Connection, since: int, now: float) -> list[dict[str, Any]]:
        """
        What is newest of each minion since then: its report, or that it is under way, or that it should have reported and has
        not. Who is under way comes last, and of the others the newest.
        """
        found: dict[str, dict[str, Any]] = {}
        latest = _latest(now)
        rows = connection.execute(sa.select(reports).where(reports.c.time >= since)).mappings().all()

        def order(moment: int) -> int:
            # Of a clock that was ahead nobody knows when it was: whatever else there is of the same minion is newer.
            return moment if moment <= latest else 0

        def heard(minion: str) -> int:
            return order(found[minion]["time"]) if minion in found else -1

        for row in sorted(rows, key=lambda row: order(row["time"])):
            entry = {key: value for key, value in row.items() if key != "digest"}
            entry["steps"], entry["failures"] = json.loads(entry["steps"]), json.loads(entry["failures"])
            found.pop(entry["id"], None)
            found[entry["id"]] = entry
        # 0 is the end of those that were reported.
        open_jobs = sa.select(jobs).where(jobs.c.until > 0, jobs.c.until >= since).order_by(jobs.c.chosen)
        for row in connection.execute(open_jobs).mappings():
            is_over = row["chosen"] > latest or row["until"] <= int(now)
            if is_over and heard(row["id"]) >= order(row["chosen"]):
                # Another bootstrap of the same minion has reported since.
                continue
            found[row["id"]] = {
                "id": row["id"],
                "bootstrap_id": row["bootstrap_id"],
                "time": row["chosen"],
                "verdict": "no report" if is_over else "under way",
                "jid": row["jid"],
                "until": row["until"],
            }
        for row in connection.execute(sa.select(minions).where(minions.c.enrolled >= since, ~minions.c.removed)).mappings():
            if heard(row["id"]) >= order(row["enrolled"]):
                continue
            until = row["enrolled"] + JOINED_FOR
            found[row["id"]] = {
                "id": row["id"],
                "bootstrap_id": None,
                "time": row["enrolled"],
                "verdict": "no report" if row["enrolled"] > latest or until <= int(now) else "under way",
                "jid": None,
                "until": until,
            }
        for _, names in Store.with_several_names(connection):
            for minion in found.keys() & set(names):
                found[minion]["same_key_as"] = [name for name in names if name != minion][:MOST_NAMES]
        return sorted(found.values(), key=lambda entry: (entry["verdict"] == "under way", entry["time"]))

    @staticmethod
    def prune(connection: Connection, before: int, now: float) -> dict[str, int]:
        """
        Forgets tokens that expired before then, who came in with them, and reports, jobs and audit lines older than that. Who has
        renewed a lease since then stays, and the token with him: by that he may come back.
        """
        gone = sa.select(tokens.c.name).where(tokens.c.expires < before)
        names = connection.execute(gone).scalars().all()
        counts = {"tokens": 0, "minions": 0}
        alive = {record.id for record, renewed in Store.leased(connection) if renewed >= before}
        for name in names:
            ids = connection.execute(sa.select(minions.c.id).where(minions.c.token == name)).scalars().all()
            for minion in set(ids) - alive:
                connection.execute(leases.delete().where(leases.c.id == minion))
                counts["minions"] += connection.execute(minions.delete().where(minions.c.id == minion)).rowcount
            if not alive.intersection(ids):
                counts["tokens"] += connection.execute(tokens.delete().where(tokens.c.name == name)).rowcount
        counts["jobs"] = connection.execute(
            jobs.delete().where(jobs.c.chosen < min(before, int(now) - JOBS_FOR), jobs.c.until <= int(now))
        ).rowcount
        counts["reports"] = connection.execute(reports.delete().where(reports.c.time < before)).rowcount
        counts["audit"] = connection.execute(audit.delete().where(audit.c.time < before)).rowcount
        connection.execute(nonces.delete().where(nonces.c.until < int(now)))
        return counts


class _Again(Exception):
    """
    Somebody else changed the same rows at the same time.
    """


def _latest(now: float) -> int:
    """What has a later time than this was written while a clock was ahead; masters may differ by as much as a VM may."""
    return int(now) + MOST_SKEW


def _private(path: str) -> None:
    directory = os.path.dirname(os.path.abspath(path))
    os.makedirs(directory, mode=0o700, exist_ok=True)
    # Made by ourselves, since SQLite would give it what the umask leaves.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _patience(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(PATIENCE * 1000)}")
    cursor.close()


def _settings(connection: Any, record: Any) -> None:
    _patience(connection, record)
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    # What was granted is on the disk before the key is placed, also if the power goes.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin(connection: Connection) -> None:
    # Who is going to write says so at once: else two that have read cannot both go on.
    writes = connection.get_execution_options().get("hsb_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _token(row: sa.engine.RowMapping) -> Token:
    return Token(**{**row, "states": tuple(json.loads(row["states"]))})
