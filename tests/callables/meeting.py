"""Functions that tell when they ran, by files in the folder $MEETING."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ipc_server.typed import Int64

PATIENCE_S = 60.0
_runs = itertools.count()


def _wait_until(condition: Callable[[Path], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition(Path(os.environ["MEETING"])):
        if time.monotonic() > end:
            raise TimeoutError("nobody came")
        time.sleep(0.001)


def meets(x: Int64[1]) -> Int64[1]:
    """The process's number, once another process runs this as well."""
    (Path(os.environ["MEETING"]) / str(os.getpid())).touch()
    _wait_until(lambda folder: len(list(folder.iterdir())) > 1)
    return np.array([os.getpid()], np.int64)


def numbered(x: Int64[1]) -> Int64[1]:
    """How many runs came before, the first of which waits for a file `go`."""
    _wait_until(lambda folder: (folder / "go").exists())
    return np.array([next(_runs)], np.int64)
