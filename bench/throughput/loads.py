"""Many clients, channels and deadlines: what `sidecaml bench` measures, held against the goals."""

from __future__ import annotations

import contextlib
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.cores import Cores
from bench.daemon import clean_environment
from bench.errors import BenchError
from bench.process import LineProcess
from bench.results import Row
from bench.rounds import rotated
from bench.throughput import stalls
from bench.throughput.outcomes import Outcome
from bench.throughput.requests import COUNTS, GROUP, PATIENCE_S, PROGRAM, SINGLE
from bench.throughput.serving import DIM, Serving
from ipc_server.abi import Policy
from ipc_server.bench.plan import Plan
from ipc_server.cli import EXIT_INTERRUPTED

MODEL = "small"
CLIENTS = 8
# Of one run where eight windows come together: as many as there can be.
MOST_ROWS = 128
WINDOW = 32
# Of the eight programs: samples, so that each runs for some seconds.
PROGRAM_ROUNDS = 60
# The numbers of channels that share one load.
CHANNELS = (1, 2, 8, 64)
# How often each number has its turn in a run, and for how long: so long that a hundred requests and more are
# beyond p99, but no longer than the most. Many short turns, for the host stops processors: where that is a
# hundredth of the time it is p99, and the middle of many turns is one that was left alone.
TURNS = 9
TURN_S, LONGEST_TURN_S = 0.7, 20.0
ENOUGH_ANSWERS = 20_000
SHARE_OF_SATURATION = 0.4
SATURATION_BOUND_NS = 1_000_000
DEADLINE_SHARE = 0.7
DEADLINE_NS = 1_000_000
DEADLINE_S = 3.0
# All that the eight clients may have in flight; one alone may have as much. Of 64 channels each has 4: hardly
# any request waits there for one before it.
SLOTS = CLIENTS * WINDOW
# Of the client beside one that floods, by model: requests a second, so few that none waits for another one;
# and seconds, for a thousand requests or more.
VICTIMS = {"small": (500.0, 3.0), "wide": (100.0, 10.0)}
LONG_S = 600
NS = 1e9


