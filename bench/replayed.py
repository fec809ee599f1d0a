"""One replay through pytest-benchmark, the same for every kind of measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

from bench import replay
from bench.driver import Samples
from bench.stats import thinned

# pytest-benchmark's statistics are pure Python, and exact: more would take minutes.
MOST_SAMPLES = 20_000


def replay_runs(
    benchmark: BenchmarkFixture, group: str, runs: Sequence[Samples], row: Mapping[str, Any]
) -> None:
    """Give all runs' samples to pytest-benchmark, with what is known about them."""
    samples = thinned(np.concatenate(list(runs)), MOST_SAMPLES).tolist()
    benchmark.group = group
    benchmark.extra_info.update(row)
    replay.load(samples)
    # The library is not annotated.
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        replay.step, rounds=len(samples), iterations=1, warmup_rounds=0
    )
