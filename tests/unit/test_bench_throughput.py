"""The benchmark of many requests: goals and rows, from numbers made up here."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench import models
from bench.cores import Cores
from bench.errors import BenchError
from bench.throughput import __main__ as command
from bench.throughput import loads, peers, requests, stalls
from bench.throughput.outcomes import Outcome, page
from bench.throughput.requests import Side
from bench.throughput.serving import Serving, at_once
from ipc_server.abi import Policy
from ipc_server.bench.command import Bench
from ipc_server.bench.plan import Plan
from ipc_server.errors import SidecamlError

MACHINE = {
    **{"date": "today", "commit": "c", "cpu": "fast", "processors": 2, "virtual": True, "kernel": "6"},
    **{"onnxruntime": "1", "ocaml": "5", "busy_before": 0.02, "load_average": [0.1]},
}


def times(**changes: float) -> dict[str, float]:
    """An engine that gains three times from batches, and a window that gains as much over single calls."""
    found = {
        "engine-1": 900.0,
        "engine-32": 300.0,
        "single": 1200.0,
        "assembled": 380.0,
        "window-spin": 400.0,
        "window-halves": 500.0,
    }
    return {**found, **{name.replace("_", "-"): value for name, value in changes.items()}}


def test_all_of_the_engine_s_gain_is_a_share_of_one() -> None:
    assert requests.share_of_gain(times(), requests.WINDOW) == pytest.approx(1.0)
    assert requests.share_of_gain(times(), requests.HALVES) == pytest.approx(0.8)
    assert requests.share_of_gain(times(window_spin=800.0), requests.WINDOW) == pytest.approx(0.5)


def test_goals_of_requests_are_those_of_their_model() -> None:
    (tiny,) = requests.outcomes("tiny", [[times()], [times(window_spin=1000.0)], [times(window_spin=500.0)]])
    assert (tiny.limit, tiny.median, tiny.reached) == (0.6, pytest.approx(0.8), True)
    share, assembled = requests.outcomes("small", [[times(window_spin=500.0)]])
    assert (share.limit, share.reached) == (0.9, False)
    assert assembled.values == [pytest.approx(0.76)]


def test_halves_are_told_beside_the_whole_window() -> None:
    share, assembled = requests.outcomes(
        "small", [[times()], [times(window_halves=400.0)], [times(window_halves=1000.0)]]
    )
    assert share.note == "0.8 with a window of 32 that takes all slots, in halves"
    assert assembled.note == "0.76 in halves"


def test_paths_are_compared_within_a_round() -> None:
    # The processors' speed changes from round to round. Medians over the rounds would say 0.5, and 0.475.
    rounds = [
        times(window_spin=800.0),
        times(single=2400.0, assembled=760.0, window_spin=800.0),
        times(single=600.0, assembled=190.0, window_spin=200.0),
    ]
    # Another run's rounds are none of this one's.
    share, assembled = requests.outcomes("small", [rounds, [times(window_spin=1600.0)]])
    assert share.values == [pytest.approx(1.0), pytest.approx(0.25)]
    assert assembled.values == [pytest.approx(0.95), pytest.approx(0.2375)]
    assert len(share.detail) == 4


def test_rounds_change_sides_and_who_runs_the_model_is_on_the_worker_s_core(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, str, int]] = []

    def measured_by(_what: str, words: Sequence[str], *rest: Any) -> Any:
        where = "--socket" if "--socket" in words else "--model"
        asked.append((words[words.index("--path") + 1], words[words.index(where) + 1], rest[-1]))
        return np.array([32_000, 64_000, 640_000], dtype="<u8")

    monkeypatch.setattr(requests, "measured_by", measured_by)
    monkeypatch.setattr(requests, "check_built", lambda *_: None)
    sides = [
        Side(Serving(Path(name), {"small": Path(f"{name}.onnx")}, 0), worker, program)
        for name, worker, program in (("a", 1, 0), ("b", 0, 1))
    ]
    found = requests.measure(sides, "small", 2, tmp_path)
    assert found == [[dict.fromkeys(requests.PATHS, 2000.0)] * requests.ROUNDS] * 2

    one_way = {(path, "a", 0) if path in requests.WINDOWS else (path, "a.onnx", 1) for path in requests.PATHS}
    swapped = {(path, "b", 1) if path in requests.WINDOWS else (path, "b.onnx", 0) for path in requests.PATHS}
    count = len(requests.PATHS)
    rounds = [asked[start : start + count] for start in range(0, len(asked), count)]
    assert [set(asked) for asked in rounds] == [one_way, swapped] * requests.ROUNDS
    assert {asked[0][0] for asked in rounds} == set(requests.PATHS)


@pytest.mark.parametrize(
    ("values", "sense", "reached"),
    [
        ([1.0, 3.0, 2.0], "at least", True),
        ([1.0, 1.5, 3.0], "at least", False),
        ([1.0, 3.0, 2.0], "at most", True),
        ([1.0, 2.5, 3.0], "at most", False),
    ],
)
def test_the_median_counts(values: list[float], sense: str, reached: bool) -> None:
    assert Outcome("x", values, 2.0, sense).reached is reached


def test_the_page_says_what_is_not_reached() -> None:
    good, bad = Outcome("good", [3.0], 2.0), Outcome("bad", [1.0, 1.5], 2.0, note="a reason")
    text = page([good.row(), bad.row()], MACHINE)
    lines = text.splitlines()
    assert "| good | at least 2 | 3 | 3 to 3 | yes |" in lines
    assert "| bad | at least 2 | 1.25 | 1 to 1.5 | **no** |" in lines
    assert "- bad: a reason" in lines


def test_the_worker_s_and_the_daemon_s_time_count() -> None:
    assert peers.per_core({"worker_cpu_ns": 900.0, "daemon_cpu_ns": 100.0}) == 1e6
    assert peers.per_core({"worker_cpu_ns": 1000.0, "daemon_cpu_ns": None}) == 1e6


def test_peers_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "PYTHON", tmp_path / "python")
    with pytest.raises(BenchError, match="scripts/peers-environment"):
        peers.outcomes(Serving(tmp_path, {}, 0), tmp_path, 1)


@pytest.mark.parametrize("threads", [False, True])
def test_the_msgpack_server_answers_its_client(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, threads: bool
) -> None:
    monkeypatch.setattr(peers, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(peers, "SECONDS", 0.2)
    monkeypatch.setattr(peers, "CLIENTS", 3 if threads else 1)
    (msgpack,) = [peer for peer in peers.PEERS if peer.name == "msgpack"]
    row = peers.measure(msgpack, models.write_dynamic("small", tmp_path), tmp_path)
    assert row["answered_per_s"] > 0
    assert row["path"] == "msgpack"


class Loads:
    """In place of a daemon: the loads that were asked for, each answered with a row."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, row: Callable[[Plan, float], dict[str, Any]]) -> None:
        self.asked: list[tuple[Plan, float]] = []
        self.serving = Serving(Path("/nowhere"), {}, 0)

        def load(_: Serving, plan: Plan, rates: Sequence[float] | None, _bound: int = 0) -> list[Any]:
            if rates is None:
                return [{"offered_per_s": 1000.0 * plan.window, "sustained": True}]
            self.asked += [(plan, rate) for rate in rates]
            return [row(plan, rate) for rate in rates]

        monkeypatch.setattr(Serving, "load", load)