def eight_clients(serving: Serving, folder: Path, runs: int) -> Outcome:
    """Compare eight clients of one worker with eight programs that run the model in process."""
    rows, programs, values = [], [], []
    for _ in range(runs):
        programs.append(eight_programs(serving, folder))
        rows += serving.load(
            serving.plan(MODEL, clients=CLIENTS, window=WINDOW, burst=WINDOW // 2, check=True)
        )
        values.append(rows[-1]["answered_per_s"] / programs[-1])
    what = f"{MODEL}: {CLIENTS} clients, one worker, windows of {WINDOW}, over {CLIENTS} programs in process"
    pairs = zip(programs, rows, strict=True)
    detail: list[Row] = [{"programs_per_s": rate, "load": row} for rate, row in pairs]
    return Outcome(what, values, 2.0, detail=detail)


def eight_programs(serving: Serving, folder: Path) -> float:
    """Run eight programs at once: the requests a second of all, while all of them run."""
    count = COUNTS[MODEL] * PROGRAM_ROUNDS
    command = [str(PROGRAM), "--path", SINGLE, "--model", str(serving.files[MODEL]), "--count", str(count)]
    running: list[LineProcess] = []
    files = [folder / f"program{number}.samples" for number in range(CLIENTS)]
    try:
        for number, file in enumerate(files):
            log = folder / f"program{number}.log"
            running.append(LineProcess(f"program {number}", [*command, str(file)], log=log))
        for process in running:
            process.line(PATIENCE_S, "answer 'done'")
            process.end()
    finally:
        for process in running:
            process.kill()
    return sum(_rate_in_the_middle(file) for file in files)


def _rate_in_the_middle(file: Path) -> float:
    """Leave out the first and last quarter, when others start or have ended."""
    samples = np.fromfile(file, dtype="<u8")
    middle = samples[len(samples) // 4 : -(len(samples) // 4)]
    return float(len(middle) * GROUP * NS / middle.sum())


def saturation(serving: Serving, plan: Plan) -> float:
    """Search for the highest rate of which 99 of 100 requests are answered within the bound."""
    rows = serving.load(replace(plan, seconds=1.0), None, SATURATION_BOUND_NS)
    sustained = [row["offered_per_s"] for row in rows if row["sustained"]]
    if not sustained:
        raise BenchError(
            f"no rate at all is answered within {SATURATION_BOUND_NS / 1e6:g} ms here, so nothing can be "
            "measured at a share of the highest: try again on a machine that does nothing else"
        )
    return float(max(sustained))


def channels(serving: Serving, runs: int, core: int) -> list[Outcome]:
    """Spread one load over more and more channels: what the slowest and the dearest cost over the least.

    All are of one client, which spins on a core of its own: with a process each, the kernel's turns count.
    """
    rate = saturation(serving, _spread_over(serving, 2, core)) * SHARE_OF_SATURATION
    times, costs, detail = [], [], []
    for _ in range(runs):
        found = _turns(serving, rate, core)
        several = [rows for count, rows in found.items() if count > 1]
        times.append(spread([middle(rows, "p99_ns") for rows in several]))
        costs.append(spread([middle(rows, "worker_cpu_ns") for rows in several]))
        detail += [row for rows in found.values() for row in rows]
    load = f"{MODEL}: 2 to {CHANNELS[-1]} channels of one client, {rate:,.0f} requests a second together"
    lost = sum(row["failed"] + row["unsent"] for row in detail)
    note = (
        f"of each number the middle of {TURNS} turns; each p99 is of {min(row['n'] for row in detail):,} "
        f"answers or more, and {lost:,} requests had none"
    )
    return [
        Outcome(f"{load}: p99, greatest over least", times, 1.3, "at most", note=note, detail=detail),
        Outcome(f"{load}: worker's time a request, greatest over least", costs, 1.3, "at most"),
    ]


def _spread_over(serving: Serving, count: int, core: int) -> Plan:
    """Give each number as many slots in all: the same memory, and the same number that may be in flight."""
    window = SLOTS // count
    return serving.plan(MODEL, channels=count, window=window, policy=Policy.SPIN, cpus=[core])


def _turns(serving: Serving, rate: float, core: int) -> dict[int, list[Row]]:
    """Give each number of channels its turns, in changing order: what passes over the machine meets all."""
    seconds = min(max(TURN_S, ENOUGH_ANSWERS / rate), LONGEST_TURN_S)
    found: dict[int, list[Row]] = {count: [] for count in CHANNELS}
    for turn in range(TURNS):
        for count in rotated(CHANNELS, turn):
            plan = replace(_spread_over(serving, count, core), seconds=seconds)
            found[count] += serving.load(plan, [rate])
    return found


def middle(rows: Sequence[Row], name: str) -> float | None:
    """Give the median of what is known."""
    known = [row[name] for row in rows if row[name] is not None]
    return float(statistics.median(known)) if known else None


def spread(values: Sequence[float | None]) -> float:
    """Divide the greatest by the least, of those that are known; less than a nanosecond counts as one."""
    known = [max(value, 1.0) for value in values if value is not None]
    if not known:
        raise BenchError("nothing is known of what the workers used: did they die while they were measured?")
    return max(known) / min(known)


def flooded(serving: Serving, model: str, batch_ns: float, runs: int) -> Outcome:
    """Measure one client alone and beside one that keeps all its slots full: how much p99 grows."""
    rate, seconds = VICTIMS[model]
    plan = serving.plan(model, window=WINDOW, seconds=seconds)
    alone, beside = [], []
    for _ in range(runs):
        alone += serving.load(plan, [rate])
        with _flood(serving, model):
            beside += serving.load(plan, [rate])
    pairs = list(zip(alone, beside, strict=True))
    if None in [row["p99_ns"] for row in alone + beside]:
        raise BenchError(
            f"of {rate:g} requests of {model} a second none was answered, alone or beside a flood"
        )
    p99 = [statistics.median(row["p99_ns"] for row in rows) / 1e3 for rows in (alone, beside)]
    return Outcome(
        f"{model}: p99 beside a client that floods, more than alone, in run times of a batch of {GROUP}",
        [(full["p99_ns"] - free["p99_ns"]) / batch_ns for free, full in pairs],
        1.0,
        "at most",
        note=f"such a batch takes {batch_ns / 1e3:,.1f} us in process; p99 is {p99[0]:,.0f} us alone, and "
        f"{p99[1]:,.0f} us beside the flood",
        detail=[row for pair in pairs for row in pair],
    )


@contextlib.contextmanager
def _flood(serving: Serving, model: str) -> Iterator[None]:
    socket = str(serving.socket)
    command = [sys.executable, "-m", "ipc_server.cli", "bench", model, "--socket", socket]
    arguments = ["--window", "64", "--dims", f"{DIM}=1", "--policy", "block", "--seconds", str(LONG_S)]
    process = subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, env=clean_environment(), start_new_session=True
    )
    assert process.stdout
    try:
        # Its title, and the table's head, which it writes when its client is ready.
        if all(process.stdout.readline() for _ in range(2)):
            yield
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        # By itself it would have ended with another code.
        if process.wait() != EXIT_INTERRUPTED:
            raise BenchError(f"the client that floods ended with {process.returncode}: it did not flood")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def deadlines(serving: Serving, runs: int, cores: Cores) -> list[Outcome]:
    """Count requests whose deadline passed without a refusal, at a load that can be served.

    Of eight clients that sleep, and of one that spins on a core of its own and has as many slots as they.
    """
    several = serving.plan(MODEL, clients=CLIENTS, window=WINDOW)
    alone = serving.plan(MODEL, clients=1, window=SLOTS, policy=Policy.SPIN, cpus=[cores.client])
    return [
        _deadlines(serving, f"{CLIENTS} clients that sleep", several, runs, cores),
        _deadlines(serving, "one client that spins", alone, runs, cores),
    ]


def _deadlines(serving: Serving, who: str, plan: Plan, runs: int, cores: Cores) -> Outcome:
    rate = saturation(serving, plan) * DEADLINE_SHARE
    plan = replace(plan, seconds=DEADLINE_S, deadline_ns=DEADLINE_NS)
    rows, stops = [], []
    for _ in range(runs):
        rows += serving.load(plan, [rate])
        stops.append(stalls.count((cores.server, cores.client), DEADLINE_S, DEADLINE_NS))
    return Outcome(
        f"{MODEL}: {who}, at {DEADLINE_SHARE:.0%} of saturation, deadlines of 1 ms: missed without a refusal",
        [float(missed(row)) for row in rows],
        0,
        "at most",
        note="; ".join(map(split, rows)) + f". Right after, in as many seconds, {_stopped(stops)}",
        detail=rows,
    )


def _stopped(runs: Sequence[Sequence[int]]) -> str:
    times = ", ".join(f"{worker} and {other}" for worker, other in runs)
    return (
        f"loops that only read the clock were stopped for {DEADLINE_NS / 1e6:g} ms or more so often, on the "
        f"worker's processor and on another one: {times}"
    )


def split(row: Row) -> str:
    """Say what became of a load's requests that were not answered in time, and by whose doing."""
    outcomes = row["outcomes"]
    given_up = outcomes.get("TIMEOUT", 0) - row["no_slot"]
    return (
        f"of {all_of(row):,} requests {row['late_by_worker']:,} answered late by the worker, "
        f"{row['read_late']:,} in time and read late, {given_up:,} given up at the deadline, "
        f"{row['no_slot']:,} without a slot until then, {row['unsent']:,} not sent; {refused(row):.2%} "
        f"refused ({row['sent_late']:,} requests were sent after their deadline)"
    )


def all_of(row: Row) -> int:
    """Count the requests of a load, whatever came of them."""
    return int(sum(row["outcomes"].values()) + row["unsent"])


def refused(row: Row) -> float:
    """Give the share of a load's requests that were refused."""
    return float(row["outcomes"].get("DEADLINE", 0) / max(all_of(row), 1))


def missed(row: Row) -> int:
    """Count the requests of a load that were neither answered in time nor refused."""
    return int(row["late"] + row["outcomes"].get("TIMEOUT", 0) + row["unsent"])
