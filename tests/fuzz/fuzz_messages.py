"""Control messages of any bytes, taken apart: a daemon's replies by a client, orders by a worker."""

from __future__ import annotations

import sys
from typing import Any

import atheris

with atheris.instrument_imports(include=["ipc_server"]):
    from ipc_server import messages, settings, worker
    from ipc_server.abi import ErrorCode
    from ipc_server.errors import SidecamlError
    from ipc_server.messages import Message
    from ipc_server.signature import signature_of

OPERATIONS = ("load", "begin", "attach", "detach", "keep", "ping", "drain")


class Lane:
    """As much of a lane as the orders of a supervisor need."""

    def attach(self, fds: list[int], specs: Any, layout: Any, maxima: Any, *, how: int) -> int:
        """Take a channel: anything that got so far is well formed."""
        assert len(fds) == worker.ATTACH_DESCRIPTORS
        assert layout.segment_bytes > 0
        assert all(isinstance(most, int) for most in maxima.values())
        assert how in range(4)
        return 0

    def interrupted(self, number: int) -> int:
        """No request was interrupted."""
        return number

    def detach(self, number: int) -> None:
        """Forget it."""
        assert number == 0

    def finish(self) -> None:
        """Finish nothing."""

    def close(self) -> None:
        """Close nothing."""


def obey(body: dict[str, Any], descriptors: int) -> None:
    """Give a worker an order."""
    one = worker.Worker(None)  # type: ignore[arg-type]
    one._lane = Lane()  # type: ignore[assignment]
    one._engine = one._lane  # type: ignore[attr-defined]
    answered = messages.unpack(one._answer(Message(body, [-1] * descriptors)))
    assert answered["ok"] is True or ErrorCode(answered["code"]), answered
    # What no library raised is a mistake of the worker's own.
    assert answered.get("error") != "SYSTEM", answered


def try_one(data: bytes) -> None:
    """Take one message apart."""
    try:
        body = messages.unpack(data[1:])
    except SidecamlError as error:
        assert error.code is ErrorCode.PROTOCOL
        return
    messages.pack(body)
    shown = str(messages.error_of(body))
    assert isinstance(shown, str)
    body.setdefault("id", 1)
    kind = data[0]
    if kind & 1:
        body.setdefault("op", OPERATIONS[kind >> 4 & 7 if kind >> 4 & 7 < len(OPERATIONS) else 2])
        if body["op"] not in ("load", "begin"):
            obey(body, kind >> 1 & 7)
    else:
        for read in (settings.decode, signature_of):
            try:
                read(body)
            except SidecamlError as error:
                assert error.code in (ErrorCode.PROTOCOL, ErrorCode.UNSUPPORTED), error


if __name__ == "__main__":
    atheris.Setup(sys.argv, try_one)
    atheris.Fuzz()