# What came of the requests of a load with deadlines.
MISSES: dict[str, Any] = {
    **{"outcomes": {"OK": 90, "DEADLINE": 30, "TIMEOUT": 7}, "unsent": 1, "late": 8},
    **{"late_by_worker": 3, "read_late": 5, "sent_late": 20, "no_slot": 4},
}


PAIR = Cores(client=5, server=4, siblings=False)


def test_misses_are_what_clients_see_and_the_note_splits_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "count", lambda *_: [0, 0])
    several, alone = loads.deadlines(Loads(monkeypatch, lambda *_: MISSES).serving, 2, PAIR)
    for outcome in (several, alone):
        assert (outcome.values, outcome.limit, outcome.reached) == ([16.0, 16.0], 0, False)
        for part in (
            *("of 128 requests 3 answered late by the worker", "5 in time and read late"),
            *("3 given up at the deadline", "4 without a slot", "1 not sent"),
            *("23.44% refused", "20 requests were sent after"),
        ):
            assert part in outcome.note
        # One a run.
        assert outcome.note.count("of 128 requests") == 2


def test_deadlines_are_those_of_clients_that_sleep_and_of_one_that_spins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_up = Loads(monkeypatch, lambda *_: MISSES)
    monkeypatch.setattr(stalls, "count", lambda *_: [0, 0])
    loads.deadlines(made_up.serving, 1, PAIR)
    (several, rate), (alone, rate_alone) = made_up.asked
    assert (several.clients, several.policy, several.cpus) == (8, Policy.BLOCK, [])
    assert (alone.clients, alone.policy, alone.cpus) == (1, Policy.SPIN, [5])
    assert alone.window == several.clients * several.window
    assert {plan.deadline_ns for plan in (several, alone)} == {1_000_000}
    # Each has its own saturation.
    assert (rate, rate_alone) == (pytest.approx(700.0 * several.window), pytest.approx(700.0 * alone.window))


