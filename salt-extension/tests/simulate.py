"""
Counts how long larger herds take, from what one VM costs a master (measured/cost-LINE.json, which master_cost.py has measured).

    python3 tests/simulate.py [--line 3008] [--count 100000 ...] [--masters 1] [--cores 2] [--splay 0] [--most-at-once 100]

Discrete events; the same numbers in give the same numbers out. Each process of a master is a queue with as many servers as there
are of it, and none of them works while all cores do. A VM does what the played ones do, and by the same rules: timeouts of 15, 30
and 60 seconds, Retry-After and full jitter, 60 seconds for a request to the master, which does what it was asked for in vain when
nobody waits any more. What is published costs something for each minion that is connected, and finding the minion something for
each accepted key.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import pathlib
import random
import sys
from collections import deque
from typing import Any, Callable

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "src"))

from saltext.heat_bootstrap.waiting import Waiting  # noqa: E402 - the service's own rule

DEADLINE = 1800.0
TIMEOUTS = (15.0, 30.0, 60.0)
REQUEST_TIMEOUT = 60.0
# As in server.py and publish.py
MOST_WAIT = 8.0
MOST_TO_PUBLISH = 256
PUBLISHERS = 8
# By what a process is called: which queue it is, and how many of it there are
STATIONS = {"service": 1, "auth": 1, "workers": 5, "publisher": 1, "requests": 1, "events": 1, "others": 1}


def station(process: str) -> str:
    """The queue of a process, by its name."""
    for words, name in (
        ("heat_bootstrap", "service"),
        ("MWorker-auth", "auth"),
        ("MWorkerQueue", "requests"),
        ("MWorker", "workers"),
        ("PubServer", "publisher"),
        ("Event", "events"),
    ):
        if words in process:
            return name
    return "others"


class Clock:
    """What happens when."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), what))

    def run(self) -> None:
        while self._events:
            self.now, _, what = heapq.heappop(self._events)
            what()


class Machine:
    """A master: its processes, which share its cores."""

    def __init__(self, clock: Clock, costs: dict[str, Any], cores: int, most_at_once: int) -> None:
        self.clock = clock
        self.costs = costs
        self.cores = cores
        self.most_at_once = most_at_once
        self.under_way = 0
        self.connected = 0
        self.accepted = 0
        self.waiting = Waiting()
        self.to_publish: deque[tuple[Callable[[], bool], Callable[[], None]]] = deque()
        self.publishing: list[float] = []
        self.takes = 0.0
        self.busy = dict.fromkeys(STATIONS, 0.0)
        self._free = dict(STATIONS)
        self._queues: dict[str, deque[tuple[float, float, Callable[[], None]]]] = {name: deque() for name in STATIONS}

    def does(self, what: str, then: Callable[[], None]) -> None:
        """One thing after the other in all processes that have a part in it."""
        parts = self.costs[what]
        steps = [(name, seconds) for name, seconds in parts.items() if seconds > 0]
        if what == "apply":
            more = {
                "publisher": self.costs["each subscriber"] * self.connected,
                "workers": self.costs["each key"] * self.accepted,
            }
            steps = [(name, seconds + more.pop(name, 0.0)) for name, seconds in steps] + list(more.items())

        def step(number: int) -> None:
            if number == len(steps):
                then()
                return
            name, seconds = steps[number]
            self._queues[name].append((self.clock.now, seconds, lambda: step(number + 1)))
            self._next()

        step(0)

    def _next(self) -> None:
        while self.cores > 0:
            ready = [name for name, queue in self._queues.items() if queue and self._free[name] > 0]
            if not ready:
                return
            name = min(ready, key=lambda each: self._queues[each][0][0])
            _, seconds, then = self._queues[name].popleft()
            self.cores -= 1
            self._free[name] -= 1
            self.busy[name] += seconds

            def over(name: str = name, then: Callable[[], None] = then) -> None:
                self.cores += 1
                self._free[name] += 1
                then()
                self._next()

            self.clock.after(seconds, over)

    def is_full(self) -> bool:
        """Would the next one wait longer than agents do?"""
        before_it = len(self.to_publish) + len(self.publishing) - PUBLISHERS + 1
        longest = self.clock.now - min(self.publishing) if self.publishing else 0.0
        return before_it >= MOST_TO_PUBLISH or before_it * max(self.takes, longest) / PUBLISHERS > MOST_WAIT

    def publishes(self, may: Callable[[], bool], then: Callable[[], None]) -> None:
        """In turn; ``may`` is asked when it is at work."""
        self.to_publish.append((may, then))
        self._publish_next()

    def _publish_next(self) -> None:
        while self.to_publish and len(self.publishing) < PUBLISHERS:
            may, then = self.to_publish.popleft()
            if not may():
                continue
            began = self.clock.now
            self.publishing.append(began)

            def over(began: float = began, then: Callable[[], None] = then) -> None:
                self.publishing.remove(began)
                self.takes += (self.clock.now - began - self.takes) / 8
                then()
                self._publish_next()

            self.does("apply", over)


