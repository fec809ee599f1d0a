"""One client's connection: docs/protocol.md section 4, request by request."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ipc_server import __version__, messages
from ipc_server.abi import ABI_VERSION, CONTROL_BYTES, ErrorCode
from ipc_server.access import Access, Peer, peer_of
from ipc_server.channel import Channel, Channels
from ipc_server.config import Limits
from ipc_server.crash_points import point
from ipc_server.errors import SidecamlError
from ipc_server.link import Link
from ipc_server.messages import HIGH, NORMAL, PRIORITIES, REPLY_ROOM, is_count, shown
from ipc_server.model import Model
from ipc_server.quotas import Quotas, deaths_allowed
from ipc_server.suggest import hint
from ipc_server.time_limit import time_limit

log = logging.getLogger(__name__)

# SO_PEERPIDFD of Linux 6.5: the peer itself, where a process id may be another's by now.
_SO_PEERPIDFD = 77
_REST_LOOK_S = 0.005
_NO_MORE_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ETOOMANYREFS}

T = TypeVar("T")
Request = Mapping[str, Any]
Answer = tuple[dict[str, Any], list[int]]


@dataclass(slots=True)
class Service:
    """What the connections share."""

    models: Mapping[str, Model]
    channels: Channels
    limits: Limits
    access: Access = field(default_factory=Access)
    quotas: Quotas = field(default_factory=Quotas)
    stopping: bool = False


class Connection:
    """A client: who it is, what it holds, and the conversation with it."""

    def __init__(self, sock: socket.socket, peer: Peer, service: Service, pidfd: int | None = None) -> None:
        """Take over an accepted socket; OSError when the client cannot be watched.

        A `pidfd` of the client is made unless it is given.
        """
        self.pid, self.uid = peer.pid, peer.uid
        self._peer = peer
        self.trusted = service.access.trusts(peer)
        self.sealed = service.access.seals(peer.uid)
        self.channels: dict[int, Channel] = {}
        # Whether a request of it is being answered.
        self.is_busy = False
        self._service = service
        self._pidfd = _peer_pidfd(sock, self.pid) if pidfd is None else pidfd
        self._link = Link(sock, self._left)
        self._task: asyncio.Task[None] | None = None
        self._greeted = False
        self._operations: dict[str, Callable[[Request], Awaitable[Answer]]] = {
            "hello": self._hello,
            "describe": self._describe,
            "open": self._open,
            "close": self._close,
            "ping": self._ping,
            "channels": self._channels,
            "inspect": self._inspect,
        }
        if self._pidfd is not None:
            asyncio.get_running_loop().add_reader(self._pidfd, self._left)

    @classmethod
    def resumed(cls, sock: socket.socket, service: Service, pidfd: int | None) -> Connection:
        """Take over the connection of an earlier daemon, to which the client said hello."""
        connection = cls(sock, peer_of(sock), service, pidfd)
        connection._greeted = True
        return connection

    def descriptors(self) -> dict[str, int]:
        """Give what a later daemon needs of it: socket and pidfd."""
        pidfd = {} if self._pidfd is None else {"p": self._pidfd}
        return {"s": self._link.fileno(), **pidfd}

    def start(self) -> asyncio.Task[None]:
        """Serve the client in a task of its own, until it leaves or is sent away."""
        self._task = asyncio.create_task(self._serve())
        # Not at the end of _serve: a task that is cancelled before its first step never gets there.
        self._task.add_done_callback(self._release)
        return self._task

    def stop(self) -> None:
        """End the conversation."""
        if self._task:
            self._task.cancel()

    async def flush(self, timeout_s: float) -> None:
        """Give the client a moment to take what was said to it."""
        try:
            await self._link.flush(timeout_s)
        except TimeoutError:
            log.warning("client %d: did not read the daemon's last words", self.pid)

    def channel_gone(self, channel: Channel, error: SidecamlError) -> None:
        """Tell the client that its channel is over."""
        self.channels.pop(channel.number, None)
        self.tell_gone(channel.number, error)

    def tell_gone(self, number: int, error: SidecamlError) -> None:
        """Tell the client that a channel is over."""
        event = {"event": "gone", "channel": number, "code": int(error.code), "message": str(error)}
        try:
            self._link.send(event)
        except SidecamlError as failure:
            log.warning("client %d: sent away: %s", self.pid, failure)
            self.stop()

    def _left(self) -> None:
        point("supervisor.client-left")
        log.debug("client %d: left", self.pid)
        self.stop()

    async def _serve(self) -> None:
        try:
            await self._converse()
        except TimeoutError:
            log.warning("client %d: sent away: it does not read its replies", self.pid)
        except SidecamlError as error:
            log.warning("client %d: sent away: %s", self.pid, error)
            await self._part(error)

    async def _converse(self) -> None:
        try:
            async with time_limit(self._service.limits.hello_timeout_s):
                while not self._greeted:
                    if not await self._next():
                        return
        except TimeoutError:
            waited = self._service.limits.hello_timeout_s
            raise SidecamlError(ErrorCode.PROTOCOL, f"no hello within {waited:g} s") from None
        while await self._next():
            pass

    async def _next(self) -> bool:
        """Serve the next request; False when there is none any more."""
        request = await self._link.receive()
        if request is None:
            return False
        if not is_count(request.get("id")):
            raise SidecamlError(
                ErrorCode.PROTOCOL,
                f"a request's id: expected an unsigned integer, got {shown(request.get('id'))}",
            )
        self.is_busy = True
        try:
            await self._reply(request)
        finally:
            self.is_busy = False
        await self._link.flush(self._service.limits.send_timeout_s)
        return True

    def hand_out(self, channel: Channel, request: int) -> None:
        """Give the client a channel that an earlier daemon opened for it, and may have given it already."""
        fields, fds = self._opened_reply(channel)
        self._send({"id": request, "op": "open"}, fields, fds)

    def drop(self) -> None:
        """Close a connection that was not started."""
        self._release(None)

    async def rest(self) -> None:
        """Answer what was read, and read no more."""
        self._link.rest()
        while self.is_busy or self._link.holds_requests:
            await asyncio.sleep(_REST_LOOK_S)
        await self._link.flush(self._service.limits.send_timeout_s)

    async def _part(self, error: SidecamlError) -> None:
        """Say why, and leave the client time to read it; what it held is free meanwhile."""
        self._end_channels()
        self._link.send(messages.reply_error(None, error))
        await self._link.finish()

    def _end_channels(self) -> None:
        for channel in list(self.channels.values()):
            self._service.channels.end(channel)
        self.channels.clear()

    def _release(self, _task: asyncio.Task[None] | None) -> None:
        self._end_channels()
        self._service.channels.keeper.over(self)
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        self._link.close()

    async def _reply(self, request: Request) -> None:
        try:
            fields, fds = await self._answer(request)
            self._send(request, fields, fds)
        except SidecamlError as error:
            log.info("client %d: %s: refused: %s: %s", self.pid, shown(request.get("op")), error.name, error)
            self._link.send(messages.reply_error(request, error))
            if error.code is ErrorCode.ABI_MISMATCH:
                raise

    def _send(self, request: Request, fields: dict[str, Any], fds: Sequence[int]) -> None:
        try:
            self._link.send(messages.reply_ok(request, **fields), fds)
            point("supervisor.replied")
            if request["op"] == "open":
                self._service.channels.keeper.channel_answered(self.channels[fields["channel"]])
        except OSError as error:
            # Its descriptors did not arrive: nobody will use the channel.
            if request["op"] == "open":
                self._close_channel(fields["channel"])
            raise _system(request["op"], error) from error

    async def _answer(self, request: Request) -> Answer:
        op = _field(request, "op", str, "a string")
        operation = self._operations.get(op)
        if not operation:
            raise _bad(f"unknown op {shown(op)}: {hint(op, self._operations)}")
        if not self._greeted and op != "hello":
            raise _bad(f"{op} came before hello: a connection begins with hello")
        try:
            return await operation(request)
        except OSError as error:
            raise _system(op, error) from error
        except SidecamlError:
            raise
        except Exception as error:
            log.exception("client %d: %s failed", self.pid, op)
            raise SidecamlError(
                ErrorCode.SYSTEM, f"{op} failed inside the daemon: its log says more"
            ) from error

    async def _hello(self, request: Request) -> Answer:
        client = _field(request, "client", str, "a string")
        abi = _count(request, "abi")
        if abi != ABI_VERSION:
            raise SidecamlError(
                ErrorCode.ABI_MISMATCH,
                f"the client speaks ABI version {abi} and the daemon, sidecaml {__version__}, version "
                f"{ABI_VERSION}: use the same release of sidecaml on both sides",
            )
        self._greeted = True
        log.debug("client %d: hello from %s", self.pid, shown(client))
        return {"abi": ABI_VERSION, "server": f"sidecaml {__version__}", "pid": os.getpid()}, []

    async def _describe(self, request: Request) -> Answer:
        if "model" in request:
            return {"models": [self._model(request).describe()], "more": False}, []
        after = _field(request, "after", str, "a model's name") if "after" in request else ""
        later = [model.describe() for name, model in sorted(self._service.models.items()) if name > after]
        page = _page(later)
        return {"models": page, "more": len(page) < len(later)}, []

    async def _open(self, request: Request) -> Answer:
        # The configuration may be another than when it connected.
        self._service.access.check(self._peer)
        model = self._model(request)
        slots = _count(request, "slots")
        maxima = _dims(request)
        text_bytes = _count(request, "text_bytes") if "text_bytes" in request else None
        priority = self._priority(request)
        self._check_room(model, slots)
        point("supervisor.open.begun")
        channel = self._service.channels.new(model.name, slots, self, priority)
        self.channels[channel.number] = channel
        try:
            await self._opened(channel, model, maxima, text_bytes)
            await self._service.channels.keeper.channel_opens(channel, self, request["id"])
            return self._opened_reply(channel)
        except BaseException:
            self.channels.pop(channel.number, None)
            self._service.channels.end(channel)
            raise

    async def _opened(
        self, channel: Channel, model: Model, maxima: Mapping[str, int], text_bytes: int | None
    ) -> None:
        timeout_s = self._service.limits.open_timeout_s
        try:
            async with time_limit(timeout_s):
                edition = await model.usable_edition()
                instance = edition.join(channel)
                channel.measure(
                    instance.signature, edition.batching, maxima, text_bytes, self._service.limits
                )
                self._service.quotas.check_bytes(self.uid, self._service.channels.all(), self._service.limits)
                await channel.create()
                point("supervisor.open.created")
                await edition.attach(channel)
                point("supervisor.open.attached")
        except TimeoutError:
            what = "is still loading" if model.state == "loading" else "is busy with a request"
            raise SidecamlError(
                ErrorCode.TIMEOUT,
                f"model {model.name!r} {what}: the channel did not open within {timeout_s:g} s",
            ) from None

    def _opened_reply(self, channel: Channel) -> Answer:
        instance = channel.instance
        if instance is None:
            raise SidecamlError(
                ErrorCode.SERVER_GONE, f"the worker of model {channel.model!r} is gone: open the model again"
            )
        log.info("channel %d: opened on %s by client %d", channel.number, channel.model, self.pid)
        reply = {
            "channel": channel.number,
            "model": instance.describe(),
            "slots": channel.slots,
            "segment_bytes": channel.segment_bytes,
            "fingerprint": channel.fingerprint,
        }
        return reply, [*channel.client_fds, instance.status_read_fd]

    def _check_room(self, model: Model, slots: int) -> None:
        limits = self._service.limits
        if self._service.stopping:
            raise SidecamlError(
                ErrorCode.SHUTTING_DOWN, "the daemon is shutting down: it opens no more channels"
            )
        if slots < 1:
            raise SidecamlError(ErrorCode.INVALID, "slots: expected at least 1, got 0")
        if slots > model.config.max_slots:
            raise SidecamlError(
                ErrorCode.TOO_MANY_SLOTS,
                f"model {model.name!r} allows {model.config.max_slots} slots a channel and {slots} were "
                "asked for: ask for fewer, or raise its max_slots",
            )
        for held, most, whose in (
            (len(self.channels), limits.max_channels_per_connection, "max_channels_per_connection"),
            (len(self._service.channels), limits.max_channels, "max_channels"),
        ):
            if held >= most:
                raise SidecamlError(
                    ErrorCode.LIMIT,
                    f"{held} channels are open and {whose} is {most}: close one, or raise {whose}",
                )
        if not self.trusted:
            most = limits.max_poisoned_per_channel
            self._service.channels.poisoned.check_open(self.uid, model.name, most)
            self._service.channels.deaths.check_open(self.uid, model.name, deaths_allowed(limits))
        self._service.quotas.check_open(self.uid, self._service.channels.all(), limits)

    async def _close(self, request: Request) -> Answer:
        self._close_channel(_count(request, "channel"))
        return {}, []

    def _close_channel(self, number: int) -> None:
        channel = self.channels.pop(number, None)
        if channel:
            point("supervisor.close.begun")
            self._service.channels.end(channel)
            point("supervisor.close.ended")
            log.info("channel %d: closed", number)

    async def _ping(self, _request: Request) -> Answer:
        return {"time_ns": time.monotonic_ns()}, []

    async def _channels(self, request: Request) -> Answer:
        after = _count(request, "after") if "after" in request else 0
        rows = [
            _row(channel)
            for channel in self._service.channels
            if channel.number > after and self._may_see(channel)
        ]
        page = _page(rows)
        return {"channels": page, "more": len(page) < len(rows)}, []

    async def _inspect(self, request: Request) -> Answer:
        number = _count(request, "channel")
        channel = self._service.channels.get(number)
        if not channel or not channel.instance:
            raise SidecamlError(
                ErrorCode.INVALID, f"no channel {number} is open: `sidecaml inspect` lists them"
            )
        if not self._may_see(channel):
            raise SidecamlError(ErrorCode.DENIED, f"channel {number} belongs to another user")
        fields = {"channel": number, "model": channel.model, "page": channel.instance.index}
        return fields, [
            channel.read_only_fd(),
            channel.instance.status_read_fd,
        ]

    def _priority(self, request: Request) -> str:
        priority = request.get("priority", NORMAL)
        if priority not in PRIORITIES:
            raise _bad(f"priority: expected one of {', '.join(PRIORITIES)}, got {shown(priority)}")
        if priority == HIGH and not self.trusted:
            raise SidecamlError(
                ErrorCode.DENIED,
                "priority: high is for users whom the daemon trusts: open without it, or name the user in "
                "trusted_users",
            )
        return str(priority)

    def _may_see(self, channel: Channel) -> bool:
        return self.uid in (0, channel.owner.uid)

    def _model(self, request: Request) -> Model:
        name = _field(request, "model", str, "a model's name")
        model = self._service.models.get(name)
        if not model:
            raise SidecamlError(
                ErrorCode.UNKNOWN_MODEL,
                f"no model is called {shown(name)}: {hint(name, self._service.models)}",
            )
        return model


def _page(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take as many items as one reply carries, and at least one: each of them alone fits."""
    room = CONTROL_BYTES - REPLY_ROOM
    page: list[dict[str, Any]] = []
    for item in items:
        room -= len(messages.pack(item))
        if page and room < 0:
            break
        page.append(item)
    return page


