"""A daemon's connection against a client that says anything, with any descriptors: it answers, or ends."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import atheris

with atheris.instrument_imports(include=["ipc_server"]):
    from ipc_server import messages
    from ipc_server.abi import ErrorCode
    from ipc_server.access import peer_of
    from ipc_server.channel import Channel, Channels
    from ipc_server.config import Limits
    from ipc_server.control import Connection, Service
    from ipc_server.errors import SidecamlError
    from ipc_server.signature import signature_of

FDS_MOST = 9
MESSAGES_MOST = 8
TENSORS: Mapping[str, Any] = {
    "inputs": [
        {"name": "x", "dtype": "float32", "shape": ["N", "M"]},
        {"name": "s", "dtype": "string", "shape": [2]},
    ],
    "outputs": [{"name": "y", "dtype": "int4", "shape": ["N"]}],
}


class Model:
    """As much of a model as a connection asks for."""

    name = "m"
    state = "ready"

    class config:
        """What it allows."""

        max_slots = 4

    def __init__(self) -> None:
        """Have a signature with dynamic dimensions."""
        self.signature = signature_of({**TENSORS, "fingerprint": 1})

    def describe(self) -> dict[str, Any]:
        """Give the protocol's form."""
        return {"name": self.name, **TENSORS}


class WithoutWorkers(Connection):
    """Opens a channel as far as its dimensions."""

    async def _opened(
        self, channel: Channel, model: Any, maxima: Mapping[str, int], text_bytes: int | None
    ) -> None:
        specs = model.signature.bind(maxima, text_bytes)
        model.signature.bind_state(maxima)
        if len(specs) != 3:
            raise AssertionError(specs)
        if channel.slots == 1:
            raise SidecamlError(ErrorCode.NO_SPACE, "no room")

    def _opened_reply(self, channel: Channel) -> tuple[dict[str, Any], list[int]]:
        return {"channel": channel.number}, []


class NothingLogged(logging.Handler):
    """What a connection does not expect, it logs: then that is found."""

    def emit(self, record: logging.LogRecord) -> None:
        """Fail on errors."""
        if record.levelno >= logging.ERROR:
            raise AssertionError(record.getMessage()) from (record.exc_info or (None, None, None))[1]
        record.getMessage()


def pieces(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Split the input: two bytes of length, one for descriptors, the message."""
    for _ in range(MESSAGES_MOST):
        if len(data) < 3:
            return
        length = int.from_bytes(data[:2], "little")
        yield data[3 : 3 + length], data[2] % (FDS_MOST + 1)
        data = data[3 + length :]


async def converse(data: bytes) -> None:
    """Have one client say what the input says, and leave."""
    service = Service({"m": Model()}, Channels(), Limits())  # type: ignore[dict-item]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        theirs.setblocking(False)
        for message, descriptors in pieces(data):
            try:
                messages.send_packed(theirs, message, [0] * descriptors)
            except BlockingIOError:
                break
        theirs.shutdown(socket.SHUT_WR)
        connection = WithoutWorkers(ours, PEER, service)
        task = connection.start()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
        while (reply := heard(theirs)) is not None:
            assert reply["ok"] is True or ErrorCode(reply["code"]).name == reply["error"], reply
    assert not len(service.channels)


def heard(sock: socket.socket) -> dict[str, Any] | None:
    """Take the next reply."""
    try:
        message = messages.receive(sock)
    except BlockingIOError:
        return None
    if message is None:
        return None
    assert not message.fds
    return message.body


def try_one(data: bytes) -> None:
    """Run one conversation on the one loop."""
    LOOP.run_until_complete(converse(data))
    assert len(os.listdir("/proc/self/fd")) < MOST_DESCRIPTORS  # noqa: PTH208


LOOP = asyncio.new_event_loop()
MOST_DESCRIPTORS = 64
with socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)[0] as one_end:
    PEER = peer_of(one_end)

if __name__ == "__main__":
    logging.getLogger().handlers[:] = [NothingLogged()]
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    atheris.Setup(sys.argv, try_one)
    atheris.Fuzz()
