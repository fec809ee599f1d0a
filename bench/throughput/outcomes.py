"""What must be reached, and what was."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.report import table
from bench.results import Row

Runs = Sequence[float]


@dataclass(frozen=True)
class Outcome:
    """One goal: a number for each run, all of the same machine within a minute or so."""

    what: str
    values: Runs
    limit: float
    sense: str = "at least"
    unit: str = ""
    note: str = ""
    # What the numbers were made of.
    detail: list[Row] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The run in the middle, which counts."""
        return statistics.median(self.values)

    @property
    def reached(self) -> bool:
        """Whether it reaches the goal."""
        return self.median >= self.limit if self.sense == "at least" else self.median <= self.limit

    def row(self) -> Row:
        """Give it in a form for JSON."""
        shown: dict[str, Any] = {"what": self.what, "goal": f"{self.sense} {self.limit:g}{self.unit}"}
        shown |= {"median": self.median, "min": min(self.values), "max": max(self.values)}
        shown |= {"runs": len(self.values), "values": list(self.values), "reached": self.reached}
        return shown | {"note": self.note, "detail": self.detail}


def page(rows: Sequence[Row], machine: Row) -> str:
    """Write the report in Markdown."""
    head = ["what", "goal", "median", "least to greatest", "reached"]
    lines = table(head, [_cells(row) for row in rows])
    notes = "".join(f"- {row['what']}: {row['note']}\n" for row in rows if row["note"])
    about = (
        f"{machine['date']}, commit {machine['commit']}. {machine['cpu']}, {machine['processors']} processors"
        f"{', virtual' if machine['virtual'] else ''}; Linux {machine['kernel']}, onnxruntime "
        f"{machine['onnxruntime']}, OCaml {machine['ocaml']}. Busy before it began: "
        f"{machine['busy_before']:.0%}; load average {machine['load_average'][0]:.2f}."
    )
    return (
        "# Many requests\n\nHow this is measured: [docs/throughput.md](../../docs/throughput.md).\n\n"
        f"{about}\n\n{lines}\n\n{notes}"
    )


def _cells(row: Row) -> list[str]:
    found = [f"{row[name]:.3g}" for name in ("median", "min", "max")]
    return [
        row["what"],
        row["goal"],
        found[0],
        f"{found[1]} to {found[2]}",
        "yes" if row["reached"] else "**no**",
    ]
