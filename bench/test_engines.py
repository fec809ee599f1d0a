"""Calls by every engine, replayed."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import replay
from bench.driver import Samples
from bench.engines import names
from bench.replayed import replay_runs
from bench.results import Row


@pytest.mark.benchmark(timer=replay.timer)
@pytest.mark.parametrize("engine", names())
def test_engines(
    benchmark: BenchmarkFixture, by_engine: tuple[dict[str, list[Samples]], list[Row]], engine: str
) -> None:
    """One engine."""
    found, rows = by_engine
    replay_runs(benchmark, "engines", found[engine], rows[list(found).index(engine)])
