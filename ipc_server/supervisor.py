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
from collections.abc import Callable

from ipc_server import __version__, messages, segment
from ipc_server.abi import ErrorCode
from ipc_server.access import peer_of
from ipc_server.channel import Channels
from ipc_server.config import Config
from ipc_server.control import Connection, Service
from ipc_server.errors import SidecamlError
from ipc_server.fleet import Fleet
from ipc_server.keeper import Keeper
from ipc_server.link import Link
from ipc_server.listener import Listener
from ipc_server.reload import Reload
from ipc_server.restore import Restoration
from ipc_server.systemd.manager import ServiceManager
from ipc_server.systemd.sockets import listener_for, stop_listening
from ipc_server.threads import started_pool

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# How many clients beyond the limit are told so at the same time; further ones are only closed.
MOST_REFUSALS = 32
_ACCEPT_PAUSE_S = 0.5
_LAST_WORDS_S = 1.0
_OUT_OF_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def run(config: Config, read_config: Callable[[], Config], *, strict: bool = False) -> int:
    """Serve until a signal ends it; the exit code. Raises ListenError when the socket cannot be had.

    `read_config` gives the configuration anew when a signal asks for that. With `strict`, a model that
    cannot be loaded ends the daemon; without, the others are served.
    """
    _raise_descriptor_limit()
    manager = ServiceManager(os.environ)
    try:
        listener = listener_for(config.socket, config.access, manager.store)
        try:
            return asyncio.run(Supervisor(config, read_config, listener, manager, strict=strict).run())
        finally:
            listener.close()
    finally:
        manager.close()


