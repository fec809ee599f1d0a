"""A channel moves from one instance to another, whatever dies, refuses or closes at any step of it."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from made_up_workers import OTHER, Bench, Body, FakeWorker, run_with, settle

from ipc_server import handover
from ipc_server.abi import ErrorCode
from ipc_server.channel import Channel
from ipc_server.errors import SidecamlError
from ipc_server.moving import Mover

Run = Callable[[Body], None]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return partial(run_with, tmp_path, instances=2)


class Kept:
    """A keeper of which only the places of channels are of interest."""

    def __init__(self, error: OSError | None = None) -> None:
        self.error = error
        self.places: list[tuple[int, int]] = []

    def channel_moves(self, channel: Channel, index: int) -> None:
        if self.error:
            raise self.error
        self.places.append((channel.number, index))


def moving(bench: Bench, channel: Channel, kept: Kept | None = None) -> asyncio.Task[bool]:
    """Move a channel from the first instance to the second."""
    mover = Mover(kept or Kept(), bench.edition.housing.house)  # type: ignore[arg-type]
    return asyncio.create_task(mover.move(channel, *bench.edition.instances))


class Move:
    """A channel on the first instance, about to move to the second."""

    def __init__(self, bench: Bench, kept: Kept | None = None) -> None:
        self.bench = bench
        self.kept = kept or Kept()

    async def begin(self, signature: Any = None) -> None:
        self.old = await self.bench.active()
        self.channel = await self.bench.open(self.old)
        self.new = self.bench.worker(signature) if signature else self.bench.worker()
        await self.new.answer_all()
        self.task = moving(self.bench, self.channel, self.kept)
        await settle()

    def orders(self, worker: FakeWorker) -> list[str]:
        """What was asked of a worker since it served this channel alone, with what became of the channel."""
        return [f"{op} resume" if fields.get("resume") else op for op, fields, _ in worker.orders]

    @property
    def place(self) -> list[int]:
        return [one.index for one in self.bench.edition.instances if self.channel.number in one.channels]


def test_the_old_worker_lets_go_before_the_new_one_is_asked(run: Run) -> None:
    async def body(bench: Bench) -> None:
        move = Move(bench)
        await move.begin()
        assert move.orders(move.old) == ["begin", "attach", "detach"]
        assert move.orders(move.new) == ["begin"]
        assert (move.place, move.kept.places) == ([0], [])
        await move.old.answer()
        await settle()
        # Noted before anybody is told.
        assert (move.place, move.kept.places) == ([1], [(move.channel.number, 1)])
        assert move.orders(move.new) == ["begin", "attach resume"]
        assert not move.task.done()
        await move.new.answer()
        assert await move.task
        bench.channels.end(move.channel)
        assert move.new.told == [("detach", {"channel": move.channel.number})]
        assert move.old.told == []

    run(body)


def test_the_old_worker_dies_before_it_lets_go_and_its_successor_serves(run: Run) -> None:
    async def body(bench: Bench) -> None:
        move = Move(bench)
        await move.begin()
        successor = bench.worker()
        await move.old.die(bench.edition)
        assert not await move.task
        assert move.orders(successor) == ["begin", "attach resume"]
        assert move.orders(move.new) == ["begin"]
        assert move.place == [0]

    run(body)


def test_the_old_worker_dies_before_it_lets_go_and_the_new_one_takes_over(run: Run) -> None:
    async def body(bench: Bench) -> None:
        move = Move(bench)
        await move.begin()
        await move.old.die(bench.edition)
        assert not await move.task
        assert move.orders(move.new) == ["begin", "attach resume"]
        assert move.place == [1]

    run(body)


@pytest.mark.parametrize("standbys", [0, 1])
def test_the_old_worker_dies_right_after_it_let_go(run: Run, standbys: int) -> None:
    async def body(bench: Bench) -> None:
        move = Move(bench)
        await move.begin()
        successors = [bench.worker() for _ in range(standbys)]
        move.old.unanswered()[0][2].set_result({"ok": True})
        await move.old.die(bench.edition)
        assert not await move.task
        attached = [worker for worker in (move.new, *successors) if "attach resume" in move.orders(worker)]
        assert attached == (successors or [move.new])
        assert move.place == [0 if standbys else 1]

    run(body)


def test_a_client_closes_before_the_old_worker_lets_go(run: Run) -> None:
    async def body(bench: Bench) -> None:
        move = Move(bench)
        await move.begin()
        bench.channels.end(move.channel)
        await move.old.answer_all()
        assert not await move.task
        assert move.orders(move.new) == ["begin"]
        assert (move.place, move.kept.places, bench.owner.told) == ([], [], [])

    run(body)


def test_a_client_closes_while_the_new_worker_attaches(run: Run) -> None:
    async def body(bench: Bench) -> None:
        move = Move(bench)
        await move.begin()
        await move.old.answer()
        await settle()
        bench.channels.end(move.channel)
        assert move.new.told == [("detach", {"channel": move.channel.number})]
        await move.new.answer(SidecamlError(ErrorCode.SYSTEM, "what it attached is gone"))
        assert not await move.task
        assert move.orders(move.old) == ["begin", "attach", "detach"]
        assert (move.place, bench.owner.told) == ([], [])

    run(body)


def test_the_new_worker_dies_and_its_successor_serves(run: Run) -> None:
    async def body(bench: Bench) -> None:
        move = Move(bench)
        await move.begin()
        await move.old.answer()
        await settle()
        successor = bench.worker()
        await move.new.die(bench.edition)
        assert await move.task
        assert move.orders(successor) == ["begin", "attach resume"]
        assert move.place == [1]
        assert move.channel.suspected == 1

    run(body)


def test_the_new_worker_dies_and_the_old_one_serves_again(run: Run) -> None:
    async def body(bench: Bench) -> None:
        move = Move(bench)
        await move.begin()
        await move.old.answer()
        await settle()
        await move.new.die(bench.edition)
        assert not await move.task
        assert move.orders(move.old) == ["begin", "attach", "detach", "attach resume"]
        assert move.place == [0]

    run(body)


def test_the_new_worker_dies_before_it_is_asked(run: Run) -> None:
    async def body(bench: Bench) -> None:
        move = Move(bench)
        await move.begin()
        await move.new.die(bench.edition)
        await move.old.answer()
        await settle()
        assert move.orders(move.old) == ["begin", "attach", "detach", "attach resume"]
        await move.old.answer_all()
        assert not await move.task
        assert move.place == [0]

    run(body)


def test_both_workers_die_and_the_next_one_serves(run: Run) -> None:
    async def body(bench: Bench) -> None:
        move = Move(bench)
        await move.begin()
        await move.old.answer()
        await settle()
        await move.old.die(bench.edition)
        await move.new.die(bench.edition)
        await move.task
        third = await bench.active()
        assert move.orders(third) == ["begin", "attach resume"]
        assert (move.place, bench.owner.told) == ([1], [])

    run(body)


def test_what_the_new_worker_refuses_comes_back(run: Run) -> None:
    async def body(bench: Bench) -> None:
        move = Move(bench)
        await move.begin()
        await move.old.answer()
        await settle()
        await move.new.answer(SidecamlError(ErrorCode.NO_MEMORY, "no room"))
        assert not await move.task
        await settle()
        assert move.orders(move.old) == ["begin", "attach", "detach", "attach resume"]
        assert move.kept.places == [(move.channel.number, 1), (move.channel.number, 0)]
        await move.old.answer_all()
        assert (move.place, bench.owner.told) == ([0], [])

    run(body)


def test_what_neither_worker_serves_is_sent_away(run: Run) -> None:
    async def body(bench: Bench) -> None:
        move = Move(bench)
        await move.begin()
        await move.old.answer()
        await settle()
        for worker in (move.new, move.old):
            await worker.answer(SidecamlError(ErrorCode.ENGINE, "no such thing"))
            await settle()
        assert [error.code for _, error in bench.owner.told] == [ErrorCode.ENGINE]
        assert move.place == []

    run(body)


def test_what_cannot_be_kept_stays(run: Run) -> None:
    async def body(bench: Bench) -> None:
        move = Move(bench, Kept(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
        await move.begin()
        await move.old.answer()
        await settle()
        assert not await move.task
        assert move.orders(move.old) == ["begin", "attach", "detach", "attach resume"]
        assert move.orders(move.new) == ["begin"]
        assert move.place == [0]

    run(body)


def test_nothing_moves_to_another_model_or_to_who_has_not_begun(run: Run) -> None:
    async def body(bench: Bench) -> None:
        move = Move(bench)
        await move.begin(OTHER)
        assert not await move.task
        assert move.orders(move.old) == ["begin", "attach"]
        await move.new.die(bench.edition)
        bench.worker()
        again: Any = Mover(move.kept, bench.edition.housing.house)  # type: ignore[arg-type]
        assert not await again.move(move.channel, *bench.edition.instances)
        assert move.orders(move.old) == ["begin", "attach"]

    run(body)


def test_a_worker_that_cannot_let_go_is_ended(run: Run) -> None:
    async def body(bench: Bench) -> None:
        move = Move(bench)
        await move.begin()
        await move.old.answer(SidecamlError(ErrorCode.SYSTEM, "KeyError: 7"))
        assert not await move.task
        assert "could not let go of a channel: KeyError: 7" in move.old.killed_for
        assert (move.place, move.orders(move.new)) == ([0], ["begin"])

    run(body)


def test_a_channel_that_waits_for_room_is_offered_no_more_once_it_moves(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "RETRY_S", 0)
    no_room = SidecamlError(ErrorCode.LIMIT, "no room")

    async def body(bench: Bench) -> None:
        first = await bench.active()
        channel = await bench.open(first)
        target = bench.worker()
        await target.answer_all()
        successor = bench.worker()
        await first.die(bench.edition)
        await successor.answer()
        for _ in range(2):
            await successor.answer(no_room)
            await settle()
        move = moving(bench, channel)
        await settle()
        # The one that was under way, and then the detach.
        await successor.answer(no_room)
        await settle()
        await successor.answer_all()
        await target.answer_all()
        assert await move
        assert [op for op, _, _ in successor.orders] == ["begin", "attach", "attach", "attach", "detach"]
        assert target.attaches() == [(channel.number, True)]

    run(body)


def test_a_channel_that_a_successor_was_not_offered_yet_is_not_when_it_moves(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first = await bench.active()
        opened = [await bench.open(first) for _ in range(handover.ATTACHES_AT_ONCE + 2)]
        target = bench.worker()
        await target.answer_all()
        successor = bench.worker()
        await first.die(bench.edition)
        move = moving(bench, opened[-1])
        await settle()
        await successor.answer_all()
        await target.answer_all()
        assert await move
        assert [number for number, _ in successor.attaches()] == [one.number for one in opened[:-1]]
        assert target.attaches() == [(opened[-1].number, True)]

    run(body)