class Vm:
    """From its first claim to its report."""

    def __init__(self, clock: Clock, machine: Machine, dice: random.Random, state_seconds: float, result: dict[str, Any]) -> None:
        self.clock, self.machine, self.dice, self.state_seconds, self.result = clock, machine, dice, state_seconds, result
        self.started = 0.0
        self.ended = False
        self.has_a_place = False

    def starts(self) -> None:
        self.started = self.clock.now
        self.asks("enroll", self.enrolled)

    def left(self) -> float:
        return self.started + DEADLINE - self.clock.now

    def asks(self, verb: str, then: Callable[[], None], tries: int = 0) -> None:
        """The service, which answers, or sends away, or is too late."""
        waits = {"for it": True}
        timeout = min(TIMEOUTS[min(tries, 2)], max(0.1, self.left()))

        def late() -> None:
            if waits["for it"]:
                waits["for it"] = False
                self.result["lost"] += 1
                self.again(verb, then, tries, None)

        def sent_away() -> None:
            waits["for it"] = False
            self.result["sent away"] += 1
            self.again(verb, then, tries, self.machine.waiting.comes_back(self.clock.now))

        def may() -> bool:
            if not waits["for it"]:
                return False
            if not self.has_a_place and self.machine.under_way >= self.machine.most_at_once:
                sent_away()
                return False
            if not self.has_a_place:
                self.has_a_place = True
                self.machine.under_way += 1
            # Published it is, whoever hears the answer: asked again, the service knows it.
            waits["for it"] = False
            return True

        def at_work() -> None:
            if not waits["for it"]:
                return
            if verb != "apply":
                waits["for it"] = False
                self.machine.accepted += verb == "enroll"
                self.machine.does(verb, then)
            elif self.machine.is_full():
                sent_away()
            else:
                self.machine.publishes(may, then)

        self.clock.after(timeout, late)
        # The connection, and finding out who asks
        self.machine.does("connection", at_work)

    def again(self, verb: str, then: Callable[[], None], tries: int, not_before: float | None) -> None:
        wanted = self.dice.uniform(0, min(0.5 * 2 ** min(tries, 8), 15)) + (max(not_before, 0.5) if not_before is not None else 0)
        if self.left() <= 1:
            self.ends("no time was left")
            return
        self.clock.after(wanted if wanted <= self.left() - 1 else self.left() / 2, lambda: self.asks(verb, then, tries + 1))

    def requests(self, what: str, then: Callable[[], None]) -> None:
        """The master, which does it in vain where it is too late."""
        waits = {"for it": True}

        def late() -> None:
            if waits["for it"] and not self.ended:
                waits["for it"] = False
                self.result["late"] += 1
                if self.left() <= 0:
                    self.ends("the master was too late")
                else:
                    self.requests(what, then)

        def answered() -> None:
            if waits["for it"]:
                waits["for it"] = False
                then()

        self.clock.after(REQUEST_TIMEOUT, late)
        self.machine.does(what, answered)

    def enrolled(self) -> None:
        self.requests("sign in", self.connected)

    def connected(self) -> None:
        self.machine.connected += 1
        self.requests("start and pillar", lambda: None)
        self.asks("apply", self.has_its_job)

    def has_its_job(self) -> None:
        self.requests("files and pillar of states", lambda: self.clock.after(self.state_seconds, self.applied))

    def applied(self) -> None:
        self.requests("return", lambda: None)
        self.asks("report", self.reported)

    def reported(self) -> None:
        self.machine.under_way -= 1
        self.machine.waiting.freed(self.clock.now)
        self.ends(None)

    def ends(self, why: str | None) -> None:
        if self.ended:
            return
        self.ended = True
        if why is None and self.left() > 0:
            self.result["done"].append(self.clock.now - self.started)
            self.result["last"] = self.clock.now
        else:
            self.result["failed"] += 1


