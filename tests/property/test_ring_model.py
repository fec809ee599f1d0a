"""The ring from both ends against a queue, in any order of steps, each word read by the other decoder."""

from __future__ import annotations

import contextlib
import os
import struct
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ring_pair import ring_pair

from ipc_server import _core
from ipc_server.abi import Dtype, ErrorCode, State
from ipc_server.decode import decode_segment, decode_status
from ipc_server.errors import SidecamlError

TENSORS = (("x", Dtype.UINT64, False, True, (2,)), ("y", Dtype.UINT64, True, True, (2,)))
FAILURES = [ErrorCode.ENGINE, ErrorCode.BAD_DIMS, ErrorCode.OUTPUT_TOO_LARGE]


@dataclass
class Slot:
    """What a slot must be."""

    ticket: int
    state: State = State.FREE
    held: bool = False  # by the client
    value: int = 0
    code: ErrorCode | None = None
    untold: bool = False  # whether the client is still to be told how its request ended


@dataclass
class Model:
    """A queue of tickets, and who owns each slot."""

    count: int
    slots: list[Slot] = field(default_factory=list)
    queue: deque[int] = field(default_factory=deque)
    next_ticket: int = 0
    running: int | None = None
    served: int = 0
    failed: int = 0
    abandoned: int = 0

    def __post_init__(self) -> None:
        self.slots = [Slot(ticket) for ticket in range(self.count)]

    @property
    def claimable(self) -> ErrorCode | None:
        """Why the next slot may not be filled; None when it may."""
        slot = self.slots[self.next_ticket % self.count]
        if slot.state is State.FREE:
            return None
        return ErrorCode.FULL if slot.held else ErrorCode.BUSY

    def free(self, slot: Slot) -> None:
        slot.ticket, slot.state, slot.held = slot.ticket + self.count, State.FREE, False
        slot.untold = False

    @property
    def run(self) -> int:
        """How many slots may be filled from the next on."""
        turns = [self.slots[(self.next_ticket + ahead) % self.count] for ahead in range(self.count)]
        return next((n for n, slot in enumerate(turns) if slot.state is not State.FREE), self.count)


