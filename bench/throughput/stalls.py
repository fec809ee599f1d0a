"""How often processors are taken away: nothing that runs there can keep a deadline meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable

from bench.errors import BenchError


def count(cores: Iterable[int], seconds: float, least_ns: int) -> list[int]:
    """Count, on each processor at once, how often a loop that only reads the clock was stopped so long."""
    command = [sys.executable, "-m", "bench.throughput.stalls", str(seconds), str(least_ns)]
    loops = [
        subprocess.Popen([*command, str(core)], stdout=subprocess.PIPE, encoding="ascii") for core in cores
    ]
    said = [loop.communicate()[0] for loop in loops]
    if any(loop.returncode for loop in loops):
        raise BenchError("a loop that only reads the clock failed: see what it wrote above")
    return [int(words) for words in said]


def _watch(seconds: float, least_ns: int) -> int:
    found, last = 0, time.monotonic_ns()
    end = last + int(seconds * 1e9)
    while last < end:
        now = time.monotonic_ns()
        found += now - last >= least_ns
        last = now
    return found


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[3])})
    print(_watch(float(sys.argv[1]), int(sys.argv[2])))
