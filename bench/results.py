"""What was measured, as rows of JSON: bench/results/*.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.driver import Samples
from bench.errors import BenchError
from bench.paths import FFI_LOCKED, FLOOR, PATHS
from bench.rounds import Cell, Measured
from bench.stats import ratios, spread, summary_of_runs

LATEST = "latest.json"
MACHINE = "machine.json"
DISTRIBUTIONS = "distributions.json"
WAKE = "wake.json"
BESIDE = "beside.json"
CARRIED = "carried.json"
ENGINES = "engines.json"
PAUSES = "pauses.json"
CHECKS = "checks.json"
STAGING = "staging.json"
IDLE = "idle.json"
# Of tables apart.
APART = (WAKE, BESIDE, CARRIED, ENGINES, PAUSES, CHECKS, STAGING, IDLE)

Row = dict[str, Any]
# The body in equal steps, the tail in steps of equal ratio towards 1.
_BODY = np.linspace(0, 0.9, 46)
_TAIL = 1 - np.logspace(-1, -4, 61)


def rows_of(measured: Measured) -> list[Row]:
    """Make a row of each cell, with its ratios to the floor and to the plain in-process path."""
    summaries = {cell: summary_of_runs(runs) for cell, runs in measured.items()}
    return [_row(cell, summaries) for cell in summaries]


def _row(cell: Cell, summaries: Mapping[Cell, Mapping[str, Any]]) -> Row:
    spec = PATHS[cell.path]
    mine = summaries[cell]
    row: Row = {"path": cell.path, "model": cell.model, "caller": cell.caller}
    row |= {name: value for name, value in mine.items() if name != "per_run"}
    for key, against in (("ffi_locked", FFI_LOCKED), ("floor", FLOOR)):
        row |= _ratio(f"ratio_to_{key}_p50", mine, summaries.get(cell._replace(path=against)))
    row |= {"runs": len(mine["per_run"]), "policy": spec.policy, "spinning": list(spec.spinning)}
    return row | {"cores": spec.cores, "per_run": mine["per_run"]}


def _ratio(key: str, mine: Mapping[str, Any], other: Mapping[str, Any] | None) -> Row:
    if other is None:
        return {key: None, f"{key}_min": None, f"{key}_max": None}
    median, least, most = spread(ratios(mine, [other], "p50_ns"))
    return {key: round(median, 4), f"{key}_min": round(least, 4), f"{key}_max": round(most, 4)}


def distribution(samples: Samples) -> dict[str, list[float]]:
    """Give the quantiles that a plot of the whole distribution needs, as far out as there are samples."""
    fractions = np.concatenate([_BODY, _TAIL[len(samples) * (1 - _TAIL) >= 1]])
    values = np.quantile(samples, fractions, method="inverted_cdf")
    return {"fraction": [round(float(f), 6) for f in fractions], "ns": [int(value) for value in values]}


def distributions_of(measured: Measured, models: Iterable[str]) -> list[Row]:
    """Give the distributions of these models' cells, all runs together."""
    wanted = set(models)
    return [
        {**cell._asdict(), **distribution(np.concatenate(runs))}
        for cell, runs in measured.items()
        if cell.model in wanted
    ]


def save(folder: Path, name: str, content: object) -> None:
    """Write a results file: a list has an object a line, so that a difference of two files can be read."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list):
        text = "[\n" + ",\n".join(json.dumps(row) for row in content) + "\n]\n"
    else:
        text = json.dumps(content, indent=2) + "\n"
    (folder / name).write_text(text, encoding="utf-8")


def clear(folder: Path) -> None:
    """Remove the results in a folder."""
    for name in (
        LATEST,
        MACHINE,
        DISTRIBUTIONS,
        WAKE,
        BESIDE,
        CARRIED,
        ENGINES,
        PAUSES,
        CHECKS,
        STAGING,
        IDLE,
    ):
        (folder / name).unlink(missing_ok=True)


def load(folder: Path, name: str) -> Any:
    """Read a results file; None when there is none."""
    file = folder / name
    if not file.exists():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BenchError(f"{file}: not JSON: {error}; measure again") from error


def index(rows: Sequence[Row] | None) -> dict[Cell, Row]:
    """Find rows by what they are about."""
    return {Cell(row["model"], row["caller"], row["path"]): row for row in rows or []}
