"""What staging costs, replayed."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import replay
from bench.driver import Samples
from bench.replayed import replay_runs
from bench.results import Row
from bench.ring import STAGES, Stage


@pytest.mark.benchmark(timer=replay.timer)
@pytest.mark.parametrize("which", STAGES, ids=[f"{s.bytes}-{s.path}".replace(" ", "-") for s in STAGES])
def test_staging(
    benchmark: BenchmarkFixture, staging: tuple[dict[Stage, list[Samples]], list[Row]], which: Stage
) -> None:
    """Tensors of one size, in place or staged."""
    found, rows = staging
    replay_runs(benchmark, f"staging, {which.bytes} bytes", found[which], rows[STAGES.index(which)])
