"""What waking costs: two sleepers that pass a token by a POSIX semaphore, a futex or an eventfd."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import posix_ipc

from bench.cores import Cores
from bench.driver import Samples
from bench.paths import BUILD_C, ROOT, check_built
from bench.program import measured_by
from bench.results import Row
from bench.stats import summary_of_runs

PROGRAM = ROOT / "build/bench/wake"
MECHANISMS = ("posix", "futex", "eventfd")
PLACES = ("one core", "two cores")
COUNT = 2000
PATIENCE_S = 60.0


class Wake(NamedTuple):
    """One way to wake, in one place."""

    mechanism: str
    place: str


WAKES = tuple(Wake(mechanism, place) for place in PLACES for mechanism in MECHANISMS)


def measure(runs: int, cores: Cores) -> dict[Wake, list[Samples]]:
    """Measure every mechanism in every run, side by side."""
    check_built(PROGRAM, BUILD_C)
    found: dict[Wake, list[Samples]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="sidecaml-bench-") as name:
        for _ in range(runs):
            for wake in WAKES:
                found[wake].append(_one(wake, Path(name), cores))
    return dict(found)


def rows_of(found: Mapping[Wake, list[Samples]]) -> list[Row]:
    """Make a row of each mechanism and place."""
    return [{**wake._asdict(), **summary_of_runs(runs)} for wake, runs in found.items()]


def _one(wake: Wake, folder: Path, cores: Cores) -> Samples:
    other = cores.client if wake.place == "one core" else cores.server
    places = [f"--client-core={cores.client}", f"--server-core={other}"]
    with contextlib.ExitStack() as stack:
        named = []
        if wake.mechanism == "posix":
            named = ["--semaphores", *stack.enter_context(two_semaphores())]
        command = [str(PROGRAM), "--mechanism", wake.mechanism, *places, f"--count={COUNT}", *named]
        return measured_by(f"waking by {wake.mechanism} on {wake.place}", command, folder, PATIENCE_S)


@contextlib.contextmanager
def two_semaphores() -> Iterator[list[str]]:
    """Make two POSIX semaphores at zero; their names vanish with the context."""
    made: list[posix_ipc.Semaphore] = []
    try:
        for which in ("ping", "pong"):
            name = f"/sidecaml-bench-{os.getpid()}-{which}"
            made.append(posix_ipc.Semaphore(name, posix_ipc.O_CREX, mode=0o600))
        yield [semaphore.name for semaphore in made]
    finally:
        for semaphore in made:
            semaphore.unlink()
            semaphore.close()
