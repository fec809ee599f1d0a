"""`sidecaml inspect`: what lies in a live channel's shared memory, without touching it."""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path
from typing import Any

from ipc_server import decode
from ipc_server.abi import (
    CLIENT_BYTES,
    DIMS_BYTES,
    MAX_SLOTS,
    MAX_TENSORS,
    PAGE_BYTES,
    SEGMENT_HEADER_BYTES,
    SLOT_BYTES,
    TENSOR_BYTES,
    ErrorCode,
)
from ipc_server.ask import Conversation
from ipc_server.errors import SidecamlError

_ARRAYS_OFFSET = struct.Struct("<Q")
_ARRAYS_OFFSET_AT = 80
_MOST_TABLES = (
    SEGMENT_HEADER_BYTES
    + MAX_TENSORS * TENSOR_BYTES
    + CLIENT_BYTES
    + MAX_SLOTS * (SLOT_BYTES + MAX_TENSORS * DIMS_BYTES)
    + PAGE_BYTES
)


def list_channels(socket: Path) -> str:
    """Show the channels that may be inspected, one a line."""
    with Conversation(socket) as conversation:
        channels = conversation.pages("channels", "channels", "channel")
    return "\n".join(map(_line, channels)) or "no channel is open"


def inspect_channel(socket: Path, number: int) -> str:
    """Show one channel: its segment's header, tensors and slots, and its worker's status page.

    Raises SidecamlError when the daemon refuses, and DecodeError when the memory is not as the protocol says.
    """
    with Conversation(socket) as conversation:
        message = conversation.ask_for_fds("inspect", channel=number)
    try:
        segment_fd, status_fd = message.fds
        # What the segment says of it, the client could have written.
        page = message.body.get("page", 0)
        status = decode.decode_status(os.pread(status_fd, PAGE_BYTES, page * PAGE_BYTES))
        segment = decode.decode_segment(memoryview(tables(segment_fd)))
    finally:
        message.close_fds()
    now = time.monotonic_ns()
    title = f"channel  {number}, model {message.body['model']}"
    return "\n".join([title, decode.render_status(status, now), decode.render_segment(segment, now)])


def tables(fd: int) -> mmap.mmap:
    """Copy a segment's header and tables to private memory of its size; the arrays are left unread.

    The segment itself is never mapped: its client could truncate it meanwhile, which kills whoever reads.
    """
    size = os.fstat(fd).st_size
    try:
        memory = mmap.mmap(-1, max(size, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise SidecamlError(
            ErrorCode.CORRUPT, f"the segment says that it has {size} bytes: {error.strerror}"
        ) from error
    header = os.pread(fd, SEGMENT_HEADER_BYTES, 0)
    if len(header) == SEGMENT_HEADER_BYTES:
        (end,) = _ARRAYS_OFFSET.unpack_from(header, _ARRAYS_OFFSET_AT)
        copied = os.pread(fd, min(end, size, _MOST_TABLES), 0)
        memory[: len(copied)] = copied
    return memory


def _line(channel: dict[str, Any]) -> str:
    return (
        f"channel {channel['channel']}  model {channel['model']}  "
        f"{decode.counted(channel['slots'], 'slot')}  {channel['segment_bytes']} B  "
        f"priority {channel['priority']}  "
        f"client {channel['client_pid']}  worker {channel['worker_pid']}"
    )
