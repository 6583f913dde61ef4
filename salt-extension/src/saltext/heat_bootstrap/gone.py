"""
Removes the keys of machines that are gone. Nobody says so when a server is deleted: Nova gives it no time to. So machines that
want to be removed say now and then that they live, and who has said nothing for long and does not answer is gone. One that comes
back all the same is let in again, by its own key.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Callable, Sequence

import salt.client
import salt.exceptions
from sqlalchemy.engine import Connection

from saltext.heat_bootstrap.decisions import Record
from saltext.heat_bootstrap.keys import Keys
from saltext.heat_bootstrap.refusals import Unavailable
from saltext.heat_bootstrap.store import Store

# So many at once: what they answer comes over one bus.
PINGED_AT_ONCE = 500
# Of machines that live, so many are asked as well: if none of them answers, it is the master that cannot be heard.
WITNESSES = 20

Ping = Callable[[Sequence[str]], set[str]]


@dataclass(frozen=True)
class Silent:
    """
    Somebody whose lease has run out.
    """

    record: Record
    # Seconds since 1970
    renewed: int
    answers: bool


def silent(store: Store, keys: Keys, before: int, ping: Ping) -> list[Silent]:
    """
    Whose key is on this master, and who has renewed a lease, the last time before then; and who of them answers nevertheless.
    """
    with store.read() as connection:
        leased = store.leased(connection)
    old = [(record, renewed) for record, renewed in leased if renewed < before and _is_here(keys, record)]
    if not old:
        return []
    witnesses = [record.id for record, renewed in leased if renewed >= before and not record.removed][-WITNESSES:]
    answer = ping([record.id for record, _ in old] + witnesses)
    if witnesses and not answer.intersection(witnesses):
        raise Unavailable(
            f"nothing is removed: none of {len(witnesses)} minions answers that have renewed their lease since then "
            f"({', '.join(witnesses[:3])}), so it is the master that they do not hear"
        )
    return [Silent(record, renewed, record.id in answer) for record, renewed in old]


def remove(store: Store, keys: Keys, master: str, one: Silent, now: float, announce: Callable[[str, str], None]) -> bool:
    """
    Removes the key, unless the machine has come back meanwhile. Says whether it did.
    """
    minion = one.record.id
    with keys.lock(minion):
        if not _is_here(keys, one.record):
            return False

        def change(connection: Connection) -> bool:
            record = store.record(connection, minion)
            if record is None or record.finger != one.record.finger or store.lease(connection, minion) != one.renewed:
                return False
            if not record.removed:
                store.put_record(connection, record, replace(record, removed=True))
            store.forget_placed(connection, minion, master)
            store.end_jobs(connection, minion)
            said = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one.renewed))
            store.note(
                connection, now, "prune", "gone", f"its key is removed: silent since {said}", minion=minion, token=record.token
            )
            return True

        # Killed between here and the end, the key is still there and the lease still old: the next time removes it.
        if not store.write(change):
            return False
        keys.remove(minion)
    announce("delete", minion)
    return True


def ping_by_salt(opts: dict[str, Any]) -> Ping:
    """
    Asks minions through the master of these options.
    """

    def ping(minions: Sequence[str]) -> set[str]:
        answered: set[str] = set()
        try:
            with salt.client.LocalClient(mopts=dict(opts)) as client:
                for start in range(0, len(minions), PINGED_AT_ONCE):
                    some = list(minions[start : start + PINGED_AT_ONCE])
                    # As long as the master's own `timeout` and `gather_job_timeout` say, which fit this site.
                    found = client.cmd(some, "test.ping", tgt_type="list")
                    answered.update(minion for minion, said in found.items() if said is True)
        except (salt.exceptions.SaltException, OSError) as error:
            raise Unavailable(f"the master cannot be asked which minions answer: {error}") from error
        return answered

    return ping


def _is_here(keys: Keys, record: Record) -> bool:
    state = keys.state(record.id)
    return state.accepted and state.key is not None and state.key.finger == record.finger
