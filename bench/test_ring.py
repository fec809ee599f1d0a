"""What checks cost, replayed."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench import replay
from bench.driver import Samples
from bench.replayed import replay_runs
from bench.results import Row
from bench.ring import CALLS_A_SAMPLE, CHECKS, Check


@pytest.mark.benchmark(timer=replay.timer)
@pytest.mark.parametrize("which", CHECKS, ids=["-".join(check).replace(" ", "-") for check in CHECKS])
def test_checks(
    benchmark: BenchmarkFixture, checking: tuple[dict[Check, list[Samples]], list[Row]], which: Check
) -> None:
    """One build of the ring, in one place."""
    found, rows = checking
    group = f"the ring alone, {CALLS_A_SAMPLE} calls, {which.caller}"
    replay_runs(benchmark, group, found[which], rows[CHECKS.index(which)])
