"""The two cores of the benchmark: one for the client, one for the other side."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError

CPU_FOLDER = Path("/sys/devices/system/cpu")
NEEDED = 2


@dataclass(frozen=True)
class Cores:
    """Where the sides are pinned."""

    client: int
    server: int
    siblings: bool
    """Whether both are threads of one physical core, for lack of two."""


def choose(allowed: Iterable[int] | None = None, siblings: Callable[[int], set[int]] | None = None) -> Cores:
    """Choose two of the allowed processors, on different physical cores where there are such.

    The highest numbers are taken: the first processor serves most interrupts. Raises BenchError when there
    is only one.
    """
    free = sorted(os.sched_getaffinity(0) if allowed is None else allowed, reverse=True)
    if len(free) < NEEDED:
        raise BenchError(
            f"the benchmark needs two processors, and this process may use {len(free)}: two sides that wait "
            "for each other on one would measure the scheduler. Use a larger machine, or widen its affinity"
        )
    threads_of = siblings or thread_siblings
    client = free[0]
    apart = [core for core in free[1:] if core not in threads_of(client)]
    return Cores(client, (apart or free[1:])[0], not apart)


def thread_siblings(core: int) -> set[int]:
    """Give the processors of the same physical core, itself among them."""
    try:
        text = (CPU_FOLDER / f"cpu{core}/topology/thread_siblings_list").read_text(encoding="ascii")
    except OSError:
        return {core}
    return parse_list(text)


def parse_list(text: str) -> set[int]:
    """Read a list of processors as the kernel writes it: `0-2,5`."""
    found: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
        found.update(range(int(first), int(last or first) + 1))
    return found
