"""Where processes run, and whether: none takes a core or a cache line while another path is measured."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from bench.errors import BenchError

STOP_S = 5.0
_PAUSE_S = 0.0002


def freeze(pids: Iterable[int]) -> None:
    """Stop the processes, and wait until they have stopped."""
    wanted = list(pids)
    for pid in wanted:
        _signal(pid, signal.SIGSTOP)
    for pid in wanted:
        _wait_stopped(pid)


def thaw(pids: Iterable[int]) -> None:
    """Let the processes go on."""
    for pid in pids:
        _signal(pid, signal.SIGCONT)


def pin(pid: int, core: int) -> None:
    """Pin every thread of a process."""
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})
    except (FileNotFoundError, ProcessLookupError):
        raise BenchError(f"process {pid} or one of its threads ended while it was pinned") from None


def swap(pids: Iterable[int], one: int, other: int) -> None:
    """Have the threads that are pinned to one core go on on the other, and the reverse."""
    opposite = {one: other, other: one}
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            pinned = os.sched_getaffinity(int(thread.name))
            if len(pinned) == 1 and (core := pinned.pop()) in opposite:
                os.sched_setaffinity(int(thread.name), {opposite[core]})


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        raise BenchError(f"process {pid} ended during the benchmark: {number.name} found it gone") from None


def _wait_stopped(pid: int) -> None:
    end = time.monotonic() + STOP_S
    while (state := _state(pid)) not in "Tt":
        if state in "ZX":
            raise BenchError(f"process {pid} ended during the benchmark, when it was about to be stopped")
        if time.monotonic() > end:
            raise BenchError(f"process {pid} did not stop within {STOP_S:g} s: its state is {state}")
        time.sleep(_PAUSE_S)


def _state(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return "X"
    return stat.rpartition(")")[2].split()[0]
