"""The extension: a ring from both ends in one process, and what it says to wrong use instead of crashing."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from daemon_process import environment, open_descriptors
from ring_pair import FINGERPRINT, X_TO_Y, Descriptors, ring_pair

from ipc_server import _core, segment
from ipc_server.abi import MAX_RANK, MAX_SLOTS, MAX_TENSORS, MESSAGE_BYTES, Dtype, ErrorCode
from ipc_server.decode import decode_segment, decode_status
from ipc_server.errors import SidecamlError
from ipc_server.tensor import view

MS = 1_000_000


def refused(code: ErrorCode, call: Callable[..., object], *args: Any) -> str:
    """Call, expect this error, and return its sentence."""
    with pytest.raises(SidecamlError) as caught:
        call(*args)
    assert caught.value.code is code, caught.value
    return str(caught.value)


# --- Layout -------------------------------------------------------------------------------------------------


def test_layout_places_arrays_one_after_the_other() -> None:
    layout = _core.Layout(X_TO_Y, 2, FINGERPRINT)
    x, y = layout.tensors
    assert x == ("x", Dtype.FLOAT32, False, False, (4,), 4096, 64, 16, 0)
    assert y == ("y", Dtype.FLOAT32, True, True, (2, 8), 4096 + 2 * 64, 64, 64, 0)
    assert (layout.slots, layout.segment_bytes, layout.fingerprint) == (2, 8192, FINGERPRINT)


def test_layout_is_read_back_from_a_segment_as_it_was_computed() -> None:
    with ring_pair() as (_, channel, made):
        read = _core.Layout.read(os.pread(made.segment, channel.layout.segment_bytes, 0))
        assert read.tensors == channel.layout.tensors == _core.Layout(X_TO_Y, 2, FINGERPRINT).tensors


def test_layout_takes_a_name_of_any_length() -> None:
    layout = _core.Layout([("é" * 100, Dtype.BOOL, False, False, ())], 1, 0)
    assert layout.tensors[0][0] == "é" * 40


@pytest.mark.parametrize(
    ("tensors", "slots", "code"),
    [
        (X_TO_Y, 0, ErrorCode.INVALID),
        (X_TO_Y, MAX_SLOTS + 1, ErrorCode.INVALID),
        (X_TO_Y[::-1], 1, ErrorCode.INVALID),
        ([("x", 99, False, False, ())], 1, ErrorCode.INVALID),
        ([("x", Dtype.INT8, False, False, (1,) * (MAX_RANK + 1))], 1, ErrorCode.INVALID),
        ([("x", Dtype.INT8, False, False, ())] * (MAX_TENSORS + 1), 1, ErrorCode.INVALID),
        ([("x", Dtype.INT8, False, False, (2**32, 2**32))], 1, ErrorCode.NO_SPACE),
    ],
)
def test_layout_refuses_what_no_segment_can_hold(tensors: Any, slots: int, code: ErrorCode) -> None:
    refused(code, _core.Layout, tensors, slots, 0)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((5, 1, 0), TypeError),
        (([5], 1, 0), TypeError),
        (([("x", 1)], 1, 0), TypeError),
        (([("x", 1, False, False, 5)], 1, 0), TypeError),
        (([("x", "float32", False, False, ())], 1, 0), TypeError),
        (([("x", 1, False, False, (-1,))], 1, 0), OverflowError),
        (([("\ud800", 1, False, False, ())], 1, 0), UnicodeEncodeError),
        ((X_TO_Y, 2**40, 0), OverflowError),
        ((X_TO_Y, 1, 2**64), OverflowError),
        ((X_TO_Y, 1.5, 0), TypeError),
        ((), TypeError),
    ],
)
def test_layout_refuses_arguments_of_other_kinds(arguments: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        _core.Layout(*arguments)


def test_layout_of_garbage_is_corrupt() -> None:
    assert "magic" in refused(ErrorCode.CORRUPT, _core.Layout.read, bytes(4096))
    refused(ErrorCode.CORRUPT, _core.Layout.read, b"")
    with pytest.raises(TypeError):
        _core.Layout.read("text")  # type: ignore[arg-type]


# --- The life of a request ----------------------------------------------------------------------------------


def test_a_request_goes_round() -> None:
    with ring_pair() as (worker, channel, _):
        slot = channel.claim()
        view(channel.tensor(slot, 0), Dtype.FLOAT32, (4,))[:] = [1, 2, 3, 4]
        assert channel.submit() == slot
        assert not channel.poll(slot)
        assert worker.next(0) == (0, slot)
        worker.started()
        x = view(worker.tensor(0, slot, 0), Dtype.FLOAT32, (4,))
        view(worker.tensor(0, slot, 1), Dtype.FLOAT32, (2, 2))[:] = x.reshape(2, 2) * 2
        worker.set_dims(1, (2, 2))
        assert worker.complete() is False
        assert channel.poll(slot)
        channel.wait(slot)
        assert channel.get_dims(slot, 1) == (2, 2)
        assert view(channel.tensor(slot, 1), Dtype.FLOAT32, (2, 2)).tolist() == [[2, 4], [6, 8]]
        assert channel.stamps(slot) == (0, 0, 0, 0)
        channel.release(slot)
        assert channel.claim() == 1
        del x


def test_stamps_are_taken_when_asked_for() -> None:
    with ring_pair() as (worker, channel, _):
        channel.set_stamps(True)
        channel.submit()
        worker.next(0)
        worker.started()
        worker.complete()
        stamps = channel.stamps(0)
        assert stamps[0] > 0
        assert list(stamps) == sorted(stamps)


def test_slots_are_used_in_turn_until_full() -> None:
    with ring_pair(slots=3) as (worker, channel, _):
        assert [channel.submit() for _ in range(3)] == [0, 1, 2]
        assert "release it" in refused(ErrorCode.FULL, channel.claim)
        assert [worker.next(0), worker.complete(), worker.next(0), worker.complete()] == [
            (0, 0),
            False,
            (0, 1),
            False,
        ]
        refused(ErrorCode.FULL, channel.submit)
        channel.release(0)
        assert channel.submit() == 0


def test_a_failure_carries_its_code_and_message() -> None:
    with ring_pair() as (worker, channel, _):
        channel.submit()
        worker.next(0)
        worker.complete(ErrorCode.BAD_DIMS, "N is 3 and 4\nhere")
        assert refused(ErrorCode.BAD_DIMS, channel.wait, 0) == "N is 3 and 4 here"
        assert refused(ErrorCode.BAD_DIMS, channel.poll, 0) == channel.message(0)
        channel.release(0)


def test_a_long_message_is_cut_at_a_character_and_surrogates_are_replaced() -> None:
    with ring_pair() as (worker, channel, _):
        channel.submit()
        worker.next(0)
        worker.complete(ErrorCode.ENGINE, "\udc80" + "€" * MESSAGE_BYTES)
        said = refused(ErrorCode.ENGINE, channel.wait, 0)
        assert said == "?" + "€" * ((MESSAGE_BYTES - 1) // 3)


def test_timeout_abandons_and_the_slot_is_busy_until_quiet() -> None:
    with ring_pair(slots=1) as (worker, channel, _):
        channel.submit()
        worker.next(0)
        refused(ErrorCode.TIMEOUT, channel.wait, 0, time.monotonic_ns() + MS)
        refused(ErrorCode.BUSY, channel.claim)
        assert worker.complete() is True
        assert channel.claim() == 0


def test_timeout_before_the_start_cancels() -> None:
    with ring_pair(slots=1) as (worker, channel, _):
        channel.submit()
        refused(ErrorCode.TIMEOUT, channel.wait, 0, 1)
        assert channel.claim() == 0
        assert worker.next(0) is None
        channel.submit()
        assert worker.next(0) == (0, 0)


def test_a_closed_control_socket_is_server_gone() -> None:
    with ring_pair(policy=_core.BLOCK) as (_, channel, made):
        channel.submit()
        made.worker_control.close()
        refused(ErrorCode.SERVER_GONE, channel.wait, 0)
        assert channel.gone
        assert channel.gone_event() is None
        refused(ErrorCode.SERVER_GONE, channel.claim)


def test_the_daemons_last_words_are_kept() -> None:
    with ring_pair(policy=_core.SPIN) as (_, channel, made):
        channel.submit()
        made.worker_control.send(b"farewell")
        refused(ErrorCode.SERVER_GONE, channel.wait, 0)
        assert channel.gone_event() == b"farewell"


def test_an_event_loop_can_sleep_on_the_answer() -> None:
    with ring_pair() as (worker, channel, _):
        channel.submit()
        assert channel.arm(0) is False
        worker.next(0)
        worker.complete()
        os.eventfd_read(channel.answer_fd)
        channel.disarm()
        assert channel.poll(0)
        assert channel.arm(0) is True


@pytest.mark.parametrize("policy", [_core.SPIN, _core.ADAPTIVE, _core.BLOCK])
def test_two_threads_pass_requests_under_every_policy(policy: int) -> None:
    with ring_pair(policy=policy) as (worker, channel, made):

        def serve() -> None:
            while taken := worker.next(None):
                _, slot = taken
                count = view(worker.tensor(0, slot, 0), Dtype.FLOAT32, (4,))
                view(worker.tensor(0, slot, 1), Dtype.FLOAT32, (4,))[:] = count + 1
                worker.complete()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            for turn in range(300):
                slot = channel.claim()
                view(channel.tensor(slot, 0), Dtype.FLOAT32, (4,))[:] = turn
                channel.submit()
                channel.wait(slot)
                assert view(channel.tensor(slot, 1), Dtype.FLOAT32, (4,)).tolist() == [turn + 1] * 4
                channel.release(slot)
        finally:
            made.client_control.send(b"stop")
            thread.join()


class ClosesWhenDropped:
    """A runner whose end comes back to the worker that drops it."""

    def __init__(self, worker: _core.Worker, refusals: list[int]) -> None:
        self._worker = worker
        self._refusals = refusals

    def __call__(self) -> None:
        """Run nothing."""

    def __del__(self) -> None:
        try:
            self._worker.close()
        except SidecamlError as error:
            self._refusals.append(error.code)


def test_what_a_worker_drops_cannot_use_it_meanwhile() -> None:
    refusals: list[int] = []
    with ring_pair(slots=2) as (worker, channel, _):
        for slot in range(2):
            worker.bind(0, slot, ClosesWhenDropped(worker, refusals), [(2, 8)])
        worker.bind(0, 0, None)
        worker.bind(0, 1, ClosesWhenDropped(worker, refusals), [(2, 8)])
        assert refusals == [ErrorCode.INVALID] * 2
        worker.detach(0)
        assert refusals == [ErrorCode.INVALID] * 3
        refused(ErrorCode.INVALID, worker.detach, 0)
        channel.close()


def test_a_worker_that_is_closed_cannot_be_closed_by_what_it_drops() -> None:
    refusals: list[int] = []
    with ring_pair(slots=1) as (worker, _, _):
        worker.bind(0, 0, ClosesWhenDropped(worker, refusals), [(2, 8)])
        worker.close()
    assert refusals == [ErrorCode.INVALID]


def test_a_worker_serves_several_channels_and_fills_gaps() -> None:
    layout = _core.Layout(X_TO_Y, 1, FINGERPRINT)
    with ring_pair(slots=1) as (worker, channel, _):
        others = [Descriptors(layout) for _ in range(3)]
        assert [worker.attach(*made.for_worker(), layout) for made in others[:2]] == [1, 2]
        worker.detach(1)
        refused(ErrorCode.INVALID, worker.detach, 1)
        refused(ErrorCode.INVALID, worker.tensor, 1, 0, 0)
        assert worker.attach(*others[2].for_worker(), layout) == 1
        channel.submit()
        assert worker.next(0) == (0, 0)
        worker.complete()
        for made in others:
            made.close()


def test_the_independent_decoder_sees_the_same() -> None:
    with ring_pair() as (worker, channel, made):
        deadline_ns = 2**62 + 12345  # never too late
        channel.submit(deadline_ns)
        worker.next(0)
        worker.set_dims(1, (1, 5))
        worker.complete(ErrorCode.ENGINE, "broken")
        seen = decode_segment(os.pread(made.segment, channel.layout.segment_bytes, 0))
        assert [(slot.ticket, slot.state) for slot in seen.slots] == [(0, "FAILED"), (1, "FREE")]
        assert (seen.slots[0].message, seen.slots[0].deadline_ns) == ("broken", deadline_ns)
        assert seen.slots[0].dims == (None, (1, 5))
        status = decode_status(os.pread(made.status, 4096, 0))
        assert (status.pid, status.served, status.failed, status.channels) == (os.getpid(), 0, 1, 1)


# --- Dimensions ---------------------------------------------------------------------------------------------

DYNAMIC = (("x", Dtype.INT8, False, True, (3, 4)), ("y", Dtype.INT8, True, True, (4,)))


def test_dims_of_a_dynamic_input_reach_the_worker() -> None:
    with ring_pair(DYNAMIC) as (worker, channel, _):
        assert channel.get_dims(0, 0) == (3, 4)
        channel.set_dims(0, 0, np.array([2, 0]))
        channel.submit()
        worker.next(0)
        assert worker.get_dims(0) == (2, 0)


def test_dims_are_checked_on_both_sides() -> None:
    with ring_pair(DYNAMIC) as (worker, channel, made):
        refused(ErrorCode.BAD_DIMS, channel.set_dims, 0, 0, (4, 4))
        refused(ErrorCode.INVALID, channel.set_dims, 0, 0, (3,))
        refused(ErrorCode.INVALID, channel.set_dims, 0, 0, (1,) * 17)
        assert "output" in refused(ErrorCode.INVALID, channel.set_dims, 0, 1, (3,))
        refused(ErrorCode.INVALID, channel.set_dims, 0, 2, (3,))
        refused(ErrorCode.INVALID, channel.set_dims, 2, 0, (3, 4))
        channel.submit()
        assert "under way" in refused(ErrorCode.INVALID, channel.set_dims, 0, 0, (1, 1))
        worker.next(0)
        refused(ErrorCode.OUTPUT_TOO_LARGE, worker.set_dims, 1, (5,))
        refused(ErrorCode.INVALID, worker.set_dims, 1, (1, 1))
        refused(ErrorCode.INVALID, worker.set_dims, 7, (1, 1))
        dims = decode_segment(os.pread(made.segment, channel.layout.segment_bytes, 0)).header.dims_offset
        os.pwrite(made.segment, (2**63).to_bytes(8, "little"), dims)
        assert '"x"' in refused(ErrorCode.BAD_DIMS, worker.get_dims, 0)
        worker.complete()
        refused(ErrorCode.CORRUPT, channel.get_dims, 0, 0)


# --- Memory -------------------------------------------------------------------------------------------------


def test_closing_waits_for_the_last_view() -> None:
    with ring_pair() as (worker, channel, _):
        array = np.frombuffer(channel.tensor(0, 0), np.float32)[1:3]
        unsafe = np.ndarray(4, np.float32, channel.tensor(0, 0))  # type: ignore[call-overload]
        served = memoryview(worker.tensor(0, 0, 0))
        for close in (channel.close, worker.close, lambda: worker.detach(0)):
            with pytest.raises(BufferError, match="views"):
                close()
        array[:] = unsafe[:2] = 7
        del array
        with pytest.raises(BufferError):
            channel.close()
        assert bytes(served[:4]) == np.float32(7).tobytes()
        del unsafe, served
        channel.close()
        worker.detach(0)


def test_a_view_keeps_the_memory_of_objects_that_are_forgotten() -> None:
    before = set(open_descriptors())
    with ring_pair() as (_, channel, made):
        other = _core.Channel(*made.for_channel(), FINGERPRINT, _core.BLOCK)
        array = np.frombuffer(other.tensor(0, 1), np.uint8)
        del other
        gc.collect()
        np.frombuffer(channel.tensor(0, 1), np.uint8)[:] = 9
        assert array.tolist() == [9] * 64
        del array
        channel.close()
    gc.collect()
    assert set(open_descriptors()) == before


def test_addresses_are_those_of_the_views() -> None:
    with ring_pair() as (worker, channel, _):
        first, second = (worker.tensor_address(0, slot, 0) for slot in (0, 1))
        assert np.frombuffer(worker.tensor(0, 1, 0), np.uint8).ctypes.data == second
        assert second - first == channel.layout.tensors[0][6]
        assert len(channel.tensor(0, 0)) == channel.layout.tensors[0][7]
        refused(ErrorCode.INVALID, worker.tensor_address, 0, 2, 0)
        refused(ErrorCode.INVALID, worker.tensor_address, 1, 0, 0)
        refused(ErrorCode.INVALID, channel.tensor, 0, 2)


# --- Wrong use ----------------------------------------------------------------------------------------------


def test_requests_cannot_be_completed_twice_or_released_early() -> None:
    with ring_pair() as (worker, channel, _):
        refused(ErrorCode.INVALID, worker.complete)
        refused(ErrorCode.INVALID, worker.started)
        refused(ErrorCode.INVALID, worker.get_dims, 0)
        refused(ErrorCode.INVALID, channel.release, 0)
        refused(ErrorCode.INVALID, channel.abandon, 0)
        refused(ErrorCode.INVALID, channel.wait, 0)
        channel.submit()
        refused(ErrorCode.INVALID, channel.release, 0)
        worker.next(0)
        refused(ErrorCode.INVALID, worker.next, 0)
        refused(ErrorCode.INVALID, worker.detach, 0)
        refused(ErrorCode.INVALID, worker.complete, 2**31)
        with pytest.raises(TypeError):
            worker.complete(6, b"bytes")  # type: ignore[arg-type]
        worker.complete()
        refused(ErrorCode.INVALID, worker.complete)


def test_closed_objects_refuse_every_call() -> None:
    with ring_pair() as (worker, channel, _):
        channel.close()
        channel.close()
        worker.close()
        worker.close()
        assert channel.closed
        for call in (channel.claim, channel.submit, channel.disarm, channel.gone_event):
            assert "closed" in refused(ErrorCode.INVALID, call)
        for one in (
            channel.poll,
            channel.wait,
            channel.release,
            channel.abandon,
            channel.arm,
            channel.stamps,
        ):
            refused(ErrorCode.INVALID, one, 0)
        refused(ErrorCode.INVALID, lambda: channel.layout)
        refused(ErrorCode.INVALID, channel.tensor, 0, 0)
        refused(ErrorCode.INVALID, worker.next, 0)
        refused(ErrorCode.INVALID, worker.tensor, 0, 0, 0)


class Closing:
    """A number that closes something while it is read."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close

    def __index__(self) -> int:
        self._close()
        return 0


