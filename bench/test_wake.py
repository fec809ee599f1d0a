"""What waking costs, replayed."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import replay
from bench.driver import Samples
from bench.replayed import replay_runs
from bench.results import Row
from bench.wake import WAKES, Wake


@pytest.mark.benchmark(timer=replay.timer)
@pytest.mark.parametrize("which", WAKES, ids=["-".join(wake).replace(" ", "-") for wake in WAKES])
def test_wake(
    benchmark: BenchmarkFixture, wakes: tuple[dict[Wake, list[Samples]], list[Row]], which: Wake
) -> None:
    """One mechanism, between two processes on one core or on two."""
    found, rows = wakes
    replay_runs(benchmark, f"wake, {which.place}", found[which], rows[WAKES.index(which)])
