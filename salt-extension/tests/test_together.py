"""
At the same instant: threads of one service, and processes on one database.
"""

from __future__ import annotations

import concurrent.futures
import json
import pathlib
import subprocess
import sys
import threading
from typing import Any

import pytest

from conftest import World, pem


def together(work: list[Any]) -> list[Any]:
    barrier = threading.Barrier(len(work))

    def one(what: Any) -> Any:
        barrier.wait()
        return what()

    with concurrent.futures.ThreadPoolExecutor(len(work)) as pool:
        return [future.result() for future in [pool.submit(one, what) for what in work]]


@pytest.mark.parametrize("uses", [1, 3])
def test_the_last_use(world: World, uses: int) -> None:
    text = world.token(uses=uses)
    herd = [world.vm(f"web-{number}", text, key=number % 4) for number in range(12)]
    words = together([lambda who=who: world.enroll(who) for who in herd])
    assert sorted(words) == ["403 token-used-up"] * (12 - uses) + ["accepted"] * uses
    assert sum(world.accepted(who.id) is not None for who in herd) == uses
    assert world.used(herd[0]) == uses


def test_one_claim_many_times(world: World) -> None:
    who = world.vm(uses=5)
    body = who.claim("enroll")
    answers = together([lambda: world.ask("enroll", body)] * 8)
    assert sorted(who.opened(answer.body)["status"] for answer in answers) == ["accepted"] + ["already"] * 7
    assert world.used(who) == 1


@pytest.mark.parametrize("rebuild", [False, True])
def test_two_keys_under_one_id(world: World, rebuild: bool) -> None:
    text = world.token(uses=20, rebuild=rebuild)
    herd = [world.vm("web-1", text, key=number) for number in range(6)]
    words = together([lambda who=who: world.enroll(who) for who in herd])
    assert words.count("accepted") == 1
    assert set(words) - {"accepted"} == ({"replaced"} if rebuild else {"409 key-conflict"})
    with world.store.read() as connection:
        record = world.store.record(connection, "web-1")
    assert record is not None
    # Whoever is noted as the last one is the one who is accepted.
    [winner] = [who for who in herd if pem(who) == world.accepted()]
    assert world.enroll(winner) == "already"


def test_one_job_many_times(world: World) -> None:
    who = world.vm()
    world.enroll(who)
    document = who.document("apply")
    bodies = [who.sealed({**document, "nonce": f"{number:032x}"}) for number in range(8)]
    answers = together([lambda body=body: world.ask("apply", body) for body in bodies])
    assert len({answer.body["jid"] for answer in answers}) == 1
    assert [answer.body["published"] for answer in answers].count(True) == 1
    assert len(world.publisher.published) == 1


def test_as_many_as_may_be_under_way(world: World) -> None:
    text = world.token(uses=20)
    herd = [world.vm(f"web-{number}", text, key=number % 4) for number in range(10)]
    for who in herd:
        world.enroll(who)
    words = together([lambda who=who: world.word("apply", who.claim("apply")) for who in herd])
    assert sorted(words) == ["200"] * 3 + ["503 busy"] * 7
    assert len({entry[2] for entry in world.publisher.published}) == 3


CHILD = """
import json, pathlib, sys, time
import conftest, vm
root, text, number, count, until = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
import salt.config
from saltext.heat_bootstrap.keys import Keys
from saltext.heat_bootstrap.service import Service
from saltext.heat_bootstrap.store import Store
opts = salt.config.master_config(root + "/etc/master")
directory = root + "/pki/heat-bootstrap"
service = Service(Store("sqlite:///" + directory + "/heat-bootstrap.sqlite"), Keys(opts, directory), None, "the_master", 9)
claims = [vm.Vm("web-%d-%d" % (number, one), text).claim("enroll") for one in range(count)]
time.sleep(max(0, until - time.time()))
print(json.dumps([service.handle("POST", "/v1/enroll", claim).status for claim in claims]))
"""


def test_two_processes(world: World) -> None:
    import time

    here = str(pathlib.Path(__file__).parent)
    text = world.token(uses=15)
    start = str(time.time() + 2.5)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(world.root), text, str(number), "20", start], stdout=subprocess.PIPE, cwd=here
        )
        for number in range(2)
    ]
    statuses = [status for child in children for status in json.loads(child.communicate(timeout=60)[0].splitlines()[-1])]
    assert sorted(statuses) == [200] * 15 + [403] * 25
    assert len(list((world.pki / "minions").iterdir())) == 15
    assert world.used(world.vm(token=text)) == 15
    assert world.words().count("accepted") == 15
