"""Both ends of a channel in one process, without a daemon: `with ring_pair() as (worker, channel):`."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence

from ipc_server import _core, messages, segment
from ipc_server.abi import Dtype

# Enough for the state of any test's model.
JOURNAL_BYTES = 64 * 2**10
FINGERPRINT = 0x1122334455667788

TensorTuple = tuple[str, int, bool, bool, tuple[int, ...]]

X_TO_Y: Sequence[TensorTuple] = (
    ("x", Dtype.FLOAT32, False, False, (4,)),
    ("y", Dtype.FLOAT32, True, True, (2, 8)),
)


class Descriptors:
    """What a supervisor makes for one channel: the test passes duplicates on and closes its own."""

    def __init__(self, layout: _core.Layout) -> None:
        self.status = segment.create_status_page()
        self.segment = segment.create_segment(layout.segment_bytes)
        self.journal = segment.create_segment(JOURNAL_BYTES)
        self.request = segment.create_doorbell()
        self.answer = segment.create_doorbell()
        self.worker_control, self.client_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def for_worker(self) -> tuple[int, int, int]:
        return os.dup(self.segment), os.dup(self.request), os.dup(self.answer)

    def for_lane(self) -> list[int]:
        return [*self.for_worker(), os.dup(self.journal)]

    def for_channel(self, status: int | None = None) -> tuple[int, int, int, int, int]:
        """What a client gets; `status` is the page of a worker that serves another channel already."""
        page = segment.read_only(self.status if status is None else status)
        return (*self.for_worker(), page, os.dup(self.client_control.fileno()))

    def close(self) -> None:
        messages.close_all([self.status, self.segment, self.journal, self.request, self.answer])
        self.worker_control.close()
        self.client_control.close()


@contextlib.contextmanager
def ring_pair(
    tensors: Sequence[TensorTuple] = X_TO_Y, slots: int = 2, policy: int = _core.ADAPTIVE
) -> Iterator[tuple[_core.Worker, _core.Channel, Descriptors]]:
    """Give a worker with one channel, number 0, and its client's end; closes both."""
    layout = _core.Layout(tensors, slots, FINGERPRINT)
    with contextlib.ExitStack() as stack:
        made = Descriptors(layout)
        stack.callback(made.close)
        worker = _core.Worker(os.dup(made.status), made.worker_control.fileno(), policy)
        stack.callback(worker.close)
        assert worker.attach(*made.for_worker(), layout) == 0
        channel = _core.Channel(*made.for_channel(), FINGERPRINT, policy)
        stack.callback(channel.close)
        yield worker, channel, made
