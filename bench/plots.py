"""The curves of docs/reference/benchmarks.md, from the figures that `peers.py --json` wrote: how cost grows.

The same figures make the same files, byte by byte.
"""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator

from peer_figures import OURS, Cost, Figure, Size
from peers import load

_INCHES = (8.2, 3.4)
_COLOURS = {
    "fleetmem": "#c1272d",
    "paramiko": "#0072b2",
    "parallel-ssh": "#009e73",
    "ansible": "#7f7f7f",
    "clush": "#e69f00",
    "ssh + xargs": "#8a5fb0",
}
_SECOND_FORMS = ("text", "curve25519-sha256")


class Curve(NamedTuple):
    """One plot: a panel for each part, a line for each program.

    Attributes:
        file: its name.
        x_label: what varies.
        y_label: what is measured, with its unit.
        x: what varies, of a size.
        y: what is measured.
        fixed: whether a size belongs into it.
        parts: that have a panel.
    """

    file: str
    x_label: str
    y_label: str
    x: Callable[[Size], float]
    y: Callable[[Cost, Size], float]
    fixed: Callable[[Size], bool]
    parts: tuple[str, ...] = ("cold", "warm")


CURVES = [
    Curve(
        "client-cpu-by-hosts.svg",
        "hosts (150 processes, no delay)",
        "client CPU, ms a host",
        lambda size: size.hosts,
        lambda cost, size: cost.client_cpu_seconds / size.hosts * 1000,
        lambda size: size.processes == 150 and size.round_trip_ms == 0,
    ),
    Curve(
        "host-cpu-by-processes.svg",
        "processes (50 hosts, no delay)",
        "host CPU, ms a host",
        lambda size: size.processes,
        lambda cost, size: cost.host_cpu_seconds / size.hosts * 1000,
        lambda size: size.hosts == 50 and size.round_trip_ms == 0,
    ),
    Curve(
        "client-cpu-by-processes.svg",
        "processes (50 hosts, no delay)",
        "client CPU, ms a host",
        lambda size: size.processes,
        lambda cost, size: cost.client_cpu_seconds / size.hosts * 1000,
        lambda size: size.hosts == 50 and size.round_trip_ms == 0,
    ),
    Curve(
        "wall-by-round-trip.svg",
        "round trip, ms (50 hosts, 150 processes)",
        "wall time, s",
        lambda size: size.round_trip_ms,
        lambda cost, _size: cost.wall_seconds,
        lambda size: size.hosts == 50 and size.processes == 150,
        ("cold",),  # warm it says little: `fleetmem run` spreads its hosts over the interval
    ),
    Curve(
        "memory-by-hosts.svg",
        "hosts (150 processes, no delay)",
        "client's memory, MB",
        lambda size: size.hosts,
        lambda cost, _size: cost.memory_bytes / 1_000_000,
        lambda size: size.processes == 150 and size.round_trip_ms == 0,
    ),
]


def draw(curve: Curve, figures: list[Figure], path: Path) -> None:
    """Draws a plot; cost is on a logarithmic axis, the programs are that far apart."""
    figure, rows = plt.subplots(1, len(curve.parts), figsize=_INCHES, sharey=True, squeeze=False, layout="constrained")
    panels = rows[0]
    chosen = [each for each in figures if curve.fixed(each.size)]
    for part, axes in zip(curve.parts, panels, strict=True):
        for program in dict.fromkeys(each.program for each in chosen):
            points = sorted(_points(curve, part, (each for each in chosen if each.program == program)))
            _line(axes, program, points)
        _dress(axes, part, curve, sorted({curve.x(each.size) for each in chosen}))
    panels[0].set_ylabel(curve.y_label)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    plt.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _points(curve: Curve, part: str, figures: Iterable[Figure]) -> list[tuple[float, float]]:
    pairs = ((each.size, each.part(part)) for each in figures)
    return [(curve.x(size), curve.y(cost, size)) for size, cost in pairs if cost]


def _line(axes: Axes, program: str, points: list[tuple[float, float]]) -> None:
    xs, ys = [x for x, _y in points], [y for _x, y in points]
    colour = _COLOURS[program.partition(",")[0]]
    style = "--" if program.endswith(_SECOND_FORMS) else "-"
    is_ours = program == OURS
    axes.plot(
        xs, ys, style, color=colour, label=program, marker="o", markersize=4, linewidth=2.4 if is_ours else 1.3,
        zorder=3 if is_ours else 2,
    )  # fmt: skip


def _dress(axes: Axes, title: str, curve: Curve, xs: list[float]) -> None:
    plain = FuncFormatter(lambda value, _position: f"{value:g}")
    axes.set_title(title, fontsize=10)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    if xs[0] > 0:
        axes.set_xscale("log")
        axes.set_xlim(xs[0] * 0.8, xs[-1] * 1.25)
    else:
        axes.set_xscale("symlog", linthresh=20)
        axes.set_xlim(-4, xs[-1] * 1.25)
    axes.set_xticks(xs)
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(plain)
    axes.yaxis.set_major_formatter(plain)
    axes.set_xlabel(curve.x_label, fontsize=9)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Draws every curve that has at least two points."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path, help="what `peers.py --json` wrote")
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parents[1] / "docs" / "plots")
    given = parser.parse_args()
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "fleetmem"
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text: smaller, and it can be searched
    given.folder.mkdir(parents=True, exist_ok=True)
    figures = load(given.figures)
    for curve in CURVES:
        if len({curve.x(each.size) for each in figures if curve.fixed(each.size)}) > 1:
            draw(curve, figures, given.folder / curve.file)
            print(given.folder / curve.file)


if __name__ == "__main__":
    main()
