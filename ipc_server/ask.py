"""A plain conversation with the daemon, for the commands and the Python client that ask it something."""

from __future__ import annotations

import itertools
import socket
from pathlib import Path
from typing import Any

from ipc_server import __version__, messages
from ipc_server.abi import ABI_VERSION, ErrorCode
from ipc_server.errors import SidecamlError

PATIENCE_S = 10.0


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
        try:
            messages.send(self._sock, {"id": next(self._ids), "op": op, **fields})
            message = messages.receive(self._sock)
        except TimeoutError:
            raise SidecamlError(
                ErrorCode.TIMEOUT,
                f"the daemon at {self._path} did not answer {op} within {self._patience_s:g} s",
            ) from None
        except OSError as error:
            raise self._gone(op, error.strerror or str(error)) from error
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

    def _connect(self) -> None:
        try:
            self._sock.connect(str(self._path))
        except OSError as error:
            raise SidecamlError(
                ErrorCode.CONNECT,
                f"no sidecaml daemon answers at {self._path} ({error.strerror}): start one with "
                "`sidecaml serve`, or name its socket with --socket",
            ) from error

    def _gone(self, op: str, why: str) -> SidecamlError:
        return SidecamlError(
            ErrorCode.SERVER_GONE, f"the daemon at {self._path} went away during {op}: {why}"
        )
