"""What the latencies must reach, as data, and whether they do. A goal that is missed fails nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.results import Row
from bench.rounds import Cell
from bench.stats import differences, ratios, spread

Place = tuple[str, str]

# The cells of another domain's pauses: model and caller of rows in pauses.json.
PAUSES: Place = ("wide", "pauses")
SMALL_TIGHT: Place = ("small", "tight")
SMALL_TOUCHED: Place = ("small", "touch-1m")
ID16: tuple[Place, ...] = (("id16", "tight"), ("id16", "touch-1m"))
MICROSECOND_NS = 1000.0


@dataclass(frozen=True)
class Goal:
    """A path against the best of others, in each of some places."""

    path: str
    against: tuple[str, ...]
    places: tuple[Place, ...]
    limit: float
    sense: str = "at most"
    field: str = "p50_ns"
    difference_us: bool = False
    """Compared by subtracting, in microseconds, instead of dividing."""
    note: str = ""

    @property
    def what(self) -> str:
        """Say what is compared."""
        sign = "minus" if self.difference_us else "over"
        others = self.against[0] if len(self.against) == 1 else f"the better of {' and '.join(self.against)}"
        return f"{self.path} {sign} {others}, {self.field.removesuffix('_ns')}" + (
            f" ({self.note})" if self.note else ""
        )

    @property
    def wanted(self) -> str:
        """Say what it must reach."""
        return f"{self.sense} {self.limit:g}" + (" µs" if self.difference_us else "")


IPC = "ipc-native-spin"
EMPTY_ONE_THREAD, EMPTY_TWO_CORES = ("empty", "one thread"), ("empty", "two cores")

GOALS = (
    Goal(IPC, ("floor",), (SMALL_TIGHT, SMALL_TOUCHED, *ID16), 1.05),
    Goal(IPC, ("floor",), (SMALL_TIGHT, SMALL_TOUCHED, *ID16), 1.15, field="p99_ns"),
    Goal(IPC, ("ffi-locked", "ffi-released"), (SMALL_TIGHT,), 1.05),
    Goal(
        IPC,
        ("ffi-locked", "ffi-released"),
        (SMALL_TOUCHED,),
        0.80,
        note="below the plain in-process call",
    ),
    Goal(IPC, ("ffi-helper-spin",), (SMALL_TIGHT, SMALL_TOUCHED), 1.02, note="isolation for free"),
    Goal(IPC, ("floor",), (("id1m", "tight"), ("id16m", "tight")), 1.05),
    Goal("ipc-native-adaptive", (IPC,), (SMALL_TIGHT, SMALL_TOUCHED), 1.10, note="the default"),
    Goal("ipc-native-block", ("floor-block",), (SMALL_TIGHT,), 1.10),
    Goal("ipc-python-spin", (IPC,), (SMALL_TIGHT,), 4.0, difference_us=True),
    Goal("uds-msgpack", (IPC,), (SMALL_TIGHT,), 12.0, "at least"),
    Goal("uds-msgpack", (IPC,), (("id1m", "tight"),), 3.0, "at least"),
    Goal("uds-msgpack", (IPC,), (("id16m", "tight"),), 8.0, "at least"),
    Goal("ffi-locked", ("ipc-released",), (PAUSES,), 4.0, "at least", note="another domain's pause, OCaml 5"),
    Goal("ipc-released", ("ffi-released",), (PAUSES,), 1.2, note="another domain's pause, OCaml 5"),
    Goal("ffi-locked", ("c-inprocess",), (SMALL_TIGHT,), 1.05, note="Sidecaml_ffi against bare C"),
    Goal(
        "ring-checked",
        ("ring-unchecked",),
        (EMPTY_ONE_THREAD, EMPTY_TWO_CORES),
        0.03,
        difference_us=True,
        note="what is checked and noted on every call",
    ),
)


@dataclass(frozen=True)
class Outcome:
    """A goal in one place: median, least and greatest over runs; None where something was not measured."""

    goal: Goal
    place: Place
    measured: tuple[float, float, float] | None

    @property
    def reached(self) -> bool | None:
        """Whether the median reaches the goal."""
        if self.measured is None:
            return None
        median = self.measured[0]
        return median <= self.goal.limit if self.goal.sense == "at most" else median >= self.goal.limit


def outcomes(rows: Mapping[Cell, Row], goals: Sequence[Goal] = GOALS) -> list[Outcome]:
    """Hold every goal against what was measured."""
    return [Outcome(goal, place, _measured(goal, place, rows)) for goal in goals for place in goal.places]


def _measured(goal: Goal, place: Place, rows: Mapping[Cell, Row]) -> tuple[float, float, float] | None:
    mine = rows.get(Cell(*place, goal.path))
    others = [rows[cell] for path in goal.against if (cell := Cell(*place, path)) in rows]
    if mine is None or len(others) != len(goal.against):
        return None
    if goal.difference_us:
        return spread([value / MICROSECOND_NS for value in differences(mine, others, goal.field)])
    return spread(ratios(mine, others, goal.field))
