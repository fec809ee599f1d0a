"""State carried where the model runs, against state that the program copies from output to input."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bench.cores import Cores
from bench.daemon import Daemon, resting
from bench.driver import Samples
from bench.freezing import freeze, thaw
from bench.models import write
from bench.paths import BUILD_OCAML, OCAML, check_built
from bench.program import measured_by
from bench.results import Row
from bench.stats import ratios, spread, summary_of_runs

PROGRAM = OCAML / "ocaml/carried.exe"
MODEL = "vad"
CALLER = "streaming"
# Each with what it is compared with.
PATHS = {"ipc-carried": "ipc-copied", "ffi-carried": "ffi-copied"}
NAMES = tuple(name for pair in PATHS.items() for name in pair)
VARIANTS = {"ipc-carried": "native-spin-carried", "ipc-copied": "native-spin"}
# On a shared machine each path must meet its slow seconds and its fast ones.
ROUNDS = 4
COUNT = 250
PATIENCE_S = 60.0


def measure(runs: int, cores: Cores) -> dict[str, list[Samples]]:
    """Measure every path in every run, round by round."""
    check_built(PROGRAM, BUILD_OCAML)
    found: dict[str, list[Samples]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="sidecaml-bench-") as name:
        folder = Path(name)
        file = write(MODEL, folder)
        with resting(MODEL, file, set(VARIANTS.values()), folder, cores.server) as daemon:
            for _ in range(runs):
                parts: dict[str, list[Samples]] = defaultdict(list)
                for _ in range(ROUNDS):
                    for path in NAMES:
                        parts[path].append(_one(path, file, daemon, folder, cores))
                for path, samples in parts.items():
                    found[path].append(np.concatenate(samples))
    return dict(found)


def rows_of(found: Mapping[str, list[Samples]]) -> list[Row]:
    """Make a row of each path: with its ratio to the copying one, where the state is carried."""
    summaries = {path: summary_of_runs(runs) for path, runs in found.items()}
    return [
        {
            "path": path,
            "model": MODEL,
            "caller": CALLER,
            **mine,
            **_ratio(mine, summaries.get(PATHS.get(path, ""))),
        }
        for path, mine in summaries.items()
    ]


def _ratio(mine: Row, other: Row | None) -> Row:
    if other is None:
        return {}
    median, least, most = spread(ratios(mine, [other], "p50_ns"))
    return {
        "ratio_to_copied_p50": round(median, 4),
        "ratio_to_copied_p50_min": round(least, 4),
        "ratio_to_copied_p50_max": round(most, 4),
    }


def _one(path: str, file: Path, daemon: Daemon, folder: Path, cores: Cores) -> Samples:
    command = [str(PROGRAM), "--path", path, "--model", str(file), "--count", str(COUNT)]
    workers: list[int] = []
    if path in VARIANTS:
        served = f"{MODEL}--{VARIANTS[path]}"
        command += daemon.served(served).arguments
        workers.append(daemon.workers[served])
    thaw(workers)
    samples = measured_by(f"call with state, path {path}", command, folder, PATIENCE_S, cores.client)
    freeze(workers)
    return samples
