"""Functions with state, for the tests: what they return as `next` is their `state` in the next request."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def recurrent(x: Array, state: Array, shape: NDArray[np.int64]) -> dict[str, Array]:
    """Do what models.recurrent does."""
    if shape[0] != 8:
        raise ValueError("a shape that does not fit")
    y = x + state * np.float32(0.5)
    return {"y": y, "next": np.tanh(y)}


def growing(x: Array, state: Array) -> dict[str, Array]:
    """Return a state of another size than it took."""
    return {"y": x, "next": np.zeros(len(state) + int(x[0]), np.float32)}
