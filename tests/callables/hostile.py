"""Functions whose clients take their memory away while they run."""

from __future__ import annotations

import faulthandler
import signal
import time

import numpy as np

from ipc_server.typed import Float32, Out


def rereads(seconds: Float32[()], x: Float32[20000], y: Out[Float32[20000]]) -> None:
    """Read `x` and write `y` for so long; `y` is 2 `x`."""
    end = time.monotonic() + float(seconds)
    while True:
        np.multiply(x, np.float32(2), out=y)
        if time.monotonic() >= end:
            return


def rereads_with_faulthandler(seconds: Float32[()], x: Float32[20000], y: Out[Float32[20000]]) -> None:
    """Enable the handler in the middle of a request."""
    faulthandler.enable()
    rereads(seconds, x, y)


def rereads_with_a_handler(seconds: Float32[()], x: Float32[20000], y: Out[Float32[20000]]) -> None:
    """Install a handler of Python's, which returns to where the fault was; from the next request on."""
    rereads(seconds, x, y)
    signal.signal(signal.SIGBUS, lambda *_: None)
