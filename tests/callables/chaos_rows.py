"""The model that is a Python function."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from ipc_server.typed import Float32, Int64

# As if it worked: many a kill finds a run that has begun, and the processor is left to others.
RUN_S = 0.001


class Answer(NamedTuple):
    echo: Int64[1]
    y: Float32["N", 16]


def rows(id: Int64[1], x: Float32["N", 16]) -> Answer:
    """Three times each row and one more, in single precision at each step."""
    time.sleep(RUN_S)
    return Answer(id, x * np.float32(3) + np.float32(1))
