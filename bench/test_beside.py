"""Calls beside a busy systhread, replayed."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import replay
from bench.beside import PATHS
from bench.driver import Samples
from bench.replayed import replay_runs
from bench.results import Row


@pytest.mark.benchmark(timer=replay.timer)
@pytest.mark.parametrize("path", PATHS)
def test_beside(
    benchmark: BenchmarkFixture, besides: tuple[dict[str, list[Samples]], list[Row]], path: str
) -> None:
    """One path."""
    found, rows = besides
    replay_runs(benchmark, "beside a systhread", found[path], rows[list(PATHS).index(path)])
