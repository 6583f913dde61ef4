"""
Draws what a herd did over time, as SVG: nothing but text, so that it needs no library and differs by what was measured alone.
"""

from __future__ import annotations

from typing import Any

WIDTH, HEIGHT = 860, 420
LEFT, RIGHT, TOP, BOTTOM = 60, 60, 56, 60
COLOURS = {"start": "#999999", "enrolled": "#0072b2", "job": "#e69f00", "done": "#009e73", "busy": "#cc79a7"}
NAMES = {"start": "started", "enrolled": "joined", "job": "got their job", "done": "done", "busy": "cores busy"}


class Plot:
    """
    The frame of a drawing: seconds from left to right, VMs from the ground up and, where they are given, cores at the right.
    """

    def __init__(self, title: str, longest: float, count: int, cores: int | None = None) -> None:
        step = next(step for step in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600) if longest / step <= 12)
        self.across = (longest // step + 1) * step
        self.drawn = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
            f"<title>{title}</title>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            f'<text x="{LEFT}" y="22" font-size="15">{title}</text>',
        ]
        for number in range(5):
            part = number / 4
            y = self.y(part)
            self.draw(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
            self.draw(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{part * count:.0f}</text>')
            if cores is not None:
                self.draw(f'<text x="{WIDTH - RIGHT + 8}" y="{y + 4:.1f}" fill="{COLOURS["busy"]}">{part * cores:g}</text>')
        at = 0.0
        while at <= self.across:
            self.draw(f'<path d="M{self.x(at):.1f} {self.y(0):.1f}v4" stroke="#333333"/>')
            self.draw(f'<text x="{self.x(at):.1f}" y="{self.y(0) + 18:.1f}" text-anchor="middle">{at:.0f}</text>')
            at += step
        self.draw(f'<text x="{LEFT}" y="{HEIGHT - 16}">seconds</text>')

    def x(self, at: float) -> float:
        """Where so many seconds are."""
        return LEFT + at / self.across * (WIDTH - LEFT - RIGHT)

    def y(self, part: float) -> float:
        """Where such a part of all is, of VMs or of cores."""
        return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)

    def draw(self, element: str) -> None:
        """Upon what is there already."""
        self.drawn.append(element)

    def foot(self, text: str) -> None:
        """A line below, at the right."""
        self.draw(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 16}" text-anchor="end" fill="#666666" font-size="11">{text}</text>')

    def whole(self) -> str:
        """The drawing."""
        return "\n".join([*self.drawn, "</svg>"]) + "\n"


def herd(figures: dict[str, Any]) -> str:
    """Started, joined, applied and done, and how busy the machine was."""
    longest = max([1.0, figures["all_done_after"], *(at for at, *_rest in figures["load"])])
    count, cores = figures["count"] + figures["real"], figures["cores"]
    title = f"{count} VMs within {figures['spread']:.0f} s at one master, Salt {figures['line']}, {cores} cores"
    if figures["fault"] != "none":
        title += f"; {figures['fault']} fails"
    plot = Plot(title, longest, count, cores)
    x, y = plot.x, plot.y
    busy = [(at, min(1.0, cores_busy / cores)) for at, cores_busy, _ in figures["load"] if 0 <= at <= plot.across]
    plot.draw(_line([(x(at), y(part)) for at, part in busy], COLOURS["busy"], 1))
    for word in ("start", "enrolled", "job", "done"):
        points = [(x(0), y(0)), *((x(at), y(number / count)) for number, at in enumerate(figures["times"][word], 1))]
        plot.draw(_line(_thinned(points), COLOURS[word], 2))
    used = {
        "master": sum(seconds for name, seconds in figures["cpu"].items() if name.startswith("salt-master")),
        "service": sum(seconds for name, seconds in figures["cpu"].items() if "heat_bootstrap" in name),
        "those who play the VMs": sum(seconds for name, seconds in figures["cpu"].items() if name.startswith("players")),
        "other programs of this machine": figures["machine"]["others"],
    }
    plot.foot("CPU: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in used.items()))
    for at, what in figures["notes"]:
        plot.draw(f'<path d="M{x(at):.1f} {y(0):.1f}V{TOP}" stroke="#d55e00" stroke-dasharray="4 3"/>')
        plot.draw(f'<text x="{x(at) + 4:.1f}" y="{TOP + 10}" fill="#d55e00">{what}</text>')
    for number, (word, name) in enumerate(NAMES.items()):
        left = LEFT + number * 130
        plot.draw(
            f'<path d="M{left} 40h24" stroke="{COLOURS[word]}" stroke-width="3"/><text x="{left + 30}" y="44">{name}</text>'
        )
    return plot.whole()


def beside(token: dict[str, Any], classic: dict[str, Any]) -> str:
    """The same herd by a token and by the classic chain: joined, applied and done."""
    longest = max(1.0, *(at for run in (token, classic) for word in ("enrolled", "job", "done") for at in run["times"][word]))
    count = token["count"]
    title = f"{count} VMs within {token['spread']:.0f} s at one master, Salt {token['line']}; dashed: by the classic chain"
    plot = Plot(title, longest, count)
    x, y = plot.x, plot.y
    others = " and ".join(f"{run['machine']['others']:.0f}" for run in (token, classic))
    plot.foot(f"other programs of this machine took {others} s of CPU meanwhile")
    for run, dashes in ((token, ""), (classic, "6 4")):
        for word in ("enrolled", "job", "done"):
            points = [(x(0), y(0)), *((x(at), y(number / count)) for number, at in enumerate(run["times"][word], 1))]
            # Those that are done stay so.
            points.append((x(plot.across), points[-1][1]))
            plot.draw(_line(_thinned(points), COLOURS[word], 2, dashes))
    for number, word in enumerate(("enrolled", "job", "done")):
        left = LEFT + number * 130
        plot.draw(f'<path d="M{left} 40h24" stroke="{COLOURS[word]}" stroke-width="3"/>')
        plot.draw(f'<text x="{left + 30}" y="44">{NAMES[word]}</text>')
    return plot.whole()


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Not more than anybody can see."""
    kept = points[:1]
    for point in points[1:]:
        if point[0] - kept[-1][0] >= 0.5 or abs(point[1] - kept[-1][1]) >= 1.5:
            kept.append(point)
    return kept if len(points) < 2 or kept[-1] == points[-1] else [*kept, points[-1]]


def _line(points: list[tuple[float, float]], colour: str, width: int, dashes: str = "") -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dashed}/>'
