"""The order of measuring: in one run every path, interleaved round by round."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from bench.cores import Cores
from bench.driver import Samples, compare_outputs
from bench.models import write
from bench.settings import CALLERS, SEEDS, Settings

T = TypeVar("T")


class Cell(NamedTuple):
    """What one distribution is about."""

    model: str
    caller: str
    path: str


class Paths(Protocol):
    """All paths of one model, ready to be measured."""

    def call(self, path: str, touch: int, count: int, budget_ns: int) -> Samples:
        """Measure calls on one path."""

    def outputs(self, path: str, seeds: int) -> bytes:
        """Give one path's outputs."""

    def change_sides(self) -> None:
        """Have client and server change cores, for every path."""


# Of each cell, the samples of each run.
Measured = dict[Cell, list[Samples]]
OpenPaths = Callable[[str, Path, Sequence[str], Cores, Path], AbstractContextManager[Paths]]
Tell = Callable[[str], None]


def rotated(paths: Sequence[T], by: int) -> list[T]:
    """Begin with another path each round, so that none always comes first or after the same pause."""
    by %= len(paths)
    return [*paths[by:], *paths[:by]]


def measure(settings: Settings, cores: Cores, open_paths: OpenPaths, tell: Tell) -> Measured:
    """Measure everything. Raises BenchError when a path fails or computes something else."""
    measured: Measured = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="sidecaml-bench-") as name:
        files = {model: write(model, Path(name)) for model in settings.models}
        for run in range(settings.runs):
            for model, file in files.items():
                tell(f"run {run + 1} of {settings.runs}: {model}")
                folder = Path(name, f"{run}-{model}")
                folder.mkdir()
                with open_paths(model, file, settings.paths, cores, folder) as paths:
                    found = measure_model(settings, run, model, paths)
                for cell, samples in found.items():
                    measured[cell].append(samples)
    return dict(measured)


def measure_model(settings: Settings, run: int, model: str, paths: Paths) -> dict[Cell, Samples]:
    """Measure all paths of one model in one run."""
    outputs = {path: paths.outputs(path, SEEDS) for path in settings.paths}
    compare_outputs(model, SEEDS, outputs)
    parts: dict[Cell, list[Samples]] = defaultdict(list)
    for number in range(settings.rounds_of(model)):
        order = rotated(settings.paths, run * settings.rounds + number)
        for caller in settings.callers:
            for path in order:
                samples = paths.call(path, CALLERS[caller], settings.calls, settings.budget_ns)
                parts[Cell(model, caller, path)].append(samples)
        # On a shared machine one core may be slower than the other, for as long as its neighbour is busy.
        paths.change_sides()
    return {cell: np.concatenate(samples) for cell, samples in parts.items()}