CHANNEL_CALLS = {
    1: ("poll", "release", "abandon", "arm", "submit", "message", "stamps", "set_policy"),
    2: ("spin", "wait", "tensor", "get_dims"),
}
WORKER_CALLS = {1: ("next", "detach", "complete", "get_dims"), 3: ("tensor", "tensor_address")}


@pytest.mark.parametrize("side", ["worker", "channel"])
def test_an_argument_may_close_the_object_while_it_is_read(side: str) -> None:
    calls = WORKER_CALLS if side == "worker" else CHANNEL_CALLS
    for count, name in ((count, name) for count, names in calls.items() for name in names):
        with ring_pair() as (worker, channel, _):
            closing = worker if side == "worker" else channel
            arguments = [*[0] * (count - 1), Closing(closing.close)]
            assert "closed" in refused(ErrorCode.INVALID, getattr(closing, name), *arguments), name


def test_dims_may_close_the_object_while_they_are_read() -> None:
    with ring_pair() as (worker, channel, _):
        assert "closed" in refused(ErrorCode.INVALID, channel.set_dims, 0, 0, [Closing(channel.close)])
        assert "closed" in refused(ErrorCode.INVALID, worker.set_dims, 0, [Closing(worker.close)])


@pytest.mark.parametrize("slot", [-1, 2**32, 2**70, 1.5, "0", None])
def test_slots_that_are_no_number(slot: Any) -> None:
    with ring_pair() as (worker, channel, _):
        for call in (channel.poll, channel.wait, channel.release, channel.abandon, worker.detach):
            with pytest.raises((OverflowError, TypeError)):
                call(slot)
        with pytest.raises((OverflowError, TypeError)):
            channel.tensor(slot, 0)


