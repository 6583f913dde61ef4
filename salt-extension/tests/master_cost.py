"""
What one VM costs a master, by what is asked for and by which of the master's processes: one VM after the other, on a master that
has nothing else to do. simulate.py counts with it.

    PYTHONPATH=OVERLAY VENV/bin/python tests/master_cost.py [--out FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
from typing import Any

import zmq

import herd
import player
import real

COUNT = 150


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().split("\n")[0])
    parser.add_argument("--count", type=int, default=COUNT, help="VMs, one after the other (%(default)s)")
    parser.add_argument("--subscribers", type=int, default=2000, help="others that are connected in the end (%(default)s)")
    parser.add_argument("--keys", type=int, default=20000, help="others whose key is accepted in the end (%(default)s)")
    parser.add_argument("--filter", action="store_true", help="with zmq_filtering, on the master and its minions")
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    options.most_at_once, options.master = 1000000, json.dumps({"zmq_filtering": options.filter})
    root = pathlib.Path(tempfile.mkdtemp(prefix="hsb-"))
    try:
        with contextlib.ExitStack() as ending:
            keys = herd.made_keys(options.count)
            watch = herd.Watch()
            master = herd.Master(root / "m0", options, None)
            master.start(ending, watch)
            arguments = ("token", "create", "herd-*", "--states", "ok", "--uses", str(options.count))
            token = real.run("heat-bootstrap", "-c", master.etc, *arguments).strip()
            settings = {
                "out": str(root / "player.jsonl"),
                "root": str(root),
                "keys": str(keys),
                "token": token,
                "services": [master.ports[2]],
                "masters": [{"publish": master.ports[0], "ret": master.ports[1]}],
                "grains": herd.grains(),
                "state_seconds": 0,
                "filter": options.filter,
            }
            time.sleep(5)
            found = asyncio.run(measured(options, watch, settings, master))
        text = json.dumps(
            {"line": herd.real_line(), "count": options.count, "cores": os.cpu_count(), "milliseconds": found}, indent=1
        )
        if options.out:
            options.out.write_text(text + "\n")
        for what, costs in found.items():
            print(f"{what:28}", "  ".join(f"{name} {value}" for name, value in costs.items()))
    finally:
        shutil.rmtree(root, ignore_errors=True)


async def measured(
    options: argparse.Namespace, watch: herd.Watch, settings: dict[str, Any], master: herd.Master
) -> dict[str, Any]:
    """Milliseconds of CPU for one VM, by step and process."""
    playing = player.Player(settings)
    playing.started = time.time()
    vms = [player.Vm(playing, number) for number in range(options.count)]
    found: dict[str, Any] = {}
    idle: dict[str, float] = {}

    def now() -> dict[str, float]:
        watch._look()
        total: dict[str, float] = {}
        for name, seconds in watch._seen.values():
            total[name] = total.get(name, 0.0) + seconds
        return total

    before = now()
    await asyncio.sleep(5)
    after = now()
    idle = {name: (after[name] - before.get(name, 0.0)) / 5 for name in after}

    async def step(what: str, work: Any, each: list[Any]) -> None:
        before, began = now(), time.monotonic()
        for one in each:
            one.until = time.time() + 600
            await work(one)
        asked = time.monotonic() - began
        await asyncio.sleep(1.5)
        after, span = now(), time.monotonic() - began
        costs = {
            name: round(1000 * (after[name] - before.get(name, 0.0) - span * idle.get(name, 0.0)) / len(each), 2)
            for name in after
        }
        costs = {name: value for name, value in sorted(costs.items(), key=lambda item: -item[1]) if value >= 0.1}
        found[what] = {"all": round(sum(costs.values()), 2), "elapsed": round(1000 * asked / len(each), 2), **costs}

    loads: dict[str, Any] = {}

    async def applies(one: player.Vm) -> None:
        answer = await one.asks("apply", job=os.urandom(16).hex(), again=False, deadline=600)
        came = one.minions[0].came.setdefault(answer["jid"], playing.loop.create_future())
        loads[one.id] = await asyncio.wait_for(came, 30)

    await step("enroll", lambda one: one.enrolls(), vms)
    await step("sign in", lambda one: one.minions[0].sign_in(), vms)
    await step("connect", lambda one: one.minions[0].connect(), vms)
    await step("pillar", lambda one: one.minions[0].ask(one.minions[0]._pillar()), vms)
    await step("start and pillar", lambda one: one.minions[0].starts(), vms)
    await step("apply", applies, vms)
    await step("files and pillar of states", lambda one: one.minions[0].runs(loads[one.id]), vms)
    await step("return", lambda one: one.minions[0].returns(loads[one.id]), vms)
    await step("report", lambda one: one.asks("report"), vms)
    # What grows with the number of those that are there
    some = vms[: max(20, len(vms) // 3)]
    keys = pathlib.Path(master.path) / "pki" / "minions"
    text = (keys / vms[0].id).read_text()
    for number in range(options.keys):
        (keys / f"other-{number}").write_text(text)
    await step(f"apply, {options.keys} keys", applies, some)
    await step(f"sign in, {options.keys} keys", lambda one: one.minions[0].sign_in(), some)
    for number in range(options.keys):
        (keys / f"other-{number}").unlink()
    subscribers = []
    for _ in range(options.subscribers):
        subscriber = playing.subscriptions.socket(zmq.SUB)
        subscriber.setsockopt(zmq.SUBSCRIBE, os.urandom(20).hex().encode() if options.filter else b"")
        subscriber.connect(f"tcp://127.0.0.1:{master.ports[0]}")
        subscribers.append(subscriber)
    await asyncio.sleep(10)
    await step(f"apply, {options.subscribers} subscribers", applies, some)
    return found


if __name__ == "__main__":
    sys.exit(main())
