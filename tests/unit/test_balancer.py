"""What is seen of instances by `pread`, where opens go, and that channels are moved when loads stay apart."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from made_up_workers import Bench, Body, FakeWorker, run_with, settle

from ipc_server import balancer
from ipc_server.abi import JOURNAL_STARTED_OFFSET, PAGE_BYTES, STATUS_BUSY_NS_OFFSET, STATUS_RUNNING_NS_OFFSET
from ipc_server.balance import LOOKS, Load
from ipc_server.balancer import Looks
from ipc_server.channel import Channel

SECOND = 10**9
Run = Callable[[Body], None]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return partial(run_with, tmp_path, instances=2)


def put(bench: Bench, index: int, offset: int, value: int) -> None:
    os.pwrite(bench.edition.status.fd, struct.pack("<Q", value), index * PAGE_BYTES + offset)


def busy(bench: Bench, *seconds: float) -> None:
    """Write for how long each instance was busy in all."""
    for index, value in enumerate(seconds):
        put(bench, index, STATUS_BUSY_NS_OFFSET, int(value * SECOND))


def started(channel: Channel, first: int, count: int = 1, attempts: int = 1) -> None:
    """Write the run that a channel's worker started last."""
    word = (first + 1) << 10 | (count - 1) << 3 | attempts
    assert channel.journal_fd is not None
    os.pwrite(channel.journal_fd, struct.pack("<Q", word), JOURNAL_STARTED_OFFSET)


async def two_instances(bench: Bench) -> list[FakeWorker]:
    return [await bench.active(), await bench.active()]


def test_requests_are_counted_by_the_run_that_was_started_last(run: Run) -> None:
    async def body(bench: Bench) -> None:
        channel = await bench.open((await two_instances(bench))[0])
        assert channel.requests_started() == 0
        started(channel, 0)
        assert channel.requests_started() == 1
        started(channel, 10, count=128, attempts=7)
        assert channel.requests_started() == 138
        bench.channels.end(channel)
        assert channel.requests_started() == 0

    run(body)


def test_shares_are_those_between_two_looks_and_channels_are_read_when_they_differ(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first, second = await two_instances(bench)
        one, two, three = [await bench.open(worker) for worker in (first, second, first)]
        looks, instances = Looks(), bench.edition.instances
        busy(bench, 5, 7)
        assert looks.look(instances, 100 * SECOND) is None
        assert looks.busy == {}
        busy(bench, 5.5, 7.4)
        assert looks.look(instances, 101 * SECOND) is None
        assert looks.busy == pytest.approx({0: 0.5, 1: 0.4})
        busy(bench, 6.5, 7.4)
        # They differ, and from now on channels are counted.
        assert looks.look(instances, 102 * SECOND) is None
        started(one, 29)
        started(three, 4, count=6)
        busy(bench, 7.3, 7.4)
        loads = looks.look(instances, 103 * SECOND)
        assert loads == [
            Load(pytest.approx(0.8), {one.number: 30, three.number: 10}),
            Load(0.0, {two.number: 0}),
        ]

    run(body)


def test_a_run_that_is_not_over_counts_and_no_share_exceeds_all_of_the_time(run: Run) -> None:
    async def body(bench: Bench) -> None:
        await two_instances(bench)
        looks, instances = Looks(), bench.edition.instances
        looks.look(instances, 100 * SECOND)
        put(bench, 0, STATUS_RUNNING_NS_OFFSET, 100 * SECOND)
        looks.look(instances, 101 * SECOND)
        assert looks.busy == {0: 1.0, 1: 0.0}
        # It was counted for more than it took, and then for less.
        busy(bench, 3, 0)
        put(bench, 0, STATUS_RUNNING_NS_OFFSET, 0)
        looks.look(instances, 102 * SECOND)
        busy(bench, 2, 0)
        looks.look(instances, 103 * SECOND)
        assert looks.busy == {0: 0.0, 1: 0.0}

    run(body)


def seen(bench: Bench, shares: Mapping[int, float]) -> Any:
    """Have the edition's balancer know what instances did."""
    made: Any = bench.edition._balancer
    made._looks.busy = dict(shares)
    made._fresh = {}
    return made


def test_opens_go_to_who_has_least_to_do_and_then_to_who_has_fewer_channels(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first, second = await two_instances(bench)
        await bench.open(first)
        seen(bench, {0: 0.0, 1: 0.9})
        # Though it has a channel, and the other none; a crowd of opens does not all go there.
        for worker in (first, first, first, second):
            await bench.open(worker)
        seen(bench, {0: 0.52, 1: 0.58})
        await bench.open(second)

    run(body)


def test_nobody_looks_with_one_instance_or_without_channels(run: Run, tmp_path: Path) -> None:
    async def alone(bench: Bench) -> None:
        await bench.open(await bench.active())
        assert bench.edition._balancer._watching is None

    run_with(tmp_path, alone)

    async def body(bench: Bench) -> None:
        first, _ = await two_instances(bench)
        watching = bench.edition._balancer
        assert watching._watching is None
        channel = await bench.open(first)
        assert watching._watching is not None
        bench.channels.end(channel)
        await watching._watching
        bench.edition.kill()

    run(body)


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_a_channel_moves_when_loads_stay_apart_and_then_it_stays(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balancer, "RAREST_LOOK_S", 0.004)
    # Longer than the test waits, while what has to last does not.
    monkeypatch.setattr(balancer, "STAY", 1000)

    async def body(bench: Bench) -> None:
        bench.edition._balancer.after_s = 0.004 * LOOKS
        first, second = await two_instances(bench)
        one, _, three = [await bench.open(worker) for worker in (first, second, first)]
        shares = [0.8, 0.1]
        work = asyncio.create_task(keep_busy(bench, shares, [one, three]))
        await until(lambda: [op for op, _, _ in first.orders][-1] == "detach")
        number = first.orders[-1][1]["channel"]
        assert number in (one.number, three.number)
        await first.answer()
        await until(lambda: (number, True) in second.attaches())
        await second.answer()
        # The other way round: what has just moved stays, and what was there takes nothing.
        shares[:] = [0.1, 0.8]
        looks = count_looks(bench)
        await until(lambda: len(looks) > 4 * LOOKS)
        assert [op for op, _, _ in second.orders][-1] == "attach"
        work.cancel()
        bench.edition.kill()
        bench.edition._balancer.stop()
        await settle()

    run(body)


def count_looks(bench: Bench) -> list[list[float]]:
    """Write down, from now on, what the balancer sees at each look."""
    made: Any = bench.edition._balancer
    look, seen_so_far = made._look, []

    def noted() -> Any:
        moves = look()
        seen_so_far.append(list(made._looks.busy.values()))
        return moves

    made._look = noted
    return seen_so_far


async def keep_busy(bench: Bench, shares: list[float], channels: list[Channel]) -> None:
    """Have the pages and journals say what workers would write who are busy for such shares of the time."""
    taken, tickets, before = [0.0, 0.0], 0, time.monotonic()
    while True:
        now = time.monotonic()
        taken = [had + share * (now - before) for had, share in zip(taken, shares, strict=True)]
        before = now
        busy(bench, *taken)
        tickets += 1
        for channel in channels:
            started(channel, tickets)
        await asyncio.sleep(0.001)
