"""Measures what many requests cost, and writes and shows what was to be reached."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

# Before anything loads ONNX Runtime, here or in a child.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from bench import cores, machine, results
from bench.cores import Cores
from bench.errors import BenchError
from bench.paths import ROOT
from bench.throughput import loads, overhead, peers, requests
from bench.throughput.outcomes import Outcome, page
from bench.throughput.requests import Side
from bench.throughput.serving import MODELS, Serving, at_once, pinned, serving
from ipc_server.errors import SidecamlError

JSON = "throughput.json"
PAGE = "throughput.md"
PARTS = ("requests", "overhead", "clients", "channels", "flood", "deadlines", "peers")


class Throughput:
    """One benchmark: parts, each with the daemon that it needs."""

    def __init__(self, folder: Path, runs: int, pair: Cores) -> None:
        """Measure each part so many times."""
        self._folder = folder
        self._runs = runs
        self._cores = pair

    def requests(self) -> list[Outcome]:
        """One program, many requests: it is on a core of its own, and so is the worker; both ways round."""
        found = []
        one, other = self._cores.server, self._cores.client
        with contextlib.ExitStack() as stack:
            sides = []
            for worker, program in ((one, other), (other, one)):
                running = stack.enter_context(self._serving(MODELS, pinned(worker), f"worker-{worker}"))
                sides.append(Side(running, worker, program))
            for model in MODELS:
                times = requests.measure(sides, model, self._runs, self._folder)
                found += requests.outcomes(model, times)
        return found

    def overhead(self) -> list[Outcome]:
        """What a worker does beside running the model."""
        return [overhead.outcome(self._runs, self._cores, self._folder)]

    def clients(self) -> list[Outcome]:
        """Eight clients."""
        with self._serving([loads.MODEL], f"max_batch = {loads.MOST_ROWS}") as running:
            return [loads.eight_clients(running, self._folder, self._runs)]

    def channels(self) -> list[Outcome]:
        """More and more channels, of a worker and a client that have a core each."""
        with self._serving([loads.MODEL], self._alone_with_slots()) as running:
            return loads.channels(running, self._runs, self._cores.client)

    def flood(self) -> list[Outcome]:
        """One client beside one that floods."""
        found = []
        with self._serving(loads.VICTIMS) as running:
            for model in loads.VICTIMS:
                side = Side(running, self._cores.server, self._cores.client)
                batch_ns = requests.batch_ns(side, model, self._folder)
                found.append(loads.flooded(running, model, batch_ns, self._runs))
        return found

    def deadlines(self) -> list[Outcome]:
        """Deadlines at a load that can be served, by a worker with a core that it keeps."""
        with self._serving([loads.MODEL], self._alone_with_slots()) as running:
            return loads.deadlines(running, self._runs, self._cores)

    def peers(self) -> list[Outcome]:
        """Other servers."""
        with self._serving([loads.MODEL], f"max_batch = {loads.MOST_ROWS}") as running:
            return peers.outcomes(running, self._folder, self._runs)

    def _alone_with_slots(self) -> str:
        return f"{pinned(self._cores.server)}\nmax_slots = {loads.SLOTS}\n{at_once()}"

    def _serving(
        self, models: Iterable[str], settings: str = "", name: str = "daemon"
    ) -> contextlib.AbstractContextManager[Serving]:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        return serving(folder, list(models), settings)


def measure(parts: Sequence[str], runs: int, tell: Callable[[str], None]) -> list[Outcome]:
    """Measure parts, one after the other."""
    pair = cores.choose()
    with tempfile.TemporaryDirectory(prefix="sidecaml-bench-") as name:
        bench = Throughput(Path(name), runs, pair)
        found: list[Outcome] = []
        for part in parts:
            tell(f"measuring: {part}")
            found += getattr(bench, part)()
            for outcome in found[-1:]:
                tell(f"{outcome.what}: {outcome.median:.3g}")
        return found


def main() -> int:
    """Measure, write and show."""
    parser = argparse.ArgumentParser(prog="python -m bench.throughput", description=__doc__)
    there = [part for part in PARTS if part != "peers" or peers.PYTHON.exists()]
    parser.add_argument(
        "--parts",
        default=",".join(there),
        help=f"only these of {', '.join(PARTS)}, with commas between; default: all that can be",
    )
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured; default: 3")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "bench/results", help="the folder for the results"
    )
    options = parser.parse_args()
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--parts: expected some of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    try:
        before = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": machine.commit(),
            "load_average": [round(load, 2) for load in os.getloadavg()],
            "busy_before": round(machine.busy_share(machine.BUSY_SAMPLE_S), 3),
            **machine.lasting(cores.choose()),
        }
        rows = [outcome.row() for outcome in measure(parts, options.runs, print)]
    except (BenchError, SidecamlError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    results.save(options.results, JSON, [before, *rows])
    text = page(rows, before)
    (options.results / PAGE).write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