def test_stops_of_the_machine_are_counted_right_after_each_load_and_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_up = Loads(monkeypatch, lambda *_: MISSES)
    found = iter([[0, 2], [1, 0], [0, 0], [13, 0]])
    after: list[int] = []

    def count(cores: Iterable[int], seconds: float, least_ns: int) -> list[int]:
        plan, _ = made_up.asked[-1]
        assert (tuple(cores), seconds, least_ns) == ((4, 5), plan.seconds, plan.deadline_ns)
        after.append(len(made_up.asked))
        return next(found)

    monkeypatch.setattr(stalls, "count", count)
    several, alone = loads.deadlines(made_up.serving, 2, PAIR)
    assert after == [1, 2, 3, 4]
    says = (
        ". Right after, in as many seconds, loops that only read the clock were stopped for 1 ms or more so "
        "often, on the worker's processor and on another one: "
    )
    assert several.note.endswith(says + "0 and 2, 1 and 0")
    assert alone.note.endswith(says + "0 and 0, 13 and 0")


def test_a_stop_is_a_step_of_the_clock_that_is_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [1, 999, 1000, 5, 1001, 4000, 3000, 1]
    clock = itertools.accumulate(steps, initial=70_000)
    monkeypatch.setattr(stalls, "time", SimpleNamespace(monotonic_ns=clock.__next__))
    # The last step is after its end.
    assert stalls._watch(10_000e-9, 1000) == 4
    assert list(clock) == [70_000 + sum(steps)]


def test_a_loop_that_is_stopped_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[str]] = []

    def popen(*words: Any, **settings: Any) -> subprocess.Popen[str]:
        started.append(subprocess.Popen(*words, **settings))
        return started[-1]

    monkeypatch.setattr(stalls, "subprocess", SimpleNamespace(Popen=popen, PIPE=subprocess.PIPE))
    found: list[int] = []
    core = min(os.sched_getaffinity(0))
    counting = threading.Thread(target=lambda: found.extend(stalls.count([core], 3.0, 200_000_000)))
    counting.start()
    # Again and again: when it begins to read the clock is not known.
    while counting.is_alive():
        for number, pause_s in ((signal.SIGSTOP, 0.25), (signal.SIGCONT, 0.05)):
            for loop in started:
                loop.send_signal(number)
            time.sleep(pause_s)
    counting.join()
    assert found[0] >= 1


def test_each_processor_s_loop_says_how_often_it_was_stopped() -> None:
    core = min(os.sched_getaffinity(0))
    assert stalls.count([core, core], 0.01, 3600 * 10**9) == [0, 0]


def test_a_loop_that_fails_is_no_count() -> None:
    core = min(os.sched_getaffinity(0))
    with pytest.raises(BenchError, match="only reads the clock failed"):
        stalls.count([core, -1], 0.01, 1)


def test_channels_share_one_load_and_change_their_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    def row(plan: Plan, _: float) -> dict[str, Any]:
        turn = sum(asked.channels == plan.channels for asked, _ in made_up.asked)
        p99 = 1000 * plan.channels if turn == 2 else 100 + plan.channels
        return {"p99_ns": p99, "worker_cpu_ns": 50.0, "n": 10**6 - plan.channels, "failed": 1, "unsent": 2}

    made_up = Loads(monkeypatch, row)
    times, costs = loads.channels(made_up.serving, 1, 3)
    counts = [plan.channels for plan, _ in made_up.asked]
    for plan, _ in made_up.asked:
        assert (plan.clients, plan.policy, plan.cpus) == (1, Policy.SPIN, [3])
        assert plan.channels * plan.window == loads.SLOTS, "as much may be in flight of each number"
    assert sorted(counts) == sorted(loads.CHANNELS * loads.TURNS)
    assert len({tuple(counts[start : start + 4]) for start in (0, 4, 8)}) == 3
    assert len({rate for _, rate in made_up.asked}) == 1
    # One bad turn of each number is none in the middle.
    assert times.values == [pytest.approx(164 / 102)]
    assert costs.values == [1.0]
    assert "each p99 is of 999,936 answers or more, and 108 requests had none" in times.note


@pytest.mark.parametrize(("highest", "seconds"), [(1e6, loads.TURN_S), (10_000.0, 5.0), (100.0, 20.0)])
def test_turns_are_as_long_as_p99_needs(
    monkeypatch: pytest.MonkeyPatch, highest: float, seconds: float
) -> None:
    row = {"p99_ns": 1, "worker_cpu_ns": None, "n": 1, "failed": 0, "unsent": 0}
    made_up = Loads(monkeypatch, lambda *_: row | {"worker_cpu_ns": 1})
    monkeypatch.setattr(loads, "saturation", lambda *_: highest)
    loads.channels(made_up.serving, 1, 3)
    assert {plan.seconds for plan, _ in made_up.asked} == {seconds}


