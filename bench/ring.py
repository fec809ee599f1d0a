"""The ring by itself: what its checks cost a call, and what staging costs by size."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from bench.cores import Cores
from bench.driver import Samples
from bench.paths import BUILD_C, ROOT, check_built
from bench.program import measured_by
from bench.results import Row
from bench.rounds import rotated
from bench.stats import differences, ratios, spread, summary_of_runs
from ipc_server.bench.percentiles import PERCENTILES

PROGRAMS = {"checked": ROOT / "build/bench/ring", "unchecked": ROOT / "build/bench/ring_unchecked"}
# Of a model that does nothing; as in Goal, the name is the path's.
EMPTY = "empty"
ONE_THREAD, TWO_CORES = "one thread", "two cores"
PLACES = (ONE_THREAD, TWO_CORES)
# A look at the clock costs a third of such a call: it is taken once for so many.
CALLS_A_SAMPLE = 100
SAMPLES = 150
# On a shared machine each way must meet the slow seconds and the fast ones.
ROUNDS = {"Check": 6, "Stage": 3}
SIZES = (4 * 2**10, 16 * 2**10, 64 * 2**10, 256 * 2**10, 2**20, 4 * 2**20, 16 * 2**20)
IN_PLACE, STAGED = "in place", "staged"
# How many bytes are moved for one size and way in a round, and at least so many calls.
BYTES_A_ROUND = 16 * 2**20
CALLS_LEAST, CALLS_MOST = 5, 300
PATIENCE_S = 120.0


class Check(NamedTuple):
    """One build of the ring, in one place."""

    path: str
    caller: str


class Stage(NamedTuple):
    """Tensors of one size, on the segment or on private memory."""

    path: str
    bytes: int


K = TypeVar("K", Check, Stage)
CHECKS = tuple(Check(f"ring-{path}", caller) for caller in PLACES for path in PROGRAMS)
STAGES = tuple(Stage(path, size) for size in SIZES for path in (IN_PLACE, STAGED))


def measure_checks(runs: int, cores: Cores) -> dict[Check, list[Samples]]:
    """Measure calls of an empty model with the checks and without them, round by round."""
    return _measure(CHECKS, runs, cores, _check)


def measure_stages(runs: int, cores: Cores) -> dict[Stage, list[Samples]]:
    """Measure calls of a model that copies its input to its output."""
    return _measure(STAGES, runs, cores, _stage)


def rows_of_checks(found: Mapping[Check, list[Samples]]) -> list[Row]:
    """Make a row of each build and place: nanoseconds a call, with what the checks add."""
    summaries = {check: _a_call(summary_of_runs(runs)) for check, runs in found.items()}
    return [
        {"model": EMPTY, **check._asdict(), **mine, **_added(mine, _other(check, summaries))}
        for check, mine in summaries.items()
    ]


def rows_of_stages(found: Mapping[Stage, list[Samples]]) -> list[Row]:
    """Make a row of each size and way, with what staging adds."""
    summaries = {stage: summary_of_runs(runs) for stage, runs in found.items()}
    return [
        {
            **stage._asdict(),
            **mine,
            **_added(mine, summaries[stage._replace(path=IN_PLACE)] if stage.path == STAGED else None),
        }
        for stage, mine in summaries.items()
    ]


def _measure(
    keys: Sequence[K], runs: int, cores: Cores, one: Callable[[K, Cores, Path], Samples]
) -> dict[K, list[Samples]]:
    for program in PROGRAMS.values():
        check_built(program, BUILD_C)
    found: dict[K, list[Samples]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="sidecaml-bench-") as name:
        for _ in range(runs):
            parts: dict[K, list[Samples]] = defaultdict(list)
            for number in range(ROUNDS[type(keys[0]).__name__]):
                for key in rotated(keys, number):
                    parts[key].append(one(key, cores, Path(name)))
            for key in keys:
                found[key].append(np.concatenate(parts[key]))
    return dict(found)


def _check(check: Check, cores: Cores, folder: Path) -> Samples:
    program = PROGRAMS[check.path.removeprefix("ring-")]
    command = [str(program), "--bytes=0", f"--count={SAMPLES}", f"--calls={CALLS_A_SAMPLE}"]
    command.append(f"--client-core={cores.client}")
    if check.caller == TWO_CORES:
        command.append(f"--server-core={cores.server}")
    return measured_by(f"{check.path} on {check.caller}", command, folder, PATIENCE_S)


def _stage(stage: Stage, cores: Cores, folder: Path) -> Samples:
    count = min(max(BYTES_A_ROUND // stage.bytes, CALLS_LEAST), CALLS_MOST)
    command = [str(PROGRAMS["checked"]), f"--bytes={stage.bytes}", f"--count={count}", "--calls=1"]
    command += [f"--client-core={cores.client}", f"--server-core={cores.server}"]
    if stage.path == STAGED:
        command.append("--staged")
    return measured_by(f"{stage.bytes} bytes {stage.path}", command, folder, PATIENCE_S)


def _a_call(summary: Row) -> Row:
    """Turn the summary of samples of many calls into one of a call."""

    def divided(part: Row) -> Row:
        times = {name: round(part[name] / CALLS_A_SAMPLE, 2) for name in PERCENTILES}
        return {"n": part["n"] * CALLS_A_SAMPLE, **times}

    return {**divided(summary), "per_run": [divided(run) for run in summary["per_run"]]}


def _other(check: Check, summaries: Mapping[Check, Row]) -> Row | None:
    other = check._replace(path="ring-unchecked")
    return None if other == check else summaries[other]


def _added(mine: Row, other: Row | None) -> Row:
    """What it is more than the other: divided and subtracted, within each run."""
    if other is None:
        return {}
    ratio, added = ratios(mine, [other], "p50_ns"), differences(mine, [other], "p50_ns")
    return {**_spread("ratio_p50", ratio, 4), **_spread("added_p50_ns", added, 2)}


def _spread(name: str, values: Sequence[float], digits: int) -> Row:
    median, least, most = (round(value, digits) for value in spread(values))
    return {name: median, f"{name}_min": least, f"{name}_max": most}
