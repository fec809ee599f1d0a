"""One worker process as the supervisor sees it: started or taken over, asked, ended, waited for."""

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
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ipc_server import messages
from ipc_server.abi import ErrorCode
from ipc_server.batching import Batching
from ipc_server.errors import SidecamlError
from ipc_server.lifeline import Lifeline
from ipc_server.link import Link
from ipc_server.signature import Signature
from ipc_server.time_limit import time_limit

log = logging.getLogger(__name__)

# The worker must be of this very package, wherever the daemon was started.
_PACKAGE_PARENT = Path(__file__).resolve().parent.parent
# A worker that dies closes its socket a moment before it can be waited for.
_LAST_BREATH_S = 1.0

Event = Mapping[str, Any]


class WorkerProcess:
    """A process that holds one model instance, with its control socket and its pidfd."""

    def __init__(
        self,
        model: str,
        sock: socket.socket,
        pidfd: int,
        pid: int,
        child: subprocess.Popen[bytes] | None = None,
    ) -> None:
        """Take over a worker that runs, its control socket and its pidfd; without `child` it is not ours.

        How a process ended that is not ours is not known: nobody but its parent may ask.
        """
        self.model = model
        self.pid = pid
        # What it has loaded, how that is batched, whether it is done, whether it serves: for its instance.
        self.signature = Signature((), ())
        self.batching = Batching()
        self.loaded = False
        self.serves = False
        self.on_event: Callable[[Event], None] = lambda _: None
        # Called as soon as it executes nothing any more, before anybody who waits for a reply is told.
        self.on_exit: Callable[[], None] = lambda: None
        # Of CLOCK_MONOTONIC: since when we have it, and when it last said anything.
        self.started_at = self.heard_at = time.monotonic()
        # Set when it no longer serves; it may take a moment more until it is over.
        self.gone = asyncio.Event()
        self._pidfd = pidfd
        self._child = child
        # Only its parent has one.
        self._lifeline: Lifeline | None = None
        # What to do when it is known how it ended.
        self._at_end: list[Callable[[], None]] = []
        self._over = False
        self._killed_for = ""
        self._exited = asyncio.Event()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        # A worker may still answer what an earlier supervisor asked: no number comes twice.
        self._ids = itertools.count(time.monotonic_ns())
        self._link = Link(sock, self.gone.set)
        asyncio.get_running_loop().add_reader(pidfd, self._reap)
        self._reader = asyncio.create_task(self._read())

    @classmethod
    def spawn(cls, model: str, log_level: str) -> WorkerProcess:
        """Start a worker; OSError when the system refuses."""
        with contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(ours.close)
            lifeline = Lifeline()
            undo.callback(lifeline.close)
            with theirs:
                child = _spawn(theirs.fileno(), lifeline.fd, log_level)
            undo.callback(child.wait)
            undo.callback(child.kill)
            pidfd = os.pidfd_open(child.pid)
            undo.callback(os.close, pidfd)
            worker = cls(model, ours, pidfd, child.pid, child)
            worker._lifeline = lifeline
            undo.pop_all()
        return worker

    @property
    def pidfd(self) -> int:
        """The descriptor that tells its end."""
        return self._pidfd

    @property
    def control_fd(self) -> int:
        """The descriptor of our end of its control socket."""
        return self._link.fileno()

    @property
    def backlog(self) -> int:
        """How many messages wait for it to read earlier ones: it reads none while it runs a request."""
        return self._link.backlog

    def ask(self, op: str, fds: Sequence[int] = (), **fields: Any) -> asyncio.Future[dict[str, Any]]:
        """Ask now, and give its reply when it comes.

        What comes raises what the worker answers, and WORKER_CRASHED when it dies first; so does this.
        """
        self.check_alive()
        number = next(self._ids)
        self._link.send({"id": number, "op": op, **fields}, fds)
        reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = reply
        reply.add_done_callback(lambda _: self._waiting.pop(number, None))
        return reply

    async def request(
        self, op: str, fds: Sequence[int] = (), *, timeout_s: float | None, **fields: Any
    ) -> dict[str, Any]:
        """Ask the worker and wait for its reply; TimeoutError when it takes longer."""
        async with time_limit(timeout_s):
            return await self.ask(op, fds, **fields)

    def tell(self, op: str, then: Callable[[], None] = lambda: None, **fields: Any) -> None:
        """Ask the worker for something whose reply does not matter.

        `then` is called when it is done; or when the worker is over, which does nothing more either.
        """
        try:
            self.ask(op, **fields).add_done_callback(partial(_told, then))
        except SidecamlError as error:
            if not self.gone.is_set():
                log.error(
                    "worker %d of %s: killed, because it reads no messages: %s", self.pid, self.model, error
                )
                self.kill("was killed, because it reads no messages")
            self.when_known(then)

    def check_alive(self) -> None:
        """Raise WORKER_CRASHED when it is gone."""
        if self.gone.is_set():
            raise self._crashed()

    def kill(self, why: str = "") -> None:
        """End it at once; `why` is how it ended, in words, where that is more than the signal."""
        if not self._exited.is_set():
            self._killed_for = self._killed_for or why
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def wake(self) -> None:
        """Have it go on if it is stopped."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)

    @property
    def is_over(self) -> bool:
        """Whether it executes nothing any more: only then does nobody write what it wrote."""
        return self._over

    def watch_closely(self) -> None:
        """Learn of its end before its process is gone; it must have answered by then."""
        if self._lifeline:
            self._lifeline.watch(self.pid, self._end)

    def when_known(self, act: Callable[[], None]) -> None:
        """Do something when it is known how it ended, which may be a moment after its end."""
        if self._exited.is_set():
            act()
        else:
            self._at_end.append(act)

    async def wait_exited(self) -> None:
        """Wait until the process is over."""
        await self._exited.wait()

    async def exits_within(self, timeout_s: float) -> bool:
        """Whether the process is over within the time."""
        try:
            async with time_limit(timeout_s):
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
        if self._lifeline:
            self._lifeline.close()
        messages.close_all([self._pidfd])

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        if not self._exited.is_set():
            return self._killed_for or ("died" if self._over else "closed its control socket")
        code = self._child.returncode if self._child else None
        if code is None:
            return self._killed_for or "ended, how is not known: an earlier daemon had started it"
        # What killed it may have been quicker than we.
        if self._killed_for and code == -signal.SIGKILL:
            return self._killed_for
        if code >= 0:
            return f"exited with code {code}"
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"

    @property
    def was_killed_from_outside(self) -> bool:
        """Whether it ended by SIGKILL, and not by ours: the kernel's way when there is no memory."""
        code = self._child.returncode if self._child else None
        return code == -signal.SIGKILL and not self._killed_for

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        if self._child:
            self._child.returncode = _reaped(self._child.pid, self._pidfd)
        self._exited.set()
        try:
            self._end()
        finally:
            self._fail_waiting()
            for act in self._at_end:
                act()

    def _end(self) -> None:
        """It executes nothing any more."""
        if self._over:
            return
        self._over = True
        self.gone.set()
        self.on_exit()

    async def _read(self) -> None:
        try:
            while (body := await self._link.receive()) is not None:
                self.heard_at = time.monotonic()
                self._heard(body)
        except SidecamlError as error:
            self.kill(f"was killed, because it does not keep to the protocol: {error}")
        # One that cannot be asked is of no use, and nobody may take over while it lives.
        if not await self.exits_within(_LAST_BREATH_S):
            log.error("worker %d of %s: killed, because it closed its control socket", self.pid, self.model)
            self.kill("was killed, because it closed its control socket")

    def _heard(self, body: Event) -> None:
        number = body.get("id")
        if number is None:
            self.on_event(body)
            return
        reply = self._waiting.get(number) if isinstance(number, int) else None
        if reply is None or reply.done():
            return
        if body.get("ok") is True:
            reply.set_result(dict(body))
        else:
            reply.set_exception(messages.error_of(body))

    def _fail_waiting(self) -> None:
        for reply in list(self._waiting.values()):
            if not reply.done():
                reply.set_exception(self._crashed())

    def _crashed(self) -> SidecamlError:
        return SidecamlError(
            ErrorCode.WORKER_CRASHED, f"the worker of model {self.model!r} {self.ending}: try again"
        )


