"""A function that some requests kill, and that notes which requests each of its runs had."""

from __future__ import annotations

import os
import signal

import numpy as np

from ipc_server.typed import Float32

# What the worker tries by itself when it loads is below.
FIRST = 1000
POISON = 2000


def triple(x: Float32["N", 16]) -> Float32["N", 16]:
    """Three times as much, unless a row begins with POISON or more."""
    numbers = x[:, 0]
    if np.all(numbers >= FIRST):
        note = os.open(os.environ["RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(note, b" ".join(b"%d" % number for number in numbers) + b"\n")
        os.close(note)
        if np.any(numbers >= POISON):
            os.kill(os.getpid(), signal.SIGKILL)
    return x * np.float32(3)
