"""One end of a control socket on the event loop: asyncio's own streams refuse SOCK_SEQPACKET."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ipc_server import messages
from ipc_server.abi import ErrorCode
from ipc_server.closer import closer
from ipc_server.errors import SidecamlError
from ipc_server.time_limit import time_limit

# Past this many unread requests the socket is not read: its sender then waits, and nobody else does.
MAX_INBOX = 32
MAX_OUTBOX = 1024
_LINGER_S = 1.0
_LINGER_MESSAGES = 4096


class Link:
    """Sends and receives whole messages without ever blocking; descriptors that arrive are closed."""

    def __init__(self, sock: socket.socket, on_end: Callable[[], None] = lambda: None) -> None:
        """Take over a connected socket; `on_end` is called once, when the other end is gone."""
        sock.setblocking(False)
        # An older kernel lets them come, and leaves them in messages that nobody reads.
        self._closing_waits = not messages.refuse_descriptors(sock)
        self.ended = False
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._inbox: deque[dict[str, Any] | SidecamlError] = deque()
        self._outbox: deque[tuple[bytes, list[int]]] = deque()
        self._changed = asyncio.Event()
        self._reading = False
        self._closed = False
        self._resting = False
        self._resume()

    def fileno(self) -> int:
        """Give the socket's descriptor, which stays the link's."""
        return self._sock.fileno()

    async def receive(self) -> dict[str, Any] | None:
        """Wait for the next message; None when the other end is gone.

        Raises PROTOCOL for what is no message: nothing is read after it.
        """
        while not self._inbox:
            if self.ended:
                return None
            await self._wait()
        item = self._inbox.popleft()
        if isinstance(item, SidecamlError):
            raise item
        self._resume()
        return item

    def send(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Send now, or as soon as there is room; the descriptors stay the caller's.

        Raises LIMIT when too much waits to be sent already, INVALID for a message that is too large, and
        OSError when the system has no room for the descriptors: neither end is at fault then.
        """
        data = messages.pack(message)
        if self.ended:
            return
        if not self._outbox and self._try(data, fds):
            return
        if len(self._outbox) >= MAX_OUTBOX:
            raise SidecamlError(ErrorCode.LIMIT, f"{MAX_OUTBOX} messages wait for the other end to read them")
        self._outbox.append((data, _duplicates(fds)))
        self._loop.add_writer(self._sock, self._writable)

    async def flush(self, timeout_s: float) -> None:
        """Wait until everything is sent or the other end is gone; TimeoutError when it does not read."""
        async with time_limit(timeout_s):
            while self._outbox and not self.ended:
                await self._wait()

    async def finish(self) -> None:
        """Say that nothing more comes, and read on for a moment.

        Closing a Unix socket with unread messages in it takes our last words from the other end.
        """
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return
        try:
            async with time_limit(_LINGER_S):
                await self._discard()
        except TimeoutError:
            return

    def rest(self) -> None:
        """Read no more: what comes stays in the socket, for whoever has it next."""
        self._resting = True
        self._pause()

    @property
    def backlog(self) -> int:
        """How many messages wait for the other end to read earlier ones."""
        return len(self._outbox)

    @property
    def holds_requests(self) -> bool:
        """Whether something was read and not received."""
        return bool(self._inbox)

    def close(self) -> None:
        """Close the socket and forget what was not sent."""
        if self._closed:
            return
        self._closed = self.ended = True
        self._stop()
        if self._closing_waits:
            closer.close([self._sock.detach()])
        else:
            self._sock.close()
        self._changed.set()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _discard(self) -> None:
        for _ in range(_LINGER_MESSAGES):
            # After what was no message, nothing is read unless asked for.
            self._resume()
            try:
                if await self.receive() is None:
                    return
            except SidecamlError:
                continue

    def _resume(self) -> None:
        if not self._reading and not self.ended and not self._resting:
            self._loop.add_reader(self._sock, self._readable)
            self._reading = True

    def _pause(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._sock)
            self._reading = False

    def _readable(self) -> None:
        try:
            message = messages.receive(self._sock)
        except (BlockingIOError, InterruptedError):
            return
        except SidecamlError as error:
            self._inbox.append(error)
            self._pause()
        except OSError:
            self._end()
        else:
            self._take(message)
        self._changed.set()

    def _take(self, message: messages.Message | None) -> None:
        if message is None:
            self._end()
            return
        closer.close(message.fds)
        self._inbox.append(message.body)
        if len(self._inbox) >= MAX_INBOX:
            self._pause()

    def _writable(self) -> None:
        while self._outbox and self._try_or_end(*self._outbox[0]):
            # A failed attempt that ended the link has emptied the outbox.
            if self._outbox:
                messages.close_all(self._outbox.popleft()[1])
        if not self._outbox and not self.ended:
            self._loop.remove_writer(self._sock)
        self._changed.set()

    def _try(self, data: bytes, fds: Sequence[int]) -> bool:
        """Send; False when there is no room. A link that cannot send is at its end."""
        try:
            messages.send_packed(self._sock, data, fds)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            # Descriptors under way are counted for the whole user: others may have filled the number.
            if error.errno == errno.ETOOMANYREFS:
                raise
            self._end()
        return True

    def _try_or_end(self, data: bytes, fds: Sequence[int]) -> bool:
        try:
            return self._try(data, fds)
        except OSError:
            self._end()
            return True

    def _end(self) -> None:
        if self.ended:
            return
        self.ended = True
        self._inbox.clear()
        self._stop()
        self._changed.set()
        self._on_end()

    def _stop(self) -> None:
        self._pause()
        self._loop.remove_writer(self._sock)
        while self._outbox:
            messages.close_all(self._outbox.popleft()[1])


def _duplicates(fds: Sequence[int]) -> list[int]:
    with contextlib.ExitStack() as undo:
        made = []
        for fd in fds:
            made.append(os.dup(fd))
            undo.callback(os.close, made[-1])
        undo.pop_all()
        return made