def _told(then: Callable[[], None], reply: asyncio.Future[dict[str, Any]]) -> None:
    if not reply.cancelled():
        # Looked at, whatever it is: it does not matter.
        reply.exception()
    then()


def _reaped(pid: int, pidfd: int) -> int:
    """Give a dead child's exit code, and have it reaped by a thread.

    The kernel forgets what it knew of the process's entries in /proc then, and waits, spinning, for whoever
    looks at them: for seconds, where that one gets no processor.
    """
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
    try:
        threading.Thread(target=_reap_quietly, args=(pid,), name=f"reaps {pid}", daemon=True).start()
    except RuntimeError:
        # On a full machine no thread can be had: its end must be known all the same.
        _reap_quietly(pid)
    assert result is not None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def _reap_quietly(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _spawn(control_fd: int, lifeline_fd: int, log_level: str) -> subprocess.Popen[bytes]:
    descriptors = ["--control-fd", str(control_fd), "--lifeline-fd", str(lifeline_fd)]
    return subprocess.Popen(
        [sys.executable, "-m", "ipc_server.worker", *descriptors],
        cwd=_PACKAGE_PARENT,
        env=_environment(os.environ, log_level),
        stdin=subprocess.DEVNULL,
        pass_fds=[control_fd, lifeline_fd],
    )


def _environment(base: Mapping[str, str], log_level: str) -> dict[str, str]:
    # ONNX Runtime opens a telemetry database as soon as it is loaded unless it is told not to beforehand.
    return {**base, "ORT_DISABLE_TELEMETRY": "1", "SIDECAML_LOG_LEVEL": log_level}
