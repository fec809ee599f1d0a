"""One worker process as the supervisor sees it: started, asked, watched, ended."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ipc_server import messages, segment
from ipc_server.abi import ErrorCode
from ipc_server.errors import SidecamlError
from ipc_server.link import Link

log = logging.getLogger(__name__)

# The worker must be of this very package, wherever the daemon was started.
_PACKAGE_PARENT = Path(__file__).resolve().parent.parent
# A worker that dies closes its socket a moment before it can be waited for.
_LAST_BREATH_S = 0.02


class WorkerProcess:
    """A child that holds one model instance, with its control socket, status page and pidfd."""

    def __init__(self, model: str, log_level: str) -> None:
        """Start the process; OSError when the system refuses."""
        self.model = model
        self.gone = asyncio.Event()
        self._killed_for = ""
        self._exited = asyncio.Event()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._ids = itertools.count(1)
        with contextlib.ExitStack() as undo:
            self.status_fd = _owned(undo, segment.create_status_page())
            self.status_read_fd = _owned(undo, segment.read_only(self.status_fd))
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(ours.close)
            with theirs:
                self._process = _spawn(theirs.fileno(), log_level)
            undo.callback(self._process.wait)
            undo.callback(self._process.kill)
            self.pid = self._process.pid
            self._pidfd = _owned(undo, os.pidfd_open(self.pid))
            undo.pop_all()
        self._link = Link(ours, self.gone.set)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)
        self._reader = asyncio.create_task(self._read())

    async def request(
        self, op: str, fds: Sequence[int] = (), *, timeout_s: float | None, **fields: Any
    ) -> dict[str, Any]:
        """Ask the worker and wait for its reply; TimeoutError when it takes longer.

        Raises what the worker answers, and WORKER_CRASHED when it dies first.
        """
        self.check_alive()
        request = next(self._ids)
        reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[request] = reply
        try:
            self._link.send({"id": request, "op": op, **fields}, fds)
            async with asyncio.timeout(timeout_s):
                body = await reply
        finally:
            self._waiting.pop(request, None)
        if body.get("ok") is not True:
            raise messages.error_of(body)
        return body

    def tell(self, op: str, **fields: Any) -> None:
        """Ask the worker for something whose reply does not matter."""
        if self.gone.is_set():
            return
        try:
            self._link.send({"id": next(self._ids), "op": op, **fields})
        except SidecamlError as error:
            log.error(
                "worker %d of %s: killed, because it reads no messages: %s", self.pid, self.model, error
            )
            self.kill()

    def check_alive(self) -> None:
        """Raise WORKER_CRASHED when it is gone."""
        if self.gone.is_set():
            raise self._crashed()

    def kill(self, why: str = "") -> None:
        """End it at once; `why` is how it ended, in words, where that is more than the signal."""
        if not self._exited.is_set():
            self._killed_for = self._killed_for or why
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def wait_gone(self) -> None:
        """Wait until it no longer serves; then, for a moment, until it is known how it ended."""
        await self.gone.wait()
        await self.exits_within(_LAST_BREATH_S)

    async def exits_within(self, timeout_s: float) -> bool:
        """Whether the process is over within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._exited.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Make sure that the process is over, and close everything."""
        self.kill()
        await self._exited.wait()
        self._reader.cancel()
        self._link.close()
        messages.close_all([self._pidfd, self.status_fd, self.status_read_fd])

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        code = self._process.returncode
        if self._killed_for:
            return self._killed_for
        if code is None:
            return "closed its control socket"
        if code >= 0:
            return f"exited with code {code}"
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._process.wait()
        self._exited.set()
        self.gone.set()
        self._fail_waiting()

    async def _read(self) -> None:
        try:
            while (body := await self._link.receive()) is not None:
                number = body.get("id")
                reply = self._waiting.pop(number, None) if isinstance(number, int) else None
                if reply and not reply.done():
                    reply.set_result(body)
        except SidecamlError as error:
            log.error(
                "worker %d of %s: killed, because it does not keep to the protocol: %s",
                self.pid,
                self.model,
                error,
            )
            self.kill()
        await self.exits_within(_LAST_BREATH_S)
        self._fail_waiting()

    def _fail_waiting(self) -> None:
        for reply in self._waiting.values():
            if not reply.done():
                reply.set_exception(self._crashed())
        self._waiting.clear()

    def _crashed(self) -> SidecamlError:
        return SidecamlError(
            ErrorCode.WORKER_CRASHED, f"the worker of model {self.model!r} {self.ending}: try again"
        )


def _owned(undo: contextlib.ExitStack, fd: int) -> int:
    undo.callback(os.close, fd)
    return fd


def _spawn(control_fd: int, log_level: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "ipc_server.worker", "--control-fd", str(control_fd)],
        cwd=_PACKAGE_PARENT,
        env=_environment(os.environ, log_level),
        stdin=subprocess.DEVNULL,
        pass_fds=[control_fd],
    )


def _environment(base: Mapping[str, str], log_level: str) -> dict[str, str]:
    # ONNX Runtime opens a telemetry database as soon as it is loaded unless it is told not to beforehand.
    return {**base, "ORT_DISABLE_TELEMETRY": "1", "SIDECAML_LOG_LEVEL": log_level}
