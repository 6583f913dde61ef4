"""
What one claim costs, with nobody enrolled and with very many.

    PYTHONPATH=OVERLAY VENV/bin/python tests/cost.py
"""

from __future__ import annotations

import pathlib
import shutil
import statistics
import sys
import tempfile
import time
from typing import Any

import conftest
import vm
from saltext.heat_bootstrap import store

COUNT = 300


def main() -> None:
    for many in [int(number) for number in sys.argv[1:]] or [0, 10000, 100000]:
        root = pathlib.Path(tempfile.mkdtemp(prefix="hsb-"))
        try:
            measure(root, many)
        finally:
            shutil.rmtree(root)


def measure(root: pathlib.Path, many: int) -> None:
    world = conftest.World(root)
    text = world.token(uses=10 * COUNT + many)
    fill(world, text, many)
    herd = [vm.Vm(f"web-{number}", text, number % 4) for number in range(COUNT)]
    world.service.handle("GET", "/v1/status", b"")
    print(f"{many} enrolled", end="", flush=True)
    for verb in ("enroll", "apply", "report"):
        bodies = [who.claim(verb) for who in herd]
        took, busy = [], time.process_time()
        for body in bodies:
            started = time.perf_counter()
            answer = world.ask(verb, body)
            took.append(time.perf_counter() - started)
            assert answer.status == 200, answer
        busy = time.process_time() - busy
        middle, worst = 1000 * statistics.median(took), 1000 * max(took)
        print(f"; {verb} {middle:.2f} ms (worst {worst:.1f}), {COUNT / busy:.0f} a second of one core's time", end="", flush=True)
    stranger = vm.Vm("web-1", "hsb2.0000000000000000." + "x" * 43).claim("enroll")
    started = time.perf_counter()
    for _ in range(1000):
        world.ask("enroll", stranger)
    print(f"; a stranger {time.perf_counter() - started:.3f} ms")
    world.store.close()


def fill(world: conftest.World, text: str, many: int) -> None:
    world.most_at_once = 10 * COUNT
    world.service = world.another()
    finger, now = "f" * 64, int(time.time())

    def change(connection: Any) -> None:
        for start in range(0, many, 10000):
            ids = [f"old-{number}" for number in range(start, min(start + 10000, many))]
            minion = {"finger": finger, "token": text.split(".")[1], "enrolled": now, "removed": False}
            connection.execute(store.minions.insert(), [{"id": each, **minion} for each in ids])
            connection.execute(
                store.placements.insert(), [{"id": each, "master": "the_master", "finger": finger} for each in ids]
            )
            note = {"time": now, "verb": "enroll", "granted": True, "word": "accepted", "why": "x" * 80}
            connection.execute(store.audit.insert(), [{"id": each, **note} for each in ids])
            connection.execute(store.nonces.insert(), [{"nonce": f"{each:>032}", "until": now + 600} for each in ids])
            job = {"bootstrap_id": "b", "digest": finger, "chosen": now, "until": 0, "published": True}
            connection.execute(store.jobs.insert(), [{"id": each, "job": "a" * 32, "jid": each, **job} for each in ids])
            for each in ids:
                (world.pki / "minions" / each).touch()

    world.store.write(change)


if __name__ == "__main__":
    main()
