"""
What one claim costs, with nobody enrolled and with very many.

    PYTHONPATH=OVERLAY VENV/bin/python tests/cost.py [--out GROWTH.json] [ENROLLED...]

That is the service alone: what it reads, decides and writes down, without TLS, HTTP and Salt's own part. Counted is the process's
own CPU, which other programs of the machine change least, and the time that passes beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pathlib
import shutil
import statistics
import tempfile
import time
from typing import Any

import salt.version

import conftest
import vm
from saltext.heat_bootstrap import store

COUNT = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().split("\n")[0])
    parser.add_argument("enrolled", type=int, nargs="*", default=[0, 1000, 10000, 100000], help="so many are enrolled")
    parser.add_argument("--out", type=pathlib.Path, help="where the figures go")
    options = parser.parse_args()
    rows = []
    for many in options.enrolled:
        root = pathlib.Path(tempfile.mkdtemp(prefix="hsb-"))
        try:
            rows.append(measured(root, many))
        finally:
            shutil.rmtree(root)
        print(rows[-1], flush=True)
    if options.out:
        figures = {"line": str(salt.version.__version__), "claims": COUNT, "rows": rows}
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


def measured(root: pathlib.Path, many: int) -> dict[str, Any]:
    """By verb: milliseconds of CPU for one claim, and the median of the milliseconds that passed."""
    world = conftest.World(root)
    text = world.token(uses=10 * COUNT + many)
    fill(world, text, many)
    # A key each, as machines have: of one that has several names more is said.
    herd = [vm.Vm(f"web-{number}", text, number) for number in range(COUNT)]
    world.service.handle("GET", "/v1/status", b"")
    row: dict[str, Any] = {"enrolled": many}
    for verb in ("enroll", "apply", "report"):
        bodies = [who.claim(verb) for who in herd]
        took, busy = [], time.process_time()
        for body in bodies:
            started = time.perf_counter()
            answer = world.ask(verb, body)
            took.append(time.perf_counter() - started)
            assert answer.status == 200, answer
        busy = time.process_time() - busy
        row[verb] = {"cpu": round(1000 * busy / COUNT, 2), "median": round(1000 * statistics.median(took), 2)}
    stranger = vm.Vm("web-1", "hsb2.0000000000000000." + "x" * 43).claim("enroll")
    busy = time.process_time()
    for _ in range(1000):
        world.ask("enroll", stranger)
    row["stranger"] = {"cpu": round(time.process_time() - busy, 3)}
    world.store.close()
    return row


def fill(world: conftest.World, text: str, many: int) -> None:
    world.most_at_once = 10 * COUNT
    world.service = world.another()
    finger, now = "f" * 64, int(time.time())

    def change(connection: Any) -> None:
        for start in range(0, many, 10000):
            ids = [f"old-{number}" for number in range(start, min(start + 10000, many))]
            minion = {"token": text.split(".")[1], "enrolled": now, "removed": False}
            own = [hashlib.sha256(each.encode()).hexdigest() for each in ids]
            connection.execute(store.minions.insert(), [{"id": each, "finger": key, **minion} for each, key in zip(ids, own)])
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