def _row(channel: Channel) -> dict[str, Any]:
    return {
        "channel": channel.number,
        "model": channel.model,
        "slots": channel.slots,
        "priority": channel.priority,
        "segment_bytes": channel.segment_bytes,
        "client_pid": channel.owner.pid,
        "worker_pid": channel.instance.worker_pid if channel.instance else 0,
    }


def _field(request: Request, key: str, kind: type[T], expected: str) -> T:
    value = request.get(key)
    if not isinstance(value, kind):
        raise _bad(f"{key}: expected {expected}, got {shown(value) if key in request else 'nothing'}")
    return value


def _count(request: Request, key: str) -> int:
    value = request.get(key)
    if not isinstance(value, int) or not is_count(value):
        raise _bad(
            f"{key}: expected an unsigned integer, got {shown(value) if key in request else 'nothing'}"
        )
    return value


def _dims(request: Request) -> dict[str, int]:
    dims = request.get("dims", {})
    if not isinstance(dims, dict):
        raise _bad(f"dims: expected a map from names of dimensions to their maxima, got {shown(dims)}")
    for name, most in dims.items():
        if not isinstance(name, str) or not is_count(most):
            raise _bad(f"dims: expected an unsigned integer for {shown(name)}, got {shown(most)}")
    return dims


def _bad(what: str) -> SidecamlError:
    return SidecamlError(ErrorCode.PROTOCOL, what)


def _system(op: str, error: OSError) -> SidecamlError:
    if error.errno in _NO_MORE_DESCRIPTORS:
        return SidecamlError(
            ErrorCode.LIMIT,
            f"{op}: the daemon can hold no more descriptors ({error.strerror}): close channels",
        )
    return SidecamlError(ErrorCode.SYSTEM, f"{op}: {error.strerror}")


def _peer_pidfd(sock: socket.socket, pid: int) -> int | None:
    """Watch the peer itself, lest a child that inherited the socket keeps the channels; None if gone."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if error.errno not in (errno.ENOPROTOOPT, errno.ESRCH, errno.EINVAL):
            raise
    try:
        return os.pidfd_open(pid) if pid > 0 else None
    except ProcessLookupError:
        return None
