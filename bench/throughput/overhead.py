"""What a worker does for a request beside running the model: `ring --window`, where that does nothing."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.cores import Cores
from bench.paths import BUILD_C, ROOT, check_built
from bench.program import measured_by
from bench.throughput.outcomes import Outcome

PROGRAM = ROOT / "build/bench/ring"
WINDOW = 32
# Of `small`. Its output does not lie in place, and is copied to each request's slot.
BYTES = 256
OUTPUT_BYTES = 40
SAMPLES = 200
WINDOWS_A_SAMPLE = 50
MOST_NS = 60.0
PATIENCE_S = 120.0
# Nothing here waits for anybody, so the least is what the code takes, and what is more the machine adds:
# a processor of a virtual machine runs at half its speed for seconds. Both processors in turn.
TURNS = 12


def measure(options: Sequence[str], cores: Cores, folder: Path) -> float:
    """Give the least of the turns' medians, in nanoseconds a request."""
    check_built(PROGRAM, BUILD_C)
    both = (cores.client, cores.server)
    return min(_turn(options, both[turn % len(both)], folder) for turn in range(TURNS))


def _turn(options: Sequence[str], core: int, folder: Path) -> float:
    command = [str(PROGRAM), "--bytes", str(BYTES), "--window", str(WINDOW), *options]
    command += ["--count", str(SAMPLES), "--calls", str(WINDOWS_A_SAMPLE), "--client-core", str(core)]
    samples = measured_by("the ring, in windows", command, folder, PATIENCE_S)
    return float(np.median(samples)) / (WINDOWS_A_SAMPLE * WINDOW)


def outcome(runs: int, cores: Cores, folder: Path) -> Outcome:
    """Hold it against the goal, with what it takes with copies and without batches beside it."""
    ways = {"in place": ["--batches"], "copied": ["--batches", f"--output-bytes={OUTPUT_BYTES}"], "apart": []}
    times = {way: [measure(options, cores, folder) for _ in range(runs)] for way, options in ways.items()}
    middle = {way: statistics.median(values) for way, values in times.items()}
    return Outcome(
        f"worker's time a request that is not the engine's, window {WINDOW}, nanoseconds",
        times["in place"],
        MOST_NS,
        "at most",
        note=f"{middle['copied']:.0f} ns when an output of {OUTPUT_BYTES} bytes, as of small, is copied "
        f"to its slot; {middle['apart']:.0f} ns when requests are run one by one",
    )
