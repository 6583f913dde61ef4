"""
A herd of VMs that all come within five seconds, against a real salt-master and salt-api with nothing but this extension.

    PYTHONPATH=OVERLAY VENV/bin/python tests/herd.py --count 1000
    PYTHONPATH=OVERLAY VENV/bin/python tests/herd.py --count 60 --fault service

    PYTHONPATH=OVERLAY VENV/bin/python tests/herd.py --count 200 --way classic

The VMs are played by player.py, which says what of them is real; with ``--way classic`` by player_classic.py, against salt-api
and a reactor as the project ships them for that, for comparison. With ``--real`` there are some more with the agent itself and
real minions, each with a root directory of its own (AGENT names the program). Everything lives in a directory of its own below
/tmp and ends with this script; HSB_KEEP=1 leaves the directory. Keys are made once and kept below HSB_CACHE: on VMs each makes
its own.

It ends with 1 and a list of what is wrong if any VM has failed, any job was published or ran more than once, any answer is
missing, or anything in the logs says ERROR.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import chart
import herd_faults
import real

HERE = pathlib.Path(__file__).parent
REACTOR = HERE.parent.parent / "cloud-init" / "salt-master" / "reactor" / "states.sls"
# Each VM's own limit
DEADLINE = 1800
PHASES = (
    ("enrolled", "start"),
    ("connected", "enrolled"),
    ("asked", "connected"),
    ("job", "asked"),
    ("done", "job"),
    ("all", "start"),
)
# Lines of the master's and salt-api's logs that say ERROR and harm nobody, by fault: what each fault is about.
HARMLESS: dict[str, list[str]] = {
    # A master that took longer than 15 s for a publication, and has it in its queue: the VM asks again, and hears the same jid.
    "none": [
        r"salt\.transport\.zeromq.*Request timed out while waiting for a response",
        r"salt\.client .*Message timed out",
        r"nobody knows whether job \d+ was published: ",
    ],
    **herd_faults.HARMLESS,
}


PLAYERS = {"token": "player.py", "classic": "player_classic.py"}


class Herd:
    """
    One run, from an empty directory to the list of what is wrong.
    """

    def __init__(self, options: argparse.Namespace, root: pathlib.Path, ending: contextlib.ExitStack) -> None:
        self.options = options
        self.root = root
        self.ending = ending
        self.masters: list[Master] = []
        self.database: Any = None
        self.started = 0.0
        self.lines: list[dict[str, Any]] = []
        self.wrong: list[str] = []
        self.watch = Watch()

    def run(self) -> dict[str, Any]:
        """The result in figures."""
        options = self.options
        keys = made_keys(options.count)
        if options.fault in ("database", "one-of-two"):
            self.database = self.ending.enter_context(herd_faults.mariadb(self.root, options.fault == "database"))
        for number in range(2 if options.fault == "one-of-two" else 1):
            self.masters.append(Master(self.root / f"m{number}", options, self.database))
            if number > 0:
                # As Salt wants it of masters that minions have in common
                shutil.copytree(self.masters[0].path / "pki", self.masters[1].path / "pki", ignore=only_the_masters)
            self.masters[-1].start(self.ending, self.watch)
        first = self.masters[0]
        uses = options.count + options.real
        creates = ("token", "create", "herd-*", "--states", "ok", "--uses", str(uses))
        # The classic chain has a password in its place, which the players look for no pin in.
        self.token = "-.-.-.s" if options.way == "classic" else real.run("heat-bootstrap", "-c", first.etc, *creates).strip()
        players = [self.player(number, keys) for number in range(options.players)]
        agents = real_agents(self, options.real)
        for player in players:
            assert player.stdout.readline() == b"ready\n", "a player did not start"
        time.sleep(2)
        self.watch.begin()
        self.started = time.time() + 1
        for player in players:
            player.stdin.write(f"{self.started}\n".encode())
            player.stdin.flush()
        waiting = [threading.Thread(target=agent.run, args=(self.started, options.spread)) for agent in agents]
        for thread in waiting:
            thread.start()
        self.until_all_ended(players, waiting)
        took = time.time() - self.started
        self.watch.end()
        self.read_lines()
        for agent in agents:
            self.lines.extend(agent.lines)
        self.check(agents)
        return self.figures(took, agents)

    def player(self, number: int, keys: pathlib.Path) -> Any:
        """A process that plays a part of the herd."""
        options = self.options
        share = [options.count * each // options.players for each in (number, number + 1)]
        settings = {
            "out": str(self.root / f"player-{number}.jsonl"),
            "root": str(self.root),
            "keys": str(keys),
            "token": self.token,
            "password": self.masters[0].password,
            "first": share[0],
            "count": share[1] - share[0],
            "spread": options.spread,
            "deadline": DEADLINE,
            "state_seconds": options.state_seconds,
            "services": [master.ports[2] for master in self.masters],
            "masters": [{"publish": master.ports[0], "ret": master.ports[1]} for master in self.masters],
            "grains": grains(),
        }
        path = self.root / f"player-{number}.json"
        path.write_text(json.dumps(settings))
        errors = open(self.root / f"player-{number}.out", "wb")  # noqa: SIM115
        self.ending.callback(errors.close)
        command = [sys.executable, str(HERE / PLAYERS[options.way]), str(path)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
        self.ending.callback(process.kill)
        self.watch.add("players", process.pid)
        return process

    def until_all_ended(self, players: list[Any], waiting: list[threading.Thread]) -> None:
        fault, said = self.options.fault, 0.0
        deadline = time.monotonic() + DEADLINE + 300
        while any(player.poll() is None for player in players) or any(thread.is_alive() for thread in waiting):
            if time.monotonic() > deadline:
                self.wrong.append("the players did not end")
                return
            time.sleep(0.5)
            self.read_lines()
            counts = collections.Counter(line["what"] for line in self.lines)
            # Who has not been let in by each master waits until it is.
            everywhere = fault != "one-of-two" or counts["connected"] >= self.options.count
            if fault != "none" and counts["asked"] >= self.options.count // 4 and everywhere:
                self.watch.notes.append((time.time() - self.started, fault))
                herd_faults.HAPPENS[fault](self)
                fault = "none"
            if time.monotonic() - said > 10:
                said = time.monotonic()
                shown = ", ".join(
                    f"{counts[word]} {word}"
                    for word in ("enrolled", "connected", "asked", "job", "done", "cut-off", "failed", "refused", "lost")
                )
                print(f"{time.time() - self.started:6.1f} s  {shown}", flush=True)
        for player in players:
            if player.returncode != 0:
                self.wrong.append(f"a player ended with {player.returncode}")

    def read_lines(self) -> None:
        self.lines = []
        for path in sorted(self.root.glob("player-*.jsonl")):
            with path.open() as file:
                self.lines.extend(json.loads(line) for line in file if line.endswith("\n"))

    # What is wrong

    def check(self, agents: list[Any]) -> None:
        """Everything that has to be so. With the classic chain, which it is compared with, only how many come through is seen."""
        if self.options.way == "classic":
            return
        count, faulty = self.options.count + len(agents), self.options.fault != "none"
        by: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
        for line in self.lines:
            by[line["what"]].append(line)
        ended = {line["id"] for line in (*by["done"], *by["cut-off"])}
        self.expect(len(ended) == count, f"{len(by['done'])} of {count} are done, {len(by['cut-off'])} were cut off")
        if self.options.fault != "one-of-two":
            self.expect(not by["cut-off"], f"cut off: {by['cut-off'][:5]}")
        # Salt runs a job by the master that has published it, and cannot end it by another.
        here = [line for line in by["unanswered"] if line["master"] != herd_faults.GONE]
        self.expect(not here, f"cut off by a master that was there: {here[:5]}")
        for line in by["failed"][:20]:
            self.wrong.append(f"{line['id']}: {line['why']}")
        refused = [line for line in by["refused"] if line["status"] != 503]
        self.expect(not refused, f"refused: {refused[:5]}")
        asked: dict[str, set[str]] = collections.defaultdict(set)
        for line in by["asked"]:
            asked[line["id"]].add(line["jid"])
        ran = collections.Counter((line["id"], line["jid"]) for line in by["job"])
        more = [key for key, times in ran.items() if times != 1]
        self.expect(not more, f"ran more than once: {more[:5]}")
        several = [minion for minion, jids in asked.items() if len(jids) != 1]
        self.expect(not several, f"more than one jid each: {several[:5]}")
        strangers = [key for key in ran if key[1] not in asked[key[0]]]
        self.expect(not strangers, f"ran what they had not asked for: {strangers[:5]}")
        self.expect(len({jid for jids in asked.values() for jid in jids}) == count, "not each job has a jid of its own")
        if not faulty:
            self.expect(not by["job-again"], f"{len(by['job-again'])} jobs came more than once: {by['job-again'][:5]}")
            self.expect(not by["session-lost"], f"{len(by['session-lost'])} sessions with the master were lost")
            self.expect(not by["lost-request"], f"{len(by['lost-request'])} requests to the master were never answered")
        self.check_audit(count, faulty)
        # Whose master is gone cannot tell it.
        if self.options.fault != "one-of-two":
            self.check_returns(count)
        self.check_logs()

    def check_audit(self, count: int, faulty: bool) -> None:
        etc = self.masters[0].etc
        audit = json.loads(real.run("heat-bootstrap", "-c", etc, "audit", "--count", "100000", "--json"))
        words = collections.Counter(line["word"] for line in audit)
        expected = {"created": 1, "accepted": count * len(self.masters), "published": count}
        others = {word: number for word, number in words.items() if word not in expected}
        # Nothing was sent, for sure, and then it was. Or it went out before the master's publisher, which is busy, had heard that
        # this minion listens, although its connection stood: Salt publishes to whom it knows, and the agent asks once more.
        unheard = sum(1 for line in self.lines if line["what"] == "no-job")
        if others.get("again", 0) == others.get("not-published", 0) + unheard:
            others = {word: number for word, number in others.items() if word not in ("again", "not-published")}
        if faulty:
            # A second publication of the same jid, which a minion that has it ignores.
            others.pop("again", None)
            others.pop("not-published", None)
        for word, number in expected.items():
            self.expect(words[word] == number, f"the audit has {words[word]} of {word}, not {number}")
        self.expect(not others, f"the audit has {others}")
        [token] = json.loads(real.run("heat-bootstrap", "-c", etc, "token", "list", "--json"))
        self.expect((token["used"], token["uses"]) == (count, count), f"{token['used']} of {token['uses']} uses are counted")
        fleet = json.loads(real.run("heat-bootstrap", "-c", etc, "fleet", "--json"))
        cut = sum(1 for line in self.lines if line["what"] == "cut-off")
        verdicts = collections.Counter(entry["verdict"] for entry in fleet)
        wanted = +collections.Counter({"done": count - cut, "failed": cut})
        self.expect(verdicts == wanted, f"the fleet is {dict(verdicts)}, not {dict(wanted)}")

    def check_returns(self, count: int) -> None:
        """Is each answer in the master's job cache?"""
        returned = sum(1 for master in self.masters for _ in master.path.glob("cache/jobs/*/*/herd-*/return.p"))
        self.expect(returned == count, f"the master has {returned} of {count} answers")

    def check_logs(self) -> None:
        harmless = HARMLESS["none"] + HARMLESS[self.options.fault]
        for master in self.masters:
            for log in sorted((master.path / "var" / "log").iterdir()):
                for line in log.read_text(errors="replace").splitlines():
                    if re.search(r"\[(ERROR|CRITICAL) *\]|Traceback", line) and not any(
                        re.search(each, line) for each in harmless
                    ):
                        self.wrong.append(f"{log.name}: {line[:300]}")

    def expect(self, good: bool, otherwise: str) -> None:
        if not good:
            self.wrong.append(otherwise)

    # Figures

    def figures(self, took: float, agents: list[Any]) -> dict[str, Any]:
        first: dict[str, dict[str, float]] = collections.defaultdict(dict)
        for line in self.lines:
            first[line["id"]].setdefault(line["what"], line["t"])
        phases = {}
        for name, since in PHASES:
            until = "done" if name == "all" else name
            spans = [times[until] - times[since] for times in first.values() if until in times and since in times]
            if spans:
                phases[name] = [round(value, 2) for value in (statistics.median(spans), quantile(spans, 0.95), max(spans))]
        times = {
            word: sorted(each[word] for each in first.values() if word in each) for word in ("start", "enrolled", "job", "done")
        }
        refused = collections.Counter(f"{line['status']} {line['verb']}" for line in self.lines if line["what"] == "refused")
        rest = collections.Counter(
            line["what"]
            for line in self.lines
            if line["what"] in ("lost", "no-job", "job-again", "session-lost", "late", "lost-request")
        )
        last = times["done"][-1] if times["done"] else 0.0
        return {
            "count": self.options.count,
            "real": len(agents),
            "line": real_line(),
            "way": self.options.way,
            "fault": self.options.fault,
            "most_at_once": self.options.most_at_once,
            "state_seconds": self.options.state_seconds,
            "spread": self.options.spread,
            "all_done_after": round(last, 1),
            "took": round(took, 1),
            "done": len(times["done"]),
            "failed": sum(1 for line in self.lines if line["what"] == "failed"),
            "cut_off": sum(1 for line in self.lines if line["what"] == "cut-off"),
            "phases": phases,
            "enrolments_a_second": rate(times["enrolled"]),
            "jobs_a_second": rate(times["job"]),
            "refused": dict(refused),
            "rest": dict(rest),
            "cpu": self.watch.cpu(),
            "machine": self.watch.machine(),
            "memory": self.watch.memory,
            "cores": os.cpu_count(),
            "notes": self.watch.notes,
            "times": {word: [round(each, 1) for each in times[word]] for word in ("start", "enrolled", "job", "done")},
            "load": [[round(at - self.started, 1), busy, others] for at, busy, others in self.watch.load],
            "wrong": self.wrong,
        }


