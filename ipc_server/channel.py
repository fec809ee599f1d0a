"""A channel as the supervisor sees it: descriptors, user, and which instance of a model serves it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from ipc_server import _core, messages, segment
from ipc_server.abi import ErrorCode
from ipc_server.batching import Batching
from ipc_server.closer import giver
from ipc_server.config import Limits
from ipc_server.crowd import Crowd
from ipc_server.errors import SidecamlError
from ipc_server.journal import journal_size, requests_started, unfinished_run
from ipc_server.keeper import Keeper
from ipc_server.messages import NORMAL
from ipc_server.quotas import Deaths, Poisoned
from ipc_server.signature import Signature, TensorSpec

# What a record of a channel holds. The letters of its descriptors: segment, request and answer doorbell,
# journal, the client's end of the answer doorbell where it has one of its own.
_RECORDED = (
    *("number", "model", "slots", "segment_bytes", "journal_bytes", "fingerprint", "tensors", "poisoned"),
)
_LETTERS = "sqaje"


# How long a client that is not trusted can read the answers in a channel that was ended for it.
LAST_LOOK_S = 1.0


class Owner(Protocol):
    """The connection that a channel belongs to."""

    pid: int
    uid: int
    # Whether it may change tensors while they are used, and whether the size of its segments is sealed.
    trusted: bool
    sealed: bool

    def channel_gone(self, channel: Channel, error: SidecamlError) -> None:
        """Tell the client that its channel is over."""


class Server(Protocol):
    """The instance of a model that a channel belongs to, whichever worker serves it at the time."""

    # Which of its model's, at one configuration.
    index: int

    @property
    def home(self) -> object:
        """The model at one configuration."""

    @property
    def status_read_fd(self) -> int:
        """What clients may read of the status pages."""

    @property
    def worker_pid(self) -> int:
        """The process that serves it now; 0 while none does."""

    def leave(self, channel: Channel, then: Callable[[], None]) -> None:
        """Forget a channel that ends; `then` is called when no worker uses its memory any more."""

    def describe(self) -> dict[str, Any]:
        """Give the protocol's form of the model."""


