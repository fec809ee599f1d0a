"""Clients of one model whose requests a worker runs together, and the bits of single requests."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from daemon_process import Daemon, RawClient, is_alive, wait_until

from ipc_server.abi import STATUS_BYTES
from ipc_server.client import Channel, open_model
from ipc_server.decode import Status, decode_status
from ipc_server.watch import is_stopped

SLOTS = 8


@dataclass(frozen=True)
class Sent:
    """A request that is submitted, and its answer's bits."""

    channel: Channel
    slot: int
    expected: bytes

    def await_right(self) -> None:
        """Wait for the answer and compare it."""
        self.channel.await_(self.slot)
        self.compare()

    def compare(self) -> None:
        """Compare what stands in the slot."""
        assert self.channel.output("y", self.slot).tobytes() == self.expected


class Clients:
    """Channels on the model `mlp`, and what its worker says of itself."""

    def __init__(
        self, running: Daemon, channels: Sequence[Channel], alone: onnxruntime.InferenceSession
    ) -> None:
        """Let `alone` say what is right."""
        self._supervisor = RawClient(running.socket)
        self._channels = channels
        self._alone = alone
        self._random = np.random.default_rng(1)

    def close(self) -> None:
        """Close the connection to the supervisor."""
        self._supervisor.close()

    def worker(self) -> int:
        """Find the process that serves them; 0 while none does."""
        pid: int = self._supervisor.ok("channels")["channels"][0]["worker_pid"]
        return pid

    def status(self) -> Status:
        """Read what the worker counted."""
        number = self._supervisor.ok("channels")["channels"][0]["channel"]
        reply = self._supervisor.ask("inspect", channel=number)
        try:
            page = reply.body.get("page", 0)
            return decode_status(os.pread(reply.fds[1], STATUS_BYTES, page * STATUS_BYTES))
        finally:
            reply.close_fds()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the worker meanwhile: it finds all that is submitted at once."""
        worker = wait_until("a worker is stopped", self._stop)
        try:
            yield
        finally:
            os.kill(worker, signal.SIGCONT)

    def _stop(self) -> int:
        """Stop who serves now, unless it has just died; 0 as long as it is not stopped."""
        worker = self.worker()
        if not worker or not is_alive(worker):
            return 0
        try:
            os.kill(worker, signal.SIGSTOP)
        except ProcessLookupError:
            return 0
        return worker if is_stopped(worker) else 0

    def submit(self, rows: int) -> list[Sent]:
        """Fill every slot, each with inputs of its own."""
        submitted = []
        for channel in self._channels:
            for _ in range(SLOTS):
                x = self._random.standard_normal((rows, 64)).astype(np.float32)
                slot = channel.claim()
                channel.set_dims("x", x.shape, slot)
                channel.input("x", slot)[...] = x
                [y] = self._alone.run(["y"], {"x": x})
                submitted.append(Sent(channel, channel.submit(), y.tobytes()))
        return submitted

    def run(self, rows: int) -> None:
        """Have the worker find a request in every slot, and compare the answers' bits."""
        wait_until("every slot is free", lambda: all(c.claim_run(SLOTS) == SLOTS for c in self._channels))
        with self.stopped():
            submitted = self.submit(rows)
        for sent in submitted:
            sent.await_right()
            sent.channel.release(sent.slot)

    def run_together(self) -> None:
        """Run all together, as soon as each slot has had its first request in this worker."""
        self.run(1)
        before = self.status().batched
        self.run(1)
        assert self.status().batched - before == len(self._channels) * SLOTS


def session(path: Path) -> onnxruntime.InferenceSession:
    """Load a model as a worker does, to run requests alone."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def clients(running: Daemon, alone: onnxruntime.InferenceSession, count: int = 2) -> Iterator[Clients]:
    """Open so many channels."""
    with contextlib.ExitStack() as stack:
        channels = [
            stack.enter_context(open_model("mlp", socket=str(running.socket), slots=SLOTS, dims={"N": 2}))
            for _ in range(count)
        ]
        yield stack.enter_context(contextlib.closing(Clients(running, channels, alone)))