class Master:
    """
    A salt-master, and the salt-api beside it.
    """

    def __init__(self, root: pathlib.Path, options: argparse.Namespace, database: str | None) -> None:
        self.root = root
        self.path = root / "master"
        self.etc = str(self.path / "etc")
        self.ports = real.free_ports(3)
        service: dict[str, Any] = {"most_at_once": options.most_at_once} if options.most_at_once else {}
        if database:
            service["database"] = database
        self.password = secrets.token_urlsafe()
        changes: dict[str, Any] = {"worker_threads": None, "log_level_logfile": "warning"}
        if options.way == "classic":
            changes.update(self.classic())
        changes.update(json.loads(options.master))
        real.configure_master(root, self.ports, service, **changes)
        (self.path / "srv" / "ok.sls").write_text("word:\n  cmd.run:\n    - name: 'true'\n")

    def classic(self) -> dict[str, Any]:
        """What cloud-init/salt-master/master.d says that the classic chain wants, in the service's place."""
        users = self.path / "etc" / "users"
        users.parent.mkdir(parents=True)
        users.write_text(f"boot:{hashlib.sha512(self.password.encode()).hexdigest()}\n")
        file = {"^filename": str(users), "^filetype": "text", "^hashtype": "sha512", "^username_field": 1, "^password_field": 2}
        wheel = {"@wheel": ["key.accept", "key.print", "key.finger", "key.finger_master"]}
        crt, key = str(self.path / "server.crt"), str(self.path / "server.key")
        api = {"host": "127.0.0.1", "port": self.ports[2], "ssl_crt": crt, "ssl_key": key, "thread_pool": 1}
        return {
            "heat_bootstrap": None,
            "external_auth": {"file": {**file, "^field_separator": ":", "boot": [wheel]}},
            "netapi_enable_clients": ["wheel"],
            "rest_cherrypy": {**api, "log_access_file": str(self.path / "access"), "log_error_file": str(self.path / "errors")},
            "reactor": [{"salt/netapi/hook/states/state": [str(REACTOR)]}],
        }

    def start(self, ending: contextlib.ExitStack, watch: Watch) -> None:
        """Returns when both answer."""
        self.ending, self.watch = ending, watch
        self.start_master()
        self.api = self.daemon("salt-api")
        self.ready()
        real.until("the service answers", lambda: real.listens(self.ports[2]))

    def start_master(self) -> None:
        self.master = self.daemon("salt-master")

    def ready(self) -> None:
        real.until("the master has its key", (self.path / "pki" / "master.pub").exists)
        real.until("the master publishes", (self.path / "run" / "publish_pull.ipc").exists)
        real.until("the master answers", lambda: real.listens(self.ports[1]))

    def daemon(self, program: str) -> contextlib.ExitStack:
        own = contextlib.ExitStack()
        pid = own.enter_context(real.daemon(self.root, program, "-c", self.etc))
        self.ending.callback(own.close)
        self.watch.add(program, pid)
        return own

    def service_process(self) -> Any:
        """The one that answers VMs."""
        [found] = [process for process in self.watch.processes("salt-api") if "heat_bootstrap" in title(process)]
        return found


