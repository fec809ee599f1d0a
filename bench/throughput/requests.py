"""One program with many requests: a window of them through the daemon, against calls in process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from bench.driver import Samples
from bench.paths import BUILD_OCAML, OCAML, check_built
from bench.program import measured_by
from bench.rounds import rotated
from bench.throughput.outcomes import Outcome
from bench.throughput.serving import Serving

PROGRAM = OCAML / "ocaml/throughput.exe"
# As bench/ocaml/throughput.ml has it: the requests of a sample, and how many are in flight at most.
GROUP = 32
ENGINE, ENGINE_BATCH, SINGLE, ASSEMBLED = "engine-1", "engine-32", "single", "assembled"
# Of twice as many slots, the next burst filled meanwhile; and of as many, in halves.
WINDOW, HALVES = "window-spin", "window-halves"
WINDOWS = (WINDOW, HALVES)
PATHS = (ENGINE, ENGINE_BATCH, SINGLE, ASSEMBLED, *WINDOWS)
# Samples a round, by model: some 20 ms of single calls.
COUNTS = {"tiny": 400, "small": 60, "wide": 6}
# The share of the engine's own gain from batches that must arrive.
SHARES = {"tiny": 0.6, "small": 0.9, "wide": 0.9}
# Processors of a virtual machine change their speed by half, each by itself, for seconds. So a round is
# short; all of it that runs the model does so on one processor, the worker's, in process as well; and in the
# next it is the other.
ROUNDS = 10
PATIENCE_S = 120.0

# Nanoseconds a request, by path: of one round.
Times = dict[str, float]


@dataclass(frozen=True)
class Side:
    """One of the two ways round: a daemon, and the processors of its workers and of the program."""

    serving: Serving
    worker: int
    program: int


def measure(sides: Sequence[Side], model: str, runs: int, folder: Path) -> list[list[Times]]:
    """Measure every path in every round of every run: medians."""
    check_built(PROGRAM, BUILD_OCAML)
    return [
        [_round(sides[turn % len(sides)], model, turn, folder) for turn in range(ROUNDS)] for _ in range(runs)
    ]


def _round(side: Side, model: str, turn: int, folder: Path) -> Times:
    return {path: _one(side, model, path, folder) / GROUP for path in rotated(PATHS, turn)}


def _one(side: Side, model: str, path: str, folder: Path) -> float:
    command = [str(PROGRAM), "--path", path, "--count", str(COUNTS[model])]
    core = side.program if path in WINDOWS else side.worker
    if path in WINDOWS:
        command += ["--name", model, "--socket", str(side.serving.socket)]
    else:
        command += ["--model", str(side.serving.files[model])]
    samples: Samples = measured_by(f"{model}, path {path}", command, folder, PATIENCE_S, core)
    return float(np.median(samples))


def outcomes(model: str, runs: list[list[Times]]) -> list[Outcome]:
    """Hold a model's times against the goals."""
    found = [
        Outcome(
            f"{model}: window of {GROUP} against single calls in process, as a share of what the engine "
            f"gains from batches of {GROUP}",
            _by_run(runs, WINDOW, share_of_gain),
            SHARES[model],
            note=f"{median(_by_run(runs, HALVES, share_of_gain)):.3g} with a window of {GROUP} that takes "
            "all slots, in halves",
            detail=[dict(times) for run in runs for times in run],
        )
    ]
    if model == "small":
        what = f"{model}: the same against calls in process on batches of {GROUP} that the caller assembled"
        halves = median(_by_run(runs, HALVES, _against_assembled))
        found.append(
            Outcome(what, _by_run(runs, WINDOW, _against_assembled), 0.9, note=f"{halves:.3g} in halves")
        )
    return found


def _by_run(runs: list[list[Times]], path: str, share: Callable[[Times, str], float]) -> list[float]:
    """Compare within each round: the median of each run's."""
    return [median(share(times, path) for times in run) for run in runs]


def _against_assembled(times: Times, path: str) -> float:
    return times[ASSEMBLED] / times[path]


def batch_ns(side: Side, model: str, folder: Path) -> float:
    """Give what the engine takes for one batch."""
    return _one(side, model, ENGINE_BATCH, folder)


def share_of_gain(times: Times, path: str) -> float:
    """Divide what a path gains over single calls by what the engine gains over itself."""
    return (times[SINGLE] / times[path]) / (times[ENGINE] / times[ENGINE_BATCH])