class RingMachine(RuleBasedStateMachine):
    """Client and worker steps in any order."""

    @initialize(slots=st.integers(1, 4))
    def open(self, slots: int) -> None:
        self.stack = contextlib.ExitStack()
        self.worker, self.channel, self.made = self.stack.enter_context(
            ring_pair(TENSORS, slots, _core.BLOCK)
        )
        self.model = Model(slots)
        self.value = 0

    def teardown(self) -> None:
        self.stack.close()

    def refused(self, code: ErrorCode, call: object, *args: object) -> None:
        with pytest.raises(SidecamlError) as caught:
            call(*args)  # type: ignore[operator]
        assert caught.value.code is code

    # --- Client -------------------------------------------------------------------------------------------

    @rule()
    def claim(self) -> None:
        reason = self.model.claimable
        if reason is not None:
            self.refused(reason, self.channel.claim)
        else:
            assert self.channel.claim() == self.model.next_ticket % self.model.count

    @rule()
    def claim_wait(self) -> None:
        reason = self.model.claimable
        if reason is ErrorCode.BUSY:
            self.refused(ErrorCode.TIMEOUT, self.channel.claim_wait, 1)
        elif reason is not None:
            self.refused(reason, self.channel.claim_wait)
        else:
            assert self.channel.claim_wait() == self.model.next_ticket % self.model.count

    def fill(self, index: int) -> None:
        self.value += 1
        memory = memoryview(self.channel.tensor(index, 0))
        struct.pack_into("<QQ", memory, 0, self.value, ~self.value & 2**64 - 1)
        self.channel.set_dims(index, 0, (self.value % 3,))

    def submitted(self, index: int, value: int) -> None:
        model = self.model
        slot = model.slots[index]
        assert slot.ticket == model.next_ticket
        slot.state, slot.held, slot.value, slot.code = State.SUBMITTED, True, value, None
        slot.untold = True
        model.queue.append(index)
        model.next_ticket += 1

    @rule()
    def submit(self) -> None:
        reason = self.model.claimable
        if reason is not None:
            self.refused(reason, self.channel.submit)
            return
        index = self.channel.claim()
        self.fill(index)
        assert self.channel.submit() == index
        self.submitted(index, self.value)

    @rule(count=st.integers(1, 4))
    def submit_run(self, count: int) -> None:
        model = self.model
        if model.run == 0:
            assert model.claimable is not None
            self.refused(model.claimable, self.channel.claim_run, count)
            self.refused(model.claimable, self.channel.submit_run, count)
            return
        assert self.channel.claim_run(count) == min(count, model.run)
        if count > model.run:
            self.refused(ErrorCode.INVALID, self.channel.submit_run, count)
            return
        first = self.channel.claim()
        for ahead in range(count):
            self.fill((first + ahead) % model.count)
        assert self.channel.submit_run(count) == first
        for ahead in range(count):
            self.submitted((first + ahead) % model.count, self.value - count + 1 + ahead)

    @rule()
    def wait_any(self) -> None:
        slots = self.model.slots
        oldest = sorted((slot for slot in slots if slot.untold), key=lambda slot: slot.ticket)
        ended = [slot for slot in oldest if slot.state in (State.DONE, State.FAILED)]
        if ended:
            index = self.channel.wait_any()
            assert slots[index] is ended[0]
            slots[index].untold = False
        else:
            self.refused(ErrorCode.TIMEOUT if oldest else ErrorCode.INVALID, self.channel.wait_any, 1)

    @rule(pick=st.integers(0, 3))
    def poll(self, pick: int) -> None:
        index = pick % self.model.count
        slot = self.model.slots[index]
        if not slot.held:
            self.refused(ErrorCode.INVALID, self.channel.poll, index)
        elif slot.state is State.DONE:
            assert self.channel.poll(index)
            slot.untold = False
            self.channel.wait(index)
            assert self.channel.get_dims(index, 1) == (slot.value % 3,)
            assert struct.unpack_from("<Q", memoryview(self.channel.tensor(index, 1))) == (slot.value * 7,)
        elif slot.state is State.FAILED:
            assert slot.code is not None
            self.refused(slot.code, self.channel.poll, index)
            slot.untold = False
            self.refused(slot.code, self.channel.wait, index)
            assert self.channel.message(index) == f"request {slot.value}"
        else:
            assert not self.channel.poll(index)

    @rule(pick=st.integers(0, 3))
    def release(self, pick: int) -> None:
        index = pick % self.model.count
        slot = self.model.slots[index]
        if slot.held and slot.state in (State.DONE, State.FAILED):
            self.channel.release(index)
            self.model.free(slot)
        else:
            self.refused(ErrorCode.INVALID, self.channel.release, index)

    @rule(pick=st.integers(0, 3), by_deadline=st.booleans())
    def give_up(self, pick: int, by_deadline: bool) -> None:
        index = pick % self.model.count
        slot = self.model.slots[index]
        under_way = slot.held and slot.state in (State.SUBMITTED, State.RUNNING)
        if by_deadline and under_way:
            self.refused(ErrorCode.TIMEOUT, self.channel.wait, index, 1)
        elif slot.held:
            self.channel.abandon(index)
        else:
            self.refused(ErrorCode.INVALID, self.channel.abandon, index)
            return
        if slot.state is State.SUBMITTED:
            self.model.queue.remove(index)
        if slot.state is State.RUNNING:
            slot.state, slot.held, slot.untold = State.ABANDONED, False, False
        else:
            self.model.free(slot)

    # --- Worker -------------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.running is None)
    @rule()
    def take(self) -> None:
        model = self.model
        # The first look after 5 ms may be at the control socket, and finds nothing there.
        taken = self.worker.next(0) or self.worker.next(0)
        if not model.queue:
            assert taken is None
            return
        index = model.queue.popleft()
        slot = model.slots[index]
        assert taken == (0, index)
        assert struct.unpack_from("<QQ", memoryview(self.worker.tensor(0, index, 0))) == (
            slot.value,
            ~slot.value & 2**64 - 1,
        )
        assert self.worker.get_dims(0) == (slot.value % 3,)
        slot.state = State.RUNNING
        model.running = index

    @precondition(lambda self: self.model.running is not None)
    @rule(code=st.none() | st.sampled_from(FAILURES))
    def complete(self, code: ErrorCode | None) -> None:
        model, index = self.model, self.model.running
        assert index is not None
        slot = model.slots[index]
        given_up = slot.state is State.ABANDONED
        struct.pack_into("<Q", memoryview(self.worker.tensor(0, index, 1)), 0, slot.value * 7)
        self.worker.set_dims(1, (slot.value % 3,))
        if code is None:
            assert self.worker.complete() is given_up
        else:
            assert self.worker.complete(code, f"request {slot.value}") is given_up
        model.running = None
        if given_up:
            model.abandoned += 1
            model.free(slot)
        elif code is None:
            model.served += 1
            slot.state = State.DONE
        else:
            model.failed += 1
            slot.state, slot.code = State.FAILED, code

    @precondition(lambda self: self.model.running is None)
    @rule()
    def complete_nothing(self) -> None:
        self.refused(ErrorCode.INVALID, self.worker.complete)

    # --- What both must agree on --------------------------------------------------------------------------

    @invariant()
    def words_are_as_the_model_says(self) -> None:
        size = self.channel.layout.segment_bytes
        seen = decode_segment(os.pread(self.made.segment, size, 0))
        assert [(slot.ticket, slot.state) for slot in seen.slots] == [
            (slot.ticket, slot.state.name) for slot in self.model.slots
        ]
        assert [slot.problem for slot in seen.slots] == [None] * self.model.count

    @invariant()
    def counters_are_as_the_model_says(self) -> None:
        status = decode_status(os.pread(self.made.status, 4096, 0))
        model = self.model
        assert (status.served, status.failed, status.abandoned) == (
            model.served,
            model.failed,
            model.abandoned,
        )


TestRing = RingMachine.TestCase
TestRing.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
