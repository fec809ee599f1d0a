"""Percentiles by nearest rank: each is a time that was measured."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# In thousandths, so that ranks are whole numbers and never rounded.
PERCENTILES: Final = {"p50_ns": 500, "p90_ns": 900, "p99_ns": 990, "p999_ns": 999, "max_ns": 1000}


def summary(samples: NDArray[Any]) -> dict[str, int]:
    """Count the samples and give their percentiles: each the smallest sample with so many below or equal."""
    count = len(samples)
    if not count:
        raise ValueError("no samples")
    ordered = np.sort(samples)
    ranks = {name: -(-count * thousandths // 1000) for name, thousandths in PERCENTILES.items()}
    return {"n": count, **{name: int(ordered[rank - 1]) for name, rank in ranks.items()}}
