"""Latencies of every path, replayed: `python -m pytest bench/test_latency.py`."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import replay
from bench.replayed import replay_runs
from bench.results import Row
from bench.rounds import Cell, Measured


@pytest.mark.benchmark(timer=replay.timer)
def test_latency(
    benchmark: BenchmarkFixture,
    latencies: tuple[Measured, dict[Cell, Row]],
    model: str,
    caller: str,
    path: str,
) -> None:
    """One path, with one model and one caller."""
    measured, rows = latencies
    cell = Cell(model, caller, path)
    replay_runs(benchmark, f"{model}, {caller}", measured[cell], rows[cell])
