"""Another domain's pauses: a minor collection of one while another infers. OCaml 5 only."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.daemon import Daemon, resting
from bench.driver import Samples
from bench.freezing import freeze, thaw
from bench.models import write
from bench.paths import BUILD_OCAML, OCAML, check_built
from bench.program import measured_by
from bench.results import Row
from bench.stats import summary_of_runs

PROGRAM = OCAML / "ocaml/pauses.exe"
MODEL = "wide"
CALLER = "pauses"
COUNT = 2000
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Scenario:
    """What domain A does meanwhile."""

    name: str
    cores: int
    """Threads that are busy at a time, domain B's and the daemon's among them."""
    served: str | None = None


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("alone", 1),
        Scenario("asleep", 1),
        Scenario("ffi-locked", 2),
        Scenario("ffi-released", 2),
        Scenario("ipc-released", 3, "native-adaptive"),
        Scenario("ipc-block", 2, "native-block"),
    )
}


def measure(runs: int) -> dict[str, list[Samples]]:
    """Measure every scenario in every run, nothing pinned: threads of the program go where they will, too."""
    check_built(PROGRAM, BUILD_OCAML)
    found: dict[str, list[Samples]] = defaultdict(list)
    variants = [scenario.served for scenario in SCENARIOS.values() if scenario.served]
    with tempfile.TemporaryDirectory(prefix="sidecaml-bench-") as name:
        folder = Path(name)
        file = write(MODEL, folder)
        with resting(MODEL, file, variants, folder, None) as daemon:
            for _ in range(runs):
                for scenario in SCENARIOS.values():
                    found[scenario.name].append(_one(scenario, file, daemon, folder))
    return dict(found)


def rows_of(found: Mapping[str, list[Samples]]) -> list[Row]:
    """Make a row of each scenario."""
    return [
        {
            "path": name,
            "model": MODEL,
            "caller": CALLER,
            "cores": SCENARIOS[name].cores,
            **summary_of_runs(runs),
        }
        for name, runs in found.items()
    ]


def content(found: Mapping[str, list[Samples]], machine: Mapping[str, Any]) -> dict[str, Any]:
    """Give the content of pauses.json, which may come from another machine than the rest."""
    return {"machine": {**machine, "pinning": None}, "rows": rows_of(found)}


def _one(scenario: Scenario, file: Path, daemon: Daemon, folder: Path) -> Samples:
    command = [str(PROGRAM), "--scenario", scenario.name, "--model", str(file), "--count", str(COUNT)]
    workers: list[int] = []
    if scenario.served:
        served = daemon.served(f"{MODEL}--{scenario.served}")
        command += served.arguments
        workers.append(daemon.workers[served.name])
    thaw(workers)
    samples = measured_by(f"pauses, scenario {scenario.name}", command, folder, PATIENCE_S)
    freeze(workers)
    return samples
