"""What `sidecaml bench` is made of, without a daemon: percentiles, the search, arguments, inputs, rows."""

from __future__ import annotations

import argparse
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ring_pair import ring_pair

from ipc_server import _core
from ipc_server.abi import Dtype, ErrorCode, Policy
from ipc_server.bench import arguments, inputs, report, saturation
from ipc_server.bench.client import Result
from ipc_server.bench.cost import Cost
from ipc_server.bench.percentiles import summary
from ipc_server.bench.plan import Plan, Turn
from ipc_server.errors import SidecamlError
from ipc_server.signature import Signature, Tensor

SEED = 20260101


# --- Percentiles --------------------------------------------------------------------------------------------


def test_percentiles_are_samples() -> None:
    assert summary(np.arange(1, 1001, dtype="<u8")) == {
        "n": 1000,
        "p50_ns": 500,
        "p90_ns": 900,
        "p99_ns": 990,
        "p999_ns": 999,
        "max_ns": 1000,
    }


def test_one_sample_is_every_percentile() -> None:
    assert set(summary(np.array([7], dtype="<u8")).values()) == {1, 7}


def test_no_samples_have_no_percentiles() -> None:
    with pytest.raises(ValueError, match="no samples"):
        summary(np.array([], dtype="<u8"))


def test_samples_are_not_rounded() -> None:
    large = 2**53 - 1
    assert summary(np.array([large], dtype="<u8"))["max_ns"] == large


# --- The search ---------------------------------------------------------------------------------------------


def searched(highest: float) -> tuple[float | None, list[float]]:
    """Search on a machine that sustains up to `highest`: what is found, and what was asked."""
    asked: list[float] = []

    def sustains(rate: float) -> bool:
        asked.append(rate)
        return rate <= highest

    return saturation.highest_rate(sustains), asked


@pytest.mark.parametrize("highest", [1.0, 1.7, 1023.0, 1024.0, 2047.0, 2048.0, 123_456.0, 6.5e7])
def test_the_search_finds_the_highest_rate_to_within_a_twentieth(highest: float) -> None:
    found, asked = searched(highest)
    assert found is not None
    assert found <= highest < found * 1.06
    tries = Counter(asked)
    assert len(tries) < 40
    assert {tries[rate] for rate in tries if rate <= highest} == {1}, "what holds is tried once"
    assert {tries[rate] for rate in tries if rate > highest} <= {saturation.TRIES}


@pytest.mark.parametrize("fails", [0, 1, 2, 3])
def test_a_rate_is_too_high_when_it_failed_three_times(fails: int) -> None:
    tries: Counter[float] = Counter()

    def sustains(rate: float) -> bool:
        tries[rate] += 1
        return rate <= 2048.0 and (rate != 2048.0 or tries[rate] > fails)

    found = saturation.highest_rate(sustains)
    assert found is not None
    assert (found >= 2048.0) is (fails < saturation.TRIES)
    assert tries[2048.0] == min(fails + 1, saturation.TRIES)


def test_the_same_machine_is_asked_the_same() -> None:
    assert searched(31_415.0) == searched(31_415.0)


def test_a_machine_that_sustains_nothing_is_told() -> None:
    found, asked = searched(0.0)
    assert found is None
    assert min(asked) == saturation.LEAST_RATE


def test_the_search_ends_though_everything_is_sustained() -> None:
    assert searched(math.inf)[0] == saturation.MOST_RATE


# --- Arguments ----------------------------------------------------------------------------------------------


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    arguments.add(parser.add_subparsers(), lambda _: 0)
    return parser.parse_args(["bench", *words])


def test_arguments_are_read() -> None:
    options = parse("m", "--rates", "10,2e3", "--dims", "N=3", "--dims", "a=b=4", "--range", "r=1:2.5")
    assert options.rates == [10.0, 2000.0]
    assert dict(options.dims) == {"N": 3, "a=b": 4}
    assert options.range == [("r", (1.0, 2.5))]


@pytest.mark.parametrize(
    "words",
    [
        ["--rate", "0"],
        ["--rate", "-1"],
        ["--rate", "nan"],
        ["--rates", "5,,6"],
        ["--rate", "5", "--saturation"],
        ["--clients", "0"],
        ["--clients", "1025"],
        ["--channels", "0"],
        ["--channels", "1025"],
        ["--window", "0"],
        ["--seconds", "0"],
        ["--warm-up", "-1"],
        ["--deadline-us", "0"],
        ["--dims", "N"],
        ["--dims", "N=many"],
        ["--range", "x=1"],
        ["--range", "x=2:1"],
        ["--inputs", "0"],
        ["--policy", "hope"],
    ],
)
def test_wrong_arguments_are_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse("m", *words)
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err


# --- Inputs -------------------------------------------------------------------------------------------------

TEXT_BYTES = 64


