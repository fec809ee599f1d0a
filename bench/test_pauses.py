"""Another domain's pauses, replayed."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import replay
from bench.driver import Samples
from bench.pauses import SCENARIOS
from bench.replayed import replay_runs
from bench.results import Row


@pytest.mark.benchmark(timer=replay.timer)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_pause(
    benchmark: BenchmarkFixture, pausing: tuple[dict[str, list[Samples]], list[Row]], scenario: str
) -> None:
    """One thing that the other domain does meanwhile."""
    found, rows = pausing
    replay_runs(benchmark, "pauses", found[scenario], rows[list(SCENARIOS).index(scenario)])