@dataclass(eq=False, slots=True)
class Channel:
    """One open model on one connection."""

    number: int
    model: str
    slots: int
    owner: Owner
    priority: str = NORMAL
    segment_bytes: int = 0
    journal_bytes: int = 0
    # What the worker takes besides, for the copy of one slot that requests of a client run on which is not
    # trusted.
    staged_bytes: int = 0
    instance: Server | None = None
    # Segment, request doorbell, answer doorbell: the worker's, and those of any that comes after it.
    fds: list[int] = field(default_factory=list)
    # The client's own end of the answer doorbell, where it has one.
    client_answer_fd: int | None = None
    # What a worker leaves to the one after it; no client ever gets it.
    journal_fd: int | None = None
    fingerprint: int = 0
    # Of the message `attach`: what lies in the segment.
    tensors: list[dict[str, Any]] = field(default_factory=list)
    maxima: Mapping[str, int] = field(default_factory=dict)
    # Whether a worker was given it, and whether one has answered that it serves it.
    offered: bool = False
    attached: bool = False
    # How many workers in a row died while they attached it, and how many of its requests had killed theirs.
    suspected: int = 0
    poisoned: int = 0
    # The run in which a worker died last: counted already.
    blamed_run: int = 0
    _read_only_fd: int | None = None

    @property
    def uid(self) -> int:
        """Whose it is."""
        return self.owner.uid

    @property
    def held_bytes(self) -> int:
        """How much memory it takes."""
        return self.segment_bytes + self.journal_bytes + self.staged_bytes

    @property
    def client_fds(self) -> list[int]:
        """The client's descriptors: segment, request doorbell, answer doorbell."""
        segment_fd, request_fd, answer_fd = self.fds
        return [segment_fd, request_fd, answer_fd if self.client_answer_fd is None else self.client_answer_fd]

    def read_only_fd(self) -> int:
        """Give a descriptor that cannot write the segment; the channel's own, made when first asked for."""
        if self._read_only_fd is None:
            self._read_only_fd = segment.read_only(self.fds[0])
        return self._read_only_fd

    def requests_started(self) -> int:
        """Count the requests that its workers have started; 0 once it has ended."""
        return 0 if self.journal_fd is None else requests_started(self.journal_fd)

    def unfinished_run(self) -> int:
        """Tell which run its worker was in the middle of when it died; 0 for none."""
        return 0 if self.journal_fd is None else unfinished_run(self.journal_fd)

    def measure(
        self,
        signature: Signature,
        batching: Batching,
        maxima: Mapping[str, int],
        text_bytes: int | None,
        limits: Limits,
    ) -> None:
        """Compute how much memory it takes; BAD_DIMS for maxima that do not fit, LIMIT when too much."""
        specs = batching.packed(signature, signature.bind(maxima, text_bytes))
        self.journal_bytes = journal_size(signature, maxima)
        if self.journal_bytes > limits.max_segment_bytes:
            raise SidecamlError(
                ErrorCode.LIMIT,
                f"model {self.model!r} needs {self.journal_bytes} bytes for carried state and "
                f"max_segment_bytes is {limits.max_segment_bytes}: ask for smaller dims, or raise it",
            )
        self.segment_bytes = segment_size(specs, self.slots, signature.fingerprint)
        if self.segment_bytes > limits.max_segment_bytes:
            raise SidecamlError(
                ErrorCode.LIMIT,
                f"model {self.model!r} with {self.slots} slots needs a segment of {self.segment_bytes} bytes "
                f"and max_segment_bytes is {limits.max_segment_bytes}: ask for fewer slots or smaller dims, "
                "or raise it",
            )
        if not self.owner.trusted:
            self.staged_bytes = segment_size(specs, 1, signature.fingerprint)
        self.fingerprint = signature.fingerprint
        self.tensors = [_described(spec) for spec in specs]
        self.maxima = dict(maxima)

    async def create(self) -> None:
        """Make segment, doorbells and journal; NO_SPACE when there is no room for them."""
        self.fds.append(await _create_segment(self.segment_bytes, self.owner.sealed))
        self.journal_fd = await _create_segment(self.journal_bytes, False)
        self.fds.append(segment.create_doorbell())
        if self.owner.trusted:
            self.fds.append(segment.create_doorbell())
        else:
            answer_fd, self.client_answer_fd = segment.create_socket_doorbell()
            self.fds.append(answer_fd)

    def attachment(self) -> tuple[list[int], dict[str, Any]]:
        """Give the descriptors and the fields of a message `attach`."""
        assert self.journal_fd is not None, "a channel is created before it is attached"
        fields = {
            "channel": self.number,
            "slots": self.slots,
            "fingerprint": self.fingerprint,
            "tensors": self.tensors,
            "dims": dict(self.maxima),
            "resume": self.attached,
            "staged": not self.owner.trusted,
            "priority": self.priority,
        }
        return [*self.fds, self.journal_fd], fields

    # --- What a later daemon needs of it --------------------------------------------------------------------

    def record(self) -> dict[str, Any]:
        """Give what `resumed` reads."""
        fields = {name: getattr(self, name) for name in _RECORDED}
        later = {"priority": self.priority, "staged_bytes": self.staged_bytes}
        return fields | later | {"maxima": dict(self.maxima)}

    def descriptors(self) -> dict[str, int]:
        """Give its descriptors by letters."""
        named = zip(_LETTERS, [*self.fds, self.journal_fd, self.client_answer_fd], strict=True)
        return {letter: fd for letter, fd in named if fd is not None}

    @classmethod
    def resumed(cls, record: Mapping[str, Any], fds: Mapping[str, int], owner: Owner) -> Channel:
        """Give a channel that was open under an earlier daemon; the descriptors become its own."""
        segment_fd, request_fd, answer_fd, journal_fd, client_answer_fd = map(fds.get, _LETTERS)
        fields = {name: record[name] for name in _RECORDED}
        # An earlier daemon may have known of neither.
        fields["staged_bytes"] = record.get("staged_bytes", 0)
        priority = record.get("priority", NORMAL)
        channel = cls(owner=owner, **fields, maxima=record["maxima"], priority=priority)
        channel.fds = [fd for fd in (segment_fd, request_fd, answer_fd) if fd is not None]
        channel.journal_fd, channel.client_answer_fd = journal_fd, client_answer_fd
        channel.offered = channel.attached = True
        return channel

    def close(self, last_look_s: float = 0.0) -> None:
        """Take it from its instance, attached or about to be, and close the descriptors.

        Memory of a client that is not trusted is given back even if the client keeps it, which would not
        count as its own any more; after the time that it has for a last look. A second time when its worker
        has let go of it, whose looks at memory that is gone bring pages of zeros back.
        """
        again = self._give_memory_back(last_look_s)
        if self.instance:
            self.instance.leave(self, again)
            self.instance = None
        else:
            again()
        messages.close_all(self.fds)
        self.fds.clear()
        ours = (self.journal_fd, self._read_only_fd, self.client_answer_fd)
        messages.close_all(fd for fd in ours if fd is not None)
        self.journal_fd = self._read_only_fd = self.client_answer_fd = None

    def _give_memory_back(self, last_look_s: float) -> Callable[[], None]:
        if not self.fds or self.owner.trusted:
            return _nothing
        segment_fd = self.fds.pop(0)
        # Without a descriptor to spare, the second time has to do.
        with contextlib.suppress(OSError):
            _give_back(os.dup(segment_fd), last_look_s)
        return partial(_give_back, segment_fd, last_look_s)

    @property
    def is_open(self) -> bool:
        """Whether it has not ended yet."""
        return bool(self.fds)


