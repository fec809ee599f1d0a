"""What an idle daemon costs, replayed."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import replay
from bench.idle import SLOTS, Idle
from bench.replayed import replay_runs
from bench.results import Row


@pytest.mark.benchmark(timer=replay.timer)
@pytest.mark.parametrize("slots", SLOTS)
def test_idle(benchmark: BenchmarkFixture, idling: tuple[list[Idle], list[Row]], slots: int) -> None:
    """Processor time of each second, with channels of so many slots."""
    found, rows = idling
    index = SLOTS.index(slots)
    replay_runs(benchmark, "idle daemon, processor time a second", [found[index].samples], rows[index])
