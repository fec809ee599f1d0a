"""A worker process and the channels on it, spoken to as the supervisor does, without one."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from daemon_process import REPOSITORY, environment
from ring_pair import FINGERPRINT, Descriptors

from ipc_server import _core, messages, settings
from ipc_server.abi import STATE_MASK, State
from ipc_server.client import Channel, Model
from ipc_server.errors import SidecamlError
from ipc_server.settings import Settings
from ipc_server.signature import signature_of

PATIENCE_S = 60
# Where slots lie in a segment: behind header, descriptors, client and worker block.
_FIXED_BYTES, _BYTES_A_TENSOR, _BYTES_A_SLOT = 128 + 2 * 128, 256, 512
CALLABLES = Path(__file__).resolve().parent / "callables"


class Attached:
    """An open channel of the worker: its client's end, and the descriptors that a supervisor keeps."""

    def __init__(self, number: int, model: Model, dims: Mapping[str, int], slots: int) -> None:
        self.number = number
        self._specs = model.signature.bind(dims)
        self._dims = dims
        self._layout = _core.Layout([spec.for_layout for spec in self._specs], slots, FINGERPRINT)
        self.made = Descriptors(self._layout)
        self._model = model
        self.bytes = self._layout.segment_bytes

    def order(self) -> tuple[tuple[int, ...], dict[str, Any]]:
        """Give the message that attaches it: descriptors and fields."""
        tensors = [
            {
                "name": spec.name,
                "dtype": spec.dtype.name.lower(),
                "output": spec.output,
                "dynamic": spec.dynamic,
                "max_dims": spec.max_dims,
                "text_bytes": spec.text_bytes,
            }
            for spec in self._specs
        ]
        fields = {"channel": self.number, "slots": self._layout.slots, "fingerprint": FINGERPRINT}
        made = self.made
        fds = (made.segment, made.request, made.answer, made.journal)
        return fds, {**fields, "tensors": tensors, "dims": dict(self._dims)}

    def begin(self, status_fd: int) -> None:
        """Map it as its client."""
        made = self.made
        fds = (*made.for_worker(), os.dup(status_fd), os.dup(made.client_control.fileno()))
        self.client = Channel(_core.Channel(*fds, FINGERPRINT, _core.BLOCK), self._model)

    def is_running(self, slot: int) -> bool:
        """Whether a request runs in a slot; read from the file, so that it may be cut meanwhile."""
        tensors = len(self._layout.tensors)
        word = os.pread(self.made.segment, 8, _FIXED_BYTES + _BYTES_A_TENSOR * tensors + _BYTES_A_SLOT * slot)
        return bool(word) and word[0] & STATE_MASK == State.RUNNING

    def cut(self, size: int) -> None:
        """Make the segment shorter: nobody may touch the client's end any more, this process has no guard."""
        os.ftruncate(self.made.segment, size)

    def close(self) -> None:
        """Close both ends."""
        os.ftruncate(self.made.segment, self.bytes)
        with contextlib.suppress(SidecamlError):
            self.client.close()
        self.made.close()


class OneWorker:
    """The process, and the supervisor's end of its socket."""

    def __init__(self, chosen: Settings, log: Path, policy: str = "block") -> None:
        """Start it and have it serve a model."""
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(PATIENCE_S)
        self.log = log
        command = [sys.executable, "-m", "ipc_server.worker", "--control-fd", str(theirs.fileno())]
        with theirs, log.open("wb") as written:
            self.process = subprocess.Popen(
                command, cwd=REPOSITORY, env=environment(), pass_fds=[theirs.fileno()], stderr=written
            )
        self._ids = 0
        self._channels: list[Attached] = []
        self.events: list[dict[str, Any]] = []
        self._page = Descriptors(_core.Layout([], 1, FINGERPRINT))
        described = self.ask("load", **settings.encode(chosen))
        self.model = Model("model", chosen.engine, "ready", "", 8, signature_of(described))
        self.ask("begin", (self._page.status,), policy=policy, max_attempts=2)

    def ask(self, op: str, fds: tuple[int, ...] = (), **fields: Any) -> dict[str, Any]:
        """Order something and wait for the reply; events that come before it are kept."""
        self._ids += 1
        messages.send(self.control, {"id": self._ids, "op": op, **fields}, fds)
        while (body := self._hear()).get("id") != self._ids:
            self.events.append(body)
        assert body["ok"] is True, body
        return body

    def event(self) -> dict[str, Any]:
        """Give the next event, or wait for it."""
        return self.events.pop(0) if self.events else self._hear()

    def _hear(self) -> dict[str, Any]:
        message = messages.receive(self.control)
        assert message is not None, f"the worker is gone: {self.log.read_text(errors='replace')}"
        return message.body

    def attach(self, dims: Mapping[str, int] | None = None, slots: int = 2, **how: bool) -> Attached:
        """Open one more channel."""
        channel = Attached(len(self._channels), self.model, dims or {}, slots)
        fds, fields = channel.order()
        self.ask("attach", fds, **fields, **how)
        channel.begin(self._page.status)
        self._channels.append(channel)
        return channel

    def close(self) -> None:
        """End the worker; what is still attached is closed."""
        for channel in self._channels:
            channel.close()
        self.control.close()
        self.process.wait(PATIENCE_S)
        self._page.close()


@contextlib.contextmanager
def one_worker(chosen: Settings, log: Path, policy: str = "block") -> Iterator[OneWorker]:
    """Give a worker that serves a model; whatever it does, it is still alive at the end."""
    worker = OneWorker(chosen, log, policy)
    try:
        yield worker
        assert worker.process.poll() is None, log.read_text(errors="replace")
    finally:
        worker.close()


def function(name: str, **changes: Any) -> Settings:
    """Serve a function: `hostile:rereads`, say."""
    return Settings("model", engine="python", callable=name, python_path=(CALLABLES,), **changes)