def tensors_of(dtype: Dtype) -> tuple[Signature, list[Any]]:
    signature = Signature((Tensor("x", dtype, (3, 2)),), (Tensor("y", dtype, (3, 2)),))
    text_bytes = TEXT_BYTES if dtype is Dtype.STRING else 0
    specs = [
        (name, int(dtype), output, False, (3, 2), text_bytes) for name, output in (("x", False), ("y", True))
    ]
    return signature, specs


def serving(worker: _core.Worker, times: int, run: Callable[[int], None]) -> threading.Thread:
    """Have `run(slot)` answer so many requests, in a thread that the caller joins."""

    def serve() -> None:
        answered = 0
        while answered < times:
            request = worker.next(10**9)
            if request:
                worker.started()
                run(request[1])
                worker.complete()
                answered += 1

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def copying(worker: _core.Worker) -> Callable[[int], None]:
    def copy(slot: int) -> None:
        memoryview(worker.tensor(0, slot, 1))[:] = memoryview(worker.tensor(0, slot, 0))

    return copy


@pytest.mark.parametrize("dtype", list(Dtype), ids=lambda dtype: dtype.name)
def test_every_type_is_drawn_sent_and_its_answer_compared(dtype: Dtype) -> None:
    signature, specs = tensors_of(dtype)
    rng = np.random.default_rng(SEED)
    with ring_pair(specs, slots=2) as (worker, channel, _):
        rows = [inputs.draw(channel, signature, {}, rng) for _ in range(3)]
        answering = serving(worker, len(rows), copying(worker))
        answers = [inputs.answer(channel, signature, row) for row in rows]
        answering.join()
        assert [row[0][: len(answer[0])] for row, answer in zip(rows, answers, strict=True)] == [
            answer[0] for answer in answers
        ]
        assert len({bytes(answer[0]) for answer in answers}) > 1, f"all the same, seed {SEED}"
        assert loaded(worker, channel, rows, answers, copying(worker)) == (8, 0)


def loaded(
    worker: _core.Worker,
    channel: _core.Channel,
    rows: list[list[bytes]],
    answers: list[list[bytes]],
    run: Callable[[int], None],
) -> tuple[int, int]:
    """Run a load of 8 requests: how many were answered, and how many of those wrongly."""
    times = 8
    answering = serving(worker, times, run)
    now = time.monotonic_ns()
    counts, _, wrong, *_, full, gone = _core.run_load(
        channels=[channel],
        seeds=[SEED],
        window=2,
        burst=1,
        policy=Policy.BLOCK,
        rate=0.0,
        start_ns=now,
        measure_ns=now,
        end_ns=now + 3600 * 10**9,
        deadline_ns=0,
        inputs=rows,
        answers=answers,
        samples=bytearray(8 * times),
        stop=bytes(1),
    )
    answering.join()
    assert (full, gone) == (True, 0)
    return counts[0], wrong


