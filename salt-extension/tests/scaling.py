"""
Writes what was measured and simulated into docs/scaling.md, between two marks, and draws docs/herd.svg.

    python3 tests/scaling.py keep NAME HERD.json     keeps a run of herd.py for the page, as measured/herd-NAME.json
    python3 tests/scaling.py write                   simulates, and writes page and drawing
    python3 tests/scaling.py check                   ends with 1 if the page is another one, or the model of the simulation is
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import chart
import simulate

HERE = pathlib.Path(__file__).parent
MEASURED = HERE / "measured"
DOCS = HERE.parent.parent / "docs"
BEGIN, END = "<!-- from here on written by salt-extension/tests/scaling.py -->", "<!-- to here -->"
# The one that is drawn, whole; of the others no more than the page says is kept.
DRAWN = "1000"
WHOLE = ("times", "load")
# Which are drawn one upon the other.
BESIDE = ("beside-token", "beside-classic")
FAULTS = {
    "none": "none",
    "service": "service killed",
    "master": "master restarted",
    "database": "database slower by 200 ms",
    "one-of-two": "one of two masters gone",
}


def keep(name: str, path: str) -> None:
    """A run, as far as it is needed."""
    figures = json.loads(pathlib.Path(path).read_text())
    if name != DRAWN and name not in BESIDE:
        figures = {key: value for key, value in figures.items() if key not in WHOLE}
    MEASURED.mkdir(exist_ok=True)
    (MEASURED / f"{'' if name in BESIDE else 'herd-'}{name}.json").write_text(json.dumps(figures) + "\n")


def written(anew: bool) -> Iterator[str]:
    """The part of the page that holds figures; simulated anew if the model is another one, or not at all then."""
    runs = [json.loads(path.read_text()) for path in sorted(MEASURED.glob("herd-*.json"))]
    runs.sort(key=lambda run: (list(FAULTS).index(run["fault"]), run["line"], run["count"], run["real"]))
    yield "### Measured: herds"
    yield ""
    yield (
        "| Salt | VMs | fault | done | after, s | joined, s | asked, s | states, s | jobs a second | 503 | no answer in time "
        "| CPU of master / service / players / others, s |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
    for run in runs:
        count = run["count"] + run["real"]
        vms = f"{count}, {run['real']} of them with real minions" if run["real"] else f"{count}"
        cpu = [
            sum(seconds for name, seconds in run["cpu"].items() if name.startswith(group)) for group in ("salt-master", "players")
        ]
        service = sum(seconds for name, seconds in run["cpu"].items() if name.startswith("salt-api: RunNetapi"))
        columns = [
            run["line"],
            vms,
            FAULTS[run["fault"]],
            f"{run['done']}" + (f", {run['cut_off']} cut off" if run.get("cut_off") else ""),
            f"{run['all_done_after']:.0f}",
            *(_span(run["phases"].get(name)) for name in ("enrolled", "asked", "done")),
            f"{run['jobs_a_second']}",
            f"{sum(run['refused'].values())}",
            f"{run['rest'].get('lost', 0)}",
            f"{cpu[0]:.0f} / {service:.0f} / {cpu[1]:.0f} / {run['machine']['others']:.0f}",
        ]
        yield "| " + " | ".join(columns) + " |"
    yield ""
    yield "Jobs a second are those between the first and the last tenth. A job that a fault has cut off is published once more"
    yield "after a minute, which is what the slowest waited for."
    yield ""
    yield "Spans are the median and the slowest, each from the step before. Others is what else ran on the same machine."
    yield ""
    yield from compared(*(json.loads((MEASURED / f"{name}.json").read_text()) for name in BESIDE))
    for path in sorted(MEASURED.glob("cost-*.json")):
        yield ""
        yield from costs(json.loads(path.read_text()))
    yield ""
    yield from growth(json.loads((MEASURED / "growth.json").read_text()))
    yield ""
    yield from simulations(anew)
    yield ""
    yield from walls()


def compared(token: dict[str, Any], classic: dict[str, Any]) -> Iterator[str]:
    """The same herd by both ways."""
    yield f"### Measured: the same herd by the classic chain, Salt {token['line']}"
    yield ""
    yield "| way | VMs | joined | got their job | done | gave up | last done after, s | half done after, s | CPU of others, s |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, run in (("token", token), ("classic: login, `key.accept`, hook, reactor", classic)):
        done = run["times"]["done"]
        half = f"{done[run['count'] // 2 - 1]:.0f}" if len(done) >= run["count"] // 2 else "-"
        last = f"{done[-1]:.0f}" if done else "-"
        counts = [f"{len(run['times'][word])}" for word in ("enrolled", "job", "done")]
        columns = [name, f"{run['count']}", *counts, f"{run['failed']}", last, half, f"{run['machine']['others']:.0f}"]
        yield "| " + " | ".join(columns) + " |"
    yield ""
    yield from BEFORE


# Of runs that left no file: of 30 November 2026, ended by hand while other programs took most of the machine, and of 28 November
# 2026, by an earlier version, whose claims by hook are gone.
BEFORE = (
    "With more VMs the classic chain nearly stands still for as long as they all ask. salt-api answers one request after the",
    "other (`thread_pool: 1`, since its event socket does not bear two hooks at once), each within a tenth of a second or two:",
    "who waits behind 100 others has hung up by then and asks anew. Of 300 VMs 123 were done after 244 s, when 1,830 requests",
    "had been in vain. While other programs took most of the machine, none of 100 had joined after 112 s, and none of 1,000",
    "after 7 minutes (`make herd WAY=classic`, 30 November 2026, each ended by hand).",
    "The first claims by hook, which the service has replaced, brought 2 of 40 VMs with real minions through with salt-api as it",
    "comes, and 11 of 40 with one thread (deadline 240 s, Salt 3007.17, 28 November 2026, an earlier version).",
)


def costs(measured: dict[str, Any]) -> Iterator[str]:
    """What one VM costs."""
    yield f"### Measured: what one VM costs, Salt {measured['line']}"
    yield ""
    yield f"Milliseconds of CPU on the master's machine, of {measured['count']} VMs, one after the other."
    yield ""
    yield "| step | all | service | the master's workers | publisher | event bus and the rest |"
    yield "|---|---|---|---|---|---|"
    for what, processes in measured["milliseconds"].items():
        parts: dict[str, float] = {}
        for process, value in processes.items():
            if process not in ("all", "elapsed"):
                name = simulate.station(process)
                name = {"service": "service", "workers": "workers", "auth": "workers", "publisher": "publisher"}.get(name, "rest")
                parts[name] = parts.get(name, 0.0) + value
        shown = [f"{parts.get(name, 0):.1f}" for name in ("service", "workers", "publisher", "rest")]
        yield f"| {what} | {processes['all']:.1f} | {' | '.join(shown)} |"


def growth(measured: dict[str, Any]) -> Iterator[str]:
    """What one claim costs, the more are enrolled."""
    rows = measured["rows"]
    yield f"### Measured: what one claim costs the service as it grows, Salt {measured['line']}"
    yield ""
    yield f"Milliseconds of CPU for one claim, the mean of {measured['claims']}, on SQLite; without TLS, HTTP and what Salt does."
    yield ""
    yield "| enrolled | enroll | apply | report | claims a second and core | a stranger's |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        verbs = [row[verb]["cpu"] for verb in ("enroll", "apply", "report")]
        columns = [
            f"{row['enrolled']:,}",
            *(f"{value:.1f}" for value in verbs),
            f"{3000 / sum(verbs):.0f}",
            f"{row['stranger']['cpu']:.2f}",
        ]
        yield "| " + " | ".join(columns) + " |"
    yield ""
    grown = {verb: rows[-1][verb]["cpu"] / rows[0][verb]["cpu"] for verb in ("enroll", "apply", "report")}
    most = f"{rows[-1]['enrolled']:,}"
    yield f"With {most} enrolled a claim costs, by its verb, {_listed(grown)} times what it costs with {rows[0]['enrolled']}."
    yield "That each statement finds its rows by an index, whatever their number, is a test: `test_the_cost_does_not_grow`."


def _listed(values: dict[str, float]) -> str:
    parts = [f"{value:.2f} ({name})" for name, value in values.items()]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def simulations(anew: bool) -> Iterator[str]:
    """What larger herds would take."""
    model = simulate.read("3008")
    yield "### Simulated: larger herds"
    yield ""
    yield "The master has its machine for itself here: no players, no other programs. The first row is the herd of 1,000 again."
    yield ""
    yield "| VMs | masters x cores | most_at_once | within, s | states, s | done | after, s | sent away | too late | busiest |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    kept = MEASURED / "simulated.json"
    cache = json.loads(kept.read_text()) if kept.exists() else {}
    sources = [HERE / "simulate.py", HERE.parent / "src/saltext/heat_bootstrap/waiting.py", MEASURED / "cost-3008.json"]
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    if cache.get("of") != state and not anew:
        sys.exit("The simulation was made by another model: scaling.py write")
    if cache.get("of") != state:
        # The last ones take a minute or two.
        cache = {"of": state, "found": [simulate.simulated(model, **changes) for changes in SIMULATED]}
        kept.write_text(json.dumps(cache, indent=1) + "\n")
    for found in cache["found"]:
        busiest = max(found["busy"], key=lambda name, found=found: found["busy"][name] / simulate.STATIONS[name])  # type: ignore[misc]
        span = max(1, found["all_done_after"])
        cores = sum(found["busy"].values()) / span / found["cores"]
        part = found["busy"][busiest] / span / simulate.STATIONS[busiest]
        name = "" if found["subscribers"] else ", `zmq_filtering`"
        columns = [
            f"{found['count']:,}",
            f"{found['masters']} x {found['cores']}{name}",
            f"{found['most_at_once']}",
            f"{found['spread']:.0f}",
            f"{found['state_seconds']:.0f}",
            f"{found['done']:,}",
            f"{found['all_done_after']:,}",
            f"{found['sent_away']:,}",
            f"{found['lost']:,}",
            f"{busiest} {100 * part:.0f} %, cores {100 * cores:.0f} %",
        ]
        yield "| " + " | ".join(columns) + " |"


SIMULATED: list[dict[str, Any]] = [
    {"count": 1000},
    {"count": 1000, "cores": 8},
    {"count": 1000, "state_seconds": 60},
    {"count": 1000, "state_seconds": 60, "most_at_once": 500},
    {"count": 5000, "cores": 8},
    {"count": 5000, "cores": 8, "spread": 300},
    {"count": 10000, "cores": 8},
    {"count": 10000, "cores": 8, "subscribers": False},
    {"count": 10000, "cores": 8, "masters": 4},
    {"count": 100000, "cores": 8, "masters": 40},
]


def walls() -> Iterator[str]:
    """Where each is, in the figures that were measured and simulated."""
    steps = json.loads((MEASURED / "cost-3008.json").read_text())["milliseconds"]
    model = simulate.read("3008")
    way = ("enroll", "sign in", "start and pillar", "apply", "files and pillar of states", "return", "report")
    whole = sum(steps[step]["all"] for step in way)
    service = sum(1000 * model[verb]["service"] for verb in ("enroll", "apply", "report")) + 3000 * model["connection"]["service"]
    pillars = 2 * steps["pillar"]["all"]
    files = max(0.0, steps["files and pillar of states"]["all"] - steps["pillar"]["all"])
    each = 1e6 * model["each subscriber"]
    yield "### Where each wall is"
    yield ""
    yield (
        f"- **The master's workers** (measured). One VM takes {whole:.0f} ms of the master's machine from its first "
        f"claim to its "
        f"report, and {pillars:.0f} ms of that are two pillars: one when the minion starts, one for the states. That is "
        f"{1000 / whole:.0f} VMs a second for each core. A pillar with external sources takes more. What then: cores, and as "
        "many `worker_threads`; several masters."
    )
    yield (
        f"- **Publishing** (measured). Each job goes to each connected minion, by one process, which takes {each:.0f} us for "
        f"each: a herd of 1,000 costs it {each:.0f} s in all, one of 10,000 {100 * each / 60:.0f} minutes, and 100,000 at one "
        f"master {10000 * each / 3600:.0f} hours: that grows by the square. {_filtered(steps)} What then: "
        f"`zmq_filtering: True` "
        "on the master and on all minions, syndics, or several masters, each with its share of the VMs."
    )
    keys = next(name for name in steps if name.startswith("sign in, "))
    applied = steps[keys.replace("sign in", "apply")]["all"]
    yield (
        f"- **Key checks** (measured). A sign-in takes {steps['sign in']['all']:.1f} ms, and {steps[keys]['all']:.1f} ms with "
        f"{keys.split()[2]} other keys accepted; a job for one of so many costs {applied:.0f} ms instead of "
        f"{steps['apply']['all']:.0f}. It is none of the walls."
    )
    yield (
        f"- **The service** (measured). One process takes {service:.0f} ms for the three claims of a VM together, so some "
        f"{1000 / service:.0f} VMs a second. Who is sent away costs {1000 * model['connection']['service']:.1f} ms "
        f"(taken to be "
        f"that part of a report). It is the wall where the master has more than {whole / service:.0f} cores and as many "
        f"workers. "
        "What then: several masters."
    )
    yield (
        f"- **The file server** (measured). The requests for one small SLS file take {files:.1f} ms. Large files are sent in "
        "pieces of 256 KiB, each a request to a worker: package repositories and web servers are for those. That was not "
        "measured."
    )
    yield (
        "- **The database** (measured). SQLite is part of the service's time above. How a slow MariaDB does is in the first "
        "table: a claim is several statements, one after the other, so that it has to be near its masters."
    )
    yield (
        "- **Places** (simulated). `most_at_once` counts bootstraps between their job and their report. Where states "
        "take a minute, a "
        "hundred places let fewer than two VMs a second through, and nothing else is busy: see the rows with 60 s. Set "
        "it to what the "
        "machines behind the states (repositories, file servers) can serve at once."
    )
    yield (
        "- **Splay** (simulated) makes nothing faster; fewer VMs are sent away and no request is done in vain. `splay` of the "
        "agent is for herds that a master could not sign in within a minute."
    )


def _filtered(steps: dict[str, Any]) -> str:
    path = MEASURED / "filter-3008.json"
    if not path.exists():
        return ""
    other = json.loads(path.read_text())["milliseconds"]
    name = next(name for name in steps if name.endswith("subscribers"))

    def publisher(found: dict[str, Any], step: str) -> float:
        return float(sum(value for process, value in found[step].items() if simulate.station(process) == "publisher"))

    return (
        f"With {name.split()[1]} connected the publisher takes {publisher(steps, name):.0f} ms a job, and with `zmq_filtering` "
        f"{publisher(other, name):.1f} ms."
    )


def _span(phase: list[float] | None) -> str:
    return f"{phase[0]:.0f}, {phase[2]:.0f}" if phase else "-"


def main() -> int:
    if sys.argv[1:2] == ["keep"]:
        keep(*sys.argv[2:4])
        return 0
    checking = sys.argv[1:2] == ["check"]
    page = (DOCS / "scaling.md").read_text()
    head, rest = page.split(BEGIN)
    new = f"{head}{BEGIN}\n\n" + "\n".join(written(anew=not checking)) + f"\n\n{END}{rest.split(END)[1]}"
    drawing = chart.herd(json.loads((MEASURED / f"herd-{DRAWN}.json").read_text()))
    both = chart.beside(*(json.loads((MEASURED / f"{name}.json").read_text()) for name in BESIDE))
    files = {"scaling.md": new, "herd.svg": drawing, "herd-beside.svg": both}
    if checking:
        return int(any(text != (DOCS / name).read_text() for name, text in files.items()))
    for name, text in files.items():
        (DOCS / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
