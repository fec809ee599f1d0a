"""Several instances of one model: who serves which channel, and who gets the channels of one that is gone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from made_up_workers import OTHER, Bench, Body, FakeWorker, run_with, settle

from ipc_server.abi import ErrorCode
from ipc_server.channel import Channel
from ipc_server.errors import SidecamlError
from ipc_server.pages import Page

Run = Callable[[Body], None]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return partial(run_with, tmp_path, instances=2)


def held(bench: Bench) -> list[list[int]]:
    """The channels of each instance."""
    return [sorted(instance.channels) for instance in bench.edition.instances]


async def opened(bench: Bench, *workers: FakeWorker) -> list[Channel]:
    """Open a channel that goes to each of these workers, in turn."""
    return [await bench.open(worker) for worker in workers]


def test_workers_serve_until_every_instance_has_one_and_others_stand_by(run: Run) -> None:
    async def body(bench: Bench) -> None:
        assert bench.edition.state == "loading"
        first = await bench.active()
        assert (bench.edition.state, bench.edition.is_served) == ("ready", False)
        second, third = await bench.active(), bench.worker()
        assert [instance.worker_pid for instance in bench.edition.instances] == [first.pid, second.pid]
        assert [worker.pid for worker in bench.edition.standbys] == [third.pid]
        assert bench.edition.is_served
        assert third.orders == []
        pages: list[Any] = [bench.edition.page_of(worker) for worker in (first, second, third)]  # type: ignore[arg-type]
        fd = bench.edition.status.fd
        assert pages == [Page(fd, 0), Page(fd, 1), None]

    run(body)


def test_opens_go_to_the_instance_with_fewer_channels(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first = await bench.active()
        one, two = await opened(bench, first, first)
        second = await bench.active()
        three, four = await opened(bench, second, second)
        assert held(bench) == [[one.number, two.number], [three.number, four.number]]
        bench.channels.end(one)
        assert first.told == [("detach", {"channel": one.number})]
        assert second.told == []
        await opened(bench, first)

    run(body)


def test_a_standby_takes_the_place_of_the_one_that_died(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first, second = await bench.active(), await bench.active()
        one, two = await opened(bench, first, second)
        standby = bench.worker()
        await second.die(bench.edition)
        assert standby.attaches() == [(two.number, True)]
        assert first.attaches() == [(one.number, False)]
        assert bench.edition.instances[1].worker_pid == standby.pid

    run(body)


def test_without_a_standby_another_instance_serves_the_channels(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first, second = await bench.active(), await bench.active()
        one, two, three = await opened(bench, first, second, first)
        await first.die(bench.edition)
        assert second.attaches()[1:] == [(one.number, True), (three.number, True)]
        await second.answer_all()
        assert held(bench) == [[], [one.number, two.number, three.number]]
        assert (bench.edition.state, bench.owner.told) == ("ready", [])
        # A channel that is served elsewhere is no business of the next worker.
        third = await bench.active()
        assert [op for op, _, _ in third.orders] == ["begin"]
        bench.channels.end(one)
        assert second.told == [("detach", {"channel": one.number})]
        assert third.told == []

    run(body)


def test_one_that_has_not_begun_gets_the_channels_once_it_has(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first = await bench.active()
        (one,) = await opened(bench, first)
        second = bench.worker()
        await first.die(bench.edition)
        assert [op for op, _, _ in second.orders] == ["begin"]
        await second.answer()
        await settle()
        assert second.attaches() == [(one.number, True)]
        assert held(bench) == [[], [one.number]]

    run(body)


def test_both_dead_the_next_worker_serves_what_has_most_channels(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first, second = await bench.active(), await bench.active()
        one, two, three = await opened(bench, first, second, first)
        await first.die(bench.edition)
        # Before it has answered for those of the first.
        await second.die(bench.edition)
        assert bench.edition.state == "loading"
        third = bench.worker()
        await settle()
        assert third.attaches() == [(two.number, True), (one.number, True), (three.number, True)]
        assert bench.owner.told == []

    run(body)


def test_another_model_by_then_gets_no_channels(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first = await bench.active()
        (one,) = await opened(bench, first)
        second = bench.worker(OTHER)
        await second.answer_all()
        await first.die(bench.edition)
        assert second.attaches() == []
        third = await bench.active()
        assert third.attaches() == [(one.number, True)]
        assert bench.owner.told == []

    run(body)


def test_an_open_goes_to_another_instance_when_its_worker_dies(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first, second = await bench.active(), await bench.active()
        channel, opening = await bench.opening()
        assert first.attaches() == [(channel.number, False)]
        await first.die(bench.edition)
        assert second.attaches() == [(channel.number, False)]
        await second.answer_all()
        await opening
        assert held(bench) == [[], [channel.number]]

    run(body)


def test_what_an_instance_cannot_serve_is_sent_away_and_the_rest_stays(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first, second = await bench.active(), await bench.active()
        one, two, three = await opened(bench, first, second, first)
        await first.die(bench.edition)
        await second.answer(SidecamlError(ErrorCode.ENGINE, "no such thing"))
        await second.answer_all()
        assert [(number, error.code) for number, error in bench.owner.told] == [
            (one.number, ErrorCode.ENGINE)
        ]
        assert held(bench) == [[], [two.number, three.number]]

    run(body)


def test_a_retiring_edition_ends_with_the_last_channel_of_all_instances(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first, second = await bench.active(), await bench.active()
        one, two = await opened(bench, first, second)
        bench.edition.retire()
        bench.channels.end(one)
        await bench.edition.usable()
        bench.channels.end(two)
        with pytest.raises(SidecamlError) as caught:
            await bench.edition.usable()
        assert caught.value.code is ErrorCode.SHUTTING_DOWN

    run(body)


def test_a_worker_that_cannot_be_had_ends_no_channel_while_another_serves(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first, second = await bench.active(), await bench.active()
        await opened(bench, first, second)
        await first.die(bench.edition)
        await second.answer_all()
        assert not bench.edition.load_failed("its file is gone", for_good=True)
        assert (bench.edition.state, bench.owner.told) == ("ready", [])
        await second.die(bench.edition)
        assert not bench.edition.load_failed("its file is gone", for_good=True)
        assert [error.code for _, error in bench.owner.told] == [ErrorCode.SERVER_GONE] * 2

    run(body)


def test_of_another_abi_version_each_worker_that_dies_ends_its_own_channels(run: Run) -> None:
    async def body(bench: Bench) -> None:
        first, second = await bench.active(), await bench.active()
        one, two = await opened(bench, first, second)
        bench.edition._is_alien = True
        await first.die(bench.edition)
        assert [(number, error.code) for number, error in bench.owner.told] == [
            (one.number, ErrorCode.SERVER_GONE)
        ]
        assert held(bench) == [[], [two.number]]
        assert second.attaches() == [(two.number, False)]
        await second.die(bench.edition)
        assert [number for number, _ in bench.owner.told] == [one.number, two.number]
        with pytest.raises(SidecamlError, match="shutting down"):
            await bench.edition.usable()

    run(body)