@pytest.mark.parametrize("dtype", [Dtype.FLOAT32, Dtype.STRING], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("place", [0, -1])
def test_an_answer_that_differs_in_one_bit_is_seen(dtype: Dtype, place: int) -> None:
    signature, specs = tensors_of(dtype)
    rng = np.random.default_rng(SEED)
    with ring_pair(specs, slots=2) as (worker, channel, _):
        rows = [inputs.draw(channel, signature, {}, rng)]
        answering = serving(worker, 1, copying(worker))
        answers = [inputs.answer(channel, signature, rows[0])]
        answering.join()
        text = len(answers[0][0]) - 8 * 7 if dtype is Dtype.STRING else 0

        def spoil(slot: int) -> None:
            copying(worker)(slot)
            memory = memoryview(worker.tensor(0, slot, 1))
            # Of strings the last byte of text.
            memory[8 * 7 + text - 1 if dtype is Dtype.STRING else place] ^= 1

        assert loaded(worker, channel, rows, answers, spoil) == (8, 8)


def test_samples_of_several_channels_follow_one_another() -> None:
    signature, specs = tensors_of(Dtype.FLOAT32)
    counts, room, now = (3, 1), 16, time.monotonic_ns()
    with ring_pair(specs, slots=2) as (worker, one, _), ring_pair(specs, slots=2) as (other_worker, other, _):
        row = inputs.draw(one, signature, {}, np.random.default_rng(SEED))
        workers = (worker, other_worker)
        # What is not answered has no end but the order to stop.
        answering = [serving(each, n, copying(each)) for each, n in zip(workers, counts, strict=True)]
        stop, memory = bytearray(1), bytearray(2 * room * 8)
        samples = np.frombuffer(memory, np.uint64)

        def end() -> None:
            while np.count_nonzero(samples) < sum(counts):
                time.sleep(0.001)
            stop[0] = 1

        ending = threading.Thread(target=end)
        ending.start()
        found, *_, stopped, full, gone = _core.run_load(
            channels=[one, other],
            seeds=[SEED, SEED + 1],
            window=1,
            burst=1,
            policy=Policy.SPIN,
            rate=0.0,
            start_ns=now,
            measure_ns=now,
            end_ns=now + 3600 * 10**9,
            deadline_ns=0,
            inputs=[row],
            answers=None,
            samples=memory,
            stop=stop,
        )
        for thread in (ending, *answering):
            thread.join()
    assert (found, stopped, full, gone) == ({0: sum(counts)}, True, False, 0)
    assert all(samples[: sum(counts)] > 0)


def test_channels_of_other_tensors_are_no_load() -> None:
    signature, specs = tensors_of(Dtype.FLOAT32)
    _, others = tensors_of(Dtype.FLOAT64)
    with ring_pair(specs, slots=2) as (_, one, _), ring_pair(others, slots=2) as (_, other, _):
        row = inputs.draw(one, signature, {}, np.random.default_rng(SEED))
        with pytest.raises(SidecamlError, match="channel 1 has other slots or tensors than the first"):
            _core.run_load(
                channels=[one, other],
                seeds=[1, 2],
                window=1,
                burst=1,
                policy=Policy.SPIN,
                rate=0.0,
                start_ns=0,
                measure_ns=0,
                end_ns=0,
                deadline_ns=0,
                inputs=[row],
                answers=None,
                samples=bytearray(64),
                stop=bytes(1),
            )


def test_misuse_of_the_loop_is_refused() -> None:
    signature, specs = tensors_of(Dtype.FLOAT32)
    with ring_pair(specs, slots=2) as (_, channel, _):
        row = inputs.draw(channel, signature, {}, np.random.default_rng(SEED))
        good: dict[str, Any] = {
            **{
                "channels": [channel],
                "seeds": [0],
                "window": 1,
                "burst": 1,
                "policy": 0,
                "rate": 0.0,
                "deadline_ns": 0,
            },
            **{"start_ns": 0, "measure_ns": 0, "end_ns": 0, "inputs": [row], "answers": None},
            **{"samples": bytearray(8), "stop": bytes(1)},
        }
        for bad, says in (
            ({"window": 3}, "window of 3"),
            ({"burst": 2}, "bursts of 2"),
            ({"rate": -1.0}, "rate"),
            ({"inputs": []}, "without inputs"),
            ({"inputs": [[]]}, "0 buffers"),
            ({"inputs": [[bytes(1000)]]}, "1000 bytes"),
            ({"inputs": [row, [b"x"]]}, "1 bytes"),
            ({"answers": []}, "answers to 0 sets"),
            ({"stop": b""}, "stop"),
            ({"channels": [], "seeds": []}, "0 seeds for 0 channels"),
            ({"seeds": [1, 2]}, "2 seeds for 1 channels"),
            ({"channels": [channel] * 2, "seeds": [1, 2]}, "channel 1 is channel 0 once more"),
        ):
            with pytest.raises(SidecamlError, match=says) as caught:
                _core.run_load(**(good | bad))
            assert caught.value.code is ErrorCode.INVALID
        with pytest.raises(TypeError, match="expected a Channel"):
            _core.run_load(**(good | {"channels": [1]}))
        assert _core.run_load(**good)[0] == {}
        channel.close()
        with pytest.raises(SidecamlError, match="closed"):
            _core.run_load(**good)


def test_ranges_are_checked_and_kept() -> None:
    signature = Signature(
        (
            Tensor("f", Dtype.FLOAT32, (50,)),
            Tensor("i", Dtype.INT8, (50,)),
            Tensor("s", Dtype.STRING, (1,)),
            Tensor("b", Dtype.BOOL, ()),
        ),
        (),
    )
    inputs.check_ranges(signature.inputs, {"f": (0.5, 0.75), "i": (-128.0, 128.0)})
    for ranges, says in (
        ({"g": (0.0, 1.0)}, "no input 'g'"),
        ({"i": (0.0, 129.0)}, "from -128 to 127"),
        ({"i": (0.5, 2.0)}, "whole numbers"),
        ({"s": (0.0, 1.0)}, "takes no range"),
        ({"b": (0.0, 1.0)}, "takes no range"),
    ):
        with pytest.raises(SidecamlError, match=says):
            inputs.check_ranges(signature.inputs, ranges)
    specs = [
        ("f", int(Dtype.FLOAT32), False, False, (50,)),
        ("i", int(Dtype.INT8), False, False, (50,)),
    ]
    with ring_pair(specs) as (_, channel, _):
        rng = np.random.default_rng(SEED)
        f, i = inputs.draw(
            channel, Signature(signature.inputs[:2], ()), {"f": (0.5, 0.75), "i": (7.0, 8.0)}, rng
        )
    floats = np.frombuffer(f, np.float32)
    assert ((floats >= 0.5) & (floats <= 0.75)).all()
    assert set(np.frombuffer(i, np.int8)) == {7}


# --- Rows ---------------------------------------------------------------------------------------------------

PLAN = Plan("m", "/s", 2, 4, 2, 1.0, 0.5, Policy.SPIN, 3, 16, True, 1000, {"N": 1}, {}, [2], "high")
TURN = Turn(50.0, 0, 10**9, 2 * 10**9)
COST = Cost(4000, None, 12, 2, 8, 1)


def result(**changes: Any) -> Result:
    fields = {"outcomes": {"OK": 3}, "unsent": 0, "wrong": 0, "ended_ns": 2 * 10**9, "answered_ns": 0}
    fields |= {"late_by_worker": 0, "sent_late": 0, "no_slot": 0}
    return Result(**{**fields, "cpu_ns": 100, "stopped": False, "full": False, "gone": "", **changes})


def test_clients_are_counted_together() -> None:
    one = result(outcomes={"OK": 3, "ENGINE": 1}, answered_ns=3 * 10**9)
    two = result(outcomes={"OK": 1, "TIMEOUT": 2}, unsent=5, wrong=1)
    samples = [np.array([10, 20, 1001], np.uint64), np.array([30], np.uint64)]
    row = report.row_of(PLAN, 100.0, TURN, list(zip([one, two], samples, strict=True)), COST)
    assert (row["n"], row["p50_ns"], row["max_ns"]) == (4, 20, 1001)
    assert row["outcomes"] == {"ENGINE": 1, "OK": 4, "TIMEOUT": 2}
    assert (row["failed"], row["unsent"], row["wrong"], row["late"]) == (3, 5, 1, 1)
    assert row["answered_per_s"] == 2.0
    assert (row["client_cpu_ns"], row["worker_cpu_ns"], row["daemon_cpu_ns"]) == (50.0, 1000.0, None)
    assert [client["n"] for client in row["per_client"]] == [3, 1]
    text = "\n".join(report.remarks(row))
    for part in (
        *("ENGINE: 1", "TIMEOUT: 2", "read late: 1", "not sent: 5", "WRONG: 1"),
        *("clients 0.05 us, workers 1.00 us", "2 batches of 4.0 requests, 67%"),
    ):
        assert part in text


def test_what_missed_its_deadline_is_told_by_whose_doing_that_was() -> None:
    one = result(outcomes={"OK": 4, "TIMEOUT": 3, "DEADLINE": 6}, late_by_worker=1, sent_late=4, no_slot=2)
    two = result(outcomes={"OK": 1}, late_by_worker=1, sent_late=1)
    samples = [np.array([10, 1001, 1002, 1003], np.uint64), np.array([2000], np.uint64)]
    row = report.row_of(PLAN, 100.0, TURN, list(zip([one, two], samples, strict=True)), COST)
    names = ("late", "late_by_worker", "read_late", "sent_late", "no_slot")
    assert [row[name] for name in names] == [4, 2, 2, 5, 2]
    text = "\n".join(report.remarks(row))
    for part in ("TIMEOUT, 2 found no free slot", "sent late: 5", "late: 2 requests", "read late: 2 answers"):
        assert part in text
    without = report.row_of(replace(PLAN, deadline_ns=0), 100.0, TURN, [(one, samples[0])], COST)
    assert [without[name] for name in names] == [None] * 5


def test_a_load_that_measured_nothing_has_a_row() -> None:
    row = report.row_of(PLAN, 0.0, TURN, [(result(outcomes={}), np.array([], np.uint64))] * 2, None)
    assert (row["n"], row["p50_ns"], row["answered_per_s"], row["worker_cpu_ns"]) == (0, None, 0.0, None)
    assert "-" in report.line(row)


@pytest.mark.parametrize(
    ("late", "failed", "unsent", "sustained"),
    [(1, 0, 0, True), (2, 0, 0, False), (0, 1, 0, True), (1, 1, 0, False), (0, 0, 2, False), (0, 0, 0, True)],
)
def test_a_rate_is_sustained_when_99_of_100_are_answered_in_time(
    late: int, failed: int, unsent: int, sustained: bool
) -> None:
    answered = 100 - failed - unsent
    samples = [np.array([11] * late + [10] * (answered - late), np.uint64)]
    row = {"n": answered, "failed": failed, "unsent": unsent}
    assert report.is_sustained(samples, row, 10) is sustained


def test_a_plan_survives_its_way_to_a_client() -> None:
    plan = Plan("m", "/s", 2, 4, 2, 1.5, 0.5, Policy.BLOCK, 3, 16, True, 0, {"N": 1}, {"x": (0.0, 1.0)})
    assert Plan.of_json(plan.to_json()) == plan
