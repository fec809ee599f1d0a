"""Percentiles of samples, and ratios over runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.driver import Samples
from ipc_server.bench.percentiles import summary


def summary_of_runs(runs: Sequence[Samples]) -> dict[str, Any]:
    """Summarise all runs together, and each alone under `per_run`."""
    return {**summary(np.concatenate(list(runs))), "per_run": [summary(run) for run in runs]}


def per_run(row: Mapping[str, Any], field: str) -> list[float]:
    """Give one field of each run of a row."""
    return [float(run[field]) for run in row["per_run"]]


def ratios(row: Mapping[str, Any], others: Sequence[Mapping[str, Any]], field: str) -> list[float]:
    """Divide a row's field by the least of the others', within each run."""
    least = [min(values) for values in zip(*(per_run(other, field) for other in others), strict=True)]
    return [mine / other for mine, other in zip(per_run(row, field), least, strict=True)]


def differences(row: Mapping[str, Any], others: Sequence[Mapping[str, Any]], field: str) -> list[float]:
    """Subtract the least of the others' from a row's field, within each run."""
    least = [min(values) for values in zip(*(per_run(other, field) for other in others), strict=True)]
    return [mine - other for mine, other in zip(per_run(row, field), least, strict=True)]


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Give the median, the least and the greatest."""
    return statistics.median(values), min(values), max(values)


def thinned(samples: Samples, most: int) -> Samples:
    """Leave out samples, evenly over time, until there are no more than `most`."""
    if len(samples) <= most:
        return samples
    kept: Samples = samples[np.linspace(0, len(samples) - 1, most).astype(int)]
    return kept