class Supervisor:
    """Everything that runs on the daemon's event loop."""

    def __init__(
        self,
        config: Config,
        read_config: Callable[[], Config],
        listener: Listener,
        manager: ServiceManager,
        *,
        strict: bool,
    ) -> None:
        """Know what to serve, where, and under whose care; `run` does it."""
        self._config = config
        self._listener = listener
        self._manager = manager
        self._strict = strict
        self._channels = Channels(Keeper(manager.store))
        self._fleet = Fleet(config, self._channels)
        self._service = Service(self._fleet.models, self._channels, config.limits, config.access)
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._refusals: set[asyncio.Task[None]] = set()
        self._reload = Reload(read_config, self._change, manager)
        self._leaves = False
        self._stop = asyncio.Event()
        self._force = asyncio.Event()

    async def run(self) -> int:
        """Serve until told to stop."""
        asyncio.get_running_loop().set_default_executor(started_pool())
        self._watch_signals()
        self._manager.attend(self._status)
        log.info("sidecaml %s: process %d listens on %s", __version__, os.getpid(), self._listener.path)
        segment.remove_leftovers()
        await self._take_up()
        self._accept_on()
        announcing = asyncio.create_task(self._announce())
        try:
            await self._stop.wait()
        finally:
            announcing.cancel()
            self._reload.cancel()
            if self._leaves:
                await self._leave()
            await self._shut_down()
        return self._exit_code(announcing)

    async def _take_up(self) -> None:
        """Begin where the last daemon was, if systemd kept anything of it."""
        restoration = Restoration(self._config, self._channels)
        await restoration.end_the_lost()
        restoration.take(self._service)
        self._fleet.launch(restoration.editions.values())
        for connection in restoration.connections.values():
            self._converse(connection)

    def _exit_code(self, announcing: asyncio.Task[bool]) -> int:
        all_loaded = announcing.cancelled() or not announcing.done() or announcing.result()
        return 1 if self._strict and not all_loaded else 0

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._told_to_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload.begin)

    def _told_to_stop(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            log.warning("%s again: ending at once", number.name)
            self._force.set()
            return
        # Nobody can tell whether a restart follows: workers and channels are kept for it, and end with the
        # store when none does.
        self._leaves = number == signal.SIGTERM and self._manager.store.is_there
        then = "leaving what runs to the next daemon" if self._leaves else "finishing what runs, then ending"
        log.info("%s: %s", number.name, then)
        self._stop.set()

    async def _change(self, config: Config) -> None:
        """Serve another configuration from now on."""
        if config.socket != self._config.socket:
            log.warning("socket = %s holds from the next start on", config.socket)
        self._config = config
        self._service.limits, self._service.access = config.limits, config.access
        logging.getLogger().setLevel(config.log_level.upper())
        await self._fleet.change(config)
        log.info("the configuration is the new one: %s", self._status())

    async def _announce(self) -> bool:
        """Log one line when every model is loaded or has failed; whether all are loaded."""
        await self._fleet.settled()
        models = list(self._fleet.models.values())
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
        self._manager.ready()
        if failed and self._strict:
            log.error("--strict: ending, because a model failed")
            self._stop.set()
        return not failed

    def _status(self) -> str:
        """Say in a few words how things are, for `systemctl status`."""
        models = self._fleet.models.values()
        ready = sum(model.state == "ready" for model in models)
        return (
            f"{ready} of {len(models)} models ready, {len(self._connections)} clients, "
            f"{len(self._channels)} channels"
        )

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
        try:
            connection = self._connection(sock)
        except SidecamlError as error:
            self._refuse(sock, error)
            return
        except OSError as error:
            why = f"the daemon has no room for another client: {error.strerror}"
            self._refuse(sock, SidecamlError(ErrorCode.LIMIT, why))
            return
        self._converse(connection)

    def _converse(self, connection: Connection) -> None:
        task = connection.start()
        self._connections[task] = connection
        task.add_done_callback(self._ended)

    def _connection(self, sock: socket.socket) -> Connection:
        """Judge who connected; DENIED for a stranger, LIMIT where there is no place for it."""
        peer = peer_of(sock)
        self._service.access.check(peer)
        limits, uids = self._service.limits, [other.uid for other in self._connections.values()]
        for held, most, whose in (
            (len(uids), limits.max_connections, "max_connections"),
            (uids.count(peer.uid), limits.max_connections_per_user, "max_connections_per_user"),
        ):
            if held >= most:
                raise SidecamlError(
                    ErrorCode.LIMIT,
                    f"{held} clients are connected and {whose} is {most}: close one, or raise it",
                )
        return Connection(sock, peer, self._service)

    def _pause_accepting(self, error: OSError) -> None:
        log.error("no client can be accepted: %s: trying again in %.1f s", error.strerror, _ACCEPT_PAUSE_S)
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener.sock)
        loop.call_later(_ACCEPT_PAUSE_S, self._accept_on)

    def _refuse(self, sock: socket.socket, error: SidecamlError) -> None:
        log.warning("a client was refused: %s", error)
        if len(self._refusals) >= MOST_REFUSALS:
            sock.close()
            return
        task = asyncio.create_task(_refuse(sock, error))
        self._refusals.add(task)
        task.add_done_callback(self._refusals.discard)

    def _ended(self, task: asyncio.Task[None]) -> None:
        connection = self._connections.pop(task)
        if not task.cancelled() and task.exception():
            log.error("client %d: its connection failed", connection.pid, exc_info=task.exception())

    async def _leave(self) -> None:
        """End this process and nothing else: not even what would be tidied up at the end of tasks."""
        self._manager.stopping()
        asyncio.get_running_loop().remove_reader(self._listener.sock)
        resting = [asyncio.create_task(connection.rest()) for connection in self._connections.values()]
        if resting:
            await asyncio.wait(resting, timeout=_LAST_WORDS_S)
        # One that is stopped could not end when the store does.
        self._fleet.wake()
        log.info("left to the next daemon: %s", self._status())
        self._manager.close()
        logging.shutdown()
        os._exit(0)

    async def _shut_down(self) -> None:
        """Let the workers finish, tell the clients, and leave nothing."""
        self._service.stopping = True
        self._manager.stopping()
        asyncio.get_running_loop().remove_reader(self._listener.sock)
        stop_listening(self._listener, self._manager.store)
        forcing = asyncio.create_task(self._kill_when_forced())
        await self._fleet.stop(self._config.limits.shutdown_timeout_s)
        await asyncio.gather(*(connection.flush(_LAST_WORDS_S) for connection in self._connections.values()))
        forcing.cancel()
        await self._dismiss()
        log.info("ended")

    async def _kill_when_forced(self) -> None:
        await self._force.wait()
        self._fleet.kill()

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
