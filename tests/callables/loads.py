"""Functions that answer a load in ways of their own."""

from __future__ import annotations

import itertools
import time

import numpy as np

from ipc_server.typed import Float32

_calls = itertools.count(1)
SLOW_S = 0.02


def fails_every_third(x: Float32[4]) -> Float32[4]:
    """Twice as much, or nothing."""
    if next(_calls) % 3 == 0:
        raise ValueError("the third")
    return x * np.float32(2)


def fails(x: Float32[4]) -> Float32[4]:
    """Never anything."""
    raise ValueError("it never works")


def drifts(x: Float32[4]) -> Float32[4]:
    """Every time more."""
    return x + np.float32(next(_calls))


def slow(x: Float32[4]) -> Float32[4]:
    """Twice as much, after a while."""
    time.sleep(SLOW_S)
    return x * np.float32(2)
