"""What instances ask of which worker, with workers that do what the test says."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from made_up_workers import OTHER, SIGNATURE, Bench, Body, FakeWorker, Owner, run_with, settle

from ipc_server import channel as channel_module
from ipc_server import config, handover, memory
from ipc_server.abi import STATUS_RUNNING_NS_OFFSET, ErrorCode
from ipc_server.batching import Batching
from ipc_server.channel import Channel
from ipc_server.errors import SidecamlError
from ipc_server.handover import ATTACHES_AT_ONCE
from ipc_server.instance import MOST_BACKLOG, MOST_SUSPICIONS
from ipc_server.pages import Page
from ipc_server.quotas import POISONED_CHANNELS

Run = Callable[[Body], None]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return partial(run_with, tmp_path)


def test_a_standby_is_told_all_without_waiting_for_answers(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first = await bench.active()
        opened = [await bench.open(first) for _ in range(3)]
        second = bench.worker()
        assert second.orders == []
        await first.die(bench.edition)
        active: object = bench.instance.active
        assert active is second
        assert [op for op, _, _ in second.orders] == ["begin", "attach", "attach", "attach"]
        assert second.attaches() == [(channel.number, True) for channel in opened]
        assert bench.owner.told == []

    run(body)


def test_a_worker_is_given_a_place_in_the_crowd_until_it_dies(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first, second = await bench.active(), bench.worker()
        for worker in (first, second):
            ((op, fields, _),) = worker.orders
            assert (op, fields["entry"]) == ("begin", 0)
            await worker.die(bench.edition)
        assert bench.channels.crowd._entries == {}

    run(body)


def test_only_so_many_channels_are_under_way_at_a_time(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first = await bench.active()
        for _ in range(ATTACHES_AT_ONCE + 5):
            await bench.open(first)
        second = bench.worker()
        await first.die(bench.edition)
        assert len(second.attaches()) == ATTACHES_AT_ONCE
        await second.answer_all()
        assert len(second.attaches()) == ATTACHES_AT_ONCE + 5

    run(body)


def test_a_channel_that_cannot_be_taken_over_is_sent_away_alone(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first = await bench.active()
        refused, kept = [await bench.open(first) for _ in range(2)]
        second = bench.worker()
        await first.die(bench.edition)
        await second.answer()
        await second.answer(SidecamlError(ErrorCode.ENGINE, "no such thing"))
        await second.answer_all()
        ((number, error),) = bench.owner.told
        assert (number, error.code) == (refused.number, ErrorCode.ENGINE)
        assert "no such thing" in str(error)
        assert list(bench.instance.channels) == [kept.number]

    run(body)


@pytest.mark.parametrize("code", [ErrorCode.NO_MEMORY, ErrorCode.NO_SPACE, ErrorCode.LIMIT])
def test_a_channel_for_which_a_successor_has_no_room_waits_until_it_has(
    run: Run, monkeypatch: pytest.MonkeyPatch, code: ErrorCode
) -> None:
    monkeypatch.setattr(handover, "RETRY_S", 0)

    async def body(bench: Bench) -> None:
        first = await bench.active()
        short, kept = [await bench.open(first) for _ in range(2)]
        second = bench.worker()
        await first.die(bench.edition)
        await second.answer()
        for answers in range(1, 5):
            await second.answer(SidecamlError(code, "no room"))
            if answers == 1:
                await second.answer()
            await settle()
            assert second.attaches() == [(short.number, True), (kept.number, True)] + answers * [
                (short.number, True)
            ]
        await second.answer_all()
        assert len(second.attaches()) == 6
        assert sorted(bench.instance.channels) == [short.number, kept.number]
        assert bench.owner.told == []
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(body)


NO_ROOM = SidecamlError(ErrorCode.NO_MEMORY, "no room")


async def without_room(bench: Bench, count: int) -> tuple[FakeWorker, list[int]]:
    """Give a worker that begins, and the channels for which it has no room yet."""
    first = await bench.active()
    waiting = [(await bench.open(first)).number for _ in range(count)]
    second = bench.worker()
    await first.die(bench.edition)
    await second.answer()
    for _ in waiting:
        await second.answer(NO_ROOM)
    await settle()
    return second, waiting


def test_of_many_channels_without_room_one_is_asked_for_a_round_each_in_its_turn(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = asyncio.Semaphore(0)
    sleep = asyncio.sleep

    async def pause(seconds: float) -> None:
        await (rounds.acquire() if seconds else sleep(0))

    async def body(bench: Bench) -> None:
        worker, waiting = await without_room(bench, 4)
        asked = len(worker.orders)
        for _ in range(2):
            for number in waiting:
                rounds.release()
                await settle()
                assert [fields["channel"] for _, fields, _ in worker.orders[asked:]] == [number]
                await worker.answer(NO_ROOM)
                await settle()
                asked += 1
        # A round goes on for as long as there is room.
        rounds.release()
        await settle()
        for problem in (None, None, NO_ROOM):
            await worker.answer(problem)
            await settle()
        assert [fields["channel"] for _, fields, _ in worker.orders[asked:]] == waiting[:3]
        rounds.release()
        await settle()
        await worker.answer_all()
        assert [fields["channel"] for _, fields, _ in worker.orders[asked + 3 :]] == [waiting[3], waiting[2]]
        assert (bench.owner.told, sorted(bench.instance.channels)) == ([], waiting)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    monkeypatch.setattr(asyncio, "sleep", pause)
    run(body)


def test_pauses_grow_while_there_is_no_room_and_begin_anew_when_there_is_some(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        if seconds:
            pauses.append(seconds)
        await sleep(0)

    async def body(bench: Bench) -> None:
        worker, _ = await without_room(bench, 2)
        for _ in range(5):
            await worker.answer(NO_ROOM)
            await settle()
        most, first = handover.LONGEST_RETRY_S, handover.RETRY_S
        assert pauses == [first, 2 * first, 4 * first, most, most, most]
        await worker.answer()
        await settle()
        await worker.answer(NO_ROOM)
        await settle()
        assert pauses[6:] == [first]
        await worker.answer_all()

    monkeypatch.setattr(asyncio, "sleep", note)
    run(body)


def test_who_waits_for_room_is_asked_for_no_more_once_the_worker_or_the_channel_is_gone(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "RETRY_S", 0)

    async def body(bench: Bench) -> None:
        first = await bench.active()
        ended, kept = [await bench.open(first) for _ in range(2)]
        second, third = bench.worker(), bench.worker()
        await first.die(bench.edition)
        await second.answer()
        for _ in range(2):
            await second.answer(SidecamlError(ErrorCode.LIMIT, "no room"))
        bench.channels.end(ended)
        await second.die(bench.edition)
        assert second.attaches()[2:] in ([], [(kept.number, True)])
        assert third.attaches() == [(kept.number, True)]
        await third.answer_all()
        assert (kept.suspected, bench.owner.told) == (0, [])
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(body)


def test_a_channel_closed_during_the_take_over_is_detached_in_order(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first = await bench.active()
        channels = [await bench.open(first) for _ in range(ATTACHES_AT_ONCE + 2)]
        second = bench.worker()
        await first.die(bench.edition)
        # One that the worker has heard of, and one that it has not.
        bench.channels.end(channels[0])
        bench.channels.end(channels[-1])
        await second.answer_all()
        assert second.told[0] == ("detach", {"channel": channels[0].number})
        assert (channels[-1].number, True) not in second.attaches()
        assert bench.owner.told == []

    run(body)


def test_a_successor_that_dies_is_followed_by_the_next(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first = await bench.active()
        channel = await bench.open(first)
        second, third = bench.worker(), bench.worker()
        await first.die(bench.edition)
        await second.answer()
        await second.die(bench.edition)
        assert third.attaches() == [(channel.number, True)]
        await third.die(bench.edition)
        assert bench.instance.active is None
        assert bench.edition.state == "loading"
        fourth = bench.worker()
        await settle()
        assert fourth.attaches() == [(channel.number, True)]
        assert bench.owner.told == []

    run(body)


def test_opens_beyond_what_a_busy_worker_can_be_told_are_refused(run: Run) -> None:
    async def body(bench: Bench) -> None:
        worker = await bench.active()
        worker.backlog = MOST_BACKLOG
        _, task = await bench.opening()
        with pytest.raises(SidecamlError, match="wait for it already: try again later") as caught:
            await task
        assert caught.value.code is ErrorCode.LIMIT
        assert worker.attaches() == []
        worker.backlog -= 1
        await bench.open(worker)

    run(body)


def test_an_open_begins_anew_with_the_next_worker(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first = await bench.active()
        channel, opening = await bench.opening()
        await first.die(bench.edition)
        assert not opening.done()
        second = bench.worker()
        await settle()
        assert second.attaches() == [(channel.number, False)]
        await second.answer_all()
        await opening
        assert channel.attached

    run(body)


def test_an_open_whose_worker_dies_right_after_its_answer_begins_anew(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first = await bench.active()
        channel, opening = await bench.opening()
        first.unanswered()[0][2].set_result({"ok": True})
        second = bench.worker()
        await first.die(bench.edition)
        assert second.attaches() == [(channel.number, False)]
        await second.answer_all()
        await opening

    run(body)


def test_a_channel_at_whose_attaching_worker_after_worker_dies_is_sent_away(run: Run) -> None:
    async def body(bench: Bench) -> None:
        worker = await bench.active()
        guilty, innocent = [await bench.open(worker) for _ in range(2)]
        for _ in range(MOST_SUSPICIONS):
            assert bench.owner.told == []
            await worker.die(bench.edition)
            worker = bench.worker()
            # The answer to `begin`.
            await worker.answer()
            await settle()
        await worker.die(bench.edition)
        ((number, error),) = bench.owner.told
        assert (number, error.code) == (guilty.number, ErrorCode.WORKER_CRASHED)
        assert list(bench.instance.channels) == [innocent.number]

    run(body)


def test_an_open_at_whose_attaching_worker_after_worker_dies_fails(run: Run) -> None:
    async def body(bench: Bench) -> None:
        worker = await bench.active()
        _, opening = await bench.opening()
        for _ in range(MOST_SUSPICIONS):
            assert not opening.done()
            await worker.die(bench.edition)
            worker = bench.worker()
            await worker.answer()
            await settle()
        with pytest.raises(SidecamlError) as caught:
            await opening
        assert caught.value.code is ErrorCode.WORKER_CRASHED

    run(body)


def test_who_waits_behind_requests_that_kill_is_not_blamed(run: Run) -> None:
    async def body(bench: Bench) -> None:
        worker = await bench.active()
        kept = await bench.open(worker)
        _, opening = await bench.opening()
        for _ in range(2 * MOST_SUSPICIONS):
            os.pwrite(bench.edition.status.fd, (1).to_bytes(8, "little"), STATUS_RUNNING_NS_OFFSET)
            await worker.die(bench.edition)
            worker = bench.worker()
            await worker.answer()
            await settle()
        await worker.answer_all()
        await opening
        assert (kept.suspected, bench.owner.told) == (0, [])

    run(body)


def test_workers_that_die_before_they_begin_are_held_against_nobody(run: Run) -> None:
    async def body(bench: Bench) -> None:
        worker = await bench.active()
        await bench.open(worker)
        for _ in range(2 * MOST_SUSPICIONS):
            await worker.die(bench.edition)
            worker = bench.worker()
        assert bench.owner.told == []

    run(body)


def test_the_copy_for_a_client_that_is_not_trusted_is_asked_for_before_it_is_taken(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        worker = await bench.active()
        trusted = await bench.open(worker)
        assert trusted.held_bytes == trusted.segment_bytes + trusted.journal_bytes
        bench.owner.trusted = False
        channels = []
        for _ in range(2):
            channel = bench.channels.new("m", 64, bench.owner)
            bench.edition.join(channel)
            channel.measure(SIGNATURE, Batching(), {}, None, config.Limits())
            await channel.create()
            channels.append(channel)
        first, second = channels
        copy = first.staged_bytes
        # One of its slots, and what every segment begins with.
        assert copy == trusted.segment_bytes < first.segment_bytes
        assert first.held_bytes == first.segment_bytes + first.journal_bytes + copy
        assert Channel.resumed(first.record(), {}, bench.owner).held_bytes == first.held_bytes
        monkeypatch.setattr(memory, "available", lambda: copy - 1)
        with pytest.raises(
            SidecamlError, match=f"private copy.* needs {copy} bytes .* has {copy - 1} "
        ) as caught:
            await bench.edition.attach(first)
        assert caught.value.code is ErrorCode.NO_SPACE
        monkeypatch.setattr(memory, "available", lambda: copy)
        opening = asyncio.create_task(bench.edition.attach(first))
        await settle()
        with pytest.raises(SidecamlError, match="has 0 "):
            await bench.edition.attach(second)
        await worker.answer()
        await opening
        opening = asyncio.create_task(bench.edition.attach(second))
        await settle()
        await worker.answer()
        await opening

    run(body)


def test_a_worker_that_cannot_begin_is_ended(run: Run) -> None:
    async def body(bench: Bench) -> None:
        worker = bench.worker()
        await worker.answer(SidecamlError(ErrorCode.SYSTEM, "no page"))
        await settle()
        assert "could not begin: no page" in worker.killed_for
        assert bench.edition.page_of(worker) is None  # type: ignore[arg-type]

    run(body)


def test_a_worker_of_a_changed_model_gets_no_channel_of_the_old_one(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first = await bench.active()
        await bench.open(first)
        second = bench.worker(OTHER)
        await first.die(bench.edition)
        assert [op for op, _, _ in second.orders] == ["begin"]
        assert [error.code for _, error in bench.owner.told] == [ErrorCode.SERVER_GONE]
        assert bench.instance.signature == bench.edition.signature == OTHER

    run(body)


def test_a_channel_with_too_many_poisoned_requests_is_evicted(run: Run) -> None:
    async def body(bench: Bench) -> None:
        worker = await bench.active()
        guilty, innocent = [await bench.open(worker) for _ in range(2)]
        worker.on_event({"event": "poisoned", "channel": guilty.number})
        for strange in ({"event": "poisoned", "channel": 999}, {"event": "x"}, {"channel": guilty.number}):
            worker.on_event(strange)
        assert bench.owner.told == []
        worker.on_event({"event": "poisoned", "channel": guilty.number})
        ((number, error),) = bench.owner.told
        assert (number, error.code) == (guilty.number, ErrorCode.WORKER_CRASHED)
        assert list(bench.instance.channels) == [innocent.number]
        assert worker.told == [("detach", {"channel": guilty.number})]

    run(body)


@pytest.mark.parametrize("trusted", [False, True])
def test_a_user_that_keeps_killing_over_one_channel_after_the_other_loses_them_all(
    run: Run, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    monkeypatch.setattr(channel_module, "LAST_LOOK_S", 0)

    async def body(bench: Bench) -> None:
        worker = await bench.active()
        innocent = await bench.open(worker)
        guilty = bench.owner = Owner(uid=7, trusted=trusted)
        spare = await bench.open(worker)
        for _ in range(POISONED_CHANNELS * bench.daemon.limits.max_poisoned_per_channel):
            # Of each channel one: its own limit is more.
            channel = await bench.open(worker)
            worker.on_event({"event": "poisoned", "channel": channel.number})
        kept = [innocent.number, *([spare.number] if trusted else [])]
        assert [number for number in bench.instance.channels if number <= spare.number] == kept
        assert (bench.instance.channels == {innocent.number: innocent}) is not trusted
        assert {error.code for _, error in guilty.told} == (set() if trusted else {ErrorCode.WORKER_CRASHED})

    run(body)


def test_what_a_predecessor_left_on_the_page_is_not_the_successors(run: Run) -> None:
    async def body(bench: Bench) -> None:
        worker: Any = bench.worker()
        assert bench.edition.page_of(worker) is None
        await worker.answer_all()
        assert bench.edition.page_of(worker) == Page(bench.edition.status.fd, 0)
        standby: Any = bench.worker()
        assert bench.edition.page_of(standby) is None

    run(body)


def test_channels_are_sent_away_when_the_model_cannot_be_loaded_again(run: Run) -> None:
    async def body(bench: Bench) -> None:
        worker = await bench.active()
        await bench.open(worker)
        await worker.die(bench.edition)
        assert not bench.edition.load_failed("it crashed", for_good=False)
        assert bench.owner.told == []
        assert not bench.edition.settled.is_set()
        assert not bench.edition.load_failed("its file is gone", for_good=True)
        ((_, error),) = bench.owner.told
        assert error.code is ErrorCode.SERVER_GONE
        assert "its file is gone" in str(error)

    run(body)


def test_a_standby_that_cannot_be_had_changes_nothing(run: Run) -> None:
    async def body(bench: Bench) -> None:
        worker = await bench.active()
        await bench.open(worker)
        assert not bench.edition.load_failed("no room", for_good=True)
        assert (bench.edition.state, bench.owner.told) == ("ready", [])

    run(body)


def test_settings_of_the_daemon_that_change_hold_for_an_instance_that_is_there(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first = await bench.active()
        channel = await bench.open(first)
        second = bench.worker()
        limits = config.Limits(max_attempts=7, max_poisoned_per_channel=1)
        folder = Path("/elsewhere")
        before = bench.daemon
        bench.edition.heed(dataclasses.replace(before, limits=limits, quarantine=folder))
        await first.die(bench.edition)
        (fields,) = [fields for op, fields, _ in second.orders if op == "begin"]
        assert (fields["max_attempts"], fields["quarantine"]) == (7, str(folder))
        second.on_event({"event": "poisoned", "channel": channel.number})
        assert [number for number, _ in bench.owner.told] == [channel.number]

    run(body)
