"""
The real service takes each step that the model of the protocol has (``tests/model.rs`` of the agent, which writes
``schedules.json``): every document in every state, killed before it writes, after it has written, after it has carried out
what it wrote, or not at all. After each step it holds what the model holds.
"""

from __future__ import annotations

import json
import pathlib
import sqlite3
from typing import Any

import pytest

from conftest import World, pem
from saltext.heat_bootstrap.claims import Key
from saltext.heat_bootstrap.keys import Keys
from saltext.heat_bootstrap.service import Service

MODEL: dict[str, Any] = json.loads((pathlib.Path(__file__).parent / "schedules.json").read_text())


class Killed(BaseException):
    """As SIGKILL: nothing of ours catches it."""


class Walk:
    """Two VMs of its own, with a token of their own, at a service that serves other walks as well."""

    def __init__(self, world: World, database: sqlite3.Connection, number: int, same_id: bool, uses: int) -> None:
        self.world = world
        self.database = database
        ids = (f"web-{number}", f"web-{number}" if same_id else f"web-{number}-other")
        token = world.token(uses=uses)
        self.token = token.split(".")[1]
        self.vms = [world.vm(minion, token, key) for key, minion in enumerate(ids)]
        self.job = f"{number:032x}"
        self.nonces = [f"{number:016x}{document:016x}" for document in range(len(MODEL["documents"]))]
        self.documents = [self._document(nonce, **one) for nonce, one in zip(self.nonces, MODEL["documents"])]

    def _document(self, nonce: str, machine: int, verb: str, again: bool | None = None) -> bytes:
        others = {} if again is None else {"again": again, "job": self.job}
        return self.vms[machine].claim(verb, nonce=nonce, **others)

    def take(self, step: str) -> str | None:
        """Asks, and says how that was answered, if it was."""
        number, fate = int(step[:-1]), step[-1]
        one = MODEL["documents"][number]
        with pytest.MonkeyPatch.context() as patch:
            self._kill(patch, fate, one["verb"])
            try:
                answer = self.world.ask(one["verb"], self.documents[number])
            except Killed:
                answer = None
        if fate != "a":
            # What had nothing to carry out has been answered; nobody has heard it.
            self._restart()
            return None
        assert answer is not None
        if answer.status != 200:
            return f"{answer.status} {answer.body['error']}"
        if one["verb"] == "enroll":
            return str(self.vms[one["machine"]].opened(answer.body)["status"])
        if one["verb"] == "apply":
            return "published" if answer.body["published"] else "known"
        return str(answer.body["status"])

    def _kill(self, patch: pytest.MonkeyPatch, fate: str, verb: str) -> None:
        store, publisher = self.world.store, self.world.publisher
        write, publish = store.write, publisher.publish
        writes = 0

        def killed_at_write(change: Any) -> Any:
            nonlocal writes
            writes += 1
            if fate == "c" and writes == 2:
                raise Killed

            def killed_in_it(connection: Any) -> Any:
                change(connection)
                raise Killed

            result = write(killed_in_it if fate == "n" else change)
            if fate == "w":
                raise Killed
            return result

        def killed_after_it(*arguments: Any) -> None:
            publish(*arguments)
            raise Killed

        if fate != "a":
            patch.setattr(store, "write", killed_at_write)
        if fate == "c" and verb == "apply":
            patch.setattr(publisher, "publish", killed_after_it)

    def _restart(self) -> None:
        """Nothing is left in memory but connections to the database; ``test_crashes`` makes those anew as well."""
        world = self.world
        world.keys = Keys(world.opts, str(world.file.parent))
        world.service = Service(world.store, world.keys, world.publisher, "the_master", world.most_at_once, world.clock)

    def held(self) -> dict[str, Any]:
        """What the service and the master hold, as the model says it."""
        ids = [who.id for who in self.vms]
        fingers = {Key.read(pem(who)).finger: machine for machine, who in enumerate(self.vms)}
        keys = {pem(who): machine for machine, who in enumerate(self.vms)}
        bootstraps = {who.bootstrap_id: machine for machine, who in enumerate(self.vms)}

        def asked(query: str, *values: str) -> list[Any]:
            return [row[0] for row in self.database.execute(query, values)]

        def of_each(query: str) -> list[int | None]:
            return [fingers[found[0]] if (found := asked(query, minion)) else None for minion in ids]

        jids = asked("SELECT jid FROM hsb_jobs WHERE job = ? ORDER BY jid", self.job)
        remembered = asked("SELECT nonce FROM hsb_nonces WHERE nonce LIKE ?", self.nonces[0][:16] + "%")
        accepted = [self.world.accepted(minion) for minion in ids]
        lines = asked("SELECT bootstrap_id FROM hsb_audit WHERE token = ? AND word = 'accepted'", self.token)
        reports = [asked("SELECT count(*) FROM hsb_reports WHERE bootstrap_id = ?", bootstrap)[0] for bootstrap in bootstraps]
        return {
            "uses_left": asked("SELECT uses - used FROM hsb_tokens WHERE name = ?", self.token)[0],
            "record": of_each("SELECT finger FROM hsb_minions WHERE id = ? AND NOT removed"),
            "placed": of_each("SELECT finger FROM hsb_placements WHERE id = ?"),
            "accepted": [None if key is None else keys[key] for key in accepted],
            "audit": sorted({bootstraps[bootstrap] for bootstrap in lines}),
            "jobs": len(jids),
            "published": [(minion, jids.index(jid)) for minion, _, jid, _ in self.world.publisher.published if minion in ids],
            "reports": [True if count else None for count in reports],
            "remembered": sorted(self.nonces.index(nonce) for nonce in remembered),
        }

    def expected(self, state: dict[str, Any]) -> dict[str, Any]:
        """A state of the model, in the words of ``held``."""
        first, second = (who.id for who in self.vms)
        # With one id both machines see what is held under it.
        of_ids = {name: [state[name][0]] * 2 if first == second else state[name] for name in ("record", "placed", "accepted")}
        return {
            **{name: state[name] for name in ("uses_left", "audit", "reports", "remembered")},
            **of_ids,
            "jobs": len(state["jobs"]),
            "published": [(self.vms[machine].id, jid) for machine, jid in state["published"]],
        }


def scenes() -> list[Any]:
    return [
        pytest.param(
            scene, id="one-id" if scene["same_id"] else "two-ids", marks=() if scene["same_id"] else pytest.mark.without_salt
        )
        for scene in MODEL["scenes"]
    ]


@pytest.mark.parametrize("scene", scenes())
def test_the_real_service_takes_each_step(world: World, scene: dict[str, Any]) -> None:
    # Of other walks some are for ever under way.
    world.most_at_once = 10**6
    world.service = world.another()
    world.token()
    database = sqlite3.connect(world.file)
    taken = set()
    for number, walk in enumerate(scene["walks"]):
        world.publisher.published.clear()
        real, at, way = Walk(world, database, number, scene["same_id"], scene["uses"]), 0, ""
        for step in walk.split():
            answer, to = scene["states"][at]["leads"][step]
            way += f" {step}"
            assert real.take(step) == answer, way
            assert real.held() == real.expected(scene["states"][to]), way
            taken.add((at, step))
            at = to
    database.close()
    assert len(taken) == sum(len(state["leads"]) for state in scene["states"])
