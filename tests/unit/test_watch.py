"""What the supervisor sees of a worker, look by look."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ipc_server import watch
from ipc_server.abi import PAGE_BYTES, STATUS_RUNNING_NS_OFFSET, STATUS_SERVED_OFFSET
from ipc_server.pages import Page
from ipc_server.watch import Looks, Patience


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def monotonic_ns(self) -> int:
        return int(self.now * 1e9)


class Worker:
    """A worker that does what the test says."""

    def __init__(self, clock: Clock) -> None:
        self.pid = os.getpid()
        self.loaded = True
        self.heard_at = clock.now
        self.asked: list[str] = []

    def tell(self, op: str) -> None:
        self.asked.append(op)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(watch, "time", made)
    return made


@pytest.fixture
def page() -> Iterator[Page]:
    fd = os.memfd_create("page")
    os.ftruncate(fd, 2 * PAGE_BYTES)
    yield Page(fd, 1)
    os.close(fd)


def tell(page: Page, offset: int, value: int) -> None:
    """Write a word as the worker of the page would."""
    os.pwrite(page.fd, struct.pack("<Q", value), page.index * PAGE_BYTES + offset)


def watched(clock: Clock, longest_run_s: float = 5, silence_s: float = 4) -> tuple[Any, Looks]:
    worker: Any = Worker(clock)
    return worker, Looks(worker, Patience(longest_run_s, silence_s))


def looks_for(seconds: float, looks: Looks, clock: Clock, page: Page | None = None) -> str:
    """Look again and again; why it must end."""
    end = clock.now + seconds
    while clock.now < end:
        clock.now += looks.patience.look_s
        if why := looks.look(page):
            return why
    return ""


@pytest.mark.parametrize(
    ("longest_s", "silence_s", "pause_s"),
    [
        (1e-300, 10.0, watch.SOONEST_LOOK_S),
        (0.4, 10.0, 0.1),
        (300.0, 10.0, watch.RAREST_LOOK_S),
        (300.0, 2.0, 0.5),
    ],
)
def test_looks_are_apart_however_short_the_times(longest_s: float, silence_s: float, pause_s: float) -> None:
    assert Patience(longest_s, silence_s).look_s == pause_s


def test_a_worker_that_answers_lives(clock: Clock, page: Page) -> None:
    worker, looks = watched(clock)
    for _ in range(5):
        assert looks_for(2.5, looks, clock, page) == ""
        assert worker.asked
        worker.asked.clear()
        clock.now += 0.1
        worker.heard_at = clock.now


def test_a_silent_worker_ends(clock: Clock, page: Page) -> None:
    worker, looks = watched(clock)
    assert "neither ran a request nor answered for worker_timeout_s = 4" in looks_for(20, looks, clock, page)
    assert worker.asked == ["ping"]
    # Half of the time until it is asked, all of it until it is given up, and a look.
    assert clock.now <= 1000 + 2 + 4 + 2


def test_a_worker_that_answers_requests_need_not_be_asked(clock: Clock, page: Page) -> None:
    worker, looks = watched(clock)
    for served in range(1, 30):
        tell(page, STATUS_SERVED_OFFSET, served)
        assert looks_for(1, looks, clock, page) == ""
    assert not worker.asked


def test_a_worker_that_runs_may_be_silent_until_its_longest_run(clock: Clock, page: Page) -> None:
    worker, looks = watched(clock, longest_run_s=30)
    tell(page, STATUS_RUNNING_NS_OFFSET, clock.monotonic_ns())
    assert looks_for(29, looks, clock, page) == ""
    assert not worker.asked
    assert "longer than longest_run_s = 30" in looks_for(3, looks, clock, page)


def test_the_pages_of_other_instances_say_nothing(clock: Clock, page: Page) -> None:
    worker, looks = watched(clock)
    tell(Page(page.fd, 0), STATUS_RUNNING_NS_OFFSET, 1)
    tell(Page(page.fd, 0), STATUS_SERVED_OFFSET, 5)
    assert looks_for(2.5, looks, clock, page) == ""
    assert worker.asked
    assert (page.running_since_ns(), page.answers()) == (0, 0)


def test_what_a_standby_does_not_write_is_not_held_against_it(clock: Clock, page: Page) -> None:
    _, looks = watched(clock)
    tell(page, STATUS_RUNNING_NS_OFFSET, 1)
    assert looks_for(3, looks, clock, None) == ""


def test_a_worker_that_loads_may_be_silent_but_not_stopped(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, looks = watched(clock)
    worker.loaded = False
    assert looks_for(50, looks, clock) == ""
    monkeypatch.setattr(watch, "is_stopped", lambda _: True)
    assert "was stopped for worker_timeout_s = 4" in looks_for(6, looks, clock)


def test_a_supervisor_that_was_stopped_itself_begins_anew(clock: Clock, page: Page) -> None:
    worker, looks = watched(clock)
    assert looks_for(3, looks, clock, page) == ""
    clock.now += 100
    assert looks.look(page) == ""
    worker.heard_at = clock.now
    assert looks_for(2, looks, clock, page) == ""


def test_a_process_that_is_gone_is_not_stopped() -> None:
    assert not watch.is_stopped(os.getpid())
    assert not watch.is_stopped(SimpleNamespace(pid=2**22 + 1).pid)


def test_the_patience_is_what_it_is_at_the_time(page: Page) -> None:
    worker: Any = Worker(Clock())
    killed: list[str] = []
    worker.kill = killed.append
    patience = [Patience(1000, 0.04)]
    tell(page, STATUS_RUNNING_NS_OFFSET, time.monotonic_ns())

    async def watched_for_a_while() -> None:
        watching = asyncio.create_task(watch.watch(worker, lambda: patience[0], lambda: page))
        await asyncio.sleep(0.05)
        assert not watching.done()
        patience[0] = Patience(0.01, 0.04)
        async with asyncio.timeout(30):
            await watching

    asyncio.run(watched_for_a_while())
    assert "longest_run_s = 0.01" in killed[0]
