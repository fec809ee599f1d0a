"""Models that are Python functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def through(*arrays: np.ndarray) -> Sequence[np.ndarray]:
    """Give every input back."""
    return arrays