def read(line: str) -> dict[str, Any]:
    """Seconds of CPU by step and queue, from what was measured."""
    measured = json.loads((HERE / "measured" / f"cost-{line}.json").read_text())
    steps = measured["milliseconds"]
    costs: dict[str, Any] = {}
    for what, processes in steps.items():
        parts: dict[str, float] = {}
        for process, milliseconds in processes.items():
            if process not in ("all", "elapsed"):
                parts[station(process)] = parts.get(station(process), 0.0) + milliseconds / 1000
        # In which order a request goes through them
        costs[what] = {name: parts[name] for name in STATIONS if name in parts}
    for what, names in (("each subscriber", "subscribers"), ("each key", "keys")):
        [(many, name)] = [(int(name.split()[1]), name) for name in steps if name.startswith("apply, ") and name.endswith(names)]
        costs[what] = max(0.0, (steps[name]["all"] - steps["apply"]["all"]) / 1000 / many)
    # What a claim costs before it is known what comes of it
    costs["connection"] = {"service": 0.6 * costs["report"]["service"]}
    for verb in ("enroll", "apply", "report"):
        costs[verb]["service"] = max(0.0, costs[verb]["service"] - costs["connection"]["service"])
    return costs


def simulated(
    costs: dict[str, Any],
    count: int,
    masters: int = 1,
    cores: int = 2,
    most_at_once: int = 100,
    spread: float = 5,
    state_seconds: float = 0,
    subscribers: bool = True,
) -> dict[str, Any]:
    """One herd."""
    random.seed(1)
    clock, dice = Clock(), random.Random(1)
    if not subscribers:
        costs = {**costs, "each subscriber": 0.0}
    machines = [Machine(clock, costs, cores, most_at_once) for _ in range(masters)]
    result: dict[str, Any] = {"done": [], "failed": 0, "sent away": 0, "lost": 0, "late": 0, "last": 0.0}
    for number in range(count):
        vm = Vm(clock, machines[number % masters], dice, state_seconds, result)
        clock.after(dice.uniform(0, spread), vm.starts)
    clock.run()
    done = sorted(result["done"])
    busy = {name: sum(machine.busy[name] for machine in machines) / masters for name in STATIONS}
    return {
        "count": count,
        "masters": masters,
        "cores": cores,
        "most_at_once": most_at_once,
        "spread": spread,
        "state_seconds": state_seconds,
        "subscribers": subscribers,
        "done": len(done),
        "failed": result["failed"],
        "sent_away": result["sent away"],
        "lost": result["lost"] + result["late"],
        "all_done_after": round(result["last"]),
        "median": round(done[len(done) // 2]) if done else None,
        "busy": {name: round(seconds) for name, seconds in busy.items() if seconds >= 0.5},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().split("\n")[0])
    parser.add_argument("--line", default="3008")
    parser.add_argument("--count", type=int, nargs="*", default=[1000, 10000, 100000])
    parser.add_argument("--masters", type=int, default=1)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--most-at-once", type=int, default=100)
    parser.add_argument("--splay", type=float, default=5, help="seconds over which they start (%(default)s)")
    parser.add_argument("--state-seconds", type=float, default=0)
    options = parser.parse_args()
    costs = read(options.line)
    for count in options.count:
        print(
            simulated(costs, count, options.masters, options.cores, options.most_at_once, options.splay, options.state_seconds),
            flush=True,
        )


if __name__ == "__main__":
    main()
