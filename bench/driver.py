"""One driver process: the path that it measures, told by lines what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.cores import Cores
from bench.errors import BenchError
from bench.paths import PathSpec
from bench.process import LineProcess

READY_S = 120.0
# Beyond the budget of a command: warming up, the least number of calls, writing the samples.
GRACE_S = 120.0

Samples = NDArray[np.uint64]


@dataclass(frozen=True)
class Served:
    """A model of a running daemon."""

    name: str
    socket: Path

    @property
    def arguments(self) -> list[str]:
        """The arguments that name it."""
        return ["--name", self.name, "--socket", str(self.socket)]


class Driver:
    """A driver that is ready to measure."""

    def __init__(
        self, spec: PathSpec, model: Path, cores: Cores, folder: Path, served: Served | None = None
    ) -> None:
        """Start it on the client's core and wait until it is ready."""
        self.path = spec.name
        self._file = folder / f"{spec.name}.samples"
        arguments = ["--path", spec.name, "--model", str(model), "--server-core", str(cores.server)]
        self._process = LineProcess(
            f"driver of path {spec.name} with model {model.stem}",
            [*spec.command, *arguments, *(served.arguments if served else [])],
            core=cores.client,
            log=folder / f"{spec.name}.log",
        )
        try:
            self.others = self._others(self._answer(READY_S, "ready"))
        except BaseException:
            self._process.kill()
            raise

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def call(self, touch: int, count: int, budget_ns: int) -> Samples:
        """Have it call the model and give the nanoseconds of each call."""
        self._file.unlink(missing_ok=True)
        words = self._command(f"call {touch} {count} {budget_ns} {self._file}", budget_ns / 1e9 + GRACE_S)
        samples = np.fromfile(self._file, dtype="<u8")
        if words != [str(len(samples))] or not len(samples):
            raise self._process.failure(f"said {words} samples, and wrote {len(samples)}")
        return samples

    def outputs(self, seeds: int) -> bytes:
        """Have it run the inputs of each seed and give all outputs, one after the other."""
        self._file.unlink(missing_ok=True)
        words = self._command(f"outputs {seeds} {self._file}", GRACE_S)
        if words != [str(seeds)]:
            raise self._process.failure(f"was asked for the outputs of {seeds} seeds, and said {words}")
        return self._file.read_bytes()

    def end(self) -> None:
        """Have it clean up and end."""
        self._process.end()

    def kill(self) -> None:
        """End it at once, with its children."""
        self._process.kill()

    def _command(self, line: str, patience_s: float) -> list[str]:
        self._process.send(line)
        return self._answer(patience_s, "done")

    def _answer(self, patience_s: float, expected: str) -> list[str]:
        line = self._process.line(patience_s, f"answer {expected!r}")
        word, *rest = line.split() or [""]
        if word == "error":
            raise self._process.failure(line.removeprefix("error").strip())
        if word != expected:
            raise self._process.failure(f"expected a line that begins with {expected!r}, got {line!r}")
        return rest

    def _others(self, words: Sequence[str]) -> tuple[int, ...]:
        if not all(word.isdigit() for word in words):
            raise self._process.failure(f"expected process ids after 'ready', got {' '.join(words)!r}")
        return tuple(int(word) for word in words)


def compare_outputs(model: str, seeds: int, outputs: dict[str, bytes]) -> None:
    """Check that every path's outputs are, bit for bit, those of the first path. Raises BenchError."""
    reference, *others = outputs
    expected = outputs[reference]
    for path in others:
        found = outputs[path]
        if len(found) != len(expected):
            raise BenchError(
                f"model {model}: path {path} gave {len(found)} bytes of output, "
                f"{reference} gave {len(expected)}"
            )
        if found != expected:
            at = next(i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
            seed, offset = divmod(at, len(expected) // seeds)
            raise BenchError(
                f"model {model}: the output of path {path} differs from that of {reference}: "
                f"seed {seed}, byte {offset}: {found[at]:#04x} instead of {expected[at]:#04x}"
            )
