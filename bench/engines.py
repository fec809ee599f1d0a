"""One model by every engine, from one OCaml program, both sides spinning."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from bench.cores import Cores
from bench.daemon import Daemon, resting
from bench.driver import Driver, Samples
from bench.engine_forms import NUMPY, write_weights
from bench.errors import BenchError
from bench.freezing import freeze, thaw
from bench.models import write
from bench.paths import PATHS
from bench.process import environment
from bench.results import Row
from bench.stats import ratios, spread, summary_of_runs

MODEL = "small"
CALLER = "tight"
# The OCaml driver, which does not know what runs the model.
PATH = PATHS["ipc-native-spin"]
REFERENCE = "onnx, native lane"
VARIANTS = {
    REFERENCE: "native-spin",
    "onnx, python lane": "python-spin",
    "python, numpy": f"{NUMPY}-spin",
    "torch, TorchScript": "torchscript-spin",
    "torch, .pt2": "pt2-spin",
}
NEEDS_TORCH = tuple(name for name in VARIANTS if name.startswith("torch"))
ROUNDS = 4
COUNT = 250
BUDGET_NS = 100_000_000
SEEDS = 4
# Engines add up in different orders: their bits differ.
TOLERANCE = 1e-4
WRITE_S = 300.0


def names() -> tuple[str, ...]:
    """Name what can be measured here: without PyTorch its engine is left out."""
    has_torch = importlib.util.find_spec("torch") is not None
    return tuple(name for name in VARIANTS if has_torch or name not in NEEDS_TORCH)


def measure(runs: int, cores: Cores) -> dict[str, list[Samples]]:
    """Measure every engine in every run, round by round."""
    found: dict[str, list[Samples]] = defaultdict(list)
    measured = names()
    with tempfile.TemporaryDirectory(prefix="sidecaml-bench-") as name:
        folder = Path(name)
        file = write(MODEL, folder)
        write_forms(file, folder, bool(set(measured) & set(NEEDS_TORCH)))
        variants = [VARIANTS[engine] for engine in measured]
        with resting(MODEL, file, variants, folder, cores.server) as daemon:
            for _ in range(runs):
                for engine, samples in _run(measured, file, daemon, folder, cores).items():
                    found[engine].append(samples)
    return dict(found)


def write_forms(file: Path, folder: Path, with_torch: bool) -> None:
    """Write the model for each engine. PyTorch is loaded in a process of its own."""
    write_weights(file, folder)
    if not with_torch:
        return
    command = [sys.executable, "-W", "ignore", "-m", "bench.engine_forms", str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=WRITE_S, check=False
    )
    if done.returncode:
        raise BenchError(f"{MODEL} could not be written for PyTorch: {done.stderr[-2000:]}")


def rows_of(found: Mapping[str, list[Samples]]) -> list[Row]:
    """Make a row of each engine, with its ratio to the native lane."""
    summaries = {engine: summary_of_runs(runs) for engine, runs in found.items()}
    rows = []
    for engine, mine in summaries.items():
        median, least, most = spread(ratios(mine, [summaries[REFERENCE]], "p50_ns"))
        ratio = {"p50": median, "p50_min": least, "p50_max": most}
        shown = {f"ratio_to_native_{what}": round(value, 4) for what, value in ratio.items()}
        rows.append({"path": engine, "model": MODEL, "caller": CALLER, **mine, **shown})
    return rows


def check_close(outputs: Mapping[str, bytes]) -> None:
    """Check that every engine computes the same, but for rounding. Raises BenchError."""
    expected = np.frombuffer(outputs[REFERENCE], "<f4")
    for engine, data in outputs.items():
        values = np.frombuffer(data, "<f4")
        if values.shape != expected.shape or not np.allclose(values, expected, TOLERANCE, TOLERANCE):
            raise BenchError(
                f"{MODEL}: the engine {engine} gives other outputs than {REFERENCE}: {values[:4]}, and not "
                f"{expected[:4]}"
            )


def _run(
    measured: tuple[str, ...], file: Path, daemon: Daemon, folder: Path, cores: Cores
) -> dict[str, Samples]:
    """Measure once with fresh programs."""
    parts: dict[str, list[Samples]] = defaultdict(list)
    with ExitStack() as cleanup:
        drivers: dict[str, Driver] = {}
        for engine in measured:
            own = folder / VARIANTS[engine]
            own.mkdir(exist_ok=True)
            with _Awake(daemon, engine):
                served = daemon.served(f"{MODEL}--{VARIANTS[engine]}")
                drivers[engine] = Driver(PATH, file, cores, own, served)
            cleanup.callback(drivers[engine].kill)
        outputs = {}
        for engine, driver in drivers.items():
            with _Awake(daemon, engine):
                outputs[engine] = driver.outputs(SEEDS)
        check_close(outputs)
        for _ in range(ROUNDS):
            for engine, driver in drivers.items():
                with _Awake(daemon, engine):
                    parts[engine].append(driver.call(0, COUNT, BUDGET_NS))
        for engine, driver in drivers.items():
            with _Awake(daemon, engine):
                driver.end()
    return {engine: np.concatenate(samples) for engine, samples in parts.items()}


class _Awake:
    """The worker of one engine, while it is needed."""

    def __init__(self, daemon: Daemon, engine: str) -> None:
        self._workers = [daemon.workers[f"{MODEL}--{VARIANTS[engine]}"]]

    def __enter__(self) -> None:
        thaw(self._workers)

    def __exit__(self, *_: object) -> None:
        freeze(self._workers)