def test_wrong_numbers_of_arguments_are_type_errors() -> None:
    with ring_pair() as (worker, channel, _):
        for call in (
            channel.poll,
            channel.spin,
            channel.wait,
            channel.tensor,
            worker.attach,
            worker.tensor,
            worker.next,
        ):
            with pytest.raises(TypeError):
                call()  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            _core.Memory()


def test_construction_with_bad_descriptors_takes_nothing_over() -> None:
    layout = _core.Layout(X_TO_Y, 1, FINGERPRINT)
    made = Descriptors(layout)
    before = set(open_descriptors())
    empty = os.memfd_create("empty")
    refused(ErrorCode.CORRUPT, _core.Worker, empty, made.worker_control.fileno(), _core.BLOCK)
    refused(ErrorCode.SYSTEM, _core.Worker, 10**6, made.worker_control.fileno(), _core.BLOCK)
    refused(ErrorCode.INVALID, _core.Worker, empty, made.worker_control.fileno(), 9)
    refused(ErrorCode.CORRUPT, _core.Channel, empty, empty, empty, empty, empty, 0, _core.BLOCK)
    with pytest.raises(OverflowError):
        _core.Worker(-1, 0, 0)
    worker = _core.Worker(os.dup(made.status), made.worker_control.fileno(), _core.BLOCK)
    refused(ErrorCode.CORRUPT, worker.attach, empty, empty, empty, layout)
    with pytest.raises(TypeError):
        worker.attach(empty, empty, empty, "layout")  # type: ignore[arg-type]
    # Formatted by nobody, then of another signature.
    fds = made.for_channel()
    refused(ErrorCode.CORRUPT, _core.Channel, *fds, FINGERPRINT, _core.BLOCK)
    worker.attach(*made.for_worker(), layout)
    assert "signature" in refused(ErrorCode.CORRUPT, _core.Channel, *fds, FINGERPRINT + 1, _core.BLOCK)
    worker.close()
    for fd in (*fds, empty):
        os.close(fd)
    assert set(open_descriptors()) == before
    made.close()


