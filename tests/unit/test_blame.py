"""Who answers for a worker's death: by the journals, whatever becomes of requests and channels."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from made_up_workers import Bench, Body, FakeWorker, Owner, run_with, settle

from ipc_server import channel as channel_module
from ipc_server.abi import (
    COMMITTED_BITS,
    JOURNAL_COMMITTED_OFFSET,
    JOURNAL_FAILED_OFFSET,
    JOURNAL_STARTED_OFFSET,
    STARTED_BITS,
    ErrorCode,
)
from ipc_server.channel import Channel
from ipc_server.errors import SidecamlError
from ipc_server.quotas import SHARED_DEATHS, deaths_allowed

Run = Callable[[Body], None]
UID = 7


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(channel_module, "LAST_LOOK_S", 0)
    return partial(run_with, tmp_path)


def note(channel: Channel, offset: int, word: int) -> None:
    assert channel.journal_fd is not None
    os.pwrite(channel.journal_fd, struct.pack("<Q", word), offset)


def starts(channel: Channel, ticket: int, count: int = 1, attempts: int = 1) -> None:
    note(channel, JOURNAL_STARTED_OFFSET, (ticket + 1) << STARTED_BITS | (count - 1) << 3 | attempts)


def succeeds(channel: Channel, last: int) -> None:
    note(channel, JOURNAL_COMMITTED_OFFSET, (last + 1) << COMMITTED_BITS | 3)


def fails(channel: Channel, last: int) -> None:
    note(channel, JOURNAL_FAILED_OFFSET, last + 1)


async def next_worker(bench: Bench, worker: FakeWorker) -> FakeWorker:
    """Have a worker die, and another one go on with what there is."""
    await worker.die(bench.edition)
    made = bench.worker()
    await settle()
    await made.answer_all()
    return made


def allowed(bench: Bench) -> int:
    return deaths_allowed(bench.daemon.limits)


def is_blamed(bench: Bench, uid: int = UID) -> bool:
    try:
        bench.channels.deaths.check_open(uid, "m", allowed(bench))
    except SidecamlError as error:
        assert error.code is ErrorCode.LIMIT
        return True
    return False


async def opened(bench: Bench, worker: FakeWorker, owner: Owner) -> Channel:
    bench.owner = owner
    return await bench.open(worker)


def test_who_gives_up_each_request_that_kills_loses_its_channels(run: Run) -> None:
    async def body(bench: Bench) -> None:
        worker = await bench.active()
        innocent, guilty = Owner(uid=8, trusted=False), Owner(uid=UID, trusted=False)
        kept = await opened(bench, worker, innocent)
        lost = [await opened(bench, worker, guilty) for _ in range(2)]
        for ticket in range(allowed(bench) + 1):
            assert guilty.told == []
            # The other's last run succeeded, or failed.
            starts(kept, 2 * ticket, count=2)
            (succeeds if ticket % 2 else fails)(kept, 2 * ticket + 1)
            starts(lost[ticket % 2], ticket)
            worker = await next_worker(bench, worker)
        assert [number for number, _ in guilty.told] == [channel.number for channel in lost]
        assert {error.code for _, error in guilty.told} == {ErrorCode.WORKER_CRASHED}
        assert "died while they ran requests of the user with uid 7" in str(guilty.told[0][1])
        assert is_blamed(bench)
        assert innocent.told == []
        assert not is_blamed(bench, 8)
        assert list(bench.instance.channels) == [kept.number]

    run(body)


def test_a_run_that_was_given_up_is_counted_once_and_one_that_is_run_again_anew(run: Run) -> None:
    async def body(bench: Bench) -> None:
        worker = await bench.active()
        channel = await opened(bench, worker, Owner(uid=UID, trusted=False))
        starts(channel, 0)
        for _ in range(2 * allowed(bench)):
            worker = await next_worker(bench, worker)
        assert not is_blamed(bench)
        for ticket in range(1, 1 + allowed(bench) // 2):
            for attempts in (1, 2):
                assert not is_blamed(bench)
                starts(channel, ticket, attempts=attempts)
                worker = await next_worker(bench, worker)
        assert is_blamed(bench)

    run(body)


def test_who_closes_the_channel_of_each_request_that_kills_opens_no_more(run: Run) -> None:
    async def body(bench: Bench) -> None:
        worker = await bench.active()
        spare = await opened(bench, worker, Owner(uid=UID, trusted=False))
        for _ in range(allowed(bench) + 1):
            assert not is_blamed(bench)
            channel = await bench.open(worker)
            starts(channel, 0)
            # The worker reads that it is to let go only when it has run the request.
            ends: list[Callable[[], None]] = []
            worker.tell = lambda _op, then, ends=ends, **_: ends.append(then)  # type: ignore[method-assign]
            bench.channels.end(channel)
            assert channel.journal_fd is None
            await worker.die(bench.edition)
            for end in ends:
                end()
            worker = bench.worker()
            await settle()
            await worker.answer_all()
        assert is_blamed(bench)
        assert [number for number, _ in bench.owner.told] == [spare.number]
        assert bench.instance._blame._left == {}

    run(body)


def test_a_channel_that_a_worker_has_let_go_of_is_not_blamed(run: Run) -> None:
    async def body(bench: Bench) -> None:
        worker = await bench.active()
        for _ in range(2 * allowed(bench)):
            channel = await opened(bench, worker, Owner(uid=UID, trusted=False))
            starts(channel, 0)
            bench.channels.end(channel)
            worker = await next_worker(bench, worker)
        assert not is_blamed(bench)

    run(body)


def test_users_whose_requests_ran_together_are_kept_apart_and_then_it_shows_whose_they_were(run: Run) -> None:
    async def body(bench: Bench) -> None:
        worker = await bench.active()
        users = Owner(uid=UID, trusted=False), Owner(uid=8, trusted=False), Owner(uid=0)
        guilty, innocent, trusted = [await opened(bench, worker, user) for user in users]
        for ticket in range(SHARED_DEATHS):
            assert [fields["alone"] for op, fields, _ in worker.orders if op == "attach"] == [False] * 3
            for channel in (guilty, innocent, trusted):
                starts(channel, ticket)
            worker = await next_worker(bench, worker)
        apart = {fields["channel"]: fields["alone"] for op, fields, _ in worker.orders if op == "attach"}
        assert apart == {guilty.number: True, innocent.number: True, trusted.number: False}
        for ticket in range(SHARED_DEATHS, SHARED_DEATHS + allowed(bench) + 1):
            assert not is_blamed(bench)
            starts(guilty, ticket)
            worker = await next_worker(bench, worker)
        assert is_blamed(bench)
        assert list(bench.instance.channels) == [innocent.number, trusted.number]

    run(body)


@pytest.mark.parametrize("trusted", [False, True])
def test_a_death_of_one_users_requests_has_nobody_wait_longer_for_the_next_worker(
    run: Run, trusted: bool
) -> None:
    async def body(bench: Bench) -> None:
        worker = await bench.active()
        channel = await opened(bench, worker, Owner(uid=UID, trusted=trusted))
        starts(channel, 0)
        was_well = bench.edition.lost(worker)  # type: ignore[arg-type]
        assert was_well is not trusted

    run(body)


def test_who_is_trusted_is_not_counted(run: Run) -> None:
    async def body(bench: Bench) -> None:
        worker = await bench.active()
        channel = await opened(bench, worker, Owner(uid=UID))
        for ticket in range(2 * allowed(bench)):
            starts(channel, ticket)
            worker = await next_worker(bench, worker)
        assert bench.owner.told == []
        assert not is_blamed(bench)

    run(body)