class Watch:
    """
    What the machine does meanwhile, by /proc: each second, in a thread of its own.
    """

    def __init__(self) -> None:
        self._groups: list[tuple[str, int]] = []
        self._below: dict[str, str] = {}
        self._seen: dict[int, tuple[str, float]] = {}
        self._before: dict[int, float] = {}
        self.load: list[tuple[float, float, float]] = []
        self.notes: list[tuple[float, str]] = []
        self.memory: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def add(self, group: str, pid: int) -> None:
        """A program and all that it starts."""
        self._groups.append((group, pid))

    def add_below(self, group: str, directory: pathlib.Path) -> None:
        """Daemons that were started with a configuration below a directory: they have left who started them."""
        self._below[group] = str(directory)

    def processes(self, group: str) -> list[Any]:
        """Those of a group that are there."""
        found = []
        if group in self._below:
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    if self._below[group] in " ".join(process.cmdline()):
                        found.append(process)
        for name, pid in self._groups:
            if name == group:
                with contextlib.suppress(psutil.NoSuchProcess):
                    parent = psutil.Process(pid)
                    found.extend([parent, *parent.children(recursive=True)])
        return found

    def begin(self) -> None:
        """Counts from here."""
        self._look()
        self._before = {pid: seconds for pid, (_, seconds) in self._seen.items()}
        self._machine_before = psutil.cpu_times()
        self._began = time.time()
        self._thread.start()

    def end(self) -> None:
        """Counts no further."""
        self._stop.set()
        self._thread.join()
        self._look()
        self._machine_after = psutil.cpu_times()

    def cpu(self) -> dict[str, float]:
        """Seconds by what used them."""
        total: dict[str, float] = collections.defaultdict(float)
        for pid, (name, seconds) in self._seen.items():
            total[name] += seconds - self._before.get(pid, 0.0)
        return {name: round(seconds, 1) for name, seconds in sorted(total.items(), key=lambda item: -item[1]) if seconds >= 0.05}

    def machine(self) -> dict[str, float]:
        """Seconds of all cores together, and how many of them somebody else used."""
        before, after = self._machine_before, self._machine_after
        busy = sum(getattr(after, name) - getattr(before, name) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
        wait = after.iowait - before.iowait
        ours = sum(self.cpu().values())
        return {"busy": round(busy, 1), "waiting_for_disk": round(wait, 1), "others": round(max(0.0, busy - ours), 1)}

    def _look(self) -> float:
        for group in dict.fromkeys([*(name for name, _ in self._groups), *self._below]):
            memory = 0.0
            for process in self.processes(group):
                with contextlib.suppress(psutil.Error):
                    times = process.cpu_times()
                    memory += process.memory_info().rss / 2**20
                    known = self._seen.get(process.pid, (None, 0.0))[0]
                    name = group if group in self._below else f"{group}: {title(process)}"
                    self._seen[process.pid] = (known or name, times.user + times.system)
            self.memory[group] = max(self.memory.get(group, 0.0), round(memory))
        return sum(seconds for _, seconds in self._seen.values())

    def _watch(self) -> None:
        ours, at, before = self._look(), time.time(), psutil.cpu_times()
        while not self._stop.wait(1.0):
            now, then, after = self._look(), time.time(), psutil.cpu_times()
            busy = sum(
                getattr(after, name) - getattr(before, name) for name in ("user", "nice", "system", "irq", "softirq", "steal")
            )
            span = then - at
            self.load.append((then, round(busy / span, 2), round(max(0.0, busy - (now - ours)) / span, 2)))
            ours, at, before = now, then, after


def title(process: Any) -> str:
    """What a process of Salt calls itself, without numbers."""
    with contextlib.suppress(psutil.Error):
        words = " ".join(process.cmdline()).split()
        last = " ".join(word for word in words[1:] if "/" not in word and not word.startswith("-"))
        return re.sub(r"[-_ ]?\d+$", "", last) or "itself"
    return "itself"


class Agent:
    """
    The agent itself, with a real minion below a root of its own.
    """

    def __init__(self, herd: Herd, number: int) -> None:
        self.id = f"herd-real-{number}"
        self.number = number
        self.root = herd.root / "agents" / self.id
        self.lines: list[dict[str, Any]] = []
        first = herd.masters[0]
        config = {
            "minion": {
                "id": self.id,
                "master": "127.0.0.1",
                "program": str(real.BIN / "salt-minion"),
                "config": {"master_port": first.ports[1], "publish_port": first.ports[0]},
                "start": "direct",
            },
            "install": {"source": "preinstalled"},
            "enroll": {"url": [f"https://127.0.0.1:{master.ports[2]}" for master in herd.masters], "token": herd.token},
            "apply": {"states": ["ok"]},
            "deadline": "30m",
        }
        path = self.root / "etc" / "heat-salt-bootstrap" / "config.json"
        path.parent.mkdir(parents=True, mode=0o700)
        path.write_text(json.dumps(config))
        path.chmod(0o600)
        self.herd = herd

    def run(self, started: float, spread: float) -> None:
        """From its start to its end."""
        time.sleep(max(0.0, started + spread * self.number / max(1, self.herd.options.real) - time.time()))
        begun = time.time()
        self.note("start", begun)
        command = [os.environ["AGENT"], "run", "--root", str(self.root)]
        with open(self.root / "agent.out", "wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
            code = process.wait()
        ended = time.time()
        said = (self.root / "agent.out").read_text(errors="replace")
        jobs = re.findall(r"job (\d{20}) runs", said)
        if code == 0:
            self.note("done", ended)
            self.note("asked", ended, jid=jobs[-1])
            self.note("job", ended, jid=jobs[-1])
        else:
            tail = said.splitlines()[-3:]
            self.note("failed", ended, why=f"the agent ended with {code}: {tail}")

    def note(self, what: str, at: float, **more: Any) -> None:
        self.lines.append({"id": self.id, "what": what, "t": round(at - self.herd.started, 2), **more})


def real_agents(herd: Herd, count: int) -> list[Agent]:
    """As many as are wanted; their minions end with the herd."""
    agents = [Agent(herd, number) for number in range(count)]

    def end() -> None:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if str(herd.root / "agents") in " ".join(process.cmdline()):
                    process.kill()

    if agents:
        herd.watch.add_below("agents and minions", herd.root / "agents")
        herd.ending.callback(end)
    return agents


def made_keys(count: int) -> pathlib.Path:
    """A directory with as many keys, made by all cores where they are not there yet."""
    cache = pathlib.Path(os.environ.get("HSB_CACHE") or pathlib.Path.home() / ".cache" / "heat-salt-bootstrap") / "herd-keys"
    cache.mkdir(parents=True, exist_ok=True)
    missing = [str(cache / f"{number}.pem") for number in range(count) if not (cache / f"{number}.pem").exists()]
    if missing:
        print(f"making {len(missing)} keys, which are kept in {cache}", flush=True)
        with concurrent.futures.ProcessPoolExecutor() as pool:
            list(pool.map(make_key, missing, chunksize=10))
    return cache


def make_key(path: str) -> None:
    """In the form that minions keep."""
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    new = pathlib.Path(f"{path}.{os.getpid()}")
    new.write_bytes(rsa.generate_private_key(65537, 2048).private_bytes(*form))
    new.rename(path)


def only_the_masters(_directory: str, names: list[str]) -> list[str]:
    """What of a master's keys is its own."""
    return [name for name in names if name not in ("master.pem", "master.pub")]


GRAINS: dict[str, Any] = {}


def grains() -> dict[str, Any]:
    """Those of this machine, as a minion here would send them."""
    if not GRAINS:
        import salt.config
        import salt.loader

        GRAINS.update(json.loads(json.dumps(salt.loader.grains(salt.config.minion_config(None)), default=str)))
    return GRAINS


def real_line() -> str:
    import salt.version

    return str(salt.version.__version__)


def quantile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def rate(times: list[float]) -> float | None:
    """A second, between the tenth and the ninetieth of a hundred."""
    if len(times) < 10:
        return None
    first, last = times[len(times) // 10], times[len(times) * 9 // 10]
    return round((len(times) * 9 // 10 - len(times) // 10) / max(0.1, last - first), 1)


def shown(figures: dict[str, Any]) -> Iterator[str]:
    """For whoever waits for the end."""
    count = figures["count"] + figures["real"]
    yield f"{figures['done']} of {count} done after {figures['all_done_after']} s; fault: {figures['fault']}"
    for name, (middle, late, slowest) in figures["phases"].items():
        yield f"  {name:10} median {middle:7.2f} s   95 of 100 within {late:7.2f} s   slowest {slowest:7.2f} s"
    yield f"  {figures['enrolments_a_second']} enrolments a second, {figures['jobs_a_second']} jobs a second"
    yield f"  refused: {figures['refused']}; {figures['rest']}"
    yield f"  CPU seconds of {figures['cores']} cores in {figures['took']} s: {figures['machine']}"
    for name, seconds in figures["cpu"].items():
        yield f"  {seconds:8.1f} s  {name}"
    yield f"  memory, MiB: {figures['memory']}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().split("\n")[0])
    parser.add_argument("--count", type=int, default=1000, help="VMs that are played (%(default)s)")
    parser.add_argument("--real", type=int, default=0, help="and so many with the agent itself, and real minions")
    parser.add_argument("--players", type=int, default=2, help="processes that play (%(default)s)")
    parser.add_argument("--spread", type=float, default=5, help="seconds within which they all start (%(default)s)")
    parser.add_argument("--state-seconds", type=float, default=0, help="how long the states take (%(default)s)")
    parser.add_argument("--most-at-once", type=int, default=0, help="the service's option; as it comes unless given")
    parser.add_argument("--master", default="{}", help="options of the master, JSON")
    parser.add_argument("--way", choices=tuple(PLAYERS), default="token", help="by which they join (%(default)s)")
    parser.add_argument("--fault", choices=("none", *herd_faults.HAPPENS), default="none")
    parser.add_argument("--out", type=pathlib.Path, help="directory for herd.json, herd.svg and the lines of every VM")
    options = parser.parse_args()
    if options.way == "classic" and (options.real or options.fault != "none"):
        parser.error("the classic chain is played, and without a fault")
    if options.real and not os.access(os.environ.get("AGENT", ""), os.X_OK):
        parser.error("--real needs the agent: AGENT=path")
    root = pathlib.Path(tempfile.mkdtemp(prefix="hsb-"))
    out = options.out or root
    out.mkdir(parents=True, exist_ok=True)
    good = False
    try:
        with contextlib.ExitStack() as ending:
            herd = Herd(options, root, ending)
            try:
                figures = herd.run()
            finally:
                with open(out / "herd.jsonl", "w") as file:
                    file.writelines(json.dumps(line) + "\n" for line in sorted(herd.lines, key=lambda line: line["t"]))
        (out / "herd.json").write_text(json.dumps(figures) + "\n")
        (out / "herd.svg").write_text(chart.herd(figures))
        print("\n".join(shown(figures)))
        for wrong in figures["wrong"]:
            print(f"WRONG: {wrong}", file=sys.stderr)
        good = not figures["wrong"]
    finally:
        if os.environ.get("HSB_KEEP") == "1":
            print(f"kept: {root}", file=sys.stderr)
        else:
            if not good:
                for log in [path for path in (*root.glob("m*/master/var/log/*"), *root.glob("**/*.out")) if path.is_file()]:
                    text = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                    if text:
                        print(f"---- {log}\n{text}", file=sys.stderr)
            shutil.rmtree(root, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
