"""A plain conversation with the daemon, for the commands and the Python client that ask it something."""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ipc_server import __version__, messages
from ipc_server.abi import ABI_VERSION, ErrorCode
from ipc_server.backoff import FIRST_S, Backoff
from ipc_server.crash_points import point
from ipc_server.errors import SidecamlError

PATIENCE_S = 10.0

T = TypeVar("T")


class DaemonLost(SidecamlError):
    """SERVER_GONE: the connection ended in the middle of the conversation."""


def converse(path: Path, patience_s: float, talk: Callable[[Conversation], T]) -> T:
    """Connect and talk, and do both again when the daemon goes away in the middle, until patience ends.

    That does no harm: a connection that ends without an open channel leaves nothing behind. A daemon that
    says that it shuts down is waited for as well. Where nobody has answered at all that is CONNECT at once,
    and what is wrong with an answer is never asked again.
    """
    backoff = Backoff(time.monotonic() + patience_s)
    was_lost = False
    while True:
        try:
            with Conversation(path, max(backoff.left_s, FIRST_S)) as conversation:
                return talk(conversation)
        except SidecamlError as error:
            lost = isinstance(error, DaemonLost) or error.code is ErrorCode.SHUTTING_DOWN
            was_lost = was_lost or lost
            if not lost and not (was_lost and error.code is ErrorCode.CONNECT):
                raise
            if not backoff.sleep():
                raise


class Conversation:
    """A connection that has said hello; use it in a `with` statement."""

    def __init__(self, path: Path, patience_s: float = PATIENCE_S) -> None:
        """Connect; CONNECT when nobody answers there, TIMEOUT when an answer takes longer than patience."""
        self._path = path
        self._patience_s = patience_s
        self._ids = itertools.count(1)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.settimeout(patience_s)
        try:
            self._connect()
            point("client.open.connected")
            self.ask("hello", abi=ABI_VERSION, client=f"sidecaml {__version__}")
        except BaseException:
            self._sock.close()
            raise

    def __enter__(self) -> Conversation:
        """Give the conversation."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._sock.close()

    def hand_over(self) -> int:
        """Give the socket's descriptor away: its taker owns the connection, and this object is over."""
        self._sock.setblocking(True)
        return self._sock.detach()

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask for something that comes without descriptors."""
        message = self.ask_for_fds(op, **fields)
        message.close_fds()
        return message.body

    def ask_for_fds(self, op: str, **fields: Any) -> messages.Message:
        """Ask, and give the reply with its descriptors; raises what the daemon answers."""
        self.send(op, **fields)
        return self.receive(op)

    def send(self, op: str, **fields: Any) -> None:
        """Ask only: `receive` is next."""
        with self._during(op):
            messages.send(self._sock, {"id": next(self._ids), "op": op, **fields})

    def receive(self, op: str) -> messages.Message:
        """Give the reply to what was asked last, with its descriptors; raises what the daemon answers."""
        with self._during(op):
            message = messages.receive(self._sock)
        if message is None:
            raise self._gone(op, "end of file")
        if message.body.get("ok") is not True:
            message.close_fds()
            raise messages.error_of(message.body)
        return message

    def pages(self, op: str, items: str, key: str) -> list[dict[str, Any]]:
        """Ask for a list page by page; `key` names the field that the next page goes on after."""
        found: list[dict[str, Any]] = []
        more = True
        while more:
            reply = self.ask(op, **({"after": found[-1][key]} if found else {}))
            page = reply.get(items, [])
            found += page
            # A page without an item would be asked for again for ever.
            more = bool(page) and reply.get("more") is True
        return found

    @contextlib.contextmanager
    def _during(self, op: str) -> Iterator[None]:
        """Have the socket's errors say what they mean."""
        try:
            yield
        except TimeoutError:
            raise SidecamlError(
                ErrorCode.TIMEOUT,
                f"the daemon at {self._path} did not answer {op} within {self._patience_s:g} s",
            ) from None
        except OSError as error:
            raise self._gone(op, error.strerror or str(error)) from error

    def _connect(self) -> None:
        backoff = Backoff(time.monotonic() + self._patience_s)
        try:
            # There is nothing to wait on while the daemon's queue is full.
            while self._is_queue_full():
                if not backoff.sleep():
                    raise SidecamlError(
                        ErrorCode.TIMEOUT,
                        f"the daemon at {self._path} did not take the connection within "
                        f"{self._patience_s:g} s: its queue is full",
                    )
        except OSError as error:
            raise SidecamlError(
                ErrorCode.CONNECT,
                f"no sidecaml daemon answers at {self._path} ({error.strerror}): start one with "
                "`sidecaml serve`, or name its socket with --socket",
            ) from error

    def _is_queue_full(self) -> bool:
        try:
            self._sock.connect(str(self._path))
        except BlockingIOError:
            return True
        return False

    def _gone(self, op: str, why: str) -> SidecamlError:
        return DaemonLost(ErrorCode.SERVER_GONE, f"the daemon at {self._path} went away during {op}: {why}")
