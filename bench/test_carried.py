"""Calls with state, carried and copied, replayed."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import replay
from bench.carried import NAMES
from bench.driver import Samples
from bench.replayed import replay_runs
from bench.results import Row


@pytest.mark.benchmark(timer=replay.timer)
@pytest.mark.parametrize("path", NAMES)
def test_carried(
    benchmark: BenchmarkFixture, carrying: tuple[dict[str, list[Samples]], list[Row]], path: str
) -> None:
    """One path."""
    found, rows = carrying
    replay_runs(benchmark, "state carried or copied", found[path], rows[list(NAMES).index(path)])
