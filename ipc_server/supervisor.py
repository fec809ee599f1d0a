"""The daemon's main process: takes clients in, keeps the models served, ends cleanly.

It never imports an inference library and never maps a segment: no model and no client may kill it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import signal
import socket

from ipc_server import __version__, messages
from ipc_server.abi import ErrorCode
from ipc_server.channel import Channels
from ipc_server.config import Config
from ipc_server.control import Connection, Service
from ipc_server.errors import SidecamlError
from ipc_server.link import Link
from ipc_server.listener import Listener
from ipc_server.model import Model

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# How many clients beyond the limit are told so at the same time; further ones are only closed.
MOST_REFUSALS = 32
_ACCEPT_PAUSE_S = 0.5
_LAST_WORDS_S = 1.0
_OUT_OF_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def run(config: Config, *, strict: bool = False) -> int:
    """Serve until a signal ends it; the exit code. Raises ListenError when the socket cannot be had.

    With `strict`, a model that cannot be loaded ends the daemon; without, the others are served.
    """
    _raise_descriptor_limit()
    listener = Listener(config.socket)
    try:
        return asyncio.run(Supervisor(config, listener, strict=strict).run())
    finally:
        listener.close()


class Supervisor:
    """Everything that runs on the daemon's event loop."""

    def __init__(self, config: Config, listener: Listener, *, strict: bool) -> None:
        """Know what to serve and where; `run` does it."""
        self._config = config
        self._listener = listener
        self._strict = strict
        channels = Channels()
        models = {name: Model(model, config, channels) for name, model in config.models.items()}
        self._service = Service(models, channels, config.limits)
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._refusals: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._force = asyncio.Event()

    async def run(self) -> int:
        """Serve until told to stop."""
        self._watch_signals()
        log.info("sidecaml %s: process %d listens on %s", __version__, os.getpid(), self._listener.path)
        self._accept_on()
        lives = [asyncio.create_task(model.run()) for model in self._service.models.values()]
        announcing = asyncio.create_task(self._announce())
        try:
            await self._stop.wait()
        finally:
            announcing.cancel()
            await self._shut_down(lives)
        return self._exit_code(announcing)

    def _exit_code(self, announcing: asyncio.Task[bool]) -> int:
        all_loaded = announcing.cancelled() or not announcing.done() or announcing.result()
        return 1 if self._strict and not all_loaded else 0

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._told_to_stop, number)

    def _told_to_stop(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            log.warning("%s again: ending at once", number.name)
            self._force.set()
        else:
            log.info("%s: finishing what runs, then ending", number.name)
            self._stop.set()

    async def _announce(self) -> bool:
        """Log one line when every model is loaded or has failed; whether all are loaded."""
        models = list(self._service.models.values())
        for model in models:
            await model.settled.wait()
        names = [model.name for model in models if model.state == "ready"]
        failed = [model.name for model in models if model.state != "ready"]
        log.info(
            "ready: %d of %d models on %s: %s%s",
            len(names),
            len(models),
            self._listener.path,
            ", ".join(names) or "none",
            f"; failed: {', '.join(failed)}" if failed else "",
        )
        if failed and self._strict:
            log.error("--strict: ending, because a model failed")
            self._stop.set()
        return not failed

    def _accept_on(self) -> None:
        if self._listener.sock.fileno() >= 0:
            asyncio.get_running_loop().add_reader(self._listener.sock, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in _OUT_OF_ROOM:
                raise
            self._pause_accepting(error)
            return
        limit = self._config.limits.max_connections
        if len(self._connections) >= limit:
            self._refuse(
                sock, f"{limit} clients are connected and max_connections is {limit}: close one, or raise it"
            )
            return
        try:
            connection = Connection(sock, self._service)
        except OSError as error:
            self._refuse(sock, f"the daemon has no room for another client: {error.strerror}")
            return
        task = connection.start()
        self._connections[task] = connection
        task.add_done_callback(self._ended)

    def _pause_accepting(self, error: OSError) -> None:
        log.error("no client can be accepted: %s: trying again in %.1f s", error.strerror, _ACCEPT_PAUSE_S)
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener.sock)
        loop.call_later(_ACCEPT_PAUSE_S, self._accept_on)

    def _refuse(self, sock: socket.socket, why: str) -> None:
        log.warning("a client was refused: %s", why)
        if len(self._refusals) >= MOST_REFUSALS:
            sock.close()
            return
        task = asyncio.create_task(_refuse(sock, SidecamlError(ErrorCode.LIMIT, why)))
        self._refusals.add(task)
        task.add_done_callback(self._refusals.discard)

    def _ended(self, task: asyncio.Task[None]) -> None:
        connection = self._connections.pop(task)
        if not task.cancelled() and task.exception():
            log.error("client %d: its connection failed", connection.pid, exc_info=task.exception())

    async def _shut_down(self, lives: list[asyncio.Task[None]]) -> None:
        """Let the workers finish, tell the clients, and leave nothing."""
        self._service.stopping = True
        asyncio.get_running_loop().remove_reader(self._listener.sock)
        self._listener.close()
        forcing = asyncio.create_task(self._kill_when_forced())
        timeout_s = self._config.limits.shutdown_timeout_s
        models = self._service.models.values()
        await asyncio.gather(*(model.stop(timeout_s) for model in models))
        await asyncio.gather(*lives, return_exceptions=True)
        await asyncio.gather(*(connection.flush(_LAST_WORDS_S) for connection in self._connections.values()))
        forcing.cancel()
        await self._dismiss()
        log.info("ended")

    async def _kill_when_forced(self) -> None:
        await self._force.wait()
        for model in self._service.models.values():
            model.kill()

    async def _dismiss(self) -> None:
        for connection in list(self._connections.values()):
            connection.stop()
        for refusal in self._refusals:
            refusal.cancel()
        await asyncio.gather(*self._connections, *self._refusals, return_exceptions=True)


async def _refuse(sock: socket.socket, error: SidecamlError) -> None:
    link = Link(sock)
    try:
        link.send(messages.reply_error(None, error))
        await link.finish()
    finally:
        link.close()


def _raise_descriptor_limit() -> None:
    """Take as many descriptors as the system allows: a channel holds three, a connection two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
