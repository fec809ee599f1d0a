"""A channel as the supervisor sees it: descriptors, who uses them, and which worker serves them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ipc_server import _core, messages, segment
from ipc_server.abi import ErrorCode
from ipc_server.config import Limits
from ipc_server.errors import SidecamlError
from ipc_server.signature import TensorSpec
from ipc_server.worker_process import WorkerProcess


class Owner(Protocol):
    """The connection that a channel belongs to."""

    pid: int
    uid: int

    def channel_gone(self, channel: Channel, error: SidecamlError) -> None:
        """Tell the client that its channel is over."""


@dataclass(eq=False, slots=True)
class Channel:
    """One open model on one connection."""

    number: int
    model: str
    slots: int
    owner: Owner
    segment_bytes: int = 0
    worker: WorkerProcess | None = None
    # Segment, request doorbell, answer doorbell.
    fds: list[int] = field(default_factory=list)
    attached: bool = False
    _read_only_fd: int | None = None

    def read_only_fd(self) -> int:
        """Give a descriptor that cannot write the segment; the channel's own, made when first asked for."""
        if self._read_only_fd is None:
            self._read_only_fd = segment.read_only(self.fds[0])
        return self._read_only_fd

    async def create(self, specs: Sequence[TensorSpec], fingerprint: int, limits: Limits) -> None:
        """Make segment and doorbells for these tensors; NO_SPACE or LIMIT when they are too large."""
        self.segment_bytes = segment_size(specs, self.slots, fingerprint)
        if self.segment_bytes > limits.max_segment_bytes:
            raise SidecamlError(
                ErrorCode.LIMIT,
                f"model {self.model!r} with {self.slots} slots needs a segment of {self.segment_bytes} bytes "
                f"and max_segment_bytes is {limits.max_segment_bytes}: ask for fewer slots or smaller dims, "
                "or raise it",
            )
        self.fds.append(await _create_segment(self.segment_bytes))
        self.fds.append(segment.create_doorbell())
        self.fds.append(segment.create_doorbell())

    async def attach(
        self,
        worker: WorkerProcess,
        specs: Sequence[TensorSpec],
        fingerprint: int,
        maxima: Mapping[str, int],
    ) -> None:
        """Have the worker map, format and serve the segment, as soon as no request runs."""
        self.worker = worker
        tensors = [
            {
                "name": spec.name,
                "dtype": spec.dtype.name.lower(),
                "output": spec.output,
                "dynamic": spec.dynamic,
                "max_dims": list(spec.max_dims),
                "text_bytes": spec.text_bytes,
            }
            for spec in specs
        ]
        await worker.request(
            "attach",
            self.fds,
            timeout_s=None,
            channel=self.number,
            slots=self.slots,
            fingerprint=fingerprint,
            tensors=tensors,
            dims=dict(maxima),
        )
        # Its end was told to the channels that were attached by then.
        worker.check_alive()
        self.attached = True

    def close(self) -> None:
        """Take it from its worker, attached or about to be, and close the descriptors."""
        if self.worker:
            self.worker.tell("detach", channel=self.number)
            self.worker = None
        messages.close_all(self.fds)
        self.fds.clear()
        if self._read_only_fd is not None:
            messages.close_all([self._read_only_fd])
            self._read_only_fd = None


class Channels:
    """Every channel of the daemon, by its number; numbers are never used again."""

    def __init__(self) -> None:
        """Start with none."""
        self._by_number: dict[int, Channel] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        """Count the channels, those about to open included."""
        return len(self._by_number)

    def __iter__(self) -> Iterator[Channel]:
        """Give the channels that are open, oldest first."""
        return iter([channel for channel in self._by_number.values() if channel.attached])

    def of(self, worker: WorkerProcess) -> list[Channel]:
        """List the open channels that a worker serves."""
        return [channel for channel in self if channel.worker is worker]

    def get(self, number: int) -> Channel | None:
        """Find an open channel."""
        channel = self._by_number.get(number)
        return channel if channel and channel.attached else None

    def new(self, model: str, slots: int, owner: Owner) -> Channel:
        """Enter a channel that is about to open."""
        channel = Channel(next(self._numbers), model, slots, owner)
        self._by_number[channel.number] = channel
        return channel

    def end(self, channel: Channel) -> None:
        """Close a channel and forget it; nothing happens to one that is forgotten already."""
        if self._by_number.pop(channel.number, None):
            channel.close()

    def worker_gone(self, worker: WorkerProcess, error: SidecamlError) -> None:
        """End the channels that a worker served and tell their owners why."""
        for channel in self.of(worker):
            self.end(channel)
            channel.owner.channel_gone(channel, error)


def segment_size(specs: Sequence[TensorSpec], slots: int, fingerprint: int) -> int:
    """Compute how many bytes a segment takes."""
    return _core.Layout([spec.for_layout for spec in specs], slots, fingerprint).segment_bytes


def check_state_size(model: str, specs: Sequence[TensorSpec], limits: Limits) -> None:
    """Raise LIMIT when carried state is larger than a segment may be: a worker's memory is everybody's."""
    size = segment_size(specs, 2, 0) if specs else 0
    if size > limits.max_segment_bytes:
        raise SidecamlError(
            ErrorCode.LIMIT,
            f"model {model!r} needs {size} bytes for carried state and max_segment_bytes is "
            f"{limits.max_segment_bytes}: ask for smaller dims, or raise it",
        )


async def _create_segment(size: int) -> int:
    # In a thread: reserving gigabytes takes seconds.
    creating = asyncio.get_running_loop().run_in_executor(None, segment.create_segment, size)
    try:
        return await asyncio.shield(creating)
    except asyncio.CancelledError:
        creating.add_done_callback(_close_created)
        raise


def _close_created(creating: asyncio.Future[int]) -> None:
    if not creating.cancelled() and not creating.exception():
        messages.close_all([creating.result()])