def test_a_flood_s_neighbour_is_compared_with_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([1000, 5000, 2000, 4000])
    made_up = Loads(monkeypatch, lambda *_: {"p99_ns": next(found)})
    flooded: list[str] = []

    @contextlib.contextmanager
    def flood(_: Serving, model: str) -> Iterator[None]:
        flooded.append(model)
        yield

    monkeypatch.setattr(loads, "_flood", flood)
    outcome = loads.flooded(made_up.serving, "wide", 4000.0, 2)
    assert outcome.values == [1.0, 0.5]
    assert flooded == ["wide", "wide"]
    assert all(plan.model == "wide" for plan, _ in made_up.asked)
    assert all(rate * plan.seconds >= 1000 for plan, rate in made_up.asked)


def test_a_flood_that_leaves_no_answer_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up = Loads(monkeypatch, lambda *_: {"p99_ns": None})
    monkeypatch.setattr(loads, "_flood", lambda *_: contextlib.nullcontext())
    with pytest.raises(BenchError, match="none was answered"):
        loads.flooded(made_up.serving, "small", 1.0, 1)


def test_no_load_is_a_share_of_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Serving, "load", lambda *_: [{"offered_per_s": 2.0, "sustained": False}])
    serving = Serving(tmp_path, {}, 0)
    with pytest.raises(BenchError, match="no rate at all"):
        loads.saturation(serving, serving.plan("small"))


def test_wrong_answers_are_no_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    serving = Serving(tmp_path, {}, 0)

    def run(bench: Bench, _rates: list[float]) -> None:
        bench.rows.append({"gone": None, "wrong": 3})

    monkeypatch.setattr(Bench, "run", run)
    with pytest.raises(SidecamlError, match="3 answers differ"):
        serving.load(serving.plan("small", check=True))


def test_a_flood_that_does_not_come_is_no_result(tmp_path: Path) -> None:
    # No daemon is there.
    flood = loads._flood(Serving(tmp_path / "socket", {}, 0), "small")
    with pytest.raises(BenchError, match="ended with 1: it did not flood"), flood:
        raise AssertionError("it did not flood")


def test_the_greatest_over_the_least_is_of_what_is_known() -> None:
    assert loads.spread([20.0, None, 10.0]) == 2.0
    assert loads.spread([20.0, 0.0]) == 20.0
    with pytest.raises(BenchError, match="nothing is known"):
        loads.spread([None, None])


def test_what_was_neither_in_time_nor_refused_is_missed() -> None:
    row: dict[str, Any] = {"late": 2, "unsent": 1, "outcomes": {"OK": 90, "TIMEOUT": 3, "DEADLINE": 50}}
    assert loads.missed(row) == 6
    assert loads.missed({**row, "late": 0, "unsent": 0, "outcomes": {"OK": 1, "DEADLINE": 9}}) == 0


def test_a_worker_has_a_core_of_its_own_where_the_program_has_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, list[str]] = {}
    folders: Counter[Path] = Counter()
    sides: list[Sequence[Side]] = []
    part = ""

    @contextlib.contextmanager
    def serving(folder: Path, _models: Sequence[str], settings: str) -> Iterator[Serving]:
        asked.setdefault(part, []).append(settings)
        folders[folder] += 1
        assert folders[folder] == 1, "two daemons in one folder at once"
        yield Serving(folder, {}, 0)
        folders[folder] -= 1

    def measure(both: Sequence[Side], *_: Any) -> list[Any]:
        sides.append(both)
        return []

    monkeypatch.setattr(command, "serving", serving)
    for module, name in (
        *((requests, "outcomes"), (loads, "channels"), (loads, "deadlines")),
        (peers, "outcomes"),
    ):
        monkeypatch.setattr(module, name, lambda *_: [])
    monkeypatch.setattr(requests, "measure", measure)
    for module, name in ((loads, "eight_clients"), (loads, "flooded"), (requests, "batch_ns")):
        monkeypatch.setattr(module, name, lambda *_: None)
    bench = command.Throughput(tmp_path, 1, Cores(client=3, server=2, siblings=False))
    for part in set(command.PARTS) - {"overhead"}:
        getattr(bench, part)()
    slots = f"max_slots = {loads.SLOTS}\n{at_once()}"
    assert asked == {
        "flood": [""],
        **{part: ["max_batch = 128"] for part in ("clients", "peers")},
        **{part: [f'cpus = "2"\n{slots}'] for part in ("channels", "deadlines")},
        "requests": ['cpus = "2"', 'cpus = "3"'],
    }
    # Both ways round, each with its own daemon.
    assert [[(side.worker, side.program) for side in both] for both in sides] == [[(2, 3), (3, 2)]] * 3
    assert all(one.serving != other.serving for one, other in sides)
