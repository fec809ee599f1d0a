"""Channels whose requests run together against queues, steps in any order: each answer is what it is alone.

The worker runs what lies there only when it is told to, so that batches form; a request may ask for what no
kernel can do, or for an answer by a time that is over.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import models
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from served import HOW, Served, served

from ipc_server import _core
from ipc_server.abi import ErrorCode
from ipc_server.client import Channel
from ipc_server.errors import SidecamlError

SLOTS = 6
CHANNELS = 2
MOST_ROWS = 2

Rows = tuple[int, ...]
some_rows = st.lists(st.integers(0, 99), min_size=1, max_size=MOST_ROWS).map(tuple)
beyond_the_table = st.just((100,))
which = st.integers(0, CHANNELS - 1)


@dataclass
class Request:
    """What was asked for, and what is to come of it."""

    rows: Rows
    is_late: bool = False
    has_run: bool = False  # or was refused: it has ended
    untold: bool = True

    @property
    def failure(self) -> ErrorCode | None:
        if self.is_late:
            return ErrorCode.DEADLINE
        return ErrorCode.ENGINE if 100 in self.rows else None


@dataclass
class Queue:
    """What a channel must hold, by slot; `next` is the slot whose turn it is."""

    held: list[Request | None] = field(default_factory=lambda: [None] * SLOTS)
    next: int = 0

    @property
    def run(self) -> int:
        """How many slots may be filled from the next on."""
        turns = [self.held[(self.next + ahead) % SLOTS] for ahead in range(SLOTS)]
        return next((n for n, request in enumerate(turns) if request is not None), SLOTS)

    def submitted(self, request: Request) -> None:
        self.held[self.next] = request
        self.next = (self.next + 1) % SLOTS

    @property
    def untold(self) -> list[int]:
        """The slots of requests whose end is to be told, oldest first."""
        turns = [(self.next + ahead) % SLOTS for ahead in range(SLOTS)]
        return [slot for slot in turns if (request := self.held[slot]) and request.untold]


class BatchMachine(RuleBasedStateMachine):
    """Clients' steps on several channels, and a worker that runs when it is told to."""

    how: ClassVar[int] = 0
    # Of all examples.
    served: ClassVar[int] = 0
    batched: ClassVar[int] = 0

    @initialize()
    def open(self) -> None:
        self.stack = contextlib.ExitStack()
        token = HOW.set(self.how)
        self.stack.callback(HOW.reset, token)
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        path = models.rows_of_a_table(folder / "m.onnx")
        opened = served(path, {"N": MOST_ROWS}, SLOTS, together=True, channels=CHANNELS)
        self.model: Served = self.stack.enter_context(opened)
        self.queues = [Queue() for _ in range(CHANNELS)]
        self.ran = self.failed = self.refused = 0
        for number in range(CHANNELS):
            self.run_each_kind(number)
        self.batched_before = self.model.status.batched

    def run_each_kind(self, number: int) -> None:
        """The first request of its kind in a slot is Python's, and runs alone."""
        for size in range(1, MOST_ROWS + 1):
            for slot in range(SLOTS):
                self.submit(number, tuple(range(size)), False)
                self.serve()
                self.await_(number, slot)
                self.release(number, slot)

    def teardown(self) -> None:
        type(self).served += self.ran - CHANNELS * MOST_ROWS * SLOTS
        type(self).batched += self.model.status.batched - self.batched_before
        self.stack.close()

    def at(self, number: int) -> tuple[Channel, Queue]:
        return self.model.channels[number], self.queues[number]

    def raises(self, code: ErrorCode, call: Callable[..., object], *args: object) -> None:
        with pytest.raises(SidecamlError) as caught:
            call(*args)
        assert caught.value.code is code

    # --- Clients --------------------------------------------------------------------------------------------

    def fill(self, channel: Channel, slot: int, rows: Rows) -> None:
        channel.set_dims("index", (len(rows),), slot)
        channel.input("index", slot)[...] = rows

    @rule(number=which, rows=some_rows | beyond_the_table, is_late=st.booleans())
    def submit(self, number: int, rows: Rows, is_late: bool) -> None:
        channel, queue = self.at(number)
        if not queue.run:
            self.raises(ErrorCode.FULL, channel.claim)
            return
        slot = channel.claim()
        assert slot == queue.next
        self.fill(channel, slot, rows)
        assert channel.submit(0 if is_late else None) == slot
        queue.submitted(Request(rows, is_late))

    @rule(number=which, requests=st.lists(some_rows, min_size=2, max_size=SLOTS))
    def submit_run(self, number: int, requests: list[Rows]) -> None:
        channel, queue = self.at(number)
        if not queue.run:
            self.raises(ErrorCode.FULL, channel.claim_run, len(requests))
            return
        count = channel.claim_run(len(requests))
        assert count == min(len(requests), queue.run)
        first = channel.claim()
        for ahead, rows in enumerate(requests[:count]):
            self.fill(channel, (first + ahead) % SLOTS, rows)
        assert channel.submit_run(count) == first
        for rows in requests[:count]:
            queue.submitted(Request(rows))

    def is_told(self, channel: Channel, slot: int, request: Request) -> None:
        request.untold = False
        assert request.failure is None
        found = channel.output("y", slot)
        assert (
            found.tobytes() == np.arange(400, dtype=np.float32).reshape(100, 4)[list(request.rows)].tobytes()
        )

    @rule(number=which, slot=st.integers(0, SLOTS - 1))
    def poll(self, number: int, slot: int) -> None:
        channel, queue = self.at(number)
        request = queue.held[slot]
        if request is None:
            self.raises(ErrorCode.INVALID, channel.poll, slot)
        elif not request.has_run and request.is_late:
            # Given up, and given back.
            self.raises(ErrorCode.TIMEOUT, channel.poll, slot)
            queue.held[slot] = None
        elif not request.has_run:
            assert not channel.poll(slot)
        elif request.failure:
            self.raises(request.failure, channel.poll, slot)
            request.untold = False
        else:
            assert channel.poll(slot)
            self.is_told(channel, slot, request)

    @rule(number=which, slot=st.integers(0, SLOTS - 1))
    def await_(self, number: int, slot: int) -> None:
        channel, queue = self.at(number)
        request = queue.held[slot]
        if request is None:
            self.raises(ErrorCode.INVALID, channel.await_, slot)
        elif request.has_run and not request.failure:
            channel.await_(slot)
            self.is_told(channel, slot, request)
        elif request.has_run or request.is_late:
            self.raises(request.failure if request.has_run else ErrorCode.TIMEOUT, channel.await_, slot)
            queue.held[slot] = None

    @rule(number=which)
    def await_any(self, number: int) -> None:
        channel, queue = self.at(number)
        ended = [slot for slot in queue.untold if (one := queue.held[slot]) and (one.has_run or one.is_late)]
        if not queue.untold:
            self.raises(ErrorCode.INVALID, channel.await_any, 0)
        elif ended:
            slot = channel.await_any()
            assert slot == ended[0]
            self.await_(number, slot)
        else:
            self.raises(ErrorCode.TIMEOUT, channel.await_any, 0)

    @rule(number=which, slot=st.integers(0, SLOTS - 1))
    def release(self, number: int, slot: int) -> None:
        channel, queue = self.at(number)
        request = queue.held[slot]
        if request and request.has_run:
            channel.release(slot)
            queue.held[slot] = None
        else:
            self.raises(ErrorCode.INVALID, channel.release, slot)

    @rule(number=which)
    def release_all(self, number: int) -> None:
        for slot, request in enumerate(self.queues[number].held):
            if request and request.has_run:
                self.release(number, slot)

    @rule(number=which, slot=st.integers(0, SLOTS - 1))
    def abandon(self, number: int, slot: int) -> None:
        channel, queue = self.at(number)
        if queue.held[slot] is None:
            self.raises(ErrorCode.INVALID, channel.abandon, slot)
        else:
            # Nothing runs at the moment, so it is given back at once.
            channel.abandon(slot)
            queue.held[slot] = None

    # --- The worker -----------------------------------------------------------------------------------------

    @precondition(lambda self: any(one and not one.has_run for queue in self.queues for one in queue.held))
    @rule()
    def serve(self) -> None:
        waiting = [one for queue in self.queues for one in queue.held if one and not one.has_run]
        for request in waiting:
            request.has_run = True
            self.ran += request.failure is None
            self.failed += request.failure is not None
            self.refused += request.failure is ErrorCode.DEADLINE
        # It may come back before it has run all, for there is always something to hear.
        while (status := self.model.status).served + status.failed < self.ran + self.failed:
            self.model.lane.serve()

    @invariant()
    def counters_are_as_the_queues_say(self) -> None:
        status = self.model.status
        assert (status.served, status.failed, status.refused) == (self.ran, self.failed, self.refused)


def run(how: int, **chosen: Any) -> type[BatchMachine]:
    class Machine(BatchMachine):
        pass

    Machine.how, Machine.served, Machine.batched = how, 0, 0
    run_state_machine_as_test(Machine, settings=settings(stateful_step_count=80, deadline=None, **chosen))
    return Machine


in_place_or_staged = pytest.mark.parametrize("how", [0, _core.STAGED], ids=["in place", "staged"])


@in_place_or_staged
def test_batches_agree_with_queues(how: int) -> None:
    run(how, max_examples=50)


@in_place_or_staged
def test_these_steps_form_batches(how: int) -> None:
    # Or the test above would show nothing of them. The examples are always the same, for how many requests
    # meet in a batch is theirs to say, and now and then all of them are poor in it.
    machine = run(how, max_examples=25, derandomize=True)
    assert machine.batched > machine.served / 4