def test_a_status_page_is_checked() -> None:
    with ring_pair() as (_, _channel, made):
        blank = segment.create_status_page()
        fds = made.for_channel()
        refused(ErrorCode.CORRUPT, _core.Channel, *fds[:3], blank, fds[4], FINGERPRINT, _core.BLOCK)
        for fd in (*fds, blank):
            os.close(fd)


def test_another_thread_is_refused_while_one_waits() -> None:
    with ring_pair(policy=_core.BLOCK) as (worker, channel, made):
        channel.submit()
        assert worker.next(0)
        worker.complete()
        thread = threading.Thread(target=worker.next, args=(None,))
        thread.start()
        while not decode_status(os.pread(made.status, 4096, 0)).parked:
            time.sleep(0.001)
        for call in (worker.close, worker.started, lambda: worker.next(0)):
            assert "another thread" in refused(ErrorCode.INVALID, call)
        made.client_control.send(b"wake")
        thread.join()


# --- Signals and the peer's death ---------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [_core.SPIN, _core.ADAPTIVE, _core.BLOCK])
@pytest.mark.parametrize("side", ["worker", "channel"])
def test_a_signal_handler_runs_during_a_wait(policy: int, side: str) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    with ring_pair(policy=policy) as (worker, channel, _):
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            channel.submit()
            worker.next(0)
            worker.complete() if side == "worker" else None
            with pytest.raises(Interrupted):
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                worker.next(None) if side == "worker" else channel.wait(0)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("policy", [_core.SPIN, _core.ADAPTIVE, _core.BLOCK])
@pytest.mark.parametrize("side", ["worker", "channel"])
def test_a_signal_handler_may_close_what_waits(policy: int, side: str) -> None:
    with ring_pair(policy=policy) as (worker, channel, _):
        waiter = worker if side == "worker" else channel
        before = signal.signal(signal.SIGALRM, lambda *_: waiter.close())
        try:
            channel.submit()
            worker.next(0)
            worker.complete() if side == "worker" else None
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            waits = (worker.next, None) if side == "worker" else (channel.wait, 0)
            assert "closed" in refused(ErrorCode.INVALID, *waits)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def test_next_returns_when_its_time_is_over() -> None:
    with ring_pair(policy=_core.SPIN) as (worker, _, _made):
        assert worker.next(MS) is None
        assert worker.next(0) is None


def test_a_process_ends_with_its_peer_in_the_middle_of_anything() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        script = "import sys; from ipc_server._core import *; exit_with_peer(int(sys.argv[1]))\nwhile 1: pass"
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment(),
        )
    ours.close()
    assert process.wait() == 0