class Channels:
    """Every channel of the daemon, by its number; numbers are never used again."""

    def __init__(self, keeper: Keeper | None = None) -> None:
        """Start with none; what is open outlives the supervisor as far as its keeper sees to it."""
        self.keeper = keeper or Keeper.of_nothing()
        # Of the workers that serve them.
        self.crowd = Crowd()
        # Of users who are not trusted.
        self.poisoned = Poisoned()
        self.deaths = Deaths()
        self._by_number: dict[int, Channel] = {}
        self._numbers = itertools.count(self.keeper.last_channel + 1)

    def __len__(self) -> int:
        """Count the channels, those about to open included."""
        return len(self._by_number)

    def __iter__(self) -> Iterator[Channel]:
        """Give the channels that are open, oldest first."""
        return iter([channel for channel in self._by_number.values() if channel.attached])

    def all(self) -> list[Channel]:
        """Give those about to open, too."""
        return list(self._by_number.values())

    def get(self, number: int) -> Channel | None:
        """Find an open channel."""
        channel = self._by_number.get(number)
        return channel if channel and channel.attached else None

    def new(self, model: str, slots: int, owner: Owner, priority: str = NORMAL) -> Channel:
        """Enter a channel that is about to open."""
        channel = Channel(next(self._numbers), model, slots, owner, priority)
        self._by_number[channel.number] = channel
        return channel

    def enter(self, channel: Channel) -> None:
        """Enter a channel that was open under an earlier daemon."""
        self._by_number[channel.number] = channel

    def end(self, channel: Channel, last_look_s: float = 0.0) -> None:
        """Close a channel and forget it; nothing happens to one that is forgotten already."""
        if self._by_number.pop(channel.number, None):
            channel.close(last_look_s)
            self.keeper.over(channel)

    def send_away(self, channel: Channel, error: SidecamlError) -> None:
        """Close a channel and tell its owner why."""
        self.end(channel, LAST_LOOK_S)
        channel.owner.channel_gone(channel, error)


def _nothing() -> None:
    """Give nothing back."""


def _give_back(segment_fd: int, after_s: float) -> None:
    if after_s:
        asyncio.get_running_loop().call_later(after_s, giver.give_back, segment_fd)
    else:
        giver.give_back(segment_fd)


def segment_size(specs: Sequence[TensorSpec], slots: int, fingerprint: int) -> int:
    """Compute how many bytes a segment takes."""
    return _core.Layout([spec.for_layout for spec in specs], slots, fingerprint).segment_bytes


async def _create_segment(size: int, sealed: bool) -> int:
    # In a thread: reserving gigabytes takes seconds.
    create = partial(segment.create_segment, size, sealed=sealed)
    creating = asyncio.get_running_loop().run_in_executor(None, create)
    try:
        return await asyncio.shield(creating)
    except asyncio.CancelledError:
        creating.add_done_callback(_close_created)
        raise


def _close_created(creating: asyncio.Future[int]) -> None:
    if not creating.cancelled() and not creating.exception():
        messages.close_all([creating.result()])


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "dtype": spec.dtype.name.lower(),
        "output": spec.output,
        "dynamic": spec.dynamic,
        "max_dims": list(spec.max_dims),
        "text_bytes": spec.text_bytes,
        "packed": spec.packed,
    }
