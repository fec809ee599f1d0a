"""Control messages: one msgpack map a SOCK_SEQPACKET message, with file descriptors beside it.

Both control sockets use these: client and supervisor, supervisor and worker. Nothing here believes its input,
and every descriptor that arrives is either in the returned message or closed.
"""

from __future__ import annotations

import array
import os
import select
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from ipc_server.abi import CONTROL_BYTES, ErrorCode
from ipc_server.errors import SidecamlError

MAX_DESCRIPTORS = 8
# SO_PASSRIGHTS of Linux 6.16.
_SO_PASSRIGHTS = 83
# A channel's: the requests of all that are high come before the others'.
NORMAL, HIGH = PRIORITIES = ("normal", "high")
# What a reply needs besides the description of a model.
REPLY_ROOM = 8192
# Longer sentences would only crowd a reply out of its CONTROL_BYTES.
MAX_SENTENCE = 4096

_INT_BYTES = array.array("i").itemsize
_ANCILLARY_BYTES = socket.CMSG_SPACE(MAX_DESCRIPTORS * _INT_BYTES)
_LARGEST_INT = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came; the descriptors belong to whoever holds it."""

    body: dict[str, Any]
    fds: list[int] = field(default_factory=list)
    # Descriptors were lost on the way; never so unless `receive` was told to take that.
    incomplete: bool = False

    def close_fds(self) -> None:
        """Close what came beside the message."""
        close_all(self.fds)
        self.fds.clear()


def pack(message: Mapping[str, Any]) -> bytes:
    """Encode one message; INVALID when it is too large, or holds what msgpack cannot carry."""
    data = _encoded(message)
    if len(data) > CONTROL_BYTES:
        raise SidecamlError(
            ErrorCode.INVALID, f"a control message of {len(data)} bytes: at most {CONTROL_BYTES} fit in one"
        )
    return data


def packed_size(message: Mapping[str, Any]) -> int:
    """Count the bytes that a message takes, or a part of one, whatever the protocol allows."""
    return len(_encoded(message))


def send(sock: socket.socket, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message, whole or not at all; OSError as the socket gives it."""
    send_packed(sock, pack(message), fds)


def send_packed(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """Send what `pack` made."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket, *, take_incomplete: bool = False) -> Message | None:
    """Receive one message; None when the other end is gone.

    Raises PROTOCOL for what is no message of the protocol, and BlockingIOError when none is there yet on a
    socket that does not block. A message is none when descriptors beside it were lost, too many or more than
    this process can hold, unless told to take it: then it says so.
    """
    try:
        data, ancillary, flags, _ = sock.recvmsg(CONTROL_BYTES + 1, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
    except (ConnectionResetError, BrokenPipeError):
        return None
    fds = _descriptors(ancillary)
    try:
        if not data and not fds and _is_gone(sock):
            return None
        incomplete = bool(flags & socket.MSG_CTRUNC)
        if incomplete and take_incomplete:
            flags &= ~socket.MSG_CTRUNC
        return Message(_checked_body(data, flags), fds, incomplete)
    except BaseException:
        close_all(fds)
        raise


def refuse_descriptors(sock: socket.socket) -> bool:
    """Have the kernel refuse to send descriptors to this socket; whether it knows how to."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
    except OSError:
        return False
    return True


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)


def reply_ok(request: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """Build the reply to a request that succeeded."""
    return {"id": request["id"], "ok": True, **fields}


def reply_error(request: Mapping[str, Any] | None, error: SidecamlError) -> dict[str, Any]:
    """Build the reply to a request that failed; without `id` when the request had no usable one."""
    reply: dict[str, Any] = {
        "ok": False,
        "code": int(error.code),
        "error": error.name,
        "message": shorten(str(error), MAX_SENTENCE),
    }
    if request is not None and is_count(request.get("id")):
        reply["id"] = request["id"]
    return reply


def error_of(reply: Mapping[str, Any]) -> SidecamlError:
    """Build the exception that a failed reply, or a `gone` event, tells of."""
    code: Any = reply.get("code")
    sentence = reply.get("message")
    try:
        known = ErrorCode(code)
    except ValueError:
        return SidecamlError(
            ErrorCode.PROTOCOL, f"an error reply of unknown code {shown(code)}: {shown(sentence)}"
        )
    return SidecamlError(known, sentence if isinstance(sentence, str) else known.name)


def is_count(value: object) -> bool:
    """Whether a value is an unsigned 64-bit integer, which True is not."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_INT


def shorten(text: str, room: int) -> str:
    """Cut a text to `room` characters."""
    return text if len(text) <= room else text[: room - 3] + "..."


def shown(value: object, room: int = 80) -> str:
    """Show a value that came from outside: never long, never with control characters."""
    if isinstance(value, Mapping):
        return f"a map of {len(value)} entries"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)} values"
    if isinstance(value, str | bytes):
        return shorten(repr(value[:room]), room)
    try:
        return shorten(repr(value), room)
    except ValueError:
        return f"{type(value).__name__} of too many digits"


def _encoded(message: Mapping[str, Any]) -> bytes:
    try:
        data: bytes = msgpack.packb(message, use_bin_type=True)
    except (ValueError, TypeError, OverflowError) as error:
        raise SidecamlError(ErrorCode.INVALID, f"a control message cannot carry a value: {error}") from error
    return data


def _descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % _INT_BYTES])
    return list(fds)


def _is_gone(sock: socket.socket) -> bool:
    """Tell end-of-file from an empty message, which reads the same."""
    poller = select.poll()
    poller.register(sock, select.POLLRDHUP)
    return any(events & (select.POLLRDHUP | select.POLLHUP | select.POLLERR) for _, events in poller.poll(0))


def _checked_body(data: bytes, flags: int) -> dict[str, Any]:
    if flags & socket.MSG_TRUNC or len(data) > CONTROL_BYTES:
        raise _bad(f"it is larger than {CONTROL_BYTES} bytes")
    if flags & socket.MSG_CTRUNC:
        raise _bad(f"more than {MAX_DESCRIPTORS} descriptors came with it, or this process can hold no more")
    if not data:
        raise _bad("it is empty")
    return unpack(data)


def unpack(data: bytes) -> dict[str, Any]:
    """Decode one message; PROTOCOL when it is none."""
    try:
        body = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise _bad(
            f"its {len(data)} bytes are not msgpack ({shorten(str(error) or type(error).__name__, 120)})"
        ) from error
    if not isinstance(body, dict) or not all(isinstance(key, str) for key in body):
        raise _bad(f"expected a map with strings as keys, got {shown(body)}")
    return body


def _bad(what: str) -> SidecamlError:
    return SidecamlError(ErrorCode.PROTOCOL, f"not a control message: {what}")
