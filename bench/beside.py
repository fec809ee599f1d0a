"""Calls beside a busy systhread: what holding or releasing OCaml's runtime lock costs them."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from bench.cores import Cores
from bench.daemon import Daemon, resting
from bench.driver import Samples
from bench.freezing import freeze, thaw
from bench.models import write
from bench.paths import BUILD_OCAML, OCAML, check_built
from bench.program import measured_by
from bench.results import Row
from bench.stats import summary_of_runs

PROGRAM = OCAML / "ocaml/beside.exe"
MODEL = "small"
CALLER = "beside-systhread"
VARIANT = "native-adaptive"
PATHS = ("ffi-locked", "ffi-released", "ipc-hold", "ipc-release")
# Each call waits for the other systhread, beforehand or while it is timed: 50 ms of OCaml's clock.
COUNT = 30
PATIENCE_S = 120.0


def measure(runs: int, cores: Cores) -> dict[str, list[Samples]]:
    """Measure every path in every run.

    The program is not pinned: on one core its two threads would take turns whatever became of the lock.
    """
    check_built(PROGRAM, BUILD_OCAML)
    found: dict[str, list[Samples]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="sidecaml-bench-") as name:
        folder = Path(name)
        file = write(MODEL, folder)
        with resting(MODEL, file, [VARIANT], folder, cores.server) as daemon:
            for _ in range(runs):
                for path in PATHS:
                    found[path].append(_one(path, file, daemon, folder))
    return dict(found)


def rows_of(found: Mapping[str, list[Samples]]) -> list[Row]:
    """Make a row of each path."""
    return [
        {"path": path, "model": MODEL, "caller": CALLER, **summary_of_runs(runs)}
        for path, runs in found.items()
    ]


def _one(path: str, file: Path, daemon: Daemon, folder: Path) -> Samples:
    command = [str(PROGRAM), "--path", path, "--model", str(file), "--count", str(COUNT)]
    workers: list[int] = []
    if path.startswith("ipc-"):
        command += daemon.served(f"{MODEL}--{VARIANT}").arguments
        workers += daemon.workers.values()
    thaw(workers)
    samples = measured_by(f"call beside a systhread, path {path}", command, folder, PATIENCE_S)
    freeze(workers)
    return samples
