"""How plots of the benchmark look: colours, axes, names of lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

STYLE: Any = {
    # Text as outlines: it looks the same wherever it is shown.
    "svg.fonttype": "path",
    # Identifiers in the file do not change from one run to the next.
    "svg.hashsalt": "sidecaml",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlepad": 12,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "figure.facecolor": "white",
}
INK, MUTED = "#222222", "#666666"
# Okabe and Ito's palette, which colour-blind readers can tell apart; relatives differ by dashes.
BLUE, SKY, GREEN, ORANGE, VERMILION, PURPLE, GREY = (
    "#0072B2",
    "#56B4E9",
    "#009E73",
    "#E69F00",
    "#D55E00",
    "#CC79A7",
    "#777777",
)
LINES: dict[str, tuple[str, str]] = {
    "floor": ("#000000", "-"),
    "floor-block": ("#000000", ":"),
    "c-inprocess": (GREY, "--"),
    "ffi-locked": (ORANGE, "-"),
    "ffi-released": (ORANGE, "--"),
    "ffi-helper-spin": (ORANGE, ":"),
    "ipc-native-spin": (BLUE, "-"),
    "ipc-native-adaptive": (BLUE, "--"),
    "ipc-native-block": (BLUE, ":"),
    "ipc-python-spin": (SKY, "-"),
    "ipc-python-block": (SKY, ":"),
    "pyclient": (GREEN, "-"),
    "pyml": (PURPLE, "-"),
    "uds-msgpack": (VERMILION, "-"),
}
LINE_WIDTH = 1.6
# From here on the marks of an axis are powers of ten alone.
WIDE_RANGE = 300
LABEL_GAP = 0.046


def new_axes(title: str, height: float = 5.2) -> tuple[Figure, Axes]:
    """Make a figure with a title and a quiet grid."""
    figure, axes = pyplot.subplots(figsize=(8.4, height), layout="constrained")
    axes.set_title(title, color=INK)
    axes.grid(visible=True, which="major")
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, which="both")
    return figure, axes


def time_ticks(axis: Any) -> None:
    """Mark a logarithmic axis of microseconds with plain numbers."""
    least, most = axis.get_view_interval()
    steps = (1.0, 2.0, 5.0) if most / least < WIDE_RANGE else (1.0,)
    axis.set_major_locator(LogLocator(10, subs=steps))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def direct_labels(axes: Axes, points: dict[str, list[tuple[int, int]]]) -> None:
    """Write each line's name where it ends, moved apart where they would overlap."""
    to_axes = axes.transScale + axes.transLimits
    ends = {path: to_axes.transform((found[-1][0], found[-1][1] / 1000)) for path, found in points.items()}
    heights = moved_apart({path: float(end[1]) for path, end in ends.items()}, LABEL_GAP)
    for path, height in heights.items():
        color, dashes = LINES[path]
        x, y = ends[path]
        way = [x, 1.0, 1.03, 1.06], [y, y, height, height]
        axes.plot(*way, transform=axes.transAxes, color=color, linestyle=dashes, linewidth=1, clip_on=False)
        axes.text(1.07, height, path, transform=axes.transAxes, va="center", color=INK, fontsize=9)


def moved_apart(places: dict[str, float], gap: float) -> dict[str, float]:
    """Move labels apart until neighbours keep the gap; those in a crowd stay around its middle."""
    crowds: list[list[str]] = []
    for path in sorted(places, key=lambda path: places[path]):
        crowds.append([path])
        while len(crowds) > 1 and _top(crowds[-2], places, gap) + gap > _bottom(crowds[-1], places, gap):
            last = crowds.pop()
            crowds[-1] += last
    return {
        path: _bottom(crowd, places, gap) + gap * number
        for crowd in crowds
        for number, path in enumerate(crowd)
    }


def _bottom(crowd: Sequence[str], places: dict[str, float], gap: float) -> float:
    middle = sum(places[path] for path in crowd) / len(crowd)
    return middle - gap * (len(crowd) - 1) / 2


def _top(crowd: Sequence[str], places: dict[str, float], gap: float) -> float:
    return _bottom(crowd, places, gap) + gap * (len(crowd) - 1)
