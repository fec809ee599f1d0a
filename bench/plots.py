"""Plots of the results as SVG: `python -m bench.plots [RESULTS [FOLDER]]`. Equal results give equal bytes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from bench import results
from bench.errors import BenchError
from bench.models import IDENTITY_BYTES
from bench.paths import PATHS, ROOT
from bench.plotting import BLUE, GREY, LINE_WIDTH, LINES, ORANGE, STYLE, direct_labels, new_axes, time_ticks
from bench.results import Row
from bench.settings import RESULTS

DOCS = ROOT / "docs"
SHARES = {
    1.0: "all",
    0.5: "p50   50 %",
    0.1: "p90   10 %",
    0.01: "p99   1 %",
    0.001: "p99.9   0.1 %",
    0.0001: "p99.99   0.01 %",
}
# Shown with a decimal below.
SMALL_US = 10
PAUSE_COLORS = {"ffi-locked": ORANGE, "ffi-released": ORANGE, "ipc-released": BLUE, "ipc-block": BLUE}
PLACES = ("tight", "touch-1m")
TITLES = {
    "tight": "small, called in a tight loop",
    "touch-1m": "small, the caller touches 1 MiB of its own between calls",
}


def latency_plot(distributions: Sequence[Row], caller: str) -> Figure | None:
    """Show the share of calls that took longer, for every path with the model `small`."""
    rows = [row for row in distributions if (row["model"], row["caller"]) == ("small", caller)]
    if not rows:
        return None
    figure, axes = new_axes(TITLES[caller])
    for row in rows:
        color, dashes = LINES[row["path"]]
        beyond = [1 - fraction for fraction in row["fraction"]]
        axes.plot(_microseconds(row["ns"]), beyond, color=color, linestyle=dashes, linewidth=LINE_WIDTH)
    least = min(1 - row["fraction"][-1] for row in rows)
    axes.set(xscale="log", yscale="log", ylim=(least, 1.0))
    ticks = {share: text for share, text in SHARES.items() if share >= least}
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("microseconds a call")
    axes.set_ylabel("share of calls that take longer")
    time_ticks(axes.xaxis)
    _legend(axes, sorted(rows, key=_median))
    return figure


def size_plot(rows: Sequence[Row]) -> Figure | None:
    """Show the median against the size of the one tensor that an identity returns."""
    points = {
        path: sorted(
            (IDENTITY_BYTES[row["model"]], row["p50_ns"])
            for row in rows
            if row["path"] == path and row["caller"] == "tight" and row["model"] in IDENTITY_BYTES
        )
        for path in PATHS
    }
    points = {path: found for path, found in points.items() if len(found) > 1}
    if not points:
        return None
    figure, axes = new_axes("Identity of one tensor: median against its size")
    for path, found in points.items():
        color, dashes = LINES[path]
        sizes, times = zip(*found, strict=True)
        style: Any = {
            "color": color,
            "linestyle": dashes,
            "linewidth": LINE_WIDTH,
            "marker": "o",
            "markersize": 4,
        }
        axes.plot(sizes, _microseconds(times), **style)
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(list(IDENTITY_BYTES.values()), ["64 B", "1 MiB", "16 MiB"])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("bytes in, and as many out")
    axes.set_ylabel("microseconds a call, median")
    time_ticks(axes.yaxis)
    direct_labels(axes, points)
    return figure


def pauses_plot(pauses: dict[str, Any] | None) -> Figure | None:
    """Show median and p99.9 of another domain's pauses, and how far the medians of runs lie apart."""
    if not pauses:
        return None
    rows = list(reversed(pauses["rows"]))
    figure, axes = new_axes("Minor collection of one domain while another infers (OCaml 5)", height=3.6)
    for place, row in enumerate(rows):
        color = PAUSE_COLORS.get(row["path"], GREY)
        median, tail = row["p50_ns"] / 1000, row["p999_ns"] / 1000
        medians = [run["p50_ns"] / 1000 for run in row["per_run"]]
        axes.plot([median, tail], [place, place], color=color, linewidth=1.2, alpha=0.5)
        axes.plot([min(medians), max(medians)], [place, place], color=color, linewidth=5, alpha=0.5)
        axes.plot(median, place, "o", color=color, markersize=7)
        axes.plot(tail, place, "o", color=color, markersize=7, markerfacecolor="white")
        axes.annotate(
            f"{median:.{1 if median < SMALL_US else 0}f}",
            (median, place),
            (0, 9),
            textcoords="offset points",
            ha="center",
        )
        axes.annotate(f"{tail:,.0f}", (tail, place), (0, 9), textcoords="offset points", ha="center")
    processors = pauses["machine"]["processors"]
    labels = [row["path"] + (" *" if row["cores"] > processors else "") for row in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(-0.6, len(rows) - 0.3)
    axes.set_xscale("log")
    starred = "; * needs a third core" if any(row["cores"] > processors for row in rows) else ""
    axes.set_xlabel(
        f"microseconds a pause: filled the median, hollow p99.9, bar the medians of the runs{starred}"
    )
    time_ticks(axes.xaxis)
    return figure


@mpl.rc_context(STYLE)
def write(source: Path, folder: Path) -> list[Path]:
    """Write every plot that there are results for. Raises BenchError when there are none."""
    rows, distributions = (results.load(source, name) for name in (results.LATEST, results.DISTRIBUTIONS))
    if rows is None or distributions is None:
        raise BenchError(f"{source} holds no results: measure first, with `make bench`")
    plots = {f"bench-{caller}.svg": latency_plot(distributions, caller) for caller in PLACES}
    plots["bench-size.svg"] = size_plot(rows)
    plots["bench-pauses.svg"] = pauses_plot(results.load(source, results.PAUSES))
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / name for name, figure in plots.items() if figure]
    for name, figure in plots.items():
        if figure:
            figure.savefig(folder / name, metadata={"Date": None})
            pyplot.close(figure)
    return written


def _microseconds(ns: Sequence[float]) -> list[float]:
    return [value / 1000 for value in ns]


def _median(row: Row) -> float:
    place = min(range(len(row["fraction"])), key=lambda i: abs(row["fraction"][i] - 0.5))
    return float(row["ns"][place])


def _legend(axes: Axes, rows: Sequence[Row]) -> None:
    for row in rows:
        color, dashes = LINES[row["path"]]
        label = f"{row['path']}  {_median(row) / 1000:.3g}"
        axes.plot([], [], color=color, linestyle=dashes, linewidth=LINE_WIDTH, label=label)
    legend = axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    legend.set_title("path and its median, in µs")
    legend.set_alignment("left")


def main() -> int:
    """Write the plots."""
    source = Path(sys.argv[1]) if sys.argv[1:] else RESULTS
    folder = Path(sys.argv[2]) if sys.argv[2:] else DOCS
    try:
        written = write(source, folder)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    for file in written:
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
